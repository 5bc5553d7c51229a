"""Runs: what is written down, and that no server can hurt the training."""

from __future__ import annotations

import itertools
import json
import math
import os
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from forecast.contracts import DatasetInfo
from forecast.errors import ForecastError, UsageError
from forecast.tracking import Run, records, replay, store, tracking_uri

DEAD = "http://127.0.0.1:9"
DATASETS = [
    DatasetInfo(
        name="etth1.csv",
        source="/data/etth1.csv",
        digest="a" * 64,
        rows=17_420,
        columns=("load", "temp"),
        context=context,
    )
    for context in ("training", "evaluation")
]
EXAMPLE = pd.DataFrame({"date": ["2020-01-01", "2020-01-02"], "load": [1.5, None], "temp": [2, 3]})


def start(folder: Path, **changes: Any) -> Run:
    """Open a run with more parameters than one batch takes, one of them longer than MLflow's."""
    given: dict[str, Any] = {
        "experiment": "forecast",
        "name": "a run",
        "params": {f"train.p{number}": number for number in range(130)} | {"long": "z" * 7000},
        "tags": {"model": "itransformer"},
        "datasets": DATASETS,
        "folder": folder,
    }
    return Run.start(**(given | changes))


def whole_run(folder: Path, artefact: Path, **changes: Any) -> Run:
    """Do all that a training does with a run."""
    (folder / "picture.png").write_bytes(b"picture")
    with start(folder, **changes) as run:
        for step in range(1, 4):
            run.log({"loss": 1 / step, "val/mse": 2 / step}, step=step)
            run.flush()
        run.artifact(folder / "picture.png")
        run.model(artefact, example=EXAMPLE)
    return run


def seen(run_id: str | None) -> dict[str, Any]:
    """Collect what the store in use holds of a run, without what differs from run to run."""
    client = store.connect(tracking_uri())
    assert run_id is not None
    run = client.get_run(run_id)
    models = [client.get_logged_model(item.model_id) for item in run.outputs.model_outputs]
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "params": run.data.params,
        "tags": {key: run.data.tags[key] for key in ("model", "mlflow.source.type")},
        "metrics": {
            key: [(row.step, row.value) for row in client.get_metric_history(run_id, key)]
            for key in run.data.metrics
        },
        "files": sorted(item.path for item in client.list_artifacts(run_id)),
        "datasets": [
            (item.dataset.name, item.dataset.digest, item.dataset.profile, item.tags[0].value)
            for item in run.inputs.dataset_inputs
        ],
        "models": [
            (model.name, model.status, model.tags["digest"], model.source_run_id == run_id)
            for model in models
        ],
    }


def test_a_run_is_written_down(
    uri: str, tmp_path: Path, make_artefact: Callable[..., Path]
) -> None:
    import mlflow

    before = (mlflow.get_tracking_uri(), dict(os.environ))
    got = seen(whole_run(tmp_path, make_artefact()).run_id)
    assert got["status"] == "FINISHED"
    assert got["name"] == "a run"
    assert got["metrics"] == {
        "loss": [(1, 1.0), (2, 0.5), (3, 1 / 3)],
        "val/mse": [(1, 2.0), (2, 1.0), (3, 2 / 3)],
    }
    assert got["params"].pop("long") == "z" * 5997 + "..."
    assert got["params"] == {f"train.p{number}": str(number) for number in range(130)}
    assert got["files"] == ["long-parameters.json", "picture.png"]
    # One data set used twice is one row to MLflow; its digest is cut to the 36 that fit.
    profile = json.dumps({"num_rows": 17_420, "num_columns": 2, "digest": "a" * 64})
    assert got["datasets"] == [("etth1.csv", "a" * 36, profile, "training, evaluation")]
    assert [model[:2] for model in got["models"]] == [("forecaster", "READY")]
    assert (mlflow.get_tracking_uri(), dict(os.environ)) == before
    assert mlflow.active_run() is None
    assert not (tmp_path / records.SPOOL).exists()


