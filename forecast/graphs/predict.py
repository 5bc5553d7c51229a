"""Forecasts on graphs from what is known up to a time, as tables with the ids of the data.

Columns: links `src, rank, dst, score, probability, known`; shares `src, rank, dst, share, known`;
nodes `step, id, value`; sensors a row for each step and a column for each sensor, as they came.
`known` is whether the source had any event before.

Letters: L lookback, H horizon, B queries, K candidates, N nodes.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn

from forecast.batch import EventBatch, EventSpec, SeriesBatch
from forecast.errors import DataError, UsageError
from forecast.graphs import events as event_files
from forecast.graphs import links
from forecast.graphs import values as graph_values
from forecast.graphs.batches import AffinityBatches, window
from forecast.graphs.data import check_features, check_ids, read_values, section_of
from forecast.graphs.events import Events
from forecast.graphs.header import EventHeader, GraphHeader, ValueHeader
from forecast.graphs.history import EventHistory
from forecast.graphs.section import GraphSection, read_events, resolve
from forecast.graphs.values import NodeData, SensorData

# Pairs that are scored at once.
_PAIRS = 50_000


@dataclass(frozen=True, kw_only=True)
class EventContext:
    """The events before a time.

    Attributes:
        events: all strictly before `at`.
        at: the time that is asked about.
        spec: the shape of the task.
        section: how events are read and counted.
        notices: sentences for the user.
    """

    events: Events
    at: float
    spec: EventSpec
    section: GraphSection
    notices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ValueContext:
    """The last steps of a sequence of values.

    Attributes:
        batch: one window without a target.
        data: the whole sequence.
        notices: sentences for the user.
    """

    batch: EventBatch | SeriesBatch
    data: NodeData | SensorData
    notices: tuple[str, ...]


GraphContext = EventContext | ValueContext


def on_cpu(device: str) -> None:
    """Refuse a device other than the CPU.

    Raises:
        UsageError: another is named.
    """
    if device not in ("auto", "cpu"):
        raise UsageError(
            f"Forecasts of graphs are made on the CPU, not on {device}.", hint="Leave out --device."
        )


def read_context(
    header: GraphHeader,
    arrays: Mapping[str, Tensor],
    spec: EventSpec,
    source: str | Path | tuple[str, ...] | None = None,
    *,
    history: pl.DataFrame | None = None,
    at: str | float | None = None,
) -> GraphContext:
    """Read what a trained model needs to forecast.

    Args:
        header: of the training data.
        arrays: what `arrays` gave.
        spec: the shape of the task.
        source: a file of events that go on from the history, or stand alone; of values, the file
            whose last steps are gone on from, of sensors two.
        history: the events kept with the model.
        at: the time to forecast at, a number or a date; None is right after the last event.

    Raises:
        DataError: there is nothing before the time, or too little.
        UsageError: there is neither a file nor a history, or the time cannot be read.
    """
    if isinstance(header, EventHeader):
        return _events(header, spec, source, history, at)
    if source is None:
        raise UsageError(
            "Values are forecast from their last steps.", hint="Give a file that ends with them."
        )
    if at is not None:
        raise UsageError(
            "Values are forecast from where their file ends.", hint="Leave out the time."
        )
    return _values(header, arrays, spec, source)


@torch.no_grad()
def predict(
    model: nn.Module,
    context: GraphContext,
    *,
    sources: Sequence[Any] | None = None,
    top: int = 20,
) -> pl.DataFrame:
    """Forecast, and lay the answers out as a table.

    Args:
        model: a trained one.
        context: what it knows.
        sources: ids to ask about, also such that no event has; None asks about every node that an
            event came from. Values are always of all nodes.
        top: destinations to name for each source, the best first.
    """
    model.eval()
    if isinstance(context, ValueContext):
        return _value_table(model, context)
    events = context.events
    if sources is None:
        codes = torch.unique(events.src)
        asked = events.ids.gather(codes.numpy())
    else:
        asked = pl.Series("src", list(sources)).unique(maintain_order=True)
        codes = events.codes(asked)
    if context.spec.task == "affinity":
        return _share_table(model, context, asked, codes, top)
    return _link_table(model, context, asked, codes, top)


def predict_frame(
    model: nn.Module,
    header: GraphHeader,
    arrays: Mapping[str, Tensor],
    spec: EventSpec,
    frame: pl.DataFrame,
    *,
    history: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Forecast links or shares after events in memory, as the model server does.

    Args:
        model: a trained one.
        header: of the training data.
        arrays: what `arrays` gave.
        spec: the shape of the task.
        frame: events that go on from the history, as a file has them.
        history: the events kept with the model.

    Raises:
        UsageError: the model forecasts values, which come with edges and not as one table.
    """
    if spec.task not in ("link", "affinity"):
        raise UsageError(
            "Values on graphs come with their edges, and are forecast from files alone.",
            hint="forecast predict MODEL FILE",
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.parquet"
        frame.write_parquet(path)
        context = read_context(header, arrays, spec, path, history=history)
    return predict(model, context)


def _events(
    header: EventHeader,
    spec: EventSpec,
    source: str | Path | tuple[str, ...] | None,
    history: pl.DataFrame | None,
    at: str | float | None,
) -> EventContext:
    section = section_of(header, source or "history")
    notices: list[str] = []
    kept = None if history is None else event_files.build(history)
    if source is not None:
        section, paths = resolve(section)
        events = read_events(paths[0], section)
        check_features(events.feature_names, header, str(paths[0]))
        notices += events.notices
        if kept is not None:
            events, left_out = links.appended(kept, events)
            if left_out:
                notices.append(
                    f"{left_out} events are not later than the last one kept with the model: left "
                    "out."
                )
    elif kept is not None:
        events = kept
    else:
        raise UsageError(
            "There is neither a file of events nor a history.", hint="Give a file of events."
        )
    events = links.numbered(events, header)
    last = float(events.time[-1])
    now = math.nextafter(last, math.inf) if at is None else _instant(at, header.dated)
    known = events.time < now
    if not bool(known.any()):
        raise DataError(
            f"No event is before {at}; the first is at {float(events.time[0]):.15g}.",
            hint="Give a later time, or earlier events.",
        )
    if not bool(known.all()):
        notices.append(f"{int((~known).sum())} events at or after {at} are left out.")
    return EventContext(
        events=events.take(known), at=now, spec=spec, section=section, notices=tuple(notices)
    )


def _instant(at: str | float, dated: bool) -> float:
    try:
        number = float(at)
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number
    try:
        instant = pl.Series([at]).str.to_datetime(time_unit="us")
    except pl.exceptions.PolarsError:
        instant = None
    if not dated or instant is None:
        allowed = "an ISO date" if dated else "a number, as times of these events are"
        raise UsageError(f"{at!r} is not {allowed}.", hint="Change the time.")
    return float(instant.dt.epoch("us")[0]) / 1e6


def _link_table(
    model: nn.Module, context: EventContext, asked: pl.Series, codes: Tensor, top: int
) -> pl.DataFrame:
    events, spec = context.events, context.spec
    history = EventHistory(
        events.src, events.dst, events.time, nodes=events.nodes, unit=context.section.unit
    )
    candidates = torch.unique(events.dst)
    part = window(events, context.at, spec.lookback, longest=context.section.longest)
    empty = EventBatch(
        src=events.src[part],
        dst=events.dst[part],
        time=events.time[part],
        now=context.at,
        query=codes[:0],
        query_time=events.time[:0],
        weight=None if events.weight is None else events.weight[part],
        features=None if events.features is None else events.features[part],
    )
    encoded = model.encode(empty)  # pyright: ignore[reportCallIssue]
    loops = bool((events.src == events.dst).any())
    tables: list[pl.DataFrame] = []
    for rows in torch.arange(len(codes)).split(max(1, _PAIRS // len(candidates))):
        source = codes[rows]
        wide = candidates.expand(len(rows), -1)
        time = torch.full(wide.shape, context.at, dtype=torch.float64)
        cut = torch.full_like(wide, len(events))
        batch = replace(
            empty,
            query=source,
            query_time=time[:, 0],
            candidates=wide,
            # Nobody meets itself where nobody ever did.
            candidate_mask=None if loops else wide != source[:, None],
            facts=history.facts(source[:, None].expand_as(wide), wide, time, cut),
        )
        scores = model(batch, encoded).values
        tables.append(_ranked(context, asked.gather(rows.numpy()), source, candidates, scores, top))
    return pl.concat(tables) if tables else pl.DataFrame()


def _share_table(
    model: nn.Module, context: EventContext, asked: pl.Series, codes: Tensor, top: int
) -> pl.DataFrame:
    section = context.section
    batches = AffinityBatches(
        events=context.events,
        starts=torch.tensor([context.at], dtype=torch.float64),
        period=section.period,
        window=context.spec.lookback,
        candidates=torch.unique(context.events.dst),
        averaged=section.averaged,
    )
    scores = model(batches.ask(context.at, codes)).values
    table = _ranked(context, asked, codes, batches.candidates, scores, top)
    return table.drop("score").rename({"probability": "share"})


def _ranked(
    context: EventContext,
    asked: pl.Series,
    codes: Tensor,
    candidates: Tensor,
    scores: Tensor,
    top: int,
) -> pl.DataFrame:
    events = context.events
    best = scores.topk(min(top, scores.shape[1]), dim=1)
    chances = scores.softmax(1).gather(1, best.indices)
    count = best.indices.shape[1]
    known = torch.isin(codes, torch.cat([events.src, events.dst]))
    table = pl.DataFrame(
        {
            "src": asked.gather(torch.arange(len(asked)).repeat_interleave(count).numpy()),
            "rank": torch.arange(1, count + 1).repeat(len(asked)).numpy(),
            "dst": events.ids.gather(candidates[best.indices].flatten().numpy()),
            "score": best.values.flatten().numpy(),
            "probability": chances.flatten().numpy(),
            "known": known.repeat_interleave(count).numpy(),
        }
    )
    return table.filter(pl.col("score").is_finite())


def _values(
    header: ValueHeader,
    arrays: Mapping[str, Tensor],
    spec: EventSpec,
    source: str | Path | tuple[str, ...],
) -> ValueContext:
    section, paths = resolve(section_of(header, source))
    graph = read_values(paths, section)
    check_ids(graph, header, str(paths[0]))
    data = graph_values.build(
        graph, section, lookback=spec.lookback, horizon=spec.horizon, spec=spec, arrays=arrays,
        scored=False,
    )  # fmt: skip
    return ValueContext(batch=data.last(), data=data, notices=data.notices)


def _value_table(model: nn.Module, context: ValueContext) -> pl.DataFrame:
    data = context.data
    values = data.scaler.undo(model(context.batch).values)[0].float().numpy()  # (H, N)
    steps = len(data.values) + torch.arange(len(values))
    if isinstance(data, SensorData):
        frame = pl.DataFrame(dict(zip(data.ids, values.T, strict=True)))
        if data.times is None:
            return frame.select(pl.Series("step", steps.numpy()), *data.ids)
        instants = torch.from_numpy(data.times.dt.epoch("us").to_numpy().copy())
        step = int(instants.diff().median())
        ahead = instants[-1] + step * torch.arange(1, len(values) + 1)
        coming = pl.Series("time", ahead.numpy()).cast(pl.Datetime("us"))
        return frame.select(coming, *data.ids)
    return pl.DataFrame(
        {
            "step": steps.repeat_interleave(values.shape[1]).numpy(),
            "id": list(data.ids) * len(values),
            "value": values.flatten(),
        }
    )
