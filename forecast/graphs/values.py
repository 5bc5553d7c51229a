"""Values of nodes, ready for a model: of snapshots whose edges change, and of sensors.

Letters: S steps, N nodes, L lookback, H horizon, e edges.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from forecast.batch import EventBatch, EventSpec, SeriesBatch
from forecast.batch.windows import Series, Windows
from forecast.errors import DataError
from forecast.graphs import baselines as graph_baselines
from forecast.graphs.formats import SensorGraph
from forecast.graphs.header import ValueHeader, ValueOptions
from forecast.graphs.section import GraphScaler, GraphSection, borders, digest_of
from forecast.graphs.snapshot_batches import SnapshotBatches
from forecast.graphs.snapshots import Snapshots

_PARTS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class ValueData(ABC):
    """What snapshots and sensors have in common: values of nodes, step by step.

    Attributes:
        values: scaled; where nothing was reported, the last report, or before any the mean.
        seen: where something was.
        slots: each step's place in its season.
        ids: N ids.
        times: the instants of steps, where they are known.
        spec: the shape of the task.
        scaler: fitted on training steps.
        rules: what the simple forecasts learned from training steps: `means` by slot, `pooled`.
        ends: the step after the last of train, validation and test.
        section: how it was read.
        digest: names the graph by its content.
        notices: sentences for the user.
    """

    values: Float[Tensor, "S N"]
    seen: Tensor
    slots: Int[Tensor, " S"]
    ids: tuple[str, ...]
    times: pl.Series | None
    spec: EventSpec
    scaler: GraphScaler
    rules: Mapping[str, Tensor]
    ends: tuple[int, int, int]
    section: GraphSection
    digest: str
    notices: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Count the steps."""
        return len(self.values)

    @property
    def columns(self) -> tuple[str, ...]:
        """Name the nodes."""
        return self.ids

    def before(self, border: int, count: int) -> int:
        """Find the border that lies so many steps before another."""
        return border - count

    def moved(self, number: int) -> int:
        """Leave a border where it is: no two steps have one time."""
        return number

    def moment(self, number: int) -> str:
        """Return the time of a step."""
        return f"step {number}" if self.times is None else f"{self.times[number]}"

    def origins(self, part: str) -> Int[Tensor, " n"]:
        """List the first steps of all horizons that lie wholly inside a part."""
        number = _PARTS.index(part)
        first = self.ends[number - 1] if number else 0
        if part == "test":
            first += self.section.gap
        first = max(first, self.spec.lookback)
        return torch.arange(first, max(first, self.ends[number] - self.spec.horizon + 1))

    def series(self, part: str) -> Windows:
        """Return the windows of a part without their edges."""
        complete = bool(self.seen.all())
        return Windows(
            series=Series(values=self.values, mask=None if complete else self.seen),
            origins=self.origins(part),
            lookback=self.spec.lookback,
            horizon=self.spec.horizon,
        )

    def arrays(self) -> dict[str, Tensor]:
        """Return the tensors that forecasting with a model trained on this needs."""
        return {
            "scaler.mean": self.scaler.mean,
            "scaler.deviation": self.scaler.deviation,
            **{f"rules.{name}": tensor for name, tensor in self.rules.items()},
            **{f"inputs.{name}": tensor for name, tensor in self.inputs().items()},
        }

    def inputs(self) -> dict[str, Tensor]:
        """Return what the model's class takes beside its config and the spec."""
        return {"start": self.rules["pooled"]}

    def history(self) -> pl.DataFrame | None:
        """Return None: forecasts go on from a file's own last steps, and no history is kept."""
        return None

    @property
    def header(self) -> ValueHeader:
        """What later files must agree with, and are read by."""
        section = self.section
        return ValueHeader(
            task="sensor" if section.task == "sensor" else "node",
            ids=self.ids,
            logarithm=self.scaler.logarithm,
            steps=len(self.values),
            options=ValueOptions(
                season=section.season,
                averaged=section.averaged,
                zero_is_missing=section.zero_is_missing,
            ),
        )

    @abstractmethod
    def windows(self, part: str) -> Windows | SnapshotBatches:
        """Return the windows of a part with their edges."""

    @abstractmethod
    def last(self) -> SeriesBatch | EventBatch:
        """Return the window that ends with the last step, without a target."""


