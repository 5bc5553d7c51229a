"""Any model that forecasts from a window as a stateful one: the window is its state.

Letters: B batch, L lookback, H horizon, C variates, F calendar features, R rows with a calendar.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from forecast.batch import Forecast, SeriesBatch, Spec
from forecast.models.protocols import State
from forecast.series.scaling import by_own_rows


def weight_of(model: nn.Module) -> Tensor:
    """Return one tensor of a model, which has its device and precision; rules may have none."""
    return next(iter(model.state_dict().values()), torch.empty(0))


class RollingWindow(nn.Module):
    """Stream a model that forecasts from a window, by carrying the window.

    Before a series has filled its window, the rows it lacks count as missing.
    """

    def __init__(self, model: nn.Module, spec: Spec) -> None:
        super().__init__()
        self.model, self.spec = model, spec
        self.context = spec.lookback
        self.calendar_rows = spec.lookback if spec.calendar else 0

    def init_state(self, batch_size: int) -> State:
        """Return the state: the `past` rows, and what of them was `seen`."""
        size = (batch_size, self.spec.lookback, self.spec.variates)
        device = weight_of(self.model).device
        return {
            "past": torch.zeros(size, device=device),
            "seen": torch.zeros(size, dtype=torch.bool, device=device),
        }

    def step(
        self,
        x: Float[Tensor, "B C"],
        state: State,
        *,
        mask: Bool[Tensor, "B C"] | None = None,
        time: Float[Tensor, "B R F"] | None = None,
        future_time: Float[Tensor, "B H F"] | None = None,
        unit: Float[Tensor, "B C"] | None = None,
    ) -> tuple[Forecast, State]:
        """Move the windows on by a row, and forecast from them.

        Those of series that are new, which have a number in `unit`, are scaled by their own rows.
        """
        mask = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
        past, seen = (
            torch.cat([state[name][:, 1:], row.unsqueeze(1)], 1)
            for name, row in (("past", x), ("seen", mask))
        )
        batch = SeriesBatch(
            past=past,
            past_mask=None if seen.all() else seen,
            past_time=time,
            future_time=future_time,
        )
        own, scale = by_own_rows(batch, unit)
        forecast = self.model(own)
        if scale is not None:
            forecast = scale.undo_forecast(forecast)
        return forecast, {"past": past, "seen": seen}
