"""The check that stands between a kernel and its first use finds every kind of fault."""

from __future__ import annotations

import pytest
import torch

from forecast.kernels.dispatch import disagreement


def square(x):
    return x * x


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2.01 * x * grad


def broken(x):
    raise RuntimeError("out of resource")


@pytest.mark.parametrize(
    ("fast", "words"),
    [
        (square, ""),
        (lambda x: x * x + 1e-3, "its values differ"),
        (lambda x: x * x * torch.nan, "its values differ"),
        (WrongGradient.apply, "its gradient 1 of 1 differ"),
        (broken, "it raised RuntimeError: out of resource"),
    ],
)
def test_disagreement(fast, words):
    reason = disagreement(fast, square, [torch.linspace(-2, 2, 9)], 1e-5)
    assert reason.startswith(words)
    assert bool(reason) == bool(words)
