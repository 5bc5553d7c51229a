"""Tables larger than memory: the same bytes as in memory, whatever the order and the mishaps."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast import api, recipe
from forecast.errors import DataError, ForecastError, NotFoundError, UsageError
from forecast.runs import run
from forecast.series import bulk, context, predict
from forecast.series.bulk import pieces, tails, text
from forecast.tables import dialect, reading

LOOKBACK, HORIZON = 12, 4
# Two series a batch of training make sixteen a batch of forecasting, so that there are three parts.
PART = 16
# Pieces of a few rows, of many, and of all.
PIECES = (100, 1_500, bulk.PIECE_BYTES)


def hours(count, start="2024-03-01T00", step=1):
    return np.datetime64(start, "us") + np.arange(count) * np.timedelta64(step, "h")


def rows(name, count=60, start="2024-03-01T00", step=1, seed=None):
    random = np.random.default_rng(sum(name.encode()) if seed is None else seed)
    wave = np.sin(np.arange(count) * 2 * np.pi / 12)
    return pl.DataFrame(
        {
            "unique_id": [name] * count,
            "ds": pl.Series(hours(count, start, step)).dt.strftime("%Y-%m-%d %H:%M:%S"),
            "y": np.round(50 + 10 * wave + random.normal(size=count), 3),
        }
    )


def panel():
    """Make series that are short, new, lack cells or rows, and one that is nearly gone."""
    frames = [rows(f"id {number:02}", 30 + number) for number in range(34)]
    frames[3] = frames[3].filter(pl.int_range(pl.len()) % 7 != 3)
    frames[5] = frames[5].with_columns(
        y=pl.when(pl.int_range(pl.len()) % 5 == 2).then(None).otherwise("y")
    )
    # Of the last steps only every fourth is there, though the series is one of every step.
    frames[8] = pl.concat([frames[8][:-12], frames[8][-12:][3::4]])
    frames[9] = frames[9].head(5)
    return pl.concat(frames)


def at(row, cell, column):
    """Put a cell in a row of a column."""
    return pl.when(pl.int_range(pl.len()) == row).then(pl.lit(cell)).otherwise(column).alias(column)


def shuffled(frame):
    return frame.sample(fraction=1, shuffle=True, seed=1)


@pytest.fixture(scope="module")
def forecasters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bulk")
    known = pl.concat([rows(f"id {number:02}", 80) for number in range(30)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORECAST_HOME", str(folder / "home"))

        def train(model, frame=known, *more, **data):
            path = folder / "table.csv"
            frame.write_csv(path)
            small = ["model.width=16", "model.heads=2"] if model == "itransformer" else []
            settings = ["train.batch_size=2", "train.epochs=1", "train.threads=1", *small, *more]
            resolved = recipe.load(
                path, model=model, lookback=LOOKBACK, horizon=HORIZON, settings=settings, data=data
            )
            return api.load(run.train(resolved).artefact)

        hold = train("ridge", fill="hold")
        zoned = train("ridge", timezone="Europe/Berlin")
        yield {
            "ridge": train("ridge"),
            "itransformer": train("itransformer"),
            "hold": hold,
            "zoned": zoned,
            "quantiles": train("itransformer", known, "model.quantiles=[0.1,0.5,0.9]"),
            "covariates": train(
                "itransformer",
                pl.concat([with_covariates(f"id {number:02}", 80) for number in range(20)]),
                past_covariates=("heat",),
                known_future=("price",),
                static=("kind",),
            ),
        }


@pytest.fixture
def forecaster(forecasters):
    return forecasters["itransformer"]


def in_memory(forecaster, path, tmp_path):
    """Forecast a file as a whole, and give the bytes of the CSV."""
    table = context.read_context(forecaster, path)
    predicted = predict.predict_table(forecaster, table, "cpu")
    out = tmp_path / "memory.csv"
    reading.write_table(predicted.frame, out, table.layout)
    return out.read_bytes()


def in_pieces(forecaster, inputs, tmp_path, piece=bulk.PIECE_BYTES, **options):
    out = tmp_path / "pieces.csv"
    options = {"part_series": PART, "device": "cpu", **options}
    report = bulk.predict_files(forecaster, inputs, out, piece_bytes=piece, **options)
    return out.read_bytes(), report


def write_csv(path, frame):
    frame.write_csv(path)
    return [path]


def write_folder(path, frame):
    path = path.with_suffix("")
    (path / "2024").mkdir(parents=True)
    half = frame.height // 2
    frame[:half].write_csv(path / "2024" / "a.csv")
    # Columns are found by name, and others are left alone.
    frame[half:].select("y", pl.lit("x").alias("more"), "ds", "unique_id").write_csv(path / "b.csv")
    (path / "_notes.csv").write_text("not,a,table\n")
    return [path]


def write_packed(path, frame):
    path.with_suffix(".csv.gz").write_bytes(gzip.compress(frame.write_csv().encode()))
    return [path.with_suffix(".csv.gz")]


def write_quoted(path, frame):
    content = frame.write_csv(quote_style="always", line_terminator="\r\n").replace(
        "\r\n", "\r\n\r\n"
    )
    path.write_bytes(b"\xef\xbb\xbf" + content.encode())
    return [path]


def write_wide_characters(path, frame):
    path.write_bytes(frame.write_csv().encode("utf-16"))
    return [path]


def write_parquet(path, frame):
    frame.write_parquet(path.with_suffix(".parquet"), row_group_size=100)
    return [path.with_suffix(".parquet")]


def write_address(path, frame):
    frame.write_csv(path)
    return [path.as_uri()]


WRITERS = {
    "csv": write_csv,
    "folder": write_folder,
    "packed": write_packed,
    "quoted": write_quoted,
    "utf-16": write_wide_characters,
    "parquet": write_parquet,
    "address": write_address,
}


@pytest.mark.parametrize("model", ["ridge", "itransformer"])
@pytest.mark.parametrize("order", [pl.DataFrame.clone, shuffled, pl.DataFrame.reverse])
@pytest.mark.parametrize("piece", PIECES)
def test_order_and_pieces_change_no_byte(forecasters, tmp_path, monkeypatch, model, order, piece):
    # Kept rows are sifted again all the time.
    monkeypatch.setattr(tails, "_MORE_ROWS", 0)
    frame = panel()
    (path,) = write_csv(tmp_path / "table.csv", order(frame))
    found, report = in_pieces(forecasters[model], path, tmp_path, piece)
    assert found == in_memory(forecasters[model], path, tmp_path)
    assert (report.series, report.rows_read, report.parts) == (34, frame.height, 3)
    assert report.failed == ()
    assert report.side_file is None
    assert sorted(item.name for item in tmp_path.iterdir()) == [
        "memory.csv", "pieces.csv", "table.csv",
    ]  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("piece", PIECES[1:])
def test_the_form_of_the_input_changes_no_byte(forecaster, tmp_path, name, piece):
    frame = shuffled(panel())
    (plain,) = write_csv(tmp_path / "plain.csv", frame)
    inputs = WRITERS[name](tmp_path / "table.csv", frame)
    found, report = in_pieces(forecaster, inputs, tmp_path, piece)
    assert found == in_memory(forecaster, plain, tmp_path)
    assert report.rows_read == frame.height


def test_kept_rows_do_not_grow_with_the_rows_of_a_series(forecaster, tmp_path, monkeypatch):
    monkeypatch.setattr(tails, "_MORE_ROWS", 100)
    most = []
    add = tails._Keeper.add

    def counted(self, piece, time):
        add(self, piece, time)
        most.append(sum(part.frame.height for part in self.parts))

    monkeypatch.setattr(tails._Keeper, "add", counted)
    frame = shuffled(pl.concat([rows(f"id {number}", 2_000) for number in range(5)]))
    (path,) = write_csv(tmp_path / "table.csv", frame)
    in_pieces(forecaster, path, tmp_path, 4_000)
    # Twice the context of five series, and what may come before they are sifted again.
    assert len(most) > 50
    assert max(most) <= 2 * 5 * LOOKBACK + 100


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("duplicates", ["first", "last", "mean"])
def test_rows_that_share_a_time_keep_their_order(forecaster, tmp_path, piece, duplicates):
    frame = shuffled(pl.concat([panel(), rows("id 00", 30, seed=9), rows("id 00", 30, seed=8)]))
    (path,) = write_csv(tmp_path / "table.csv", frame)
    how = {"duplicates": duplicates}
    table = context.read_context(forecaster, path, reading=how)
    expected = predict.predict_table(forecaster, table, "cpu").frame
    found, _ = in_pieces(forecaster, path, tmp_path, piece, reading=how)
    assert found == expected.write_csv().encode()


@pytest.mark.parametrize("piece", PIECES)
def test_a_value_is_held_from_before_the_context(forecasters, tmp_path, piece):
    frame = pl.concat(
        [
            rows("a").with_columns(
                y=pl.when(pl.int_range(pl.len()).is_between(20, 50)).then(None).otherwise("y")
            ),
            rows("b"),
        ]
    )
    (path,) = write_csv(tmp_path / "table.csv", shuffled(frame))
    found, _ = in_pieces(forecasters["hold"], path, tmp_path, piece)
    assert found == in_memory(forecasters["hold"], path, tmp_path)


def with_covariates(name, count=40, ahead=HORIZON):
    """Make a series with a covariate of either kind and a static column, and rows ahead of it."""
    random = np.random.default_rng(len(name) + count)
    return rows(name, count + ahead).with_columns(
        y=pl.when(pl.int_range(pl.len()) < count).then("y"),
        heat=pl.Series(random.normal(size=count + ahead)),
        price=pl.Series(random.normal(size=count + ahead)),
        kind=pl.lit("north" if name < "id 04" else "south"),
    )


@pytest.mark.parametrize("piece", PIECES)
def test_covariates_and_what_is_known_in_advance(forecasters, tmp_path, piece):
    forecaster = forecasters["covariates"]
    good = [with_covariates(f"id {number:02}", 30 + number) for number in range(20)]
    (clean,) = write_csv(tmp_path / "clean.csv", pl.concat(good))
    bad = [
        with_covariates("id 03b", ahead=HORIZON - 1),
        with_covariates("id 05b").with_columns(kind=pl.lit("west")),
    ]
    (path,) = write_csv(tmp_path / "table.csv", shuffled(pl.concat(good + bad)))
    found, report = in_pieces(forecaster, path, tmp_path, piece)
    assert found == in_memory(forecaster, clean, tmp_path)
    reasons = {failure.id: failure.reason for failure in report.failed}
    assert reasons.keys() == {"id 03b", "id 05b"}
    assert "'price' is to be known in advance and has no value" in reasons["id 03b"]
    assert "'west'" in reasons["id 05b"]


@pytest.mark.parametrize("level", [None, (80, 50)])
def test_intervals_are_those_that_were_calibrated_in_training(forecasters, tmp_path, level):
    forecaster = forecasters["quantiles"]
    (path,) = write_csv(tmp_path / "table.csv", shuffled(panel()))
    table = context.read_context(forecaster, path)
    expected = predict.predict_table(forecaster, table, "cpu", level=level, method="split")
    found, _ = in_pieces(forecaster, path, tmp_path, level=level)
    assert found == expected.frame.write_csv().encode()
    assert b"y-lo-80" in found


def written_in(zone, start, count, form):
    clock = pl.Series(hours(count, start)).dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    return clock.dt.strftime(form)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize(
    ("model", "form"),
    [
        # In the autumn the local clock shows one hour twice.
        ("zoned", "%Y-%m-%d %H:%M:%S"),
        # In winter and summer the offset differs, so that the output is in UTC.
        ("ridge", "%Y-%m-%dT%H:%M:%S%:z"),
    ],
)
def test_clocks_that_are_set(forecasters, tmp_path, piece, model, form):
    starts = {"a": "2024-10-25T06", "b": "2024-10-24T15", "c": "2024-10-26T06"}
    frame = pl.concat(
        [
            rows(name).with_columns(ds=written_in("Europe/Berlin", start, 60, form))
            for name, start in starts.items()
        ]
    )
    (path,) = write_csv(tmp_path / "table.csv", frame)
    found, _ = in_pieces(forecasters[model], path, tmp_path, piece)
    assert found == in_memory(forecasters[model], path, tmp_path)


def test_times_that_leave_out_what_is_zero(forecaster, tmp_path):
    frame = panel().with_columns(pl.col("ds").str.strip_suffix(" 00:00:00"))
    (path,) = write_csv(tmp_path / "table.csv", frame)
    found, _ = in_pieces(forecaster, path, tmp_path, 900)
    assert found == in_memory(forecaster, path, tmp_path)


@pytest.mark.parametrize("piece", PIECES)
def test_series_that_break_a_rule_go_to_the_side_file(forecaster, tmp_path, piece):
    good = panel()
    broken = [
        rows("id 02b").with_columns(y=pl.lit("ten")),
        pl.concat([rows("id 04b"), rows("id 04b").tail(1)]),
        rows("id 06b").with_columns(
            ds=at(57, "2024-03-03 09:30:00", "ds")
        ),
        rows("id 07b", step=2),
        rows("id 20b").with_columns(
            ds=at(7, "soon", "ds")
        ),
        rows("id 21b").with_columns(y=pl.lit(None, pl.Float64)),
    ]  # fmt: skip
    everything = pl.concat(
        [good.cast({"y": pl.String}), *[f.cast({"y": pl.String}) for f in broken]]
    )
    (path,) = write_csv(tmp_path / "table.csv", everything)
    (clean,) = write_csv(tmp_path / "clean.csv", good)
    found, report = in_pieces(forecaster, path, tmp_path, piece)
    assert found == in_memory(forecaster, clean, tmp_path)
    assert report.side_file == tmp_path / "pieces.failed.csv"
    side = {row["unique_id"]: row for row in csv.DictReader(report.side_file.open())}
    reasons = {name: row["reason"] for name, row in side.items()}
    assert len(reasons) == len(report.failed) == 6
    # The first row of it that is kept is the 49th; the header and the good series are above.
    assert f"table.csv, row {good.height + 2 + 48}" in reasons["id 02b"]
    assert "'ten' is not a number" in reasons["id 02b"]
    assert "is there again" in reasons["id 04b"]
    assert "is off the regular grid" in reasons["id 06b"]
    assert "frequency 2h, but h is wanted" in reasons["id 07b"]
    assert "'soon' is not a time" in reasons["id 20b"]
    assert reasons["id 21b"] == "It has no observed value in its last 12 steps."
    assert "data.duplicates" in side["id 04b"]["hint"]


def test_a_file_without_any_readable_time_is_refused_at_its_first_row(
    forecaster, tmp_path, monkeypatch
):
    monkeypatch.setattr(pieces, "_MOST_SLIPS", 10)
    (path,) = write_csv(tmp_path / "table.csv", rows("a").with_columns(ds="soon " + pl.col("ds")))
    with pytest.raises(DataError, match=r"table\.csv, row 2, column 'ds': 'soon 2024-03-01 00"):
        in_pieces(forecaster, path, tmp_path)


def test_columns_with_types(forecasters, tmp_path):
    names = [f"{number}" for number in range(3)]
    frame = pl.concat([rows(name) for name in names]).with_columns(
        pl.col("unique_id").cast(pl.Int64), pl.col("ds").str.to_datetime("%Y-%m-%d %H:%M:%S")
    )
    frame.write_parquet(tmp_path / "table.parquet")
    forecaster = forecasters["ridge"]
    found, _ = in_pieces(forecaster, tmp_path / "table.parquet", tmp_path)
    assert found == in_memory(forecaster, tmp_path / "table.parquet", tmp_path)
    (path,) = write_csv(tmp_path / "more.csv", rows("3"))
    with pytest.raises(DataError, match="in different ways"):
        in_pieces(forecaster, [tmp_path / "table.parquet", path], tmp_path)
    frame.with_columns(pl.lit(None, pl.Datetime("us")).alias("ds")).write_parquet(
        tmp_path / "no.parquet"
    )
    with pytest.raises(DataError, match="The time is missing"):
        in_pieces(forecaster, tmp_path / "no.parquet", tmp_path)


def test_what_lies_before_the_context_cannot_fail_a_series(forecaster, tmp_path):
    frame = pl.concat([rows("a"), rows("a").head(1)]).cast({"y": pl.String})
    old = frame.with_columns(
        y=pl.when(pl.int_range(pl.len()) == 5).then(pl.lit("x")).otherwise("y")
    )
    (path,) = write_csv(tmp_path / "table.csv", old)
    (clean,) = write_csv(tmp_path / "clean.csv", rows("a"))
    assert in_pieces(forecaster, path, tmp_path)[0] == in_memory(forecaster, clean, tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("unique_id,ds,y\na,2024-03-01 00:00:00,1\na,2024-03-01 01:00:00\n", "row 3: The row has"),
        ("unique_id,ds,y\n,2024-03-01 00:00:00,1\n", "row 2, column 'unique_id': The id is"),
        ("unique_id,ds,value\na,2024-03-01 00:00:00,1\n", "no column 'y'"),
        ("unique_id,ds,y\na,31/01/2024,1\nb,30/01/2024,1\n", "day and month could be swapped"),
        ("unique_id,ds,y\na,2024-03-01T00,1\na,2024-03-01T02,1\na,2024-03-01T04,1\n",
         "frequency 2h, but h is wanted"),
        ("unique_id,ds,y\na,2024-03-01 00:00:00,\"1\n", "row 2: A quotation mark is never closed"),
        ("unique_id,ds,y\na,2024-03-01 00:00:00Z,1\nb,2024-03-01 01:00:00,2\n", "others have none"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("piece", PIECES)
def test_a_file_that_is_no_such_table_is_refused_and_nothing_is_left(
    forecaster, tmp_path, content, words, piece
):
    (tmp_path / "table.csv").write_text(content)
    with pytest.raises(DataError, match=words):
        in_pieces(forecaster, tmp_path / "table.csv", tmp_path, piece)
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_wrong_places_are_refused(forecaster, tmp_path):
    (path,) = write_csv(tmp_path / "table.csv", panel())
    with pytest.raises(NotFoundError, match="There is no file"):
        in_pieces(forecaster, tmp_path / "tables.csv", tmp_path)
    with pytest.raises(UsageError, match=r"must end in one of \.csv"):
        bulk.predict_files(forecaster, path, tmp_path / "out.xlsx")
    with pytest.raises(UsageError, match="would replace the input"):
        bulk.predict_files(forecaster, path, path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("the only copy")
    with pytest.raises(UsageError, match="something else"):
        bulk.predict_files(forecaster, path, tmp_path / "other")
    (tmp_path / "letter").write_text("Dear")
    with pytest.raises(UsageError, match="letter is a file"):
        bulk.predict_files(forecaster, path, tmp_path / "letter")
    with pytest.raises(NotFoundError, match="mkdir -p"):
        bulk.predict_files(forecaster, path, tmp_path / "none" / "out.csv")
    (tmp_path / "table.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"table\.zip: A zip is unpacked as a whole"):
        bulk.predict_files(forecaster, tmp_path / "table.zip", tmp_path / "out.csv")


def test_only_one_job_writes_an_output(forecaster, tmp_path):
    (path,) = write_csv(tmp_path / "table.csv", panel())
    second = []

    def meanwhile(_):
        with pytest.raises(UsageError, match="Another job"):
            in_pieces(forecaster, path, tmp_path)
        second.append(1)

    in_pieces(forecaster, path, tmp_path, tell=meanwhile)
    assert second


@pytest.mark.parametrize("out", ["out.csv.gz", "out.tsv", "out.parquet"])
def test_every_kind_of_file_holds_the_same(forecaster, tmp_path, out):
    (path,) = write_csv(tmp_path / "table.csv", panel())
    table = context.read_context(forecaster, path)
    expected = predict.predict_table(forecaster, table, "cpu").frame
    bulk.predict_files(forecaster, path, tmp_path / out, part_series=PART, device="cpu")
    if out.endswith(".parquet"):
        assert pl.read_parquet(tmp_path / out).equals(expected)
        return
    reading.write_table(expected, tmp_path / f"memory{out[3:]}", table.layout)
    assert (tmp_path / out).read_bytes() == (tmp_path / f"memory{out[3:]}").read_bytes()


def test_a_folder_holds_parts_a_manifest_and_the_failed(forecaster, tmp_path):
    frame = pl.concat([panel(), rows("id 02b", step=2)])
    (path,) = write_csv(tmp_path / "table.csv", frame)
    out = tmp_path / "out"
    for _ in range(2):
        # The second time it replaces what it wrote the first time.
        report = bulk.predict_files(forecaster, path, out, part_series=PART, device="cpu")
    names = ["failed.csv", "manifest.json", *(f"part-{n:05}.parquet" for n in range(3))]
    assert sorted(item.name for item in out.iterdir()) == names
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["inputs"][0]["name"] == str(path)
    assert manifest["inputs"][0]["size"] == path.stat().st_size
    assert manifest["rows_read"] == frame.height
    assert sum(part["rows"] for part in manifest["parts"]) == report.rows == 34 * HORIZON
    (clean,) = write_csv(tmp_path / "clean.csv", panel())
    table = context.read_context(forecaster, clean)
    found = pl.read_parquet(out / "part-*.parquet")
    assert found.equals(predict.predict_table(forecaster, table, "cpu").frame)


def test_no_cell_of_ids_begins_like_a_formula(forecaster, tmp_path):
    names = ["=1+1", "+1", "-1", "@sum", "plain"]
    (path,) = write_csv(tmp_path / "table.csv", pl.concat([rows(name, 20) for name in names]))
    plain, _ = in_pieces(forecaster, path, tmp_path)
    assert plain == in_memory(forecaster, path, tmp_path)
    safe, _ = in_pieces(forecaster, path, tmp_path, safe_ids=True)
    found = pl.read_csv(safe)["unique_id"].unique().sort().to_list()
    assert found == ["'+1", "'-1", "'=1+1", "'@sum", "plain"]
    assert pl.read_csv(safe)["y"].equals(pl.read_csv(plain)["y"])


JOB = """
import sys, time
from forecast import api
from forecast.series import bulk
def tell(text):
    print(text, flush=True)
    time.sleep(0.4)
