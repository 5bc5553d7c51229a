"""Servers that trickle, damaged stores, registries that lie, processes that were killed."""

from __future__ import annotations

import http.server
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forecast.errors import DataError, ForecastError, UsageError
from forecast.tracking import Run, add, check_names, deadline, promote, resolve, rows, store
from forecast.tracking.scratch import scratch


@pytest.mark.parametrize("tag", ["../../stolen", "/tmp/x", "A" * 64, "0" * 63, "0" * 64 + "/.."])
def test_a_digest_that_is_no_sha256_names_no_folder(
    uri: str, make_artefact: Callable[..., Path], tag: str, tmp_path: Path
) -> None:
    add(make_artefact(), "plant", "champion")
    store.connect(uri).set_model_version_tag("plant", "1", "digest", tag)
    with pytest.raises(DataError, match="64 hex digits"):
        resolve("models:/plant@champion", cache=tmp_path / "cache")
    with pytest.raises(DataError, match="64 hex digits"):
        promote("plant", 1, "other")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["empty", "missing", "other"])
def test_what_cannot_be_loaded_is_neither_added_nor_promoted(
    uri: str, make_artefact: Callable[..., Path], damage: str
) -> None:
    def harm(folder: Path) -> None:
        weights = folder / "weights.safetensors"
        if damage == "missing":
            weights.unlink()
        else:
            weights.write_bytes(b"" if damage == "empty" else weights.read_bytes()[:-1] + b"\x01")

    whole = make_artefact("whole")
    add(whole, "plant", "champion")
    harm(resolve("models:/plant@champion"))
    with pytest.raises(DataError, match=r"sha256|missing"):
        promote("plant", 1, "best")
    harm(whole)
    with pytest.raises(DataError, match=r"sha256|missing"):
        add(whole, "plant", "champion")
    assert [(row["version"], row["aliases"]) for row in rows()] == [(1, ["champion"])]


def test_names_count_in_bytes() -> None:
    with pytest.raises(UsageError, match="255 bytes"):
        check_names("é" * 130, "")
    check_names("é" * 120, "")


@pytest.mark.parametrize("damage", ["garbage", "cut", "locked"])
def test_a_store_that_is_damaged_or_locked_is_a_sentence_at_once(
    uri: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_BUSY_SECONDS", 0.1)
    file = Path(uri.removeprefix("sqlite:///"))
    holder = None
    if damage == "garbage":
        file.write_bytes(b"no database " * 100)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        holder = sqlite3.connect(file)
        holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ForecastError) as caught:
        rows()
    assert "could not be used" in caught.value.message
    assert "\n" not in caught.value.message
    assert ("holds it" if holder else "Move the file away") in caught.value.hint


def test_an_empty_store_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert rows() == []


class Trickle(http.server.BaseHTTPRequestHandler):
    """Answer that all is well, and everything else a byte at a time, for ever."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        while self.path != "/health" and not self.server.closing:
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(0.05)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def trickling(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Trickle)
    server.daemon_threads, server.closing = True, False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setattr(deadline, "CALL_SECONDS", 0.3)
    yield address
    server.closing = True
    server.shutdown()


def test_a_server_that_trickles_stops_nobody(trickling: str, tmp_path: Path) -> None:
    for ask in (rows, lambda: resolve("models:/plant@champion"), lambda: promote("plant", 1, "a")):
        with pytest.raises(ForecastError, match="has not answered within"):
            ask()
    options = {"experiment": "e", "name": "n", "params": {}, "tags": {}, "datasets": []}
    with (
        pytest.warns(UserWarning, match="not being tracked"),
        Run.start(folder=tmp_path, **options) as run,
    ):
        run.log({"loss": 1.0}, step=1)
    assert '"loss"' in (tmp_path / "tracking-spool.jsonl").read_text()


def test_what_a_killed_process_left_is_ended_and_removed(uri: str, tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from forecast.tracking import Run
from forecast.tracking.scratch import scratch
with scratch(Path({str(tmp_path / "scratch")!r})) as folder:
    (folder / "copy").write_text("x")
    run = Run.start(experiment="e", name="killed", params={{}}, tags={{}}, datasets=[],
                    folder=Path({str(tmp_path)!r}))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr
    (left,) = [one for one in (tmp_path / "scratch").iterdir() if one.is_dir()]
    options = {"experiment": "e", "params": {}, "tags": {}, "datasets": []}
    # One that lives is left alone by the next.
    with (
        Run.start(name="first", folder=tmp_path, **options),
        Run.start(name="second", folder=tmp_path, **options),
    ):
        client = store.connect(uri)
        experiment = client.get_experiment_by_name("e").experiment_id
        found = {run.info.run_name: run.info.status for run in client.search_runs([experiment])}
    assert found == {"killed": "KILLED", "first": "RUNNING", "second": "RUNNING"}
    with scratch(tmp_path / "scratch") as mine, scratch(tmp_path / "scratch") as other:
        assert not left.exists()
        assert mine.is_dir()
        assert other.is_dir()
    assert not [*(tmp_path / "scratch").iterdir()]
