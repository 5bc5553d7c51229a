"""Any table: what is read, what is told, what is refused and in which words."""

import bz2
import datetime as dt
import gzip
import io
import json
import lzma
import os
import zipfile
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from forecast.errors import DataError, ForecastError, NotFoundError, UsageError
from forecast.series.data import filled
from forecast.tables.reading import (
    Layout,
    TableOptions,
    forecast_frame,
    future_times,
    read,
    write_table,
)

NAN = float("nan")


def table(content, *, columns=None, frequency=None, levels=None, **options):
    raw = content if isinstance(content, bytes) else content.encode()
    return read(
        io.BytesIO(raw),
        TableOptions(**options),
        columns=columns,
        frequency=frequency,
        levels=levels,
        name="sales.csv",
    )


def rows(*times, header="date,a"):
    return header + "\n" + "".join(f"{time},{place}\n" for place, time in enumerate(times))


def long(*cells):
    return "unique_id,ds,y\n" + "".join(f"{i},{time},{y}\n" for i, time, y in cells)


def times(found):
    return [str(time).replace(":00.000000", "") for time in found.times]


def parquet(**columns):
    stream = io.BytesIO()
    pl.DataFrame(columns).write_parquet(stream)
    return stream.getvalue()


def said(found):
    return " ".join(found.notices)


# --- the forms of a file ---

PLAIN = 'date,a,"b,c"\n2020-01-01,1.5,-2\n2020-01-02,2.25,1e3\n2020-01-03,,7\n'
SEMICOLONS = "date;a;b,c\n2020-01-01;1,5;-2\n2020-01-02;2,25;1e3\n2020-01-03;;7\n"


def zipped(*names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, PLAIN)
    return stream.getvalue()


def zstandard(content):
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode(),
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-16-le"),
        PLAIN.encode("utf-16-be"),
        PLAIN.encode("utf-32"),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.rstrip().encode(),
        PLAIN.replace("\n", "\n\n").encode(),
        SEMICOLONS.encode(),
        SEMICOLONS.replace(";", "\t").encode(),
        SEMICOLONS.replace(";", "|").encode(),
        gzip.compress(PLAIN.encode(), mtime=0),
        bz2.compress(PLAIN.encode()),
        lzma.compress(PLAIN.encode()),
        zstandard(PLAIN.encode()),
        zipped("folder/data.csv"),
    ],
)
def test_one_table_in_many_forms(content):
    found = table(content)
    assert found.columns == ("a", "b,c")
    assert times(found) == ["2020-01-01T00:00", "2020-01-02T00:00", "2020-01-03T00:00"]
    assert np.array_equal(found.values, [[1.5, -2], [2.25, 1e3], [NAN, 7]], equal_nan=True)
    assert found.frequency == "D"
    assert found.offsets.tolist() == [0, 3]
    assert found.ids == ("",)


def test_a_named_encoding_and_delimiter():
    text = "Zeit höhe\n2020-01-01 1\n2020-01-02 2\n"
    found = table(text.encode("latin-1"), encoding="latin-1", delimiter=" ")
    assert found.columns == ("höhe",)
    with pytest.raises(DataError, match=r"row 1: Byte 0xf6 is not UTF-8") as caught:
        table(text.encode("latin-1"), delimiter=" ")
    assert "data.encoding" in caught.value.hint


def test_quoted_cells_hold_anything_and_lines_are_those_of_an_editor():
    text = 'date,note,a\n2020-01-01,"two\nlines, ""quoted""",1\n2020-01-02,x,2\n2020-01-03,y,oops\n'
    with pytest.raises(DataError) as caught:
        table(text)
    assert (caught.value.row, caught.value.column) == (5, "a")
    found = table(text.replace("oops", "3"), categorical=("note",))
    assert found.layout.levels["note"] == ('two\nlines, "quoted"', "x", "y")
    # A wide header is longer than the sample that shows the delimiter.
    wide = ",".join(["date", *(f"variate number {place}" for place in range(6000))])
    day = ",".join(["2020-01-0{}", *["1"] * 6000])
    assert table(f"{wide}\n{day.format(1)}\n{day.format(2)}\n").values.shape == (2, 6000)


