"""Fitting `auto`: look, origins, candidates, blend, refit, quantiles.

Letters: N series, T rows, K origins, O dense origins, H horizon, Q levels, M candidates.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecast.auto.blend import Cells, blend_weights, localised
from forecast.auto.candidates import candidates
from forecast.auto.choose import (
    Auto,
    Entry,
    Member,
    Settings,
    dense,
    number_of_origins,
    or_last,
    truth_at,
)
from forecast.auto.cleaning import Cleaned, cleaned
from forecast.auto.distribution import measure
from forecast.auto.form import Array, Form, starts
from forecast.auto.look import CLASSES, SEASONS, Look, look
from forecast.auto.scores import LEVELS, seasonal_scale
from forecast.auto.simple import SeasonalNaive
from forecast.errors import DataError, UsageError, nearest

_CLASS_SIZE = 30
METRICS = ("wql", "mase", "mse")
EFFORTS = ("quick", "standard", "best")


@dataclass(slots=True)
class _Judged:
    """A candidate's forecasts at the validation origins (N, O, H)."""

    form: Form
    ahead: Array


def seasons_of(frequency: str) -> tuple[int, ...]:
    """Seasons to try, by the name of the rows' distance.

    Raises:
        UsageError: the name is unknown.
    """
    name = {"15T": "15min", "H": "h", "T": "min"}.get(frequency, frequency)
    if name not in SEASONS:
        raise UsageError(f"{frequency!r} is no frequency.", hint=nearest(frequency, SEASONS))
    return SEASONS[name]


def fit(
    values: Array,
    horizon: int,
    seasons: Sequence[int],
    settings: Settings | None = None,
) -> Auto:
    """Choose and blend forecasts for a panel.

    Args:
        values: (N, T), rows of all series up to the same last row, NaN where missing.
        horizon: rows to forecast (H).
        seasons: rows of the seasons to try, the main one first.
        settings: what the user set.

    Raises:
        DataError: the panel holds no series.
        UsageError: a setting is unknown, or leaves no candidate.
    """
    settings = settings or Settings()
    for name, value, allowed in (
        ("metric", settings.metric, METRICS),
        ("effort", settings.effort, EFFORTS),
    ):
        if value not in allowed:
            raise UsageError(
                f"auto.{name} = {value!r}: it is one of {', '.join(allowed)}.",
                hint=nearest(value, allowed),
            )
    if values.ndim != 2 or not len(values):
        raise DataError("The table holds no series.", hint="Give at least one column of numbers.")
    main = next((s for s in seasons if s > 1), 1)
    tidy = cleaned(values, main)
    facts = look(tidy.values, tuple(seasons), horizon)
    notes = _notes(tidy, facts)
    origins = number_of_origins(facts, horizon, settings.origins)
    if origins == 0:
        notes.append(
            f"{facts.typical} rows are too few to hold {horizon} back: nothing was compared, "
            "the rule for short series forecasts."
        )
        return _rule(tidy, facts, horizon, settings, notes)
    return _chosen(values, tidy, facts, horizon, settings, origins, notes)


def _notes(tidy: Cleaned, facts: Look) -> list[str]:
    notes: list[str] = []
    far = int(tidy.outliers.sum())
    if far:
        row, column = map(int, np.argwhere(tidy.outliers)[0])
        notes.append(
            f"{far} outlier{'s were' if far > 1 else ' was'} set aside "
            f"(the first: series {row}, row {column})."
        )
    if tidy.filled.any():
        notes.append(f"{int(tidy.filled.sum())} missing values were filled.")
    for k, name in enumerate(CLASSES[1:], start=1):
        count = int((facts.classes == k).sum())
        if count:
            notes.append(
                f"{count} of {len(facts.classes)} series {'are' if count > 1 else 'is'} {name}."
            )
    empty = int((facts.lengths == 0).sum())
    if empty:
        notes.append(f"{empty} series without a value: forecast 0.")
    return notes


