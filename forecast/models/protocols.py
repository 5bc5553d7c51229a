"""What every model has, and what a model may offer beside it.

A model is an `nn.Module` made of its config and the spec of its task. `Model` is what training and
prediction ask of it. The others are offers, told by `isinstance`: `ClosedForm` is solved instead of
trained by steps, `Validated` is chosen by another loss than it learns by, `Stateful` takes rows one
at a time with a carried state.

Letters: B batch, H horizon, C variates, F calendar features, R rows with a calendar.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from forecast.batch import Batches, DenseForecast, Forecast, Scores, SeriesBatch

State = dict[str, Tensor]


@runtime_checkable
class Model(Protocol):
    """A forecaster: what training by steps and prediction ask of it."""

    def __call__(self, batch: Any) -> Forecast | DenseForecast | Scores:
        """Forecast what follows a batch, in the scaled space of the batch."""
        ...

    def loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Sum of the training loss over a batch, and the number of terms in it."""
        ...


@runtime_checkable
class ClosedForm(Protocol):
    """A model that is solved for at once."""

    def fit(self, train: Batches[SeriesBatch], val: Batches[SeriesBatch]) -> None:
        """Solve for the weights on the training and validation part."""
        ...


@runtime_checkable
class Validated(Protocol):
    """A model that is chosen by another loss than the one it learns by."""

    def validation(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Sum of the validation loss over a batch, and the number of terms in it."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """A model that takes rows one at a time with a carried state.

    Attributes:
        context: rows after which a stream is no longer cold.
        calendar_rows: R, the last rows whose calendar `step` reads.
    """

    context: int
    calendar_rows: int

    def init_state(self, batch_size: int) -> State:
        """State before the first row: tensors, batch axis first."""
        ...

    def step(
        self,
        x: Float[Tensor, "B C"],
        state: State,
        *,
        mask: Bool[Tensor, "B C"] | None = None,
        time: Float[Tensor, "B R F"] | None = None,
        future_time: Float[Tensor, "B H F"] | None = None,
    ) -> tuple[Forecast, State]:
        """Take one row of each series in, and forecast what follows it."""
        ...
