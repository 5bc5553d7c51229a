"""The last rows of every series, kept while the pieces of a table go by.

Only rows on which a forecast can rest are kept: those on the last steps of their series so far,
with a fill the last value before them, and what is known in advance behind them. Newer rows of a
series drive older ones out, so that what is kept does not grow with the rows of a series, in
whatever order they come.

Letters: n rows, S series, C variates.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from forecast.errors import DataError, Failure
from forecast.series.bulk.pieces import Piece, Rows, mixed, understand
from forecast.series.bulk.sources import Reading, Source
from forecast.tables import times
from forecast.tables.dialect import Cells
from forecast.tables.frequency import FIXED, Frequency
from forecast.tables.numbers import decimal_mark

# Before all times, and far enough from the least integer to be reckoned with.
_NEVER = int(np.iinfo(np.int64).min) // 2
# The kept rows are sifted again when more than this and twice those left by the last time came.
_MORE_ROWS = 1 << 18


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kept(Cells):
    """Rows of several files."""

    sources: np.ndarray
    files: tuple[str, ...]

    def error(
        self, message: str, *, row: int | None = None, column: str | None = None, hint: str = ""
    ) -> DataError:
        """Make the error for a row, in the name of its own file."""
        file = self.file if row is None else self.files[int(self.sources[row])]
        line = None if row is None else int(self.lines[row])
        return DataError(message, hint=hint, file=file, row=line, column=column)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tails:
    """The last rows of all series, series after series in the order of their ids.

    Attributes:
        ids: the S ids, sorted.
        starts: `(S + 1,)` the first row of each series.
        spread: `(S,)` the step of which all distances between the rows of a series are multiples,
            rows that were not kept included; 0 of a single row.
        counts: `(S,)` how many rows each has, those that were not kept included.
        rows: the rows; those of a series in the order in which they came.
        failed: what is wrong with the series that could not be read.
        reading: how they are read, the zone and the decimal mark settled for all.
        time_format: the format of the times, if they are text.
        delimiter: that of the first file.
        files: the names of the files.
    """

    ids: list[str]
    starts: np.ndarray
    spread: np.ndarray
    counts: np.ndarray
    rows: Rows
    failed: dict[str, Failure]
    reading: Reading
    time_format: str | None
    delimiter: str
    files: tuple[str, ...]

    def cells(self, start: int, stop: int) -> Cells:
        """Return the rows of the series from `start` up to `stop`."""
        first, last = self.starts[start], self.starts[stop]
        key, _ = self.reading.keys
        names = pl.Series(key, self.ids[start:stop], dtype=pl.String)
        column = names.gather(self.rows.series[first:last] - start)
        return _Kept(
            frame=self.rows.frame[first:last].insert_column(0, column),
            lines=self.rows.lines[first:last],
            file=self.files[0] if len(self.files) == 1 else f"{len(self.files)} files",
            digest="",
            delimiter=self.delimiter,
            sources=self.rows.sources[first:last],
            files=self.files,
        )

    def without(self, failed: Mapping[str, Failure]) -> Tails:
        """Leave out the series of these ids."""
        if not failed:
            return self
        stays = np.array([name not in failed for name in self.ids], np.bool_)
        sizes = np.diff(self.starts)[stays]
        rows = self.rows.take(np.flatnonzero(stays[self.rows.series]))
        return replace(
            self,
            ids=list(itertools.compress(self.ids, stays)),
            starts=np.append(0, np.cumsum(sizes)),
            spread=self.spread[stays],
            counts=self.counts[stays],
            rows=replace(rows, series=np.repeat(np.arange(len(sizes)), sizes)),
            failed={**self.failed, **failed},
        )


def scan(sources: Sequence[Source], reading: Reading, frequency: str, window: int) -> Tails:
    """Read all inputs, and keep the last rows of every series.

    Args:
        sources: the inputs.
        reading: how to read them.
        frequency: the step of the series.
        window: how many steps back a forecast looks.

    Raises:
        DataError: if an input is no such table, or no series can be read.
    """
    step = Frequency.parse(frequency)
    if reading.options.timezone is not None and not step.on_local_clock:
        # In the hour that a clock shows twice a single row may be taken for the other one.
        window += -(-2 * FIXED["h"] // step.count)
    keeper = _Keeper(
        window=window,
        hold=reading.options.fill in ("hold", "linear"),
        ahead=bool(reading.options.known_future),
    )
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    for source, piece in _in_order(_jobs(sources, reading, step), workers):
        source.rows += piece.height
        keeper.add(piece, reading.keys[1])
    return keeper.finish(reading, tuple(source.name for source in sources))


def _jobs(
    sources: Sequence[Source], reading: Reading, step: Frequency
) -> Iterator[Callable[[], tuple[Source, Piece]]]:
    for number, source in enumerate(sources):
        for make in source.pieces(reading):
            yield lambda source=source, make=make, number=number: (
                source,
                understand(make(), reading, step, number),
            )


def _in_order(
    jobs: Iterator[Callable[[], tuple[Source, Piece]]], workers: int
) -> Iterator[tuple[Source, Piece]]:
    """Do jobs side by side, a few ahead, and yield what they give in their order."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[tuple[Source, Piece]]] = deque()
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass(kw_only=True, slots=True)
class _Keeper:
    """Keep the last rows of every series so far.

    Attributes:
        window: how many steps back from its last row a series is kept.
        hold: whether the last value before the window is kept too.
        ahead: whether rows behind the last value say what is known in advance, and are kept.
        numbers: the number of each id, in the order in which they came.
        newest: `(S,)` the ordinal of the last row of each series; with `ahead`, of its last value.
        origin: `(S,)` that of the row that came first.
        spread: `(S,)` the greatest common divisor of all distances from it.
        counts: `(S,)` how many rows came.
        parts: the kept rows, in the order in which they came.
        left: how many were left when they were last sifted.
    """

    window: int
    hold: bool
    ahead: bool
    numbers: dict[str, int] = field(default_factory=dict[str, int])
    newest: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    origin: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    spread: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    counts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    parts: list[Rows] = field(default_factory=list[Rows])
    left: int = 0
    failed: dict[str, Failure] = field(default_factory=dict[str, Failure])
    zones: set[str | None] = field(default_factory=set[str | None])
    examples: list[pl.Series] = field(default_factory=list[pl.Series])
    delimiter: str = ""
    commas: bool = False

    def add(self, piece: Piece, time: str) -> None:
        """Go on with a piece; `time` is the column of times."""
        self.failed = piece.failed | self.failed
        self.zones |= piece.zones
        self.delimiter = self.delimiter or piece.delimiter
        self.commas |= piece.commas
        if not piece.rows.frame.height:
            return
        if self.examples and self.examples[0].dtype != piece.examples.dtype:
            raise mixed()
        self.examples.append(piece.examples)
        numbers = np.array([self.numbers.setdefault(name, len(self.numbers)) for name in piece.ids])
        self._grow(len(self.numbers))
        rows = replace(piece.rows, series=numbers[piece.rows.series])
        counted = rows.take(np.flatnonzero(rows.observed.any(axis=1))) if self.ahead else rows
        np.maximum.at(self.newest, counted.series, counted.ordinals)
        self._measure(rows)
        rows = self._sift(rows)
        text = pl.col(time).cast(pl.String) if piece.examples.dtype == pl.String else pl.col(time)
        self.parts.append(replace(rows, frame=rows.frame.with_columns(text)))
        if sum(len(part.series) for part in self.parts) > 2 * self.left + _MORE_ROWS:
            self.parts = [self._sift(Rows.join(self.parts))]
            self.left = len(self.parts[0].series)

    def finish(self, reading: Reading, files: tuple[str, ...]) -> Tails:
        """Return the kept rows, series after series."""
        if not self.parts:
            first = next(iter(self.failed.values()), Failure(id="", reason="There is no row."))
            raise DataError(first.reason, hint=first.hint)
        if None in self.zones and len(self.zones) > 1:
            raise DataError(
                "Some times have an offset from UTC, others have none.",
                file=files[0] if len(files) == 1 else None,
                hint="Write all times with their offset, or all without.",
            )
        zone = self.zones.pop() if len(self.zones) == 1 else "UTC"
        examples = pl.concat(self.examples).unique(maintain_order=True)
        stamps = times.parse(
            Cells(frame=examples.to_frame(), lines=np.arange(len(examples)), file="", digest=""),
            examples.name,
            date_format=reading.options.date_format,
            timezone=zone,
            prove=False,
        )
        rows = self._sift(Rows.join(self.parts))
        self.parts = []
        values = Cells(
            frame=rows.frame.select(reading.columns),
            lines=rows.lines,
            file="",
            digest="",
            commas=self.commas,
        )
        options = replace(
            reading.options, timezone=zone, decimal=decimal_mark(values, reading.options.decimal)
        )
        ids = sorted(self.numbers)
        numbers = np.array([self.numbers[name] for name in ids])
        place = np.empty(len(ids), np.int64)
        place[numbers] = np.arange(len(ids))
        series = place[rows.series]
        order = np.argsort(series, kind="stable")
        sizes = np.bincount(series, minlength=len(ids))
        tails = Tails(
            ids=ids,
            starts=np.append(0, np.cumsum(sizes)),
            spread=self.spread[numbers],
            counts=self.counts[numbers],
            rows=replace(rows.take(order), series=series[order]),
            failed={},
            reading=replace(reading, options=options),
            time_format=stamps.form,
            delimiter=self.delimiter,
            files=files,
        )
        return tails.without(self.failed)

    def _grow(self, count: int) -> None:
        more = count - len(self.newest)
        if more:
            self.newest = np.append(self.newest, np.full(more, _NEVER))
            self.origin = np.append(self.origin, np.full(more, _NEVER))
            self.spread = np.append(self.spread, np.zeros(more, np.int64))
            self.counts = np.append(self.counts, np.zeros(more, np.int64))

    def _measure(self, rows: Rows) -> None:
        """Bring counts and spread up to date."""
        self.counts += np.bincount(rows.series, minlength=len(self.counts))
        fresh = np.flatnonzero(self.origin[rows.series] == _NEVER)[::-1]
        # Of several rows the last assignment wins, so they go in backwards.
        self.origin[rows.series[fresh]] = rows.ordinals[fresh]
        steps = rows.ordinals - self.origin[rows.series]
        # A neighbour settles its series at once; few series have none, and need the slow way.
        self.spread[rows.series[np.abs(steps) == 1]] = 1
        rest = np.flatnonzero(self.spread[rows.series] != 1)
        np.gcd.at(self.spread, rows.series[rest], steps[rest])

    def _sift(self, rows: Rows) -> Rows:
        """Leave the rows on which a forecast can rest."""
        recent = rows.ordinals > self.newest[rows.series] - self.window
        if not self.hold:
            return rows.take(np.flatnonzero(recent))
        wanted = recent.copy()
        for observed in rows.observed.T:
            older = np.flatnonzero(~recent & observed)
            latest = np.full(len(self.newest), _NEVER)
            np.maximum.at(latest, rows.series[older], rows.ordinals[older])
            wanted[older] |= rows.ordinals[older] == latest[rows.series[older]]
        return rows.take(np.flatnonzero(wanted))
