"""Graphs through the whole program: train, score, keep, register, forecast."""

from __future__ import annotations

import mlflow
import numpy as np
import polars as pl
import pytest

import forecast
from forecast import artefact, kinds, recipe
from forecast.errors import DataError, UsageError
from forecast.graphs.forecaster import GraphForecaster
from forecast.runs import run

SMALL = [
    "train.epochs=1", "train.threads=1", "model.width=16", "model.heads=2", "model.depth=1",
    "data.queries=50",
]  # fmt: skip


def events(count=1200, seed=0, late=0.0):
    """Make events of 30 sources, each with two destinations that it comes back to."""
    random = np.random.default_rng(seed)
    source = random.integers(0, 30, count)
    target = 100 + 2 * source + random.integers(0, 2, count)
    time = np.sort(random.uniform(0, 1000, count)) + late
    return pl.DataFrame(
        {"src": [f"a{one}" for one in source], "dst": [f"b{one}" for one in target], "t": time}
    )


def write(frame, path):
    frame.write_csv(path)
    return path


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FORECAST_HOME", str(tmp_path / "home"))


def train(path, *settings):
    resolved = recipe.load(path, model="todyformer", lookback=200, settings=[*SMALL, *settings])
    return run.train(resolved)


def test_a_model_of_links_is_scored_kept_and_gone_on_from(tmp_path):
    frame = events()
    trained = train(write(frame, tmp_path / "a.csv"), 'tracking.register="who"')
    metrics = trained.metrics
    assert "50 events at once" in metrics["protocol"]
    assert {"edgebank", "recency"} <= set(metrics["baselines"])
    # Every source has but two destinations: what it did before tells nearly all.
    assert metrics["test"]["mrr"] > 0.5
    again = kinds.evaluate(artefact.load(trained.artefact))
    assert again["metrics"] == {key: metrics[key] for key in ("test", "baselines")}
    assert trained.picture.stat().st_size > 5_000

    # From the history in the artefact alone, in ids as they came.
    found = forecast.predict(trained.artefact, None, sources=["a3", "nobody"], top=2)
    assert found.columns == ["src", "rank", "dst", "score", "probability", "known"]
    assert set(found.filter(pl.col("src") == "a3")["dst"]) == {"b106", "b107"}
    assert found.filter(pl.col("src") == "nobody")["known"].to_list() == [False, False]
    # The whole file as history says the same as the artefact's own.
    forecaster = artefact.load(trained.artefact)
    assert isinstance(forecaster, GraphForecaster)
    assert forecaster.history.height == frame.height
    early = forecast.predict(trained.artefact, None, sources=["a3"], at="500")
    assert early["score"].to_list() != found["score"].to_list()

    later = write(events(100, seed=1, late=2000), tmp_path / "later.csv")
    ahead = forecast.predict(trained.artefact, later, sources=["a3"], top=2)
    assert ahead["score"].to_list() != found.filter(pl.col("src") == "a3")["score"].to_list()
    scored = kinds.evaluate(forecaster, str(later))
    assert scored["metrics"]["test"]["queries"] == 100

    (folder,) = (tmp_path / "home").glob("**/MLmodel")
    served = mlflow.pyfunc.load_model(str(folder.parent)).predict(pl.read_csv(later).to_pandas())
    assert set(served["src"]) <= {f"a{one}" for one in range(30)}


def test_sensors_are_forecast_in_their_ids_and_units(tmp_path):
    steps = 300
    random = np.random.default_rng(0)
    values = (
        60
        + 10 * np.sin(np.arange(steps)[:, None] / 10 + np.arange(4))
        + random.normal(size=(steps, 4))
    )
    names = ["773869", "767541", "767542", "717447"]
    readings = write(pl.DataFrame(dict(zip(names, values.T, strict=True))), tmp_path / "v.csv")
    edges = write(
        pl.DataFrame({"src": names[:3], "dst": names[1:], "weight": [0.5, 0.9, 0.3]}),
        tmp_path / "e.csv",
    )
    path = tmp_path / "sensors.toml"
    path.write_text(
        f'[data]\nsource = ["{readings.name}", "{edges.name}"]\ntask = "sensor"\n'
        "split = [200, 40, 60]\n[window]\nlookback = 6\nhorizon = 3\n"
        "[train]\nepochs = 1\nthreads = 1\n"
    )
    trained = run.train(recipe.load(path))
    assert trained.recipe.model == "todyformer-sensors"
    assert "persistence" in trained.metrics["baselines"]
    assert trained.metrics["test"]["mae"] < 5
    found = forecast.predict(trained.artefact, (str(readings), str(edges)))
    assert found.columns[1:] == names
    assert found.height == 3
    assert 40 < found[names[0]][0] < 80


def test_what_does_not_fit_is_refused(tmp_path):
    path = write(events(), tmp_path / "a.csv")
    trained = train(path)
    with pytest.raises(DataError, match="No event is before"):
        forecast.predict(trained.artefact, None, at="-5")
    with pytest.raises(UsageError, match="not a number"):
        forecast.predict(trained.artefact, None, at="tomorrow")
    bad = write(events().rename({"dst": "whither"}), tmp_path / "bad.csv")
    with pytest.raises(DataError):
        forecast.predict(trained.artefact, bad)
    resolved = recipe.load(path, model="todyformer")
    with pytest.raises(DataError, match="1,200 events do not hold 20 windows of 100"):
        kinds.folds(resolved, kinds.Plan(windows=20, step=100))


def test_the_history_is_held_to_its_hash(tmp_path):
    trained = train(write(events(), tmp_path / "a.csv"))
    history = trained.artefact / "history.parquet"
    history.write_bytes(history.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"history\.parquet"):
        artefact.load(trained.artefact)


def test_values_of_one_step_start_from_the_rule_and_are_kept(tmp_path):
    # The start of the weights is the pooled rule itself, whose tensor is kept beside them.
    random = np.random.default_rng(0)
    names = ["a", "b", "c"]
    values = pl.DataFrame({name: 50 + random.normal(size=200) for name in names})
    readings = write(values, tmp_path / "v.csv")
    edges = write(
        pl.DataFrame({"src": ["a", "b"], "dst": ["b", "c"], "weight": [1.0, 1.0]}),
        tmp_path / "e.csv",
    )
    path = tmp_path / "one.toml"
    path.write_text(
        f'[data]\nsource = ["{readings.name}", "{edges.name}"]\ntask = "sensor"\n'
        "split = [140, 20, 40]\n[window]\nlookback = 6\nhorizon = 1\n"
        "[train]\nepochs = 1\nthreads = 1\n"
    )
    trained = run.train(recipe.load(path))
    loaded = artefact.load(trained.artefact)
    assert kinds.evaluate(loaded)["metrics"]["test"] == trained.metrics["test"]
    whole = kinds.evaluate(loaded, (str(readings), str(edges)))
    assert whole["metrics"]["test"]["windows"] == 200 - 6
    again = run.train(recipe.load(path), init=trained.artefact)
    assert again.metrics["test"]["mae"] > 0
    with pytest.raises(UsageError, match="a forecaster of graph, and"):
        run.train(recipe.load("metro-traffic"), init=trained.artefact)
    with pytest.raises(UsageError, match="does not do the task 'link'"):
        run.train(recipe.load(write(events(), tmp_path / "ev.csv"), model="todyformer-sensors"))
