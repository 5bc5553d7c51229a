"""The cards in datasets/ say what the program says, and what the files say."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from forecast.catalogue import DATASETS, Dataset, GraphDataset, GridDataset
from forecast.catalogue.files import data_root, find, sha256_of

TABLES = {name: known for name, known in DATASETS.items() if known.kind == "series"}
GRAPHS = {name: known for name, known in DATASETS.items() if known.kind == "graph"}
GRIDS = {name: known for name, known in DATASETS.items() if known.kind == "grid"}
CARDS = Path(__file__).resolve().parents[2] / "datasets"


def card(name: str) -> dict[str, Any]:
    """Read the block between the first two fences."""
    _, block, _ = (CARDS / f"{name}.md").read_text(encoding="utf-8").split("```", 2)
    return tomllib.loads(block.removeprefix("toml"))


def real(known: Dataset) -> pl.DataFrame:
    file = known.files[0]
    if not file.packaged and "FORECAST_DATA" not in os.environ:
        pytest.skip("FORECAST_DATA is not set")
    path = find(file)
    if path is None:
        pytest.skip(f"{file.path} is not under {data_root()}")
    assert sha256_of(path) == card(known.name)["sha256"]
    assert path.stat().st_size == card(known.name)["bytes"]
    return pl.read_csv(path)


def test_every_data_set_has_a_card_and_a_line_in_the_readme() -> None:
    assert {path.stem for path in CARDS.glob("*.md")} == {*DATASETS, "README"}
    readme = (CARDS / "README.md").read_text(encoding="utf-8")
    for name, known in DATASETS.items():
        assert f"| [{name}]({name}.md) | {known.rows:,} | {len(known.variates)} |" in readme


@pytest.mark.parametrize("known", GRIDS.values(), ids=GRIDS)
def test_card_of_a_grid_agrees_with_the_program(known: GridDataset) -> None:
    stated = card(known.name)
    if known.files:
        (file,) = known.files
        assert [stated[key] for key in ("file", "bytes", "sha256")] == [
            file.path, file.size, file.sha256,
        ]  # fmt: skip
    else:
        assert stated["patterns"] == list(known.patterns)
    assert (stated["frames"], stated["fields"]) == (known.rows, list(known.variates))
    for key in ("name", "target", "frequency", "season", "lookback", "horizon", "source"):
        assert stated[key] == getattr(known, key)
    assert known.licence.startswith(stated["licence"])
    assert known.citation in (CARDS / f"{known.name}.md").read_text("utf-8")


@pytest.mark.parametrize("known", GRAPHS.values(), ids=GRAPHS)
def test_card_of_a_graph_agrees_with_the_program(known: GraphDataset) -> None:
    stated = card(known.name)
    assert list(zip(stated["files"], stated["bytes"], stated["sha256"], strict=True)) == [
        (file.path, file.size, file.sha256) for file in known.files
    ]
    for key in ("name", "rows", "target", "frequency", "season", "lookback", "horizon", "source"):
        assert stated[key] == getattr(known, key)
    assert stated["licence"] == known.licence
    assert known.citation in (CARDS / f"{known.name}.md").read_text("utf-8")


@pytest.mark.parametrize("known", TABLES.values(), ids=TABLES)
def test_card_agrees_with_the_program(known: Dataset) -> None:
    stated = card(known.name)
    file = known.files[0]
    assert {key: stated[key] for key in ("name", "file", "bytes", "sha256", "address")} == {
        "name": known.name,
        "file": file.path,
        "bytes": file.size,
        "sha256": file.sha256,
        "address": list(file.urls),
    }
    assert {key: stated[key] for key in ("rows", "target", "frequency", "season", "source")} == {
        "rows": known.rows,
        "target": known.target,
        "frequency": known.frequency,
        "season": known.season,
        "source": known.source,
    }
    assert stated["variates"] == list(known.variates)
    assert known.licence.startswith(stated["licence"])
    assert stated["split"] == [known.split.train, known.split.val, known.split.test]
    assert stated["borders"] == list(known.split.borders(known.rows))
    assert known.citation.split("doi:")[1] in (CARDS / f"{known.name}.md").read_text("utf-8")

    # All 96 targets inside the part; the 96 inputs of the training part too, those of the others
    # may reach back.
    train_end, val_end, test_end = stated["borders"]
    lookback = horizon = 96
    assert stated["windows"] == [
        train_end - lookback - horizon + 1,
        val_end - train_end - horizon + 1,
        test_end - val_end - horizon + 1,
    ]


@pytest.mark.parametrize("known", TABLES.values(), ids=TABLES)
def test_card_agrees_with_the_file(known: Dataset) -> None:
    table, stated = real(known), card(known.name)
    time = table[known.options["time"]]
    assert table.height == stated["rows"]
    assert table.columns == stated["columns"]
    assert (time[0], time[-1]) == (stated["first"], stated["last"])
    assert time.str.to_datetime(known.options["date_format"]).is_sorted()

    values = table.select(pl.col(known.variates).cast(pl.Float64)).to_numpy()
    assert np.isnan(values).any(axis=1).sum() == stated["missing_rows"]
    train = values[: stated["borders"][0]]
    np.testing.assert_allclose(np.nanmean(train, axis=0), stated["mean"], atol=6e-7)
    np.testing.assert_allclose(np.nanstd(train, axis=0), stated["std"], atol=6e-7)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("etth1", 17.128262, 9.176491),
        ("etth2", 26.872023, 11.584719),
        ("ettm1", 17.124950, 9.173035),
        ("ettm2", 26.872427, 11.580746),
    ],
)
def test_published_oil_temperature_statistics(name: str, mean: float, std: float) -> None:
    stated = card(name)
    oil = stated["variates"].index("OT")
    assert (stated["mean"][oil], stated["std"][oil]) == (mean, std)


def test_hourly_rows_are_every_fourth_row_of_the_finer_file() -> None:
    for name, finer_name in (("etth1", "ettm1"), ("etth2", "ettm2")):
        hourly, finer = real(DATASETS[name]), real(DATASETS[finer_name]).gather_every(4)
        assert hourly["date"].equals(finer["date"])
        # The two files round in the last of 17 digits.
        np.testing.assert_allclose(
            hourly.drop("date").to_numpy(), finer.drop("date").to_numpy(), rtol=1e-9, atol=1e-9
        )