def test_parquet_keeps_its_types_and_leaves_out_what_is_no_number():
    days = [dt.date(2020, 1, 1), dt.date(2020, 1, 2)]
    found = table(
        parquet(
            when=days,
            whole=[1, 2],
            exact=[Decimal("1.50"), None],
            huge=pl.Series([2**63, 2**62], dtype=pl.UInt64),
            single=pl.Series([0.5, NAN], dtype=pl.Float32),
            flag=[True, False],
            nested=[[1], [2]],
            label=pl.Series(["x", "y"], dtype=pl.Categorical),
        )
    )
    assert found.columns == ("whole", "exact", "huge", "single")
    expected = [[1, 1.5, 2.0**63, 0.5], [2, NAN, 2.0**62, NAN]]
    assert np.array_equal(found.values, expected, equal_nan=True)
    assert "'flag', 'nested', 'label' are not numbers" in said(found)
    ids = table(parquet(unique_id=[7, 7, 10], ds=[*days, days[0]], y=[1, 2, 3]))
    assert ids.ids == ("10", "7")
    zoned = pl.Series([dt.datetime(2020, 1, 1)] * 2).dt.replace_time_zone("Asia/Tokyo")
    found = table(parquet(ds=zoned + pl.Series([dt.timedelta(0), dt.timedelta(1)]), y=[1, 2]))
    assert times(found) == ["2019-12-31T15:00", "2020-01-01T15:00"]
    assert found.layout.timezone == "Asia/Tokyo"
    assert found.frequency == "D"


# --- times ---


@pytest.mark.parametrize(
    ("first", "second", "frequency", "options"),
    [
        ("2020-03-01", "2020-03-02", "D", {}),
        ("2020-03-01 00:00", "2020-03-01 01:00", "h", {}),
        ("2020-03-01T00", "2020-03-01T01", "h", {}),
        ("2020-03-01T00:00:00", "2020-03-01T00:00:00.500", "500ms", {}),
        ("2020/3/1 0:00", "2020/3/1 0:15", "15min", {}),
        ("20200301", "20200302", "D", {}),
        ("20200301T000000", "20200301T000001", "s", {}),
        ("2020-03", "2020-04", "MS", {}),
        ("2020", "2021", "YS-JAN", {}),
        ("2020-02-29", "2020-03-31", "ME", {}),
        ("01/03/2020", "02/03/2020", "D", {"date_format": "%d/%m/%Y"}),
        ("3/1/20 11:00 PM", "3/2/20 12:00 AM", "h", {"date_format": "%m/%d/%y %I:%M %p"}),
        ("01 Mar 2020", "02 Mar 2020", "D", {"date_format": "%d %b %Y"}),
        ("01.03.2020 05:00:00.250", "01.03.2020 05:00:00.500", "250ms",
         {"date_format": "%d.%m.%Y %H:%M:%S.%f"}),
        ("1583020800", "1583024400", "h", {"date_format": "epoch"}),
        ("1583020800250", "1583020800500", "250ms", {"date_format": "epoch_ms"}),
        ("2020-03-01T00:00Z", "2020-03-01T01:00Z", "h", {}),
        ("2020-03-01 00:00+05:30", "2020-03-01 01:00+05:30", "h", {}),
        ("2020-03-01 00:00 -0330", "2020-03-01 00:01 -0330", "min", {}),
        ("01/03/2020 00:00 +0100", "01/03/2020 01:00 +0100", "h",
         {"date_format": "%d/%m/%Y %H:%M %z"}),
    ],
)  # fmt: skip
def test_times_are_written_as_they_were_read(first, second, frequency, options):
    found = table(rows(first, second), **options)
    assert found.frequency == frequency
    frame = forecast_frame(found.layout, found.ids, [found.times], found.values[None])
    assert [str(time) for time in frame["date"]] == [first, second]


def test_iso_times_may_leave_out_what_is_zero():
    found = table(rows("2020-01-01", "2020-01-01T12:00:00", "2020-01-02", "2020-01-02 12:00"))
    assert times(found) == [f"2020-01-0{day}T{hour}:00" for day in (1, 2) for hour in ("00", "12")]
    assert found.layout.time_format == "%Y-%m-%dT%H:%M:%S"


def test_offsets_become_utc_and_a_named_zone_is_the_local_clock():
    autumn = rows("2020-10-25T02:00+02:00", "2020-10-25T02:00+01:00", "2020-10-25T03:00+01:00")
    found = table(autumn)
    assert times(found) == [f"2020-10-25T0{hour}:00" for hour in range(3)]
    assert found.layout.timezone == "UTC"
    assert "--timezone" in said(found)
    found = table(autumn, timezone="Europe/Berlin")
    frame = forecast_frame(found.layout, found.ids, [found.times], found.values[None])
    assert frame["date"].to_list() == [line.split(",")[0] for line in autumn.splitlines()[1:]]


