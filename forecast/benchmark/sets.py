"""The public benchmark sets: where each configuration's rows come from, its horizon and its season.

Source: GIFT-Eval, arXiv 2410.10393, tables 2 and 13; M3 (Makridakis and Hibon 2000) and tourism
(Athanasopoulos et al. 2011) quarterly. Letters: N series, T rows, H horizon, m season.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from forecast.errors import DataError, NotFoundError, UsageError, nearest

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Set:
    """One configuration, loaded.

    Attributes:
        name: as in the published result files, e.g. `ett1/H/short`.
        values: (N, T), right-aligned, NaN before a series begins, its test rows last.
        horizon: rows of a window (H).
        season: season of the scale (m).
        frequency: rows' distance, by its short name.
        windows: number of test windows.
        variates: the series are variates of one table.
        domain: what the data are about, as the published files say it.
    """

    name: str
    values: Array
    horizon: int
    season: int
    frequency: str
    windows: int
    variates: bool
    domain: str


def number_of_windows(shortest: int, horizon: int) -> int:
    """Test windows of a set whose shortest series has so many rows."""
    return min(max(1, ceil(0.1 * shortest / horizon)), 20)


def _read(path: Path) -> pl.DataFrame:
    if not path.exists():
        raise NotFoundError(
            f"{path} is not there; the benchmark set needs it.",
            hint="Point --data at the folder that holds ett/ and bench/.",
        )
    return pl.read_csv(path)


def _ett(root: Path, number: int, frequency: str) -> Array:
    """Seven variates of a transformer (7, T); hours and days are means of the 15-minute rows."""
    frame = _read(root / "ett" / f"ETTm{number}.csv")
    values = frame.drop("date").to_numpy().astype(np.float64)
    if len(values) != 69_680:
        raise DataError(
            f"ETTm{number}.csv has {len(values)} rows; the published file has 69680.",
            hint="Fetch the file again.",
        )
    each = {"15T": 1, "H": 4, "D": 96}[frequency]
    rows = len(values) // each
    return np.ascontiguousarray(values[: rows * each].reshape(rows, each, -1).mean(1).T)


def _births(root: Path) -> Array:
    values = _read(root / "bench" / "us_births_d.csv")["births"].to_numpy().astype(np.float64)
    return values[None]


def _competition(root: Path, name: str, horizon: int) -> Array:
    """Training and test rows of each series in file order, right-aligned (N, T)."""
    parts = [
        _read(root / "bench" / f"{name}_{part}.csv.gz")
        .group_by("unique_id", maintain_order=True)
        .agg("y")
        for part in ("train", "test")
    ]
    joined = parts[0].join(parts[1], on="unique_id", how="left", maintain_order="left")
    series = [
        np.asarray(past + ahead, dtype=np.float64)
        for past, ahead in zip(joined["y"].to_list(), joined["y_right"].to_list(), strict=True)
        if len(ahead or []) == horizon
    ]
    if len(series) != joined.height:
        raise DataError(
            f"{name}: {joined.height - len(series)} series have no {horizon} test rows.",
            hint="Fetch both files again.",
        )
    longest = max(map(len, series))
    values = np.full((len(series), longest), np.nan)
    for row, one in zip(values, series, strict=True):
        row[longest - len(one) :] = one
    return values


_STEPS = {"short": 1, "medium": 10, "long": 15}
_ETT = {"15T": (48, 96), "H": (48, 24), "D": (30, 1)}


def _ett_set(name: str) -> Callable[[Path], Set]:
    table, frequency, term = name.split("/")
    horizon, season = _ETT[frequency]
    horizon *= _STEPS[term]

    def load(root: Path) -> Set:
        values = _ett(root, int(table[-1]), frequency)
        windows = number_of_windows(values.shape[1], horizon)
        return Set(
            name, values, horizon, season, frequency, windows, variates=True, domain="Energy"
        )

    return load


def _panel_set(
    name: str, stem: str, horizon: int, season: int, frequency: str
) -> Callable[[Path], Set]:
    def load(root: Path) -> Set:
        values = _competition(root, stem, horizon)
        return Set(name, values, horizon, season, frequency, 1, variates=False, domain="Econ/Fin")

    return load


def _births_set(root: Path) -> Set:
    values = _births(root)
    windows = number_of_windows(values.shape[1], 30)
    return Set(
        "us_births/D/short", values, 30, 1, "D", windows, variates=False, domain="Healthcare"
    )


SETS: dict[str, Callable[[Path], Set]] = {
    **{
        name: _ett_set(name)
        for table in ("ett1", "ett2")
        for name in (
            *(f"{table}/15T/{term}" for term in _STEPS),
            *(f"{table}/H/{term}" for term in _STEPS),
            f"{table}/D/short",
        )
    },
    "m4_hourly/H/short": _panel_set("m4_hourly/H/short", "m4_hourly", 48, 24, "H"),
    "us_births/D/short": _births_set,
    "m3_quarterly": _panel_set("m3_quarterly", "m3_quarterly", 8, 4, "Q"),
    "tourism_quarterly": _panel_set("tourism_quarterly", "tourism_quarterly", 8, 4, "Q"),
}
GIFT_EVAL: tuple[str, ...] = tuple(name for name in SETS if "/" in name)


def load_set(name: str, root: Path) -> Set:
    """Rows of one configuration.

    Raises:
        UsageError: the name is unknown.
        NotFoundError: its file is not there.
        DataError: the file is not the published one.
    """
    if name not in SETS:
        raise UsageError(f"{name!r} is no benchmark set.", hint=nearest(name, SETS))
    return SETS[name](root)


def published(root: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """Read the published figures, configuration -> model -> (MASE, WQL)."""
    frame = _read(root / "bench" / "gift_eval_published.csv")
    table: dict[str, dict[str, tuple[float, float]]] = {}
    for config, model, mase, wql in frame.iter_rows():
        table.setdefault(config, {})[model] = (float(mase), float(wql))
    table.update(_COMPETITIONS)
    return table


# amazon-science/chronos-forecasting, scripts/evaluation/results.
_COMPETITIONS: dict[str, dict[str, tuple[float, float]]] = {
    "m3_quarterly": {
        "seasonal_naive": (1.425, 0.1013),
        "chronos_bolt_base": (1.289, 0.0762),
        "chronos_t5_large": (1.187, 0.0745),
    },
    "tourism_quarterly": {
        "seasonal_naive": (1.699, 0.1194),
        "chronos_bolt_base": (1.756, 0.0645),
        "chronos_t5_large": (1.644, 0.0691),
    },
}
