"""Events between nodes in time: `read` takes a file to sorted arrays, ids kept as they are given.

Rules for what files hold, each counted in `Events.notices`: rows out of order are sorted by time,
those of one time staying in the order of the file; self-loops and repeated events are kept, they
are data; times may be negative, for only differences count. A missing id or a time that is no
number is a `DataError` with its row.

Letters: E events, N nodes, F features of an event, G features of a node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from forecast.errors import DataError, NotFoundError
from forecast.graphs.sniff import JODIE_FEATURES, ROLES, cells_of, is_number

_COLUMNAR = (".parquet", ".pq")
_POSITIONS = ("src", "dst", "t", "weight", "label")


@dataclass(frozen=True, kw_only=True, slots=True)
class Events:
    """Events in order of time; nodes are numbers into `ids`.

    Attributes:
        src: the node an event comes from.
        dst: the node it goes to.
        time: when, in the unit of the file; dates become seconds since 1970.
        ids: N ids as they were given, ascending.
        weight: the size of an event.
        features: further numbers of an event.
        label: a class or value attached to an event.
        node_features: what is known of a node at all times, in the order of `ids`.
        feature_names: F names.
        dated: times were given as dates.
        notices: sentences on what was found and done.
    """

    src: Int[Tensor, " E"]
    dst: Int[Tensor, " E"]
    time: Float[Tensor, " E"]
    ids: pl.Series
    weight: Float[Tensor, " E"] | None = None
    features: Float[Tensor, "E F"] | None = None
    label: Float[Tensor, " E"] | None = None
    node_features: Float[Tensor, "N G"] | None = None
    feature_names: tuple[str, ...] = ()
    dated: bool = False
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.time)

    @property
    def nodes(self) -> int:
        """Number of nodes (N)."""
        return len(self.ids)

    def take(self, kept: Bool[Tensor, " E"]) -> Events:
        """Keep some of the events, and the numbers of all nodes."""
        names = ("src", "dst", "time", "weight", "features", "label")
        parts = {name: getattr(self, name) for name in names}
        return replace(
            self, **{name: part[kept] for name, part in parts.items() if part is not None}
        )

    def run(self, part: slice) -> Events:
        """Keep a run of the events, as if the file held no others.

        Nodes that none of them has are forgotten, but for those with features, which stay known.
        """
        inside = torch.zeros(len(self), dtype=torch.bool)
        inside[part] = True
        found = self.take(inside)
        if self.node_features is not None or bool(inside.all()):
            return found
        there = torch.unique(torch.cat([found.src, found.dst]))
        return replace(
            found,
            ids=self.ids.gather(there.numpy()),
            src=torch.searchsorted(there, found.src),
            dst=torch.searchsorted(there, found.dst),
        )

    def codes(self, ids: pl.Series) -> Int[Tensor, " n"]:
        """Turn ids into node numbers; -1 stands for one that no event has."""
        if self.ids.dtype != ids.dtype:
            # Ids typed at a command line are text; one that is no number is none of these.
            ids = ids.cast(self.ids.dtype, strict=False)
        known = {name: number for number, name in enumerate(self.ids.to_list())}
        return torch.tensor([known.get(name, -1) for name in ids.to_list()], dtype=torch.int64)

    def numbers(self) -> Int[Tensor, " N"]:
        """Return a number for each node, independent of others: an integer id is its number."""
        if self.ids.dtype.is_integer():
            return _tensor(self.ids, torch.int64)
        return torch.arange(self.nodes)


def moment(events: Events, number: int) -> str:
    """Return the time of an event as text."""
    time = float(events.time[number])
    return (
        f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S}" if events.dated else f"{time:.15g}"
    )


def read(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    nodes: str | Path | None = None,
) -> Events:
    """Read events from CSV, text or Parquet.

    Columns are found by name, of a file without a header by position: `src, dst, t`, then a weight
    and a label. Columns named `feat_*` are features.

    Args:
        path: the file.
        columns: names of columns for `src`, `dst`, `t`, `weight`, `label`, where they differ.
        nodes: a table with a column `id`, whose other columns are features of nodes.

    Raises:
        NotFoundError: there is no such file.
        DataError: a column is missing, or a cell cannot be used.
    """
    path = Path(path)
    frame, header = _load(path)
    if frame.width < 3:
        raise DataError(
            f"An event needs src, dst and t; there are {frame.width} columns.",
            hint="Separate the cells by commas, tabs or single blanks.",
            file=str(path), row=1,
        )  # fmt: skip
    names = (
        _roles(frame, columns or {}, path)
        if header
        else dict(zip(_POSITIONS, frame.columns, strict=False))
    )
    features = [name for name in frame.columns if name.lower().startswith("feat_")]
    table = frame.select(
        **{role: pl.col(name) for role, name in names.items()},
        **{name: pl.col(name) for name in features},
    )
    told = "Users are u0, u1, ..., and items i0, i1, ...: both count from 0 in the file."
    notices = (told,) if _is_jodie(path) else ()
    return build(table, file=str(path), first_row=1 + header, nodes=nodes, notices=notices)


def build(
    table: pl.DataFrame,
    *,
    file: str | None = None,
    first_row: int = 1,
    nodes: str | Path | None = None,
    notices: tuple[str, ...] = (),
) -> Events:
    """Check a table of events, sort it and number its nodes.

    Args:
        table: columns `src`, `dst`, `t`, and where they are known `weight`, `label`, `feat_*`.
        file: what errors call the table.
        first_row: the line of the file that the first row comes from.
        nodes: a table of node features by `id`.
        notices: what was said of it before.

    Raises:
        DataError: an id or a time is missing, a number is not finite, or there is no event.
    """
    if not len(table):
        raise DataError("There are no events.", hint="Give src, dst and t in rows.", file=file)
    found = list(notices)
    for role in ("src", "dst"):
        missing = table[role].is_null().arg_max() if table[role].null_count() else None
        if missing is not None:
            raise DataError(
                "An event has no id.",
                hint="Fill the id in, or take the row out.",
                file=file, row=first_row + missing, column=role,
            )  # fmt: skip
    time, dated = _times(table["t"], file, first_row)
    order = np.argsort(time, kind="stable")
    moved = int((np.diff(time) < 0).sum())
    if moved:
        found.append(f"{moved} of {len(time)} events come before their predecessor: sorted.")
        table, time = table[order], time[order]
    if time[0] < 0:
        found.append(f"{int((time < 0).sum())} events have negative times; differences count.")
    ends = _same_type(table["src"], table["dst"])
    ids = pl.concat(ends).unique().sort()
    src, dst = (_tensor(ids.search_sorted(end), torch.int64) for end in ends)
    loops = int((src == dst).sum())
    if loops:
        found.append(f"{loops} events go from a node to itself; they are kept.")
    keys = torch.stack([src, dst, torch.from_numpy(time).view(torch.int64)], 1)
    repeated = len(keys) - len(torch.unique(keys, dim=0))
    if repeated:
        found.append(f"{repeated} events repeat another with equal ends and time; they are kept.")
    numbers = {
        name: _finite(table[name], file, name, order + first_row)
        for name in table.columns
        if name not in ("src", "dst", "t")
    }
    names = tuple(name for name in numbers if name.startswith("feat_"))
    return Events(
        src=src,
        dst=dst,
        time=torch.from_numpy(time),
        ids=ids.alias("id"),
        weight=numbers.get("weight"),
        features=torch.stack([numbers[name] for name in names], 1) if names else None,
        label=numbers.get("label"),
        node_features=None if nodes is None else _node_features(Path(nodes), ids),
        feature_names=names,
        dated=dated,
        notices=tuple(found),
    )


def _load(path: Path) -> tuple[pl.DataFrame, bool]:
    if not path.is_file():
        raise NotFoundError(f"There is no file {path}.", hint="Check the path.")
    if path.suffix.lower() in _COLUMNAR:
        return pl.read_parquet(path), True
    try:
        with path.open(encoding="utf-8-sig") as file:
            cells, separator = cells_of(file.readline())
        if cells[-1] == JODIE_FEATURES:
            return _jodie(path, cells), True
        header = not any(is_number(cell) for cell in cells)
        return pl.read_csv(
            path, separator=separator, has_header=header, infer_schema_length=None
        ), header  # fmt: skip
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"It is no table of events: {reason}", hint="Give src, dst, t.", file=str(path)
        ) from error


def _is_jodie(path: Path) -> bool:
    if path.suffix.lower() in _COLUMNAR:
        return False
    with path.open(encoding="utf-8-sig") as file:
        return cells_of(file.readline())[0][-1] == JODIE_FEATURES


def _jodie(path: Path, header: list[str]) -> pl.DataFrame:
    """Read a table of JODIE, which names all features by one word in its header.

    Users and items both count from 0 in it: they become `u0` and `i0`, nodes of their own.
    """
    frame = pl.read_csv(path, skip_rows=1, has_header=False, infer_schema_length=None)
    known = header[:-1]
    features = [f"feat_{number}" for number in range(frame.width - len(known))]
    frame.columns = [*known, *features]
    names = {
        role: next((n for n in known if n.lower() in ROLES[role]), "") for role in ("src", "dst")
    }
    if not all(names.values()):
        raise DataError(
            f"There is no column for {'src' if not names['src'] else 'dst'}; there are "
            f"{', '.join(known)}.",
            hint="A table of JODIE begins with user_id,item_id,timestamp,state_label.",
            file=str(path),
        )
    return frame.with_columns(
        pl.format(mark + "{}", pl.col(name)).alias(name)
        for mark, name in (("u", names["src"]), ("i", names["dst"]))
    )


def _roles(frame: pl.DataFrame, columns: Mapping[str, str], path: Path) -> dict[str, str]:
    lower = {name.lower(): name for name in reversed(frame.columns)}
    names: dict[str, str] = {}
    for role, known in ROLES.items():
        name = columns.get(role) or next((lower[word] for word in known if word in lower), None)
        if (name is None and role in ("src", "dst", "t")) or (name and name not in frame.columns):
            raise DataError(
                f"There is no column for {role}; there are {', '.join(frame.columns)}.",
                hint=f"Call it {known[0]!r}, or say which column it is.",
                file=str(path),
            )
        if name:
            names[role] = name
    return names


def _times(column: pl.Series, file: str | None, first_row: int) -> tuple[np.ndarray, bool]:
    """Return times as float64 (seconds since 1970, to a microsecond), and whether dates came."""
    given = column
    if column.dtype == pl.String:
        number = column.cast(pl.Float64, strict=False)
        if number.null_count():
            try:
                number = column.str.to_datetime(strict=False)
            except pl.exceptions.ComputeError:
                number = number.fill_null(float("nan"))
        column = number
    dated = column.dtype.is_temporal()
    if dated:
        column = column.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 1e6
    time = column.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy().copy()
    bad = ~np.isfinite(time)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{given[row]!r} is no time.",
            hint="Give numbers or ISO dates.",
            file=file, row=first_row + row, column="t",
        )  # fmt: skip
    return time, dated


def _finite(
    column: pl.Series, file: str | None, name: str, rows: np.ndarray
) -> Float[Tensor, " E"]:
    values = column.cast(pl.Float32, strict=False).fill_null(float("nan")).to_numpy().copy()
    bad = ~np.isfinite(values)
    if bad.any():
        place = int(bad.argmax())
        raise DataError(
            f"{column[place]!r} is no finite number.",
            hint="Fill the cell in, or leave the column out.",
            file=file, row=int(rows[place]), column=name,
        )  # fmt: skip
    return torch.from_numpy(values)


def _same_type(src: pl.Series, dst: pl.Series) -> tuple[pl.Series, pl.Series]:
    if src.dtype.is_integer() and dst.dtype.is_integer():
        return src.cast(pl.Int64), dst.cast(pl.Int64)
    return src.cast(pl.String), dst.cast(pl.String)


def _node_features(path: Path, ids: pl.Series) -> Float[Tensor, "N G"]:
    frame, _ = _load(path)
    if "id" not in frame.columns:
        raise DataError("A table of nodes needs a column 'id'.", hint="Add it.", file=str(path))
    frame = frame.with_columns(pl.col("id").cast(ids.dtype)).unique("id", keep="last")
    joined = pl.DataFrame({"id": ids}).join(frame, on="id", how="left", maintain_order="left")
    # A node that the table lacks has the mean of the others.
    rest = joined.drop("id").cast(pl.Float32)
    return torch.from_numpy(rest.fill_null(strategy="mean").fill_null(0.0).to_numpy().copy())


def _tensor(column: pl.Series, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(column.to_numpy().astype("int64")).to(dtype)
