"""What a recipe says of a graph: where it lies, what is asked, and how it is divided.

Letters: W events of a window, K negatives of a query, H horizon.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from forecast.catalogue.dataset import Split
from forecast.catalogue.graphs import SETS, GraphDataset
from forecast.errors import DataError, NotFoundError, UsageError
from forecast.graphs import events as event_files
from forecast.graphs import formats
from forecast.graphs.events import Events
from forecast.paths import data_root

GRAPHS: dict[str, GraphDataset] = {one.name: one for one in SETS}

Task = Literal["link", "affinity", "node", "sensor"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphSection:
    """Which graph, what to ask of it, and how to read and divide it.

    Attributes:
        source: a known data set; a file of events or of snapshots; or two files, of the readings
            of sensors and of the edges between them.
        task: `link` asks who meets whom next, `affinity` how a source's next events share out
            among destinations, `node` for values of nodes beside snapshots, `sensor` for readings;
            `auto` takes `sensor` of two files, `node` of JSON, and else `link`.
        columns: names of the columns for `src`, `dst`, `t`, `weight`, `label`, where they differ.
        nodes: a table of features of nodes by `id`.
        split: fractions of the time, or counts of events or steps, for train, validation and
            test, events of one time staying together; a train count of 0 takes all before the
            other two, which end where the data do.
        gap: events or steps between validation and test that neither part has.
        leave_out: events or steps at the end that are not used at all.
        keep: events or steps that are used, the last of those left; None uses all.
        inductive: share of the nodes seen after training that training must not meet.
        unit: seconds in a unit of time.
        queries: events asked about together, from what was known before the first of them: a part
            of the task, for the more there are, the older is what is known.
        negatives: K, random destinations that training sets against each true one.
        past: share of them that are past destinations of the source.
        longest: how far back a window may reach, in units of time.
        period: length of the periods whose shares `affinity` asks for, in units of time.
        averaged: periods, or steps, that a moving average goes over.
        season: steps in a season, for the mean of the same slot and the calendar of sensors.
        scaling: `log` takes values by their logarithm, as counts want; `auto` does so of whole
            numbers that are not negative.
        zero_is_missing: a sensor that reads 0 reports nothing.
    """

    source: str | tuple[str, ...] = ""
    task: Literal["auto", "link", "affinity", "node", "sensor"] = "auto"
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    nodes: str = ""
    split: tuple[int, int, int] | tuple[float, float, float] = (0.7, 0.15, 0.15)
    gap: Annotated[int, Field(ge=0)] = 0
    leave_out: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    keep: Annotated[int, Field(ge=1)] | None = None
    inductive: Annotated[float, Field(ge=0, lt=1)] = 0.0
    unit: Annotated[float, Field(gt=0)] = 1.0
    queries: Annotated[int, Field(ge=1)] = 200
    negatives: Annotated[int, Field(ge=1)] = 20
    past: Annotated[float, Field(ge=0, le=1)] = 0.5
    longest: Annotated[float, Field(gt=0)] | None = None
    period: Annotated[float, Field(ge=0)] = 0.0
    averaged: Annotated[int, Field(ge=1)] = 7
    season: Annotated[int, Field(ge=1)] = 1
    scaling: Literal["auto", "standard", "log"] = "auto"
    zero_is_missing: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphScaler:
    """Bring values to mean 0 and deviation 1 of the training part, and back.

    Attributes:
        mean: of the training part.
        deviation: of the same.
        logarithm: take log1p of values first; forecasts are then never below 0.
    """

    mean: Tensor
    deviation: Tensor
    logarithm: bool

    @classmethod
    def fit(cls, train: Tensor, *, logarithm: bool) -> GraphScaler:
        """Take the statistics of training values, NaN left out."""
        known = train[~train.isnan()].double()
        known = known.log1p() if logarithm else known
        deviation = known.std(correction=0)
        deviation = torch.where(deviation > 0, deviation, 1.0)
        return cls(mean=known.mean().float(), deviation=deviation.float(), logarithm=logarithm)

    def apply(self, values: Tensor) -> Tensor:
        """Scale values."""
        values = values.clamp(min=0).log1p() if self.logarithm else values
        return (values - self.mean) / self.deviation

    def undo(self, values: Tensor) -> Tensor:
        """Bring scaled values to their unit."""
        values = values * self.deviation + self.mean
        return values.expm1().clamp(min=0) if self.logarithm else values


def resolve(section: GraphSection) -> tuple[GraphSection, list[Path]]:
    """Find the files and settle the task.

    Raises:
        UsageError: no source is given, or more files than a graph has.
        NotFoundError: a file is not there.
    """
    if not section.source:
        raise UsageError(
            "The recipe does not say which data: data.source is empty.",
            hint='Put source = "collegemsg" or a path under [data].',
        )
    if isinstance(section.source, str) and section.source in GRAPHS:
        paths = GRAPHS[section.source].paths()
    else:
        given = (section.source,) if isinstance(section.source, str) else section.source
        paths = [_find(name) for name in given]
    if len(paths) > 2:
        raise UsageError(
            f"data.source names {len(paths)} files.",
            hint="Give a file of events, or two of sensors: the readings, then the edges.",
        )
    for path in paths:
        _refuse_binary(path)
    task = section.task
    if task == "auto":
        by_suffix: Task = "node" if paths[0].suffix.lower() == ".json" else "link"
        task = "sensor" if len(paths) == 2 else by_suffix
    if (task == "sensor") != (len(paths) == 2):
        raise UsageError(
            f"The task {task!r} does not go with {len(paths)} files.",
            hint="Sensors have two, the readings and then the edges; all else has one.",
        )
    return replace(section, task=task), paths


def _refuse_binary(path: Path) -> None:
    """Refuse what no reader of graphs reads, by its content.

    Raises:
        DataError: it holds a grid, or is neither text, Parquet nor npz.
    """
    with path.open("rb") as file:
        start = file.read(4096)
    if start.startswith((b"PAR1", b"PK", b"\x93NUMPY")):
        return
    if start.startswith((b"CDF", b"\x89HDF")):
        raise DataError(
            "The file holds a grid, and a graph is asked for.",
            hint="Give events (CSV, Parquet, npz), snapshots (JSON), or the readings of sensors "
            "and their edges (CSV); a grid takes a model of grids: --model predformer",
            file=str(path),
        )
    if b"\0" in start or start.startswith(b"\x1f\x8b"):
        raise DataError(
            "The file is neither text nor Parquet nor npz.",
            hint="Unpack it, or write it as CSV.",
            file=str(path),
        )


def read_events(path: Path, section: GraphSection) -> Events:
    """Read events in any format of the field.

    Raises:
        DataError: they cannot be used.
    """
    if path.suffix.lower() == ".npz":
        return formats.read_arrays(path)
    if path.suffix.lower() == ".csv" and path.with_suffix(".npy").is_file():
        return formats.read_triple(path)
    nodes = _find(section.nodes) if section.nodes else None
    return event_files.read(path, columns=section.columns, nodes=nodes)


def borders(section: GraphSection, steps: int) -> tuple[int, int, int]:
    """Return the step after the last of train, validation and test.

    Raises:
        DataError: a part would be empty.
    """
    return division(section).borders(steps, section.gap)


def division(section: GraphSection) -> Split:
    """Return the split as it is stated."""
    train, val, test = section.split
    return Split(train=train, val=val, test=test)


def used(section: GraphSection, count: int) -> slice:
    """Return the range of events or steps that are used.

    Raises:
        DataError: none is left.
    """
    stop = count - section.leave_out
    if stop <= 0:
        raise DataError(
            f"Of {count:,} events or steps data.leave_out = {section.leave_out:,} leaves none.",
            hint="Leave out fewer.",
        )
    return slice(max(0, stop - section.keep) if section.keep else 0, stop)


def digest_of(parts: Iterable[Tensor | None]) -> str:
    """Name a graph by its content."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(b"-" if part is None else part.contiguous().numpy().tobytes())
    return sha.hexdigest()


def _find(name: str) -> Path:
    # A relative path is meant from here, or else from the data root.
    for base in (Path(), data_root()):
        path = base / Path(name).expanduser()
        if path.is_file():
            return path
    raise NotFoundError(
        f"There is no file {name!r}; looked from here and from {data_root()}.",
        hint=f"Give a path, or a known graph: {', '.join(GRAPHS)}.",
    )
