"""Covariates as numbers for a model: scaled on training rows like the variates, or coded by level.

Past covariates are numbers and categorical columns of the rows before a forecast. What is known in
advance is read before and behind it: declared columns, and the holidays of a region. Static columns
belong to a series as a whole. A missing cell stands for the mean, 0 in scaled space.

Letters: N rows of all series, S series, H horizon, P past covariates, K covariates known in
advance, G static features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from forecast.errors import DataError
from forecast.series.holidays import holiday_indicator
from forecast.series.scaling import Scaler
from forecast.tables.columns import listed
from forecast.tables.reading import Table

# Of a static column of numbers its mean and deviation over the series, of one of words its levels.
StaticCode = tuple[float, float] | tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Covariates:
    """How the covariates of a table become numbers.

    Attributes:
        scaler: of the P + K columns of numbers, each series by itself.
        static: the code of each static column.
        holidays: the region whose holidays are one more covariate known in advance.
    """

    scaler: Scaler | None = None
    static: Mapping[str, StaticCode] = field(default_factory=dict[str, StaticCode])
    holidays: str | None = None

    @classmethod
    def fit(cls, table: Table, ends: np.ndarray, holidays: str | None) -> Covariates:
        """Fit on the first `ends[s]` rows of each series; static columns on all series."""
        numbers = _numbers(table)
        scaler = Scaler.fit(numbers, table.offsets, ends, table.ids) if numbers.shape[1] else None
        static = {name: _static_code(column) for name, column in table.static.items()}
        return cls(scaler=scaler, static=static, holidays=holidays)

    @classmethod
    def from_dict(
        cls, scaler: Scaler | None, static: Mapping[str, Sequence[Any]], holidays: str | None
    ) -> Covariates:
        """Rebuild it from what an artefact holds."""
        codes = {name: tuple(code) for name, code in static.items()}
        return cls(scaler=scaler, static=codes, holidays=holidays)

    def for_series(self, table: Table, starts: np.ndarray, counts: np.ndarray) -> Covariates:
        """Pick those of a table's series; a new one is scaled by `counts[s]` rows of its own.

        Args:
            table: the table.
            starts: the row of the table at which these rows begin, for each series.
            counts: how many they are.
        """
        if self.scaler is None:
            return self
        numbers = _numbers(table)
        contexts = [
            numbers[start : start + count] for start, count in zip(starts, counts, strict=True)
        ]
        return replace(self, scaler=self.scaler.for_series(table.ids, contexts))

    def past(self, table: Table) -> Float[np.ndarray, "N P"]:
        """Return the past covariates of every row: categorical columns by level, then numbers."""
        coded = [
            codes[:, None] == np.arange(len(levels))
            for codes, levels in zip(table.categories.T, table.layout.levels.values(), strict=True)
        ]
        return np.hstack([*coded, self._scaled(table)[:, : table.past.shape[1]]], dtype=np.float32)

    def known(self, table: Table) -> Float[np.ndarray, "N K"]:
        """Return what is known in advance of every row: numbers, then holidays."""
        scaled = self._scaled(table)[:, table.past.shape[1] :]
        return self._with_holidays(scaled, table.times, table.layout.timezone)

    def known_ahead(
        self, values: Float[np.ndarray, "S H K"], times: np.ndarray, table: Table
    ) -> Float[np.ndarray, "S H K"]:
        """Return what is known in advance of the rows to be forecast.

        Args:
            values: the columns as they are in the table; none missing.
            times: their `(S, H)` times.
            table: the history they continue.
        """
        if self.scaler is not None:
            columns = slice(table.past.shape[1], None)
            mean, deviation = self.scaler.mean[:, None], self.scaler.deviation[:, None]
            values = (values - mean[..., columns]) / deviation[..., columns]
        flat = values.reshape(times.size, values.shape[2])
        marked = self._with_holidays(flat, times.reshape(-1), table.layout.timezone)
        return marked.reshape(*times.shape, -1)

    def of_series(self, table: Table) -> Float[np.ndarray, "S G"]:
        """Return the static features of every series.

        Raises:
            DataError: a level is new to the model.
        """
        coded = [_coded(name, table.static[name], code) for name, code in self.static.items()]
        return np.hstack([np.empty((len(table.ids), 0)), *coded], dtype=np.float32)

    def _scaled(self, table: Table) -> np.ndarray:
        numbers = _numbers(table)
        if self.scaler is None:
            return numbers
        return np.nan_to_num(self.scaler.apply(numbers, table.offsets), nan=0.0)

    def _with_holidays(
        self, values: np.ndarray, times: np.ndarray, timezone: str | None
    ) -> Float[np.ndarray, "N K"]:
        marked = [values]
        if self.holidays is not None:
            marked.append(holiday_indicator(times, self.holidays, timezone)[:, None])
        return np.hstack(marked, dtype=np.float32)


def _numbers(table: Table) -> np.ndarray:
    return np.hstack([table.past, table.known])


def _static_code(column: pl.Series) -> StaticCode:
    if column.dtype == pl.String:
        return tuple(column.drop_nulls().unique().sort())
    values = column.drop_nulls().to_numpy()
    if not len(values):
        return 0.0, 1.0
    return float(values.mean()), float(values.std()) or 1.0


def _coded(name: str, column: pl.Series, code: StaticCode) -> np.ndarray:
    words = [level for level in code if isinstance(level, str)]
    if len(words) < len(code):
        mean, deviation = map(float, code)
        numbers = column.cast(pl.Float64, strict=False).to_numpy()
        return np.nan_to_num((numbers - mean) / deviation, nan=0.0)[:, None]
    column = column.cast(pl.String)
    new = column.drop_nulls().filter(~column.drop_nulls().is_in(words))
    if len(new):
        raise DataError(
            f"The level {new[0]!r} is new to the model, which knows {listed(words)}.",
            column=name,
            hint="Mend the cells, leave them empty, or train again.",
        )
    return column.to_numpy()[:, None] == np.array(words, dtype=object)