def _rule(tidy: Cleaned, facts: Look, horizon: int, settings: Settings, notes: list[str]) -> Auto:
    """Seasonal naive, or persistence, with quantiles from the naive step."""
    form = SeasonalNaive(season=facts.seasons[0] if facts.seasons else 1)
    end = tidy.values.shape[1]
    steps = _steps(tidy.values, form.season)
    growing = np.sqrt(1 + np.arange(horizon) // form.season)
    misses = np.full((len(tidy.values), 1, horizon), np.nan)
    distribution = measure(misses, steps, LEVELS, 0.0)
    distribution = type(distribution)(
        np.nan_to_num(steps), growing, distribution.shape, distribution.ratio
    )
    return Auto(
        members=[Member(form, {})],
        weights=np.ones((len(CLASSES), 1)),
        local=np.empty((0, 1)),
        distribution=distribution,
        horizon=horizon,
        seasons=facts.seasons,
        end=end,
        misses=misses,
        miss_origins=[end],
        settings=settings,
        non_negative=facts.non_negative,
        leaderboard=[Entry(form.name, weight=1.0)],
        notes=notes,
    )


def _steps(values: Array, season: int) -> Array:
    """Mean seasonal step of each series, the plain step where there is none, (N,)."""
    steps = seasonal_scale(values, season)
    return np.where(np.isfinite(steps), steps, seasonal_scale(values, 1))


def _chosen(
    values: Array,
    tidy: Cleaned,
    facts: Look,
    horizon: int,
    settings: Settings,
    count: int,
    notes: list[str],
) -> Auto:
    end = values.shape[1]
    cut = end - count * horizon
    past = tidy.values
    main = facts.seasons[0] if facts.seasons else 1
    at = dense(cut, end - horizon + 1, horizon)
    truth = truth_at(np.where(tidy.outliers | tidy.filled, np.nan, past), at, horizon)
    # A series that begins inside the validation part is not judged there.
    late = cut - starts(past) < 2
    truth[late] = np.nan
    rows = facts.typical - count * horizon
    forms = _wanted(candidates(facts, rows, horizon, settings.effort), settings)
    judged, board = _judge(
        forms, past, cut, at, truth, horizon, settings, _steps(past[:, :cut], main)
    )
    if not judged:
        notes.append("Every candidate failed: seasonal naive forecasts.")
        made = _rule(tidy, facts, horizon, settings, notes)
        made.leaderboard = board
        return made
    weights = _weigh(judged, truth, facts, settings, _steps(past[:, :cut], main))
    local = weights[facts.classes]
    loss = _cell_weights(truth, _steps(past[:, :cut], main), settings.metric)
    used = np.flatnonzero(weights.max(0) > 0)
    power = 0.0
    if settings.blend and count > 1 and len(used) > 1:
        period = (np.asarray(at) - cut) // horizon
        stack = np.stack([judged[k].ahead for k in used])
        power, near = localised(stack, truth, loss, period, local[:, used])
        if power > 0:
            local = np.zeros_like(local)
            local[:, used] = near
            notes.append("Each series weighs the members by its own validation errors.")
    ahead = sum(local[:, k, None, None] * one.ahead for k, one in enumerate(judged))
    misses = truth - ahead
    members, kept = _refitted(judged, weights, past, horizon, board)
    typical = int(np.bincount(facts.classes, minlength=len(CLASSES)).argmax())
    for k, one in enumerate(judged):
        entry = next(e for e in board if e.name == one.form.name)
        entry.weight = float(weights[typical, k])
        if weights[:, k].max() == 0 and not entry.left_out:
            entry.left_out = "no gain in the blend"
    return Auto(
        members=members,
        weights=weights[:, kept],
        local=local[:, kept] if power > 0 else np.empty((0, len(kept))),
        distribution=measure(misses, _steps(past, main), LEVELS, float(count)),
        horizon=horizon,
        seasons=facts.seasons,
        end=end,
        misses=misses,
        miss_origins=at,
        settings=settings,
        non_negative=facts.non_negative,
        leaderboard=sorted(board, key=lambda e: (np.isnan(e.wql), e.wql)),
        notes=notes,
    )


def _wanted(forms: list[Form], settings: Settings) -> list[Form]:
    kept = [
        form
        for form in forms
        if (not settings.models or form.name.startswith(settings.models))
        and not (settings.exclude and form.name.startswith(settings.exclude))
    ]
    if not kept:
        raise UsageError(
            "auto.models and auto.exclude leave no candidate.",
            hint="Known here: " + ", ".join(form.name for form in forms) + ".",
        )
    return kept


def _judge(
    forms: list[Form],
    past: Array,
    cut: int,
    at: Sequence[int],
    truth: Array,
    horizon: int,
    settings: Settings,
    steps: Array,
) -> tuple[list[_Judged], list[Entry]]:
    """Fit each candidate before the validation part and forecast its windows."""
    begun = time.process_time()
    judged: list[_Judged] = []
    board: list[Entry] = []
    size = np.nansum(np.abs(truth))
    for form in forms:
        entry = Entry(form.name)
        board.append(entry)
        if settings.seconds and judged and time.process_time() - begun > settings.seconds:
            entry.left_out = "no time"
            continue
        started = time.process_time()
        try:
            state = form.fit(past[:, :cut], horizon)
            ahead = or_last(form.forecast(state, past, at, horizon), past, at)
        except (np.linalg.LinAlgError, MemoryError, FloatingPointError) as error:
            entry.left_out = f"failed: {type(error).__name__}"
            continue
        entry.seconds = time.process_time() - started
        error = np.abs(truth - ahead)
        entry.wql = float(np.nansum(error) / size) if size > 0 else float("nan")
        entry.mase = (
            float(np.nanmean(error / steps[:, None, None]))
            if np.isfinite(steps).any()
            else float("nan")
        )
        judged.append(_Judged(form, ahead))
    return judged, board


def _cell_weights(truth: Array, steps: Array, metric: str) -> Array:
    """Weight of each validation cell (N, O, H) in the loss; 0 where there is no truth."""
    seen = np.isfinite(truth)
    steps = np.where(np.isfinite(steps) & (steps > 0), steps, np.nan)
    flat = np.broadcast_to(1.0 / max(np.abs(truth[seen]).sum(), 1e-300), truth.shape)
    scaled = np.nan_to_num(1.0 / steps)[:, None, None] / max(seen.sum(), 1)
    if metric == "mase":
        return np.where(seen, scaled, 0.0)
    if metric == "mse":
        return np.where(seen, scaled**2, 0.0)
    # Half of the loss as WQL weighs it, half as MASE does: a panel's largest series must not
    # choose for all, nor its smallest.
    size = np.abs(truth - np.nanmedian(truth)) if seen.any() else truth
    both = np.nansum(flat * size), np.nansum(scaled * size)
    mixed = flat + scaled * (both[0] / both[1] if both[1] > 0 else 0.0)
    return np.where(seen, mixed, 0.0)


def _weigh(
    judged: list[_Judged],
    truth: Array,
    facts: Look,
    settings: Settings,
    steps: Array,
) -> Array:
    """Weights (classes, M): of all series, and of a class that has enough of its own."""
    loss = _cell_weights(truth, steps, settings.metric)

    def of(rows: NDArray[np.int64]) -> Array:
        """Weights (M,) from the cells of some series."""
        kept = (loss[rows] > 0) & np.isfinite(truth[rows])
        if not kept.any():
            return np.eye(len(judged))[0]
        cells = Cells(
            np.stack([one.ahead[rows][kept] for one in judged]),
            truth[rows][kept],
            loss[rows][kept],
            settings.metric == "mse",
        )
        if not settings.blend:
            return np.eye(len(judged))[int(cells.losses().argmin())]
        return blend_weights(cells)

    weights = np.tile(of(np.arange(len(truth))), (len(CLASSES), 1))
    for k in range(len(CLASSES)):
        rows = np.flatnonzero(facts.classes == k)
        if _CLASS_SIZE <= len(rows) < len(truth):
            weights[k] = of(rows)
    return weights


def _refitted(
    judged: list[_Judged], weights: Array, past: Array, horizon: int, board: list[Entry]
) -> tuple[list[Member], list[int]]:
    """Members of the blend, fitted on all rows."""
    kept = [k for k in range(len(judged)) if weights[:, k].max() > 0]
    members: list[Member] = []
    for k in kept:
        started = time.process_time()
        members.append(Member(judged[k].form, judged[k].form.fit(past, horizon)))
        entry = next(e for e in board if e.name == judged[k].form.name)
        entry.seconds += time.process_time() - started
    return members, kept
