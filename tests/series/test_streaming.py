"""Streams: rows in any company and order give the same forecasts, and a stop changes nothing."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json

import numpy as np
import polars as pl
import pytest
import torch

import forecast
from forecast.batch import SeriesBatch, Spec
from forecast.errors import DataError, ForecastError, NotFoundError, UsageError
from forecast.models.itransformer import ITransformer, ITransformerConfig
from forecast.models.lmuformer.model import LMUFormer, LMUFormerConfig
from forecast.models.titans.model import Titans, TitansConfig
from forecast.recipe import DataSection, Recipe, TrackingSection, TrainSection, WindowSection
from forecast.series import context, predict, score
from forecast.series.forecaster import Forecaster
from forecast.series.scaling import Scaler
from forecast.series.stream import Streamer, pump
from forecast.series.stream.rows import RowReader
from forecast.series.stream.run import run_stream
from forecast.tables.layout import Layout

TIME = "%Y-%m-%d %H:%M:%S"
WIDE = Layout(kind="wide", time="date", values=("a", "b"), variates=("a", "b"), time_format=TIME)
LONG = Layout(
    kind="long", time="ds", id="unique_id", values=("y",), variates=("y",), time_format=TIME
)

# The models that carry a state of their own.
CARRYING = ["lmuformer", "titans", "titans deep"]


def forecaster(layout=LONG, ids=("p", "q", "r"), model="lmuformer", fill="none", **options):
    """Make a forecaster with weights drawn, not trained."""
    torch.manual_seed(1)
    columns = layout.variates
    spec = Spec(
        lookback=24, horizon=4, variates=len(columns), season=24, frequency="h",
        calendar=4 if model == "itransformer" else 0,
        context=24 if model == "itransformer" else None,
    )  # fmt: skip
    if model == "itransformer":
        config = ITransformerConfig(width=16, heads=2)
        built = ITransformer(config, spec)
    elif model in ("titans", "titans deep"):
        memory = "deep" if model == "titans deep" else "linear"
        config = TitansConfig(width=16, heads=2, window=4, patch=4, memory=memory)
        built = Titans(config, spec)
        for weight in built.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.2)
    else:
        config = LMUFormerConfig(**({"width": 16, "direct_window": 48} | options))
        built = LMUFormer(config, spec)
        torch.nn.init.normal_(built.direct.map.weight, std=0.1)
        torch.nn.init.normal_(built.head.weight, std=0.1)
    recipe = Recipe(
        data=DataSection(), window=WindowSection(), model=model.split()[0], model_config=config,
        train=TrainSection(), tracking=TrackingSection(),
    )  # fmt: skip
    return Forecaster(
        model=built.eval(),
        recipe=recipe,
        spec=spec,
        scaler=Scaler(
            mean=np.arange(len(ids) * len(columns), dtype=float).reshape(len(ids), -1),
            deviation=np.full((len(ids), len(columns)), 2.0),
            ids=ids,
        ),
        columns=columns,
        layout=dataclasses.replace(layout, fill=fill),
        ridge=None,
        data={},
        metrics={},
    )


def wide(**options):
    return forecaster(WIDE, ids=("",), **options)


def stamp(hour):
    return (
        str(np.datetime64("2024-03-01T00") + np.timedelta64(hour, "h")).replace("T", " ") + ":00:00"
    )


def value(name, hour):
    return round(float(np.sin(hour / 4 + ord(name)) + hour / 50), 4)


def long_rows(hours, names="pqr"):
    return [f"{name},{stamp(hour)},{value(name, hour)}\n" for hour in hours for name in names]


def wide_rows(hours):
    return [f"{stamp(hour)},{value('a', hour)},{value('b', hour)}\n" for hour in hours]


class Chunked(io.RawIOBase):
    """Give a text in pieces of the sizes wanted, as a pipe does."""

    def __init__(self, text, sizes):
        self.text, self.sizes = text.encode(), iter(sizes)

    def read1(self, size):
        size = min(next(self.sizes, size), size)
        part, self.text = self.text[:size], self.text[size:]
        return part


def run(made, rows, header="unique_id,ds,y\n", sizes=(), **options):
    """Stream rows; return the lines written without their header, and the streamer."""
    keep = {name: options.pop(name) for name in ("state", "save_every") if name in options}
    streamer = options.pop("streamer", None) or Streamer(made, **options)
    out = io.BytesIO()
    pump(streamer, Chunked(header + "".join(rows), sizes), out.write, **keep)
    return out.getvalue().decode().splitlines()[1:], streamer


def by_series(lines):
    found = {}
    for line in lines:
        found.setdefault(line.split(",")[1], []).append(line)
    return found


@pytest.mark.parametrize("model", CARRYING)
def test_the_stream_forecasts_what_the_model_does_at_once(model):
    made = wide(model=model)
    lines, _ = run(made, wide_rows(range(60)), header="date,a,b\n")
    assert len(lines) == 60 * 4
    rows = np.array([[value("a", hour), value("b", hour)] for hour in range(60)])
    scaled = (rows - made.scaler.mean) / made.scaler.deviation
    with torch.no_grad():
        past = torch.from_numpy(scaled.astype(np.float32)).unsqueeze(0)
        dense = made.model.run(SeriesBatch(past=past))[0].values[0].double().numpy()
    expected = dense * made.scaler.deviation + made.scaler.mean
    found = np.array([line.split(",")[2:4] for line in lines], float).reshape(60, 4, 2)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    cold = [line.endswith("true") for line in lines[::4]]
    # seven seasons of 24 rows and more is what memories hold, and no row after it is cold
    assert cold == [True] * 60
    first = lines[0].split(",")
    assert first[:2] == [stamp(0), stamp(1)]


@pytest.mark.parametrize("model", CARRYING)
def test_company_order_and_time_of_arrival_change_no_bit(model):
    made, hours = forecaster(model=model), range(40)
    together, _ = run(made, long_rows(hours))
    alone = [run(made, long_rows(hours, name))[0] for name in "pqr"]
    assert by_series(together) == by_series([line for lines in alone for line in lines])
    after_each_other = [row for name in "pqr" for row in long_rows(hours, name)]
    found, _ = run(made, after_each_other)
    assert by_series(found) == by_series(together)
    # in the order of the rows, whatever was at hand at once
    for sizes in ([1] * 10_000, [7, 100, 1000, 13], [50] * 1000):
        assert run(made, long_rows(hours), sizes=sizes)[0] == together


def test_json_lines_give_the_same_numbers():
    made = forecaster()
    csv, _ = run(made, long_rows(range(10)))
    objects = [
        json.dumps({"ds": stamp(hour), "y": value(name, hour), "unique_id": name, "other": [1]})
        for hour in range(10)
        for name in "pqr"
    ]
    out = io.BytesIO()
    pump(Streamer(made), io.BytesIO("\n".join(objects).encode()), out.write)
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    assert len(found) == 30
    numbers = [
        [name, number] for row in found for name, number in zip(row["ds"], row["y"], strict=True)
    ]
    assert numbers == [[line.split(",")[2], float(line.split(",")[3])] for line in csv]
    assert found[4] | {"ds": 0, "y": 0} == {
        "issued": stamp(1), "unique_id": "q", "cold": True, "ds": 0, "y": 0,
    }  # fmt: skip


def test_late_and_duplicate_rows_are_left_out_and_counted():
    made, rows = forecaster(), long_rows(range(20), "p")
    expected, _ = run(made, rows)
    found, streamer = run(made, [*rows[:10], rows[9], rows[3], *rows[10:], rows[19]])
    assert found == expected
    counts = streamer.counts
    assert (counts.rows, counts.duplicates, counts.late, counts.replayed) == (20, 2, 1, 0)


def test_missing_rows_are_held_or_missing_or_refused():
    rows = long_rows(range(30), "p")
    gone = rows[:12] + rows[15:]
    held = rows[:12] + [f"p,{stamp(hour)},{value('p', 11)}\n" for hour in (12, 13, 14)] + rows[15:]
    empty = rows[:12] + [f"p,{stamp(hour)},\n" for hour in (12, 13, 14)] + rows[15:]
    # a model that sees what is missing tells the two apart
    made = forecaster(observed=True)
    skipped = slice(12 * 4, 15 * 4)
    for gap, stand_in in (("hold", held), ("nan", empty)):
        expected, _ = run(made, stand_in)
        del expected[skipped]
        found, streamer = run(made, gone, gap=gap)
        assert found == expected
        assert (streamer.counts.rows, streamer.counts.missing_rows) == (27, 3)
    assert run(made, held)[0] != run(made, empty)[0]
    with pytest.raises(DataError, match=r"row 14.*2024-03-01 15:00:00 of series 'p'.*--gap refuse"):
        run(made, gone, gap="refuse")


def test_missing_cells_are_held_where_they_were_held_in_training():
    rows = long_rows(range(30), "p")
    rows[20] = f"p,{stamp(20)},NA\n"
    masked, streamer = run(forecaster(observed=True), rows)
    assert streamer.counts.missing_cells == 1
    held, _ = run(forecaster(observed=True, fill="hold"), rows)
    rows[20] = f"p,{stamp(20)},{value('p', 19)}\n"
    assert held == run(forecaster(observed=True), rows)[0]
    assert masked != held


def test_every_few_rows_and_a_shorter_horizon():
    made = forecaster()
    whole, _ = run(made, long_rows(range(12)))
    some, streamer = run(made, long_rows(range(12)), every=4, horizon=2)
    assert streamer.counts.forecasts == 9
    assert some == [line for line in whole if line[:19] in {stamp(3), stamp(7), stamp(11)}
                    and line.split(",")[2] <= stamp(int(line[11:13]) + 2)]  # fmt: skip
    with pytest.raises(UsageError, match="forecasts 4 rows, not 5"):
        Streamer(made, horizon=5)


@pytest.mark.parametrize("model", ["lmuformer", "itransformer"])
def test_a_new_series_has_one_scale_in_stream_prediction_and_evaluation(tmp_path, model):
    made = forecaster(model=model)
    hours = range(60)
    # far from the training data: their mean is 1 and their deviation 2
    rows = [f"new,{stamp(hour)},{5000 + 300 * value('p', hour)}\n" for hour in hours]
    lines, streamer = run(made, rows)
    assert streamer.counts.new_series == 1
    issued = np.array([line.split(",")[3] for line in lines], float).reshape(60, 4)
    path, truth = tmp_path / "new.csv", 5000 + 300 * np.array([value("p", h) for h in hours])
    for length in (30, 45):
        path.write_text("unique_id,ds,y\n" + "".join(rows[:length]))
        predicted = predict.predict(made, path)["y"].to_numpy()
        np.testing.assert_allclose(predicted, issued[length - 1], atol=0.01)
    path.write_text("unique_id,ds,y\n" + "".join(rows))
    found = score.evaluate(made, str(path))["metrics"]["test"]
    # the origins 24 to 56: what the stream said after the row before each
    errors = [issued[origin - 1] - truth[origin : origin + 4] for origin in range(24, 57)]
    assert found["units"]["y"]["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-4)


def test_a_windowed_model_streams_what_predict_says(tmp_path):
    made = wide(model="itransformer")
    lines, streamer = run(made, wide_rows(range(40)), header="date,a,b\n")
    for length in (30, 40):
        path = tmp_path / "history.csv"
        path.write_text("date,a,b\n" + "".join(wide_rows(range(length))))
        frame = predict.predict(made, path)
        issued = [line.split(",")[2:4] for line in lines if line.startswith(stamp(length - 1))]
        np.testing.assert_allclose(np.array(issued, float), frame.select("a", "b"), atol=1e-5)
    assert [line.endswith("true") for line in lines[::4]] == [True] * 23 + [False] * 17
    assert streamer.model.context == 24


def test_a_windowed_model_that_reads_covariates_is_refused():
    made = wide(model="itransformer")
    made = dataclasses.replace(made, spec=dataclasses.replace(made.spec, static=2))
    with pytest.raises(UsageError, match="reads covariates"):
        Streamer(made)


class Stop(Exception):
    pass


@pytest.mark.parametrize("model", CARRYING)
def test_killed_at_any_moment_and_fed_again_it_goes_on_as_if_nothing_had_happened(tmp_path, model):
    made, rows = forecaster(model=model), long_rows(range(40))
    expected, _ = run(made, rows)
    random = np.random.default_rng(0)
    for moment in random.integers(1, 60, size=20):
        state, written = tmp_path / f"{moment}.safetensors", []

        def write(text, moment=moment, written=written):
            if len(written) == moment:
                raise Stop
            written.append(text)

        sizes = random.integers(20, 120, size=10_000)
        source = Chunked("unique_id,ds,y\n" + "".join(rows), sizes)
        try:
            pump(Streamer(made), source, write, state=state, save_every=int(random.integers(1, 20)))
        except Stop:
            first = Streamer(made)
            if state.exists():
                first.resume(state)
            again, streamer = run(made, rows, streamer=first)
            # what was not saved is forecast again: the output goes on from the saved row
            assert again == expected[streamer.counts.replayed * 4 :]
            assert (streamer.counts.replayed > 0) == state.exists()
        else:
            assert b"".join(written).decode().splitlines()[1:] == expected


def test_a_state_of_something_else_is_refused_by_name(tmp_path, monkeypatch):
    path, made = tmp_path / "state.safetensors", forecaster()
    _, streamer = run(made, long_rows(range(5)), state=path)
    other = forecaster(width=24)
    with pytest.raises(UsageError, match=r"belongs to model 'lmuformer [0-9a-f]{16}', and this"):
        Streamer(other).resume(path)
    monkeypatch.setattr(forecast, "__version__", "9.9")
    with pytest.raises(UsageError, match=r"version .* and this is version '9\.9'"):
        Streamer(made).resume(path)
    monkeypatch.undo()
    identity = streamer._identity() | {"dtype": "float64"}
    streamer._store.save(path, identity)
    with pytest.raises(UsageError, match="dtype 'float64', and this is dtype 'float32'"):
        Streamer(made).resume(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read"):
        Streamer(made).resume(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("p,2024-03-01 20:00:00,much\n", r"row 22, column 'y'.*'much' is not a number"),
        ("p,yesterday,1.0\n", r"row 22, column 'ds'.*'yesterday' is not a time"),
        ("p,2024-03-01 20:00:00\n", r"row 22: The row has 2 cells, the header 3"),
        ("p,2024-03-01 20:30:00,1.0\n", r"row 22: The time 2024-03-01 20:30:00 .*off the grid"),
        ("p,2034-03-01 20:00:00,1.0\n", r"row 22: .*more than 10,000 rows after"),
    ],
)
def test_a_bad_row_ends_the_stream_after_the_rows_before_it(tmp_path, row, message):
    made, rows, path = forecaster(), long_rows(range(30), "p"), tmp_path / "state.safetensors"
    out = io.BytesIO()
    source = io.BytesIO(("unique_id,ds,y\n" + "".join([*rows[:20], row, *rows[20:]])).encode())
    with pytest.raises(DataError, match=message):
        pump(Streamer(made), source, out.write, state=path)
    expected, _ = run(made, rows)
    before = out.getvalue().decode().splitlines()[1:]
    assert before == expected[: 20 * 4]
    streamer = Streamer(made)
    streamer.resume(path)
    after, _ = run(made, rows, streamer=streamer)
    assert before + after == expected


def test_a_header_without_the_columns_is_refused():
    with pytest.raises(DataError, match="no column 'y' in the first line"):
        run(forecaster(), long_rows(range(2)), header="unique_id,ds,value\n")


def test_many_series_come_and_the_state_grows_with_them(tmp_path):
    made, path = forecaster(), tmp_path / "state.safetensors"
    names = [f"s{number}" for number in range(9_000)]
    rows = [
        f"{name},{stamp(hour)},{number % 7}\n"
        for hour in range(2)
        for number, name in enumerate(names)
    ]
    whole, streamer = run(made, rows, horizon=1)
    assert len(streamer) == 9_000
    assert streamer.counts.forecasts == 18_000
    run(made, rows[:9_000], state=path)
    later = Streamer(made, horizon=1)
    later.resume(path)
    again, _ = run(made, rows, streamer=later)
    assert again == whole[9_000:]
    # equal rows give equal forecasts, whatever their place
    assert len({line.split(",", 3)[3] for line in again}) == 7


def test_a_long_stream_does_not_drift():
    made = forecaster().model
    random = np.random.default_rng(0)
    # a random walk drawn back to 0, so that its variance is bounded
    walk = np.zeros((1_500, 1))
    for step in range(1, len(walk)):
        walk[step] = 0.99 * walk[step - 1] + 0.14 * random.normal()
    double = forecaster().model.double()
    with torch.no_grad():
        single, exact = made.init_state(1), double.init_state(1)
        for row in torch.from_numpy(walk):
            forecast_, single = made.step(row.float().view(1, 1), single)
            reference, exact = double.step(row.view(1, 1), exact)
    assert (forecast_.values - reference.values).abs().max() < 1e-4
    assert max(part.abs().max().item() for part in single.values() if part.is_floating_point()) < 50


def test_times_of_a_zone_step_over_the_change_of_the_clock():
    made = forecaster(dataclasses.replace(LONG, timezone="Europe/Berlin"))
    # 2024-03-31: the hour after 01:00 is 03:00
    rows = ["p,2024-03-31 01:00:00,1.0\n", "p,2024-03-31 03:00:00,1.5\n"]
    lines, streamer = run(made, rows)
    assert streamer.counts.missing_rows == 0
    assert [line.split(",")[2] for line in lines[:2]] == [
        "2024-03-31 03:00:00",
        "2024-03-31 04:00:00",
    ]


def test_frames_round_trip_through_polars():
    lines, _ = run(forecaster(), long_rows(range(3)))
    frame = pl.read_csv(io.StringIO("issued,unique_id,ds,y,cold\n" + "\n".join(lines)))
    assert frame.schema["y"] == pl.Float64
    assert frame.schema["cold"] == pl.Boolean


def test_carriage_returns_long_fields_and_half_surrogates_are_rows_like_others():
    made, rows = forecaster(), long_rows(range(6))
    expected, _ = run(made, rows)
    noted = "x" * 200_000
    for end in ("\r", "\r\n"):
        lines = [row.rstrip("\n") + f",{noted}{end}" for row in rows]
        found, _ = run(made, lines, header=f"unique_id,ds,y,note{end}", sizes=[3, 17, 1, 1] * 9)
        assert found == expected
    objects = [
        json.dumps({"unique_id": "\ud800", "ds": stamp(hour), "y": 1.0}) + "\n" for hour in range(2)
    ]
    found, streamer = run(made, objects, header="")
    assert streamer.counts.rows == 2


def test_an_old_gap_far_before_the_lookback_is_told_and_not_in_the_way(tmp_path):
    made, path = forecaster(model="itransformer"), tmp_path / "history.csv"
    recent = long_rows(range(40), "p")
    old = ["p,1990-01-01 00:00:00,3\n", "p,1990-01-01 01:00:00,4\n"]
    path.write_text("unique_id,ds,y\n" + "".join(recent))
    expected = predict.predict(made, path)
    path.write_text("unique_id,ds,y\n" + "".join(old + recent))
    table = context.read_context(made, path)
    assert predict.predict_table(made, table).frame.equals(expected)
    assert "1 of 1 series have a gap of more than 10,000 rows" in " ".join(table.notices)
    # a mistyped year at the end leaves too little behind it, and stays an error
    path.write_text("unique_id,ds,y\n" + "".join([*recent, "p,2204-01-01 01:00:00,4\n"]))
    with pytest.raises(DataError, match="would be missing between"):
        context.read_context(made, path)


def test_series_that_end_early_are_told(tmp_path):
    made, path = forecaster(model="itransformer"), tmp_path / "history.csv"
    rows = long_rows(range(60), "pr") + long_rows(range(30), "q")
    path.write_text("unique_id,ds,y\n" + "".join(rows))
    notices = predict.predict_table(made, context.read_context(made, path)).notices
    assert (
        "1 of 3 series end early, and are forecast from where they end: "
        "'q' at 2024-03-02 05:00:00, others at 2024-03-03 11:00:00." in notices
    )


@pytest.mark.parametrize("layout", ["wide", "long"])
def test_a_table_without_a_single_value_is_the_users(tmp_path, layout):
    made, path = (
        (wide if layout == "wide" else forecaster)(model="itransformer"),
        tmp_path / "h.csv",
    )
    header = "date,a,b\n" if layout == "wide" else "unique_id,ds,y\n"
    rows = [f"{stamp(h)},," if layout == "wide" else f"p,{stamp(h)}," for h in range(30)]
    path.write_text(header + "\n".join(rows))
    for action in (predict.predict, lambda made, path: score.evaluate(made, str(path))):
        with pytest.raises(DataError, match="Not one of the 30 rows has a value"):
            action(made, path)


BAD = (
    "p,soon,1\n",
    "p,2024-03-01 05:30:00,1\n",
    "p,2034-03-01 00:00:00,1\n",
    "p,2024-03-01 06:00:00,much\n",
    "p\n",
    'p,"never closed\n',
    "p," + "9" * 200_000 + ",1\n",
    "\x00\n",
)


def test_bad_rows_are_left_out_and_all_else_is_as_without_them(tmp_path):
    made, good = forecaster(), long_rows(range(10))
    mixed = [line for row in zip(good, itertools.cycle(BAD), strict=False) for line in row]
    expected = run(made, good)[0]
    for sizes in ((), itertools.repeat(97)):
        out, aside = io.BytesIO(), tmp_path / f"bad{len(list(tmp_path.iterdir()))}.csv"
        source = Chunked("unique_id,ds,y\n" + "".join(mixed), sizes)
        done = run_stream(made, source, out.write, bad_rows=str(aside))
        assert out.getvalue().decode().splitlines()[1:] == expected
        kept = pl.read_csv(aside, infer_schema=False)
        # each bad row once, with its line, though some were found after those behind them; at
        # lines 37 and 53 half past five was before the last hour of its series: late, then known
        assert sorted(map(int, kept["row"])) == sorted({*range(3, 63, 2)} - {37, 53})
        left_out = done.counts.late + done.counts.duplicates
        assert (done.bad, kept.height, left_out) == (28, 28, 2)
        assert kept["reason"].str.len_chars().min() > 10


def test_without_leave_one_bad_row_ends_a_stream_and_says_how_to_go_on(tmp_path):
    made = forecaster()
    with pytest.raises(DataError, match="frequency h"):
        run(made, [*long_rows(range(3)), BAD[1]])
    with pytest.raises(DataError, match=r"row 1, column 'y'.* is not a number"):
        run(made, ['{"unique_id": "p", "ds": "2024-03-01 00:00:00", "y": "\\ud800"}\n'], header="")


def test_whatever_ends_a_stream_the_state_is_that_of_what_was_written(tmp_path, monkeypatch):
    made, state, out = forecaster(), tmp_path / "state", io.BytesIO()
    rows = long_rows(range(10))
    calls = itertools.count()
    read = RowReader.read

    def failing(self, lines):
        if next(calls) == 5:
            raise RuntimeError("a fault of the program")
        return read(self, lines)

    monkeypatch.setattr(RowReader, "read", failing)
    text = "unique_id,ds,y\n" + "".join(rows)
    with pytest.raises(RuntimeError):
        run_stream(made, Chunked(text, itertools.repeat(64)), out.write, state=state)
    monkeypatch.undo()
    again = io.BytesIO()
    run_stream(made, Chunked(text, ()), again.write, state=state)
    first, second = (one.getvalue().decode().splitlines()[1:] for one in (out, again))
    assert len(first) > 0
    assert sorted(first + second) == sorted(run(made, rows)[0])


def test_carriage_returns_alone_end_lines_too():
    made, rows = wide(), wide_rows(range(4))
    text = ("date,a,b\n" + "".join(rows)).replace("\n", "\r")
    found = io.BytesIO()
    pump(Streamer(made), Chunked(text, ()), found.write)
    assert found.getvalue().decode().splitlines()[1:] == run(made, rows, "date,a,b\n")[0]


def test_one_state_has_one_stream(tmp_path):
    made, state = forecaster(), tmp_path / "state"

    class Second:
        def read1(self, size):
            with pytest.raises(ForecastError, match="Another process is using the state"):
                run_stream(made, Chunked("", ()), bytes, state=state)
            return b""

    run_stream(made, Second(), bytes, state=state)
    with pytest.raises(NotFoundError, match="There is no folder"):
        run_stream(made, Chunked("", ()), bytes, state=tmp_path / "nowhere" / "state")
