"""No bit of the future reaches a forecast, a scaler or a choice made before it."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch

from forecast import artefact, recipe
from forecast.models import MODELS
from forecast.runs import run
from forecast.series import data as loading
from forecast.series import score
from forecast.tables import reading
from forecast.tables.reading import TableOptions

ROWS, CUT = 300, 250
SMALL = {"width": 64, "feed_forward": 128}


@pytest.fixture
def written(tmp_path):
    random = np.random.default_rng(0)
    hours = np.arange(ROWS)
    wave = np.sin(hours * 2 * np.pi / 24)
    frame = pl.DataFrame(
        {
            "ds": [
                str(np.datetime64("2024-03-01T00") + np.timedelta64(int(h), "h")) for h in hours
            ],
            "a": wave + 0.1 * random.normal(size=ROWS),
            "b": random.normal(size=ROWS).cumsum(),
        }
    )
    # a missing cell on either side of the cut, so that masks are in play
    frame = frame.with_columns(
        a=pl.when(pl.int_range(ROWS).is_in([100, CUT - 5, CUT + 3])).then(None).otherwise("a")
    )
    later = pl.int_range(ROWS) >= CUT
    poisoned = frame.with_columns(
        a=pl.when(later).then(1e6).otherwise("a"), b=pl.when(later).then(-1e9).otherwise("b")
    )
    paths = tmp_path / "clean.csv", tmp_path / "poisoned.csv"
    frame.write_csv(paths[0])
    poisoned.write_csv(paths[1])
    return paths


def prepared(path):
    table = reading.read(path, TableOptions())
    return loading.load(table, split=(150, 100, 50), lookback=48, horizon=12)


def build(name, data):
    torch.manual_seed(0)
    model, config = MODELS[name].load()
    # What a forecast depends on does not depend on the width.
    known = {field.name for field in dataclasses.fields(config)} if config else set()
    small = {key: size for key, size in SMALL.items() if key in known}
    made = model(config(**small), data.spec).eval()
    score.fit_closed_form(made, data)
    return made


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].kind == "series"])
def test_rows_after_the_cut_change_no_bit_of_forecasts_before_it(written, name):
    clean, poisoned = (prepared(path) for path in written)
    # Fitted on the training part, which ends well before the cut: equal to the bit.
    np.testing.assert_array_equal(clean.scaler.mean, poisoned.scaler.mean)
    np.testing.assert_array_equal(clean.scaler.deviation, poisoned.scaler.deviation)
    model = build(name, clean)
    again = build(name, poisoned)
    for first, second in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(first, second)
    # In the form that evaluate uses: whole batches of windows, those that straddle the cut too.
    seen = 0
    for part in ("train", "val", "test"):
        windows, others = clean.windows(part), poisoned.windows(part)
        for batch, other in zip(windows.batches(32), others.batches(32), strict=True):
            before = windows.origins[seen_rows(windows, batch, seen)] <= CUT
            expected, found = model(batch).values, model(other).values
            assert torch.equal(expected[before], found[before])
            seen = seen + len(batch) if seen + len(batch) < len(windows) else 0


def seen_rows(windows, batch, seen):
    return slice(seen, seen + len(batch))


def test_the_poison_is_strong_enough_to_be_noticed(written):
    clean, poisoned = (prepared(path) for path in written)
    model = build("itransformer", clean)
    last = torch.tensor([len(clean.windows("test")) - 1])
    first = model(clean.windows("test").batch(last)).values
    second = model(poisoned.windows("test").batch(last)).values
    assert not torch.equal(first, second)


def test_a_trained_model_does_not_depend_on_the_test_part(written, tmp_path, monkeypatch):
    monkeypatch.setenv("FORECAST_HOME", str(tmp_path / "home"))
    weights = []
    for path in written:
        resolved = recipe.load(
            path,
            lookback=48,
            horizon=12,
            settings=[
                "data.split=[150, 100, 50]",
                "model.width=16",
                "model.heads=2",
                "train.epochs=2",
                "train.threads=1",
            ],
        )
        trained = run.train(resolved)
        weights.append(artefact.load(trained.artefact).model.state_dict())
    for first, second in zip(weights[0].values(), weights[1].values(), strict=True):
        assert torch.equal(first, second)
