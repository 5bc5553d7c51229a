"""Forecast a table of millions of rows: wall and CPU time beyond imports, and the peak of memory.

A table of ten thousand series is written to a temporary folder, sorted and shuffled, and each is
forecast in a process of its own; both must give the same bytes. The file is in the page cache.

    python benchmarks/bulk.py
    python benchmarks/bulk.py --rows 30000000
    python benchmarks/bulk.py --models itransformer --orders sorted

With --kills, jobs are killed with SIGKILL at random moments instead, and resumed:

    python benchmarks/bulk.py --rows 2000000 --models itransformer --orders shuffled --kills 20
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

LOOKBACK, HORIZON, TRAINED = 96, 24, 20


def write(path: Path, order: np.ndarray, values: np.ndarray, length: int) -> None:
    """Write rows in an order, some at a time."""
    hours = np.datetime64("2024-01-01", "us") + np.arange(length) * np.timedelta64(1, "h")
    times = pl.Series(hours).dt.strftime("%Y-%m-%d %H:%M:%S")
    with path.open("wb") as stream:
        for start in range(0, len(order), 1_000_000):
            rows = order[start : start + 1_000_000]
            frame = pl.DataFrame(
                {
                    "unique_id": pl.Series(rows // length).cast(pl.String).str.zfill(6),
                    "ds": times.gather(rows % length),
                    "y": values[rows],
                }
            )
            frame.write_csv(stream, include_header=start == 0)


def train(model: str, table: Path, length: int, folder: Path) -> Path:
    from forecast import api, artefact, recipe
    from forecast.runs import run

    small = folder / "small.csv"
    pl.scan_csv(table, infer_schema=False).head(TRAINED * length).collect().write_csv(small)
    settings = ["train.epochs=1", "train.threads=1"]
    resolved = recipe.load(
        small, model=model, lookback=LOOKBACK, horizon=HORIZON, settings=settings
    )
    forecaster = api.load(run.train(resolved).artefact)
    artefact.save(folder / model, forecaster)
    return folder / model


def peak() -> float:
    """Read the peak of resident memory in MB, mapped pages included.

    That of getrusage would count the process that started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e3


def measure(model: str, source: str, out: str) -> None:
    """Forecast one table and print what it took; the process does nothing else."""
    from forecast import api
    from forecast.device import Stopwatch, set_threads
    from forecast.series import bulk

    forecaster = api.load(model)
    set_threads(1)
    watch = Stopwatch()
    before = watch.read()
    read: list[dict[str, float]] = []
    report = bulk.predict_files(
        forecaster, source, out, device="cpu", resume=True, tell=lambda _: read.append(watch.read())
    )
    after = watch.read()
    print(
        json.dumps(
            {
                "wall": after["seconds"] - before["seconds"],
                "cpu": after["cpu_seconds"] - before["cpu_seconds"],
                "scan_cpu": read[0]["cpu_seconds"] - before["cpu_seconds"],
                "forecast_wall": after["seconds"] - read[0]["seconds"],
                "peak": peak(),
                "series": report.series,
                "reused": report.reused,
            }
        )
    )


def command(model: Path, source: Path, out: Path) -> list[str]:
    return [sys.executable, __file__, "--measure", str(model), str(source), str(out)]


def digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def kill(model: Path, source: Path, times: int, random: np.random.Generator) -> None:
    """Kill jobs at random moments, and compare what resuming them gives."""
    out = source.with_name("killed.csv")
    began = time.monotonic()
    subprocess.run(command(model, source, out), capture_output=True, check=True)
    duration, expected = time.monotonic() - began, digest(out)
    equal = 0
    for _ in range(times):
        out.unlink()
        process = subprocess.Popen(command(model, source, out), stdout=subprocess.DEVNULL)
        moment = random.uniform(0, duration)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        whole = not out.exists() or digest(out) == expected
        done = subprocess.run(command(model, source, out), capture_output=True, check=True)
        same = whole and digest(out) == expected and not list(out.parent.glob(".killed*"))
        equal += same
        print(
            f"killed after {moment:5.2f} of {duration:.2f} s: {'equal' if same else 'DIFFERENT'}, "
            f"{json.loads(done.stdout)['reused']} parts taken over"
        )
    print(f"{equal} of {times} resumed jobs end with the undisturbed bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--models", nargs="+", default=["ridge", "itransformer"])
    parser.add_argument("--orders", nargs="+", default=["sorted", "shuffled"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return
    random = np.random.default_rng(arguments.seed)
    length = arguments.rows // arguments.series
    rows = np.arange(length * arguments.series)
    wave = np.sin(2 * np.pi * (rows % length) / 24 + rows // length)
    values = np.round(100 + 20 * wave + random.normal(size=len(rows)), 3)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["FORECAST_HOME"] = str(folder / "home")
        write(folder / "sorted.csv", rows, values, length)
        models = [train(name, folder / "sorted.csv", length, folder) for name in arguments.models]
        results: dict[Path, set[str]] = {model: set() for model in models}
        print(f"{len(rows):,} rows, {arguments.series:,} series, forecasts of {HORIZON} steps")
        for order in arguments.orders:
            source = folder / f"{order}.csv"
            if order == "shuffled":
                random.shuffle(rows)
                write(source, rows, values, length)
            for model in models:
                if arguments.kills:
                    kill(model, source, arguments.kills, random)
                    continue
                # Read once, so that it is in the page cache.
                digest(source)
                out = folder / "out.csv"
                done = subprocess.run(command(model, source, out), capture_output=True, check=True)
                found = json.loads(done.stdout)
                results[model].add(digest(out))
                print(
                    f"{model.name:14} {order:9} {source.stat().st_size / 1e6:7.0f} MB  "
                    f"wall {found['wall']:5.2f} s  CPU {found['cpu']:5.2f} s "
                    f"(reading {found['scan_cpu']:5.2f})  peak {found['peak']:5.0f} MB  "
                    f"forecasting {found['series'] / found['forecast_wall']:7,.0f} series/s"
                )
        for model, digests in results.items() if not arguments.kills else ():
            print(f"{model.name}: {'the same bytes' if len(digests) == 1 else 'DIFFERENT BYTES'}")


if __name__ == "__main__":
    main()
