"""Values of nodes step by step, beside edges that change or stay: the JSON of PyG Temporal.

Three forms are read: values under `y`, `FX` or `X` with `edge_mapping` or `edges`, as chickenpox
and england_covid have them; a snapshot under each number, as twitter_tennis has; nodes and links
with ids, as montevideo_bus has.

Letters: S steps, N nodes, e edges.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from forecast.errors import DataError, NotFoundError

_FORMS = (
    "values of nodes under 'y', 'FX' or 'X' with 'edges' or 'edge_mapping', snapshots under '0', "
    "'1', ..., or 'nodes' with 'links'"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshots:
    """Values of nodes, step by step, and the edges of each step.

    Attributes:
        values: the value of each node; NaN where it is missing.
        src: where the edges come from, step after step.
        dst: where they go to.
        weight: their weights.
        offsets: the first edge of each step, and e.
        names: ids of the nodes; empty where they are numbers from 0 on.
        notices: sentences on what was found and done.
    """

    values: Float[Tensor, "S N"]
    src: Int[Tensor, " e"]
    dst: Int[Tensor, " e"]
    weight: Float[Tensor, " e"]
    offsets: Int[Tensor, " S1"]
    names: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the nodes."""
        return self.names or tuple(map(str, range(self.values.shape[1])))

    def run(self, part: slice) -> Snapshots:
        """Keep a run of the steps."""
        offsets = self.offsets[part.start : part.stop + 1]
        edges = slice(int(offsets[0]), int(offsets[-1]))
        return replace(
            self,
            values=self.values[part],
            src=self.src[edges],
            dst=self.dst[edges],
            weight=self.weight[edges],
            offsets=offsets - offsets[0],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Held:
    """What a file holds: values by step, and of each step the edges and their weights."""

    values: Sequence[Any]
    edges: Sequence[Sequence[Sequence[int]]]
    weights: Sequence[Sequence[float] | None]
    names: tuple[str, ...] = ()


def read_snapshots(path: str | Path) -> Snapshots:
    """Read the JSON of PyG Temporal.

    Steps are named by numbers as text, and are put in order.

    Raises:
        NotFoundError: there is no such file.
        DataError: it is of none of the forms, or an edge leads to a node without values.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"There is no file {path}.", hint="Check the path.")
    try:
        held = _held(json.loads(path.read_text(encoding="utf-8")), path)
        values = torch.tensor(held.values, dtype=torch.float32)
        steps, nodes = values.shape[0], values[0].numel() if len(values) else 0
        values = values.reshape(steps, nodes)
        pairs = torch.tensor(list(chain(*held.edges)), dtype=torch.int64).view(-1, 2)
        weight = torch.tensor(
            [
                number
                for step, given in zip(held.edges, held.weights, strict=True)
                for number in (given if given is not None else [1.0] * len(step))
            ],
            dtype=torch.float32,
        )
    # Whatever the form lacks: a key, a level of nesting, equal lengths, numbers.
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError,
            RuntimeError, OverflowError) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__
        raise DataError(
            f"The file cannot be read as snapshots of a graph: {reason}.",
            hint=f"It holds {_FORMS}.",
            file=str(path),
        ) from error
    if not values.numel():
        raise DataError("There are no values of nodes.", hint=f"It holds {_FORMS}.", file=str(path))
    if len(held.edges) != steps or len(weight) != len(pairs):
        raise DataError(
            f"There are edges of {len(held.edges)} steps and values of {steps}, {len(pairs)} edges "
            f"and {len(weight)} weights.",
            hint="Each step needs its edges, and each edge its weight.",
            file=str(path),
        )
    if len(pairs) and not (int(pairs.min()) >= 0 and int(pairs.max()) < nodes):
        odd = int(pairs.max()) if int(pairs.max()) >= nodes else int(pairs.min())
        raise DataError(
            f"An edge leads to node {odd}; there are values of {nodes}.",
            hint="Nodes count from 0.",
            file=str(path),
        )
    loops = int((pairs[:, 0] == pairs[:, 1]).sum())
    return Snapshots(
        values=values,
        src=pairs[:, 0].contiguous(),
        dst=pairs[:, 1].contiguous(),
        weight=weight,
        offsets=torch.tensor([0, *(len(step) for step in held.edges)]).cumsum(0),
        names=held.names,
        notices=(f"{loops} edges go from a node to itself; they are kept.",) if loops else (),
    )


def _held(found: Any, path: Path) -> _Held:
    """Bring a document of any of the forms to one."""
    if isinstance(found, dict):
        if "nodes" in found and "links" in found:
            return _of_links(found)
        # england_covid has `time_periods` too, and its snapshots under `edge_mapping`.
        if any(key.isdigit() for key in found):
            return _of_numbers(found)
        rows = next((found[name] for name in ("y", "FX", "X") if name in found), None)
        if rows is not None and "edge_mapping" in found:
            mapping = found["edge_mapping"]
            named: dict[str, Any] = mapping["edge_index"]
            order = sorted(named, key=int)[: len(rows)]
            weights = mapping.get("edge_weight", {})
            return _Held(
                values=rows,
                edges=[named[key] for key in order],
                weights=[weights.get(key) for key in order],
            )
        if rows is not None and "edges" in found:
            count = len(rows)
            return _Held(
                values=rows, edges=[found["edges"]] * count, weights=[found.get("weights")] * count
            )
    there = f"there are {', '.join(found)}" if isinstance(found, dict) else "it is no object"
    raise DataError(
        f"There are no values of nodes with edges; {there[:200]}.",
        hint=f"The file holds {_FORMS}.",
        file=str(path),
    )


def _of_numbers(found: dict[str, Any]) -> _Held:
    """Read a snapshot under each number: `edges`, `weights`, `y` or the first number of `X`."""
    keys = sorted((key for key in found if key.isdigit()), key=int)
    steps = [found[key] for key in keys[: int(found.get("time_periods", len(keys)))]]
    return _Held(
        values=[step["y"] if "y" in step else [row[0] for row in step["X"]] for step in steps],
        edges=[step["edges"] for step in steps],
        weights=[step.get("weights") for step in steps],
    )


def _of_links(found: dict[str, Any]) -> _Held:
    """Read nodes with a series `y` each, and links between their ids."""
    nodes = found["nodes"]
    key = next(name for name in ("bus_stop", "id", "name") if name in nodes[0])
    place = {node[key]: number for number, node in enumerate(nodes)}
    edges = [[place[link["source"]], place[link["target"]]] for link in found["links"]]
    weights = [link.get("weight", 1.0) for link in found["links"]]
    series = [node["y"] if "y" in node else node["X"]["y"] for node in nodes]
    values = list(zip(*series, strict=True))
    return _Held(
        values=values,
        edges=[edges] * len(values),
        weights=[weights] * len(values),
        names=tuple(str(node[key]) for node in nodes),
    )
