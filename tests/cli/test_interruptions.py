"""Killed, interrupted and resumed: nothing is lost and no bit differs."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# About five seconds of training with a checkpoint every fifth of one.
RUN = (
    "--lookback", "48", "--horizon", "12", "--set", "model.width=32", "--set", "model.heads=2",
    "--set", "train.epochs=40", "--set", "train.patience=0", "--set", "train.batch_size=8",
    "--set", "train.checkpoint_seconds=0.2", "--set", "train.threads=1", "--json",
)  # fmt: skip


def start(table, environment, *more):
    return subprocess.Popen(
        [sys.executable, "-m", "forecast", "train", str(table), *RUN, *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def finish(process):
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return json.loads(out)


@pytest.fixture
def own(user_environment, tmp_path):
    """Give each test a home of its own, so that it resumes nothing but its own run."""
    return {**user_environment, "FORECAST_HOME": str(tmp_path / "home")}


@pytest.fixture(scope="module")
def undisturbed(table, user_environment, tmp_path_factory):
    began = time.monotonic()
    home = tmp_path_factory.mktemp("undisturbed")
    document = finish(start(table, {**user_environment, "FORECAST_HOME": str(home)}))
    weights = Path(document["artefact"], "weights.safetensors").read_bytes()
    return weights, document, time.monotonic() - began


@pytest.mark.parametrize("number", range(3))
def test_kill_9_at_a_random_moment_and_resume_to_the_same_bits(table, own, undisturbed, number):
    weights, document, duration = undisturbed
    # A third of the run each, the start-up and the writing of the artefact included.
    moment = duration * (number + random.random()) / 3
    process = start(table, own)
    try:
        process.wait(timeout=moment)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    process.communicate()
    resumed = finish(start(table, own, "--resume"))
    found = Path(resumed["artefact"], "weights.safetensors").read_bytes()
    assert found == weights, f"killed after {moment:.3f} s of {duration:.3f} s"
    assert resumed["metrics"] == document["metrics"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_saves_and_says_how_to_go_on(table, own, undisturbed, number, code):
    process = start(table, own)
    for line in process.stderr:
        if line.startswith("epoch 3/"):
            break
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "the run is saved" in err
    assert "--resume" in err
    assert "Traceback" not in err
    going_on = start(table, own, "--resume")
    resumed = finish(going_on)
    assert Path(resumed["artefact"], "weights.safetensors").read_bytes() == undisturbed[0]


def test_four_first_runs_at_once_all_succeed(table, own):
    more = ("--set", "train.epochs=1")
    documents = [finish(process) for process in [start(table, own, *more) for _ in range(4)]]
    assert len({document["run_id"] for document in documents}) == 4
    assert len({document["artefact"] for document in documents}) == 4


def test_a_dead_tracking_server_costs_a_warning_and_not_the_run(table, own, forecast):
    dead = {**own, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    process = start(table, dead, "--set", "train.epochs=1")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    document = json.loads(out)
    assert document["run_id"] is None
    assert err.count("Warning:") == 1
    assert "not being tracked" in err
    folder = Path(document["picture"]).parent
    done = subprocess.run(
        [sys.executable, "-m", "forecast", "registry", "sync", str(folder)],
        capture_output=True, text=True, env=own, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "records sent" in done.stdout
