"""Snapshots as batches: all nodes are asked for their next values, a step in each batch.

Letters: N nodes, L last values, H horizon, S steps of a sequence of snapshots.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from forecast.batch import EventBatch
from forecast.errors import UsageError
from forecast.graphs.snapshots import Snapshots


@dataclass(frozen=True, kw_only=True)
class SnapshotBatches:
    """Ask for the next values of all nodes, a step of a sequence of snapshots in each batch.

    Attributes:
        graph: the snapshots; its values in scaled space, none missing.
        steps: the steps to forecast from, each the first of its horizon.
        lookback: L, last values, and snapshots of the window.
        horizon: H.
    """

    graph: Snapshots
    steps: Int[Tensor, " n"]
    lookback: int
    horizon: int = 1

    @property
    def device(self) -> torch.device:
        """Where the values lie."""
        return self.graph.values.device

    def __len__(self) -> int:
        return len(self.steps)

    def order(self, epoch: int, seed: int) -> Int[Tensor, " n"]:
        """Permute the steps of a training epoch; epoch and seed alone decide."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        return torch.randperm(len(self), generator=generator)

    def batch(self, index: Int[Tensor, " one"]) -> EventBatch:
        """Ask for the values from one step on, from the snapshots before it.

        Raises:
            UsageError: more than one step is asked for: each has a window of its own.
        """
        if len(index) != 1:
            raise UsageError(
                f"A batch of snapshots is one step, not {len(index)}.",
                hint="Set train.batch_size=1.",
            )
        step, graph = int(self.steps[index[0]]), self.graph
        first = max(0, step - self.lookback)
        part = slice(int(graph.offsets[first]), int(graph.offsets[step]))
        sizes = graph.offsets[first : step + 1].diff()
        when = torch.repeat_interleave(torch.arange(first, step), sizes)
        history = graph.values[first:step].T  # (N, L)
        if history.shape[1] < self.lookback:
            missing = history[:, :1].expand(-1, self.lookback - history.shape[1])
            history = torch.cat([missing, history], 1)
        nodes = torch.arange(graph.values.shape[1])
        return EventBatch(
            src=graph.src[part],
            dst=graph.dst[part],
            time=when.double(),
            now=float(step),
            query=nodes,
            query_time=torch.full((len(nodes),), float(step), dtype=torch.float64),
            weight=graph.weight[part],
            patch=when - (step - self.lookback),
            history=history,
            truth=graph.values[step : step + self.horizon].T,
        )

    def batches(self, size: int) -> Iterator[EventBatch]:
        """Go through the steps in order."""
        for index in torch.arange(len(self)).split(1):
            yield self.batch(index)

    def every(self, step: int) -> SnapshotBatches:
        """Keep each `step`-th step."""
        return replace(self, steps=self.steps[::step])
