"""Engines: the function they run, in parts and with failures, and Ray and Spark where they are."""

from __future__ import annotations

import importlib.util
import shutil

import numpy as np
import polars as pl
import pytest

from forecast import api, recipe
from forecast.engines import ENGINES, ERROR, Forecasting, predict_files
from forecast.errors import NotFoundError, UsageError
from forecast.runs import run
from forecast.series import bulk

ROWS, SERIES = 40, 60


def table(bad=()):
    random = np.random.default_rng(0)
    times = np.datetime64("2024-01-01T00", "us") + np.arange(ROWS) * np.timedelta64(1, "h")
    frames = []
    for number in range(SERIES):
        values = 5 + number + random.normal(size=ROWS)
        if number in bad:
            values[:] = np.inf
        frames.append(
            pl.DataFrame({"unique_id": [f"s{number:03d}"] * ROWS, "ds": times, "y": values})
        )
    return pl.concat(frames)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("engines")
        patch.setenv("FORECAST_HOME", str(folder / "home"))
        table().write_parquet(folder / "train.parquet")
        resolved = recipe.load(
            folder / "train.parquet", model="ridge", lookback=12, horizon=4,
            settings=["train.threads=1"],
        )  # fmt: skip
        run.train(resolved, out=folder / "model")
        yield folder


def test_parts_dealt_out_give_the_bits_of_the_whole_in_any_order(home, tmp_path):
    forecaster = api.load_series(home / "model")
    bulk.predict_files(forecaster, str(home / "train.parquet"), tmp_path / "local.parquet")
    expected = pl.read_parquet(tmp_path / "local.parquet")
    whole = Forecasting.of(str(home / "model"), None, [str(home / "train.parquet")])
    # As if a part were ten series: the bounds are what decides.
    names = [f"s{number:03d}" for number in range(0, SERIES, 10)]
    small = Forecasting(model=whole.model, level=None, schema=whole.schema, bounds=tuple(names))
    dealt = small.dealt(table().sample(fraction=1.0, shuffle=True, seed=3).to_arrow())
    assert sorted(set(dealt["forecast_part"].to_pylist())) == list(range(6))
    found = pl.DataFrame(pl.from_arrow(whole.forecast(whole.dealt(table().to_arrow()))))
    assert found.drop(ERROR).sort("unique_id", "ds").equals(expected.sort("unique_id", "ds"))
    places = [
        pl.DataFrame(pl.from_arrow(small.forecast(dealt.filter(mask))))
        for mask in (
            np.isin(dealt["forecast_part"].to_numpy(), parts) for parts in ([0, 3, 5], [1, 2, 4])
        )
    ]
    joined = pl.concat(places).drop(ERROR).sort("unique_id", "ds")
    # Other batches, so perhaps another last bit, but nothing more.
    np.testing.assert_allclose(joined["y"], expected.sort("unique_id", "ds")["y"], rtol=1e-6)


def test_series_that_cannot_be_forecast_are_named_and_the_others_forecast(home):
    forecasting = Forecasting.of(str(home / "model"), (90.0,), [str(home / "train.parquet")])
    frame = table(bad=(7, 41))
    found = pl.DataFrame(pl.from_arrow(forecasting.forecast(forecasting.dealt(frame.to_arrow()))))
    failed = found.filter(pl.col(ERROR).is_not_null())
    assert failed["unique_id"].to_list() == ["s007", "s041"]
    assert found.filter(pl.col(ERROR).is_null()).height == (SERIES - 2) * 4
    assert {"y-lo-90", "y-hi-90"} <= set(found.columns)


def test_what_an_engine_cannot_do_is_said_before_it_starts(home, tmp_path):
    model = str(home / "model")
    with pytest.raises(NotFoundError, match="no engine 'sprak'"):
        predict_files(model, [str(home / "train.parquet")], tmp_path / "out", engine="sprak")
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(UsageError, match="no Parquet"):
        predict_files(model, [str(tmp_path / "a.csv")], tmp_path / "out", engine="ray")
    with pytest.raises(NotFoundError, match="no Parquet file at"):
        predict_files(model, [str(tmp_path / "none.parquet")], tmp_path / "out", engine="ray")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("x")
    with pytest.raises(UsageError, match="there already"):
        predict_files(model, [str(home / "train.parquet")], tmp_path / "full", engine="ray")


@pytest.mark.parametrize("engine", list(ENGINES))
def test_an_engine_gives_what_a_job_here_gives(home, tmp_path, engine):
    package = {"ray": "ray", "spark": "pyspark"}[engine]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'forecast[{engine}]'")
    if engine == "spark" and shutil.which("java") is None:
        pytest.skip("Spark needs java")
    source = str(home / "train.parquet")
    bulk.predict_files(api.load_series(home / "model"), source, tmp_path / "local.parquet")
    done = predict_files(str(home / "model"), [source], tmp_path / "out", engine=engine, places=2)
    assert (done.rows, done.failed) == (SERIES * 4, ())
    ours = pl.read_parquet(tmp_path / "local.parquet").sort("unique_id", "ds")
    theirs = pl.read_parquet(str(tmp_path / "out" / "*.parquet")).sort("unique_id", "ds")
    assert ours.equals(theirs.select(ours.columns))
