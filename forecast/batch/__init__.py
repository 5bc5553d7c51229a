"""What passes between data and models: one batch type per kind of data, and what models answer.

Letters: B batch, L lookback, H horizon, C variates or channels, F calendar features, P past
covariates, K known-future covariates, Q quantiles; on grids Y X rows and columns, T = L + H,
R reference forecasts, G maps;
on graphs B queries, W events of a window, K candidates, F numbers of an event, N nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Matrix libraries multiply full tiles of rows and the rows left over by different code, whose sums
# differ in the last bits. Where a series has to get the same bits alone and in any company, batches
# are filled up to a multiple of this.
TILE = 8


def tiled_rows(count: int) -> int:
    """Round a number of rows up to a multiple of `TILE`."""
    return -(-count // TILE) * TILE


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesBatch:
    """Hold windows of series in scaled space; parts that a data set lacks are None.

    A missing cell of `past` holds 0 and is False in `past_mask`; with nothing missing the mask is
    None. The same for `target` and `target_mask`.
    """

    past: Float[Tensor, "B L C"]
    past_mask: Bool[Tensor, "B L C"] | None = None
    past_time: Float[Tensor, "B L F"] | None = None
    future_time: Float[Tensor, "B H F"] | None = None
    past_covariates: Float[Tensor, "B L P"] | None = None
    known_future: Float[Tensor, "B H K"] | None = None
    static: Float[Tensor, "B G"] | None = None
    target: Float[Tensor, "B H C"] | None = None
    target_mask: Bool[Tensor, "B H C"] | None = None
    series_id: Int[Tensor, " B"] | None = None

    def __len__(self) -> int:
        return self.past.shape[0]

    def rows(self, start: int, stop: int) -> SeriesBatch:
        """Take the samples from `start` up to `stop`."""
        return self._each(lambda tensor: tensor[start:stop])

    def tiled(self) -> SeriesBatch:
        """Fill the batch up to a multiple of `TILE` samples, by the last one."""
        count = tiled_rows(len(self)) - len(self)
        if not count:
            return self
        return self._each(lambda part: torch.cat([part, part[-1:].expand(count, *part.shape[1:])]))

    def to(self, device: torch.device | str) -> SeriesBatch:
        """Move every tensor to `device`."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> SeriesBatch:
        parts = {item.name: getattr(self, item.name) for item in fields(self)}
        return replace(
            self, **{name: change(part) for name, part in parts.items() if part is not None}
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class GridBatch:
    """Hold windows of a grid in scaled space; parts that a data set lacks are None.

    A missing cell of `frames` holds 0 and is False in `mask`; with nothing missing the mask is
    None. The same for `target` and `target_mask`. A reference is what a simple rule says of each
    frame of the window, of the past ones too: the frame a day before, the mean of the hour.
    Where it has nothing to say, the last past frame stands in.
    """

    frames: Float[Tensor, "B L C Y X"]
    mask: Bool[Tensor, "B L C Y X"] | None = None
    calendar: Float[Tensor, "B L F"] | None = None
    future_calendar: Float[Tensor, "B H F"] | None = None
    references: Float[Tensor, "B R T C Y X"] | None = None
    coordinates: Float[Tensor, "G Y X"] | None = None
    target: Float[Tensor, "B H C Y X"] | None = None
    target_mask: Bool[Tensor, "B H C Y X"] | None = None

    def __len__(self) -> int:
        return self.frames.shape[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class EventBatch:
    """Hold a window of events and what is asked behind it; parts that a task lacks are None.

    Every event of the window is strictly before `now`, the first time asked about. Nodes are
    numbers; -1, and any that the window lacks, are nodes of which nothing is known.

    `patch` is given where events come in snapshots; else the model cuts the window itself.
    A query of links has K candidates, of which `truth` names the right one by its column or, as a
    float, weighs all; `pair` names the one that alone stands against it for AP and AUC, and that no
    rank counts. A query of node values has none: `history` holds its last values and `truth` those
    to come.

    A prior is added to the scores: what a rule says, or how many candidates a drawn one stands for.
    """

    src: Int[Tensor, " W"]
    dst: Int[Tensor, " W"]
    time: Float[Tensor, " W"]
    now: float
    query: Int[Tensor, " B"]
    query_time: Float[Tensor, " B"]
    weight: Float[Tensor, " W"] | None = None
    features: Float[Tensor, "W F"] | None = None
    patch: Int[Tensor, " W"] | None = None
    candidates: Int[Tensor, "B K"] | None = None
    candidate_mask: Bool[Tensor, "B K"] | None = None
    pair: Int[Tensor, " B"] | None = None
    facts: Float[Tensor, "B K P"] | None = None
    prior: Float[Tensor, "B K"] | None = None
    history: Float[Tensor, "B L"] | None = None
    truth: Int[Tensor, " B"] | Float[Tensor, "B K"] | Float[Tensor, "B H"] | None = None

    def __len__(self) -> int:
        return self.query.shape[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Hold a score for each query and candidate; the higher, the likelier.

    A candidate that the batch masks scores -inf.
    """

    values: Float[Tensor, "B K"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """Hold one forecast per sample, in the space of the batch it answers.

    With quantiles, the last axis Q runs over the levels in `quantiles`, ascending.
    """

    values: Float[Tensor, "B H C"] | Float[Tensor, "B H C Q"] | Float[Tensor, "B H C Y X"]
    quantiles: tuple[float, ...] = ()

    def point(self) -> Float[Tensor, "B H C"]:
        """Give the point forecast: the values, or of quantiles the median."""
        return self.values[..., self.quantiles.index(0.5)] if self.quantiles else self.values

    def first(self, count: int) -> Forecast:
        """Return the forecasts of the first `count` samples."""
        return replace(self, values=self.values[:count])


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseForecast:
    """Hold one forecast for every past position, in the space of the batch it answers.

    `values[:, t]` is made from the rows up to and with position t, and from nothing after them.
    """

    values: Float[Tensor, "B L H C"] | Float[Tensor, "B L H C Q"]
    quantiles: tuple[float, ...] = ()

    def last(self) -> Forecast:
        """Take the forecast made from all the rows."""
        return Forecast(values=self.values[:, -1], quantiles=self.quantiles)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """Declare the shape of a task: all that a model must know to be built, and predicting needs.

    Attributes:
        kind: the kind of data.
        lookback: L, past rows a window holds.
        horizon: H, rows to forecast.
        variates: C, variates forecast together.
        calendar: F, calendar features per row.
        past_covariates: P, covariates of past rows; those known in advance are among them.
        known_future: K, covariates that are known in advance.
        static: G, features of a series as a whole.
        season: rows in one season, at least 1.
        frequency: the step between rows as a pandas offset alias (`h`, `15min`, `D`, `MS`).
        context: past rows that prediction needs; None stands for all history.
    """

    kind: Literal["series"] = "series"
    lookback: int
    horizon: int
    variates: int
    calendar: int = 0
    past_covariates: int = 0
    known_future: int = 0
    static: int = 0
    season: int = 1
    frequency: str = ""
    context: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class GridSpec:
    """Declare the shape of a task on a grid, as `Spec` does for series.

    Attributes:
        kind: the kind of data.
        lookback: L, past frames a window holds.
        horizon: H, frames to forecast.
        channels: C, fields of a frame.
        rows: Y, rows of the grid.
        columns: X, columns of the grid.
        calendar: F, calendar features per frame.
        references: names of the simple forecasts that a batch brings along.
        places: G, maps of where each cell lies.
        season: frames in a day, or in a year of months; at least 1.
        frequency: the step between frames as a pandas offset alias; empty without dates.
        context: past frames that prediction needs, those of the references included.
    """

    kind: Literal["grid"] = "grid"
    lookback: int
    horizon: int
    channels: int
    rows: int
    columns: int
    calendar: int = 0
    references: tuple[str, ...] = ()
    places: int = 0
    season: int = 1
    frequency: str = ""
    context: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EventSpec:
    """Declare the shape of a task on a graph of events.

    Attributes:
        kind: the kind of data.
        task: what is asked: links, shares of destinations, values of nodes whose edges come and
            go, or of sensors whose edges stay.
        time_unit: tau, the time that counts as one; a ten-thousandth of the training span.
        horizon: H, steps of node values; 1 for links.
        lookback: L, last values of a node that a batch brings along.
        event_features: F, numbers of an event, its weight not among them.
        node_features: numbers known of each node.
        facts: P, numbers known of a pair.
        rule: the rule of links that a score starts from.
        nodes: N, nodes that are always there; 0 where they come and go.
        calendar: F, calendar features of a step of sensors.
        context: events, or steps, that prediction needs; None stands for all history.
    """

    kind: Literal["graph"] = "graph"
    task: Literal["link", "affinity", "node", "sensor"] = "link"
    time_unit: float = 1.0
    horizon: int = 1
    lookback: int = 0
    event_features: int = 0
    node_features: int = 0
    facts: int = 0
    rule: str = ""
    nodes: int = 0
    calendar: int = 0
    context: int | None = None


BatchT_co = TypeVar("BatchT_co", covariant=True)


@runtime_checkable
class Batches(Protocol[BatchT_co]):
    """Describe a part of a data set as models see it: batches by number, whatever they are from."""

    @property
    def lookback(self) -> int:
        """Tell L."""
        ...

    @property
    def horizon(self) -> int:
        """Tell H."""
        ...

    @property
    def device(self) -> torch.device:
        """Tell where the batches lie."""
        ...

    def __len__(self) -> int:
        """Tell the number of windows."""
        ...

    def order(self, epoch: int, seed: int) -> Tensor:
        """Permute the windows of a training epoch."""
        ...

    def batch(self, index: Tensor) -> BatchT_co:
        """Gather the windows with these numbers."""
        ...

    def batches(self, size: int) -> Iterator[BatchT_co]:
        """Go through all windows in order."""
        ...

    def every(self, step: int) -> Batches[BatchT_co]:
        """Keep each `step`-th window."""
        ...


AnySpec = Spec | GridSpec | EventSpec