@pytest.mark.parametrize("backwards", [False, True])
def test_the_hour_that_comes_twice_is_told_by_its_order(backwards):
    clock = [
        f"2020-10-25 {hour}" for hour in ("01:30", "02:00", "02:30", "02:00", "02:30", "03:00")
    ]
    cells = [f"{time},{place}\n" for place, time in enumerate(clock)]
    text = "date,a\n" + "".join(reversed(cells) if backwards else cells)
    found = table(text, timezone="Europe/Berlin")
    assert found.values[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    instants = ["24T23:30", "25T00:00", "25T00:30", "25T01:00", "25T01:30", "25T02:00"]
    assert times(found) == [f"2020-10-{instant}" for instant in instants]
    frame = forecast_frame(found.layout, found.ids, [found.times], found.values[None])
    assert frame["date"].to_list() == clock
    with pytest.raises(DataError, match="is there again") as caught:
        table(text)
    assert "--timezone" in caught.value.hint


def test_the_hour_that_is_skipped():
    spring = rows("2020-03-29 00:00", "2020-03-29 01:00", "2020-03-29 03:00", "2020-03-29 04:00")
    assert times(table(spring, timezone="Europe/Berlin"))[-1] == "2020-03-29T02:00"
    assert "clocks being set forward" in said(table(spring))
    with pytest.raises(DataError, match=r"row 4.*no 2020-03-29 02:30:00 in Europe/Berlin"):
        table(spring.replace("03:00", "02:30"), timezone="Europe/Berlin")


def test_days_of_a_zone_are_a_day_apart_when_the_clocks_change():
    days = [f"2018-11-0{day}" for day in range(2, 7)]
    for zone in ("America/Sao_Paulo", "America/New_York"):
        found = table(rows(*days[:2], *days[3:]), timezone=zone)
        assert found.frequency == "D"
        assert np.isnan(found.values[2, 0])
        frame = forecast_frame(found.layout, found.ids, [found.times], found.values[None])
        assert frame["date"].to_list() == days
        later = future_times(found.times[1], "D", 3, found.layout.timezone)
        assert np.array_equal(later, found.times[2:])


# --- the grid ---


def test_rows_are_sorted_and_gaps_become_missing_rows():
    found = table(rows("2020-01-05", "2020-01-01", "2020-01-02", "2020-01-06", "2020-01-07"))
    expected = [1, 2, NAN, NAN, 0, 3, 4]
    assert np.array_equal(found.values[:, 0], expected, equal_nan=True)
    assert times(found) == [f"2020-01-0{day}T00:00" for day in range(1, 8)]
    assert (
        "sorted by time: 1 of 5 come before the one above them in the file, the first on row 3"
        in (said(found))
    )
    assert "Rows are missing: 2 in 1 gap, the first after row 4 (2020-01-02)" in said(found)
    assert "Of 7 cells 2 are missing, in 'a'; they stay missing and are masked" in said(found)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("none", [NAN, 1, NAN, NAN, 4, NAN]),
        ("hold", [NAN, 1, 1, 1, 4, 4]),
        ("linear", [NAN, 1, 2, 3, 4, NAN]),
    ],
)
def test_fill_stays_within_the_series(how, expected):
    days = [f"2020-01-0{day}" for day in (1, 2, 3, 5, 6)]
    cells = [(i, day, y) for i in "ab" for day, y in zip(days, ["", 1, "NA", 4, "-"], strict=True)]
    found = table(long(*cells), fill=how)
    read, rests_on = filled(found, carried=False)
    assert np.array_equal(read[:, 0], expected * 2, equal_nan=True)
    # What is scored stays as it is in the file.
    assert np.array_equal(found.values[:, 0], [NAN, 1, NAN, NAN, 4, NAN] * 2, equal_nan=True)
    if how == "linear":
        assert rests_on[1:5, 0].tolist() == [1, 4, 4, 4]
    assert found.offsets.tolist() == [0, 6, 12]
    assert f"--fill {how}" in said(found)
    with pytest.raises(DataError, match="--fill refuse"):
        table(long(*cells), fill="refuse")
    with pytest.raises(DataError, match=r"row 3, column 'a': The cell is missing, as 1 of 2"):
        table("date,a\n2020-01-01,1\n2020-01-02,NA\n", fill="refuse")


