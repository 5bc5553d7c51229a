"""A stream from standard input to standard output, as `forecast stream` runs it."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from forecast import atomic, locks, outputs
from forecast.errors import DataError, UsageError
from forecast.series.forecaster import Forecaster
from forecast.series.stream.engine import Counts, Gap, Streamer
from forecast.series.stream.pump import Source, pump

STOP, SKIP = "stop", "skip"


@dataclass(frozen=True, kw_only=True, slots=True)
class Streamed:
    """What became of a stream.

    Attributes:
        counts: of rows and forecasts.
        bad: rows that were left out.
        first: why the first of them was.
        signal: the signal that ended it; None at the end of the rows.
    """

    counts: Counts
    bad: int
    first: str
    signal: int | None


def run_stream(
    forecaster: Forecaster,
    source: Source,
    write: Callable[[bytes], object],
    *,
    state: str | Path | None = None,
    every: int = 1,
    horizon: int | None = None,
    gap: Gap = "hold",
    bad_rows: Literal["stop", "skip"] | str = STOP,
    save_every: int = 10_000,
    device: str = "auto",
    safe_ids: bool = False,
    tell: Callable[[str], object] = lambda _: None,
) -> Streamed:
    """Forecast rows as they arrive, until they end or a signal comes.

    Args:
        forecaster: of series.
        source: lines of CSV or JSON.
        write: writes bytes and flushes them.
        state: go on from this file if it is there, and save the state to it; one stream at a time.
        every: rows of a series from one forecast to the next.
        horizon: rows to forecast; None for all that the model can.
        gap: what stands in for missing rows: the last values, nothing, or an error.
        bad_rows: what becomes of rows that cannot be read or taken in: `stop` ends the stream at
            the first, `skip` leaves them out, any other text is a file for them and the reasons.
        save_every: rows from one time of saving the state to the next.
        device: where to run.
        safe_ids: put an apostrophe before ids that a spreadsheet takes for formulas, in CSV.
        tell: takes sentences for the user.

    Raises:
        UsageError: another stream holds the state, or it belongs to another model.
        DataError: a row is bad, or a file cannot be written.
    """
    place = None if state is None else outputs.check_file(state, option="--state")
    aside = None if bad_rows in (STOP, SKIP) else outputs.check_file(bad_rows, option="--bad-rows")
    if place and aside and place.resolve() == aside.resolve():
        raise UsageError(
            f"{place} cannot be both the state and the file of bad rows.", hint="Name two files."
        )
    with contextlib.ExitStack() as stack:
        if place:
            lock = place.resolve().with_name(f".{place.resolve().name}.lock")
            stack.enter_context(locks.exclusive(lock, f"the state {place}"))
        bad = stack.enter_context(_BadRows.opened(aside)) if bad_rows != STOP else None
        streamer = Streamer(
            forecaster,
            every=every,
            horizon=horizon,
            gap=gap,
            device=device,
            leave_out=bad.note if bad else None,
        )
        if place and place.exists():
            streamer.resume(place)
            tell(f"Going on from {place}: {len(streamer):,} series.")
        try:
            caught = pump(
                streamer,
                source,
                write,
                state=place,
                save_every=save_every,
                safe_ids=safe_ids,
                leave_out=None if bad is None else lambda line, error: bad.note(error, line),
            )
        finally:
            for name, count in streamer.counts.named():
                if count or name in ("rows", "forecasts"):
                    tell(f"{name.replace('_', ' ')}: {count:,}")
            if bad and bad.count:
                tell(f"bad rows: {bad.count:,}")
        return Streamed(
            counts=streamer.counts,
            bad=bad.count if bad else 0,
            first=bad.first if bad else "",
            signal=caught,
        )


@dataclass(kw_only=True, slots=True)
class _BadRows:
    """Count rows that are left out, and write them to a file if there is one."""

    count: int = 0
    first: str = ""
    writer: Callable[[list[str]], object] | None = None

    @classmethod
    @contextmanager
    def opened(cls, path: Path | None) -> Generator[_BadRows]:
        if path is None:
            yield cls()
            return
        with atomic.naming(path), path.open("a", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream)
            if stream.tell() == 0:
                rows.writerow(["row", "reason", "text"])

            def write(cells: list[str]) -> None:
                rows.writerow(cells)
                stream.flush()

            yield cls(writer=write)

    def note(self, error: DataError, line: bytes = b"") -> None:
        self.count += 1
        self.first = self.first or error.message
        if self.writer:
            text = line.decode(errors="replace").rstrip("\r\n")
            self.writer([str(error.row or ""), error.message, text])


def memory_of(forecaster: Forecaster, device: str = "auto") -> tuple[int, int]:
    """Return the bytes that the state of a series takes, and the rows for which it is cold."""
    streamer = Streamer(forecaster, device=device)
    return streamer.bytes_per_series, streamer.model.context
