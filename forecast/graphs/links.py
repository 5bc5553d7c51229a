"""Links and shares of a graph of events, ready for a model, with the rules that stand beside it.

Letters: E events, N nodes, W events of a window, G features of a node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn

from forecast.batch import EventSpec, Scores
from forecast.errors import DataError, UsageError
from forecast.graphs import events as event_files
from forecast.graphs import pictures, protocol
from forecast.graphs.baselines import LINK_RULES, score_links
from forecast.graphs.batches import AffinityBatches, LinkBatches, link_batches
from forecast.graphs.events import Events
from forecast.graphs.history import FACTS
from forecast.graphs.protocol import Split
from forecast.graphs.section import GraphSection, digest_of, division
from forecast.models.todyformer.link_rules import STARTS
from forecast.scoring.comparison import loss
from forecast.scoring.ranking import LinkSums, ShareSums

# Time is counted in this share of the training span.
_UNITS = 1e4


@dataclass(frozen=True, kw_only=True)
class EventData:
    """Hold what links and shares have in common: events and how they are divided.

    Attributes:
        events: all events.
        split: which are for what.
        spec: the shape of the task.
        section: how it was read.
        digest: names the events by their content.
        notices: sentences for the user.
    """

    events: Events
    split: Split
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
        return protocol.apart(self.events.time, number)

    def moment(self, number: int) -> str:
        """Tell the time of an event."""
        time = float(self.events.time[number])
        return (
            f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S}"
            if self.events.dated
            else f"{time:.15g}"
        )

    def inputs(self) -> dict[str, Tensor]:
        """Give what the model's class takes beside its config and the spec."""
        known = self.events.node_features
        return {} if known is None else {"node_features": known}

    def arrays(self) -> dict[str, Tensor]:
        """Give the tensors that forecasting with a model trained on this needs."""
        return {f"inputs.{name}": tensor for name, tensor in self.inputs().items()}

    def history(self) -> pl.DataFrame:
        """Lay out all events with their ids, as a model needs them to forecast what follows."""
        return frame_of(self.events)

    def describe(self) -> dict[str, Any]:
        """Lay out as plain values what later files must agree with and forecasts are written by."""
        events = self.events
        return {
            "task": self.spec.task,
            "dated": events.dated,
            # The order of node features, which later files must keep.
            "ids": events.ids.to_list() if events.node_features is not None else [],
            "features": list(events.feature_names),
            "last": float(events.time[-1]),
            "options": {
                "columns": dict(self.section.columns),
                "unit": self.section.unit,
                "queries": self.section.queries,
                "longest": self.section.longest,
                "period": self.section.period,
                "averaged": self.section.averaged,
            },
        }


@dataclass(frozen=True, kw_only=True)
class LinkData(EventData):
    """Ask who meets whom next."""

    @property
    def batch_size(self) -> int:
        """Tell how many events a step of training has: as many as are asked about together."""
        return self.section.queries

    def windows(self, part: str) -> LinkBatches:
        """Give the batches of `train`, `val` or `test`."""
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

    def sums(self) -> LinkSums:
        """Make an accumulator of the ranks of true links."""
        return LinkSums()

    def baselines(self, part: str) -> dict[str, dict[str, object]]:
        """Score the rules that learn nothing on a part."""
        return score_rules(self.windows(part), tuple(LINK_RULES))

    def picture(self, model: nn.Module, path: Path) -> None:
        """Draw how many test links each rank holds, of the model and of the rule it starts from."""
        windows = self.windows("test")
        pictures.ranks(path, model=model, windows=windows, rule=self.spec.rule)


@dataclass(frozen=True, kw_only=True)
class ShareData(EventData):
    """Ask how each source's events of the next period share out among destinations."""

    @property
    def batch_size(self) -> int:
        """Tell how many periods a step of training has: each has a window of its own."""
        return 1

    def windows(self, part: str) -> AffinityBatches:
        """Give the periods of `train`, `val` or `test` that lie wholly inside."""
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

    def sums(self) -> ShareSums:
        """Make an accumulator of how well destinations are put in order."""
        return ShareSums()

    def baselines(self, part: str) -> dict[str, dict[str, object]]:
        """Score the last period and the moving average on a part."""
        windows = self.windows(part)
        found: dict[str, dict[str, object]] = {}
        for name, averaged in {"last-period": 1, "moving-average": self.section.averaged}.items():
            sums = self.sums()
            for batch in replace(windows, averaged=averaged).batches(1):
                assert batch.prior is not None
                sums.add(Scores(values=batch.prior), batch)
            found[name] = sums.result()
        return found

    def picture(self, model: nn.Module, path: Path) -> None:
        """Draw true and forecast shares of the last test period."""
        pictures.shares(path, model=model, windows=self.windows("test"))


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
        notices=events.notices,
    )
    if spec is None and isinstance(data, LinkData):
        scores = score_rules(data.windows("val"), tuple(STARTS))
        rule = min(scores, key=lambda name: loss("mrr", scores[name]["mrr"]))
        data = replace(data, spec=replace(given, rule=rule))
    part = "train" if spec is None else "test"
    if not len(data.windows(part)):
        raise DataError(
            f"The {len(events)} events hold nothing to ask about in the {part} part.",
            hint="Bring more events, or a shorter data.period.",
        )
    return data


def score_rules(windows: LinkBatches, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Score rules of links on the batches of a part."""
    time = windows.events.time
    lately = float(time[windows.numbers[-1]] - time[windows.numbers[0]])
    sums = {name: LinkSums() for name in names}
    for batch in windows.batches(0):
        candidates = batch.candidates
        assert candidates is not None
        source = batch.query[:, None].expand_as(candidates)
        cut = torch.full_like(candidates, int(torch.searchsorted(time, batch.now)))
        for name, one in sums.items():
            scores = score_links(name, windows.history, source, candidates, cut, lately=lately)
            one.add(Scores(values=scores), batch)
    return {name: one.result() for name, one in sums.items()}


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


def numbered(events: Events, description: Mapping[str, Any]) -> Events:
    """Give nodes the numbers they had at training, new ones the numbers behind them.

    Without features of nodes a model knows none by number, and any numbers do.
    """
    if not description["ids"]:
        return events
    known = pl.Series("id", description["ids"]).cast(events.ids.dtype)
    new = events.ids.filter(~events.ids.is_in(known.implode()))
    ids = pl.concat([known, new])
    place = {name: number for number, name in enumerate(ids.to_list())}
    order = torch.tensor([place[name] for name in events.ids.to_list()])
    return replace(events, ids=ids, src=order[events.src], dst=order[events.dst])


def _everything(events: Events, section: GraphSection, first: int) -> Split:
    """Ask about all events, from the first to score on, that have another or an average before."""
    time = events.time
    past = section.averaged * section.period if section.task == "affinity" else 0.0
    first = max(first, int(torch.searchsorted(time, float(time[0]) + past, right=True)))
    nothing = torch.zeros(0, dtype=torch.bool)
    return Split(train=first, val=first, test=first, end=len(time), unseen=nothing, kept=nothing)
