"""Artefacts from anywhere: refused in a sentence, or forecasting; never a traceback or a hang."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from forecast import artefact
from forecast.errors import DataError, NotFoundError

_FILE = Path(__file__).parents[2] / "benchmarks" / "attacks.py"
_SPEC = importlib.util.spec_from_file_location("attacks", _FILE)
assert _SPEC is not None
assert _SPEC.loader is not None
attacks = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(attacks)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, attacks.Forecaster]:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORECAST_HOME", str(folder))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        return attacks.series(folder)


@pytest.fixture
def copied(trained: tuple[Path, attacks.Forecaster], tmp_path: Path) -> Path:
    folder = tmp_path / "artefact"
    folder.mkdir()
    for file in trained[0].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.filterwarnings("ignore")
def test_forty_mutated_artefacts_are_refused_or_forecast(
    trained: tuple[Path, attacks.Forecaster], tmp_path: Path
) -> None:
    whole, predict = trained
    expected = predict(whole)
    # 9 and 27: a folder for the weights; 45: fewer quantiles of reaches than there are levels.
    for seed in (*range(37), 45, 63, 1000):
        came, done = attacks.attack(whole, predict, expected, tmp_path / "mutant", seed)
        assert came in ("refused", "forecast"), (seed, done)


def changed(folder: Path, change: Callable[[dict], object]) -> None:
    """Change the description and state its hashes anew, as one who wants it believed would."""
    described = json.loads((folder / "forecaster.json").read_text())
    change(described)
    attacks.state_anew(folder, described)


def test_what_is_no_file_is_refused_at_once(copied: Path) -> None:
    weights = copied / "weights.safetensors"
    weights.unlink()
    for make in (
        lambda: os.mkfifo(weights),
        lambda: weights.symlink_to("/dev/zero"),
        weights.mkdir,
    ):
        make()
        with pytest.raises(DataError, match="no regular file"):
            artefact.load(copied)
        weights.rmdir() if weights.is_dir() else weights.unlink()
    (copied / "forecaster.json").unlink()
    os.mkfifo(copied / "forecaster.json")
    with pytest.raises(DataError, match="no regular file"):
        artefact.describe(copied)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a":' * 100_000, "damaged"),
        (f'{{"format": {"9" * 10_000}}}', "damaged"),
        ("[1]", "no object"),
        ('{"format": 7}', "format 7"),
        ('{"format": 1}', "model: Field required"),
    ],
)
def test_a_document_beyond_all_bounds_is_refused(copied: Path, text: str, words: str) -> None:
    (copied / "forecaster.json").write_text(text)
    with pytest.raises(DataError, match=words):
        artefact.describe(copied)


def test_a_name_too_long_for_the_file_system_is_no_artefact(tmp_path: Path) -> None:
    with pytest.raises((NotFoundError, DataError)):
        artefact.load(tmp_path / ("x" * 300))


def test_a_description_that_was_edited_is_noticed(copied: Path) -> None:
    file = copied / "forecaster.json"
    # Another step, which no hash of another file would tell.
    file.write_text(file.read_text().replace('"frequency": "h"', '"frequency": "D"'))
    with pytest.raises(DataError, match="not the one that was written"):
        artefact.load(copied)


def test_a_model_far_larger_than_its_weights_is_not_built(copied: Path) -> None:
    # 300,000 squared and more, 360 GB: refused before any of it is asked for.
    changed(copied, lambda held: held["recipe"]["model"].update(width=300_000))
    with pytest.raises(DataError, match="far larger than the weights"):
        artefact.load(copied)


def test_arrays_of_another_shape_are_named(copied: Path) -> None:
    file = copied / "arrays.safetensors"
    arrays = load_tensors(file.read_bytes())
    file.write_bytes(save_tensors(arrays | {"scaler.mean": torch.zeros(7, 1, dtype=torch.float64)}))
    changed(copied, lambda held: None)
    with pytest.raises(DataError, match=r"scaler\.mean is \(7, 1\)"):
        artefact.load(copied)


def test_files_that_are_named_in_the_description_stay_in_the_folder(copied: Path) -> None:
    secret = copied.parent / "secret"
    secret.write_bytes(b"secret")
    found = hashlib.sha256(b"secret").hexdigest()
    changed(copied, lambda held: held["sha256"].update({"../secret": found}))
    with pytest.raises(DataError, match="names a file"):
        artefact.verify(copied)