@dataclass(frozen=True, kw_only=True)
class NodeData(ValueData):
    """Ask for the next values of nodes whose edges come and go.

    Attributes:
        graph: the snapshots, values scaled and weights divided by `largest`.
        largest: the largest weight of training.
    """

    graph: Snapshots
    largest: Tensor

    @property
    def batch_size(self) -> int:
        """How many steps a step of training has: each has a window of its own."""
        return 1

    def arrays(self) -> dict[str, Tensor]:
        """Return the tensors that forecasting with a model trained on this needs."""
        return super().arrays() | {"largest": self.largest}

    def windows(self, part: str) -> SnapshotBatches:
        """Return the steps of `train`, `val` or `test`."""
        return SnapshotBatches(
            graph=self.graph,
            steps=self.origins(part),
            lookback=self.spec.lookback,
            horizon=self.spec.horizon,
        )

    def last(self) -> EventBatch:
        """Return the window that ends with the last step, without a target."""
        steps = torch.tensor([len(self.values)])
        batch = replace(self.windows("test"), steps=steps).batch(torch.tensor([0]))
        return replace(batch, truth=None)


@dataclass(frozen=True, kw_only=True)
class SensorData(ValueData):
    """Ask for the next readings of sensors.

    Attributes:
        graph: the sensors and their edges.
    """

    graph: SensorGraph

    @property
    def batch_size(self) -> None:
        """Leave open how many windows a step of training has."""
        return None

    def windows(self, part: str) -> Windows:
        """Return the windows of `train`, `val` or `test`."""
        windows = self.series(part)
        return replace(windows, series=replace(windows.series, calendar=self._calendar()))

    def last(self) -> SeriesBatch:
        """Return the window that ends with the last step, without a target."""
        lookback, marks = self.spec.lookback, self._calendar()
        return SeriesBatch(
            past=self.values[None, -lookback:],
            past_time=None if marks is None else marks[None, -lookback:],
        )

    def _calendar(self) -> Float[Tensor, "S 4"] | None:
        if not self.spec.calendar:
            return None
        angle = self.slots * (2 * torch.pi / self.section.season)
        return torch.stack([angle.sin(), angle.cos(), (2 * angle).sin(), (2 * angle).cos()], 1)

    def inputs(self) -> dict[str, Tensor]:
        """Return the start of the weights and the edges."""
        edges = {"src": self.graph.src, "dst": self.graph.dst, "weight": self.graph.weight}
        return super().inputs() | edges


