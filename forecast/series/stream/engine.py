"""The engine: takes rows in, in batches across series, and issues forecasts.

Letters: S series, B batch, H horizon, C variates, n rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

import forecast
from forecast.batch import tiled_rows
from forecast.device import choose_device, memory_errors
from forecast.errors import DataError, UsageError
from forecast.models import building
from forecast.models.protocols import Stateful
from forecast.series.calendar import calendar_features
from forecast.series.forecaster import Forecaster
from forecast.series.rolling_origin import carries_state
from forecast.series.scaling import Scaler, moments, rounded
from forecast.series.stream.rows import Issued, Rows
from forecast.series.stream.store import SPARE, Book, Store
from forecast.series.stream.window import RollingWindow, weight_of
from forecast.tables import formats
from forecast.tables.frequency import Frequency
from forecast.tables.zones import to_utc

Gap = Literal["hold", "nan", "refuse"]
FORMAT = 2
# Series stepped at once: what is in use besides their state stays small.
_MOST = 4_096
# A longer gap is a mistyped time.
_LONGEST_GAP = 10_000


@dataclass(kw_only=True, slots=True)
class Counts:
    """Count what came and what became of it.

    Attributes:
        rows: taken in.
        forecasts: issued.
        missing_rows: taken in between those, as `gap` says.
        missing_cells: of the rows taken in.
        duplicates: rows left out because their time is that of the row before.
        late: rows left out because their time lies before that of the row before.
        replayed: rows left out because the resumed state has seen them.
        new_series: series that were not in the training data.
    """

    rows: int = 0
    forecasts: int = 0
    missing_rows: int = 0
    missing_cells: int = 0
    duplicates: int = 0
    late: int = 0
    replayed: int = 0
    new_series: int = 0

    def named(self) -> list[tuple[str, int]]:
        """Return each count with its name."""
        return list(asdict(self).items())


class Streamer:
    """Carry the state of many series, take their rows in and forecast.

    A series that was not in the training data is scaled by its own rows so far, see `scaling`.

    Args:
        forecaster: the trained model; of one that does not stream the window is carried.
        every: rows of a series from one forecast to the next.
        horizon: steps to forecast, at most those of the model; None for all.
        gap: what stands in for missing rows: the last values, nothing, or an error.
        device: where to run.
        leave_out: takes the errors of rows that cannot be taken in, which are left out; without it
            the first one ends a `push`.
    """

    def __init__(
        self,
        forecaster: Forecaster,
        *,
        every: int = 1,
        horizon: int | None = None,
        gap: Gap = "hold",
        device: str = "auto",
        leave_out: Callable[[DataError], object] | None = None,
    ) -> None:
        self._leave_out = leave_out
        spec = forecaster.spec
        if horizon is not None and horizon > spec.horizon:
            raise UsageError(
                f"The model forecasts {spec.horizon} rows, not {horizon}.",
                hint=f"Ask for {spec.horizon} at most, or train with a longer horizon.",
            )
        self.forecaster, self.every, self.gap = forecaster, every, gap
        self.horizon, self.counts = horizon or spec.horizon, Counts()
        self._device = choose_device(device)
        model = forecaster.model.to(self._device).eval()
        self._windowed = not carries_state(model)
        if forecaster.layout.joint:
            raise UsageError(
                "The model forecasts the series of its long table together, row by row; a stream "
                "brings them one by one.",
                hint="Stream a wide table, or train on the long one with data.joint = false.",
            )
        if self._windowed and (spec.past_covariates or spec.known_future or spec.static):
            raise UsageError(
                "The model reads covariates; of a stream only the values to forecast are read.",
                hint="Train it without covariates to stream it.",
            )
        streaming = RollingWindow(model, spec) if self._windowed else model
        self.model = cast(Stateful, streaming)
        self._store = Store(self.model, spec.variates)
        self._scale = _Scale(forecaster.scaler, self._store.book, windowed=self._windowed)
        self._step = Frequency.parse(spec.frequency)
        self._zone = forecaster.layout.timezone if self._step.on_local_clock else None

    def __len__(self) -> int:
        """Return the number of series (S)."""
        return len(self._store)

    @property
    def bytes_per_series(self) -> int:
        """Return the memory that the state of one series takes."""
        return self._store.bytes_per_series

    def push(self, rows: Rows) -> tuple[Issued, DataError | None]:
        """Take rows in, in the order in which they came.

        Returns:
            The forecasts, in that order too; and the error of a row that could not be taken in:
            then neither was its batch, nor any later one.
        """
        places = self._place(rows.ids)
        waves: list[_Wave] = []
        error = None
        with torch.no_grad(), memory_errors("streaming", _MOST):
            for wave in _waves(places):
                try:
                    waves.append(self._take(places[wave], rows, wave))
                except DataError as problem:
                    error = problem
                    break
        return self._issue(rows, waves), error

    def save(self, path: Path) -> None:
        """Write the state of all series, whole or not at all."""
        self._store.save(path, self._identity())

    def resume(self, path: Path) -> None:
        """Go on from a saved state.

        Raises:
            UsageError: it belongs to another model, version, precision or frequency.
            DataError: the file is damaged.
        """
        self._store.resume(path, self._identity())
        self._scale.add(self._store.names)

    def _identity(self) -> dict[str, str]:
        model, spec = self.forecaster.model, self.forecaster.spec
        digest = hashlib.sha256(building.weights_digest(model).encode())
        scaler = self.forecaster.scaler
        digest.update(scaler.mean.tobytes() + scaler.deviation.tobytes())
        digest.update(repr((spec, self.forecaster.columns)).encode())
        return {
            "format": str(FORMAT),
            "model": f"{self.forecaster.recipe.model} {digest.hexdigest()[:16]}",
            "version": forecast.__version__,
            "dtype": str(weight_of(model).dtype).removeprefix("torch."),
            "frequency": spec.frequency,
        }

    def _place(self, ids: list[str]) -> Int[np.ndarray, " n"]:
        known = len(self._store)
        places = self._store.place(ids)
        if len(self._store) > known:
            self.counts.new_series += self._scale.add(self._store.names[known:])
        return places

    def _take(self, series: np.ndarray, rows: Rows, wave: np.ndarray) -> _Wave:
        """Take in one row of each of some series, and forecast those that are due."""
        book, counts = self._store.book, self.counts
        ordinals, begun = rows.ordinals[wave], book.rows[series] > 0
        ahead = np.where(begun, ordinals - book.ordinal[series], 1)
        replayed = (ahead <= 0) & (ordinals <= book.resumed[series])
        taken = ahead > 0
        faults = self._faults(series, rows, wave, ahead, begun & taken)
        if faults and self._leave_out is None:
            raise next(iter(faults.values()))
        for place, fault in faults.items():
            cast(Callable[[DataError], object], self._leave_out)(fault)
            taken[place] = False
        counts.replayed += int(replayed.sum())
        counts.duplicates += int(((ahead == 0) & ~replayed).sum())
        counts.late += int(((ahead < 0) & ~replayed).sum())
        series, ordinals, ahead, wave = (part[taken] for part in (series, ordinals, ahead, wave))
        book.phase[series] = rows.phases[wave]
        for missing in range(1, int(ahead.max(initial=1))):
            absent = ahead > missing
            self._fill(series[absent], ordinals[absent] - ahead[absent] + missing)
        values = rows.values[wave]
        counts.rows += len(wave)
        counts.missing_cells += int(np.isnan(values).sum())
        self._scale.observe(series, values)
        if self.forecaster.layout.fill in ("hold", "linear"):
            values = np.where(np.isnan(values), book.latest[series], values)
        values = self._advance(series, ordinals, values)
        due = book.rows[series] % self.every == 0
        series = series[due]
        dead = np.isnan(book.latest[series])[:, None]
        return _Wave(
            rows=wave[due],
            values=np.where(dead, np.nan, self._scale.undo(series, values[due])),
            cold=book.rows[series] < self.model.context,
        )

    def _fill(self, series: np.ndarray, ordinals: np.ndarray) -> None:
        latest = self._store.book.latest[series]
        self._advance(
            series, ordinals, latest if self.gap == "hold" else np.full_like(latest, np.nan)
        )
        self.counts.missing_rows += len(series)

    def _advance(
        self, series: np.ndarray, ordinals: np.ndarray, row: np.ndarray
    ) -> Float[np.ndarray, "B H C"]:
        """Step some series by one row, NaN where a cell is missing; forecast in scaled space."""
        book, seen = self._store.book, np.isfinite(row)
        book.latest[series] = np.where(seen, row, book.latest[series])
        scaled = self._scale.apply(series, row)
        book.ordinal[series] = ordinals
        book.rows[series] += 1
        values = np.empty((len(series), self.horizon, scaled.shape[1]))
        for first in range(0, len(series), _MOST):
            some = slice(first, first + _MOST)
            values[some] = self._forward(
                series[some], np.where(seen, scaled, 0.0)[some], seen[some]
            )
        return values

    def _forward(
        self, series: np.ndarray, x: np.ndarray, seen: Bool[np.ndarray, "B C"]
    ) -> np.ndarray:
        # Filled up to whole tiles, so that a series gets the same bits alone and in any company.
        spare = np.arange(max(SPARE, tiled_rows(len(series))) - len(series))
        padding = ((0, len(spare)), (0, 0))
        rows = np.concatenate([series, spare])
        index = torch.from_numpy(rows).to(self._device)
        mask = None if seen.all() else self._tensor(np.pad(seen, padding))
        state, times = self._store.gather(index), self._calendar(rows)
        if self._windowed and (unit := self._scale.unit(rows)) is not None:
            times["unit"] = self._tensor(unit)
        answer, state = self.model.step(
            self._tensor(np.pad(x, padding).astype(np.float32)), state, mask=mask, **times
        )
        self._store.scatter(index[: len(series)], state)
        return answer.point()[: len(series), : self.horizon].double().cpu().numpy()

    def _calendar(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Return the calendar of the last rows of series, and to windows that of what comes."""
        back, ahead = (
            self.model.calendar_rows,
            self.forecaster.spec.horizon if self._windowed else 0,
        )
        if not back:
            return {}
        ordinals, phases = self._store.book.ordinal[rows], self._store.book.phase[rows]
        times = self._times(ordinals[:, None] + np.arange(1 - back, ahead + 1), phases[:, None])
        features = calendar_features(
            times.reshape(-1),
            self.forecaster.spec.frequency,
            timezone=self.forecaster.layout.timezone,
            marks=self.forecaster.recipe.table.marks,
        )
        marks = self._tensor(features.reshape(*times.shape, -1))
        if not self._windowed:
            return {"time": marks}
        return {"time": marks[:, :back], "future_time": marks[:, back:]}

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _times(self, ordinals: np.ndarray, phases: np.ndarray) -> np.ndarray:
        clock = self._step.join(ordinals, phases)
        return to_utc(clock.reshape(-1), self._zone).reshape(clock.shape)

    def _issue(self, rows: Rows, waves: list[_Wave]) -> Issued:
        """Put the forecasts of waves in the order of their rows."""
        none = _Wave.none(self.horizon, self.forecaster.spec.variates)
        found, values, cold = (np.concatenate(part) for part in zip(none, *waves, strict=True))
        order = found.argsort()
        found = found[order]
        self.counts.forecasts += len(found)
        ordinals, phases = rows.ordinals[found], rows.phases[found]
        ahead = ordinals[:, None] + np.arange(1, self.horizon + 1)
        return Issued(
            ids=[rows.ids[row] for row in found],
            times=self._times(ordinals, phases),
            future=self._times(ahead, phases[:, None]),
            values=values[order],
            cold=cold[order],
        )

    def _faults(
        self,
        series: np.ndarray,
        rows: Rows,
        wave: np.ndarray,
        ahead: np.ndarray,
        begun: np.ndarray,
    ) -> dict[int, DataError]:
        """Find rows off the grid of their series, and gaps that are too long or not allowed.

        Returns:
            The error of each such row, by its place in the wave, in the order of the lines.
        """
        off = begun & (rows.phases[wave] != self._store.book.phase[series])
        found: dict[int, DataError] = {}
        for wrong, what in (
            (off, f"is off the grid of frequency {self.forecaster.spec.frequency} so far"),
            (ahead > _LONGEST_GAP, f"comes more than {_LONGEST_GAP:,} rows after the last one"),
            (
                (ahead > 1) & (self.gap == "refuse"),
                "does not follow on the last one, and --gap refuse allows no gap",
            ),
        ):
            for place in np.flatnonzero(wrong & begun).tolist():
                row = int(wave[place])
                (time,) = self._times(rows.ordinals[row : row + 1], rows.phases[row : row + 1])
                name = f" of series {rows.ids[row]!r}" if rows.ids[row] else ""
                error = DataError(
                    f"The time {formats.shown(time)}{name} {what}.",
                    hint="Mend the row or take it out; the rows before it are taken in. "
                    "--bad-rows skip goes on without such rows.",
                    file="standard input",
                    row=int(rows.lines[row]),
                )
                found.setdefault(place, error)
        return dict(sorted(found.items(), key=lambda one: int(rows.lines[wave[one[0]]])))


