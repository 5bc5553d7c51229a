"""`forecast stream` as a user runs it: forecasts at once, signals obeyed, a state that survives."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def rows(table):
    header, *lines = table.read_text().splitlines(keepends=True)
    return header, lines[:80]


@pytest.fixture
def start(process):
    """Return a function that starts a stream and leaves it running; none outlives its test."""
    started = []

    def run(*arguments):
        started.append(process("stream", *arguments, stdin=subprocess.PIPE, bufsize=1))
        return started[-1]

    yield run
    for one in started:
        one.kill()
        one.communicate()


def test_each_row_is_forecast_before_the_next_one_comes_and_sigterm_saves(
    start, trained, rows, tmp_path
):
    header, lines = rows
    state = tmp_path / "state.safetensors"
    process = start(trained["artefact"], "--state", state, "--horizon", 2)
    process.stdin.write(header)
    for number, line in enumerate(lines[:3]):
        process.stdin.write(line)
        process.stdin.flush()
        if number == 0:
            assert process.stdout.readline() == "issued,date,load,heat,cold\n"
        issued = [process.stdout.readline().split(",") for _ in range(2)]
        assert [row[0] for row in issued] == [line.split(",")[0]] * 2
        assert issued[0][4] == "true\n"
    assert not state.exists()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert "rows: 3" in process.stderr.read()
    assert state.exists()


def test_killed_and_fed_again_it_goes_on(start, command, trained, rows, tmp_path):
    header, lines = rows
    text = header + "".join(lines)
    whole = command("stream", trained["artefact"], stdin=text)
    assert whole.returncode == 0, whole.stderr
    forecasts = whole.stdout.splitlines()[1:]
    assert len(forecasts) == 80 * 12
    state = tmp_path / "state.safetensors"
    process = start(trained["artefact"], "--state", state, "--save-every", 5)
    process.stdin.write(text[: len(text) // 2])
    process.stdin.flush()
    while not state.exists():
        time.sleep(0.05)
    process.kill()
    process.wait()
    again = command("stream", trained["artefact"], "--state", state, stdin=text)
    assert again.returncode == 0, again.stderr
    found = again.stdout.splitlines()[1:]
    replayed = 80 - len(found) // 12
    assert found == forecasts[replayed * 12 :]
    assert f"replayed: {replayed}" in again.stderr
    assert replayed >= 5


def test_a_reader_that_leaves_ends_it_and_the_state_is_that_of_what_was_written(
    start, command, trained, rows, tmp_path
):
    header, lines = rows
    text = header + "".join(lines)
    forecasts = command("stream", trained["artefact"], stdin=text).stdout.splitlines()[1:]
    state = tmp_path / "state.safetensors"
    process = start(trained["artefact"], "--state", state, "--save-every", 5)
    process.stdin.write(header + "".join(lines[:40]))
    process.stdout.readline()
    assert [process.stdout.readline().rstrip() for _ in range(40 * 12)] == forecasts[: 40 * 12]
    process.stdout.close()
    process.stdin.write("".join(lines[40:]))
    assert process.wait(60) == 0
    assert "rows: " in (told := process.stderr.read())
    assert "Error" not in told
    again = command("stream", trained["artefact"], "--state", state, stdin=text)
    # 40 rows are eight times five; none of those whose forecasts found no reader is in the state.
    assert "replayed: 40" in again.stderr
    assert again.stdout.splitlines()[1:] == forecasts[40 * 12 :]


def test_what_it_cannot_do_is_one_panel(command, trained, rows, tmp_path):
    header, lines = rows
    done = command("stream", trained["artefact"], stdin="when,load,heat\n")
    assert done.returncode == 3
    assert "no column 'date' in the first line" in done.stderr
    done = command("stream", trained["artefact"], stdin=header + lines[0] + "soon,1,2\n")
    assert done.returncode == 3
    assert "row 3, column 'date'" in done.stderr
    assert len(done.stdout.splitlines()) == 13
    done = command("stream", trained["artefact"], "--gap", "guess", stdin="")
    assert done.returncode == 2
    damaged = tmp_path / "state.safetensors"
    damaged.write_bytes(b"nothing")
    done = command("stream", trained["artefact"], "--state", damaged, stdin="")
    assert done.returncode == 3
    assert str(damaged) in done.stderr
    assert damaged.read_bytes() == b"nothing"


def test_json_lines_and_info(command, trained, rows):
    _, lines = rows
    objects = [
        json.dumps(dict(zip(("date", "load", "heat"), line.strip().split(","), strict=True)))
        for line in lines[:2]
    ]
    done = command("stream", trained["artefact"], "--every", 2, stdin="\n".join(objects))
    assert done.returncode == 0, done.stderr
    (row,) = map(json.loads, done.stdout.splitlines())
    assert len(row["load"]) == len(row["date"]) == 12
    done = command("stream", trained["artefact"], "--info")
    # 48 rows of 2 float32 and 2 truth values; in the book 4 numbers of 8 bytes, 5 a variate
    size = 48 * 2 * 5 + 4 * 8 + 2 * 5 * 8
    assert done.stdout.startswith(f"{size} bytes for each series; a start is")


@pytest.mark.parametrize(
    ("model", "settings"),
    [("lmuformer", ["model.windows=[48]"]), ("titans", ["model.heads=2", "model.segment=128"])],
)
def test_a_model_with_a_state_streams_what_predict_says(command, table, tmp_path, model, settings):
    out = tmp_path / "artefact"
    options = [part for setting in settings for part in ("--set", setting)]
    trained = command(
        "train", table, "--model", model, "--lookback", 48, "--horizon", 6,
        "--set", "model.width=8", "--set", "train.epochs=1", *options, "--out", out, "--json",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    document = json.loads(trained.stdout)
    assert Path(document["picture"]).with_name("early.png").exists()
    early = document["metrics"]["early"]
    assert early["rows"][:4] == [1, 2, 4, 8]
    assert len(early["mse"]) == len(early["mse_with_all_history"]) == len(early["rows"])
    assert ("memory" in document["metrics"]) == (model == "titans")
    assert Path(document["picture"]).with_name("memory.png").exists() == (model == "titans")
    streamed = command("stream", out, stdin=table.read_text())
    assert streamed.returncode == 0, streamed.stderr
    predicted = command("predict", out, table)
    assert predicted.returncode == 0, predicted.stderr
    header, *expected = (line.split(",") for line in predicted.stdout.splitlines())
    _, *found = (line.split(",") for line in streamed.stdout.splitlines())
    assert header == ["date", "load", "heat"]
    assert len(found) == 6 * (len(table.read_text().splitlines()) - 1)
    assert [row[1] for row in found[-6:]] == [row[0] for row in expected]
    for streams, predicts in zip(found[-6:], expected, strict=True):
        numbers = [[float(cell) for cell in row] for row in (streams[2:4], predicts[1:])]
        assert numbers[0] == pytest.approx(numbers[1], rel=2e-4, abs=2e-4)
    # the same from the last rows alone, with the others as history
    head, *lines = table.read_text().splitlines(keepends=True)
    new = tmp_path / "new.csv"
    new.write_text(head + "".join(lines[-7:]))
    assert command("predict", out, new, "--history", table).stdout == predicted.stdout
    again = json.loads(command("evaluate", out, "--json").stdout)
    assert again["metrics"]["test"]["mse"] == pytest.approx(document["metrics"]["test"]["mse"])
    cold = json.loads(command("evaluate", out, "--cold", "--json").stdout)
    assert cold["metrics"]["test"]["windows"] == again["metrics"]["test"]["windows"]
    assert cold["metrics"]["test"]["mse"] != pytest.approx(again["metrics"]["test"]["mse"], 1e-3)


def test_a_deep_memory_is_trained_and_streamed_by_a_setting(command, table, tmp_path):
    out = tmp_path / "artefact"
    trained = command(
        "train", table, "--model", "titans", "--lookback", 48, "--horizon", 6,
        "--set", "model.memory=deep", "--set", "model.width=8", "--set", "model.heads=2",
        "--set", "model.segment=128", "--set", "train.epochs=1", "--out", out, "--json",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    (block,) = json.loads(trained.stdout)["metrics"]["memory"]
    assert 0 < block["surprise"] < 2
    assert 1 <= block["key_rank"] <= block["key_width"] == 4
    streamed = command("stream", out, stdin=table.read_text())
    assert streamed.returncode == 0, streamed.stderr
    assert len(streamed.stdout.splitlines()) == 1 + 6 * (len(table.read_text().splitlines()) - 1)
