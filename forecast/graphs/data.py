"""Graphs: from files to batches, whatever is asked of them.

`load` gives one of four classes that a model and an evaluation use alike: links and shares of
events (`forecast.graphs.links`), values of nodes and of sensors (`forecast.graphs.values`).

Letters: W events of a window, L lookback, H horizon.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from forecast.batch import EventSpec
from forecast.errors import DataError, UsageError
from forecast.graphs import events as event_files
from forecast.graphs import formats, links, values
from forecast.graphs.formats import SensorGraph
from forecast.graphs.header import EventHeader, GraphHeader, ValueHeader
from forecast.graphs.links import LinkData, ShareData
from forecast.graphs.section import GRAPHS, GraphSection, read_events, resolve, used
from forecast.graphs.snapshots import Snapshots, read_snapshots
from forecast.graphs.values import NodeData, SensorData

__all__ = ["GRAPHS", "GraphData", "GraphSection", "as_test_set", "inputs", "load", "read_values"]

GraphData = LinkData | ShareData | NodeData | SensorData

# Events of a window, and steps of one, where neither a recipe nor a data set says.
_EVENTS, _STEPS = 4096, 12


def load(
    section: GraphSection,
    *,
    lookback: int | None = None,
    horizon: int | None = None,
    device: torch.device | str = "cpu",
    arrays: Mapping[str, Tensor] | None = None,
) -> GraphData:
    """Read and divide a graph for training, all statistics taken from the training part.

    Args:
        section: which data, and how.
        lookback: W of events, L of values; None takes that of the data set, or 4,096 and 12.
        horizon: H of values; None takes that of the data set, or 1.
        device: where batches go.
        arrays: those of a model already trained, to be used instead of taking statistics.

    Raises:
        DataError: the files cannot be used, or a part is empty.
        NotFoundError: a file is not there.
        UsageError: the section asks for what its files do not hold, or the device is no CPU.
    """
    _on_cpu(device)
    known = GRAPHS.get(section.source) if isinstance(section.source, str) else None
    section, paths = resolve(section)
    if section.task in ("link", "affinity"):
        window = lookback or (known.lookback if known else _EVENTS)
        events = read_events(paths[0], section)
        events = events.run(used(section, len(events)))
        return links.build(events, section, lookback=window)
    graph = read_values(paths, section)
    return values.build(
        graph.run(used(section, len(graph.values))),
        section,
        lookback=lookback or (known.lookback if known else _STEPS),
        horizon=horizon or (known.horizon if known else 1),
        arrays=arrays,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a look at the files of a graph tells.

    Attributes:
        section: how they are read, its task settled.
        events: events, or 0 of values.
        nodes: nodes, or sensors.
        steps: steps of values, or 0 of events.
        first: the first time, and
        last: the last one, as text.
        edges: edges of all steps, or of sensors.
    """

    section: GraphSection
    events: int = 0
    nodes: int
    steps: int = 0
    first: str = ""
    last: str = ""
    edges: int = 0


def described(section: GraphSection) -> tuple[tuple[str, ...], Found]:
    """Read a graph for a look at it; return what is to be said of the files, and what they hold.

    Raises:
        DataError: the files cannot be used.
        NotFoundError: a file is not there.
    """
    section, paths = resolve(section)
    if section.task in ("link", "affinity"):
        events = read_events(paths[0], section)
        first, last = (event_files.moment(events, number) for number in (0, -1))
        found = Found(
            section=section, events=len(events), nodes=events.nodes, first=first, last=last
        )
        return events.notices, found
    graph = read_values(paths, section)
    steps, nodes = graph.values.shape
    return graph.notices, Found(section=section, nodes=nodes, steps=steps, edges=len(graph.src))


def as_test_set(
    header: GraphHeader,
    arrays: Mapping[str, Tensor],
    spec: EventSpec,
    source: str | tuple[str, ...] | Path,
    device: torch.device | str = "cpu",
    *,
    history: pl.DataFrame | None = None,
) -> GraphData:
    """Make all of a file that has a past something to score, for a trained model.

    Args:
        header: of the training data.
        arrays: what `arrays` gave.
        spec: the shape of the task.
        source: the file, or two of sensors.
        device: where batches go.
        history: the events kept with the model; those of the file that are later are then scored
            with them known, and if none is, the file alone.
    """
    _on_cpu(device)
    section, paths = resolve(section_of(header, source))
    if isinstance(header, EventHeader):
        events, first = read_events(paths[0], section), 0
        check_features(events.feature_names, header, str(paths[0]))
        if history is not None:
            kept = event_files.build(history)
            if bool((events.time > kept.time[-1]).any()):
                first = len(kept)
                events, _ = links.appended(kept, events)
        events = links.numbered(events, header)
        return links.build(events, section, lookback=spec.lookback, spec=spec, first=first)
    graph = read_values(paths, section)
    check_ids(graph, header, str(paths[0]))
    return values.build(
        graph, section, lookback=spec.lookback, horizon=spec.horizon, spec=spec, arrays=arrays
    )


def inputs(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what a model's class takes beside config and spec, from the arrays kept with it."""
    return values.under("inputs.", arrays)


def section_of(header: GraphHeader, source: str | tuple[str, ...] | Path) -> GraphSection:
    """Read a later file as the training data were read."""
    options = asdict(header.options)
    if isinstance(header, ValueHeader):
        options["scaling"] = "log" if header.logarithm else "standard"
    return GraphSection(
        source=str(source) if isinstance(source, Path) else source, task=header.task, **options
    )


def check_features(names: tuple[str, ...], header: EventHeader, file: str) -> None:
    """Refuse events that lack the features a model was trained on, or have others.

    Raises:
        DataError: they differ.
    """
    if names != header.features:
        wanted = ", ".join(header.features) or "no features"
        raise DataError(
            f"Events have {', '.join(names) or 'no features'}; the model takes {wanted}.",
            hint="Give the columns feat_* that the model was trained on, in their order.",
            file=file,
        )


def check_ids(graph: Snapshots | SensorGraph, header: ValueHeader, file: str) -> None:
    """Refuse nodes that a model does not know.

    Raises:
        DataError: they are others, or in another order.
    """
    stated = list(header.ids)
    found = list(graph.ids)
    if found == stated:
        return
    odd = next((name for name in found if name not in stated), "")
    about = f"{odd!r} is none of them" if odd else "some are missing or in another order"
    raise DataError(
        f"There are {len(found)} nodes, and the model was trained on {len(stated)}: {about}.",
        hint="Give the nodes the model was trained on, in their order.",
        file=file,
    )


def read_values(paths: list[Path], section: GraphSection) -> Snapshots | SensorGraph:
    """Read values of nodes with their edges, of sensors or of snapshots."""
    if section.task == "sensor":
        return formats.read_sensors(*paths, zero_is_missing=section.zero_is_missing)
    return read_snapshots(paths[0])


def _on_cpu(device: torch.device | str) -> None:
    if torch.device(device).type != "cpu":
        raise UsageError(
            "Batches of graphs are made on the CPU.", hint="Leave out the device, or say cpu."
        )
