"""The table of known data sets, their splits, the packaged sample, and `forecast datasets`."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import math
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from forecast.catalogue import DATASETS, dataset
from forecast.catalogue.dataset import Split
from forecast.catalogue.files import KnownFile, fetch, locate
from forecast.cli.datasets import app
from forecast.errors import DataError, ForecastError, NotFoundError, UsageError

HEAVY = ("torch", "polars", "pandas", "numpy", "mlflow", "rich", "pydantic")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def error_of(result: Result) -> ForecastError:
    assert isinstance(result.exception, ForecastError)
    return result.exception


# The split.


@pytest.mark.parametrize(
    ("name", "borders"),
    [
        ("etth1", (8_640, 11_520, 14_400)),
        ("ettm2", (34_560, 46_080, 57_600)),
        # floor(.7 * 7588) = 5311, floor(.2 * 7588) = 1517.
        ("exchange", (5_311, 5_311 + 760, 5_311 + 760 + 1_517)),
    ],
)
def test_published_borders(name: str, borders: tuple[int, int, int]) -> None:
    assert DATASETS[name].split.borders(DATASETS[name].rows) == borders


@given(st.integers(min_value=10, max_value=10**7))
def test_fractions_are_rounded_as_decimals(rows: int) -> None:
    train_end, val_end, test_end = Split(train=0.7, val=0.1, test=0.2).borders(rows)
    # In integers: 0.7 * 90 in binary is below 63.
    assert (train_end, val_end, test_end) == (7 * rows // 10, rows - rows // 5, rows)


def test_counts_leave_later_rows_unused() -> None:
    split = Split(train=5, val=2, test=3)
    assert split.borders(10) == split.borders(1_000) == (5, 7, 10)


@pytest.mark.parametrize("rows", [0, 1, 4])
def test_table_too_short_for_its_split(rows: int) -> None:
    for split in (Split(), Split(train=5, val=2, test=3)):
        with pytest.raises(DataError, match=f"A table of {rows} rows cannot be split"):
            split.borders(rows)


@pytest.mark.parametrize("parts", [(0.7, 0.1, 0.1), (8, 0, 2), (-1, 2, 3), (0.5, 0.7, -0.2)])
def test_split_that_makes_no_sense(parts: tuple[float, float, float]) -> None:
    train, val, test = parts
    with pytest.raises(UsageError, match=f"{train}/{val}/{test}"):
        Split(train=train, val=val, test=test)


# The table.


def test_names_and_references_hang_together() -> None:
    paths = [file.path for known in DATASETS.values() for file in known.files]
    assert len(paths) == len(set(paths))
    for name, known in DATASETS.items():
        assert known.name == name
        assert known.target in known.variates
        # Nothing but the target columns may differ between what is read and what is forecast.
        assert known.options.get("target", known.variates) == known.variates
        for file in known.files:
            assert file.dataset == name
            assert re.fullmatch("[0-9a-f]{64}", file.sha256)
            assert all(url.startswith("https://") for url in file.urls)


def test_lookup_forgives_case_and_suggests() -> None:
    assert dataset("ETTh1") is DATASETS["etth1"]
    with pytest.raises(NotFoundError, match="Did you mean 'etth2'") as caught:
        dataset("eth2")
    assert caught.value.exit_code == 4


def test_import_is_cheap() -> None:
    code = (
        "import sys, forecast.catalogue, forecast.cli.datasets;"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Typer itself decides whether to bring rich.
    assert done.stdout.strip() in {"[]", "['rich']"}


# The sample.


def test_sample_is_the_published_csv_compressed_reproducibly() -> None:
    packed = locate(DATASETS["metro-traffic"].files[0]).read_bytes()
    # RFC 1952: bytes 4 to 7 of a gzip file are its time of change, bit 3 of byte 3 a file name.
    assert packed[4:8] == b"\0\0\0\0"
    assert packed[3] & 8 == 0
    assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == (
        "60eb78c718d113355ecac683a1c92d2d193eb035db24023cd0d65e111f0d76d9"
    )


def test_sample_has_real_gaps() -> None:
    known = DATASETS["metro-traffic"]
    table = pl.read_csv(locate(known.files[0]))
    assert table.height == known.rows == 17_520
    measured = table.drop("datetime")
    assert measured.null_count().row(0) == (104,) * 6
    # The rows are empty together, and complete otherwise.
    assert measured.drop_nulls().height == 17_520 - 104
    hours = table["datetime"].str.to_datetime("%Y-%m-%d %H:%M:%S").diff().drop_nulls()
    assert hours.unique().dt.total_hours().to_list() == [1]


def test_variates_left_out_are_those_that_cannot_be_scaled() -> None:
    known = DATASETS["metro-traffic"]
    table = pl.read_csv(locate(known.files[0]))
    train_end, _, _ = known.split.borders(table.height)
    wet = {
        column: table[column].head(train_end).drop_nulls().ne(0).sum()
        for column in ("rain_1h", "snow_1h")
    }
    assert wet == {"rain_1h": 12, "snow_1h": 0}
    assert set(known.variates) == set(table.columns) - {*wet, "datetime", "weather_main"}


def test_sample_is_attributed_beside_the_file() -> None:
    notice = (resources.files("forecast.catalogue") / "sample" / "NOTICE.txt").read_text()
    for needed in ("John Hogue", "10.24432/C5X60B", "Attribution 4.0", "Colin Catlin", "MIT"):
        assert needed in notice


def test_sample_can_be_copied_out(tmp_path: Path) -> None:
    file = DATASETS["metro-traffic"].files[0]
    copy = fetch(file, root=tmp_path)
    assert copy.parent == tmp_path
    assert copy.read_bytes() == locate(file).read_bytes()


# The commands.


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty data root and a small data set in the table."""
    content = b"date,OT\n2020-01-01,1\n"
    file = KnownFile(
        path="small/small.csv",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        dataset="small",
    )
    options = {"time": "date"}
    template = DATASETS["exchange"]
    small = dataclasses.replace(template, name="small", files=(file,), options=options)
    monkeypatch.setitem(DATASETS, "small", small)
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path / "root"))
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "small.csv").write_bytes(content)
    return tmp_path / "root"


