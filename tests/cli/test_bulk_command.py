"""`forecast predict` over a folder: parts, the side file, exit code 6, and resuming."""

from __future__ import annotations

import json
import signal

import numpy as np
import polars as pl
import pytest


def long_table(names, rows=200):
    times = pl.Series(np.datetime64("2024-01-01", "us") + np.arange(rows) * np.timedelta64(1, "h"))
    random = np.random.default_rng(0)
    return pl.concat(
        [
            pl.DataFrame(
                {
                    "unique_id": [name] * rows,
                    "ds": times.dt.strftime("%Y-%m-%d %H:%M:%S"),
                    "y": np.round(9 + random.normal(size=rows), 3),
                }
            )
            for name in names
        ]
    )


@pytest.fixture(scope="module")
def model(command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("panel")
    long_table("abcd").write_csv(folder / "panel.csv")
    done = command(
        "train", folder / "panel.csv", "--model", "ridge", "--lookback", 24, "--horizon", 6,
        "--out", folder / "model", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "model"


@pytest.fixture
def inputs(tmp_path):
    """Return a folder of two files, of whose three series one has a step of its own."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    frame = long_table(["a", "=b"]).sample(fraction=1, shuffle=True, seed=0)
    frame[:300].write_csv(folder / "first.csv")
    pl.concat([frame[300:], long_table("c").gather_every(2)]).write_csv(folder / "second.csv")
    return folder


def test_a_folder_is_one_table_and_a_failed_series_is_exit_code_6(command, model, inputs, tmp_path):
    out = tmp_path / "out"
    done = command("predict", model, inputs, "--out", f"{out}/", "--json")
    assert done.returncode == 6
    assert "1 series have no forecast" in done.stderr
    assert "frequency 2h, but h is wanted" in done.stderr
    document = json.loads(done.stdout)
    assert (document["series"], document["rows"], document["rows_read"]) == (2, 12, 500)
    assert document["failed_file"] == str(out / "failed.csv")
    assert pl.read_csv(out / "failed.csv")["unique_id"].to_list() == ["c"]
    assert pl.read_parquet(out / "part-00000.parquet").height == 12


def test_safe_ids_in_pieces_and_in_memory(command, model, inputs, tmp_path):
    found = []
    (inputs / "second.csv").unlink()
    for source in (inputs, inputs / "first.csv"):
        out = tmp_path / "out.csv"
        done = command("predict", model, source, "--out", out, "--safe-ids")
        assert done.returncode == 0, done.stderr
        found.append(out.read_bytes())
    assert found[0] == found[1]
    assert b"\n'=b," in found[0]


def test_killed_and_resumed(command, model, inputs, tmp_path, process):
    (inputs / "second.csv").unlink()
    expected, out = tmp_path / "expected.csv", tmp_path / "out.csv"
    assert command("predict", model, inputs, "--out", expected).returncode == 0
    killed = process("predict", model, inputs, "--out", out)
    for line in killed.stderr:
        if "rows of" in line:
            killed.send_signal(signal.SIGKILL)
            break
    killed.communicate()
    assert not out.exists() or out.read_bytes() == expected.read_bytes()
    assert command("predict", model, inputs, "--out", out, "--resume").returncode == 0
    assert out.read_bytes() == expected.read_bytes()


def test_pieces_need_a_place(command, model, inputs):
    done = command("predict", model, inputs)
    assert done.returncode == 2
    assert "--out forecasts/" in done.stderr
