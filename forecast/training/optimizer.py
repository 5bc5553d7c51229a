"""Adam and AdamW over torch's fused kernel.

`torch.optim.Adam` runs the same kernel, but making one imports torch's compiler: 150 MB of memory
and a second of CPU time that no run here has a use for. What is left beside the kernel is its
state, which is also easier to write into a checkpoint as plain tensors.

Source: Kingma and Ba, "Adam", ICLR 2015, Algorithm 1; Loshchilov and Hutter, "Decoupled Weight
Decay Regularization", ICLR 2019, Algorithm 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class Adam:
    """Adam: the moments of each parameter, and its step.

    Of a parameter that several processes hold in parts, each moves its own, by its own moments.

    Args:
        parameters: what to train.
        weight_decay: strength; added to the gradient, or with `decoupled` taken off the weights.
            Of matrices alone: biases and the scales of norms are left as they are.
        decoupled: AdamW instead of Adam.
    """

    def __init__(
        self, parameters: Iterable[Tensor], *, weight_decay: float = 0.0, decoupled: bool = False
    ) -> None:
        self._parameters = [weight for weight in parameters if weight.requires_grad]
        self._weight_decay = weight_decay
        self._decoupled = decoupled
        self._first = [torch.zeros_like(weight) for weight in self._parameters]
        self._second = [torch.zeros_like(weight) for weight in self._parameters]
        self._steps = [
            torch.zeros((), dtype=torch.float32, device=weight.device)
            for weight in self._parameters
        ]

    def zero_grad(self) -> None:
        """Set the gradients to None."""
        for weight in self._parameters:
            weight.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move each parameter that has a gradient."""
        rows = [
            (*map(local, (weight, weight.grad, first, second)), step)
            for weight, first, second, step in zip(
                self._parameters, self._first, self._second, self._steps, strict=True
            )
            if weight.grad is not None
        ]
        # A matrix keeps its two dimensions where processes hold it in parts.
        decayed = [row for row in rows if row[0].ndim > 1 or not self._weight_decay]
        others = [row for row in rows if row[0].ndim <= 1 and self._weight_decay]
        for group, decay in ((decayed, self._weight_decay), (others, 0.0)):
            if group:
                self._move(group, learning_rate, decay)

    def _move(
        self, rows: Sequence[tuple[Tensor, ...]], learning_rate: float, weight_decay: float
    ) -> None:
        weights, gradients, first, second, steps = (list(part) for part in zip(*rows, strict=True))
        adam(
            weights,
            gradients,
            first,
            second,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            lr=learning_rate,
            weight_decay=weight_decay,
            eps=_EPSILON,
            maximize=False,
            decoupled_weight_decay=self._decoupled,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as named tensors."""
        return {
            f"{number}.{name}": value
            for name, values in self._slots().items()
            for number, value in enumerate(values)
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load a state that `state_dict` returned."""
        for name, values in self._slots().items():
            for number, value in enumerate(values):
                value.copy_(state[f"{number}.{name}"])

    def _slots(self) -> dict[str, list[Tensor]]:
        return {"first": self._first, "second": self._second, "steps": self._steps}


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor, which is all of it unless several hold it."""
    # What holds a tensor in parts gives this process's by name; plain tensors have no such method.
    part: Callable[[], Tensor] | None = getattr(tensor, "tolocal", None)
    return part() if part else tensor