def test_list_says_what_is_here(root: Path) -> None:
    rows = {
        line.split()[0]: line.split()
        for line in run("list").stdout.splitlines()
        if not line.startswith("Data root")
    }
    assert set(rows) == {"name", *DATASETS}
    assert rows["etth1"][1:6] == ["17,420", "7", "h", "2,589,657", "absent"]
    assert rows["metro-traffic"][1:6] == ["17,520", "3", "h", "146,930", "here"]
    assert str(root) in run("list").stderr


def test_json_is_one_document_on_stdout(root: Path) -> None:
    listed = json.loads(run("list", "--json").stdout)
    shown = json.loads(run("show", "etth1", "--json").stdout)
    assert [known["name"] for known in listed] == list(DATASETS)
    assert shown == listed[0]
    assert shown["split"] == {
        "train": 8640,
        "val": 2880,
        "test": 2880,
        "borders": [8640, 11520, 14400],
    }
    assert shown["files"][0]["location"] is None
    assert json.loads(run("verify", "--json").stdout)[0]["state"] == "absent"


def test_show_tells_people_the_same(root: Path) -> None:
    text = run("show", "etth1").stdout
    for needed in ("8,640 to 11,520", DATASETS["etth1"].files[0].sha256, "CC BY-ND 4.0", "Zhou"):
        assert needed in text
    assert "forecast datasets fetch etth1" in text


def test_show_suggests_the_name_meant() -> None:
    error = error_of(run("show", "metro"))
    assert (error.exit_code, error.hint) == (4, "Did you mean 'metro-traffic'?")


def test_fetch_verify_and_find_again(root: Path) -> None:
    assert error_of(run("fetch", "small")).exit_code == 4

    fetched = run("fetch", "small", "--mirror", str(root.parent / "mirror"))
    assert fetched.exit_code == 0
    path = root / "small" / "small.csv"
    assert fetched.stdout.strip() == str(path)
    assert run("fetch", "small").stdout.strip() == str(path)
    assert run("verify", "small").exit_code == 0

    path.write_bytes(b"changed")
    result = run("verify", "small", "--json")
    error = error_of(result)
    changed, published = hashlib.sha256(b"changed").hexdigest(), DATASETS["small"].files[0].sha256
    assert error.exit_code == 3
    assert f"{path} has sha256 {changed}, the published file {published}" in error.message
    assert json.loads(result.stdout)[0]["state"] == "differs"


def test_fetch_to_another_folder_touches_nothing_else(root: Path) -> None:
    other = root.parent / "other"
    mirror = str(root.parent / "mirror")
    result = run("fetch", "small", "--mirror", mirror, "--to", str(other))
    assert result.stdout.strip() == str(other / "small" / "small.csv")
    assert not root.exists()


def test_verify_fails_on_absence_only_of_what_was_named(root: Path) -> None:
    assert run("verify").exit_code == 0
    error = error_of(run("verify", "small", "etth1"))
    assert error.exit_code == 4
    assert error.hint.endswith("forecast datasets fetch small etth1")


def test_a_name_mistyped_stops_before_anything_is_fetched(root: Path) -> None:
    mirror = str(root.parent / "mirror")
    assert error_of(run("fetch", "small", "smal", "--mirror", mirror)).exit_code == 4
    assert not root.exists()


def test_reader_that_leaves_early_is_no_error() -> None:
    code = "from forecast.cli.datasets import app; app()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        # Closed long before the interpreter is up: the first write finds no reader.
        process.stdout.close()
        complaint = process.stderr.read().decode()
    assert process.returncode == 0
    assert complaint.startswith("Data root")
    assert complaint.count("\n") == 1


def test_season_and_step_make_a_day_or_a_week() -> None:
    hours = {"h": 1, "6h": 6, "30min": 1 / 2, "15min": 1 / 4, "5min": 1 / 12, "D": 24}
    for known in DATASETS.values():
        if known.frequency in hours:
            span = known.season * hours[known.frequency]
            assert math.isclose(span, 24) or math.isclose(span, 24 * 7)
        else:
            assert (known.frequency, known.season) in {("MS", 12), ("", 1)}
