"""From bytes to bytes: rows are read as they come, forecasts leave before more are waited for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

import numpy as np

from forecast.errors import DataError
from forecast.series.stream.engine import Streamer
from forecast.series.stream.rows import RowReader, Rows, RowWriter

_READ = 1 << 16
# A row of more bytes is none; without an end of line memory would be filled with it.
_LONGEST_LINE = 1 << 24


class Source(Protocol):
    """Describe a binary stream that gives what is ready, as the standard input's buffer does."""

    def read1(self, size: int, /) -> bytes:
        """Wait for bytes and return at most `size` of them; none at the end."""
        ...


def pump(
    streamer: Streamer,
    source: Source,
    write: Callable[[bytes], object],
    *,
    state: Path | None = None,
    save_every: int = 10_000,
    safe_ids: bool = False,
    leave_out: Callable[[bytes, DataError], object] | None = None,
) -> int | None:
    """Take rows in as they come, and write their forecasts.

    The state is saved only after the forecasts of all that it has seen were written. So nothing is
    lost by feeding the rows again from any earlier one on: those it has seen are left out.

    Args:
        streamer: takes the rows in.
        source: lines of CSV or JSON.
        write: writes bytes and flushes them.
        state: the file to save to: at the end, at a signal, at a bad row, and in between.
        save_every: rows between two times of saving.
        safe_ids: put an apostrophe before ids that a spreadsheet takes for formulas, in CSV.
        leave_out: takes each line that cannot be read, with the reason, and the stream goes on;
            without it the first one ends the stream.

    Returns:
        The signal that ended it; None at the end of the rows.

    Raises:
        DataError: a row cannot be taken in; those before it are, and the state is saved.
    """
    forecaster = streamer.forecaster
    reader = RowReader(
        layout=forecaster.layout, columns=forecaster.columns, frequency=forecaster.spec.frequency
    )
    writer = RowWriter(layout=forecaster.layout, columns=forecaster.columns, safe_ids=safe_ids)
    unsaved = 0
    # Whether the state is that of what was written; in between it is ahead.
    even = True

    def save() -> None:
        nonlocal unsaved
        if state and even:
            streamer.save(state)
        unsaved = 0

    def take(rows: Rows) -> DataError | None:
        nonlocal unsaved, even
        first = 0
        while first < len(rows):
            some = rows.take(np.arange(first, min(first + save_every - unsaved, len(rows))))
            even = False
            issued, problem = streamer.push(some)
            if len(issued.ids):
                write(writer.text(issued, json=bool(reader.json)))
            even = True
            first, unsaved = first + len(some), unsaved + len(some)
            if problem:
                return problem
            if unsaved >= save_every:
                save()
        return None

    def feed(lines: list[bytes]) -> DataError | None:
        while True:
            begun = reader.line
            rows, error = reader.read(lines)
            problem = take(rows)
            # Without a header there is nothing to read the other lines by.
            if problem or error is None or leave_out is None or reader.json is None:
                return problem or error
            bad = (error.row or begun + 1) - begun
            leave_out(lines[bad - 1], error)
            reader.line, lines = begun + bad, lines[bad:]

    with _signals() as waiting:
        rest, ending, error = b"", b"", None
        try:
            while error is None and waiting.signal is None:
                ready = waiting.read(source)
                if ready is None:
                    break
                text = rest + ready
                ending = ending or _ending(text)
                *lines, rest = text.split(ending or b"\n")
                if len(rest) > _LONGEST_LINE:
                    lines, rest = [*lines, rest], b""
                if not ready:
                    lines, rest = [rest], b""
                error = feed(lines)
                if not ready:
                    break
        finally:
            # Whatever ended it: what was written was seen, and is not to be issued again.
            save()
    if error:
        raise error
    return waiting.signal


def _ending(text: bytes) -> bytes:
    """Find what ends a line: a line feed, or a carriage return alone; nothing while unknown."""
    feed, back = text.find(b"\n"), text.find(b"\r")
    if 0 <= back < len(text) - 1 and (feed < 0 or back < feed - 1):
        return b"\r"
    return b"\n" if feed >= 0 else b""


class _Waiting:
    """Read, and be told of signals: at once while nothing is ready, else after what is at hand."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._reading = False

    def read(self, source: Source) -> bytes | None:
        """Return bytes, none at the end; None when a signal came."""
        try:
            self._reading = True
            return None if self.signal else source.read1(_READ)
        except InterruptedError:
            return None
        finally:
            self._reading = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; a second one ends everything at once."""
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        if self._reading:
            raise InterruptedError


@contextmanager
def _signals() -> Generator[_Waiting]:
    waiting = _Waiting()
    if threading.current_thread() is not threading.main_thread():
        yield waiting
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, waiting.note) for number in numbers}
    try:
        yield waiting
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
