"""Properties of reading tables: equivalent files are equal, nothing raises but our own errors."""

import bz2
import codecs
import csv
import gzip
import io
import lzma
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast.errors import ForecastError
from forecast.tables.reading import TableOptions, forecast_frame, future_times, read, write_table

FEW = settings(derandomize=True, deadline=None, max_examples=150)
MANY = settings(derandomize=True, deadline=None, max_examples=700)

# A step, and formats that show all of it.
TIMES = [
    ("h", "2021-10-30T20:00", ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M"]),
    ("h", "2021-02-27T22:00", ["%Y/%-m/%-d %-H:%M", "%Y%m%dT%H%M", "%Y-%m-%d %H"]),
    ("15min", "1999-12-31T23:30", ["%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%SZ"]),
    ("15min", "2024-02-28T23:30", ["%Y-%m-%dT%H:%M:%S%.3f", "%Y-%m-%d %H:%M:%S"]),
    ("D", "2020-02-26", ["%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%Y-%-m-%-d 00:00"]),
    ("MS", "2019-11-01", ["%Y-%m", "%Y-%m-%d"]),
    ("ME", "2019-11-30", ["%Y-%m-%d"]),
    ("YS-JAN", "1996-01-01", ["%Y", "%Y-%m-%d"]),
]
WORDS = st.text("abcXYZ éß_.%\"'", min_size=1, max_size=6).map(lambda word: f"v{word.strip()}")
NUMBERS = st.one_of(
    st.floats(-1e30, 1e30, allow_subnormal=False), st.integers(-9999, 9999).map(float)
)
ENCODINGS = [
    lambda text: text.encode(),
    lambda text: codecs.BOM_UTF8 + text.encode(),
    lambda text: text.encode("utf-16"),
    lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
]


def zipped(content):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.csv", content)
    return stream.getvalue()


COMPRESSIONS = [bytes, gzip.compress, bz2.compress, lzma.compress, zipped]


@st.composite
def tables(draw):
    """Draw times, named columns of numbers (NaN where missing), the frequency and a time format."""
    frequency, start, formats = draw(st.sampled_from(TIMES))
    length, width = draw(st.integers(3, 7)), draw(st.integers(1, 3))
    first = np.array([start], "datetime64[us]")
    times = np.concatenate([first, future_times(first[0], frequency, length - 1)])
    names = draw(st.lists(WORDS, min_size=width, max_size=width, unique=True))
    cells = draw(st.lists(NUMBERS, min_size=length * width, max_size=length * width))
    values = np.array(cells).reshape(length, width)
    # Missing cells everywhere but in the first row, so that no column is left out for being empty.
    holes = draw(st.sets(st.tuples(st.integers(1, length - 1), st.integers(0, width - 1))))
    for hole in holes:
        values[hole] = np.nan
    return times, names, values, frequency, draw(st.sampled_from(formats))


def _cell(value, decimal, missing):
    return missing if np.isnan(value) else repr(float(value)).replace(".", decimal)


@st.composite
def files(draw):
    """Draw a table, and write it as one of many equivalent files."""
    times, names, values, frequency, form = draw(tables())
    stamps = pl.Series(times).dt.strftime(form).to_list()
    rows = draw(st.permutations(range(len(times))))
    long = draw(st.booleans())
    missing = draw(st.sampled_from(["", "NA", "null", " - "]))
    delimiter = draw(st.sampled_from([",", ";", "\t", "|"]))
    decimal = draw(st.sampled_from(".,")) if delimiter != "," else "."
    if long:
        header = ["ds", "unique_id", "y"]
        cells = [
            [stamps[row], name, _cell(values[row, place], decimal, missing)]
            for row in rows
            for place, name in enumerate(names)
        ]
    else:
        header = ["date", *names]
        cells = [
            [stamps[row], *(_cell(value, decimal, missing) for value in values[row])]
            for row in rows
        ]
    places = draw(st.permutations(range(len(header))))
    grid = [[row[place] for place in places] for row in [header, *cells]]
    options = {"decimal": decimal} if decimal == "," and draw(st.booleans()) else {}
    if draw(st.sampled_from([False, False, True])):
        columns = {name: [row[place] for row in grid[1:]] for place, name in enumerate(grid[0])}
        stream = io.BytesIO()
        pl.DataFrame(columns).write_parquet(stream)
        content = stream.getvalue()
    else:
        stream = io.StringIO(newline="")
        quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
        newline = draw(st.sampled_from(["\n", "\r\n", "\r"]))
        csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator=newline).writerows(
            grid
        )
        text = stream.getvalue()
        text = text.removesuffix(newline) if draw(st.booleans()) else text
        content = draw(st.sampled_from(ENCODINGS))(text)
    if options.get("decimal") is None and decimal == ",":
        # 1,500 alone may be fifteen hundred, which is refused.
        whole = [cell for row in cells for cell in row[1:] if "," in cell]
        options = {"decimal": ","} if all(_grouped(cell) for cell in whole) else {}
    content = draw(st.sampled_from(COMPRESSIONS))(content)
    order = sorted(names) if long else [name for name in grid[0] if name != "date"]
    return content, long, options, (times, names, values, frequency), order


