"""Time and memory of PredFormer and of the data under it, at the published sizes.

    python benchmarks/grids.py [--repeat 5] [--threads 2] [--points taxibj weather full storage]

taxibj   forward and training step of triplet-STS at batch 16, beside the same network in plain
         torch (two einsums for attention, dropout and gate as separate operations)
weather  training step of factorised T-S at WeatherBench's 12 frames of 32 x 64, batch 16
full     attention over all 1,536 tokens of WeatherBench, no scores in memory
storage  a series of TaxiBJ's size in memory, and evaluation over 500 and 5,000 of its windows

Every point runs in a process of its own. Times are process CPU time, the least of the repeats
after a warm-up; memory is the process's peak resident size, with the imports in it or, where it
says so, without.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TAXIBJ = {"lookback": 4, "horizon": 4, "channels": 2, "rows": 32, "columns": 32}
WEATHER = {"lookback": 12, "horizon": 12, "channels": 1, "rows": 32, "columns": 64}
POINTS = {
    "taxibj": [
        {"network": network, "precision": precision}
        for network in ("plain", "ours")
        for precision in ("fp32", "bf16")
    ],
    "weather": [
        {"precision": precision, "recompute": recompute}
        for precision in ("fp32", "bf16")
        for recompute in (False, True)
    ],
    "full": [{"grad": grad} for grad in (False, True)],
    "storage": [{"windows": windows} for windows in (500, 5_000)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", nargs="+", choices=POINTS, default=list(POINTS))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--point", nargs=2, metavar=("NAME", "SETTINGS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        name, settings = options.point
        print(json.dumps(globals()[f"measure_{name}"](options, **json.loads(settings))))
        return
    for name in options.points:
        print(f"\n{name}")
        for settings in POINTS[name]:
            command = [sys.executable, __file__, "--point", name, json.dumps(settings)]
            command += [f"--repeat={options.repeat}", f"--threads={options.threads}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            shown = " ".join(str(value) for value in settings.values())
            figures = json.loads(done.stdout)
            print(
                f"  {shown:<16}" + "".join(f"{key} {value:<10}" for key, value in figures.items())
            )


def measure_taxibj(options: argparse.Namespace, network: str, precision: str) -> dict[str, float]:
    import torch

    from forecast.models.predformer import PredFormerConfig

    torch.set_num_threads(options.threads)
    return _timed(options, TAXIBJ, PredFormerConfig(), precision, plain=network == "plain")


def measure_weather(
    options: argparse.Namespace, precision: str, recompute: bool
) -> dict[str, float]:
    import torch

    from forecast.models.predformer import PredFormerConfig

    torch.set_num_threads(options.threads)
    options.repeat = 1
    config = PredFormerConfig(
        variant="fac_ts", blocks=8, gate=512, path_dropout=0.25, recompute=recompute
    )
    return _timed(options, WEATHER, config, precision, plain=False)


def measure_full(options: argparse.Namespace, grad: bool) -> dict[str, float]:
    import torch

    from forecast.kernels.attention import attention

    torch.set_num_threads(options.threads)
    q, k, v = (torch.randn(1, 8, 1536, 32, requires_grad=grad) for _ in range(3))
    before = _peak()
    # All scores of one sample are 75 MB.
    out = attention(q, k, v)
    if grad:
        out.sum().backward()
    return {"MB above the inputs": round(_peak() - before, 1)}


def measure_storage(options: argparse.Namespace, windows: int) -> dict[str, float]:
    import h5py
    import numpy as np
    import torch

    from forecast.grids.data import load
    from forecast.grids.score import error_sums
    from forecast.grids.section import GridSection
    from forecast.models.grid_baselines import grid_baselines

    torch.set_num_threads(options.threads)
    days, per_day = 445, 48
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "BJ.h5"
        random = np.random.default_rng(0)
        with h5py.File(path, "w") as file:
            data = file.create_dataset("data", (days * per_day, 2, 32, 32), "f8")
            for start in range(0, len(data), per_day):
                data[start : start + per_day] = random.integers(0, 1293, (per_day, 2, 32, 32))
            first = np.datetime64("2013-07-01")
            file["date"] = np.array(
                [
                    f"{str(first + day).replace('-', '')}{slot:02d}".encode()
                    for day in range(days)
                    for slot in range(1, per_day + 1)
                ]
            )
        before = _peak()
        start = time.process_time()
        section = GridSection(
            source=str(path), counts=True, gaps="split", split=(0, windows + 3, windows + 3),
            references=(),
        )  # fmt: skip
        loaded = load(section, lookback=4, horizon=4)
    frames = loaded.frames.values
    figures = {
        "MB of frames": round(frames.numel() * frames.element_size() / 1e6, 1),
        "MB to load": round(_peak() - before, 1),
        "CPU s to load": round(time.process_time() - start, 2),
        "windows": len(loaded.windows("test")),
    }
    before = _peak()
    model, sums = grid_baselines(loaded.spec)["persistence"], error_sums(loaded)
    for batch in loaded.windows("test").batches(256):
        sums.add(model(batch), batch)
    return figures | {"MB to score": round(_peak() - before, 1)}


def _timed(options, sizes, config, precision: str, plain: bool) -> dict[str, float]:
    import torch

    from forecast.batch import GridBatch, GridSpec
    from forecast.device import autocast
    from forecast.models.predformer import PredFormer
    from forecast.training.optimizer import Adam

    spec = GridSpec(**sizes)
    generator = torch.Generator().manual_seed(0)
    shape = (16, spec.lookback, spec.channels, spec.rows, spec.columns)
    frames, target = torch.rand(2, *shape, generator=generator)
    batch = GridBatch(frames=frames, target=target)
    model = PredFormer(config, spec)
    if plain:
        model.blocks = torch.nn.ModuleList(_plain(block, config) for block in model.blocks)
    optimizer = Adam(model.parameters(), decoupled=True, weight_decay=0.01)
    place = torch.device("cpu")

    @torch.no_grad()
    def forward() -> None:
        with autocast(precision, place):
            model(batch)

    def step() -> None:
        with autocast(precision, place):
            total, count = model.loss(batch)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step(1e-4)

    def least(call) -> float:
        times = []
        for _ in range(options.repeat + 1):
            start = time.process_time()
            call()
            times.append((time.process_time() - start) * 1e3)
        return round(min(times[1:]))

    model.eval()
    forward_time = least(forward)
    model.train()
    return {"ms forward": forward_time, "ms step": least(step), "MB": round(_peak())}


def _plain(block, config):
    """Make a block of plain operations with the sizes of another."""
    import torch
    from torch import nn

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = block
            self.drop = nn.Dropout(config.dropout)

        def path(self, x):
            if not self.training:
                return x
            keep = torch.rand(len(x), 1, 1) >= config.path_dropout
            return x * keep / (1 - config.path_dropout)

        def forward(self, tokens):
            b, t, n, d = tokens.shape
            by_time = self.inner.axis == "T"
            x = tokens.transpose(1, 2) if by_time else tokens
            x = x.reshape(-1, x.shape[2], d)
            heads = self.inner.heads
            projected = self.inner.project_in(self.inner.norm_attention(x))
            q, k, v = projected.view(len(x), x.shape[1], 3, heads, -1).permute(2, 0, 3, 1, 4)
            scores = torch.einsum("bhid,bhjd->bhij", q, k) * q.shape[-1] ** -0.5
            mixed = torch.einsum("bhij,bhjd->bhid", scores.softmax(-1), v)
            mixed = mixed.transpose(1, 2).reshape(x.shape)
            x = x + self.path(self.drop(self.inner.project_out(mixed)))
            gate, value = self.inner.expand(self.inner.norm_gated(x)).chunk(2, -1)
            inner = self.drop(nn.functional.silu(gate) * value)
            x = x + self.path(self.drop(self.inner.contract(inner)))
            x = self.inner.norm_out(x)
            return x.view(b, n, t, d).transpose(1, 2) if by_time else x.view(b, t, n, d)

    return Plain()


def _peak() -> float:
    """Give the peak resident size of this process in MB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    main()
