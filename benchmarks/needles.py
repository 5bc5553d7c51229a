"""Recall of something seen once, by the number of rows since: three needle tasks.

    python benchmarks/needles.py [--tasks event level regime] [--nets titans momentum attention]
    python benchmarks/needles.py --check

A trial is a series of background (a daily cycle and first-order autoregressive noise) with a needle
in it, which returns D rows later; forecast is what followed it the first time.

event: a motif of 16 rows, all drawn at random, occurs once. D rows later its first 8 rows return;
    the answer are the other 8.
level: a marker variate takes one of 16 codes for a row, and the value goes to a level drawn for it,
    for 8 rows. D rows later the code returns; the answer is the level.
regime: a daily shape lasts for 4 days, another one for D rows, and the first returns. After 4 of
    its rows the answer is its next day.

Nets are trained on distances up to 1,024 and asked at up to 16,384. A trial is recalled if the
RMSE over its answer is at most a tenth of the standard deviation of answers. `reset` is the same
net that has forgotten all up to the last day before the needle returns.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import NamedTuple

import torch
from torch import Tensor

DAY, PATCH, LEAD, CODES = 24, {"event": 8, "level": 8, "regime": 4}, 96, 16
NOISE, MEMORY_OF_NOISE = 0.05, 0.8
TRAINED = (128, 256, 512, 1_024)
DISTANCES = (*TRAINED, 2_048, 4_096, 8_192, 16_384)
TRIALS = 200
# Training: its steps, the share of them on near distances alone, distances, rows of a batch, and
# the rows of background before a carried state.
STEPS = {"event": 800, "level": 600, "regime": 500}
EARLY, NEAR, FAR = 0.35, (40, 88), (64, 1_024)
ROWS, CARRIED = 6_144, 1_536
RATE, RATE_OF_GATES = 3e-3, 9e-3
GATES = ("write", "forget", "move")
NETS = {
    "titans": {"variant": "memory"},
    "momentum": {"variant": "memory", "momentum": True},
    "gate": {"variant": "gate"},
    "attention": {"variant": "attention"},
}


class Trials(NamedTuple):
    """Hold rows (B, L, C) up to where the forecast is made, and the answers (B, H) behind them."""

    past: Tensor
    answer: Tensor


def event(count: int, distance: int, random: torch.Generator, lead: int = LEAD) -> Trials:
    """Show a motif, and its first half again."""
    past = background(count, lead + distance + 8, random)
    motif = torch.randn(count, 16, generator=random)
    past[:, lead : lead + 16] = motif
    past[:, lead + distance :] = motif[:, :8]
    return Trials(past.unsqueeze(2), motif[:, 8:])


def level(count: int, distance: int, random: torch.Generator, lead: int = LEAD) -> Trials:
    """Show a code and a level behind it, and the code again."""
    value = background(count, lead + distance + 8, random)
    level = torch.randn(count, 1, generator=random).expand(-1, 8)
    value[:, lead + 8 : lead + 16] = level
    marker = torch.zeros_like(value)
    code = torch.randint(1, CODES + 1, (count,), generator=random) * (2 / CODES)
    marker[:, lead + 7] = marker[:, -1] = code
    return Trials(torch.stack([value, marker], 2), level)


def regime(count: int, distance: int, random: torch.Generator, lead: int = LEAD) -> Trials:
    """Show a daily shape, another one, and the first four rows of the first again."""
    rows = lead + distance + 4
    hour = torch.arange(rows + DAY) % DAY
    first, second = shapes(count, random)[:, hour], shapes(count, random)[:, hour]
    now = torch.arange(rows + DAY)
    clean = torch.where((now >= lead) & (now < lead + distance), second, first)
    past = clean[:, :rows] + noise(count, rows, random)
    return Trials(past.unsqueeze(2), clean[:, rows:])


TASKS = {"event": event, "level": level, "regime": regime}


def shapes(count: int, random: torch.Generator) -> Tensor:
    """Draw days (B, 24) of mean 0 and variance 1: three harmonics."""
    angle = 2 * math.pi / DAY * torch.outer(torch.arange(1, 4), torch.arange(DAY))
    waves = torch.cat([angle.cos(), angle.sin()])
    return torch.randn(count, 6, generator=random) @ waves / math.sqrt(3)


def noise(count: int, rows: int, random: torch.Generator) -> Tensor:
    """Draw stationary autoregressive noise."""
    fresh = torch.randn(count, rows, generator=random) * NOISE
    fresh[:, 1:] *= math.sqrt(1 - MEMORY_OF_NOISE**2)
    # Doubling: after k rounds every row holds the last 2^k shocks.
    span = 1
    while span < min(rows, 128):
        fresh = fresh + torch.nn.functional.pad(fresh[:, :-span] * MEMORY_OF_NOISE**span, (span, 0))
        span *= 2
    return fresh


def background(count: int, rows: int, random: torch.Generator) -> Tensor:
    """Draw a daily cycle of any size and phase, and noise."""
    phase = torch.rand(count, 1, generator=random) * 2 * math.pi
    size = 0.5 + torch.rand(count, 1, generator=random)
    cycle = torch.sin(2 * math.pi / DAY * torch.arange(rows) + phase)
    return size * cycle + noise(count, rows, random)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--nets", nargs="+", choices=NETS, default=["titans", "attention"])
    parser.add_argument("--steps", type=int, help="of training, in place of each task's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--check", action="store_true", help="of the tasks, and nothing else")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.check:
        check()
        return
    print(f"{'':<20}" + "".join(f"{x:>8,}" for x in DISTANCES) + f"{'CPU-s':>8}", flush=True)
    for task in options.tasks:
        show(task, "chance", [recall(x) for x in ask(None, task)], 0.0)
        for net in options.nets:
            begun = time.process_time()
            model = build(task, options.seed, **NETS[net])
            train(model, task, options.steps or STEPS[task], options.seed)
            # Attention alone sees 7 tokens, whatever lies before them.
            wrong = ask(model, task, rows=2 * DAY if net == "attention" else None)
            show(task, net, [recall(x) for x in wrong], time.process_time() - begun)
            show(task, f"{net}, RMSE", [float(x.square().mean().sqrt()) for x in wrong])
            if net != "attention":
                show(task, f"{net}, reset", [recall(x) for x in ask(model, task, rows=2 * DAY)])


def show(task: str, name: str, figures: list[float], cost: float = 0.0) -> None:
    """Print a row of the table."""
    row = "".join(f"{x:8.2f}" for x in figures)
    print(f"{f'{task} {name}':<20}{row}{cost:8.0f}", flush=True)


def build(task: str, seed: int, **fields: object):
    """Make a small Titans of two blocks: the first one's layer gives the second features.

    Keys, queries and gates are nearly linear in a token. What tells a needle from background, and
    one patch of a shape from another, is not.
    """
    from forecast.batch import Spec
    from forecast.models.titans.model import Titans, TitansConfig

    torch.manual_seed(seed)
    # Two blocks of attention see 7 tokens, 56 rows or less: no needle.
    config = {"width": 128, "depth": 2, "heads": 1, "window": 4, "persistent": 0, "dropout": 0.0}
    config |= {"direct": False, "channel_independent": False, "patch": PATCH[task]} | fields
    horizon, variates = DAY if task == "regime" else 8, 2 if task == "level" else 1
    spec = Spec(lookback=LEAD, horizon=horizon, variates=variates, season=DAY)
    model = Titans(TitansConfig(**config), spec)  # pyright: ignore[reportArgumentType]
    begin(model)
    return model


@torch.no_grad()
def begin(model) -> None:
    """Set first weights that find a needle again before anything is learned.

    The model's own begin near nothing, to correct a ridge regression; these are as large as a net
    without a direct path wants. A query is the key of the same patch, whatever lies before it.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and name != "head":
            gate = name.rpartition(".")[2] in GATES
            layer.weight.normal_(0, (0.1 if gate else 1) / math.sqrt(layer.in_features))
    model.embed.bias.normal_(0, 0.5)
    for number, block in enumerate(model.blocks):
        memory = block.memory
        if memory is None:
            continue
        query, key, _ = memory.project.weight.chunk(3)
        query.copy_(key)
        memory.mix.normal_(0, 0.05)
        memory.mix[-1] = 1.0
        # A half-life of some 5,600 tokens, far beyond what is asked.
        memory.forget.bias.fill_(-9.0)
        if number + 1 < len(model.blocks):
            memory.out.weight.zero_()


