"""Blocks that two models or more share: window statistics, dropout, the squared-error loss.

Letters: B batch, L lookback, H horizon, C variates, Q quantiles.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from forecast.batch import Forecast, SeriesBatch
from forecast.kernels.dropout import keep_mask


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
