"""The folders of runs: one each, held by one process, found again when it was interrupted.

`run.json` in a folder says what the run is and how far it came. A run is the same as another if all
of its identity is equal: recipe, data, and what it started from.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forecast import atomic
from forecast.errors import ForecastError
from forecast.locks import exclusive
from forecast.paths import home_folder

_STARTED, _FINISHED = "started", "finished"
_STATE, _LOCK = "run.json", ".lock"
_TITLE_BYTES = 160


@dataclass(kw_only=True, slots=True)
class RunFolder:
    """Hold the folder of a run.

    Attributes:
        folder: the folder.
        fresh: it was made just now, and not found.
        run_id: MLflow's id of the run, if it has one already.
    """

    folder: Path
    fresh: bool
    run_id: str | None
    _identity: Mapping[str, str]

    def note(self, run_id: str | None) -> None:
        """Write down that the run has begun, and its id in MLflow."""
        self.run_id = run_id
        self._write(_STARTED)

    def finish(self) -> None:
        """Write down that there is nothing left to resume."""
        self._write(_FINISHED)

    def _write(self, status: str) -> None:
        state = {**self._identity, "status": status, "run_id": self.run_id}
        atomic.write_bytes(self.folder / _STATE, json.dumps(state, indent=2).encode())


@contextmanager
def open_run(title: str, identity: Mapping[str, str], *, resume: bool) -> Generator[RunFolder]:
    """Make a folder for a run, or find that of an unfinished one, and hold it for this process.

    Args:
        title: begins the name of a new folder.
        identity: what makes a run the same as another.
        resume: take the newest unfinished run of this identity that no other process holds.
    """
    root = home_folder("runs")
    with ExitStack() as held:
        folder = _unfinished(root, identity, held) if resume else None
        if folder is None:
            stamp = time.strftime("%Y%m%d-%H%M%S")
            # A name has 255 bytes at most; that of a data set may take all of them.
            short = os.fsencode(title)[:_TITLE_BYTES].decode(errors="ignore")
            folder = root / f"{short}-{stamp}-{secrets.token_hex(2)}"
            folder.mkdir()
            held.enter_context(exclusive(folder / _LOCK, f"the run {folder.name}"))
        state = _state(folder)
        yield RunFolder(
            folder=folder,
            fresh=not state,
            run_id=state.get("run_id"),
            _identity=identity,
        )


def _unfinished(root: Path, identity: Mapping[str, str], held: ExitStack) -> Path | None:
    """Find the newest unfinished run that no other process holds, and hold it."""
    folders = [path for path in root.iterdir() if (path / _STATE).is_file()]
    for folder in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True):
        state = _state(folder)
        same = all(state.get(key) == value for key, value in identity.items())
        if not same or state.get("status") != _STARTED:
            continue
        try:
            held.enter_context(exclusive(folder / _LOCK, f"the run {folder.name}"))
        except ForecastError:
            continue
        # What was read before it was held may have been finished in between.
        if _state(folder).get("status") == _STARTED:
            return folder
        held.close()
    return None


def _state(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / _STATE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}
