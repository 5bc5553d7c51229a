"""What an artefact keeps of the grid that a model was trained on.

Later files must agree with it, and forecasts are written by it.

Letters: C channels, Y X rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from forecast.documents import from_plain, to_plain
from forecast.grids.axes import Mesh
from forecast.grids.calendars import STANDARD
from forecast.grids.files import Channel, Format, GridOptions
from forecast.grids.section import Scaling


@dataclass(frozen=True, kw_only=True, slots=True)
class GridHeader:
    """Fields, cells, step and reading options of a model's grid.

    Attributes:
        format: the kind of file.
        names: the file's name for each axis it has, in the file's order.
        channels: C fields of a frame.
        y: Y coordinates of the rows, ascending.
        x: X coordinates of the columns, eastwards.
        geographic: the coordinates are latitudes and longitudes in degrees.
        descending: the file's rows run from high to low.
        dated: the frames have dates.
        protocol: that of training and scoring.
        scaling: how frames are scaled.
        step: distance of neighbouring frames [us]; 0 for calendar months.
        months: calendar months in a step; 0 for a fixed one.
        options: how files are read.
        calendar: that of the dates, as CF names it.
    """

    format: Format
    names: Mapping[str, str]
    channels: tuple[Channel, ...]
    y: tuple[float, ...]
    x: tuple[float, ...]
    geographic: bool
    descending: bool
    dated: bool
    protocol: Literal["honest", "openstl"] = "honest"
    scaling: Scaling
    step: int
    months: int
    options: GridOptions
    calendar: str = STANDARD

    @classmethod
    def from_dict(cls, document: Any) -> GridHeader:
        """Read it from an artefact's description.

        Raises:
            DataError: a field is missing, or a value has the wrong type.
        """
        return from_plain(cls, document, name="The artefact's description of its grid")

    def to_dict(self) -> dict[str, Any]:
        """Lay it out as plain values, as `from_dict` reads them."""
        document: dict[str, Any] = to_plain(self)
        if self.calendar == STANDARD:
            del document["calendar"]
        return document

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the fields of a frame."""
        return tuple(channel.name for channel in self.channels)

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables that the fields are of, each once."""
        return tuple(dict.fromkeys(channel.variable for channel in self.channels))

    @property
    def counts_slots(self) -> bool:
        """Whether times are days with the number of a slot, as TaxiBJ's HDF5 has them."""
        return self.format == "slots" and self.dated

    def placed_like(self, mesh: Mesh) -> bool:
        """Whether a file has its cells where the model's are."""
        return mesh.at(np.array(self.y), np.array(self.x))
