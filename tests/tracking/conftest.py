"""Stores that are made once and copied, and an artefact small enough to be logged in no time."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from forecast import artefact, recipe
from forecast.batch import Spec
from forecast.models.building import build
from forecast.series.forecaster import Forecaster
from forecast.series.scaling import Scaler
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
    """Save a small forecaster that nobody has trained."""

    def make(name: str = "artefact", *, mse: float = 0.4) -> Path:
        columns = ("load", "temp")
        spec = Spec(lookback=4, horizon=2, variates=2, frequency="h", context=4)
        resolved = recipe.from_dict(
            {
                "data": {"source": "some/where/etth1.csv"},
                "window": {"lookback": 4, "horizon": 2},
                "model": {"name": "itransformer", "width": 4, "heads": 1, "layers": 1},
            }
        )
        forecaster = Forecaster(
            model=build(resolved.model, resolved.model_config, spec),
            recipe=resolved,
            spec=spec,
            scaler=Scaler(mean=np.zeros((1, 2)), deviation=np.ones((1, 2)), ids=("",)),
            columns=columns,
            layout=Layout(kind="wide", time="date", values=columns, variates=columns),
            ridge=None,
            data={"source": "some/where/etth1.csv", "digest": "d" * 64},
            metrics={"test": {"mse": mse, "mae": 0.5, "windows": 7, "units": {"load": {}}}},
        )
        artefact.save(tmp_path / name, forecaster)
        return tmp_path / name

    return make