@pytest.mark.parametrize(
    ("duplicates", "expected"), [("first", [0, 1, 3]), ("last", [0, 2, 3]), ("mean", [0, 1.5, 3])]
)
def test_duplicates(duplicates, expected):
    text = rows("2020-01-01", "2020-01-02", "2020-01-02", "2020-01-03")
    found = table(text, duplicates=duplicates)
    assert found.values[:, 0].tolist() == expected
    assert "1 repeat an earlier time, the first on row 4" in said(found)
    with pytest.raises(DataError, match=r"row 4.*2020-01-02 is there again; of 4 rows 1 repeat"):
        table(text)


def test_a_mean_passes_over_what_is_missing():
    text = rows("2020-01-01", "2020-01-01", "2020-01-02").replace(",1\n", ",NA\n")
    assert table(text, duplicates="mean").values[:, 0].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (rows("2020-01-01 00:00", "2020-01-01 01:00", "2020-01-01 02:07", "2020-01-01 03:00"),
         r"row 4.*2020-01-01 02:07:00 is off the regular grid of frequency h .*1 of 4 are"),
        (rows("2020-01-01 00:07", "2020-01-01 01:00", "2020-01-01 02:00", "2020-01-01 03:00"),
         r"row 2.*2020-01-01 00:07:00 is off"),
        (rows("2020-01-31", "2020-02-29", "2020-03-30", "2020-04-30"), r"row 4.*frequency ME"),
        (rows("2020-01-03", "2020-01-06", "2020-01-07", "2020-01-11", "2020-01-13", "2020-01-14"),
         r"row 5"),
        (rows("1020-01-01 00:00", "2020-01-01 00:00", "2020-01-01 01:00", "2020-01-01 02:00"),
         r"row 2.*8,765,831 rows would be missing"),
    ],
)  # fmt: skip
def test_irregular_steps_are_refused(given, words):
    with pytest.raises(DataError, match=words) as caught:
        table(given, frequency="B" if "01-11" in given else None)
    assert caught.value.exit_code == 3


def test_the_frequency_of_a_model():
    days = rows("2020-01-01", "2020-01-02", "2020-01-03")
    assert table(days, frequency="D").frequency == "D"
    assert table(rows("2020-01-01"), frequency="D").values.shape == (1, 1)
    # Rows may be missing, even most of them, as long as some step is the right one.
    assert len(table(rows("2020-01-01", "2020-01-03", "2020-01-06"), frequency="D").times) == 6
    # The anchor of a week is its series' own affair.
    assert table(rows("2020-01-01", "2020-01-08"), frequency="W-SUN").frequency == "W-WED"
    halves = rows("2020-01-01 00:00", "2020-01-01 00:30", "2020-01-01 01:00", "2020-01-01 01:30")
    with pytest.raises(DataError, match="frequency 30min, but h"):
        table(halves, frequency="h")
    for wrong, words in (("h", "frequency D, but h"), ("W", "D, but W"), ("MS", "D, but MS")):
        with pytest.raises(DataError, match=words):
            table(days, frequency=wrong)
    with pytest.raises(DataError, match="not one of frequency ME"):
        table(rows("2020-01-01"), frequency="ME")
    with pytest.raises(DataError, match="step between rows is not known"):
        table(rows("2020-01-01"))


# --- long tables ---

THREE = [(i, f"2020-01-0{day}", 10 * k + day) for k, i in enumerate(["b", "007", "7"])
         for day in (1, 2, 3)]  # fmt: skip


def test_ids_are_text_and_series_are_in_their_order():
    found = table(long(*THREE))
    assert found.ids == ("007", "7", "b")
    assert found.values[:, 0].tolist() == [11, 12, 13, 21, 22, 23, 1, 2, 3]
    assert found.offsets.tolist() == [0, 3, 6, 9]
    mixed = table(long(*THREE[::-1]))
    assert np.array_equal(mixed.values, found.values)
    assert np.array_equal(mixed.times, found.times)


def test_series_side_by_side():
    found = table(long(*THREE[1:]), joint=True)
    assert found.columns == ("007", "7", "b")
    assert found.ids == ("",)
    expected = [[11, 21, NAN], [12, 22, 2], [13, 23, 3]]
    assert np.array_equal(found.values, expected, equal_nan=True)
    chosen = table(long(*THREE), joint=True, columns=("b", "007"))
    assert chosen.values.tolist() == [[1, 11], [2, 12], [3, 13]]
    assert "does not use series '7'" in said(chosen)
    with pytest.raises(DataError, match="no rows of series '8'"):
        table(long(*THREE), joint=True, columns=("b", "8"))


