"""Tuning: the test part stays out of sight, a stopped search goes on, bad choices end no search."""

from __future__ import annotations

import math
import subprocess
import sys

import mlflow
import numpy as np
import polars as pl
import pytest

from forecast import recipe
from forecast.errors import UsageError
from forecast.runs import search_space, tuning

ROWS = 300


def table(path, poison=False):
    random = np.random.default_rng(0)
    rows = np.arange(ROWS)
    values = np.sin(rows * 2 * np.pi / 24) + 0.2 * random.normal(size=ROWS)
    if poison:
        values[int(0.8 * ROWS) :] = 1e4
    times = np.datetime64("2024-01-01T00") + rows.astype("timedelta64[h]")
    pl.DataFrame({"date": [str(time) for time in times], "load": values}).write_csv(path)
    return path


def resolved(path, *settings):
    return recipe.load(
        path, model="dlinear", lookback=24, horizon=6,
        settings=["train.epochs=2", "train.threads=1", *settings],
    )  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FORECAST_HOME", str(tmp_path / "home"))


SEARCH = [
    search_space.parse("train.learning_rate=1e-4..1e-1"),
    search_space.parse("train.batch_size=8,64"),
]


def test_what_lies_in_the_test_part_changes_no_choice(tmp_path):
    found = [
        tuning.tune(resolved(table(tmp_path / f"{poison}.csv", poison)), SEARCH, trials=4)
        for poison in (False, True)
    ]
    assert found[0].settings == found[1].settings
    assert found[0].loss == found[1].loss
    # The first trial is the recipe as it stands, and the best is at least as good.
    assert found[0].loss <= found[0].default_loss
    best = recipe.load(found[0].recipe)
    assert best.train.learning_rate == found[0].settings["train.learning_rate"]
    assert best.train.batch_size in (8, 64)


def test_a_search_goes_on_and_its_trials_are_runs_inside_of_one(tmp_path):
    path = table(tmp_path / "a.csv")
    first = tuning.tune(resolved(path), SEARCH, trials=2)
    assert tuning.tune(resolved(path), SEARCH, trials=2).trials == 2
    second = tuning.tune(resolved(path), SEARCH, trials=3)
    assert (first.trials, second.trials) == (2, 3)
    assert second.default_loss == first.default_loss
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'home' / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "forecast"]
    runs = client.search_runs([experiment.experiment_id])
    parents = {run.info.run_id for run in runs if "mlflow.parentRunId" not in run.data.tags}
    trials = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(trials) == 3
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} <= parents
    losses = [run.data.metrics["best_val_loss"] for run in trials if run.data.metrics]
    assert min(losses) == pytest.approx(second.loss)


def test_a_choice_that_breaks_training_is_a_bad_choice_and_no_error(tmp_path):
    search = [search_space.parse("train.learning_rate=1e-3,1e30")]
    path = table(tmp_path / "a.csv")
    found = tuning.tune(resolved(path, "train.learning_rate=1e30"), search, trials=6)
    assert found.settings == {"train.learning_rate": 1e-3}
    assert (
        found.default_loss is None
        or math.isinf(found.default_loss)
        or (found.default_loss > found.loss)
    )


def test_the_recipe_itself_is_the_first_trial_wherever_its_values_lie(tmp_path):
    # Neither 0.2 nor 32 is in the ranges asked for.
    own = resolved(table(tmp_path / "a.csv"), "train.learning_rate=0.2", "train.batch_size=32")
    found = tuning.tune(own, SEARCH, trials=1)
    assert found.settings == {"train.learning_rate": 0.2, "train.batch_size": 32}
    assert found.default_loss == found.loss


def test_no_time_for_a_trial_is_said(tmp_path):
    with pytest.raises(UsageError, match="No trial was completed"):
        tuning.tune(resolved(table(tmp_path / "a.csv")), SEARCH, trials=3, seconds=0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train.learning_rate=5", None),
        ("train.learning_rate", "neither a range nor a list"),
        ("train.learning_rate=2..1", "neither a range nor a list"),
        ("train.learnin_rate=1e-4..1e-2", "no setting 'train.learnin_rate'"),
        ("data.split=1,2", "decides what is measured"),
        ("window.horizon=6,12", "different horizons"),
        ("train.epochs=0..3", "at least 1"),
    ],
)
def test_searches_that_make_no_sense_are_refused_at_once(tmp_path, text, words):
    own = resolved(table(tmp_path / "a.csv"))
    if words is None:
        assert search_space.parse(text).choices == (5,)
        return
    with pytest.raises(UsageError) as caught:
        tuning.tune(own, [search_space.parse(text)], trials=1)
    assert words in f"{caught.value} {caught.value.hint}"
    with pytest.raises(UsageError, match="nothing to tune"):
        tuning.tune(recipe.load(tmp_path / "a.csv", model="ridge"), SEARCH)


def test_a_first_trial_that_was_killed_is_tried_again_and_the_best_is_written(
    tmp_path, monkeypatch
):
    own = resolved(table(tmp_path / "a.csv"))

    def killed(*_, **__):
        raise SystemExit(137)  # nothing is told of the trial

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "_carry_out", killed)
        with pytest.raises(SystemExit):
            tuning.tune(own, SEARCH, trials=2)
    tuned = tuning.tune(own, SEARCH, trials=2)
    assert tuned.trials == 2
    assert tuned.default_loss is not None
    # and where the process that found the best died before it could write it down
    tuned.recipe.unlink()
    again = tuning.tune(own, SEARCH, trials=2)
    assert again.trials == 2
    assert recipe.load(again.recipe).train.batch_size in (8, 32, 64)


def test_first_searches_that_begin_together_share_the_trials(tmp_path):
    """Four processes, one file: no table is made twice and no trial is too many."""
    script = (
        "import sys; from forecast import recipe; from forecast.runs import search_space, tuning; "
        "own = recipe.load(sys.argv[1], model='dlinear', lookback=24, horizon=6, "
        "settings=['train.epochs=1', 'train.threads=1']); "
        "search = [search_space.parse('train.learning_rate=1e-4..1e-1')]; "
        "print(tuning.tune(own, search, trials=3).trials)"
    )
    path = table(tmp_path / "a.csv")
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    for job in jobs:
        told, errors = job.communicate(timeout=240)
        assert job.returncode == 0, errors
        assert told.strip().endswith("3")