def build(
    graph: Snapshots | SensorGraph,
    section: GraphSection,
    *,
    lookback: int,
    horizon: int,
    spec: EventSpec | None = None,
    arrays: Mapping[str, Tensor] | None = None,
    scored: bool = True,
) -> NodeData | SensorData:
    """Scale and divide values for training, or as what a trained model is to be scored on.

    Args:
        graph: what was read.
        section: how, its task settled.
        lookback: L.
        horizon: H.
        spec: of a trained model that is to be scored; all steps with L before them are then the
            test part.
        arrays: of a trained model, whose statistics are used instead of those of training steps.
        scored: there must be something to score, not only to go on from.

    Raises:
        DataError: no window fits, or a value of a snapshot is missing.
    """
    steps, nodes = graph.values.shape
    ends = borders(section, steps) if spec is None else (0, 0, steps)
    if isinstance(graph, Snapshots) and graph.values.isnan().any():
        raise DataError("A value of a snapshot is missing.", hint="Fill it in.")
    logarithm = section.scaling == "log" or (
        section.scaling == "auto" and _are_counts(graph.values[: ends[0]])
    )
    if arrays is None:
        scaler = GraphScaler.fit(graph.values[: ends[0]], logarithm=logarithm)
    else:
        mean, deviation = arrays["scaler.mean"], arrays["scaler.deviation"]
        scaler = GraphScaler(mean=mean, deviation=deviation, logarithm=logarithm)
    seen = ~graph.values.isnan()
    values = _held(scaler.apply(graph.values), seen)
    sensors = isinstance(graph, SensorGraph)
    slots, times = _slots(graph.times if sensors else None, steps, section.season)
    common: dict[str, Any] = {
        "values": values,
        "seen": seen,
        "slots": slots,
        "ids": graph.ids,
        "times": times,
        "spec": spec
        or EventSpec(
            task="sensor" if sensors else "node",
            horizon=horizon,
            lookback=lookback,
            nodes=nodes,
            calendar=4 if sensors and section.season > 1 else 0,
            context=lookback,
        ),
        "scaler": scaler,
        "rules": {},
        "ends": ends,
        "section": section,
        "digest": digest_of([graph.values, graph.src, graph.dst, graph.weight]),
        "notices": graph.notices,
    }
    if isinstance(graph, SensorGraph):
        data = SensorData(graph=graph, **common)
    else:
        last = int(graph.offsets[ends[0]])
        largest = arrays["largest"] if arrays else graph.weight[:last].abs().max().clamp(min=1e-30)
        scaled = replace(graph, values=values, weight=graph.weight / largest)
        data = NodeData(graph=scaled, largest=largest, **common)
    if not scored and steps < lookback:
        raise DataError(
            f"There are {steps} steps, and the model looks back over {lookback}.",
            hint="Bring a longer file.",
        )
    part = "train" if spec is None else "test"
    if scored and not len(data.origins(part)):
        raise DataError(
            f"The {steps} steps hold no window of lookback {lookback} and horizon {horizon} in "
            f"the {part} part.",
            hint="Take a shorter --lookback and --horizon, or bring more steps.",
        )
    rules = _fit_rules(data) if arrays is None else under("rules.", arrays)
    return replace(data, rules=rules)


def under(prefix: str, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take the tensors whose names begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): one for name, one in arrays.items() if name.startswith(prefix)
    }


def _held(values: Float[Tensor, "S N"], seen: Tensor) -> Float[Tensor, "S N"]:
    """Hold the last report of each node where it has none, and 0 before its first."""
    steps = torch.arange(len(values))[:, None].expand_as(values)
    last = torch.where(seen, steps, -1).cummax(0).values
    held = values.gather(0, last.clamp(min=0))
    return torch.where(last >= 0, held, 0.0)


def _are_counts(values: Tensor) -> bool:
    known = values[~values.isnan()]
    return bool((known >= 0).all() and (known % 1 == 0).all())


def _fit_rules(data: NodeData | SensorData) -> dict[str, Tensor]:
    """Learn the simple forecasts from training steps."""
    windows = data.series("train")
    train = windows.batch(torch.arange(len(windows)))
    assert train.target is not None
    pooled = graph_baselines.fit_pooled(
        train.past, train.target, mask=None if train.target_mask is None else train.target_mask
    )
    # Of what was observed, in its own unit: a report held over a gap is none, and the mean of
    # logarithms is not that of counts.
    end = data.ends[0]
    observed = data.scaler.undo(data.values[:end]).masked_fill(~data.seen[:end], torch.nan)
    means = graph_baselines.slot_means(observed, data.slots[:end], season=data.section.season)
    return {"pooled": pooled, "means": data.scaler.apply(means)}


def _slots(
    times: pl.Series | None, steps: int, season: int
) -> tuple[Int[Tensor, " S"], pl.Series | None]:
    """Place steps in their season: by the clock where it is known, else counted from the first."""
    counted = torch.arange(steps) % season
    if times is None or times.dtype != pl.String:
        return counted, None
    try:
        instants = times.str.to_datetime(time_unit="us")
    except pl.exceptions.PolarsError:
        return counted, None
    seconds = torch.from_numpy(instants.dt.epoch("us").to_numpy().copy()) // 1_000_000
    step = int(seconds.diff().median()) if steps > 1 else 0
    if step <= 0:
        return counted, None
    return torch.div(seconds, step, rounding_mode="floor") % season, instants