def test_other_names_static_and_categorical_columns():
    text = (
        "day,store,size,town,sales,price,weather\n"
        "2020-01-01,a,2,X,1,5,rain\n2020-01-02,a,2,X,2,6,\n2020-01-04,a,2,X,4,7,sun\n"
        "2020-01-01,b,3.5,,8,9,sun\n2020-01-02,b,3.5,,9,9,sun\n"
    )
    roles = {"id": "store", "target": ("price", "sales"), "static": ("size", "town")}
    found = table(text, categorical=("weather",), **roles)
    assert found.columns == ("price", "sales")
    assert found.values[0].tolist() == [5, 1]
    assert {name: list(cells) for name, cells in found.static.items()} == {
        "size": [2.0, 3.5],
        "town": ["X", None],
    }
    assert found.categories[:, 0].tolist() == [0, -1, -1, 1, 1, 1]
    assert found.layout.levels == {"weather": ("rain", "sun")}
    later = table(
        text, categorical=("weather",), levels={"weather": ("fog", "rain", "sun")}, **roles
    )
    assert later.categories[:, 0].tolist() == [1, -1, -1, 2, 2, 2]
    with pytest.raises(DataError, match=r"row 2.*'rain' is new"):
        table(text, categorical=("weather",), levels={"weather": ("sun",)}, **roles)
    with pytest.raises(DataError, match=r"row 3, column 'size'.*changes"):
        table(text.replace("02,a,2", "02,a,9"), **roles)


def test_a_series_of_another_frequency_is_named():
    weekly = [("w", f"2020-01-{day:02}", 1) for day in (1, 8, 15)]
    with pytest.raises(DataError, match=r"row 11.*'w' has the frequency W-WED, most rows have D"):
        table(long(*THREE, *weekly))
    # Rows that were left out because nothing was sold are gaps, not a frequency.
    sparse = [("w", f"2020-01-{day:02}", 1) for day in (1, 4, 6)]
    assert len(table(long(*THREE, *sparse)).times) == 9 + 6


# --- numbers and columns ---


def test_columns_are_left_out_or_kept_by_name():
    text = (
        ",date,town,a,flat,empty\n0,2020-01-01,X,1,5,\n1,2020-01-02,Y,2,5,NA\n2,2020-01-03,Z,3,5,\n"
    )
    found = table(text)
    assert found.columns == ("a", "flat")
    for words in (
        "'column 1' is without a name",
        "'town' is not numbers",
        "'flat' is constant",
        "'empty' is without a single value",
    ):
        assert words in said(found)
    found = table(text, columns=("empty", "a"))
    assert np.array_equal(found.values, [[NAN, 1], [NAN, 2], [NAN, 3]], equal_nan=True)
    assert "'town', 'flat' are not used by the model" in said(found)
    with pytest.raises(DataError, match=r"column 'empty'.*no value at all"):
        table(text, target=("empty",))
    with pytest.raises(DataError, match="no column 'A'") as caught:
        table(text, columns=("A",))
    assert "Did you mean 'a'?" in caught.value.hint


def test_missing_cells_are_never_zero():
    tokens = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-", "?", " NA ", '""']
    days = [f"2020-01-{day:02},{token}" for day, token in enumerate(tokens, start=1)]
    found = table("date,a\n" + "\n".join(days) + "\n2020-01-13,0\n2020-01-14,1\n")
    assert np.isnan(found.values[:12, 0]).all()
    assert found.values[12:, 0].tolist() == [0, 1]
    text = "date,a\n2020-01-01,-999\n2020-01-02,-999.0\n2020-01-03,closed\n2020-01-04,1\n"
    found = table(text, missing=("-999", "closed"))
    assert np.array_equal(found.values[:, 0], [NAN, NAN, NAN, 1], equal_nan=True)


def test_numbers_are_read_to_the_last_bit():
    numbers = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(-500, 500).clip(
        -30, 30
    )
    days = np.arange("2000-01-01", "2002-09-27", dtype="datetime64[D]")
    text = "date,a\n" + "".join(f"{d},{n!r}\n" for d, n in zip(days, numbers.tolist(), strict=True))
    assert np.array_equal(table(text).values[:, 0], numbers)