def train(model, task: str, steps: int, seed: int) -> None:
    """Train on answers alone: first on near distances, then on all up to 1,024.

    Half of the later batches of `event` and `level` begin with a state carried over background,
    which passes no gradient on: a memory that is full, as it is after a long distance.
    """
    random = torch.Generator().manual_seed(seed)
    gates = [p for name, p in model.named_parameters() if name.split(".")[-2] in GATES]
    others = [p for name, p in model.named_parameters() if name.split(".")[-2] not in GATES]
    groups = [{"params": others, "lr": RATE}, {"params": gates, "lr": RATE_OF_GATES}]
    groups = [group for group in groups if group["params"]]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    rates = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, steps, pct_start=0.1)
    lead = LEAD if task == "regime" else 24
    for step in range(steps):
        early = step < EARLY * steps
        distance = draw(*(NEAR if early else FAR), PATCH[task], random)
        carried = 0 if early or task == "regime" or step % 2 else CARRIED
        count = max(8, ROWS // (distance + lead))
        trials = TASKS[task](count, distance, random, lead + carried)
        state = None
        if carried:
            with torch.no_grad():
                _, state = model.run(batch(trials.past[:, :carried]), kept=0)
        dense, _ = model.run(batch(trials.past[:, carried:]), state, kept=1)
        loss = (dense.values[:, 0, :, 0] - trials.answer).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def draw(least: int, most: int, patch: int, random: torch.Generator) -> int:
    """Draw a distance of whole patches, as often between 100 and 200 as between 200 and 400."""
    share = float(torch.rand((), generator=random))
    return round(least * (most / least) ** share / patch) * patch


def batch(past: Tensor):
    from forecast.batch import SeriesBatch

    return SeriesBatch(past=past)


@torch.no_grad()
def ask(model, task: str, rows: int | None = None) -> list[Tensor]:
    """Give the RMSE of each trial at each distance, in standard deviations of an answer.

    Args:
        model: who is asked; None answers with the mean, 0.
        task: what it is asked.
        rows: read before the needle returns, so many and none before; by default all.
    """
    wrong: list[Tensor] = []
    tail = 4 if task == "regime" else 8
    for distance in DISTANCES:
        # Seeds of training are small: no trial is seen before.
        random = torch.Generator().manual_seed(1_000_000 + distance)
        past, truth = TASKS[task](TRIALS, distance, random)
        past = past if rows is None else past[:, -rows - tail :]
        answer = torch.zeros_like(truth)
        if model is not None:
            parts = (model.run(batch(some), kept=1)[0].values for some in past.split(20))
            answer = torch.cat([part[:, 0, :, 0] for part in parts])
        # Answers have a standard deviation of 1.
        wrong.append((answer - truth).square().mean(1).sqrt())
    return wrong


def recall(wrong: Tensor) -> float:
    """Give the share of trials recalled."""
    return float((wrong <= 0.1).double().mean())


def check() -> None:
    """Hold the tasks to what they say, by rows counted by hand."""
    random = torch.Generator().manual_seed(0)
    past, answer = event(3, 128, random)
    # 96 rows of lead; the motif in rows 96-111, its first half in 96 + 128 = 224 to 231, the last.
    assert past.shape == (3, 232, 1)
    assert torch.equal(past[:, 224:232, 0], past[:, 96:104, 0])
    assert torch.equal(answer, past[:, 104:112, 0])
    past, answer = level(500, 128, random)
    # The code in row 103 and in 103 + 128 = 231, the last, and 0 elsewhere; levels in 104-111.
    assert past.shape == (500, 232, 2)
    assert (past[:, :, 1] != 0).nonzero()[:, 1].unique().tolist() == [103, 231]
    assert torch.equal(past[:, 103, 1], past[:, 231, 1])
    assert len(past[:, 103, 1].unique()) == 16
    assert torch.equal(answer, past[:, 104:112, 0])
    past, answer = regime(500, 128, random)
    # The first shape in rows 0-95, the second in 96-223, the first again in 224-227. The answer
    # begins with row 228 = 9 * 24 + 12: hour 12 of the day, which rows 12 to 35 have as well.
    assert past.shape == (500, 228, 1)
    apart = past[:, 12:36, 0] - answer
    assert abs(float(apart.std()) - NOISE) < 0.002
    assert abs(float((past[:, 224:, 0] - past[:, 8:12, 0]).std()) - NOISE * 2**0.5) < 0.004
    assert float((past[:, 108:132, 0] - answer).std()) > 1
    assert abs(float(answer.std()) - 1) < 0.05
    rest = noise(500, 400, random)
    assert abs(float(rest.std()) - NOISE) < 0.001
    near, far = rest[:, :-1], rest[:, 1:]
    assert abs(float((near * far).mean()) / NOISE**2 - MEMORY_OF_NOISE) < 0.02
    print("The tasks are what they say.")


if __name__ == "__main__":
    main()
