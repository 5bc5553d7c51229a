"""The candidates for a panel, cheapest first.

Letters: T rows of the median series before validation, H horizon, s rows of a season.
"""

from __future__ import annotations

from forecast.auto.form import Form
from forecast.auto.in_context import InContext
from forecast.auto.intermittent import Intermittent
from forecast.auto.look import CLASSES, Look
from forecast.auto.ridge import Ridge
from forecast.auto.simple import Drift, Mean, SeasonalNaive, SeasonMean
from forecast.auto.smoothing import Smoothing
from forecast.auto.theta import Theta
from forecast.auto.transformed import Log

_LONGEST = 2048
_MOST_OWN = 1000
_LONGEST_OWN = 1344
_WORK = 20_000_000


def candidates(facts: Look, rows: int, horizon: int, effort: str = "standard") -> list[Form]:
    """List the closed forms that can be fitted on so many rows.

    Args:
        facts: what the panel is like.
        rows: rows of the median series before the validation part.
        horizon: H.
        effort: `quick` leaves out logarithms and a regression for each series.
    """
    main = facts.seasons[0] if facts.seasons else 1
    quick = effort == "quick"
    forms: list[Form] = [SeasonalNaive(season=1), Drift(), Mean(rows=4 * main if main > 1 else 8)]
    for season in facts.seasons:
        forms += [SeasonalNaive(season=season)]
        forms += [SeasonMean(season=season, seasons=k) for k in (4, 16)]
    forms += _smoothers(facts)
    if (facts.classes == CLASSES.index("intermittent")).any():
        forms += [Intermittent(method="croston"), Intermittent(method="tsb"), Mean(rows=0)]
    forms += [InContext(season=s) for s in facts.seasons if s <= 672]
    forms += _ridges(facts, rows, horizon)
    return [one for one in forms if not (quick and _dear(one))]


def _dear(form: Form) -> bool:
    """Whether `quick` leaves a form out."""
    return isinstance(form, Log) or (isinstance(form, Ridge) and form.own)


def _smoothers(facts: Look) -> list[Form]:
    main = facts.seasons[0] if facts.seasons else 1
    forms: list[Form] = [Smoothing(season=1)]
    if main > 1:
        forms += [Smoothing(season=main), Smoothing(season=main, trend=False), Theta(season=main)]
    else:
        forms += [Smoothing(season=1, trend=False), Theta(season=1)]
    if facts.positive and main <= 24:
        forms += [Log(Smoothing(season=main)), Log(Theta(season=main))]
    return forms


def lookbacks(facts: Look, rows: int, horizon: int) -> list[int]:
    """Lookbacks of the ridges: 1, 2, 4 ... seasons up to 2,048 rows, with rows to learn from."""
    main = facts.seasons[0] if facts.seasons else 4
    sizes: set[int] = set()
    for season in facts.seasons or (4,):
        size = season
        while size <= _LONGEST:
            sizes.add(size)
            size *= 2
    if 365 in facts.seasons:
        sizes.add(400)
    least = max(2, main)
    most = (rows - horizon) // 2
    return sorted(size for size in sizes if least <= size <= max(most, least))


def _ridges(facts: Look, rows: int, horizon: int) -> list[Form]:
    main = facts.seasons[0] if facts.seasons else 1
    count = len(facts.lengths)
    if rows < horizon + 4:
        return []
    forms: list[Form] = []
    for size in lookbacks(facts, rows, horizon):
        reference = "season" if size > main else "last"
        forms.append(Ridge(lookback=size, season=main, reference=reference))
        if count > 1:
            step = Ridge(
                lookback=size, season=main, reference=reference, scale="step", penalty=3e-4
            )
            forms.append(step)
            if facts.positive:
                forms.append(Log(step))
        # One regression a series, drawn to the common one.
        if 1 < count <= _MOST_OWN and size <= _LONGEST_OWN and count * size**2 <= _WORK:
            forms += [
                Ridge(
                    lookback=size,
                    season=main,
                    reference=reference,
                    scale="step",
                    penalty=1e-3,
                    own=True,
                    pull=pull,
                )
                for pull in (0.3, 3.0)
            ]
    return forms
