"""Forecasts from every origin by models that carry a state: one pass over the rows for all of them.

Letters: B batch, K positions, L rows, H horizon, C variates.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import TypeIs

from forecast.batch import Batches, Forecast, SeriesBatch
from forecast.batch.segments import Segments, histories, segments
from forecast.batch.windows import Windows
from forecast.models.stateful.model import StatefulModel
from forecast.series.scaling import Scale, by_own_rows

# A memory of rows is soft: what lies this many times its length back no longer shows.
_WARM_UP = 4
# Origins that a closed form is solved on.
_MOST_ORIGINS = 20_000


def carries_state(model: nn.Module) -> TypeIs[StatefulModel]:
    """Whether a model carries a state from row to row."""
    return isinstance(model, StatefulModel)


class Cold(nn.Module):
    """Let a model that carries a state forecast each window by itself, without what came before."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: SeriesBatch) -> Forecast:
        """Forecast what follows windows, by what lies in them."""
        return self.model(batch)


def history(model: StatefulModel, windows: Windows) -> Segments:
    """Cover windows by segments with as much history as a model that carries a state remembers."""
    return histories(windows, warm_up=_recent(model) if model.forgets else None)


def _recent(model: StatefulModel) -> int:
    """Rows after which the memories of a model have filled up, however they began."""
    return _WARM_UP * model.context


def prepare(
    model: nn.Module, train: Windows, val: Windows, *, fresh: bool = True
) -> tuple[Batches[SeriesBatch], Batches[SeriesBatch]]:
    """Get a model ready to learn, and give both parts in the form that it learns from.

    Args:
        model: the model.
        train: the windows of the training part.
        val: those of the validation part.
        fresh: whether its weights are still those it was made with.
    """
    if not carries_state(model):
        return train, val
    if fresh:
        thinned = train.every(max(1, round(len(train) / _MOST_ORIGINS)))
        model.solve(*(histories(part, warm_up=_recent(model)) for part in (thinned, val)))
    cut = segments(
        train,
        warm_up=model.warm_up,
        scored=model.segment,
        stride=model.segment // 2,
        carried=model.carried,
    )
    return cut, history(model, val)


@torch.no_grad()
def answers(
    model: nn.Module, windows: Windows, size: int
) -> Iterator[tuple[Forecast, SeriesBatch, Scale | None]]:
    """Forecast from the origins of windows, in order, about `size` at a time.

    A model that carries a state does so by all the history it remembers, in one pass; of the batch
    that is returned with its forecasts `past` is then the last row alone.

    Args:
        model: in evaluation mode.
        windows: windows of a part, in order.
        size: forecasts in a batch.

    Yields:
        A forecast, and the batch that it answers, both in the space of the model; and how that
        space was reached from the one of the series, None where it is the same.
    """
    if not carries_state(model):
        unit = windows.series.unit
        for batch in windows.batches(size):
            owner = 0 if batch.series_id is None else batch.series_id
            worth = None if unit is None else unit[owner].expand(len(batch), -1)
            own, scale = by_own_rows(batch, worth)
            yield model(own), own, scale
        return
    for segment in history(model, windows).batches(size):
        dense, _ = model.run(segment, kept=segment.scored)
        truth, mask = segment.truth()
        last, series = segment.past[:, -segment.scored :, None], segment.series_id
        if series is not None:
            series = series[:, None].expand(-1, segment.scored)

        def flat(part: Tensor, counted: Tensor | None = segment.counted) -> Tensor:
            return part.flatten(0, 1) if counted is None else part[counted]

        # What is made of forecasts takes many times their memory.
        parts = (
            None if part is None else flat(part)
            for part in (dense.values, last, truth, mask, series, segment.center, segment.spread)
        )
        pieces = (itertools.repeat(None) if part is None else part.split(size) for part in parts)
        for values, past, target, seen, owner, center, spread in zip(*pieces, strict=False):
            yield (
                Forecast(values=values, quantiles=dense.quantiles),
                SeriesBatch(past=past, target=target, target_mask=seen, series_id=owner),
                None if center is None else Scale(center[:, None], spread[:, None]),
            )


def beginnings(model: StatefulModel, windows: Windows) -> Segments:
    """Cut windows of a part into streams that begin anew, each with the history it could have had.

    They are as long as the memories of the model, or half the part where that is shorter, and one
    begins every eighth of that.
    """
    longest = histories(windows, warm_up=0).scored
    scored = min(model.context, max(1, longest // 2))
    cut = segments(windows, warm_up=_recent(model), scored=scored, stride=1)
    return cut.every(max(1, scored // 8))


@torch.no_grad()
def early_errors(
    model: StatefulModel, part: Segments, size: int = 1_024
) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
    """Measure the error by how many rows of a stream were seen before the forecast.

    Every segment is forecast twice from each of its scored positions: by a stream that begins with
    the first of them, and by one that has seen the warm-up too. Both are scored on the same
    targets, so that what lies between them is what the history is worth.

    Args:
        model: carries a state.
        part: segments with a warm-up.
        size: forecasts in a batch.

    Returns:
        The MSE on standardised values after 1, 2, ..., K rows without the history and with it; NaN
        where nothing was observed.
    """
    model.eval()
    sums = torch.zeros(3, part.scored, dtype=torch.float64, device=part.device)
    for segment in part.batches(size):
        truth, mask = segment.truth()
        observed = torch.ones_like(truth) if mask is None else mask.double()
        late = segment.rows_from(part.warm_up)
        for place, batch in enumerate((late, segment)):
            dense, _ = model.run(batch, kept=part.scored)
            error = (dense.values.double() - truth).square() * observed
            sums[place] += error.sum((0, 2, 3))
        sums[2] += observed.sum((0, 2, 3))
    fresh, full = (sums[:2] / sums[2]).cpu()
    return fresh, full
