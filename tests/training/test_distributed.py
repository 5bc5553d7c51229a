"""Several processes: the weights of one, whole or in parts, and the death of one of them."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from forecast.training.distributed import Processes

SETTINGS = [
    "train.threads=1", "model.dropout=0", "model.layers=1", "model.width=16", "model.heads=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "a.csv"
    random = np.random.default_rng(0)
    rows = np.arange(900)
    times = np.datetime64("2024-01-01T00") + rows.astype("timedelta64[h]")
    values = np.sin(rows[:, None] * 2 * np.pi / 24 + np.arange(3)) + random.normal(size=(900, 3))
    pl.DataFrame(
        {
            "date": [str(one) for one in times],
            **{name: values[:, n] for n, name in enumerate("abc")},
        }
    ).write_csv(path)
    return path


def environment(home, precision="fp32"):
    return {
        **os.environ, "FORECAST_PRECISION": precision,
        "FORECAST_HOME": str(home), "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE", "NO_COLOR": "1", "COLUMNS": "200",
    }  # fmt: skip


def command(table, processes, *more):
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", f"--nproc-per-node={processes}", "--standalone", "-m"]
    settings = [part for one in SETTINGS for part in ("--set", one)]
    return [
        *start, "forecast", "train", str(table), "--lookback", "48", "--horizon", "12", *settings,
        *more,
    ]  # fmt: skip


def weights(folder):
    return load_file(Path(folder) / "weights.safetensors")


def train(table, folder, processes, precision, *more):
    """Train for two epochs and return the weights."""
    done = subprocess.run(
        command(table, processes, "--set", "train.epochs=2", *more, "--out", str(folder / "out")),
        env=environment(folder / "home", precision), capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # One process speaks for all.
    assert done.stdout.count("MLflow run") == 1
    return weights(folder / "out")


@pytest.fixture(scope="module")
def alone(table, tmp_path_factory):
    """Return a function that trains in one process, once for each precision."""
    return functools.cache(
        lambda precision: train(table, tmp_path_factory.mktemp("alone"), 1, precision)
    )


# In bf16 a gradient is rounded to 8 bits within each share, and where it is near 0 Adam makes a
# step of that rounding: at most one step of the learning rate (1e-4) lies between them.
@pytest.mark.parametrize(
    ("precision", "apart"),
    [
        ("fp32", 1e-6),
        pytest.param("bf16", 1e-4, marks=[pytest.mark.bf16, pytest.mark.slow]),
    ],
)
@pytest.mark.parametrize("shard", ["false", pytest.param("true", marks=pytest.mark.slow)])
def test_two_processes_give_the_weights_of_one(table, alone, tmp_path, shard, precision, apart):
    found = train(table, tmp_path, 2, precision, "--set", f"train.shard={shard}")
    for name, weight in alone(precision).items():
        difference = (weight - found[name]).abs()
        if name.endswith("project_key_value.bias"):
            # Attention does not see what is added to all keys alike: the gradient of the keys'
            # half is rounding alone, and Adam makes steps of it whatever its size.
            difference = difference[len(difference) // 2 :]
        assert difference.max() <= apart, name


@pytest.mark.slow
@pytest.mark.parametrize(("shard", "saved"), [("false", "last step"), ("true", "last checkpoint")])
def test_the_death_of_one_process_ends_all_and_the_run_goes_on(table, tmp_path, shard, saved):
    home = tmp_path / "home"
    long = (
        "--set",
        f"train.shard={shard}",
        "--set",
        "train.epochs=3",
        "--set",
        "train.batch_size=3",
        "--out",
        str(tmp_path / "out"),
    )
    with subprocess.Popen(
        command(table, 2, *long), env=environment(home), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as job:  # fmt: skip
        assert job.stderr is not None
        for line in job.stderr:
            if line.startswith("epoch 2/3"):
                break
        time.sleep(0.1)
        os.kill(member(job.pid, rank=1), signal.SIGKILL)
        told = job.stderr.read()
    assert job.returncode != 0
    assert "Another process of this job has ended" in told
    assert saved in told
    assert "--resume" in told
    assert not (tmp_path / "out").exists()
    (run,) = (home / "runs").iterdir()
    assert (run / "checkpoint.safetensors").is_file()

    done = subprocess.run(
        command(table, 2, *long, "--resume"), env=environment(home), capture_output=True,
        text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Going on at epoch" in done.stderr
    assert [*(home / "runs").iterdir()] == [run]
    whole = subprocess.run(
        command(table, 2, *long[:-1], str(tmp_path / "whole")), env=environment(tmp_path / "other"),
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert whole.returncode == 0, whole.stderr
    for name, weight in weights(tmp_path / "whole").items():
        assert torch.equal(weight, weights(tmp_path / "out")[name]), name


def member(parent, rank):
    """Find the process of a rank below torchrun."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            above = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if above == parent and f"RANK={rank}".encode() in variables:
            return int(folder.name)
    raise AssertionError("no such process")


@pytest.mark.parametrize("size", [2, 3, 5])
def test_shares_hold_every_window_once_and_an_empty_one_counts_nothing(size):
    index = torch.arange(4)
    shares = []
    for rank in range(size):
        member = object.__new__(Processes)
        member.rank, member.size = rank, size
        shares.append(member.share(index))
    counted = torch.cat([own for own, weight in shares if weight])
    assert sorted(counted.tolist()) == index.tolist()
    assert all(len(own) for own, _ in shares)
