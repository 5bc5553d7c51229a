"""Public holidays as a covariate that is known in advance: 1 on a holiday, 0 on any other day.

The days come from the package `holidays`. A region is a country, by name or ISO 3166 code, with a
subdivision behind a hyphen where wanted: `DE`, `DE-BY`, `Germany`, `US-CA`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from forecast.errors import UsageError, nearest
from forecast.tables.zones import to_local


def check_region(region: str) -> tuple[str, str | None]:
    """Resolve a region into the two letters of its country, and its subdivision.

    Raises:
        UsageError: there is no such country, or it has no such subdivision.
    """
    # Imported when used: it takes a tenth of a second.
    from holidays import list_supported_countries  # noqa: PLC0415
    from holidays.registry import COUNTRIES  # noqa: PLC0415

    country, _, subdivision = region.partition("-")
    # Each country goes by its name and its codes of two and of three letters.
    codes = {
        name: two for full, two, three, *_ in COUNTRIES.values() for name in (full, two, three)
    }
    folded = {name.lower(): code for name, code in codes.items()}
    code = folded.get(country.strip().lower())
    if code is None:
        raise UsageError(
            f"data.holidays = {region!r}: there is no country {country!r}, such as DE or Germany.",
            hint=nearest(country, codes),
        )
    if not subdivision:
        return code, None
    known = list_supported_countries().get(code, [])
    if subdivision not in known:
        raise UsageError(
            f"data.holidays = {region!r}: {code} has no subdivision {subdivision!r}.",
            hint=nearest(subdivision, known) if known else f"Use data.holidays = {code!r}.",
        )
    return code, subdivision


def holiday_indicator(
    times: np.ndarray, region: str, timezone: str | None = None
) -> Float[np.ndarray, " N"]:
    """Mark the times that fall on a public holiday by the local clock.

    Args:
        times: `(N,)` datetime64, UTC where the zone is known.
        region: the region, see above.
        timezone: the zone of the local clock; None takes the times as they are.

    Returns:
        `(N,)` float32.

    Raises:
        UsageError: there is no such region.
    """
    from holidays import country_holidays  # noqa: PLC0415

    code, subdivision = check_region(region)
    if not len(times):
        return np.empty(0, np.float32)
    days = to_local(times.astype("datetime64[us]"), timezone).astype("datetime64[D]")
    first, last = (day.item().year for day in (days.min(), days.max()))
    found = country_holidays(code, subdiv=subdivision, years=range(first, last + 1))
    return np.isin(days, np.array(sorted(found), "datetime64[D]")).astype(np.float32)
