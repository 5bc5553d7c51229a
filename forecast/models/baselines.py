"""Baselines that every score stands beside, and DLinear: the floor that a model has to beat.

Persistence, seasonal naive, mean and ridge have closed forms: nothing is trained by steps. DLinear
is trained like any other model. Source of DLinear: Zeng et al., "Are Transformers Effective for
Time Series Forecasting?", AAAI 2023, arXiv 2205.13504, section 4.

Letters: B batch, L lookback, H horizon, C variates, W windows, K covariates known in advance,
Q quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from forecast.batch import Batches, Forecast, SeriesBatch, Spec
from forecast.errors import UsageError
from forecast.layers import (
    Quantile,
    check_quantiles,
    forecast_error,
    last_observed,
    rising,
    squared_error,
)

_RIDGE_PENALTIES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_RIDGE_WINDOWS = 8_500
_GATHER = 1_024


@dataclass(frozen=True, kw_only=True, slots=True)
class NoConfig:
    """Config of a model without options."""


class _ClosedForm(nn.Module):
    """Base class of closed-form baselines: a config, a horizon, no training steps."""

    def __init__(self, config: NoConfig, spec: Spec) -> None:
        super().__init__()
        self.config = config
        self.horizon = spec.horizon

    def loss(self, batch: SeriesBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Sum the squared errors over observed targets, and count those."""
        return squared_error(self(batch), batch)


class Persistence(_ClosedForm):
    """Repeat the last observed value."""

    def forward(self, batch: SeriesBatch) -> Forecast:
        """Forecast (B, H, C)."""
        last = last_observed(batch.past, batch.past_mask)
        return Forecast(values=last.expand(-1, self.horizon, -1))


