"""What a panel is like: its seasons, its series' classes, and the facts that candidates go by.

Letters: N series, T rows, H horizon, s rows of a season.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecast.auto.form import Array, starts

CLASSES = ("smooth", "intermittent", "short", "constant")

# Seasons worth trying by rows' distance, in rows. The first is the main one.
SEASONS: dict[str, tuple[int, ...]] = {
    "S": (60, 3600),
    "min": (60, 1440),
    "5min": (288, 2016),
    "10min": (144, 1008),
    "15min": (96, 672),
    "30min": (48, 336),
    "h": (24, 168),
    "D": (7, 365),
    "B": (5, 261),
    "W": (52,),
    "M": (12,),
    "Q": (4,),
    "Y": (1,),
}


@dataclass(frozen=True, slots=True)
class Look:
    """Facts of a panel.

    Attributes:
        lengths: rows of each series, (N,).
        classes: index into CLASSES of each series, (N,).
        seasons: seasons that fit into the rows at least twice, the main one first.
        positive: every value is above zero.
        non_negative: no value is below zero.
        whole: every value is a whole number.
    """

    lengths: NDArray[np.int64]
    classes: NDArray[np.int64]
    seasons: tuple[int, ...]
    positive: bool
    non_negative: bool
    whole: bool

    @property
    def typical(self) -> int:
        """Rows of the median series that has any."""
        some = self.lengths[self.lengths > 0]
        return int(np.median(some)) if len(some) else 0


def look(values: Array, seasons: tuple[int, ...], horizon: int) -> Look:
    """Facts of a panel (N, T) with NaN where missing."""
    lengths = values.shape[1] - starts(values)
    some = lengths[lengths > 0]
    typical = int(np.median(some)) if len(some) else 0
    seen = np.isfinite(values)
    kept = values[seen]
    fitting = tuple(s for s in seasons if s > 1 and 2 * s + 2 <= typical)
    return Look(
        lengths=lengths,
        classes=classify(values, fitting[0] if fitting else 1, horizon),
        seasons=fitting,
        positive=bool(len(kept) and kept.min() > 0),
        non_negative=bool(len(kept) and kept.min() >= 0),
        whole=bool(len(kept) and np.all(kept == np.round(kept))),
    )


def classify(values: Array, season: int, horizon: int) -> NDArray[np.int64]:
    """Class of each series, (N,): an index into CLASSES.

    Constant: one value, or none. Short: fewer rows than two seasons and a horizon, or than 16.
    Intermittent: more than a third of zeros and nothing negative.
    """
    seen = np.isfinite(values)
    count = seen.sum(1)
    low = np.where(seen, values, np.inf).min(1, initial=np.inf)
    high = np.where(seen, values, -np.inf).max(1, initial=-np.inf)
    zeros = (values == 0).sum(1) / np.maximum(count, 1)
    classes = np.zeros(len(values), dtype=np.int64)
    classes[(zeros > 1 / 3) & (low >= 0)] = CLASSES.index("intermittent")
    classes[count < max(16, 2 * season + horizon)] = CLASSES.index("short")
    classes[(count == 0) | (low == high)] = CLASSES.index("constant")
    return classes
