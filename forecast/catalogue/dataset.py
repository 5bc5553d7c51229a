"""What the product knows of a published data set before it has opened the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from forecast.catalogue import files
from forecast.catalogue.files import KnownFile
from forecast.errors import DataError, UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Divide the rows of a table, in time order, into train, validation and test.

    Either three row counts, which leave later rows unused, or three fractions that sum to one. The
    fractions of the field's custom tables are the default. A train count of 0 stands for all rows
    that come before the other two, which then end where the table does.
    """

    train: int | float = 0.7
    val: int | float = 0.1
    test: int | float = 0.2

    def __post_init__(self) -> None:
        parts = (self.train, self.val, self.test)
        counts = all(isinstance(part, int) for part in parts)
        wrong = min(self.val, self.test) <= 0 or self.train < 0 or (not counts and self.train == 0)
        if wrong or not (counts or math.isclose(sum(parts), 1.0)):
            raise UsageError(
                f"The split {self} is neither three positive row counts nor three positive "
                "fractions that sum to 1.",
                hint="Write 8640/2880/2880, say, or 0.7/0.1/0.2.",
            )

    def __str__(self) -> str:
        return f"{self.train}/{self.val}/{self.test}"

    def borders(self, rows: int, gap: int = 0) -> tuple[int, int, int]:
        """Return the row after the last of each part.

        Of fractions, train and test are rounded down and validation takes the rest.

        Args:
            rows: of the table.
            gap: rows between validation and test that neither part has.

        Raises:
            DataError: the table has fewer rows than the counts, or a part would be empty.
        """
        if isinstance(self.train, int) and isinstance(self.val, int):
            train_end = self.train or rows - self.val - gap - int(self.test)
            val_end = train_end + self.val
            test_end = val_end + gap + int(self.test)
        else:
            # Of the decimal as written: 0.7 * 90 in binary is just below 63.
            train_end = math.floor(Fraction(str(self.train)) * rows)
            val_end = rows - math.floor(Fraction(str(self.test)) * rows) - gap
            test_end = rows
        if not 0 < train_end < val_end < test_end - gap <= rows - gap:
            between = f" with a gap of {gap}" if gap else ""
            raise DataError(
                f"A table of {rows:,} rows cannot be split {self}{between}.",
                hint="Bring more rows, or state another split in the recipe.",
            )
        return train_end, val_end, test_end


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What is published about a data set of any kind.

    Attributes:
        name: what commands and recipes call it.
        title: one line for people.
        description: what was measured or recorded, in a sentence or two.
        files: its files, where they are known bit for bit.
        options: how to read and divide them, by the field names of the kind's data section.
        rows: rows, frames, events or steps of the whole set.
        variates: what is forecast, in the order of the files.
        target: the one that most readers come for.
        frequency: the step as a pandas offset alias; empty for events and frames without dates.
        season: steps in the season that a seasonal baseline repeats, at least 1.
        lookback: past steps a model sees unless told otherwise.
        horizon: steps to forecast unless told otherwise.
        licence: the licence's short name and what it asks for.
        citation: whom to cite.
        source: the publisher's page.
    """

    name: str
    title: str
    description: str
    files: tuple[KnownFile, ...] = ()
    options: Mapping[str, Any]
    rows: int
    variates: tuple[str, ...]
    target: str
    frequency: str = ""
    season: int = 1
    lookback: int
    horizon: int
    licence: str
    citation: str
    source: str

    def paths(self) -> list[Path]:
        """Find its files.

        Raises:
            NotFoundError: they are not there; says where they come from.
            DataError: a file's content differs from the published one.
        """
        return [files.locate(file) for file in self.files]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset(Published):
    """A published table of series; the first file is the table.

    Attributes:
        kind: the kind of data.
        split: the published division into train, validation and test.
    """

    kind: Literal["series"] = "series"
    lookback: int = 96
    horizon: int = 96
    split: Split
