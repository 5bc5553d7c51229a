"""Links and shares of a graph of events, divided into batches for a model.

Letters: E events, N nodes, W events of a window, G features of a node.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import polars as pl
import torch
from torch import Tensor

from forecast.batch import EventSpec
from forecast.errors import DataError, UsageError
from forecast.graphs import events as event_files
from forecast.graphs import protocol
from forecast.graphs.batches import AffinityBatches, LinkBatches, link_batches
from forecast.graphs.events import Events
from forecast.graphs.header import EventHeader, EventOptions
from forecast.graphs.history import FACTS
from forecast.graphs.protocol import EventSplit
from forecast.graphs.section import GraphSection, digest_of, division

# Time is counted in this share of the training span.
_UNITS = 1e4
# Of fewer events it says nothing that no pair occurs twice.
_ENOUGH = 1000


@dataclass(frozen=True, kw_only=True)
class EventData:
    """What links and shares have in common: events and how they are divided.

    Attributes:
        events: all events.
        split: which are for what.
        spec: the shape of the task.
        section: how it was read.
        digest: names the events by their content.
        notices: sentences for the user.
    """

    events: Events
    split: EventSplit
    spec: EventSpec
    section: GraphSection
    digest: str
    notices: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Count the events."""
        return len(self.events)

    @property
    def columns(self) -> tuple[str, ...]:
        """Name what is forecast."""
        return (self.spec.task,)

    def moved(self, number: int) -> int:
        """Move a border between events backward until all of one time are behind it."""
        return protocol.round_down(self.events.time, number)

    def moment(self, number: int) -> str:
        """Return the time of an event."""
        return event_files.moment(self.events, number)

    def inputs(self) -> dict[str, Tensor]:
        """Return what the model's class takes beside its config and the spec."""
        known = self.events.node_features
        return {} if known is None else {"node_features": known}

    def arrays(self) -> dict[str, Tensor]:
        """Return the tensors that forecasting with a model trained on this needs."""
        return {f"inputs.{name}": tensor for name, tensor in self.inputs().items()}

    def history(self) -> pl.DataFrame:
        """Lay out all events with their ids, as a model needs them to forecast what follows."""
        return frame_of(self.events)

    @property
    def header(self) -> EventHeader:
        """What later files must agree with, and are read by."""
        events, section = self.events, self.section
        return EventHeader(
            task="affinity" if section.task == "affinity" else "link",
            dated=events.dated,
            # The order of node features, which later files must keep.
            ids=tuple(events.ids.to_list()) if events.node_features is not None else (),
            features=events.feature_names,
            last=float(events.time[-1]),
            options=EventOptions(
                columns=dict(section.columns),
                unit=section.unit,
                queries=section.queries,
                longest=section.longest,
                period=section.period,
                averaged=section.averaged,
            ),
        )


@dataclass(frozen=True, kw_only=True)
class LinkData(EventData):
    """Ask who meets whom next."""

    @property
    def batch_size(self) -> int:
        """How many events a step of training has: as many as are asked about together."""
        return self.section.queries

    def windows(self, part: str) -> LinkBatches:
        """Return the batches of `train`, `val` or `test`."""
        section = self.section
        return link_batches(
            self.events,
            self.split,
            part,
            window=self.spec.lookback,
            unit=section.unit,
            drawn=section.negatives,
            past=section.past,
            batch_size=section.queries,
            longest=section.longest,
            weights=self.events.weight is not None,
        )

    def before(self, border: int, count: int) -> int:
        """Find the border that lies so many events before another, or more of one time."""
        return self.moved(border - count)


