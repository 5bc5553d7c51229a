"""Fixtures of all tests: the command in this process, a home of its own, small tables, a model.

The precision of the suite is fp32 on any machine, unless FORECAST_PRECISION forces another: what a
processor has decides nothing here. Tests marked `bf16` hold their promise in bf16 too:
`FORECAST_PRECISION=bf16 pytest -m bf16`.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

# Before torch and numpy load: one thread in each worker of xdist, none spins.
for _name, _value in {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "POLARS_MAX_THREADS": "2",
    "FORECAST_PRECISION": "fp32",
}.items():
    os.environ.setdefault(_name, _value)

import numpy as np
import polars as pl
import pytest
import torch

torch.set_num_threads(1)

# What a shell that runs the tests may have set and no test means.
FOREIGN = (
    "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_EXPERIMENT_ID", "FORECAST_DEBUG", "FORCE_COLOR",
)  # fmt: skip


class Done(NamedTuple):
    """What a command left: its exit code and what it wrote."""

    returncode: int
    stdout: str | bytes
    stderr: str | bytes


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a command whose runs and registry lie under `home`."""
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return {**kept, "FORECAST_HOME": str(home), "NO_COLOR": "1", "COLUMNS": "100"}


@contextlib.contextmanager
def isolated(variables: Mapping[str, str], cwd: Path | None) -> Iterator[None]:
    """Give a command a process's own state, and put back all of it that lives in this process.

    Environment, folder, streams, signal handlers, warnings, logging, torch's threads and modes,
    and the three random generators are as before at the end.
    """
    import matplotlib

    before = dict(os.environ), os.getcwd(), sys.argv, sys.stdin, sys.stdout, sys.stderr
    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    root = logging.getLogger()
    logs, level = root.handlers[:], root.level
    drawn = random.getstate(), np.random.get_state(), torch.get_rng_state()
    threads, settings = torch.get_num_threads(), dict(matplotlib.rcParams)
    strict = torch.are_deterministic_algorithms_enabled(), torch.get_default_dtype()
    os.environ.clear()
    os.environ.update(variables)
    if cwd is not None:
        os.chdir(cwd)
    try:
        # As a process of its own shows them: each once, by what `main` sets.
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            yield
    finally:
        os.environ.clear()
        os.environ.update(before[0])
        os.chdir(before[1])
        _, _, sys.argv, sys.stdin, sys.stdout, sys.stderr = before
        for number, handler in handlers.items():
            signal.signal(number, handler)
        root.handlers[:], root.level = logs, level
        random.setstate(drawn[0])
        np.random.set_state(drawn[1])
        torch.set_rng_state(drawn[2])
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict[0])
        torch.set_default_dtype(strict[1])
        dict.update(matplotlib.rcParams, settings)


def call(arguments, *, variables, cwd=None, stdin=None, binary=False) -> Done:
    """Run the program's `main` with these arguments, in this process."""
    from forecast.cli import main

    given = stdin if isinstance(stdin, bytes) else (stdin or "").encode()
    out, err = io.BytesIO(), io.BytesIO()
    others = set(threading.enumerate())
    code = 0
    with isolated(variables, cwd):
        sys.argv = ["forecast", *map(str, arguments)]
        sys.stdin = io.TextIOWrapper(io.BytesIO(given), "utf-8")
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(to, "utf-8", write_through=True) for to in (out, err)
        )
        streams = sys.stdout, sys.stderr
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        for stream in streams:
            stream.flush()
        # Detached, a stream that something still holds does not close the buffer as it dies.
        written = tuple(bytes(to.getvalue()) for to in (out, err))
        for stream in streams:
            stream.detach()
    left = [
        thread
        for thread in set(threading.enumerate()) - others
        if thread.name.startswith("tracking") and thread.is_alive()
    ]
    assert not left, f"`forecast {' '.join(map(str, arguments))}` left threads: {left}"
    return Done(code, *(text if binary else text.decode() for text in written))


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """The program's home of this session: one store, made once, for all commands of a worker."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def user_environment(home) -> dict[str, str]:
    return environment(home)


@pytest.fixture(scope="session")
def command(home):
    """Return a function that runs the command line in this process: exit code, stdout, stderr.

    `extra` adds variables to the environment, such as a `FORECAST_HOME` of the test's own.
    """

    def run(*arguments, cwd=None, stdin=None, binary=False, extra=None) -> Done:
        variables = environment(home) | {name: str(to) for name, to in (extra or {}).items()}
        return call(arguments, variables=variables, cwd=cwd, stdin=stdin, binary=binary)

    return run


@pytest.fixture(scope="session")
def process(home):
    """Return a function that starts `forecast` in a process, where a process is the point."""

    def start(*arguments, variables=None, **options) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "forecast", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=variables or environment(home), **options,
        )  # fmt: skip

    return start


def write_table(path: Path, rows: int = 400, seed: int = 0) -> Path:
    """Write an hourly table of two variates with a daily cycle."""
    generator = np.random.default_rng(seed)
    hours = np.arange(rows)
    cycle = np.sin(hours * 2 * np.pi / 24)
    times = np.datetime64("2024-01-01T00:00") + hours.astype("timedelta64[h]")
    pl.DataFrame(
        {
            "date": [str(time).replace("T", " ") + ":00" for time in times],
            "load": np.round(100 + 20 * cycle + generator.normal(size=rows), 3),
            "heat": np.round(5 - 2 * cycle + 0.3 * generator.normal(size=rows), 3),
        }
    ).write_csv(path)
    return path


@pytest.fixture(scope="session")
def table(tmp_path_factory) -> Path:
    return write_table(tmp_path_factory.mktemp("data") / "plant.csv")


# A model small enough to be trained in a test.
SMALL = ("--set", "model.width=16", "--set", "model.heads=2", "--set", "train.epochs=2")


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    return SMALL


@pytest.fixture(scope="session")
def trained(command, table, tmp_path_factory):
    """Train and register once: the document that `forecast train --json` printed."""
    out = tmp_path_factory.mktemp("out") / "artefact"
    done = command(
        "train", table, "--lookback", 48, "--horizon", 12, *SMALL,
        "--register", "plant", "--alias", "champion", "--out", out, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
