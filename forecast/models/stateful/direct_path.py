"""A ridge regression on a Legendre memory: the linear part of a model that carries a state.

The features are the coefficients of the memory of the input itself, and the last rows as such, each
less what it would be if the past had always been at the last value. The map from them to the change
of the coming rows is therefore blind to the level, as a ridge regression on a window less its last
value is, and is solved for in the same way.

Letters: N streams, V values of a stream, L rows, K positions to forecast from, H horizon,
P rows read as such, X features.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from forecast.kernels.lmu import memory
from forecast.layers import RowLinear

State = dict[str, Tensor]
# A row of features and its targets, many of each.
Rows = tuple[Float[Tensor, "R X"], Float[Tensor, "R H"]]
_PENALTIES = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
# Added to a carried variance, so that a constant stream divides by a small number and not by zero.
_LEAST_VARIANCE = 1e-4


class Known(NamedTuple):
    """Rows with missing values held at the last observed one, and where each value begins.

    Attributes:
        values: the rows; before the first observation that one.
        begun: False before the first observation; None where it lies in the past everywhere.
        rows: how many there are since the first observation.
        fresh: values whose first observation is among these rows, or yet to come; None for none.
    """

    values: Float[Tensor, "N L V"]
    begun: Bool[Tensor, "N L V"] | None
    rows: Int[Tensor, "N V"]
    fresh: Bool[Tensor, "N V"] | None

    def seeded(
        self, state: Float[Tensor, "N V X"], level: Float[Tensor, " X"]
    ) -> Float[Tensor, "N V X"]:
        """Let a value that begins do so as if it had always been there.

        Args:
            state: the state of those that began before.
            level: the state of a past constant at 1.
        """
        if self.fresh is None:
            return state
        return torch.where(self.fresh.unsqueeze(2), self.values[:, 0].unsqueeze(2) * level, state)


def hold(
    values: Float[Tensor, "N L V"], seen: Bool[Tensor, "N L V"] | None, before: State
) -> Known:
    """Replace missing values by the last observed one.

    Args:
        values: the rows, 0 where a value is missing.
        seen: False where it is; None where none is.
        before: `last` values (N, V) before these rows, and the `count` of rows since the first.
    """
    rows, count = values.shape[1], before["count"]
    fresh = count == 0
    fresh = fresh if fresh.any() else None
    if seen is None:
        return Known(values, None, count + rows, fresh)
    place = torch.arange(1, rows + 1, device=values.device).view(1, rows, 1)
    latest = (place * seen).cummax(1).values  # 0 before the first one of these rows
    reach = torch.cat([before["last"].unsqueeze(1), values], 1)
    if fresh is None:
        return Known(reach.gather(1, latest), None, count + rows, None)
    begun = (latest > 0) | ~fresh.unsqueeze(1)
    first = seen.to(torch.uint8).argmax(1, keepdim=True)
    latest = torch.where(begun, latest, first + 1)
    return Known(reach.gather(1, latest), begun, count + begun.sum(1), fresh)


def fading_scale(
    known: Known, state: Float[Tensor, "N V 2"], half_life: float, backend: str
) -> tuple[Float[Tensor, "N L V"], Float[Tensor, "N L V"], Float[Tensor, "N V 2"]]:
    """Compute the exponentially weighted mean and deviation of the past at every row.

    A memory of order 1 is exponential smoothing: `theta m' = u - m`.

    Args:
        known: the rows.
        state: mean and variance before them.
        half_life: rows after which a row weighs half.
        backend: the form of the memory.

    Returns:
        Mean, deviation, and the state after the last row.
    """
    streams, rows, together = known.values.shape
    window = half_life / math.log(2)

    def smoothed(signal: Tensor, state: Tensor) -> Tensor:
        flat = signal.transpose(1, 2).reshape(-1, rows)
        held = memory(flat, state.reshape(-1, 1), order=1, window=window, backend=backend)
        return held.view(streams, together, rows).transpose(1, 2)

    state = known.seeded(state, known.values.new_tensor([1.0, 0.0]))
    mean = smoothed(known.values, state[..., 0])
    square = (known.values - mean).square()
    spread = state[..., 1]
    if known.fresh is not None:
        # Before there is a past, the deviation is that of the training rows.
        spread = torch.where(known.fresh, 1.0, spread)
    if known.begun is not None:
        square = torch.where(known.begun, square, 1.0)
    variance = smoothed(square, spread)
    after = torch.stack([mean[:, -1], variance[:, -1]], 2)
    return mean, (variance + _LEAST_VARIANCE).sqrt(), after


class DirectPath(nn.Module):
    """Map the compressed past and the last rows to the change from the last value.

    Args:
        horizon: H.
        window: rows that the memory holds.
        order: coefficients it has.
        rows: P.
    """

    level: Float[Tensor, " X"]

    def __init__(self, horizon: int, *, window: int, order: int, rows: int) -> None:
        super().__init__()
        self.window, self.order, self.rows = window, order, rows
        self.map = RowLinear(order + rows - 1, horizon, bias=False)
        # It begins as persistence.
        nn.init.zeros_(self.map.weight)
        # A past constant at 1 is a memory of 1, 0, 0, ..., and rows of 1.
        level = torch.ones(order + rows - 1)
        level[1:order] = 0.0
        self.register_buffer("level", level, persistent=False)

    def sizes(self, together: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each part of the state of a stream of V values."""
        return {"recent": (together, self.rows - 1), "direct": (together, self.order)}

    def forward(
        self, known: Known, before: State, kept: int, backend: str
    ) -> tuple[Float[Tensor, "N K H V"], State]:
        """Forecast the change, and return the state after the last row.

        Args:
            known: the rows.
            before: the state before them.
            kept: K; it is forecast from the last positions.
            backend: the form of the memory.
        """
        features, after = self.features(known, before, kept, backend)
        return self.map(features).permute(0, 2, 3, 1), after

    def features(
        self, known: Known, before: State, kept: int, backend: str = "auto"
    ) -> tuple[Float[Tensor, "N V K X"], State]:
        """Return the inputs of the linear map, and the state after the last row."""
        streams, rows, together = known.values.shape
        signal = known.values.transpose(1, 2).reshape(-1, rows)  # (N V, L)
        held = known.seeded(before["direct"], self.level[: self.order]).flatten(0, 1)
        ring = known.seeded(before["recent"], self.level[self.order :]).flatten(0, 1)
        memories = memory(signal, held, order=self.order, window=self.window, backend=backend)
        reach = torch.cat([ring, signal], 1)
        recent = reach.unfold(1, self.rows, 1)[..., :-1]
        features = torch.cat([memories[:, rows - kept :], recent[:, rows - kept :]], 2)
        features = features - signal[:, rows - kept :, None] * self.level
        after = {"direct": memories[:, -1], "recent": reach[:, rows:]}
        after = {name: part.unflatten(0, (streams, together)) for name, part in after.items()}
        return features.unflatten(0, (streams, together)), after

    @torch.no_grad()
    def solve(self, train: Iterable[Rows], val: Iterable[Rows]) -> None:
        """Solve for the map in float64, by the penalty with the least error on the second part.

        Without rows to choose a penalty by, the training rows choose it.
        """
        inputs, cross, _ = self._moments(train)
        scored, targets, count = self._moments(val)
        if not count:
            scored, targets = inputs, cross
        best, least = self.map.weight.T.double(), math.inf
        for penalty in _PENALTIES:
            eye = torch.eye(len(inputs), dtype=inputs.dtype, device=inputs.device)
            weight = torch.linalg.solve(inputs + penalty * eye, cross)
            # The mean of |y - x W|^2, without the constant |y|^2.
            error = ((scored @ weight - 2 * targets) * weight).sum().item()
            if error < least:
                best, least = weight, error
        self.map.weight.copy_(best.T)

    def _moments(self, parts: Iterable[Rows]) -> tuple[Tensor, Tensor, int]:
        """Average X^T X and X^T Y."""
        size, horizon = len(self.level), self.map.out_features
        inputs = torch.zeros(size, size, dtype=torch.float64, device=self.level.device)
        cross, count = inputs.new_zeros(size, horizon), 0
        for features, targets in parts:
            x, y = features.double(), targets.double()
            inputs += x.T @ x
            cross += x.T @ y
            count += len(x)
        return inputs / max(count, 1), cross / max(count, 1), count
