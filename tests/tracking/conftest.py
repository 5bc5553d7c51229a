"""Stores that are made once and copied, and an artefact small enough to be logged in no time."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forecast.tables.reading import Layout
from forecast.tracking import store


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    store.prepare(f"sqlite:///{file}")
    return file


@pytest.fixture
def make_store(empty_store: Path, tmp_path: Path) -> Callable[[str], str]:
    def make(name: str) -> str:
        file = tmp_path / name / "mlflow.db"
        file.parent.mkdir()
        shutil.copyfile(empty_store, file)
        return f"sqlite:///{file}"

    return make


@pytest.fixture
def uri(make_store: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A store of its own for the test, and the one that `tracking_uri()` names."""
    made = make_store("store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    return made


@pytest.fixture
def make_artefact(tmp_path: Path) -> Callable[..., Path]:
    """Write what a trained forecaster's folder states, with weights that nobody reads."""

    def make(name: str = "artefact", *, mse: float = 0.4) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "weights.safetensors").write_bytes(b"weights")
        (folder / "arrays.safetensors").write_bytes(b"arrays")
        columns = ("load", "temp")
        layout = Layout(kind="wide", time="date", values=columns, variates=columns)
        description = {
            "format": 1,
            "model": "itransformer",
            "spec": {"lookback": 4, "horizon": 2},
            "layout": dataclasses.asdict(layout),
            "data": {"source": "some/where/etth1.csv", "digest": "d" * 64},
            "metrics": {"test": {"mse": mse, "mae": 0.5, "windows": 7, "units": {"load": {}}}},
        }
        (folder / "forecaster.json").write_text(json.dumps(description))
        return folder

    return make
