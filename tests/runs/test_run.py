"""A run: no model is overwritten, a resumed one registers once, broken weights forecast nothing."""

from __future__ import annotations

import hashlib
import json

import mlflow
import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file, save

from forecast import artefact, recipe
from forecast.errors import DataError, UsageError
from forecast.runs import folders, run
from forecast.tracking import tracking_uri


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FORECAST_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def resolved(tmp_path):
    rows = np.arange(200)
    times = np.datetime64("2024-01-01T00") + rows.astype("timedelta64[h]")
    values = np.sin(rows * 2 * np.pi / 24) + 0.2 * np.random.default_rng(0).normal(size=200)
    path = tmp_path / "a.csv"
    pl.DataFrame({"date": [str(time) for time in times], "load": values}).write_csv(path)
    return recipe.load(
        path, model="dlinear", lookback=24, horizon=6,
        settings=["train.epochs=1", "train.threads=1", "tracking.register=a", "tracking.alias=b"],
    )  # fmt: skip


class Killed(BaseException):
    """End a run where a kill would."""


def test_a_run_killed_before_its_alias_ends_with_one_version_and_the_alias(
    tmp_path, resolved, monkeypatch
):
    def kill(*_, **__):
        raise Killed

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "set_registered_model_alias", kill)
        with pytest.raises(Killed):
            run.train(resolved, out=out)
    with monkeypatch.context() as patch:
        # and once more between the registration and its note
        patch.setattr(folders.RunFolder, "finish", kill)
        with pytest.raises(Killed):
            run.train(resolved, out=out, resume=True)
    trained = run.train(resolved, out=out, resume=True)
    client = mlflow.MlflowClient(tracking_uri())
    (version,) = client.search_model_versions("name = 'a'")
    assert trained.version == int(version.version) == 1
    assert client.get_model_version_by_alias("a", "b").version == version.version

    # the run is over: what lies there is a model that nothing may overwrite unasked
    before = (out / "weights.safetensors").read_bytes()
    for resume in (False, True):
        with pytest.raises(UsageError, match="would overwrite") as caught:
            run.train(resolved.replace("train", seed=1), out=out, resume=resume)
        assert "--force" in caught.value.hint
    assert (out / "weights.safetensors").read_bytes() == before
    assert trained.to_json()["precision"] == "fp32"

    # weights that are no numbers are refused, though every hash is right
    weights = load_file(out / "weights.safetensors")
    name = next(iter(weights))
    weights[name][..., 0] = float("nan")
    content = save(weights)
    (out / "weights.safetensors").write_bytes(content)
    description = json.loads((out / "forecaster.json").read_text())
    description["sha256"]["weights.safetensors"] = hashlib.sha256(content).hexdigest()
    # as an artefact of before the description stated its own hash
    del description["sha256"]["forecaster.json"]
    (out / "forecaster.json").write_text(json.dumps(description))
    with pytest.raises(DataError, match=f"NaN or infinite weights, first {name}"):
        artefact.load(out)


@pytest.mark.parametrize(
    "setting",
    [f"train.seed={2**64}", "train.threads=100000", f"data.leave_out={10**20}", "train.seed=-1"],
)
def test_numbers_beyond_their_types_are_refused_by_the_recipe(resolved, setting):
    with pytest.raises(UsageError, match=setting.partition("=")[0].rpartition(".")[2]):
        recipe.load(resolved.data.source, model="dlinear", settings=[setting])
