"""The scan of the learning memory in Triton; `test_interpreter.py` runs this file."""

from __future__ import annotations

import functools

import pytest
import torch

from forecast.kernels import dispatch, neural_memory
from forecast.kernels.neural_memory import Gates, State, gates, unit

pytestmark = pytest.mark.interpreter


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fill what the kernel is to write with NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def surrounded(generator, *shape):
    """Draw a tensor that lies between NaN, so that a load outside of it shows."""
    count = torch.Size(shape).numel()
    space = torch.full((count + 8192,), torch.nan)
    inner = space[4096 : 4096 + count]
    inner.copy_(torch.randn(count, generator=generator))
    return inner.view(shape)


CASES = ((1, 16, 16), (4, 5, 7), (63, 16, 8), (64, 24, 16), (65, 16, 16), (130, 20, 33))


# Every case with the momentum and the exact gradient, two of them with less; the rest is slow.
@pytest.mark.parametrize(
    ("momentum", "gradient", "tokens", "width", "values"),
    [
        pytest.param(
            momentum, gradient, *case,
            marks=[]
            if (momentum and gradient == "exact") or case in (CASES[1], CASES[4])
            else [pytest.mark.slow],
        )
        for momentum in (True, False)
        for gradient in ("exact", "none")
        for case in CASES
    ],
)  # fmt: skip
def test_values_and_gradients_equal_the_reference(momentum, gradient, tokens, width, values):
    generator = torch.Generator().manual_seed(0)
    shapes = 2 * [(tokens, width)] + [(tokens, values)] + 3 * [(tokens,)]
    shapes += 2 * [(width, values)]
    inputs = [surrounded(generator, 1, 2, *shape) for shape in shapes]

    def run(backend, q, k, v, write, forget, move, held, surprise):
        gate = Gates(*gates(write, forget, move if momentum else None))
        state = State(held, surprise if momentum else None)
        answer, after = neural_memory.memory(
            unit(q), unit(k), v, gate, state, gradient=gradient, backend=backend
        )
        found = torch.cat([answer, after.memory], 2)
        return found + 0.0 * (move.sum() + surprise.sum() + k.sum())

    trial, exact = (functools.partial(run, backend) for backend in ("triton", "reference"))
    assert dispatch.disagreement(trial, exact, inputs, 1e-5) == ""


def test_the_self_check_passes():
    assert neural_memory.self_check(torch.device("cpu")) == ""