class _Wave(NamedTuple):
    """Forecasts issued together: the places of their rows, and the values (B, H, C)."""

    rows: np.ndarray
    values: np.ndarray
    cold: np.ndarray

    @classmethod
    def none(cls, horizon: int, variates: int) -> _Wave:
        return cls(np.empty(0, np.int64), np.empty((0, horizon, variates)), np.empty(0, np.bool_))


class _Scale:
    """Scale the rows of series by their training rows, or of new series by their rows so far.

    Args:
        scaler: of the training data.
        book: what is known of each series of the stream.
        windowed: whether the model reads windows, each of which it scales itself. Of a new series
            they are kept as distances from its first value.
    """

    def __init__(self, scaler: Scaler, book: Book, *, windowed: bool) -> None:
        self._known = {name: row for row, name in enumerate(scaler.ids)}
        # The last row stands for new series.
        self._mean = np.vstack([scaler.mean, np.zeros_like(scaler.mean[:1])])
        self._deviation = np.vstack([scaler.deviation, np.ones_like(scaler.mean[:1])])
        self._book, self._windowed = book, windowed
        self._rows = [0] * SPARE

    def add(self, names: list[str]) -> int:
        """Note the series that come next, and return how many of them are new."""
        new = len(self._mean) - 1
        found = [self._known.get(name, new) for name in names]
        self._rows += found
        return found.count(new)

    def observe(self, series: np.ndarray, values: np.ndarray) -> None:
        """Take the observed cells (B, C) of rows into the sums of new series."""
        _, new = self._of(series)
        series, values = series[new], values[new]
        if not len(series):
            return
        book, seen = self._book, np.isfinite(values)
        book.first[series] = np.where(np.isnan(book.first[series]), values, book.first[series])
        away = np.where(seen, values - book.first[series], 0.0)
        book.count[series] += seen
        book.total[series] += away
        book.square[series] += np.square(away)

    def apply(self, series: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Scale the rows (B, C) of some series."""
        mean, deviation = self._statistics(series)
        return (values - mean) / deviation

    def undo(self, series: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Bring forecasts (B, H, C) back to the units of the data."""
        mean, deviation = self._statistics(series)
        whole = values * deviation[:, None] + mean[:, None]
        return rounded(
            whole, np.where(np.isnan(self._units(series)), deviation, self._own(series)[1])
        )

    def unit(self, series: np.ndarray) -> np.ndarray | None:
        """Return 1 for the variates of new series and NaN for others; None without new ones."""
        units = self._units(series)
        return None if np.isnan(units).all() else units

    def _units(self, series: np.ndarray) -> np.ndarray:
        _, new = self._of(series)
        return np.where(new[:, None], 1.0, np.full((1, self._mean.shape[1]), np.nan))

    def _of(self, series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = np.array([self._rows[place] for place in series], np.int64)
        return rows, rows == len(self._mean) - 1

    def _own(self, series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        book = self._book
        return moments(
            book.first[series], book.count[series], book.total[series], book.square[series]
        )

    def _statistics(self, series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, new = self._of(series)
        mean, deviation = self._mean[rows], self._deviation[rows]
        if new.any():
            fresh = series[new]
            if self._windowed:
                mean[new] = self._book.first[fresh]
            else:
                mean[new], deviation[new] = self._own(fresh)
        return mean, deviation


def _waves(places: Int[np.ndarray, " n"]) -> Iterator[np.ndarray]:
    """Part rows into the first of each series, the second of each, and so on."""
    if not len(places):
        return
    order = places.argsort(kind="stable")
    ordered = places[order]
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    yield from np.split(rank.argsort(kind="stable"), np.bincount(rank).cumsum()[:-1])
