"""A computation that keeps only its inputs for the gradient, and is done again on the way back.

What `torch.utils.checkpoint` does for any function, for one whose inputs are all given: that module
takes as much memory to load as a long series takes to learn from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# A function of tensors that draws no random numbers.
Run = Callable[..., tuple[Tensor, ...]]


def recomputed(run: Run, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Compute `run(*inputs)`, and again where a gradient is wanted.

    Args:
        run: a function; of what it holds besides, nothing gets a gradient.
        inputs: of the function, weights among them.
    """
    outputs: Any = _Recomputed.apply(run, *inputs)
    return outputs


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Run, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.run = run
        ctx.save_for_backward(*inputs)
        kind = inputs[0].device.type
        # The way back knows nothing of the precision that the way there was computed in.
        ctx.precision = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        return run(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[1:]
        pairs = zip(ctx.saved_tensors, wanted, strict=True)
        inputs = [x.detach().requires_grad_(want) for x, want in pairs]
        with torch.enable_grad(), torch.autocast(*ctx.precision):
            outputs = ctx.run(*inputs)
        reached = [i for i, output in enumerate(outputs) if output.requires_grad]
        slopes = iter(
            torch.autograd.grad(
                [outputs[i] for i in reached],
                [x for x, want in zip(inputs, wanted, strict=True) if want],
                [gradients[i] for i in reached],
                allow_unused=True,
            )
        )
        return (None, *(next(slopes) if want else None for want in wanted))
