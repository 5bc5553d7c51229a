"""Earlier rows put before those of a table: all history, and then what is new.

Letters: N rows of all series, S series.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from forecast.errors import DataError
from forecast.tables import reading
from forecast.tables.formats import shown
from forecast.tables.frequency import Frequency, past_times
from forecast.tables.reading import Table
from forecast.tables.zones import to_local

# A longer gap is a file that does not belong to the other, or a mistyped time.
_LONGEST_GAP = 10_000


def put_before(table: Table, history: Table) -> Table:
    """Put the rows that a history has of each series before those of a table.

    Of rows that both have those of the table count, and rows between the two are missing. Series
    that only the history has are left out.

    Args:
        table: the new rows; what it says of series as a whole holds.
        history: a table of the same layout and frequency.

    Raises:
        DataError: the two have no series in common, or do not stand on one grid.
    """
    places = {name: place for place, name in enumerate(history.ids)}
    parts: list[Table] = []
    missing = unknown = 0
    for number, name in enumerate(table.ids):
        own = _series(table, number)
        if name not in places:
            parts.append(own)
            unknown += 1
            continue
        earlier = _series(history, places[name])
        cut = int(np.searchsorted(earlier.times, own.times[0]))
        if cut:
            gap = _gap(earlier.times[cut - 1], own.times[0], table, name)
            missing += gap
            own = _joined(earlier, cut, gap, own)
        parts.append(own)
    if unknown == len(table.ids):
        raise DataError(
            f"The history has none of the {unknown} series of the table, {table.ids[0]!r} first.",
            hint="Name the history of these series, or leave it out.",
        )
    whole = reading.join(parts)
    notices = [*table.notices, *history.notices]
    if missing:
        notices.append(f"{missing:,} rows are missing between the history and the table.")
    if unknown:
        notices.append(f"{unknown} of {len(table.ids)} series have no rows in the history.")
    return replace(whole, ids=table.ids, static=table.static, notices=tuple(notices))


def _series(table: Table, number: int) -> Table:
    """Take one series."""
    rows = slice(*table.offsets[number : number + 2])
    ahead = slice(*table.ahead_offsets[number : number + 2])
    return replace(
        table,
        times=table.times[rows],
        values=table.values[rows],
        categories=table.categories[rows],
        past=table.past[rows],
        known=table.known[rows],
        offsets=np.array([0, rows.stop - rows.start]),
        ahead=table.ahead[ahead],
        ahead_offsets=np.array([0, ahead.stop - ahead.start]),
        ids=table.ids[number : number + 1],
        static={name: part[number : number + 1] for name, part in table.static.items()},
    )


def _gap(last: np.datetime64, first: np.datetime64, table: Table, name: str) -> int:
    """Return how many rows are missing between two times of a series.

    Raises:
        DataError: they are not of one grid, or lie too far apart.
    """
    step = Frequency.parse(table.frequency)
    zone = table.layout.timezone
    times = np.array([last, first], "datetime64[us]")
    ordinals, phases = step.split(to_local(times, zone if step.on_local_clock else None))
    gap = int(ordinals[1] - ordinals[0]) - 1
    of_series = f" of series {name!r}" if name else ""
    ends, begins = (shown(time) for time in to_local(times, zone))
    if phases[0] != phases[1]:
        raise DataError(
            f"The history{of_series} has a row at {ends}, which is not a whole number of steps "
            f"({table.frequency}) before {begins}, where the table begins.",
            hint="Bring both onto the same grid.",
        )
    if gap > _LONGEST_GAP:
        raise DataError(
            f"The history{of_series} ends at {ends}, {gap:,} rows before {begins}, where the table "
            f"begins; at most {_LONGEST_GAP:,} may be missing.",
            hint="Bring the rows between, or leave the history out: it says little of what is now.",
        )
    return gap


def _joined(earlier: Table, cut: int, gap: int, later: Table) -> Table:
    """Put the first rows of a series and a gap before later rows."""

    def rows(name: str, empty: float) -> np.ndarray:
        before, after = getattr(earlier, name)[:cut], getattr(later, name)
        between = np.full((gap, *after.shape[1:]), empty, after.dtype)
        return np.concatenate([before, between, after])

    absent = past_times(later.times[0], later.frequency, gap, later.layout.timezone)
    parts = {"values": np.nan, "categories": -1, "past": np.nan, "known": np.nan}
    times = np.concatenate([earlier.times[:cut], absent, later.times])
    return replace(
        later,
        times=times,
        **{name: rows(name, empty) for name, empty in parts.items()},
        offsets=np.array([0, len(times)]),
    )