def _grouped(cell):
    head, _, tail = cell.lstrip("-").partition(",")
    return len(tail) == 3 and tail.isdigit() and len(head) <= 3 and not head.startswith("0")


@FEW
@given(files())
def test_equivalent_files_give_identical_tables(drawn):
    content, long, options, (times, names, values, frequency), order = drawn
    found = read(io.BytesIO(content), TableOptions(**options))
    assert found.frequency == frequency
    place = [names.index(name) for name in order]
    if long:
        assert found.ids == tuple(order)
        assert np.array_equal(found.times, np.tile(times, len(order)))
        assert np.array_equal(found.values[:, 0], values[:, place].T.reshape(-1), equal_nan=True)
        joint = read(io.BytesIO(content), TableOptions(joint=True, **options), columns=tuple(names))
        assert np.array_equal(joint.values, values, equal_nan=True)
        assert np.array_equal(joint.times, times)
    else:
        assert found.columns == tuple(order)
        assert np.array_equal(found.times, times)
        assert np.array_equal(found.values, values[:, place], equal_nan=True)


@FEW
@given(
    tables(),
    st.sampled_from([None, "Europe/Berlin", "America/New_York", "+05:30"]),
    st.sampled_from(["wide", "long", "joint"]),
    st.sampled_from([".csv", ".tsv", ".parquet", ".csv.gz"]),
)
def test_a_written_forecast_reads_back_the_same(drawn, zone, kind, suffix):
    times, names, values, frequency, form = drawn
    clock = pl.Series(times)
    if zone in ("Europe/Berlin", "America/New_York") and frequency in ("h", "15min"):
        # The clocks are set back within the forecast.
        clock = (
            clock.dt.replace_time_zone("UTC").dt.convert_time_zone(zone).dt.replace_time_zone(None)
        )
    stamps = clock.dt.strftime(form.removesuffix("Z"))
    if kind == "wide":
        frame = pl.DataFrame({"date": stamps} | dict(zip(names, values.T, strict=True)))
    else:
        frame = pl.concat(
            pl.DataFrame({"unique_id": [name] * len(times), "ds": stamps, "y": values[:, place]})
            for place, name in enumerate(names)
        )
    found = read(
        io.BytesIO(frame.write_csv().encode()), TableOptions(timezone=zone, joint=kind == "joint")
    )
    horizon = 30
    last = found.offsets[1:] - 1
    later = [future_times(found.times[row], frequency, horizon, zone) for row in last]
    forecasts = np.cos(np.arange(len(last) * horizon * len(found.columns))) * 1e3
    forecasts = forecasts.reshape(len(last), horizon, -1)
    written = forecast_frame(found.layout, found.ids, later, forecasts)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"forecast{suffix}"
        write_table(written, path, found.layout)
        again = read(path, found.layout.options(), columns=found.columns, frequency=frequency)
    assert again.ids == found.ids
    assert again.layout.time_format == found.layout.time_format
    assert np.array_equal(again.times, np.concatenate(later))
    assert np.array_equal(again.values, forecasts.reshape(-1, len(found.columns)))