bulk.predict_files(
    api.load(sys.argv[1]), sys.argv[2], sys.argv[3], tell=tell, part_series=16,
    resume="resume" in sys.argv, device="cpu",
)
"""


@pytest.fixture(scope="module")
def job(forecasters, tmp_path_factory):
    """Return a table, the folder of a forecaster, and what an undisturbed job makes of them."""
    from forecast import artefact

    folder = tmp_path_factory.mktemp("job")
    artefact.save(folder / "model", forecasters["itransformer"])
    frame = pl.concat([shuffled(panel()), rows("id 02b", step=2)])
    (path,) = write_csv(folder / "table.csv", frame)
    bulk.predict_files(forecasters["itransformer"], path, folder / "out", part_series=PART)
    return folder / "model", path, contents(folder / "out")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(("moment", "done"), [("rows of", 0), ("16 of", 1), ("34 of", 3)])
def test_kill_9_leaves_nothing_and_resuming_gives_the_same_bytes(job, tmp_path, moment, done):
    model, path, expected = job
    out = tmp_path / "out"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", JOB, str(model), str(path), str(out)],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    for line in process.stdout:
        if moment in line:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    forecaster = api.load(model)
    report = bulk.predict_files(forecaster, path, out, part_series=PART, resume=True, device="cpu")
    assert report.reused == done
    assert contents(out) == expected
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


def test_resuming_takes_over_only_what_would_be_the_same(job, forecaster, tmp_path):
    _, path, _ = job
    frame = pl.read_csv(path)
    (own,) = write_csv(tmp_path / "table.csv", frame)

    class StoppedError(Exception):
        pass

    def interrupted(inputs):
        def tell(text):
            if "32 of" in text:
                raise StoppedError

        with pytest.raises(StoppedError):
            bulk.predict_files(
                forecaster, inputs, tmp_path / "out", part_series=PART, tell=tell, device="cpu"
            )

    def resumed(**options):
        options = {"part_series": PART, "device": "cpu", "resume": True, **options}
        return bulk.predict_files(forecaster, own, tmp_path / "out", **options).reused

    interrupted(own)
    assert resumed() == 2
    interrupted(own)
    # A row of a series of the second part changes.
    changed = frame.with_columns(
        y=pl.when((pl.col("unique_id") == "id 20") & (pl.col("ds") == pl.col("ds").filter(
            pl.col("unique_id") == "id 20").max())).then(0.0).otherwise("y")
    )  # fmt: skip
    write_csv(own, changed)
    assert resumed() == 1
    interrupted(own)
    (tmp_path / ".out.partial" / "part-00000.parquet").write_bytes(b"PAR1")
    assert resumed() == 1
    interrupted(own)
    assert resumed(reading={"fill": "hold"}) == 0
    interrupted(own)
    assert resumed(resume=False) == 0


def cells_of(content, size):
    """Cut a text into pieces as a job does, and put their cells together."""
    stream = io.BufferedReader(io.BytesIO(content))
    form, data, line, _ = text.begin(stream, ",", "table.csv", size)
    form = form.choose(form.names, numbered=form.names[:1])
    frames, lines = [], []
    for piece in [data, *text.records(stream, size)]:
        breaks = piece.count(b"\n")
        cells = form.cells(piece, line, breaks)
        line += breaks
        frames.append(cells.frame.cast(pl.String))
        lines += cells.lines.tolist()
    return pl.concat(frames), lines


# Cells that tell a cut in the wrong place: quotation marks, line breaks, delimiters, nothing.
CELLS = st.text(st.sampled_from('a0,"\n é'), max_size=6)


@given(
    records=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=12),
    quoted=st.booleans(),
    ending=st.sampled_from(["\n", "\r\n"]),
    size=st.integers(1, 80),
)
def test_wherever_a_text_is_cut_its_cells_and_lines_are_those_of_the_whole(
    records, quoted, ending, size
):
    buffer = io.StringIO()
    writer = csv.writer(
        buffer, lineterminator=ending, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    )
    writer.writerows([("one", "two"), *records])
    content = buffer.getvalue().encode()
    whole = dialect.load(io.BytesIO(content), delimiter=",")
    frame, lines = cells_of(content, size)
    # An empty cell with and without quotation marks is the same, whichever reader comes to it.
    assert frame.fill_null("").equals(whole.frame.fill_null(""))
    assert lines == whole.lines.tolist()


@given(cells=st.lists(st.integers(0, 3), min_size=1, max_size=20), size=st.integers(1, 60))
def test_a_row_with_too_few_or_too_many_cells_is_found_in_every_piece(cells, size):
    content = "".join(["a,b\n", *(",".join("x" * count) + "\n" for count in cells)]).encode()
    ragged = [number for number, count in enumerate(cells, start=2) if count not in (0, 2)]
    if not any(cells):
        return
    if not ragged:
        assert cells_of(content, size)[0].height == sum(count == 2 for count in cells)
        return
    with pytest.raises(ForecastError, match=f"row {ragged[0]}:"):
        cells_of(content, size)