@dataclass(frozen=True, kw_only=True)
class ShareData(EventData):
    """Ask how each source's events of the next period share out among destinations."""

    @property
    def batch_size(self) -> int:
        """How many periods a step of training has: each has a window of its own."""
        return 1

    def windows(self, part: str) -> AffinityBatches:
        """Return the periods of `train`, `val` or `test` that lie wholly inside."""
        time, section = self.events.time, self.section
        numbers = self.split.part(part)
        first, end = float(time[numbers.start]), float(time[numbers.stop - 1])
        if part == "train":
            # The moving average wants a past.
            first += section.averaged * section.period
        count = max(0, int((end - first) // section.period))
        return AffinityBatches(
            events=self.events,
            starts=first + section.period * torch.arange(count, dtype=torch.float64),
            period=section.period,
            window=self.spec.lookback,
            candidates=torch.unique(self.events.dst[: self.split.train or None]),
            averaged=section.averaged,
        )

    def before(self, border: int, count: int) -> int:
        """Find the border so many periods before another; those between are wholly inside."""
        if border <= 0:
            return 0
        time, period = self.events.time, self.section.period
        end = float(time[border - 1])
        # The last event that is early enough, and all of its time.
        number = int(torch.searchsorted(time, end - count * period, right=True))
        found = self.moved(number - 1)
        # A period need not be exact in binary.
        while found and (end - float(time[found])) // period < count:
            found = self.moved(found - 1)
        return found


def build(
    events: Events,
    section: GraphSection,
    *,
    lookback: int,
    spec: EventSpec | None = None,
    first: int = 0,
) -> LinkData | ShareData:
    """Divide events for training, or as what a trained model is to be scored on.

    Args:
        events: what was read.
        section: how, its task settled.
        lookback: W.
        spec: of a trained model that is to be scored; all events with a past are then the
            test part.
        first: the first event to score, those before being known.

    Raises:
        DataError: a part is empty.
        UsageError: shares are asked for without a period.
    """
    if section.task == "affinity" and not section.period:
        raise UsageError(
            "Shares are of a period, and data.period is 0.",
            hint="Give its length in units of time: --set data.period=604800",
        )
    if spec is None:
        split = protocol.split(
            events,
            division=division(section),
            gap=section.gap,
            inductive=section.inductive,
        )
    else:
        split = _everything(events, section, first)
    given = spec or EventSpec(
        task="affinity" if section.task == "affinity" else "link",
        time_unit=float(events.time[split.train - 1] - events.time[0]) / _UNITS or 1.0,
        lookback=lookback,
        event_features=len(events.feature_names),
        node_features=0 if events.node_features is None else events.node_features.shape[1],
        facts=FACTS if section.task == "link" else 0,
    )
    data = (LinkData if given.task == "link" else ShareData)(
        events=events,
        split=split,
        spec=given,
        section=section,
        digest=digest_of(
            [
                events.src,
                events.dst,
                events.time,
                events.weight,
                events.features,
                events.node_features,
                torch.tensor(list("\0".join(map(str, events.ids.to_list())).encode())),
            ]
        ),
        notices=(*events.notices, *_once_only(events, split, given.task)),
    )
    part = "train" if spec is None else "test"
    if not len(data.windows(part)):
        raise DataError(
            f"The {len(events)} events hold nothing to ask about in the {part} part.",
            hint="Bring more events, or a shorter data.period.",
        )
    return data


def _once_only(events: Events, split: EventSplit, task: str) -> tuple[str, ...]:
    """Warn where past destinations, half of the candidates, can be ruled out by construction."""
    pairs = events.src[: split.train] * events.nodes + events.dst[: split.train]
    if task != "link" or split.train < _ENOUGH or len(torch.unique(pairs)) < len(pairs):
        return ()
    return (
        "No pair of the training part occurs twice: up to half of the candidates that an event is "
        "ranked against are past destinations of its source, and whoever knows the rule rules "
        "them out.",
    )


def frame_of(events: Events) -> pl.DataFrame:
    """Lay events out with their ids."""
    columns: dict[str, Any] = {
        "src": events.ids.gather(events.src.numpy()),
        "dst": events.ids.gather(events.dst.numpy()),
        "t": events.time.numpy(),
    }
    if events.weight is not None:
        columns["weight"] = events.weight.numpy()
    if events.features is not None:
        columns |= dict(zip(events.feature_names, events.features.T.numpy(), strict=True))
    return pl.DataFrame(columns)


def appended(kept: Events, later: Events) -> tuple[Events, int]:
    """Put events behind those kept with a model, and count those left out.

    Feeding the kept ones again is safe: what is not later than the last of them is left out.

    Raises:
        DataError: they have other columns.
    """
    fresh = later.time > kept.time[-1]
    left_out = int((~fresh).sum())
    if left_out == len(later):
        return kept, left_out
    before, after = frame_of(kept), frame_of(later.take(fresh))
    if before.columns != after.columns:
        raise DataError(
            f"The events have {', '.join(after.columns)}, those kept with the model "
            f"{', '.join(before.columns)}.",
            hint="Give the same columns.",
        )
    return event_files.build(pl.concat([before, after], how="vertical_relaxed")), left_out


def numbered(events: Events, header: EventHeader) -> Events:
    """Renumber nodes as at training, new ones behind them.

    Without features of nodes a model knows none by number, and any numbers do.
    """
    if not header.ids:
        return events
    known = pl.Series("id", header.ids).cast(events.ids.dtype)
    new = events.ids.filter(~events.ids.is_in(known.implode()))
    ids = pl.concat([known, new])
    place = {name: number for number, name in enumerate(ids.to_list())}
    order = torch.tensor([place[name] for name in events.ids.to_list()])
    return replace(events, ids=ids, src=order[events.src], dst=order[events.dst])


def _everything(events: Events, section: GraphSection, first: int) -> EventSplit:
    """Ask about all events, from the first to score on, that have another or an average before."""
    time = events.time
    past = section.averaged * section.period if section.task == "affinity" else 0.0
    first = max(first, int(torch.searchsorted(time, float(time[0]) + past, right=True)))
    nothing = torch.zeros(0, dtype=torch.bool)
    return EventSplit(
        train=first, val=first, test=first, end=len(time), unseen=nothing, kept=nothing
    )
