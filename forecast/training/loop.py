"""The one training loop: plain PyTorch over batches that are gathered where the data lie.

What it adds to a bare loop: schedules, precision, gradient clipping, an honest validation loss,
early stopping, checkpoints from which a killed run goes on to bit-equal weights, and signals
obeyed between two steps.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from forecast.batch import Batches
from forecast.device import autocast, choose_precision, memory_errors
from forecast.errors import ForecastError, UsageError
from forecast.models.protocols import Validated
from forecast.recipe import TrainSection
from forecast.training.checkpoint import Checkpoint, Progress
from forecast.training.distributed import Alone, PeerLost, Team
from forecast.training.optimizer import Adam, local

# Windows in a batch of evaluation: the sums do not depend on it.
EVALUATION_BATCH = 256
_REPORT_SECONDS = 0.2

# What every model has beside `forward`: the sum of its loss over observed targets, their number.
Loss = Callable[[Any], tuple[Tensor, Tensor]]


class Interrupted(ForecastError):  # noqa: N818 - it is no error of the run
    """Report that a signal ended the training after a checkpoint was written."""

    def __init__(self, number: int) -> None:
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        super().__init__(
            f"Stopped by {name}; the run is saved.", hint="Add --resume to go on from here."
        )
        self.exit_code = 128 + number


class Watcher(Protocol):
    """Callbacks of a training; every method may do nothing."""

    def begin(self, epochs: int, steps: int) -> None:
        """Take the number of epochs and of steps in each, at the start."""

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Take the steps done of an epoch and its loss so far, a few times a second."""

    def epoch(self, row: dict[str, float]) -> None:
        """Take the figures of a finished epoch."""

    def notice(self, text: str) -> None:
        """Take a sentence that the user should read."""


