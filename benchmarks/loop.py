"""Measure what the training loop costs above a bare PyTorch loop over the same tensors.

Both train the same model with the same steps on the same windows; the bare loop only gathers,
runs forward and backward, and steps torch's own fused Adam. They take turns, and the figure is the
median over the turns of the difference of process CPU time, in milliseconds a step.

    python benchmarks/loop.py
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from forecast.batch import Spec
from forecast.batch.windows import Series, Windows
from forecast.models.itransformer import ITransformer, ITransformerConfig
from forecast.recipe import TrainSection
from forecast.training.loop import fit

BATCH, LOOKBACK, HORIZON, VARIATES = 32, 96, 96, 7


def make(rows: int, width: int) -> tuple[ITransformer, Windows]:
    torch.manual_seed(0)
    spec = Spec(lookback=LOOKBACK, horizon=HORIZON, variates=VARIATES, calendar=4)
    model = ITransformer(ITransformerConfig(width=width), spec)
    series = Series(values=torch.randn(rows, VARIATES), calendar=torch.rand(rows, 4) - 0.5)
    first = torch.arange(LOOKBACK, rows - HORIZON + 1)
    return model, Windows(series=series, origins=first, lookback=LOOKBACK, horizon=HORIZON)


def bare(model: ITransformer, windows: Windows, epochs: int) -> float:
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=True)
    model.train()
    began = time.process_time()
    for epoch in range(epochs):
        for index in windows.order(epoch, 0).split(BATCH):
            total, count = model.loss(windows.batch(index))
            optimizer.zero_grad(set_to_none=True)
            (total / count).backward()
            optimizer.step()
    return time.process_time() - began


def ours(model: ITransformer, windows: Windows, epochs: int) -> float:
    section = TrainSection(epochs=epochs, batch_size=BATCH, patience=0, precision="fp32")
    began = time.process_time()
    fit(model, windows, windows.every(10**9), section)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_240)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--width", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, windows = make(arguments.rows, arguments.width)
    steps = arguments.epochs * -(-len(windows) // BATCH)
    bare(model, windows, 1)
    ours(model, windows, 1)
    pairs = [
        (bare(model, windows, arguments.epochs), ours(model, windows, arguments.epochs))
        for _ in range(arguments.turns)
    ]
    each = [1e3 * (own - other) / steps for other, own in pairs]
    print(f"{steps} steps a turn, {arguments.turns} turns, width {arguments.width}, one thread")
    print(f"bare loop   {1e3 * statistics.median(p[0] for p in pairs) / steps:8.3f} CPU-ms a step")
    print(f"this loop   {1e3 * statistics.median(p[1] for p in pairs) / steps:8.3f} CPU-ms a step")
    print(f"difference  {statistics.median(each):8.3f} CPU-ms a step (median of the turns)")


if __name__ == "__main__":
    main()
