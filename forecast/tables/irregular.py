"""What rows in time order say of their step, and what in them stands in the way of a regular grid.

Each refusal names the first row that is to blame; what can be mended is told as a notice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
import polars as pl

from forecast.errors import DataError
from forecast.tables import formats
from forecast.tables.dialect import Cells
from forecast.tables.frequency import FIXED, NEVER, Frequency, infer
from forecast.tables.times import Stamps

# A grid may hold this many times the rows of its file and this many more, so that one mistyped year
# does not fill the memory.
MOST_TIMES, MOST_MORE = 10, 10_000


@dataclass(kw_only=True, slots=True)
class Rows:
    """The rows of a file on their way to the grid, with the names they have in messages.

    Attributes:
        kept: `(D,)` the rows of the file, one for each distinct time, in the order of the grid.
        inner: `(D - 1,)` whether the next of them belongs to the same series.
        starts: `(S,)` where among them each series begins.
    """

    cells: Cells
    column: str
    stamps: Stamps
    series: np.ndarray
    ids: tuple[str, ...]
    kept: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    inner: np.ndarray = field(default_factory=lambda: np.empty(0, np.bool_))
    starts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    notices: list[str] = field(default_factory=list[str])

    def keep(self, kept: np.ndarray) -> None:
        """Go on with these rows of the file."""
        owner = self.series[kept]
        self.kept, self.inner = kept, owner[1:] == owner[:-1]
        self.starts = np.flatnonzero(np.append(True, ~self.inner))

    def clock(self, step: Frequency) -> np.ndarray:
        """Return the times of the kept rows on the clock that counts the steps."""
        return (self.stamps.clock if step.on_local_clock else self.stamps.times)[self.kept]

    def alias(self, step: Frequency) -> str:
        """Name a step, anchored on the first row."""
        return step.alias(self.clock(step)[0])

    def line(self, row: int) -> int:
        """Return the file line of a row."""
        return int(self.cells.lines[row])

    def named(self, row: int) -> str:
        """Write the time of a row, and its series if there are several."""
        series = f" of series {self.ids[self.series[row]]!r}" if len(self.ids) > 1 else ""
        return formats.shown(self.stamps.clock[row]) + series

    def refuse(self, message: str, row: int, hint: str) -> NoReturn:
        """Raise the error for a row."""
        raise self.cells.error(message, row=row, column=self.column, hint=hint)


def step_of(rows: Rows, expected: str | None) -> Frequency:
    """Take the step that is asked for, or find the one that the rows have.

    Raises:
        DataError: there is none to be found.
        UsageError: the one asked for is unknown.
    """
    if expected is not None:
        return Frequency.parse(expected)
    found = _inferred(rows)
    if found is None:
        raise DataError(
            "No series has two rows, so the step between rows is not known.",
            file=rows.cells.file,
            hint="Name it: set data.frequency to h, D or MS, for example.",
        )
    return found


def _inferred(rows: Rows) -> Frequency | None:
    """Find the step: on the local clock from a day on, else in the time that passes."""
    if not rows.inner.any():
        return None
    times, clock = rows.stamps.times[rows.kept], rows.stamps.clock[rows.kept]
    steps = np.diff(clock).astype(np.int64)[rows.inner]
    # A local clock stands still or runs back where it is set back.
    steps = steps[steps > 0]
    found = infer(clock, steps) if len(steps) else None
    if found is not None and (found.on_local_clock or rows.stamps.zone is None):
        return found
    return infer(times, np.diff(times).astype(np.int64)[rows.inner])


def refuse_off_grid(
    rows: Rows, step: Frequency, phases: np.ndarray, expected: str | None
) -> NoReturn:
    """Name the first row off the grid on which most rows of its series stand."""
    owner = rows.series[rows.kept]
    counted = pl.DataFrame({"series": owner, "phase": phases}).filter(pl.col("phase") != NEVER)
    usual = (
        counted.group_by("series", "phase")
        .len()
        .sort("len", "phase", descending=[True, False])
        .unique("series", keep="first", maintain_order=True)
    )
    most = np.full(len(rows.ids), NEVER)
    most[usual["series"].to_numpy()] = usual["phase"].to_numpy()
    off = (phases != most[owner]) | (phases == NEVER)
    count = np.count_nonzero(off)
    # Every other row is off the grid of an hour when the rows are half an hour apart.
    if expected is not None and 3 * count >= len(off) and _inferred(rows) != step:
        _refuse_frequency(rows, expected)
    row = int(rows.kept[off].min())
    hint = "Mend or drop these rows, or name the step that fits all: set data.frequency."
    if rows.stamps.notices or (rows.stamps.zone is None and not step.on_local_clock):
        hint += " If the clocks were set in between, name the zone: --timezone."
    rows.refuse(
        f"The time {rows.named(row)} is off the regular grid of frequency {rows.alias(step)} on "
        f"which most rows stand; {count:,} of {len(off):,} are.",
        row,
        hint,
    )


def _refuse_frequency(rows: Rows, expected: str) -> NoReturn:
    found = _inferred(rows)
    if found is None or rows.alias(found) == expected:
        row = int(rows.kept[0])
        rows.refuse(
            f"The time {rows.named(row)} is not one of frequency {expected}.",
            row,
            f"Bring rows of frequency {expected}.",
        )
    raise DataError(
        f"The rows have the frequency {rows.alias(found)}, but {expected} is wanted.",
        file=rows.cells.file,
        column=rows.column,
        hint=f"Bring rows of frequency {expected}, or train on these.",
    )


def check_jumps(
    rows: Rows, step: Frequency, jumps: np.ndarray, expected: str | None, whole: bool
) -> None:
    """Separate gaps from another frequency, of which every step of a series is a multiple."""
    still = rows.inner & (jumps == 0)
    if still.any():
        row = int(rows.kept[1:][still].min())
        rows.refuse(
            f"The time {rows.named(row)} falls on the same step of frequency {rows.alias(step)} as "
            "another one.",
            row,
            "Mend or drop the row.",
        )
    if not whole:
        return
    if expected is not None and np.gcd.reduce(jumps[rows.inner]) > 1:
        _refuse_frequency(rows, expected)
    # A series of n rows has n - 1 steps within; the one behind it, to the next series, counts as 0.
    common = np.gcd.reduceat(np.append(np.where(rows.inner, jumps, 0), 0), rows.starts)
    steps = np.diff(np.append(rows.starts, len(rows.kept))) - 1
    other = np.flatnonzero((common > 1) & (steps > 1))
    if len(other):
        series = int(other[0])
        own = Frequency(unit=step.unit, count=step.count * int(common[series]))
        rows.refuse(
            f"Series {rows.ids[series]!r} has the frequency {rows.alias(own)}, most rows have "
            f"{rows.alias(step)}; {len(other):,} of {len(rows.ids):,} series differ so.",
            int(rows.kept[rows.starts[series]]),
            "Give series of another frequency a file of their own.",
        )


def report_gaps(rows: Rows, step: Frequency, jumps: np.ndarray, gaps_allowed: bool) -> None:
    """Return how many rows are missing, and refuse them where they are not allowed or too many."""
    missing = int((jumps - 1).sum())
    if missing > (MOST_TIMES - 1) * len(rows.kept) + MOST_MORE:
        row = int(rows.kept[jumps.argmax()])
        rows.refuse(
            f"{missing:,} rows would be missing between the {len(rows.kept):,} that are there, "
            f"most of them after {rows.named(row)}.",
            row,
            "Look for a mistyped time next to this row, or name the step: set data.frequency.",
        )
    gaps = np.flatnonzero(jumps > 1)
    row = int(rows.kept[gaps[0]])
    found = f"Rows are missing: {missing:,} in {len(gaps):,} gap{'s' * (len(gaps) > 1)}, "
    found += f"the first after row {rows.line(row)} ({rows.named(row)})"
    if not gaps_allowed:
        rows.refuse(f"{found}, and --fill refuse allows none.", row, "Add them, or fill them.")
    rows.notices.append(f"{found}; they were inserted without values.")
    if rows.stamps.zone is None and not step.on_local_clock:
        skipped = rows.stamps.clock[rows.kept[gaps]] + np.timedelta64(step.count, "us")
        hours = (jumps[gaps] - 1) * step.count == FIXED["h"]
        if np.all(hours & early_sunday(skipped)):
            rows.notices.append(
                "An hour missing early on a Sunday looks like clocks being set forward: if the "
                "times are local, name their zone with --timezone."
            )


def early_sunday(clock: np.ndarray) -> np.ndarray:
    """Return which times stand before four on a Sunday, when clocks are set forward or back."""
    days = clock.astype("datetime64[D]")
    hours = (clock - days).astype(np.int64) // FIXED["h"]
    return ((days.astype(np.int64) + 3) % 7 == 6) & (hours < 4)
