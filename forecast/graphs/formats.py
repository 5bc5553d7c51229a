"""Formats of the field to events and sensor graphs.

Events: SNAP's text and the ratings of Bitcoin exchanges go through `events.read`; here are the
triple of TGN and DyGLib (`ml_X.csv`, `ml_X.npy`, `ml_X_node.npy`) and arrays as PyG's
`TemporalData` holds them. Sensors: a wide table of values beside a table of edges.

Letters: E events, N nodes, S steps, F features of an event, e edges.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from forecast.errors import DataError, NotFoundError
from forecast.graphs import events as event_files
from forecast.graphs.events import Events
from forecast.graphs.sniff import is_number


@dataclass(frozen=True, kw_only=True, slots=True)
class SensorGraph:
    """Readings of sensors and the edges between them, which stay.

    Attributes:
        values: readings; NaN where nothing was reported.
        ids: N ids, in the order of the columns.
        src: where the edges come from; no self-loops.
        dst: where they go to.
        weight: their weights.
        times: what a time column held, row by row.
        notices: sentences on what was found and done.
    """

    values: Float[Tensor, "S N"]
    ids: tuple[str, ...]
    src: Int[Tensor, " e"]
    dst: Int[Tensor, " e"]
    weight: Float[Tensor, " e"]
    times: pl.Series | None = None
    notices: tuple[str, ...] = ()

    def run(self, part: slice) -> SensorGraph:
        """Keep a run of the steps."""
        return replace(
            self,
            values=self.values[part],
            times=None if self.times is None else self.times[part],
        )


def read_triple(path: str | Path) -> Events:
    """Read `ml_X.csv` with the arrays of features that lie beside it.

    The first row of either array belongs to no event and no node, for both are counted from 1.

    Raises:
        NotFoundError: there is no such file.
        DataError: the array of features has another length.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"There is no file {path}.", hint="Check the path.")
    frame = pl.read_csv(path)
    table = frame.select(src="u", dst="i", t="ts", label="label")
    array = path.with_suffix(".npy")
    if array.is_file():
        features = np.load(array, allow_pickle=False)
        index = frame["idx"].to_numpy()
        if len(features) <= index.max():
            raise DataError(
                f"It has {len(features)} rows, and an event has number {index.max()}.",
                hint="The first row of features belongs to no event; events count from 1.",
                file=str(array),
            )
        # A column of zeros alone stands for no features.
        if features.any():
            names = [f"feat_{number}" for number in range(features.shape[1])]
            table = table.hstack(pl.DataFrame(features[index], schema=names))
    found = event_files.build(table, file=str(path), first_row=2)
    beside = path.with_name(f"{path.stem}_node.npy")
    if beside.is_file():
        known = np.load(beside, allow_pickle=False)
        if known.any() and len(known) > int(found.numbers().max()):
            rows = torch.from_numpy(known).float()[found.numbers()]
            return replace(found, node_features=rows)
    return found


def from_arrays(
    src: Any, dst: Any, t: Any, msg: Any = None, y: Any = None
) -> Events:  # fmt: skip
    """Take events from arrays or tensors, as an object of PyG's `TemporalData` holds them.

    Args:
        src: where they come from.
        dst: where they go to.
        t: when.
        msg: features, a row for each event.
        y: labels.
    """
    columns = {"src": src, "dst": dst, "t": t} | ({} if y is None else {"label": y})
    frame = pl.DataFrame({name: np.asarray(column) for name, column in columns.items()})
    if msg is not None:
        features = np.asarray(msg).reshape(len(frame), -1)
        names = [f"feat_{number}" for number in range(features.shape[1])]
        frame = frame.hstack(pl.DataFrame(features, schema=names))
    return event_files.build(frame)