REFUSED = {
    "a cell that is no number": (
        "date,a\n2020-01-01,1\n2020-01-02,x\n2020-01-03,3\n",
        {},
        r"row 3, column 'a': 'x' is not a number; of the 3 filled cells of this column 1 are not",
    ),
    "thousands": (
        'date,a\n2020-01-01,"1,234"\n2020-01-02,"2,234"\n',
        {},
        r"row 2, column 'a': The cell '1,234' separates its thousands",
    ),
    "thousands or a decimal comma": (
        "date;a\n2020-01-01;1,500\n2020-01-02;2,500\n",
        {},
        r"row 2.*'1,500' separates its thousands",
    ),
    "thousands by blanks": (
        "date;a\n2020-01-01;1\xa0234,5\n2020-01-02;1 234,5\n",
        {},
        r"row 2.*separates its thousands",
    ),
    "a decimal comma among points": (
        "date;a\n2020-01-01;1,5\n2020-01-02;2.5\n2020-01-03;2.5\n",
        {},
        r"row 2.*has a comma, but the decimal mark of this table is a point",
    ),
    "a point among decimal commas": (
        "date;a\n2020-01-01;1,5\n2020-01-02;2.5\n2020-01-03;2,5\n",
        {"decimal": ","},
        r"row 3.*has a point, but the decimal mark of this table is a comma",
    ),
    "decimal commas that cut cells": (
        "date,a\n2020-01-01,1,5\n2020-01-02,2,5\n",
        {},
        r"row 2: The row has 3 cells, the header 2(.|\n)*decimal",
    ),
    "infinity": (
        "date,a\n2020-01-01,1\n2020-01-02,-inf\n",
        {},
        r"row 3, column 'a': '-inf' is inf",
    ),
    "beyond float32": ("date,a\n2020-01-01,1e39\n2020-01-02,1\n", {}, r"row 2.*float32"),
    "day and month": (
        rows("01/02/2020", "02/02/2020"),
        {},
        r"row 2.*could be swapped\.\n.*--date-format '%d/%m/%Y'",
    ),
    "month and day": (
        rows("13/2/20 1:00 PM", "1/13/20 1:00 PM"),
        {},
        r"could be swapped\.\n.*'%d/%m/%y %I:%M %p'",
    ),
    "numbers for times": (rows("1583020800", "1583024400"), {}, r"--date-format epoch"),
    "a wrong format": (rows("2020-01-01"), {"date_format": "%d/%m/%Y"}, r"row 2.*does not have"),
    "no such day": (rows("2020-02-28", "2020-02-30"), {}, r"row 3.*no such time as '2020-02-30'"),
    "words for a time": (rows("2020-01-01", "tomorrow"), {}, r"row 3.*'tomorrow' is not a time"),
    "an offset in some rows": (
        rows("2020-01-01T00:00Z", "2020-01-01T01:00"),
        {},
        r"row 3.*no offset",
    ),
    "an offset in other rows": (
        rows("2020-01-01T00:00", "2020-01-01T01:00Z"),
        {},
        r"row 3.*offset",
    ),
    "a missing time": (
        "date,a\n2020-01-01,1\n,2\n",
        {},
        r"row 3, column 'date': The time is missing",
    ),
    "a missing id": (
        long(("a", "2020-01-01", 1), (" ", "2020-01-02", 2)),
        {},
        r"row 3.*id is missing",
    ),
    "no column of times": ("x,a\n1,2\n2,3\n", {}, r"No column holds times; the columns are x, a"),
    "no numbers": ("date,a\n2020-01-01,x\n2020-01-02,y\n", {}, r"No column holds numbers"),
    "no y": ("unique_id,ds,sales\na,2020-01-01,1\n", {}, r"no column 'y'\.\n.*sales"),
    "a mistyped column": (rows("2020-01-01"), {"time": "Date"}, r"no column 'Date'\.\n.*'date'"),
    "no header": ("2020-01-01,1\n2020-01-02,2\n", {}, r"There is no header"),
    "no rows": ("date,a\n", {}, r"a header but no row"),
    "nothing": ("", {}, r"The file is empty"),
    "one column": ("date\n2020-01-01\n", {}, r"only one column"),
    "a name twice": (
        "date,a,a\n2020-01-01,1,2\n",
        {},
        r"row 1: The header names 'a' more than once",
    ),
    "a short row": (
        "date,a,b\n2020-01-01,1,2\n\n2020-01-02,1\n",
        {},
        r"row 4: The row has 2 cells",
    ),
    "a mark within a cell": ('date,a\n2020-01-01,5" pipe\n', {}, r"row 2: A quotation mark stands"),
    "a mark that stays open": (
        'date,a\n2020-01-01,1\n2020-01-02,"5\n',
        {},
        r"row 3: .*never closed",
    ),
    "two delimiters": ("date;x,a;b,y\n2020-01-01;1,5;2,1\n", {}, r"may be comma or semicolon"),
    "binary": (bytes(range(256)), {}, r"binary data"),
    "a picture": (b"\x89PNG\r\n\x1a\n", {}, r"This is a picture"),
    "a workbook": (zipped("[Content_Types].xml", "xl/workbook.xml"), {}, r"Excel workbook"),
    "two files": (zipped("a.csv", "b.csv"), {}, r"holds 2 files \(a.csv, b.csv\)"),
    "half a gzip": (
        gzip.compress(PLAIN.encode(), mtime=0)[:-9],
        {},
        r"gzip data are damaged or cut short",
    ),
    "half a zstd": (zstandard(PLAIN.encode())[:-5], {}, r"zstd data are damaged"),
    "half a parquet": (b"PAR1 and no more", {}, r"Parquet file is damaged"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_and_how(case):
    content, options, words = REFUSED[case]
    with pytest.raises(DataError) as caught:
        table(content, **options)
    assert str(caught.value).startswith("sales.csv")
    assert caught.value.hint
    assert pytest.raises(DataError, match=words).matches(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timezone": "berlin"}, "Europe/Berlin"),
        ({"delimiter": ";;"}, "not one ASCII character"),
        ({"encoding": "klingon"}, "no text encoding"),
        ({"date_format": "%d/%m"}, "has no year"),
        ({"date_format": "%z %Y-%m-%d"}, "stand at the end"),
        ({"frequency": "fortnight"}, "unknown"),
        ({"joint": True}, "belong to a long table"),
        ({"target": ("date",)}, "two purposes"),
    ],
)
def test_options_that_make_no_sense(options, words):
    with pytest.raises(UsageError) as caught:
        table(rows("2020-01-01", "2020-01-02"), **options)
    assert words in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "traffic_2020.csv").write_text(PLAIN)
    with pytest.raises(NotFoundError) as caught:
        read(tmp_path / "trafic_2020.csv", TableOptions())
    assert "Near it: traffic_2020.csv" in caught.value.hint
    with pytest.raises(NotFoundError, match="no folder"):
        read(tmp_path / "nowhere" / "x.csv", TableOptions())
    with pytest.raises(DataError, match="a folder, not a table"):
        read(str(tmp_path), TableOptions())
    if os.geteuid() != 0:
        (tmp_path / "traffic_2020.csv").chmod(0)
        with pytest.raises(DataError, match="may not read"):
            read(tmp_path / "traffic_2020.csv", TableOptions())


