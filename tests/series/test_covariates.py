"""Covariates of every kind reach the models that read them, and none tells of the future."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

import forecast
from forecast import api, artefact, recipe
from forecast.errors import DataError, UsageError
from forecast.models import MODELS
from forecast.runs import run as training
from forecast.series import data as loading
from forecast.series import predict, score
from forecast.tables import reading
from forecast.tables.layout import TableOptions

ROWS, CUT = 300, 250
KINDS = {"past": "heat", "known": "promo", "categorical": "sky", "static": "shop"}
OPTIONS = TableOptions(
    target=("y",),
    past_covariates=("heat",),
    known_future=("promo",),
    categorical=("sky",),
    static=("shop", "size"),
)


def hours(count, start="2024-03-01T00"):
    return [str(np.datetime64(start) + np.timedelta64(hour, "h")) for hour in range(count)]


def panel(rows=ROWS, seed=0):
    random = np.random.default_rng(seed)
    frames = []
    for place, name in enumerate(("a", "b")):
        promo = random.integers(0, 2, rows).astype(float)
        heat = random.normal(size=rows)
        # heat shows in the next row, a promotion in its own
        y = np.sin(np.arange(rows) * np.pi / 12) + 3 * promo + np.concatenate([[0], heat[:-1]])
        frames.append(
            pl.DataFrame(
                {
                    "unique_id": name,
                    "ds": hours(rows),
                    "y": (1 + 9 * place) * y,
                    "heat": heat,
                    "promo": promo,
                    "sky": random.choice(["rain", "sun"], rows),
                    "shop": "small" if place else "large",
                    "size": 10.0 * (place + 1),
                }
            )
        )
    return pl.concat(frames)


def prepared(frame, tmp_path, name="table.csv"):
    frame.write_csv(tmp_path / name)
    table = reading.read(tmp_path / name, OPTIONS)
    return loading.load(table, split=(150, 100, 50), lookback=48, horizon=12, holidays="DE")


def test_every_kind_has_its_place_in_a_batch(tmp_path):
    data = prepared(panel(), tmp_path)
    batch = data.windows("train").batch(torch.tensor([0, 100]))
    # sky has two levels, then heat, then promo and the holidays before the forecast
    assert batch.past_covariates.shape == (2, 48, 5)
    assert batch.known_future.shape == (2, 12, 2)
    # shop has two levels, size is a number; series a is the larger, series b twice the size
    assert batch.static.tolist() == [[1, 0, -1], [0, 1, 1]]
    assert (data.spec.past_covariates, data.spec.known_future, data.spec.static) == (5, 2, 3)
    # scaled on the training rows of each series
    heat = data.series.covariates[:150, 2]
    assert abs(float(heat.mean())) < 1e-5
    assert float(heat.std(unbiased=False)) == pytest.approx(1, abs=1e-4)
    promo = panel()["promo"].to_numpy()[48:60]
    assert (batch.known_future[0, :, 0] > 0).tolist() == (promo > 0).tolist()


def later(frame, column):
    """Change a column from row CUT of each series on."""
    change = {"sky": pl.lit("sun"), "promo": 1 - pl.col("promo")}.get(column, pl.col(column) + 50)
    row = pl.int_range(pl.len()).over("unique_id")
    return frame.with_columns(
        pl.when(row >= CUT).then(change).otherwise(pl.col(column)).alias(column)
    )


def build(name, data):
    torch.manual_seed(0)
    model, config = MODELS[name].load()
    made = model(config(), data.spec).eval()
    score.fit_closed_form(made, data)
    if getattr(made, "known", None) is not None:
        # It starts at zero, where nothing could leak.
        torch.nn.init.normal_(made.known)
    return made


@torch.no_grad()
@pytest.mark.parametrize("column", ["y", "heat", "sky"])
@pytest.mark.parametrize("name", ["itransformer", "dlinear", "ridge"])
def test_the_future_of_targets_and_past_covariates_changes_no_bit(tmp_path, name, column):
    clean = prepared(panel(), tmp_path)
    poisoned = prepared(later(panel(), column), tmp_path, "poisoned.csv")
    model = build(name, clean)
    for part in ("train", "val", "test"):
        windows, others = clean.windows(part), poisoned.windows(part)
        number = torch.arange(len(windows))
        row = windows.origins % ROWS
        found = (model(some.batch(number)).values for some in (windows, others))
        changed = torch.stack(
            [(first != second).any() for first, second in zip(*found, strict=True)]
        )
        assert not changed[row <= CUT].any()
        if part == "test" and (column == "y" or name == "itransformer"):
            # and the change is one that shows, in a window that has seen it
            assert changed[row > CUT].any()


@torch.no_grad()
@pytest.mark.parametrize("name", ["itransformer", "dlinear"])
def test_what_is_known_in_advance_changes_no_window_before_it(tmp_path, name):
    clean = prepared(panel(), tmp_path)
    changed = prepared(later(panel(), "promo"), tmp_path, "changed.csv")
    model = build(name, clean)
    windows, others = clean.windows("val"), changed.windows("val")
    # the last window of each series whose horizon ends before the change
    number = torch.nonzero(windows.origins % ROWS == CUT - 12)[:, 0]
    assert len(number) == 2
    assert torch.equal(model(windows.batch(number)).values, model(others.batch(number)).values)


@torch.no_grad()
@pytest.mark.parametrize("name", ["itransformer", "dlinear"])
def test_what_is_known_in_advance_changes_the_steps_from_there_on(tmp_path, name):
    data = prepared(panel(), tmp_path)
    model = build(name, data)
    batch = data.windows("test").batch(torch.tensor([0]))
    expected = model(batch).values
    for step in range(12):
        known = batch.known_future.clone()
        known[:, step:] += 1
        differs = (model(replace(batch, known_future=known)).values != expected)[0, :, 0]
        assert differs[step:].any()
        # DLinear is causal in it; attention mixes the whole horizon.
        if name == "dlinear":
            assert differs.tolist() == [False] * step + [True] * (12 - step)


SETTINGS = ["train.epochs=1", "train.threads=1"]


@pytest.fixture
def train(tmp_path, monkeypatch):
    monkeypatch.setenv("FORECAST_HOME", str(tmp_path / "home"))

    def run(frame, model="dlinear", *settings, **data):
        path = tmp_path / "table.csv"
        frame.write_csv(path)
        small = ["model.width=16", "model.heads=2"] if model == "itransformer" else []
        resolved = recipe.load(
            path,
            model=model,
            lookback=48,
            horizon=12,
            settings=[*SETTINGS, *small, *settings],
            data={"target": ("y",), **data},
        )
        return api.load(training.train(resolved).artefact)

    return run


DECLARED = {
    "past_covariates": ("heat",),
    "known_future": ("promo",),
    "categorical": ("sky",),
    "static": ("shop", "size"),
    "holidays": "DE-BY",
}


def behind(frame, rows=12):
    """Add rows behind the last target of each series, with what is known in advance alone."""
    added = [
        pl.DataFrame(
            {
                "unique_id": name,
                "ds": hours(ROWS + rows)[ROWS:],
                "promo": [float(row % 2) for row in range(rows)],
                "shop": shop,
                "size": size,
            }
        )
        for name, shop, size in (("a", "large", 10.0), ("b", "small", 20.0))
    ]
    return pl.concat([frame, *added], how="diagonal")


@pytest.mark.parametrize("model", ["itransformer", "dlinear"])
def test_a_forecast_reads_what_is_known_from_its_file_or_from_another(train, model, tmp_path):
    frame = panel()
    forecaster = train(frame, model, "train.learning_rate=0.05", **DECLARED)
    inside = forecast.predict(forecaster, behind(frame))
    # the rows behind the last target are no history: the forecast starts where they do
    assert inside["ds"].to_list() == 2 * hours(ROWS + 12)[ROWS:]
    only = behind(frame).filter(pl.col("y").is_null()).select("unique_id", "ds", "promo")
    assert forecast.predict(forecaster, frame, future=only).equals(inside)
    # a promotion shows, and only where it is announced
    without = forecast.predict(forecaster, frame, future=only.with_columns(promo=0.0))
    differs = (without["y"] != inside["y"]).to_numpy().reshape(2, 12)
    assert differs[:, 1::2].all()
    if model == "dlinear":
        assert not differs[:, ::2].any()
    # an artefact holds all that it takes, and the order of rows does not matter
    artefact.save(tmp_path / "copy", forecaster)
    again = artefact.load(tmp_path / "copy")
    assert forecast.predict(again, behind(frame).reverse()).equals(inside)
    levels = forecast.predict(forecaster, behind(frame), level=[80])
    assert levels.columns == ["unique_id", "ds", "y", "y-lo-80", "y-hi-80"]


def test_what_is_missing_of_the_known_future_is_named_with_its_first_time(train):
    frame = panel()
    forecaster = train(frame, known_future=("promo",))
    with pytest.raises(DataError, match=r"'promo'.*2024-03-13 12:00:00 of series 'a'.*12 steps"):
        forecast.predict(forecaster, frame)
    seven = behind(frame, rows=7)
    with pytest.raises(DataError, match=r"no value for 2024-03-13 19:00:00 of series 'a'"):
        forecast.predict(forecaster, seven)
    with pytest.raises(UsageError, match="no covariates that are known in advance"):
        forecast.predict(train(frame), frame, future=frame)


def test_holidays_alone_need_no_column_and_no_file(train):
    frame = panel().drop("heat", "promo", "sky", "shop", "size")
    forecaster = train(frame, holidays="DE")
    assert (forecaster.spec.known_future, forecaster.recipe.data.holidays) == (1, "DE")
    assert forecast.predict(forecaster, frame).height == 24
    with pytest.raises(UsageError, match="no country 'XX'"):
        train(frame, holidays="XX")


def test_a_wide_table_has_covariates_too(train):
    frame = panel().filter(unique_id="a").select("ds", "y", "heat", "promo")
    forecaster = train(frame, past_covariates=("heat",), known_future=("promo",))
    # neither is taken for a variate
    assert forecaster.columns == ("y",)
    later = behind(panel()).filter(unique_id="a").select("ds", "y", "heat", "promo")
    assert forecast.predict(forecaster, later).height == 12
    found = score.evaluate(forecaster)
    assert found["metrics"]["test"] == forecaster.metrics["test"]


def test_a_model_that_reads_no_covariate_says_so(train, monkeypatch):
    told = []

    class Listener(training.Silence):
        def notice(self, text):
            told.append(text)

    resolved_train = training.train
    monkeypatch.setattr(
        training, "train", lambda resolved: resolved_train(resolved, watcher=Listener())
    )
    forecaster = train(panel(), "ridge", **DECLARED)
    (text,) = [text for text in told if "does not read" in text]
    assert text.startswith("ridge does not read past covariates or covariates known in advance or")
    told.clear()
    train(panel(), "itransformer", **DECLARED)
    assert not [text for text in told if "does not read" in text]
    assert forecast.predict(forecaster, behind(panel())).height == 24


def test_new_levels_of_a_static_column_are_named(train):
    forecaster = train(panel(), "itransformer", **DECLARED)
    frame = behind(panel()).with_columns(shop=pl.lit("huge"))
    with pytest.raises(DataError, match="'huge' is new to the model, which knows 'large', 'small'"):
        forecast.predict(forecaster, frame)


def test_training_goes_on_with_the_covariates_it_began_with(train, tmp_path):
    forecaster = train(panel(), **DECLARED)
    artefact.save(tmp_path / "first", forecaster)
    again = training.train(tmp_path / "table.csv", settings=SETTINGS, init=tmp_path / "first")
    loaded = api.load(again.artefact)
    assert loaded.layout.known_future == ("promo",)
    assert loaded.recipe.data.holidays == "DE-BY"
    assert forecast.predict(loaded, behind(panel())).height == 24


def test_a_new_series_has_its_covariates_scaled_by_its_context_alone(tmp_path, monkeypatch):
    # What lies before the context is not read, so it may hold anything.
    monkeypatch.setenv("FORECAST_HOME", str(tmp_path / "home"))
    random = np.random.default_rng(0)

    def series(name, rows):
        times = np.datetime64("2024-01-01T00") + np.arange(rows).astype("timedelta64[h]")
        return pl.DataFrame(
            {
                "unique_id": [name] * rows,
                "ds": [str(time) for time in times],
                "y": random.normal(size=rows),
                "x": random.normal(size=rows),
            }
        )

    path = tmp_path / "table.csv"
    pl.concat([series("a", 300), series("b", 300)]).write_csv(path)
    resolved = recipe.load(
        path,
        lookback=48,
        horizon=12,
        settings=["model.width=16", "model.heads=2", "train.epochs=1", "train.threads=1"],
        data={"past_covariates": ("x",)},
    )
    forecaster = api.load(training.train(resolved).artefact)
    new = series("new", 200)
    early = pl.int_range(pl.len()) < 200 - 48
    changed = new.with_columns(x=pl.when(early).then(1e6).otherwise("x"))
    expected = predict.predict(forecaster, new)
    assert predict.predict(forecaster, changed).equals(expected)


def test_one_part_that_fails_does_not_stop_the_rest(train, tmp_path):
    forecaster = train(panel(), "ridge", **DECLARED)
    whole, out = behind(panel()), tmp_path / "out.csv"
    forecast.predict(forecaster, whole).write_csv(tmp_path / "expected.csv")
    expected = pl.read_csv(tmp_path / "expected.csv")
    closed = whole.filter(pl.col("y").is_not_null() | (pl.col("unique_id") == "a"))
    renamed = whole.with_columns(
        shop=pl.when(pl.col("unique_id") == "b").then(pl.lit("huge")).otherwise("shop")
    )
    for frame, reason in ((closed, "no value for"), (renamed, "'huge' is new to the model")):
        frame.write_csv(tmp_path / "in.csv")
        done = forecast.predict_files(forecaster, tmp_path / "in.csv", out)
        assert reason in done.lacking
        assert "b: " in done.lacking
        assert done.summary["written"][0]["skipped"] == ["b"]
        assert pl.read_csv(out).equals(expected.filter(pl.col("unique_id") == "a"))
    # inputs stay what they are, whatever the output is called
    for options in ({"history": str(tmp_path / "in.csv")}, {"future": str(tmp_path / "in.csv")}):
        before = (tmp_path / "in.csv").read_bytes()
        with pytest.raises(UsageError, match="would overwrite the input"):
            forecast.predict_files(
                forecaster, tmp_path / "expected.csv", tmp_path / "in.csv", **options
            )
        assert (tmp_path / "in.csv").read_bytes() == before
