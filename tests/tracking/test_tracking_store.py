"""Where runs are kept, and how MLflow is loaded."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from forecast.errors import ForecastError
from forecast.tracking import store


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that does not look like a test to MLflow."""
    quiet = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW", "PYTEST", "DO_NOT_TRACK")) and name not in ("CI",)
    }
    quiet["PYTHONPATH"] = str(Path(store.__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=quiet | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_importing_the_package_imports_no_heavy_library() -> None:
    done = _python(
        """
        import sys, forecast.tracking
        print([name for name in ("mlflow", "torch", "pandas", "polars") if name in sys.modules])
        """
    )
    assert done.stdout == "[]\n", done.stderr


def test_home_and_uri_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("FORECAST_HOME", "/some/where")
    assert store.tracking_uri() == "sqlite:////some/where/mlflow.db"
    monkeypatch.delenv("FORECAST_HOME")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert store.home() == Path("/data/forecast")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert store.tracking_uri() == "http://host:5000"


def test_artifacts_lie_beside_a_sqlite_file_and_nowhere_else_by_our_doing() -> None:
    assert store.artifact_root("sqlite:////a b/m.db") == "file:///a%20b/mlartifacts"
    assert store.artifact_root("http://host") is None
    assert store.artifact_root("postgresql://host/db") is None
    assert store.artifact_root("sqlite:///:memory:") is None


def test_four_first_runs_at_once_make_one_store(tmp_path: Path) -> None:
    # A draft as a killed process leaves it must not be in the way either.
    (tmp_path / "mlflow.db.draft").write_bytes(b"half a database")
    (tmp_path / "mlflow.db.draft-journal").write_bytes(b"half a journal")
    done = _python(
        """
        import json, multiprocessing
        from forecast.tracking import Run, store, tracking_uri

        def first(barrier, number):
            barrier.wait()
            run = Run.start(experiment="forecast", name=str(number), params={}, tags={},
                            datasets=[], folder=store.home() / str(number))
            run.log({"loss": number}, step=0)
            run.finish()

        store.load()  # once, before the fork, and not four times
        context = multiprocessing.get_context("fork")
        barrier = context.Barrier(4)
        started = [context.Process(target=first, args=(barrier, n)) for n in range(4)]
        [process.start() for process in started]
        [process.join() for process in started]
        client = store.connect(tracking_uri())
        experiment = client.get_experiment_by_name("forecast")
        runs = client.search_runs([experiment.experiment_id])
        from mlflow.telemetry.client import get_telemetry_client
        print(json.dumps({
            "codes": [process.exitcode for process in started],
            "losses": sorted(run.data.metrics["loss"] for run in runs),
            "status": sorted({run.info.status for run in runs}),
            "place": experiment.artifact_location,
            "telemetry": get_telemetry_client() is not None,
        }))
        """,
        FORECAST_HOME=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    # Nothing is narrated: no migrations, no warnings.
    assert done.stderr == ""
    assert json.loads(done.stdout) == {
        "codes": [0, 0, 0, 0],
        "losses": [0, 1, 2, 3],
        "status": ["FINISHED"],
        "place": f"file://{tmp_path}/mlartifacts/forecast",
        "telemetry": False,
    }
    assert not list(tmp_path.glob("*draft*"))
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("select count(*) from alembic_version").fetchall() == [(1,)]
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(ForecastError, match=r"127\.0\.0\.1:9 does not answer") as caught:
        store.connect("http://user:secret@127.0.0.1:9")
    assert "secret" not in str(caught.value)
    assert store.shown("http://user:secret@host") == "http://user:***@host"