def test_many_metrics_and_odd_ones(uri: str, tmp_path: Path) -> None:
    with start(tmp_path) as run:
        # 2,500 in one batch: more than MLflow takes in a request.
        run.log({f"column {number}": float(number) for number in range(2500)}, step=1)
        run.log({"loss": math.inf, "°C (a)//b": 1.0}, step=2)
        run.log({"loss": math.nan}, step=3)
    client = store.connect(uri)
    found = client.get_run(run.run_id)
    assert found.data.metrics["column 2499"] == 2499
    assert len(found.data.metrics) == 2502
    assert found.data.metrics["_C _a___b"] == 1.0
    losses = [row.value for row in client.get_metric_history(run.run_id, "loss")]
    assert len(losses) == 2
    assert all(math.isnan(value) for value in losses)
    assert found.data.tags["nonfinite"] == "loss at step 2"


@pytest.mark.parametrize("broken_at", [1, 2, 3, 5, 6, 7])
def test_whenever_the_server_fails_the_replayed_run_equals_the_undisturbed_one(
    broken_at: int,
    make_store: Callable[[str], str],
    tmp_path: Path,
    make_artefact: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Records in order: start, three times metrics, picture, model, finish.
    artefact = make_artefact()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", make_store("undisturbed"))
    (tmp_path / "one").mkdir()
    expected = seen(whole_run(tmp_path / "one", artefact).run_id)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", make_store("disturbed"))
    (tmp_path / "two").mkdir()
    count, send = itertools.count(1), records.send

    def failing(target: records.Target, record: records.Record) -> None:
        if next(count) >= broken_at:
            raise ConnectionError("the cable is cut")
        send(target, record)

    monkeypatch.setattr(records, "send", failing)
    with pytest.warns(UserWarning, match="the cable is cut") as caught:
        whole_run(tmp_path / "two", artefact)
    assert len([item for item in caught if "not being tracked" in str(item.message)]) == 1
    monkeypatch.setattr(records, "send", send)
    # Seven records from the first failing one on, and one that names the run if there is one.
    assert replay(tmp_path / "two") == 8 - broken_at + (broken_at > 1)

    client = store.connect(tracking_uri())
    experiment = client.get_experiment_by_name("forecast")
    (run,) = client.search_runs([experiment.experiment_id])
    assert seen(run.info.run_id) == expected
    with pytest.raises(ForecastError, match="nothing to send"):
        replay(tmp_path / "two")


def test_a_server_that_comes_back_gets_the_spool_from_the_run_itself(
    uri: str, tmp_path: Path, make_artefact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forecast.tracking.run._RETRY_SECONDS", 0.0)
    send = records.send

    def failing(target: records.Target, record: records.Record) -> None:
        raise ConnectionError("for a moment")

    run = start(tmp_path)
    monkeypatch.setattr(records, "send", failing)
    run.log({"loss": 1.0}, step=1)
    with pytest.warns(UserWarning, match="for a moment"):
        run.flush()
    monkeypatch.setattr(records, "send", send)
    run.log({"loss": 2.0}, step=2)
    run.model(make_artefact())
    run.finish()
    # After the end as well.
    assert run.register("etth1", "champion") == 1
    got = seen(run.run_id)
    assert got["metrics"] == {"loss": [(1, 1.0), (2, 2.0)]}
    assert got["status"] == "FINISHED"
    assert not (tmp_path / records.SPOOL).exists()


def test_a_dead_server_costs_a_warning_and_no_time(
    uri: str, tmp_path: Path, make_artefact: Callable[..., Path]
) -> None:
    began = time.monotonic()
    with pytest.warns(UserWarning, match=r"does not answer.*forecast registry sync") as caught:
        run = whole_run(tmp_path, make_artefact(), uri=DEAD)
    with pytest.raises(ForecastError) as refused:
        run.register("etth1", "champion")
    assert time.monotonic() - began < 5
    assert len(caught) == 1
    assert run.run_id is None
    assert "kept in" in refused.value.message
    assert refused.value.hint.endswith(
        f"forecast registry add {tmp_path / 'artefact'} --name etth1 --alias champion"
    )
    assert replay(tmp_path) == 7


def test_a_slow_server_holds_nothing_up(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(tmp_path)
    send, answer = records.send, threading.Event()

    def slow(target: records.Target, record: records.Record) -> None:
        answer.wait()
        send(target, record)

    monkeypatch.setattr(records, "send", slow)
    monkeypatch.setattr("forecast.tracking.run._FLUSH_SECONDS", 0.05)
    began = time.monotonic()
    for step in range(2000):
        run.log({"loss": float(step)}, step=step)
    run.flush()
    assert time.monotonic() - began < 1
    answer.set()
    run.finish()
    assert seen(run.run_id)["metrics"]["loss"][-1] == (1999, 1999.0)


def test_a_run_ends_as_it_went(uri: str, tmp_path: Path) -> None:
    ends = {}
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), start(tmp_path) as run:
            raise error
        ends[error] = seen_status(run)
    assert ends == {KeyboardInterrupt: "KILLED", ValueError: "FAILED"}


def seen_status(run: Run) -> str:
    return store.connect(tracking_uri()).get_run(str(run.run_id)).info.status


def test_a_run_goes_on(uri: str, tmp_path: Path) -> None:
    first = start(tmp_path)
    first.log({"loss": 1.0}, step=1)
    first.finish("KILLED")
    with start(tmp_path, run_id=first.run_id, params={"train.p0": 0, "new": 1}) as second:
        assert seen_status(second) == "RUNNING"
        second.log({"loss": 2.0}, step=2)
    got = seen(first.run_id)
    assert second.run_id == first.run_id
    assert got["status"] == "FINISHED"
    assert got["metrics"] == {"loss": [(1, 1.0), (2, 2.0)]}
    assert got["params"]["new"] == "1"
    with pytest.warns(UserWarning, match="not on the tracking server any more"):
        third = start(tmp_path, run_id="0" * 32)
    third.finish()
    assert third.run_id not in (None, "0" * 32)
    store.connect(uri).delete_run(first.run_id)
    with pytest.warns(UserWarning, match="not on the tracking server any more"):
        fourth = start(tmp_path, run_id=first.run_id)
    fourth.finish()
    assert fourth.run_id != first.run_id
    assert seen(fourth.run_id)["params"]["train.p0"] == "0"


def test_a_run_that_started_without_a_server_goes_on_with_one(uri: str, tmp_path: Path) -> None:
    # As after a kill: the first process never came to finish().
    with pytest.warns(UserWarning, match="does not answer"):
        first = start(tmp_path, uri=DEAD)
    first.log({"loss": 1.0}, step=1)
    first.flush()
    with start(tmp_path, run_id=first.run_id) as second:
        second.log({"loss": 2.0}, step=2)
    assert seen(second.run_id)["metrics"] == {"loss": [(1, 1.0), (2, 2.0)]}
    client = store.connect(uri)
    experiment = client.get_experiment_by_name("forecast")
    assert len(client.search_runs([experiment.experiment_id])) == 1


def test_a_project_run_is_gone_on_with_once(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = store.connect(uri)
    experiment = client.create_experiment("of the project", str(tmp_path / "artifacts"))
    made = client.create_run(experiment).info.run_id
    client.log_param(made, "recipe", "etth1.toml")
    client.set_tag(made, "mlflow.source.type", "PROJECT")
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    with start(tmp_path) as first, start(tmp_path) as second:
        assert first.run_id == made
        assert second.run_id != made
    got = seen(made)
    assert got["params"].keys() >= {"recipe", "train.p0"}
    assert got["tags"] == {"model": "itransformer", "mlflow.source.type": "PROJECT"}
    assert len(got["datasets"]) == 1


def test_what_the_server_refuses_costs_that_record_alone(uri: str, tmp_path: Path) -> None:
    run = start(tmp_path)
    with pytest.warns(UserWarning, match="refused the run's tag"):
        run._call(run._tell, {"kind": "tag", "key": "a//b", "value": "x"})
    run.log({"loss": 1.0}, step=1)
    run.finish()
    assert seen(run.run_id)["metrics"] == {"loss": [(1, 1.0)]}


def test_a_deleted_experiment_is_said_before_training(uri: str, tmp_path: Path) -> None:
    client = store.connect(uri)
    number = client.create_experiment("forecast", str(tmp_path / "artifacts"))
    client.delete_experiment(number)
    with pytest.raises(UsageError, match="deleted") as caught:
        start(tmp_path)
    with pytest.raises(UsageError, match="no name"):
        start(tmp_path, experiment=" ")
    assert f"mlflow experiments restore --experiment-id {number}" in caught.value.hint


def test_a_spool_cut_short_by_a_kill_is_read_up_to_there(uri: str, tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        run = start(tmp_path, uri=DEAD)
    with (tmp_path / records.SPOOL).open("a") as stream:
        stream.write('\n{"kind": "metrics", "ro')
    assert [record["kind"] for record in records.spooled(tmp_path)] == ["start"]
    run.finish()
    assert [record["kind"] for record in records.spooled(tmp_path)] == ["start", "finish"]