# --- writing ---


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".csv.zst", ".parquet"])
@pytest.mark.parametrize(
    ("content", "options"),
    [
        (SEMICOLONS.replace(";;", ";3;"), {}),
        (long(*THREE), {}),
        (long(*THREE), {"joint": True}),
        (rows("2020-10-25 01:00", "2020-10-25 02:00", "2020-10-25 02:00"), {"timezone": "CET"}),
    ],
)
def test_a_forecast_is_written_as_its_table_and_reads_as_one(tmp_path, suffix, content, options):
    found = table(content, **options)
    horizon = 3
    later = [
        future_times(found.times[end - 1], found.frequency, horizon, found.layout.timezone)
        for end in found.offsets[1:]
    ]
    values = np.random.default_rng(1).normal(size=(len(found.ids), horizon, len(found.columns)))
    frame = forecast_frame(found.layout, found.ids, later, values)
    path = tmp_path / f"forecast{suffix}"
    write_table(frame, path, found.layout)
    again = read(path, found.layout.options(), columns=found.columns, frequency=found.frequency)
    assert again.ids == found.ids
    assert again.columns == found.columns
    assert np.array_equal(again.times, np.concatenate(later))
    assert np.array_equal(again.values, values.reshape(-1, len(found.columns)))
    assert [path.name for path in tmp_path.iterdir()] == [path.name]


