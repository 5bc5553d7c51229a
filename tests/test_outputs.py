"""Where results go: never an input, known to be writable before work begins, never in halves."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from forecast import atomic, locks, outputs, paths
from forecast.errors import DataError, ForecastError, NotFoundError, UsageError, from_system


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "h.csv"
    path.write_text("date,y\n")
    return path


def links(table):
    """Give other names of the same file."""
    soft, hard = table.with_name("soft.csv"), table.with_name("hard.csv")
    soft.symlink_to(table)
    os.link(table, hard)
    round_about = table.parent / "sub" / ".." / table.name
    (table.parent / "sub").mkdir()
    return soft, hard, round_about, table


def test_no_name_of_an_input_is_an_output(table):
    for name in links(table):
        with pytest.raises(UsageError, match="would overwrite the input"):
            outputs.check_file(name, ["-", None, "s3://x/y", table])
        with pytest.raises(UsageError, match="would overwrite the input"):
            outputs.check_file(table, [name])
    assert table.read_text() == "date,y\n"


def test_a_folder_that_is_read_takes_no_output_and_is_not_replaced(table):
    folder = table.parent / "in"
    folder.mkdir()
    with pytest.raises(UsageError, match="would overwrite"):
        outputs.check_file(folder / "forecast.csv", [folder])
    with pytest.raises(UsageError, match="would overwrite"):
        outputs.check_folder(folder, [folder])
    assert outputs.check_folder(table.parent / "new" / "deep", [folder]).name == "deep"
    assert not (table.parent / "new").exists()


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("nowhere/f.csv", NotFoundError, "There is no folder"),
        ("/dev/full", UsageError, "a device or a pipe"),
        ("/proc/forecast.csv", DataError, "Nothing can be written there"),
        ("n" * 300 + ".csv", DataError, "longer than file systems allow"),
        (".", UsageError, "names the folder"),
    ],
)
def test_a_place_that_takes_nothing_is_found_first(tmp_path, name, kind, words):
    with pytest.raises(kind, match=words):
        outputs.check_file(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("No space left on device (os error 28)"),
        RuntimeError("write failed: errno = 28, error message = 'No space left on device'"),
        RuntimeError("(sqlite3.OperationalError) database or disk is full"),
    ],
)
def test_a_full_disk_is_a_sentence_that_names_the_file_whoever_met_it(tmp_path, error):
    place = tmp_path / "f.csv"
    place.write_text("former")

    def write():
        with atomic.replacing(place) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(DataError, match=r"f\.csv: No space is left there"):
        write()
    assert place.read_text() == "former"
    assert [path.name for path in tmp_path.iterdir()] == ["f.csv"]


def test_an_error_of_the_program_stays_one(tmp_path):
    assert from_system(ValueError("wrong")) is None
    with pytest.raises(ValueError, match="wrong"), atomic.replacing(tmp_path / "f"):
        int("wrong")


def test_what_a_killed_process_left_is_removed_at_the_next_writing(tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path; from forecast import atomic\n"
        "for kind in (atomic.replacing, atomic.replacing_folder):\n"
        "    made = kind(Path(sys.argv[1], kind.__name__)).__enter__()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # The contexts are entered and never left; held here, so that they are not closed either.
    script = script.replace("    made =", "    sys.held = getattr(sys, 'held', [])\n    context =")
    script = script.replace(".__enter__()", "; sys.held.append(context); context.__enter__()")
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode == -9
    assert len(list(tmp_path.iterdir())) == 2
    with atomic.replacing(tmp_path / "replacing") as mine:
        # That of a process that lives is left alone.
        atomic.write_bytes(tmp_path / "replacing", b"other")
        mine.write_bytes(b"whole")
    with atomic.replacing_folder(tmp_path / "replacing_folder") as folder:
        (folder / "a").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["replacing", "replacing_folder"]
    assert (tmp_path / "replacing").read_bytes() == b"whole"


def test_a_long_name_is_written_too(tmp_path):
    path = tmp_path / ("ü" * 120 + ".csv")
    atomic.write_bytes(path, b"x")
    assert path.read_bytes() == b"x"


@pytest.mark.parametrize("stated", ["/proc/home", "/dev/full/home", "~nobody-of-this-name/x"])
def test_an_odd_home_is_refused_in_a_sentence_that_names_it(monkeypatch, stated):
    monkeypatch.setenv("FORECAST_HOME", stated)
    with pytest.raises(ForecastError) as caught:
        paths.home_folder("runs")
    assert "FORECAST_HOME" in str(caught.value)


def test_a_home_that_is_a_file_is_refused(monkeypatch, tmp_path):
    (tmp_path / "home").touch()
    monkeypatch.setenv("FORECAST_HOME", str(tmp_path / "home"))
    with pytest.raises(DataError, match="cannot be written to"):
        paths.home_folder("runs")


def test_a_lock_has_one_holder(tmp_path):
    with locks.exclusive(tmp_path / "lock", "the state"):
        script = (
            "import sys; from pathlib import Path; from forecast import errors, locks\n"
            "try:\n"
            "    locks.exclusive(Path(sys.argv[1]), 'the state').__enter__()\n"
            "except errors.ForecastError as error: sys.exit(str(error))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "lock")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert "Another process is using the state" in done.stderr
    assert Path(tmp_path / "lock").exists()
