"""Clocks: between UTC and the local time of a zone, both as `datetime64[us]`.

A zone is an IANA name (`Europe/Berlin`) or a fixed offset (`+01:00`). None stands for times whose
zone nobody stated: they stay as they are.
"""

from __future__ import annotations

import re
import zoneinfo
from typing import Literal

import numpy as np
import polars as pl

from forecast.errors import UsageError, nearest

HOUR = np.timedelta64(3_600_000_000, "us")
_FIXED = re.compile(r"([+-])(\d{2}):(\d{2})")


def check_zone(zone: str) -> None:
    """Refuse a zone that does not exist.

    Raises:
        UsageError: if it is neither an IANA name nor an offset.
    """
    if _fixed_offset(zone) is not None:
        return
    try:
        zoneinfo.ZoneInfo(zone)
        _aware(np.zeros(1, "datetime64[us]")).dt.convert_time_zone(zone)
    except (
        ValueError,
        OSError,
        zoneinfo.ZoneInfoNotFoundError,
        pl.exceptions.PolarsError,
    ) as error:
        raise UsageError(
            f"There is no time zone {zone!r}; it is written as Europe/Berlin or +01:00.",
            hint=_similar(zone),
        ) from error


def to_local(times: np.ndarray, zone: str | None) -> np.ndarray:
    """Turn UTC into the local clock of a zone."""
    if zone is None or zone == "UTC":
        return times
    offset = _fixed_offset(zone)
    if offset is not None:
        return times + offset
    local = _aware(times).dt.convert_time_zone(zone).dt.replace_time_zone(None)
    return local.to_numpy()


def to_utc(clock: np.ndarray, zone: str | None) -> np.ndarray:
    """Turn a local clock into UTC.

    An hour that the clock shows twice stands for the first, one that it skips for the next.
    """
    if zone is None:
        return clock
    times = strict_utc(clock, zone, "earliest")
    absent = np.isnat(times)
    if absent.any():
        times[absent] = strict_utc(clock[absent] + HOUR, zone, "earliest")
    return times


def strict_utc(
    clock: np.ndarray, zone: str, ambiguous: Literal["earliest", "latest", "null"]
) -> np.ndarray:
    """Turn a local clock into UTC; times that the clock never shows become NaT."""
    offset = np.timedelta64(0, "us") if zone == "UTC" else _fixed_offset(zone)
    if offset is not None:
        return clock - offset
    local = pl.Series(clock).dt.replace_time_zone(zone, ambiguous=ambiguous, non_existent="null")
    # A copy, because the caller may fill what is missing and the memory may be polars'.
    return local.dt.convert_time_zone("UTC").dt.replace_time_zone(None).to_numpy().copy()


def aware(times: np.ndarray, zone: str) -> pl.Series:
    """Return UTC times as a polars column that knows its zone."""
    return _aware(times).dt.convert_time_zone(zone)


def _aware(times: np.ndarray) -> pl.Series:
    return pl.Series(times).dt.replace_time_zone("UTC")


def _fixed_offset(zone: str) -> np.timedelta64 | None:
    match = _FIXED.fullmatch(zone)
    if match is None:
        return None
    minutes = int(match[2]) * 60 + int(match[3])
    return np.timedelta64(-minutes if match[1] == "-" else minutes, "m")


def _similar(zone: str) -> str:
    """Name the zone that is meant: by its whole name or its last part, `berlin` for example."""
    known = {name.lower(): name for name in zoneinfo.available_timezones() if "/" in name}
    known |= {name.split("/")[-1]: full for name, full in known.items()}
    hint = nearest(zone, known)
    word = re.search(r"'(.+)'", hint)
    return f"Did you mean {known[word[1]]!r}?" if word else "Look it up in the IANA list of zones."