class Silence:
    """Watch without a word."""

    def begin(self, epochs: int, steps: int) -> None:
        """Do nothing."""

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Do nothing."""

    def epoch(self, row: dict[str, float]) -> None:
        """Do nothing."""

    def notice(self, text: str) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """Result of a training; the model holds the weights of the best epoch."""

    best_epoch: int
    best_loss: float
    history: list[dict[str, float]]


def fit(
    model: nn.Module,
    train: Batches[object],
    val: Batches[object],
    section: TrainSection,
    *,
    watcher: Watcher | None = None,
    checkpoint: Checkpoint | None = None,
    team: Team | None = None,
) -> Fitted:
    """Train a model and leave it with the weights of its best epoch.

    The loss of a step is the mean over the observed targets of its batch. The validation loss is a
    sum over all validation targets divided once, so that it does not depend on the batch size;
    without validation windows the training loss takes its place. A loss that is not finite is never
    the best. A model with
    `validation(batch) -> (sum, count)` is judged by that instead of its loss, and from before the
    first epoch on: where training improves nothing, the model stays as it started.

    Args:
        model: with `loss(batch) -> (sum, count)`, on the device of the windows.
        train: training windows.
        val: validation windows.
        section: how to train.
        watcher: is told how it goes.
        checkpoint: where to save; a checkpoint already there is gone on from.
        team: the processes that train together; None is this one alone.

    Raises:
        Interrupted: SIGINT or SIGTERM came; everything up to the last step is saved.
        PeerLost: another process has ended; everything up to the last step is saved, or where each
            had a part of the weights, up to the last checkpoint.
        UsageError: a loss or a weight is no longer finite, or memory ran out.
    """
    watcher, team = watcher or Silence(), team or Alone()
    device = train.device
    precision = choose_precision(section.precision, device)
    given, model = model, team.wrap(model)
    optimizer = Adam(
        model.parameters(),
        weight_decay=section.weight_decay,
        decoupled=section.optimizer == "adamw",
    )
    progress, best = Progress(), _copy(model)
    restored = checkpoint.restore(model, optimizer, team) if checkpoint else None
    if restored:
        progress, best = restored
        watcher.notice(f"Going on at epoch {progress.epoch + 1}, step {progress.step + 1}.")
    schedule = SCHEDULES[section.schedule]
    loss_of = cast(Loss, model.loss)
    windows = min(section.epoch_windows or len(train), len(train))
    steps = math.ceil(windows / section.batch_size)
    total_steps = steps * section.epochs
    watcher.begin(section.epochs, steps)
    saved = reported = time.monotonic()
    if progress.best_loss is None and len(val) and isinstance(model, Validated):
        before = validation_loss(model, val)
        progress.best_loss = before if math.isfinite(before) else None

    def rate(epoch: int, step: int) -> float:
        return section.learning_rate * schedule(
            epoch, epoch * steps + step, total_steps, section.warm_up
        )

    losses = torch.zeros(2, dtype=torch.float64, device=device)

    def save() -> None:
        if progress.step:
            progress.loss_sum, progress.loss_count = losses.tolist()
        if checkpoint:
            checkpoint.save(progress, model, optimizer, best, team)

    with (
        _signals() as pending,
        memory_errors("training", section.batch_size),
        _saved_when_lost(save if team.whole else None),
        team.guard(),
    ):
        while progress.epoch < section.epochs and not _exhausted(progress, section):
            model.train()
            order = train.order(progress.epoch, section.seed)[:windows].to(device)
            losses[0], losses[1] = progress.loss_sum, progress.loss_count
            parts = order.split(section.batch_size)
            for step in range(progress.step, steps):
                own, counted = team.share(parts[step])
                team.seed(section.seed, progress.epoch, step)
                batch = train.batch(own)
                with autocast(precision, device):
                    total, count = loss_of(batch)
                sums = torch.stack((total.detach() * counted, count * counted))
                due = time.monotonic() - saved > section.checkpoint_seconds
                if team.size > 1:
                    # A signal to one of them stops all after the same step; they save together.
                    said = torch.tensor([bool(pending), due and not team.rank]).to(sums)
                    sums = team.total(torch.cat([sums, said]))
                optimizer.zero_grad()
                (total * (counted * team.factor) / sums[1].clamp(min=1)).backward()
                team.add_gradients(model.parameters())
                if section.clip:
                    nn.utils.clip_grad_norm_(model.parameters(), section.clip)
                optimizer.step(rate(progress.epoch, step))
                losses += sums[:2]
                progress.step = step + 1
                now = time.monotonic()
                stop = bool(pending)
                if team.size > 1:
                    stop, due = (sums[2:] > 0).tolist()
                if stop or due:
                    save()
                    saved = now
                    if stop:
                        raise Interrupted(pending[0] if pending else signal.SIGTERM)
                if now - reported > _REPORT_SECONDS:
                    watcher.step(
                        progress.epoch,
                        progress.step,
                        _mean(losses, "training", progress.epoch, section),
                    )
                    reported = now
            train_loss = _mean(losses, "training", progress.epoch, section)
            val_loss = validation_loss(model, val, team) if len(val) else train_loss
            if not math.isfinite(val_loss):
                raise _diverged("validation loss", progress.epoch, section)
            if _broken(model, team, device):
                raise _diverged("weights", progress.epoch, section)
            progress.epoch, progress.step = progress.epoch + 1, 0
            progress.loss_sum = progress.loss_count = 0.0
            progress.stale += 1
            if progress.best_loss is None or val_loss < progress.best_loss:
                progress.best_loss, progress.best_epoch, progress.stale = (
                    val_loss,
                    progress.epoch,
                    0,
                )
                best = _copy(model)
            row = {
                "epoch": progress.epoch,
                "train_loss": train_loss,
                "val_loss": val_loss,
                "learning_rate": rate(progress.epoch - 1, steps - 1),
            }
            progress.history.append(row)
            watcher.epoch(row)
            save()
            saved = time.monotonic()
            if float(team.total(torch.tensor(float(bool(pending)), device=device))):
                raise Interrupted(pending[0] if pending else signal.SIGTERM)
    if weights := team.gather(best):
        given.load_state_dict(weights)
    given.to(device).eval()
    assert progress.best_loss is not None
    return Fitted(
        best_epoch=progress.best_epoch, best_loss=progress.best_loss, history=progress.history
    )


@torch.no_grad()
def validation_loss(model: nn.Module, val: Batches[object], team: Team | None = None) -> float:
    """Take the mean loss over all targets of a part, in fp32 and without dropout.

    Of a model with `validation`, take the mean of that.
    """
    team = team or Alone()
    model.eval()
    loss_of = model.validation if isinstance(model, Validated) else cast(Loss, model.loss)
    total, count, place = 0.0, 0.0, team.size
    for number, batch in enumerate(val.batches(EVALUATION_BATCH)):
        place = number % team.size
        if place == team.rank:
            batch_total, batch_count = loss_of(batch)
            total += float(batch_total)
            count += float(batch_count)
    if not team.whole and place < team.rank:
        # The last batches were not enough for all, and weights are brought together by all.
        loss_of(batch)  # pyright: ignore[reportPossiblyUnboundVariable]
    total, count = team.total(torch.tensor([total, count], dtype=torch.float64)).tolist()
    return total / max(count, 1.0)


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


def _one_cycle(done: float, warm_up: float) -> float:
    if done < warm_up:
        # From a twenty-fifth of the full rate up to it, along half a cosine.
        return 0.04 + 0.96 * (1 - _cosine(done / warm_up))
    return _cosine((done - warm_up) / (1 - warm_up))


# (epochs finished, steps finished, steps of the whole training, share of them that `onecycle` takes
# on its way up) -> factor of the learning rate
SCHEDULES: dict[str, Callable[[int, int, int, float], float]] = {
    "constant": lambda epoch, step, total, up: 1.0,
    "halving": lambda epoch, step, total, up: 0.5 ** max(0, epoch - 1),
    "cosine": lambda epoch, step, total, up: _cosine(step / total),
    "onecycle": lambda epoch, step, total, up: _one_cycle(step / total, up),
}


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _exhausted(progress: Progress, section: TrainSection) -> bool:
    return section.patience > 0 and progress.stale >= section.patience


def _mean(losses: Tensor, name: str, epoch: int, section: TrainSection) -> float:
    total, count = losses.tolist()
    if not math.isfinite(total):
        raise _diverged(f"{name} loss", epoch, section)
    return total / max(count, 1.0)


def _broken(model: nn.Module, team: Team, device: torch.device) -> bool:
    """Whether a weight of any process is not finite: the last step of an epoch may have done it."""
    broken = any(not bool(local(weight.detach()).isfinite().all()) for weight in model.parameters())
    return bool(team.total(torch.tensor(float(broken), device=device)))


def _diverged(what: str, epoch: int, section: TrainSection) -> UsageError:
    verb = "are" if what.endswith("s") and not what.endswith("ss") else "is"
    return UsageError(
        f"Epoch {epoch + 1}: the {what} {verb} no longer finite at learning rate "
        f"{section.learning_rate:g} ({section.precision} precision); the training has diverged.",
        hint=f"Try --set train.learning_rate={section.learning_rate / 10:g}, "
        "--set train.clip=1.0, or --set train.precision=fp32.",
    )


@contextmanager
def _saved_when_lost(save: Callable[[], None] | None) -> Generator[None]:
    """Save when another process has ended: the step under way has changed no weight yet.

    Not so where that process had a part of the weights.
    """
    try:
        yield
    except PeerLost:
        if save:
            save()
        raise


@contextmanager
def _signals() -> Generator[list[int]]:
    """Collect SIGINT and SIGTERM so that a step is never torn apart; a second one acts at once."""
    pending: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield pending
        return

    def note(number: int, frame: object) -> None:
        if pending:
            raise KeyboardInterrupt
        pending.append(number)

    before: dict[int, Any] = {
        number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield pending
    except PeerLost:
        # What started the processes now ends this one too; it shall tell why first.
        before[signal.SIGTERM] = signal.SIG_IGN
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
