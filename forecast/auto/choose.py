"""`auto`: candidates judged at rolling origins, blended, and quantiles from the blend's misses.

Everything is decided on rows before the test part: a candidate is fitted on the rows before the
validation part, judged on windows of that part, and only then fitted again on all rows.

Letters: N series, T rows, K origins, O dense origins, H horizon, Q levels, M candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from forecast.auto.cleaning import cleaned
from forecast.auto.distribution import Distribution
from forecast.auto.form import Array, Form, State, last_values, mean_over
from forecast.auto.look import Look, classify

_DENSE = 40


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user can set of `auto`.

    Attributes:
        effort: `quick` (closed forms of one pass), `standard`, `best`.
        seconds: CPU time after which no further candidate begins [s]; 0 is no limit.
        metric: what the blend is chosen by: `wql`, `mase` or `mse`.
        origins: most rolling origins (K).
        blend: mix candidates; else the best one alone.
        models: names of candidates to keep, by their beginnings; empty is all.
        exclude: names of candidates to leave out, by their beginnings.
        minimum: smallest value a forecast may have; None is 0 where no value is negative.
        maximum: largest one.
        integer: round quantiles to whole numbers.
    """

    effort: str = "standard"
    seconds: float = 0.0
    metric: str = "wql"
    origins: int = 8
    blend: bool = True
    models: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    integer: bool = False


@dataclass(slots=True)
class Entry:
    """One row of the leaderboard.

    Attributes:
        name: candidate.
        wql: weighted absolute error on validation windows; NaN where it was not judged.
        mase: scaled absolute error there.
        weight: weight in the blend, of the largest class.
        seconds: CPU time [s].
        left_out: why it is not in the blend; empty where it is.
    """

    name: str
    wql: float = float("nan")
    mase: float = float("nan")
    weight: float = 0.0
    seconds: float = 0.0
    left_out: str = ""


@dataclass(slots=True)
class Member:
    """A candidate in the blend: what it is, and what it learned."""

    form: Form
    state: State


@dataclass(slots=True)
class Auto:
    """A fitted blend.

    Attributes:
        members: M candidates.
        weights: (classes, M), the weights of each class of series.
        local: (N, M), those of each series, where validation says that they are better; else empty.
        distribution: scales and shape of the blend's misses.
        end: number of rows that it was fitted on.
        misses: (N, O, H), those of the validation windows; `miss_origins` their origins.
    """

    members: list[Member]
    weights: Array
    local: Array
    distribution: Distribution
    horizon: int
    seasons: tuple[int, ...]
    end: int
    misses: Array
    miss_origins: list[int]
    settings: Settings
    non_negative: bool
    leaderboard: list[Entry] = field(default_factory=list[Entry])
    notes: list[str] = field(default_factory=list[str])

    def points(self, values: Array, origins: Sequence[int]) -> Array:
        """Medians (N, K, H) from cleaned values, before clipping."""
        season = self.seasons[0] if self.seasons else 1
        if len(self.local) == len(values):
            weights = self.local
        else:
            weights = self.weights[classify(values[:, : min(origins)], season, self.horizon)]
        total = np.zeros((len(values), len(origins), self.horizon))
        for k, member in enumerate(self.members):
            ahead = member.form.forecast(member.state, values, origins, self.horizon)
            total += weights[:, k, None, None] * or_last(ahead, values, origins)
        return total

    def forecast(self, values: Array, origins: Sequence[int]) -> Array:
        """Quantiles (N, K, H, Q) at LEVELS from rows before each origin."""
        season = self.seasons[0] if self.seasons else 1
        past = cleaned(values, season, min(self.end, *origins)).values
        points = self.points(past, origins)
        factors = self._factors(values, past, origins)
        made = np.stack(
            [self.distribution.around(points[:, k], factors[:, k]) for k in range(len(origins))],
            axis=1,
        )
        return self._bounded(made)

    def _factors(self, values: Array, past: Array, origins: Sequence[int]) -> Array:
        """How much larger the newest known misses are than the validation's, (N, K)."""
        step = max(1, self.horizon // 5)
        reach = 3 * self.horizon
        fresh = [
            at
            for at in range(self.end, max(origins), step)
            if any(at < origin <= at + reach for origin in origins)
        ]
        misses, at = self.misses, list(self.miss_origins)
        if fresh:
            ahead = self.points(past, fresh)
            misses = np.concatenate([misses, truth_at(values, fresh, self.horizon) - ahead], axis=1)
            at += fresh
        width = self.distribution.scale[:, None, None] * self.distribution.profile
        ratio = np.abs(misses) / np.where(width > 0, width, np.nan)
        target = np.asarray(at)[:, None] + np.arange(self.horizon)  # (O, H)
        factors = np.ones((len(values), len(origins)))
        for k, origin in enumerate(origins):
            recent = (target < origin) & (target >= origin - 2 * self.horizon)
            part = np.where(recent[None], ratio, np.nan).reshape(len(values), -1)
            newest = mean_over(part, 1)
            factors[:, k] = np.where(
                np.isfinite(newest), 0.5 + 0.5 * np.clip(newest, 0.3, 3.0), 1.0
            )
        return factors

    def _bounded(self, made: Array) -> Array:
        low = self.settings.minimum
        if low is None and self.non_negative:
            low = 0.0
        made = np.sort(made, axis=-1)
        if low is not None or self.settings.maximum is not None:
            made = np.clip(made, low, self.settings.maximum)
        return np.round(made) if self.settings.integer else made


def or_last(ahead: Array, values: Array, origins: Sequence[int]) -> Array:
    """Last value, or 0 of none, where a form has no answer."""
    last = np.nan_to_num(last_values(values, origins))[..., None]
    return np.where(np.isfinite(ahead), ahead, last)


def truth_at(values: Array, origins: Sequence[int], horizon: int) -> Array:
    """Truth after each origin (N, O, H); NaN where it is not known."""
    at = np.asarray(origins)[:, None] + np.arange(horizon)
    known = at < values.shape[1]
    return np.where(known[None], values[:, np.minimum(at, values.shape[1] - 1)], np.nan)


def dense(begin: int, end: int, horizon: int) -> list[int]:
    """At most 40 origins in [begin, end), evenly apart, the first at `begin`."""
    rows = end - begin
    if rows <= 0:
        return []
    step = max(1, -(-rows // _DENSE))
    return list(range(begin, end, step))


def number_of_origins(facts: Look, horizon: int, most: int) -> int:
    """Horizons in the validation part (K): three tenths of the rows at most; 0 where none fits.

    At most `most`, or as many as 28 seasons hold: a few days of quarter hours would choose by the
    weather of one week.
    """
    rows = facts.typical
    if rows < horizon + 3:
        return 0
    season = facts.seasons[0] if facts.seasons else 1
    most = max(most, -(-28 * season // horizon))
    return int(np.clip(int(0.3 * rows) // horizon, 1, most))