def test_what_is_written_looks_like_the_input(tmp_path, capsysbinary):
    found = table(SEMICOLONS)
    frame = forecast_frame(
        found.layout, found.ids, [found.times[:2]], np.array([[[1.5, NAN], [2e-7, 3.0]]])
    )
    expected = b"date;a;b,c\n2020-01-01;1,5;\n2020-01-02;2e-7;3,0\n"
    path = tmp_path / "forecast.csv"
    write_table(frame, path, found.layout)
    assert path.read_bytes() == expected
    write_table(frame, None, found.layout)
    assert capsysbinary.readouterr().out == expected
    link = tmp_path / "link.csv"
    link.symlink_to(path)
    write_table(frame[:1], link, found.layout)
    assert link.is_symlink()
    assert path.read_bytes() == expected[: expected.index(b"2020-01-02")]


def test_a_place_that_cannot_be_written(tmp_path):
    found = table(PLAIN)
    frame = pl.DataFrame({"date": ["2020-01-01"]})
    with pytest.raises(UsageError, match=r"must end in one of \.csv"):
        write_table(frame, tmp_path / "forecast.xlsx", found.layout)
    with pytest.raises(NotFoundError, match="no folder"):
        write_table(frame, tmp_path / "nowhere" / "forecast.csv", found.layout)
    (tmp_path / "taken.csv").mkdir()
    with pytest.raises(DataError, match=r"taken\.csv: This is a folder, and a file is wanted"):
        write_table(frame, tmp_path / "taken.csv", found.layout)
    assert [path.name for path in tmp_path.iterdir()] == ["taken.csv"]


def test_a_layout_survives_json():
    found = table(
        "ds,store,size,y,w\n2020-01-01 00:00,a,2,1,x\n2020-01-01 01:00,a,2,2,y\n",
        id="store",
        static=("size",),
        categorical=("w",),
        timezone="Europe/Berlin",
        missing=("-999",),
        duplicates="last",
    )
    layout = Layout.from_dict(json.loads(json.dumps(asdict(found.layout))))
    assert layout == found.layout
    options = layout.options()
    assert (options.id, options.static, options.timezone) == ("store", ("size",), "Europe/Berlin")
    assert (options.target, options.categorical, options.missing) == (("y",), ("w",), ("-999",))
    assert options.duplicates == "last"


# --- real files ---

REAL = {
    "ett/ETTh1.csv": (17_420, 7, "h", "2018-06-26 20:00:00"),
    "ett/ETTm2.csv": (69_680, 7, "15min", "2018-06-26 20:00:00"),
    "exchange_rate.csv": (7_588, 8, "D", "2010/10/11 0:00"),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(name):
    root = os.environ.get("FORECAST_DATA")
    if not root or not (Path(root) / name).exists():
        pytest.skip(f"{name} is not under $FORECAST_DATA")
    length, variates, frequency, following = REAL[name]
    found = read(Path(root) / name, TableOptions())
    assert found.values.shape == (length, variates)
    assert found.columns[-1] == "OT"
    assert found.frequency == frequency
    assert found.notices == ()
    steps = np.unique(np.diff(found.times))
    assert len(steps) == 1
    later = future_times(found.times[-1], frequency, 1)
    frame = forecast_frame(found.layout, found.ids, [later], found.values[None, -1:])
    assert frame["date"].to_list() == [following]
    expected = np.loadtxt(
        Path(root) / name, delimiter=",", skiprows=length - 4, usecols=range(1, variates + 1)
    )
    assert np.array_equal(found.values[-5:], expected[-5:])
    if name == "ett/ETTh1.csv":
        # specs: mean and deviation of OT over the 8,640 training rows.
        train = found.values[:8640, -1]
        assert (train.mean(), train.std()) == pytest.approx((17.128262, 9.176491), abs=1e-6)


def test_the_sample_that_ships_has_real_missing_values():
    from forecast.catalogue import DATASETS, files

    known = DATASETS["metro-traffic"]
    found = read(files.locate(known.files[0]), TableOptions(**known.options))
    assert found.columns == known.variates
    assert len(found.times) == known.rows
    # 104 hours without a measurement, in each of the three variates.
    assert np.isnan(found.values).sum(axis=0).tolist() == [104] * 3


def test_every_error_names_its_file_once():
    with pytest.raises(ForecastError) as caught:
        read(io.BytesIO(b""), TableOptions())
    assert str(caught.value).startswith("standard input: The file is empty.")
