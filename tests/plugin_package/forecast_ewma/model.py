"""An exponentially weighted mean of the past that goes on as a stream.

Letters: N streams, one for each variate of a series, L rows, K positions to forecast from, H
horizon.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from forecast.batch import Spec
from forecast.models.stateful.model import Piece, State, StatefulModel


@dataclass(frozen=True, kw_only=True, slots=True)
class EWMAConfig:
    """Choose where the learning begins.

    Attributes:
        half_life: rows after which a row weighs half, at the start of training.
        segment: rows of a training segment that are scored.
    """

    half_life: Annotated[float, Field(gt=0)] = 12.0
    segment: Annotated[int, Field(ge=2)] = 64


class EWMA(StatefulModel):
    """Forecast each variate by the mean of its past, in which rows fade at a rate that is learnt.

    `m_t = s_t / w_t` with `s_t = f s_(t-1) + x_t`, `w_t = f w_(t-1) + 1` and `f = sigmoid(rate)`.
    """

    # Rows far back fade from the state, and segments need not begin with carried history.
    forgets = True
    carried = 0
    # One variate at a time, without masks, calendar, carried scale or direct path.
    together = 1
    observed = False
    calendar_rows = 0
    half_life = None
    direct = None

    def __init__(self, config: EWMAConfig, spec: Spec) -> None:
        super().__init__()
        self.config = config
        self.horizon, self.variates = spec.horizon, spec.variates
        self.context = self.warm_up = spec.lookback
        self.segment = config.segment
        fading = torch.tensor(0.5 ** (1 / config.half_life))
        self.rate = nn.Parameter(torch.logit(fading))

    def state_sizes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what is carried of a stream, beside its last value: the sum and the weight."""
        return {"sum": (1,), "weight": (1,)}

    def network(self, piece: Piece, before: State) -> tuple[torch.Tensor, State]:
        """Add to the last value what leads to the mean, (N, K, H, 1), and return the state."""
        fading = torch.sigmoid(self.rate)
        begun = torch.ones_like(piece.inputs) if piece.live is None else piece.live.float()
        total, weight = before["sum"], before["weight"]
        means: list[torch.Tensor] = []
        for x, there in zip(piece.inputs.unbind(1), begun.unbind(1), strict=True):
            total, weight = fading * total + x, fading * weight + there
            means.append(total / weight.clamp(min=1e-6))
        change = torch.stack(means, 1) - piece.inputs  # (N, L, 1)
        kept = change[:, change.shape[1] - piece.kept :]
        return kept.unsqueeze(2).expand(-1, -1, self.horizon, -1), {"sum": total, "weight": weight}
