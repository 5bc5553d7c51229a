"""Killed, interrupted and resumed: nothing is lost and no bit differs."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

# A second or two of training with a checkpoint every tenth of one.
RUN = (
    "--lookback", "48", "--horizon", "12", "--set", "model.width=16", "--set", "model.heads=2",
    "--set", "train.epochs=16", "--set", "train.patience=0", "--set", "train.batch_size=8",
    "--set", "train.checkpoint_seconds=0.1", "--set", "train.threads=1", "--json",
)  # fmt: skip


@pytest.fixture
def own(user_environment, tmp_path):
    """Give each test a home of its own, so that it resumes nothing but its own run."""
    return {**user_environment, "FORECAST_HOME": str(tmp_path / "home")}


@pytest.fixture
def train(command, table, own):
    """Return a function that trains in this process, under the test's own home."""

    def run(*more, **extra):
        done = command("train", table, *RUN, *more, extra=own | extra)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    return run


@pytest.fixture(scope="module")
def undisturbed(table, process, user_environment, tmp_path_factory):
    home = tmp_path_factory.mktemp("undisturbed")
    began = time.monotonic()
    whole = process("train", table, *RUN, variables={**user_environment, "FORECAST_HOME": home})
    out, err = whole.communicate(timeout=240)
    assert whole.returncode == 0, err
    document = json.loads(out)
    weights = Path(document["artefact"], "weights.safetensors").read_bytes()
    return weights, document, time.monotonic() - began


# Start-up takes the first third and the artefact the end of the last one.
@pytest.mark.parametrize(
    "number", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(2, marks=pytest.mark.slow)]
)
def test_kill_9_at_a_random_moment_and_resume_to_the_same_bits(
    table, process, train, own, undisturbed, number
):
    weights, document, duration = undisturbed
    # A third of the run each, the start-up and the writing of the artefact included.
    moment = duration * (number + random.random()) / 3
    killed = process("train", table, *RUN, variables=own)
    try:
        killed.wait(timeout=moment)
    except subprocess.TimeoutExpired:
        killed.send_signal(signal.SIGKILL)
    killed.communicate()
    resumed, _ = train("--resume")
    found = Path(resumed["artefact"], "weights.safetensors").read_bytes()
    assert found == weights, f"killed after {moment:.3f} s of {duration:.3f} s"
    assert resumed["metrics"] == document["metrics"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_saves_and_says_how_to_go_on(
    table, process, train, own, undisturbed, number, code
):
    stopped = process("train", table, *RUN, variables=own)
    for line in stopped.stderr:
        if line.startswith("epoch 3/"):
            break
    stopped.send_signal(number)
    _, err = stopped.communicate(timeout=60)
    assert stopped.returncode == code
    assert "the run is saved" in err
    assert "--resume" in err
    assert "Traceback" not in err
    resumed, _ = train("--resume")
    assert Path(resumed["artefact"], "weights.safetensors").read_bytes() == undisturbed[0]


@pytest.mark.slow
def test_four_first_runs_at_once_all_succeed(table, process, own):
    more = ("--set", "train.epochs=1")
    runs = [process("train", table, *RUN, *more, variables=own) for _ in range(4)]
    documents = []
    for one in runs:
        out, err = one.communicate(timeout=240)
        assert one.returncode == 0, err
        documents.append(json.loads(out))
    assert len({document["run_id"] for document in documents}) == 4
    assert len({document["artefact"] for document in documents}) == 4


def test_a_dead_tracking_server_costs_a_warning_and_not_the_run(train, own, command):
    document, err = train("--set", "train.epochs=1", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert document["run_id"] is None
    assert err.count("Warning:") == 1, err
    assert "not being tracked" in err
    folder = Path(document["picture"]).parent
    done = command("registry", "sync", folder, extra=own)
    assert done.returncode == 0, done.stderr
    assert "records sent" in done.stdout
