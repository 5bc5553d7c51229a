"""The scan of the Legendre memory in Triton; `test_interpreter.py` runs this file."""

from __future__ import annotations

import functools

import pytest
import torch

from forecast.kernels import dispatch, lmu
from forecast.kernels.lmu import chunk, memory
from forecast.kernels.lmu import triton as form

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


@pytest.mark.parametrize("order", [16, 40, 64])
def test_values_and_gradients_equal_the_reference(order, monkeypatch):
    monkeypatch.setattr(chunk, "CHUNK", 16)
    generator = torch.Generator().manual_seed(order)
    for count, steps in ((1, 17), (16, 64), (17, 130)):
        inputs = surrounded(generator, count, steps), surrounded(generator, count, order)
        trial, exact = (
            functools.partial(memory, order=order, window=96, backend=backend)
            for backend in ("triton", "reference")
        )
        assert dispatch.disagreement(trial, exact, inputs, 1e-5) == "", (count, steps)


def test_the_scan_is_the_plain_one():
    generator = torch.Generator().manual_seed(0)
    drive, initial, power = (
        surrounded(generator, *shape) for shape in ((3, 5, 24), (3, 24), (24, 24))
    )
    power = power / 24**0.5
    torch.testing.assert_close(
        form.scan(drive, initial, power), chunk.scan(drive, initial, power), rtol=1e-5, atol=1e-5
    )


def test_the_self_check_passes():
    assert lmu.self_check(torch.device("cpu")) == ""
