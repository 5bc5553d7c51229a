"""`auto`: closed forms over one window, mixed by their errors on the validation windows.

Members: persistence, the last season, the mean of the window's seasons, `in-context`, and ridge
regressions on the whole window and on its last halves, quarters ... rows, all from one Gram matrix.
A member's weight is its mean absolute error on validation windows to the power -12; the source of
that rule, and what it was compared with, is in `forecast.auto.blend`.

Letters: B batch, L lookback, H horizon, C variates, M members, s rows of a season.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from forecast.auto.blend import weights_of
from forecast.auto.in_context import level_forecast
from forecast.batch import Batches, Forecast, SeriesBatch, Spec
from forecast.errors import UsageError
from forecast.layers import last_observed, squared_error
from forecast.models.baselines import Moments
from forecast.models.in_context import InContext, InContextConfig

_WINDOWS = 8_500
_JUDGED = 200
_RIDGES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoConfig:
    """Choose how the members are mixed.

    Attributes:
        penalty: added to the diagonal of the ridge regressions, of rows of deviation 1.
        blend: mix the members; else the best one alone.
    """

    penalty: Annotated[float, Field(gt=0)] = 3e-3
    blend: bool = True


class Auto(nn.Module):
    """Weighted mean of closed forms of a window."""

    weight: Float[Tensor, "R L H"]
    shares: Float[Tensor, " M"]

    def __init__(self, config: AutoConfig, spec: Spec) -> None:
        super().__init__()
        self.config = config
        self.horizon, self.lookback = spec.horizon, spec.lookback
        self.season = min(spec.season, spec.lookback)
        self.in_context = InContext(InContextConfig(), spec)
        sizes = [spec.lookback // 2**k for k in range(_RIDGES)]
        self.sizes = [size for size in dict.fromkeys(sizes) if size >= 1]
        self.names = (
            "persistence",
            "seasonal-naive",
            "season-mean",
            "in-context",
            *(f"ridge-{size}" for size in self.sizes),
        )
        maps = torch.zeros(len(self.sizes), spec.lookback, spec.horizon)
        self.register_buffer("weight", maps)
        self.register_buffer("shares", torch.full((len(self.names),), 1 / len(self.names)))

    @torch.no_grad()
    def forward(self, batch: SeriesBatch) -> Forecast:
        """Forecast (B, H, C)."""
        used = [k for k, share in enumerate(self.shares.tolist()) if share > 0]
        members = self._members(batch, used)
        return Forecast(values=sum((self.shares[k] * members[k] for k in used), torch.zeros(())))

    def loss(self, batch: SeriesBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Sum of the squared errors over observed targets, and their number."""
        return squared_error(self(batch), batch)

    @torch.no_grad()
    def fit(self, train: Batches[SeriesBatch], val: Batches[SeriesBatch]) -> None:
        """Solve the ridge regressions on training windows, and weigh members on validation ones.

        Without a validation window the members weigh alike.
        """
        moments = Moments.of(train.every(max(1, round(len(train) / _WINDOWS))))
        for k, size in enumerate(self.sizes):
            part = replace(
                moments,
                inputs=moments.inputs[-size:, -size:],
                cross=moments.cross[-size:],
                without={step: lost[-size:, -size:] for step, lost in moments.without.items()},
            )
            self.weight[k, -size:] = part.solve(self.config.penalty).to(self.weight)
        if not self.weight.isfinite().all():
            raise UsageError(
                "The ridge regressions of auto found no finite solution on these data.",
                hint="Look for infinite or enormous values in the training rows.",
            )
        if len(val):
            self.shares.copy_(torch.from_numpy(self._judged(val)).to(self.shares))

    def _judged(self, val: Batches[SeriesBatch]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Weights (M,) from the members' absolute errors on at most 200 windows."""
        losses = np.zeros(len(self.names))
        everyone = list(range(len(self.names)))
        for batch in val.every(max(1, -(-len(val) // _JUDGED))).batches(64):
            assert batch.target is not None
            seen = batch.target_mask
            for k, ahead in self._members(batch, everyone).items():
                error = (batch.target - ahead).abs()
                losses[k] += float(error.sum() if seen is None else error[seen].sum())
        if not self.config.blend:
            return np.eye(len(losses))[int(losses.argmin())]
        return weights_of(losses)

    def _members(self, batch: SeriesBatch, used: list[int]) -> dict[int, Float[Tensor, "B H C"]]:
        past, last = batch.past, last_observed(batch.past, batch.past_mask)
        if batch.past_mask is not None:
            past = torch.where(batch.past_mask, past, last)
        step = torch.arange(self.horizon, device=past.device) % self.season
        rules = {
            0: lambda: last.expand(-1, self.horizon, -1),
            1: lambda: past[:, -self.season :][:, step],
            2: lambda: self._season_mean(past),
            3: lambda: self.in_context(batch).values,
        }
        made = {k: rule() for k, rule in rules.items() if k in used}
        for k in range(len(self.sizes)):
            if k + len(rules) in used:
                change = torch.einsum("blc,lh->bhc", past - last, self.weight[k])
                made[k + len(rules)] = change + last
        return made

    def _season_mean(self, past: Tensor) -> Float[Tensor, "B H C"]:
        count, rows, variates = past.shape
        series = past.transpose(1, 2).reshape(-1, rows).double().cpu().numpy()
        ahead = level_forecast(series, self.season, self.horizon, 0.5)
        shaped = torch.from_numpy(ahead).reshape(count, variates, self.horizon)
        return shaped.transpose(1, 2).to(past)