def read_arrays(path: str | Path) -> Events:
    """Read an `.npz` with `src`, `dst`, `t`, and where they are known `msg` and `y`.

    Raises:
        NotFoundError: there is no such file.
        DataError: an array is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"There is no file {path}.", hint="Check the path.")
    with np.load(path, allow_pickle=False) as arrays:
        missing = {"src", "dst", "t"} - set(arrays.files)
        if missing:
            raise DataError(
                f"There is no array {min(missing)!r}; there are {', '.join(arrays.files)}.",
                hint="Save src, dst and t.",
                file=str(path),
            )
        found = {name: arrays[name] for name in arrays.files if name in ("msg", "y")}
        return from_arrays(arrays["src"], arrays["dst"], arrays["t"], **found)


def read_sensors(
    readings: str | Path, adjacency: str | Path, *, zero_is_missing: bool = True
) -> SensorGraph:
    """Read a wide table of sensors and the edges between them.

    Edges name sensors by their ids or, where no id matches, by the number of their column. An edge
    of a sensor that the readings lack, and a self-loop, are left out and counted.

    Args:
        readings: a column for each sensor, and where there is one a first column of times.
        adjacency: a table `src, dst, weight`, the weight may be absent; or a matrix of weights
            without a header, in the order of the columns, of which cells of 0 are no edges.
        zero_is_missing: 0 means that nothing was reported, as it does for speeds.

    Raises:
        NotFoundError: there is no such file.
        DataError: a cell is no number, or no edge has both its sensors.
    """
    readings, adjacency = Path(readings), Path(adjacency)
    for path in (readings, adjacency):
        if not path.is_file():
            raise NotFoundError(f"There is no file {path}.", hint="Check the path.")
    frame = pl.read_csv(readings, infer_schema_length=None)
    times = None
    if frame.columns[0].lower() in ("time", "date", "timestamp", "") or (
        frame.dtypes[0] == pl.String
    ):
        times, frame = frame.to_series(0), frame[:, 1:]
    for name, dtype in zip(frame.columns, frame.dtypes, strict=True):
        if not dtype.is_numeric():
            raise DataError(
                "It holds cells that are no numbers.",
                hint="Leave missing cells empty.",
                file=str(readings), column=name,
            )  # fmt: skip
    values = torch.from_numpy(frame.cast(pl.Float32).to_numpy().copy())
    notices: list[str] = []
    if zero_is_missing:
        zeros = values == 0
        if zeros.any():
            notices.append(f"{int(zeros.sum())} readings of 0 are taken as missing.")
            values = values.masked_fill(zeros, torch.nan)
    ids = tuple(frame.columns)
    found, weight, first = _edges(adjacency, ids)
    known = (found >= 0).all(1)
    loops = known & (found[:, 0] == found[:, 1])
    if not known.any():
        raise DataError(
            f"No edge has both its sensors among the readings; the first is {first}.",
            hint="Edges name sensors by the ids in the header, or by the numbers of columns.",
            file=str(adjacency),
        )
    if not known.all():
        notices.append(f"{int((~known).sum())} edges name a sensor without readings: left out.")
    if loops.any():
        notices.append(f"{int(loops.sum())} edges from a sensor to itself are left out.")
    kept = known & ~loops
    return SensorGraph(
        values=values,
        ids=ids,
        src=found[kept, 0],
        dst=found[kept, 1],
        weight=weight[kept],
        times=times,
        notices=tuple(notices),
    )


def _edges(
    path: Path, ids: tuple[str, ...]
) -> tuple[Int[Tensor, "e 2"], Float[Tensor, " e"], list[str]]:
    """Return the sensors of each edge by number, -1 if unknown, and what the first edge names."""
    with path.open(encoding="utf-8-sig") as file:
        cells = file.readline().strip().split(",")
    if len(cells) == len(ids) > 3 and all(is_number(cell) for cell in cells):
        frame = pl.read_csv(path, has_header=False).cast(pl.Float32)
        matrix = torch.from_numpy(frame.to_numpy().copy())
        found = matrix.nonzero()
        return found, matrix[found[:, 0], found[:, 1]].clone(), []
    table = pl.read_csv(path)
    ends = [table.to_series(place).cast(pl.String) for place in (0, 1)]
    first = [str(end[0]) for end in ends] if len(table) else []
    places = {name: place for place, name in enumerate(ids)}
    if not ends[0].is_in(list(places)).any():
        places = {str(place): place for place in range(len(ids))}
    numbers = [end.replace_strict(places, default=-1, return_dtype=pl.Int64) for end in ends]
    found = torch.from_numpy(pl.DataFrame(numbers).to_numpy().copy())
    weight = torch.ones(len(table))
    if table.width > 2:
        weight = torch.from_numpy(table.to_series(2).cast(pl.Float32).to_numpy().copy())
    return found, weight, first
