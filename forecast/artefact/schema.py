"""What `forecaster.json` may hold: every field typed, every size limited.

The file comes from anywhere, so it is read as any input is: what does not fit is refused in a
sentence that names the field, before a model is built from it.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from forecast import limits
from forecast.batch import EventSpec, GridSpec, Spec
from forecast.errors import DataError, UsageError
from forecast.graphs.section import GraphSection
from forecast.grids.files import Format, GridOptions
from forecast.tables.frequency import Frequency
from forecast.tables.layout import Layout
from forecast.tables.zones import check_zone

# Rows of a window, cells of a side, series, nodes: more than any task has.
MOST = 10_000_000
# Characters of a name: of a column, a level, a series.
LONGEST = 10_000

Count = Annotated[int, Field(ge=0, le=MOST)]
Name = Annotated[str, Field(max_length=LONGEST)]
Names = Annotated[list[Name], Field(max_length=MOST)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Axis = Annotated[list[Finite], Field(min_length=1, max_length=MOST)]


def _stated_frequency(spec: Any) -> Any:
    """Refuse a step that no calendar knows, and sizes without bounds."""
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if isinstance(value, int) and not 0 <= value <= MOST:
            raise ValueError(f"{field.name} = {value} is not between 0 and {MOST:,}")
    if min(spec.horizon, 1 if isinstance(spec, EventSpec) else spec.lookback) < 1:
        raise ValueError("a window has at least one row, and so has a horizon")
    frequency = getattr(spec, "frequency", "")
    if frequency:
        try:
            Frequency.parse(frequency)
        except UsageError as error:
            raise ValueError(error.message) from error
    return spec


def _usable_layout(layout: Layout) -> Layout:
    if layout.timezone is not None:
        try:
            check_zone(layout.timezone)
        except UsageError as error:
            raise ValueError(error.message) from error
    if (layout.kind == "long") != (layout.id is not None):
        raise ValueError("a long table has a column of ids, and a wide one has none")
    return layout


class _Part(BaseModel):
    # What a later version adds is left alone.
    model_config = ConfigDict(strict=True, extra="allow")


class _Channel(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    name: Name
    variable: Name
    level: Finite | None
    units: Name


class _Grid(_Part):
    format: Format
    names: dict[Name, Name]
    channels: Annotated[list[_Channel], Field(min_length=1)]
    y: Axis
    x: Axis
    geographic: bool
    descending: bool
    dated: bool
    scaling: Literal["standard", "cell", "maximum", "none"]
    step: Annotated[int, Field(ge=0, le=10**18)]
    months: Count
    options: GridOptions


class _Graph(_Part):
    task: Literal["link", "affinity", "node", "sensor"]
    ids: Annotated[list[Name | int], Field(max_length=MOST)]
    options: GraphSection
    dated: bool = False
    features: Names = []
    last: Finite = 0.0
    logarithm: bool = False
    steps: Count = 0


class _Data(_Part):
    source: str | list[str]
    digest: str
    rows: Count | None = None
    series: Count | None = None
    columns: Names = []


class Description(_Part):
    """The fields of `forecaster.json`; see `artefact` for what they are."""

    format: int
    model: Name
    recipe: dict[str, dict[str, Any]]
    spec: Annotated[
        Annotated[Spec | GridSpec | EventSpec, Discriminator("kind")],
        AfterValidator(_stated_frequency),
    ]
    columns: Annotated[Names, Field(min_length=1)]
    data: _Data
    metrics: dict[str, Any]
    versions: dict[str, str]
    sha256: dict[str, Sha256]
    layout: Annotated[Layout, AfterValidator(_usable_layout)] | None = None
    ids: Names = []
    # Of numbers their mean and deviation, of words the levels.
    static: dict[Name, tuple[Finite, Finite] | list[Name]] = {}
    grid: _Grid | None = None
    graph: _Graph | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Description:
        part = {"series": "layout", "grid": "grid", "graph": "graph"}[self.spec.kind]
        if getattr(self, part) is None:
            raise ValueError(f"a forecaster of {self.spec.kind} has a part {part!r}")
        if self.recipe.get("model", {}).get("name") != self.model:
            raise ValueError("the recipe is of another model")
        width = {"series": "variates", "grid": "channels"}.get(self.spec.kind)
        if width and len(self.columns) != getattr(self.spec, width):
            raise ValueError(f"{len(self.columns)} columns are named, and {width} is not that")
        if isinstance(self.spec, GridSpec) and self.grid:
            sides = len(self.grid.channels), len(self.grid.y), len(self.grid.x)
            if sides != (self.spec.channels, self.spec.rows, self.spec.columns):
                raise ValueError("the grid has another shape than the model was made for")
        if isinstance(self.spec, Spec) and self.layout:
            if not self.ids or tuple(self.columns) != self.layout.variates:
                raise ValueError("the columns of the table are not those of the model")
            if set(self.static) != set(self.layout.static):
                raise ValueError("the static columns of the table are not those of the model")
        if isinstance(self.spec, EventSpec) and self.graph and self.graph.task != self.spec.task:
            raise ValueError("the task of the graph is not that of the model")
        return self


_READER = TypeAdapter(Description)


def checked(document: dict[str, Any], file: Path) -> dict[str, Any]:
    """Check a description that was read, and return it.

    Args:
        document: what `read_file` gave.
        file: where it was read, for the message.

    Raises:
        DataError: a field is missing, of another type or beyond its limits.
    """
    try:
        # As JSON, in which a list may stand for a tuple.
        _READER.validate_json(json.dumps(document))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:200] or "the document"
        raise _damaged(f"{place}: {first['msg']}", file) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(str(error), file) from error
    for part, options in (("grid", GridOptions), ("graph", GraphSection)):
        known = {field.name for field in dataclasses.fields(options)}
        if new := set((document.get(part) or {}).get("options", {})) - known:
            raise _damaged(f"{part}.options: there is no option {min(new)!r}", file)
    return document


def read_file(path: Path) -> dict[str, Any]:
    """Read a JSON document of any form, as far as `limits.MOST_DOCUMENT`.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is no object in JSON.
    """
    content = limits.read_regular(path, limits.MOST_DOCUMENT)
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _damaged(str(error), path) from error
    if not isinstance(document, dict):
        raise _damaged("it is no object", path)
    return document


def _damaged(problem: str, file: Path) -> DataError:
    return DataError(
        f"The description of the forecaster is damaged: {problem[:1_000].rstrip('.')}.",
        hint="Fetch or copy the artefact again, or train again.",
        file=str(file),
    )
