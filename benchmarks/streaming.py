"""Streaming, measured: accuracy, one step against a window, memory, a long soak, and kills.

    python benchmarks/streaming.py ARTEFACT [accuracy|speed|memory|soak|kills ...]

ARTEFACT is a trained LMUFormer, `forecast train etth1 --model lmuformer` for one. Times are process
CPU time on one thread, the least of the repeats after a warm-up. Memory is the resident size of a
process of its own.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STREAMS = 7_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("artefact")
    parser.add_argument("what", nargs="*", help=f"some of {', '.join(PARTS)}; all by default")
    parser.add_argument("--steps", type=int, default=1_000_000, help="of the soak")
    parser.add_argument("--series", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.series:
        print(json.dumps(resident(options)))
        return
    for name in options.what or PARTS:
        print(f"\n{name}")
        PARTS[name](options)


def load(options):
    import torch

    from forecast import api

    torch.set_num_threads(1)
    return api.load(options.artefact)


def accuracy(options) -> None:
    """Print the scores that the artefact was given when it was trained, the baselines beside."""
    metrics = load(options).metrics
    rows = {"this model, all history": metrics["test"]} | metrics["baselines"]
    for name, scores in rows.items():
        print(f"{name:<26}MSE {scores['mse']:.4f}  MAE {scores['mae']:.4f}")


def speed(options) -> None:
    """Time a step by the number of streams, and against running the whole window again."""
    import torch

    from forecast.batch import SeriesBatch

    model = load(options).model
    for count in (1, 7, 100, 1_000, STREAMS):
        state, x = model.init_state(count, 1), torch.randn(count, 1)
        with torch.no_grad():
            for _ in range(3):
                _, state = model.step(x, state)
            seconds = least(functools.partial(model.step, x, state), 20)
        each = seconds / count * 1e6
        print(f"{count:6,} streams  {seconds * 1e3:8.2f} ms a step  {each:7.2f} us each")
    count = 100
    window = SeriesBatch(past=torch.randn(count, 2 * model.context, 1))
    with torch.no_grad():
        again = least(lambda: model(window), 5) / count
    print(f"window of {2 * model.context} rows again: {again * 1e6:.0f} us each, "
          f"{again / (seconds / STREAMS):.0f} times a step")  # fmt: skip


def memory(options) -> None:
    """Fit a line through the resident size by the number of series."""
    counts = (250_000, 500_000, 750_000, 1_000_000)
    sizes = []
    for count in counts:
        command = [sys.executable, __file__, options.artefact, "--series", str(count)]
        found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        sizes.append(found["peak"])
        print(f"{count:8,} series  {found['peak'] / 1e6:8.0f} MB, state {found['state']} B each")
    slope = (sizes[-1] - sizes[0]) / (counts[-1] - counts[0])
    print(f"{slope:.0f} B a series, {slope / 1e3:.2f} GB a million")


def resident(options) -> dict[str, float]:
    """Take in two rows of many series, and tell the peak of the resident size."""
    import dataclasses
    import resource

    import numpy as np

    from forecast.series.stream import Streamer
    from forecast.series.stream.rows import Rows

    made = load(options)
    # One variate a series, in the table of a model of several.
    made = dataclasses.replace(
        made, spec=dataclasses.replace(made.spec, variates=1), columns=made.columns[:1],
        scaler=dataclasses.replace(
            made.scaler, mean=made.scaler.mean[:, :1], deviation=made.scaler.deviation[:, :1]
        ),
    )  # fmt: skip
    made.model.variates = 1
    streamer = Streamer(made, horizon=1)
    page = 10_000
    for hour, first in itertools.product(range(2), range(0, options.series, page)):
        count = min(page, options.series - first)
        rows = Rows(
            ids=[f"meter-{number:07}" for number in range(first, first + count)],
            ordinals=np.full(count, hour), phases=np.zeros(count, np.int64),
            values=np.random.default_rng(first).normal(size=(count, 1)),
            lines=np.arange(count),
        )  # fmt: skip
        streamer.push(rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "peak": peak * (1 if sys.platform == "darwin" else 1024),
        "state": streamer.bytes_per_series,
    }


def soak(options) -> None:
    """Step through a random walk of bounded variance, in float32 and beside it in float64."""
    import copy

    import numpy as np
    import torch

    from forecast.batch import SeriesBatch

    single = load(options).model
    double = copy.deepcopy(single).double()
    draws, level, piece = np.random.default_rng(0), 0.0, 1_000
    state, exact, worst, largest = single.init_state(1, 1), double.init_state(1, 1), 0.0, 0.0
    start = time.process_time()
    with torch.no_grad():
        for _ in range(options.steps // piece):
            walk = np.empty((1, piece, 1), np.float32)
            for row, draw in enumerate(draws.normal(size=piece)):
                level = walk[0, row, 0] = 0.99 * level + 0.14 * draw
            rows = torch.from_numpy(walk)
            for row in range(piece):
                forecast, state = single.step(rows[:, row], state)
            dense, exact = double.run(SeriesBatch(past=rows.double()), exact, kept=1)
            error = (forecast.values - dense.values[:, 0]).abs().max().item()
            worst = max(worst, float("inf") if math.isnan(error) else error)
            parts = (part for part in state.values() if part.is_floating_point())
            largest = max(largest, *(part.abs().max().item() for part in parts))
    print(
        f"{options.steps:,} steps, {time.process_time() - start:.0f} CPU-s: "
        f"drift from float64 {worst:.1e}, largest number of the state {largest:.2f}"
    )


def kills(options, moments: int = 20) -> None:
    """Kill a stream at random moments, feed all rows again, and compare with one left alone."""
    from forecast.series import data

    made = load(options)
    table = Path(data.locate(made.recipe.data.source)).read_bytes()
    rows = b"\n".join(table.split(b"\n")[:1_201]) + b"\n"
    command = [sys.executable, "-m", "forecast", "stream", options.artefact, "--horizon", "4"]
    expected = subprocess.run(command, input=rows, capture_output=True, check=True).stdout
    expected = expected.split(b"\n")[1:]
    draws, same = random.Random(0), 0
    with tempfile.TemporaryDirectory() as folder:
        for moment in range(moments):
            state = os.path.join(folder, f"{moment}.safetensors")
            keep = [*command, "--state", state, "--save-every", "50"]
            process = subprocess.Popen(
                keep, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            process.stdin.write(rows)
            process.stdin.flush()
            while not os.path.exists(state) and process.poll() is None:
                time.sleep(0.01)
            time.sleep(draws.uniform(0, 1.0))
            process.kill()
            process.wait()
            again = subprocess.run(keep, input=rows, capture_output=True, check=True).stdout
            again = again.split(b"\n")[1:]
            same += again == expected[len(expected) - len(again) :]
    print(f"{same} of {moments} kills gave the same output from the saved row on")


def least(call, repeat: int) -> float:
    times = []
    for _ in range(repeat):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


PARTS = {"accuracy": accuracy, "speed": speed, "memory": memory, "soak": soak, "kills": kills}


if __name__ == "__main__":
    main()
