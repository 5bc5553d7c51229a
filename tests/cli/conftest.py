"""Run the program as a user does: in a process of its own, with a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest


def environment(home):
    return {
        **os.environ,
        "FORECAST_HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "NO_COLOR": "1",
        "COLUMNS": "100",
    }


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def forecast(home):
    """Return a function that runs `forecast` and gives back the finished process."""

    def run(*arguments, cwd=None, stdin=None, binary=False):
        return subprocess.run(
            [sys.executable, "-m", "forecast", *map(str, arguments)],
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=not binary,
            env=environment(home),
            timeout=240,
            check=False,
        )

    return run


def write_table(path, rows=400, seed=0):
    """Write an hourly table of two variates with a daily cycle."""
    random = np.random.default_rng(seed)
    hours = np.arange(rows)
    cycle = np.sin(hours * 2 * np.pi / 24)
    times = np.datetime64("2024-01-01T00:00") + hours.astype("timedelta64[h]")
    pl.DataFrame(
        {
            "date": [str(time).replace("T", " ") + ":00" for time in times],
            "load": np.round(100 + 20 * cycle + random.normal(size=rows), 3),
            "heat": np.round(5 - 2 * cycle + 0.3 * random.normal(size=rows), 3),
        }
    ).write_csv(path)
    return path


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("data") / "plant.csv")


# A model small enough to be trained in a test.
SMALL = ("--set", "model.width=16", "--set", "model.heads=2", "--set", "train.epochs=2")


@pytest.fixture(scope="session")
def small():
    return SMALL


@pytest.fixture(scope="session")
def user_environment(home):
    return environment(home)


@pytest.fixture(scope="session")
def trained(forecast, table, tmp_path_factory):
    """Train and register once: the document that `forecast train --json` printed."""
    out = tmp_path_factory.mktemp("out") / "artefact"
    done = forecast(
        "train", table, "--lookback", 48, "--horizon", 12, *SMALL,
        "--register", "plant", "--alias", "champion", "--out", out, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
