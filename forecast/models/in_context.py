"""`in-context`: a season's mean and a small regression, solved anew over every window.

Nothing is trained. The arithmetic is `forecast.auto.in_context`, which has the source and the
letters; here are its settings, and how a batch goes in and comes out. The variates of a window are
pooled, windows are apart. B batch, L lookback, H horizon, C variates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from forecast.auto.in_context import InContext as Form
from forecast.batch import Forecast, SeriesBatch, Spec
from forecast.layers import last_observed, squared_error


@dataclass(frozen=True, kw_only=True, slots=True)
class InContextConfig:
    """Choose what is solved over the rows of a window.

    Attributes:
        season: rows of a season; none takes the one of the data's frequency.
        lags: rows that the regression reads.
        penalty: added to the diagonal of its equations, of rows of deviation 1.
        level: share of the last season's level that moves the season's mean.
    """

    season: Annotated[int, Field(ge=1)] | None = None
    lags: Annotated[int, Field(ge=1)] = 96
    penalty: Annotated[float, Field(gt=0)] = 1.0
    level: Annotated[float, Field(ge=0, le=1)] = 0.5


class InContext(nn.Module):
    """Mean of the season's mean, a ridge regression, and both in turn, over the window alone."""

    def __init__(self, config: InContextConfig, spec: Spec) -> None:
        super().__init__()
        self.config = config
        self.horizon = spec.horizon
        self.form = Form(
            season=config.season or spec.season,
            context=spec.lookback,
            lags=config.lags,
            penalty=config.penalty,
            level=config.level,
        )

    @torch.no_grad()
    def forward(self, batch: SeriesBatch) -> Forecast:
        """Forecast (B, H, C); a missing row counts as no change from the last value."""
        past = batch.past
        if batch.past_mask is not None:
            past = torch.where(batch.past_mask, past, last_observed(past, batch.past_mask))
        windows = past.transpose(1, 2).double().cpu().numpy()  # (B, C, L)
        rows = windows.shape[2]
        ahead = [self.form.forecast({}, window, [rows], self.horizon)[:, 0].T for window in windows]
        values = np.stack(ahead) if ahead else np.empty((0, self.horizon, past.shape[2]))
        return Forecast(values=torch.from_numpy(values).to(past))

    def loss(self, batch: SeriesBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Sum of the squared errors over observed targets, and their number."""
        return squared_error(self(batch), batch)
