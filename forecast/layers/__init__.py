"""Blocks that two models or more share: window statistics, dropout, quantiles and the losses.

Letters: B batch, L lookback, H horizon, C variates, Q quantiles.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from forecast.batch import Forecast, SeriesBatch, tiled_rows
from forecast.errors import UsageError
from forecast.kernels.dropout import keep_mask

# One of the levels that a model's `quantiles` lists.
Quantile = Annotated[float, Field(gt=0, lt=1)]


def squared_error(
    forecast: Forecast, batch: SeriesBatch
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Sum the squared errors over observed targets.

    Returns:
        The sum in float32 and the number of observed targets; their quotient is the MSE.
    """
    assert batch.target is not None
    error = forecast.values.float() - batch.target
    if batch.target_mask is None:
        return error.square().sum(), error.new_tensor(float(error.numel()))
    return (error.square() * batch.target_mask).sum(), batch.target_mask.sum().to(error.dtype)


def quantile_error(
    forecast: Forecast, batch: SeriesBatch
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Sum twice the pinball loss, averaged over the quantiles, over observed targets.

    Returns:
        The sum in float32 and the number of observed targets; their quotient is the CRPS as
        `metrics.crps` defines it, and for the median alone the MAE.
    """
    assert batch.target is not None
    error = batch.target[..., None] - forecast.values.float()  # (B, H, C, Q)
    level = error.new_tensor(forecast.quantiles)
    loss = 2 * torch.maximum(level * error, (level - 1) * error).mean(-1)
    if batch.target_mask is None:
        return loss.sum(), loss.new_tensor(float(loss.numel()))
    return (loss * batch.target_mask).sum(), batch.target_mask.sum().to(loss.dtype)


def forecast_error(
    forecast: Forecast, batch: SeriesBatch
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Sum the loss that fits a forecast: pinball for quantiles, else squared errors."""
    measure = quantile_error if forecast.quantiles else squared_error
    return measure(forecast, batch)


def check_quantiles(quantiles: Sequence[float]) -> int:
    """Refuse levels that are no rising list around the median.

    Returns:
        Numbers that a head gives for each value: one for each level, one without any.

    Raises:
        UsageError: 0.5 is not among them, or they do not rise.
    """
    levels = list(quantiles)
    if levels and 0.5 not in levels:
        raise UsageError(
            f"model.quantiles = {levels} lacks 0.5, the median, which is the point forecast.",
            hint=f"Use model.quantiles = {sorted({*levels, 0.5})}.",
        )
    if any(low >= high for low, high in itertools.pairwise(levels)):
        raise UsageError(
            f"model.quantiles = {levels} does not rise.",
            hint=f"Use model.quantiles = {sorted(set(levels))}.",
        )
    return max(1, len(levels))


def rising(raw: Float[Tensor, "... Q"], quantiles: Sequence[float]) -> Float[Tensor, "... Q"]:
    """Turn unbounded numbers into quantiles that cannot cross.

    The number at the median stays as it is; each of the others becomes a positive step (softplus)
    away from its neighbour on the side of the median.
    """
    place = list(quantiles).index(0.5)
    below, median, above = raw.split([place, 1, len(quantiles) - place - 1], dim=-1)
    down = torch.nn.functional.softplus(below).flip(-1).cumsum(-1).flip(-1)
    up = torch.nn.functional.softplus(above).cumsum(-1)
    return torch.cat([median - down, median, median + up], dim=-1)


def window_statistics(
    past: Float[Tensor, "B L C"], mask: Bool[Tensor, "B L C"] | None, epsilon: float = 1e-5
) -> tuple[Float[Tensor, "B 1 C"], Float[Tensor, "B 1 C"]]:
    """Take mean and standard deviation of every window and variate over its observed cells.

    The deviation is `sqrt(biased variance + epsilon)`, so a constant window divides by a small
    number and not by zero. A variate with nothing observed has mean 0 and deviation 1. No gradient
    flows through either.
    """
    with torch.no_grad():
        if mask is None:
            mean = past.mean(1, keepdim=True)
            # Two passes over the window, a fourth of the time of torch.var_mean.
            return mean, ((past - mean).square().mean(1, keepdim=True) + epsilon).sqrt()
        count = mask.sum(1, keepdim=True)
        observed = count.clamp(min=1)
        mean = (past * mask).sum(1, keepdim=True) / observed
        variance = ((past - mean).square() * mask).sum(1, keepdim=True) / observed
        return mean, torch.where(count > 0, (variance + epsilon).sqrt(), torch.ones_like(mean))


def last_observed(
    past: Float[Tensor, "B L C"], mask: Bool[Tensor, "B L C"] | None
) -> Float[Tensor, "B 1 C"]:
    """Take the last observed value of every window and variate, 0 where nothing was observed."""
    if mask is None:
        return past[:, -1:]
    length = past.shape[1]
    position = torch.arange(1, length + 1, device=past.device).view(1, length, 1)
    last = (position * mask).amax(1, keepdim=True)
    value = past.gather(1, (last - 1).clamp(min=0))
    return torch.where(last > 0, value, torch.zeros_like(value))


class RowLinear(torch.nn.Linear):
    """Linear map that gives a row the same bits at any place of a batch of whole tiles.

    Matrix libraries treat widths that fill no whole tile by code whose sums depend on where a row
    lies in memory. Without a gradient both widths are therefore filled up with zeros, which add
    nothing; `batch.tiled_rows` does the same for the rows.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., K) to (..., N)."""
        outputs, inputs = self.weight.shape
        wide, long = tiled_rows(outputs) - outputs, tiled_rows(inputs) - inputs
        if torch.is_grad_enabled() or not (wide or long):
            return super().forward(x)
        pad = functional.pad
        bias = None if self.bias is None else pad(self.bias, (0, wide))  # pyright: ignore[reportUnnecessaryComparison]
        return functional.linear(pad(x, (0, long)), pad(self.weight, (0, long, 0, wide)), bias)[
            ..., :outputs
        ]


class RMSNorm(torch.nn.RMSNorm):
    """Divide by the root mean square in the precision of the weight, whatever comes in.

    Under autocast the input may be in bf16, of which torch would warn and take its slow form; the
    mean of squares wants more than 8 bits anyway.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", arXiv 1910.07467.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., D) over its last dimension; the result has the weight's type."""
        return super().forward(x.to(self.weight.dtype))


class Dropout(torch.nn.Module):
    """Zero elements with probability `probability` while training, and scale up the rest.

    On a CPU the mask is drawn as in `kernels.dropout`: with torch's own, a fifth of a small model's
    training step went into drawing. The draws come from torch's default generator, so saving its
    state is enough to resume.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Apply it to a tensor of any shape, and add the result to a residual if there is one."""
        if not self.training or self.probability == 0.0:
            return x if residual is None else residual + x
        if x.device.type != "cpu":
            dropped = torch.nn.functional.dropout(x, self.probability)
            return dropped if residual is None else residual + dropped
        keep, scale = keep_mask(x.shape, self.probability, x.dtype)
        if residual is None:
            return x * keep.mul_(scale)
        return torch.addcmul(residual, x, keep, value=scale)

    def extra_repr(self) -> str:
        """Show the probability where the module is printed."""
        return f"probability={self.probability}"
