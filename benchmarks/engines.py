"""Ray and Spark against a job on this machine: the same forecasts, start-up cost and rows a second.

    python benchmarks/engines.py [--series 100000] [--rows 60] [--engines ray spark]

A ridge regression is trained on 200 of the series and forecasts 6 steps of all of them. Each engine
runs in a process of its own; its forecasts, sorted by id and time, must be those of the local job.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOOKBACK, HORIZON, TRAINED = 24, 6, 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--engines", nargs="+", default=["ray", "spark"])
    parser.add_argument("--run", nargs=2, metavar=("ENGINE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(run(options.run[0], Path(options.run[1]))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.series, options.rows)
        total = options.series * options.rows
        print(f"{options.series:,} series of {options.rows} rows, {total:,} rows in all")
        for engine in ("local", *options.engines):
            command = [sys.executable, __file__, "--run", engine, name]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr[-2000:])
            figures = json.loads(done.stdout.splitlines()[-1])
            same = "" if engine == "local" else f"  same as local: {equal(folder, engine)}"
            print(
                f"{engine:<6} up after {figures['start']:6.1f} s, then {figures['seconds']:6.1f} s,"
                f" {total / figures['seconds']:>10,.0f} rows read a second{same}"
            )


def prepare(folder: Path, series: int, rows: int) -> None:
    import numpy as np
    import polars as pl

    from forecast import recipe
    from forecast.runs import run as training

    random = np.random.default_rng(0)
    times = np.datetime64("2024-01-01T00", "us") + np.arange(rows) * np.timedelta64(1, "h")
    ids = [f"s{number:07d}" for number in range(series)]
    frame = pl.DataFrame(
        {
            "unique_id": pl.Series(ids).gather(np.repeat(np.arange(series), rows)),
            "ds": np.tile(times, series),
            "y": 10 + random.normal(size=series * rows),
        }
    )
    frame.filter(pl.col("unique_id") < ids[TRAINED]).write_parquet(folder / "train.parquet")
    frame.sample(fraction=1.0, shuffle=True, seed=1).write_parquet(folder / "in.parquet")
    resolved = recipe.load(
        folder / "train.parquet", model="ridge", lookback=LOOKBACK, horizon=HORIZON,
        settings=["train.threads=1"],
    )  # fmt: skip
    training.train(resolved, out=folder / "model")


def run(engine: str, folder: Path) -> dict[str, float]:
    source, out = str(folder / "in.parquet"), folder / engine
    if engine != "local":
        from forecast import engines

        done = engines.predict_files(str(folder / "model"), [source], out, engine=engine)
        return {"start": done.start_seconds, "seconds": done.seconds}
    from forecast import api
    from forecast.series import bulk

    forecaster = api.load_series(folder / "model")
    began = time.perf_counter()
    bulk.predict_files(forecaster, source, out)
    return {"start": 0.0, "seconds": time.perf_counter() - began}


def equal(folder: Path, engine: str) -> bool:
    import polars as pl

    ours, theirs = (
        pl.read_parquet(str(folder / name / "*.parquet")).sort("unique_id", "ds")
        for name in ("local", engine)
    )
    return ours.equals(theirs.select(ours.columns))


if __name__ == "__main__":
    main()
