"""The `[data]` section of a recipe of grids: which files, how to read, divide and scale them.

It stands apart from `grids`, which reads them, because a recipe is checked before torch is needed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from forecast.grids.files import GridOptions

Scaling = Literal["standard", "cell", "maximum", "none"]
# Of the machine's memory, what frames may take.
_SHARE = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class GridSection(GridOptions):
    """Which grids, and how to read, divide and scale them.

    Attributes:
        source: a known data set, a file, a folder, or a pattern such as `t2m/*.nc`; several where
            each variable has files of its own.
        protocol: `honest`, or `openstl` to reproduce published tables: the test part is the
            validation part too, and statistics are those of each part.
        split: frames or fractions for train, validation and test, a train count of 0 for all that
            come before; or the dates on which validation and test begin.
        gap: frames between validation and test that neither part has.
        scaling: `standard` by each channel's mean and deviation, `cell` by those of each cell,
            `maximum`, `none`; `auto` is `maximum` for counts and `standard` for all else.
        references: simple forecasts to bring along: `day`, `week`, `year` for the frame that long
            before, `3-day-mean`, `7-day-mean` of the same time on the last days, and `time-of-day`,
            `time-of-week`, `month-of-year`, `day-of-year` for means over training frames; None
            takes those that the data support.
        inside: keep the inputs of validation and test windows inside their part too, instead of
            letting them reach back over its border.
        resident_mb: megabytes of frames that may lie in memory, the rest being memory-mapped; None
            takes a quarter of the machine's.
    """

    source: str | tuple[str, ...] = ""
    protocol: Literal["honest", "openstl"] = "honest"
    split: tuple[int, int, int] | tuple[float, float, float] | tuple[str, str] = (0.7, 0.1, 0.2)
    gap: Annotated[int, Field(ge=0)] = 0
    scaling: Literal["auto", "standard", "cell", "maximum", "none"] = "auto"
    references: tuple[str, ...] | None = None
    inside: bool = False
    resident_mb: Annotated[int, Field(ge=1)] | None = None

    @property
    def resolved_scaling(self) -> Scaling:
        """Resolve `auto`: crowds are counted in [0, 1], all else is standardised."""
        if self.scaling != "auto":
            return self.scaling
        return "maximum" if self.counts else "standard"

    @property
    def resident_bytes(self) -> int:
        """How many bytes of frames may lie in memory."""
        if self.resident_mb:
            return self.resident_mb * 1_000_000
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _SHARE
