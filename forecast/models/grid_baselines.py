"""Simple forecasts of grids that every score stands beside: nothing in them is trained.

They repeat what a batch brings along: the last frame, or a reference, which is the frame a day,
week or year before, or the mean of the hour, of the hour of the week, of the month, of the day of
the year. `-offset` adds by how much the last frame lay above the reference at its own time, so
that a climatology becomes persistence with the climatological change.

Letters: B batch, L lookback, H horizon, C channels, R references, K = 1 + 2 R
rules, Y X rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from forecast.batch import Forecast, GridBatch, GridSpec
from forecast.errors import UsageError, nearest


@dataclass(frozen=True, kw_only=True, slots=True)
class GridRuleConfig:
    """Config of `GridRule`: which simple forecast.

    Attributes:
        rule: `persistence`, or the name of a reference, with `-offset` or without.
    """

    rule: str = "persistence"


def rule_names(spec: GridSpec) -> tuple[str, ...]:
    """Return the names of the simple forecasts of a task, in the order of `rules`."""
    offsets = tuple(f"{name}-offset" for name in spec.references)
    return ("persistence", *spec.references, *offsets)


def rules(
    batch: GridBatch, horizon: int, used: list[int] | None = None
) -> Float[Tensor, "B K H C Y X"]:
    """Make all simple forecasts of a batch: the last frame, references, references with offset.

    Args:
        batch: with its references, if it has any.
        horizon: H.
        used: places of the references to take; None takes all.
    """
    lookback = batch.frames.shape[1]
    last = last_frame(batch)  # (B, C, Y, X)
    persistence = last[:, None, None].expand(-1, 1, horizon, -1, -1, -1)
    if batch.references is None:
        return persistence
    references = batch.references if used is None else batch.references[:, used]
    said = references[:, :, lookback:]
    offset = last[:, None, None] - references[:, :, lookback - 1 : lookback]
    return torch.cat([persistence, said, said + offset], dim=1)


def last_frame(batch: GridBatch) -> Float[Tensor, "B C Y X"]:
    """Take each cell's last observed value, 0 where nothing was observed."""
    if batch.mask is None:
        return batch.frames[:, -1]
    length = batch.frames.shape[1]
    position = torch.arange(1, length + 1, device=batch.frames.device).view(1, length, 1, 1, 1)
    latest = (position * batch.mask).amax(1, keepdim=True)
    value = batch.frames.gather(1, (latest - 1).clamp(min=0))
    return torch.where(latest > 0, value, torch.zeros_like(value))[:, 0]


def squared_cells(
    forecast: Forecast, batch: GridBatch
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Sum the squared errors over observed cells, and count those; their quotient is the MSE."""
    assert batch.target is not None
    error = forecast.values.float() - batch.target
    if batch.target_mask is None:
        return error.square().sum(), error.new_tensor(float(error.numel()))
    return (error.square() * batch.target_mask).sum(), batch.target_mask.sum().to(error.dtype)


class GridRule(nn.Module):
    """Forecast by one of the simple rules."""

    def __init__(self, config: GridRuleConfig, spec: GridSpec) -> None:
        super().__init__()
        names = rule_names(spec)
        if config.rule not in names:
            raise UsageError(
                f"These data have no reference for model.rule = {config.rule!r}.",
                hint=nearest(config.rule, names),
            )
        self.config = config
        self.horizon = spec.horizon
        self.place = names.index(config.rule)

    def forward(self, batch: GridBatch) -> Forecast:
        """Forecast (B, H, C, Y, X)."""
        return Forecast(values=rules(batch, self.horizon)[:, self.place])

    def loss(self, batch: GridBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Sum the squared errors over observed cells, and count those."""
        return squared_cells(self(batch), batch)


def grid_baselines(spec: GridSpec) -> dict[str, GridRule]:
    """Make every simple forecast of a task by name."""
    return {name: GridRule(GridRuleConfig(rule=name), spec) for name in rule_names(spec)}
