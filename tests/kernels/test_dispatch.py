"""The check that stands between a kernel and its first use finds every kind of fault."""

from __future__ import annotations

import pytest
import torch

from forecast.errors import UsageError
from forecast.kernels.dispatch import Choice, Operation, disagreement


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


def test_an_operation_checks_a_chosen_triton_form_and_refuses_a_named_one_that_cannot_run():
    asked: list[tuple[object, ...]] = []

    def obstacle(backend, device, dtype, *, width=1):
        asked.append((backend, width))
        return "it is too wide" if backend == "slow" and width > 8 else ""

    operation = Operation(
        name="stand-in",
        backends={"slow": "json", "fast": "math", "triton": "ast"},
        fallback="fast",
        choose=lambda device, dtype, *, width=1: Choice("triton" if width > 1 else "slow", "width"),
        obstacle=obstacle,
        check=lambda device, dtype: "" if dtype == torch.float32 else "its values differ",
        calls={"stand-in": {}, "stand-in, wide": {"width": 2}},
    )
    cpu, half = torch.device("cpu"), torch.bfloat16
    assert operation.resolve("auto", cpu, torch.float32).__name__ == "json"
    assert operation.resolve("auto", cpu, torch.float32, width=2).__name__ == "ast"
    with pytest.warns(RuntimeWarning, match="form of stand-in is not used: its values differ"):
        assert operation.resolve("auto", cpu, half, width=2).__name__ == "math"
    assert not asked  # what `auto` runs, `choose` answers for
    assert operation.resolve("slow", cpu, half, width=8).__name__ == "json"
    with pytest.raises(UsageError, match="backend='slow' cannot run stand-in: it is too wide"):
        operation.resolve("slow", cpu, half, width=9)
    with pytest.raises(UsageError, match="'fats' is no backend"):
        operation.resolve("fats", cpu, half)
    assert asked == [("slow", 8), ("slow", 9)]
    assert operation.explain(cpu, half) == [
        ("stand-in", "slow", "width"),
        ("stand-in, wide", "triton", "width"),
    ]