class SeasonalNaive(_ClosedForm):
    """Repeat the last season of the window, the last observed value where one is missing."""

    def __init__(self, config: NoConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        self.season = min(spec.season, spec.lookback)

    def forward(self, batch: SeriesBatch) -> Forecast:
        """Forecast (B, H, C)."""
        season = batch.past[:, -self.season :]
        if batch.past_mask is not None:
            last = last_observed(batch.past, batch.past_mask)
            season = torch.where(batch.past_mask[:, -self.season :], season, last)
        step = torch.arange(self.horizon, device=season.device) % self.season
        return Forecast(values=season[:, step])


class Mean(_ClosedForm):
    """Forecast the mean of the training rows, which is 0 in scaled space."""

    def forward(self, batch: SeriesBatch) -> Forecast:
        """Forecast (B, H, C)."""
        count, _, variates = batch.past.shape
        return Forecast(values=batch.past.new_zeros(count, self.horizon, variates))


class Ridge(_ClosedForm):
    """Map a window, less its last value, to the targets, less the same, by one penalised matrix.

    All variates share the matrix. It is the least-squares solution with a penalty chosen on the
    validation windows; on most ETT rows it beats published transformers.
    """

    weight: Float[Tensor, "L H"]

    def __init__(self, config: NoConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        self.register_buffer("weight", torch.zeros(spec.lookback, spec.horizon))

    def forward(self, batch: SeriesBatch) -> Forecast:
        """Forecast (B, H, C)."""
        last = last_observed(batch.past, batch.past_mask)
        change = batch.past - last
        if batch.past_mask is not None:
            change = change * batch.past_mask
        return Forecast(values=torch.einsum("blc,lh->bhc", change, self.weight) + last)

    @torch.no_grad()
    def fit(self, train: Batches[SeriesBatch], val: Batches[SeriesBatch]) -> None:
        """Solve for the matrix in float64.

        Long parts are thinned to about 8,500 training windows; the penalty is the one with the
        least error on every fourth validation window. A missing input counts as no change from
        the last value; a missing target drops its row from the equations of its own step only.
        """
        train = train.every(max(1, round(len(train) / _RIDGE_WINDOWS)))
        moments = Moments.of(train)
        scored = Moments.of(val.every(4)) if len(val) else moments
        best, best_error = None, float("inf")
        for penalty in _RIDGE_PENALTIES:
            weight = moments.solve(penalty)
            error = scored.squared_error(weight)
            if error < best_error:
                best, best_error = weight, error
        if best is None:
            raise UsageError(
                "The ridge baseline found no finite solution on these data.",
                hint="Look for infinite or enormous values in the training rows.",
            )
        self.weight.copy_(best)


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Sums that both a least-squares fit and its error need; no window is kept.

    `inputs` is X^T X of all rows, and `without[h]` the share of it that rows with a missing target
    at step h would add: the equations of step h are those of `inputs` less that.
    """

    inputs: Float[Tensor, "L L"]
    cross: Float[Tensor, "L H"]
    targets: Float[Tensor, " H"]
    without: dict[int, Float[Tensor, "L L"]]
    count: Float[Tensor, " H"]

    @classmethod
    def of(cls, windows: Batches[SeriesBatch]) -> Moments:
        """Sum over all windows of a part."""
        lookback, horizon = windows.lookback, windows.horizon
        zero = torch.zeros((), dtype=torch.float64, device=windows.device)
        inputs, cross = zero.new_zeros(lookback, lookback), zero.new_zeros(lookback, horizon)
        targets, count = zero.new_zeros(horizon), zero.new_zeros(horizon)
        without: dict[int, Tensor] = {}
        for batch in windows.batches(_GATHER):
            x, y, mask = _changes(batch)  # (rows, L), (rows, H), (rows, H)
            inputs += x.T @ x
            cross += x.T @ y
            targets += y.square().sum(0)
            count += x.shape[0] if mask is None else mask.sum(0)
            if mask is not None:
                for step in (~mask).any(0).nonzero().flatten().tolist():
                    lost = x[~mask[:, step]]
                    without[step] = without.get(step, 0) + lost.T @ lost
        return cls(inputs=inputs, cross=cross, targets=targets, without=without, count=count)

    def solve(self, penalty: float) -> Float[Tensor, "L H"]:
        """Weights of the penalised least-squares fit."""
        lookback, horizon = self.cross.shape
        eye = torch.eye(lookback, dtype=torch.float64, device=self.cross.device)
        whole = [step for step in range(horizon) if step not in self.without]
        weight = torch.zeros_like(self.cross)
        if whole:
            rows = self.count[whole[0]].clamp(min=1)
            weight[:, whole] = torch.linalg.solve(
                self.inputs / rows + penalty * eye, self.cross[:, whole] / rows
            )
        for step, lost in self.without.items():
            rows = self.count[step].clamp(min=1)
            weight[:, step] = torch.linalg.solve(
                (self.inputs - lost) / rows + penalty * eye, self.cross[:, step] / rows
            )
        return weight

    def squared_error(self, weight: Float[Tensor, "L H"]) -> float:
        """Sum |Y - X W|^2, expanded into the moments."""
        fitted = ((self.inputs @ weight) * weight).sum()
        for step, lost in self.without.items():
            column = weight[:, step]
            fitted = fitted - column @ lost @ column
        return float(self.targets.sum() - 2 * (self.cross * weight).sum() + fitted)


def _changes(
    batch: SeriesBatch,
) -> tuple[Float[Tensor, "R L"], Float[Tensor, "R H"], Bool[Tensor, "R H"] | None]:
    """Lay windows and variates out as rows, each less its last observed value."""
    assert batch.target is not None
    last = last_observed(batch.past, batch.past_mask)
    x, y = batch.past - last, batch.target - last
    mask = batch.target_mask
    if batch.past_mask is not None:
        x = x * batch.past_mask
    if mask is not None:
        y = y * mask
        mask = mask.transpose(1, 2).flatten(0, 1)
    x, y = (part.transpose(1, 2).flatten(0, 1).double() for part in (x, y))
    return x, y, mask


@dataclass(frozen=True, kw_only=True, slots=True)
class DLinearConfig:
    """Config of DLinear: how it splits a window.

    Attributes:
        kernel: odd length of the moving average that gives the trend [rows].
        individual: one pair of matrices for each variate instead of one for all.
        quantiles: levels to forecast, the median 0.5 among them; empty forecasts one value.
    """

    kernel: Annotated[int, Field(ge=1)] = 25
    individual: bool = False
    quantiles: tuple[Quantile, ...] = ()


class DLinear(nn.Module):
    """Split a window into trend and remainder, and map each by a matrix of its own.

    The trend is a moving average with the first and last value repeated at the ends. What is known
    in advance, which the paper has not, shifts the forecast of its own step, by one weight for each
    of its columns.
    """

    def __init__(self, config: DLinearConfig, spec: Spec) -> None:
        super().__init__()
        if config.kernel % 2 == 0:
            raise UsageError(
                f"model.kernel = {config.kernel} is even; a centred average needs an odd length.",
                hint=f"Use {config.kernel + 1}.",
            )
        self.config = config
        maps = spec.variates if config.individual else 1
        outputs = spec.horizon * check_quantiles(config.quantiles)
        # Averaging the window is where the authors' code starts the weights.
        start = torch.full((maps, spec.lookback, outputs), 1 / spec.lookback)
        self.trend = nn.Parameter(start.clone())
        self.remainder = nn.Parameter(start.clone())
        self.trend_bias = nn.Parameter(torch.zeros(maps, outputs))
        self.remainder_bias = nn.Parameter(torch.zeros(maps, outputs))
        future = spec.known_future
        self.known = nn.Parameter(torch.zeros(future, maps)) if future else None

    def forward(self, batch: SeriesBatch) -> Forecast:
        """Forecast (B, H, C), or (B, H, C, Q) with quantiles."""
        past = batch.past
        if batch.past_mask is not None:
            past = torch.where(batch.past_mask, past, last_observed(past, batch.past_mask))
        if self.config.individual and past.shape[2] != self.trend.shape[0]:
            raise UsageError(
                f"This DLinear has {self.trend.shape[0]} variates of its own and got "
                f"{past.shape[2]}.",
                hint="Train with model.individual = false to forecast other variates.",
            )
        window = past.transpose(1, 2)  # (B, C, L)
        half = self.config.kernel // 2
        padded = nn.functional.pad(window, (half, half), mode="replicate")
        trend = nn.functional.avg_pool1d(padded, self.config.kernel, stride=1)
        values = self._map(trend, self.trend, self.trend_bias) + self._map(
            window - trend, self.remainder, self.remainder_bias
        )
        values = values.transpose(1, 2)
        if quantiles := self.config.quantiles:
            values = rising(values.unflatten(1, (-1, len(quantiles))).transpose(2, 3), quantiles)
        if self.known is not None:
            assert batch.known_future is not None
            shift = batch.known_future @ self.known  # (B, H, C or 1)
            values = values + (shift[..., None] if quantiles else shift)
        return Forecast(values=values, quantiles=quantiles)

    def loss(self, batch: SeriesBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Sum the losses over observed targets, and count those."""
        return forecast_error(self(batch), batch)

    def _map(self, rows: Tensor, weight: Tensor, bias: Tensor) -> Float[Tensor, "B C HQ"]:
        if self.config.individual:
            return torch.einsum("bcl,clh->bch", rows, weight) + bias
        return rows @ weight[0] + bias[0]
