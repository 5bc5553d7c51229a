"""A real tracking server and a real model server on this machine, over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

import forecast
from forecast import artefact, recipe
from forecast.errors import ForecastError
from forecast.models import building
from forecast.series import data as loading
from forecast.series.forecaster import Forecaster
from forecast.series.kind import predict_frame
from forecast.tables import reading
from forecast.tracking import Run, promote, resolve, rows, show

LOOKBACK, HORIZON = 6, 3
# A number that pandas reads as text only if it is told to: the ids of a long table.
FRAME = pl.DataFrame(
    {
        "unique_id": [name for name in ("007", "008") for _ in range(40)],
        "ds": [f"2020-01-{day:02d} 0{hour}:00:00" for day in range(1, 5) for hour in range(10)] * 2,
        "y": [float(row % 10) for row in range(80)],
    }
)


@contextmanager
def serving(arguments: list[str], health: str, log: Path, **environment: str) -> Iterator[str]:
    """Run an MLflow server on a free port, wait until it answers, and end all of its processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", *arguments, "--host", "127.0.0.1"]
    settings = {
        # MLflow starts its web server by name, and the environment need not be an activated one.
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONPATH": str(Path(forecast.__file__).parents[1]),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--workers", "1"],
            env=os.environ | settings | environment,
            cwd=log.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"{address}{health}", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail(f"no answer in a minute: {log.read_text()}")
        yield address
    finally:
        # A server that ended by itself has said why, and that must not be hidden by its absence.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def forecaster(tmp_path: Path) -> Path:
    """Save a real forecaster; one that repeats the last value has nothing to train."""
    source = tmp_path / "series.csv"
    FRAME.write_csv(source)
    resolved = recipe.load(source, model="persistence", lookback=LOOKBACK, horizon=HORIZON)
    table = reading.read(source, resolved.data)
    data = loading.load(table, split=(0.6, 0.2, 0.2), lookback=LOOKBACK, horizon=HORIZON)
    folder = tmp_path / "artefact"
    artefact.save(
        folder,
        Forecaster(
            model=building.build(resolved.model, resolved.model_config, data.spec),
            recipe=resolved,
            spec=data.spec,
            scaler=data.scaler,
            columns=table.columns,
            layout=table.layout,
            ridge=None,
            data={"source": str(source), "digest": table.digest},
            metrics={"test": {"mse": 0.25}},
        ),
    )
    return folder


def ask(address: str, body: str, kind: str) -> pl.DataFrame:
    request = urllib.request.Request(
        f"{address}/invocations", body.encode(), {"Content-Type": kind}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return pl.DataFrame(json.loads(answer.read())["predictions"])


def test_a_run_lives_on_a_real_server_and_its_model_is_served(
    forecaster: Path,
    empty_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FORECAST_HOME", str(tmp_path / "home"))
    database = tmp_path / "server.db"
    database.write_bytes(empty_store.read_bytes())
    storage = ["--backend-store-uri", f"sqlite:///{database}"]
    storage += ["--artifacts-destination", str(tmp_path / "bucket")]
    with serving(["server", *storage], "/health", tmp_path / "server.log") as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        example = FRAME.tail(LOOKBACK).to_pandas()
        with Run.start(
            experiment="forecast",
            name="over http",
            params={f"p{number}": number for number in range(150)},
            tags={},
            datasets=[],
            folder=tmp_path,
        ) as run:
            run.log({"loss": 0.5, "bad": float("nan")}, step=1)
            run.artifact(tmp_path / "series.csv")
            assert str(run.model(forecaster, example=example)).startswith("models:/m-")
            assert run.register("series", "champion") == 1
        promote("series", 1, "challenger")
        (row,) = rows()
        assert row["aliases"] == ["challenger", "champion"]
        assert row["metrics"] == {"test.mse": 0.25}
        shown = show("series", "champion")
        assert shown["run_metrics"]["loss"] == 0.5
        assert len(shown["params"]) == 150
        assert shown["digest"] == artefact.digest(forecaster)

        found = resolve("models:/series@champion")
        assert found.is_relative_to(tmp_path / "home" / "cache")
        for file in forecaster.iterdir():
            assert (found / file.name).read_bytes() == file.read_bytes()
        # Found again without another download: by run, by version, and in the same place.
        stamp = (found / "forecaster.json").stat().st_ino
        assert resolve(f"runs:/{run.run_id}") == resolve("models:/series/1") == found
        assert (found / "forecaster.json").stat().st_ino == stamp

        model = ["models", "serve", "-m", "models:/series@champion", "--env-manager", "local"]
        with serving(model, "/ping", tmp_path / "serve.log") as served:
            expected = predict_frame(artefact.load(forecaster), FRAME)
            assert expected["unique_id"].to_list() == ["007"] * HORIZON + ["008"] * HORIZON
            assert ask(served, FRAME.write_csv(), "text/csv").equals(expected)
            records = json.dumps({"dataframe_records": FRAME.to_dicts()})
            assert ask(served, records, "application/json").equals(expected)
            split = (found.parents[1] / "serving_input_example.json").read_text()
            answer = ask(served, split, "application/json")
            assert answer["unique_id"].to_list() == ["008"] * HORIZON
            # A table that cannot be used is the asker's error, in this program's words.
            wrong = FRAME.with_columns(ds=pl.lit("01/02/2020"))
            with pytest.raises(urllib.error.HTTPError) as refused:
                ask(served, wrong.write_csv(), "text/csv")
            assert refused.value.code == 400
            assert "01/02/2020" in json.loads(refused.value.read())["message"].split("Error:")[1]

        late = Run.start(
            experiment="forecast", name="late", params={}, tags={}, datasets=[], folder=tmp_path
        )
    # The server is gone in the middle of a run.
    began = time.monotonic()
    late.log({"loss": 1.0}, step=1)
    with pytest.warns(UserWarning, match="not being tracked"):
        late.finish()
    with pytest.raises(ForecastError, match="does not answer"):
        resolve("models:/series@champion")
    assert time.monotonic() - began < 15
    # Results go to stdout, and MLflow would print an address there.
    assert capfd.readouterr().out == ""