SEEDS = [
    b"date,a,b\n2020-01-01 00:00,1.5,x\n2020-01-01 01:00,2,y\n2020-01-01 03:00,,z\n",
    b'unique_id;ds;y\r\n007;2020-01-31;"1,5"\r\n007;2020-02-29;2,5\r\nb;2020-01-31;\r\n',
    b"time\ta\n2020-10-25T02:00:00+02:00\t1\n2020-10-25T02:00:00+01:00\t-\n",
    b"Datum|a\n31.12.2020|1\n01.01.2021|2\n",
    b"ds,y\n1583020800,1\n1583024400,2\n",
]
MARKS = [
    b",",
    b";",
    b"\t",
    b"|",
    b'"',
    b'""',
    b"\n",
    b"\r\n",
    b"\r",
    b"\x00",
    b" ",
    b"-",
    b"+",
    b"%",
]
NUMERALS = [
    b"0",
    b"9",
    b"1e400",
    b"nan",
    b"-inf",
    b"1,234.5",
    b"1.234,5",
    b"0x10",
    b"1_000",
    b"-999",
]
MOMENTS = [
    b"9999-12-31",
    b"0000-00-00",
    b"0001-01-01",
    b"2020-02-30",
    b"2020-03-29 02:30",
    b"24:00",
]
OFFSETS = [b"+14:00", b"+99:99", b"Z", b"T"]
NAMES = [b"date", b"unique_id", b"ds", b"y"]
LETTERS = ["é".encode(), "٣".encode(), "\U0001f600".encode(), codecs.BOM_UTF8, b"\xff", b"\xff\xfe"]
SPLICES = st.sampled_from([*MARKS, *NUMERALS, *MOMENTS, *OFFSETS, *NAMES, *LETTERS]) | st.binary(
    max_size=3
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "layout": st.sampled_from(["wide", "long"]),
        "time": st.sampled_from(["date", "ds", "a", ""]),
        "id": st.sampled_from(["unique_id", "b", "date"]),
        "target": st.sampled_from([("a",), ("b", "a"), ("y",)]),
        "joint": st.booleans(),
        "static": st.sampled_from([("b",), ("y",)]),
        "categorical": st.sampled_from([("b",), ("y", "b")]),
        "date_format": st.sampled_from(
            ["%d.%m.%Y", "%Y-%m-%d %H:%M", "%Y", "%H", "%", "%Q%Y", "epoch", "epoch_ms", "%Y%z"]
        ),
        "timezone": st.sampled_from(["Europe/Berlin", "UTC", "-03:30", "Mars/Base", "../x", ""]),
        "frequency": st.sampled_from(["h", "D", "ME", "B", "W", "2QS-FEB", "nope", ""]),
        "fill": st.sampled_from(["none", "hold", "linear", "refuse"]),
        "duplicates": st.sampled_from(["first", "last", "mean"]),
        "delimiter": st.sampled_from([",", ";", "tab", "é", '"', ""]),
        "decimal": st.sampled_from([".", ","]),
        "encoding": st.sampled_from(["latin-1", "utf-16", "utf-7", "hex", "a\x00b", "idna"]),
        "missing": st.sampled_from([("2",), ("x", "nan")]),
    },
)


def refused_or_read(content, options, columns=None, frequency=None):
    """Assert that a table is refused with a message and a hint, or is sound and can be forecast."""
    stream, settled = io.BytesIO(content), TableOptions(**options)
    try:
        found = read(stream, settled, columns=columns, frequency=frequency)
    except ForecastError as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        assert refusal.message
        assert refusal.hint
        return
    starts = found.offsets[:-1]
    assert found.values.shape == (len(found.times), len(found.columns))
    assert found.offsets[-1] == len(found.times)
    assert not np.isinf(found.values).any()
    inner = np.delete(np.diff(found.times), starts[1:] - 1)
    assert (inner > np.timedelta64(0, "us")).all()
    assert len(found.categories) == len(found.times)
    assert all(len(column) == len(found.ids) for column in found.static.values())
    later = np.stack(
        [
            future_times(found.times[end - 1], found.frequency, 2, found.layout.timezone)
            for end in found.offsets[1:]
        ]
    )
    forecast_frame(found.layout, found.ids, later, np.zeros((len(later), 2, len(found.columns))))


@MANY
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 6), SPLICES), max_size=6),
    OPTIONS,
    st.sampled_from([None, ("a",), ("b", "a"), ("007",)]),
    st.sampled_from([None, None, "h", "ME"]),
)
def test_a_spoilt_table_is_read_or_refused(seed, splices, options, columns, frequency):
    content = seed
    for place, length, splice in splices:
        start = int(place * len(content))
        content = content[:start] + splice + content[start + length :]
    refused_or_read(content, options, columns, frequency)


@FEW
@given(st.binary(max_size=300), OPTIONS)
def test_any_bytes_are_read_or_refused(content, options):
    refused_or_read(content, options)


@FEW
@given(st.sampled_from(COMPRESSIONS[1:]), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255))))
def test_a_spoilt_archive_is_read_or_refused(compress, changes):
    content = bytearray(compress(SEEDS[0]))
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    refused_or_read(bytes(content), {})
