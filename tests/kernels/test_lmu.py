"""Legendre memory: every form against the recurrence in float64, what it stores, who runs it."""

from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch

from forecast.errors import UsageError
from forecast.kernels import dispatch, lmu
from forecast.kernels.lmu import System, choose, memory, read_out
from forecast.kernels.lmu.system import impulse, matrices, powers

FORMS = ("step", "chunk", "fft")
# (order, window): the sizes of the specification
SYSTEMS = ((16, 28), (32, 336), (40, 168), (64, 336), (128, 4096))
STEPS = (1, 2, 63, 64, 65, 130, 700)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fill fresh memory with NaN, so that what is read before it is written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def draw(order, steps, count=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(order * 1000 + steps)
    return (
        torch.randn(count, steps, generator=generator, dtype=dtype),
        torch.randn(count, order, generator=generator, dtype=dtype),
    )


def test_matrices_are_the_published_ones():
    a, b = matrices(System(16, 96.0))
    assert a[0, 0].item() == pytest.approx(0.9895250419, abs=1e-9)
    assert a[0, 1].item() == pytest.approx(-0.0102486458, abs=1e-9)
    wanted = torch.tensor([0.0104749581, -0.0307459374, 0.0507769701], dtype=torch.float64)
    torch.testing.assert_close(b[:3], wanted, rtol=0, atol=1e-9)
    for order, window, radius in ((16, 96, 0.934673), (32, 336, 0.974434), (64, 336, 0.966502)):
        a, _ = matrices(System(order, float(window)))
        assert torch.linalg.eigvals(a).abs().max().item() == pytest.approx(radius, abs=1e-6)


def test_impulse_and_powers_by_doubling_are_those_by_repetition():
    system = System(40, 168.0)
    a, b = matrices(system)
    found, stack = impulse(system, 37), powers(system, 37)
    for step in range(37):
        wanted = torch.linalg.matrix_power(a, step)
        torch.testing.assert_close(found[step], wanted @ b, rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(stack[step], wanted @ a, rtol=1e-10, atol=1e-13)


# Cycles in the window, order, and the error relative to the sinusoid that the specification states.
RECALLED = ((4, 16, 0.05), (7, 16, 0.88), (7, 32, 0.001), (14, 32, 0.88), (14, 48, 0.10))


@pytest.mark.parametrize(("cycles", "order", "stated"), RECALLED)
def test_a_sinusoid_is_recalled_as_well_as_stated(cycles, order, stated):
    window = 336
    time = torch.arange(6 * window, dtype=torch.float64)
    errors = []
    for phase in torch.linspace(0, math.pi, 9, dtype=torch.float64):
        wave = torch.sin(2 * math.pi * cycles * time / window + phase)
        last = memory(wave[None], order=order, window=window)[0, -1]
        # An input holds for its step, and is therefore half a step old on average.
        delays = (torch.arange(window, dtype=torch.float64) + 0.5) / window
        errors.append((read_out(last, delays) - wave.flip(0)[:window]).square().mean())
    error = (torch.stack(errors).mean() * 2).sqrt().item()
    assert stated / 1.5 <= error <= max(1.5 * stated, 0.01)


def test_a_constant_is_one_coefficient_and_stays_so():
    # P_0 = 1 alone makes a constant: the direct path of LMUFormer rests on that.
    start = torch.zeros(1, 40, dtype=torch.float64)
    start[0, 0] = 3.0
    held = memory(torch.full((1, 500), 3.0, dtype=torch.float64), start, order=40, window=168)
    torch.testing.assert_close(held[0, -1], start[0], rtol=0, atol=1e-12)


def test_order_one_is_exponential_smoothing():
    u, _ = draw(1, 30)
    held = memory(u, order=1, window=10)[..., 0]
    keep = math.exp(-1 / 10)
    level = torch.zeros(3, dtype=torch.float64)
    for step in range(30):
        level = keep * level + (1 - keep) * u[:, step]
        torch.testing.assert_close(held[:, step], level)


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize(("order", "window"), SYSTEMS)
def test_values_and_gradients_equal_the_recurrence(backend, order, window):
    trial, exact = (
        functools.partial(memory, order=order, window=window, backend=form)
        for form in (backend, "reference")
    )
    for steps in STEPS:
        inputs = draw(order, steps)
        assert dispatch.disagreement(trial, exact, inputs, 1e-12) == "", steps
        single = [x.float() for x in inputs]
        assert dispatch.disagreement(trial, exact, single, 1e-5) == "", steps


@pytest.mark.parametrize("backend", [*FORMS, "auto"])
def test_any_cut_of_the_signal_gives_the_same(backend):
    u, initial = draw(40, 700)
    options = {"order": 40, "window": 168, "backend": backend}
    whole = memory(u, initial, **options)
    cuts = [0, *torch.randperm(699, generator=torch.Generator().manual_seed(1))[:6].sort()[0], 700]
    state, parts = initial, []
    for first, last in itertools.pairwise(cuts):
        parts.append(memory(u[:, first:last], state, **options))
        state = parts[-1][:, -1]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-12)


def test_a_gap_equals_the_input_held_over_it():
    u, initial = draw(40, 5)
    gaps = torch.tensor([1, 7, 1, 3, 20])
    held = memory(u.repeat_interleave(gaps, 1), initial, order=40, window=168)
    jumped = memory(u, initial, order=40, window=168, dt=gaps)
    torch.testing.assert_close(jumped, held[:, gaps.cumsum(0) - 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", ["step", "chunk"])
def test_a_later_input_changes_no_bit_of_an_earlier_memory(backend):
    u, initial = draw(40, 300, dtype=torch.float32)
    changed = u.clone()
    changed[:, 171:] += 1e6
    first, second = (
        memory(x, initial, order=40, window=168, backend=backend) for x in (u, changed)
    )
    assert torch.equal(first[:, :171], second[:, :171])
    assert not torch.equal(first[:, 171:], second[:, 171:])


def test_half_precision_is_kept_in_single():
    u, initial = draw(40, 100, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = memory(u.bfloat16(), initial, order=40, window=168)
    assert found.dtype == torch.float32
    exact = memory(u.bfloat16().double(), initial.double(), order=40, window=168)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


def test_who_runs():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose(cpu, torch.float32).backend == "chunk"
    assert choose(cpu, torch.float32, steps=1).backend == "step"
    assert choose(cuda, torch.float32, regular=False).backend == "step"
    assert choose(cuda, torch.float64).backend == "chunk"
    assert choose(cuda, torch.float32, order=80).backend == "chunk"
    assert [row[:2] for row in lmu.explain(cpu, torch.float32)][:1] == [("lmu", "chunk")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "chunks"}, "'chunks' is no backend"),
        ({"backend": "fft", "dt": torch.tensor([1.0, 2.0])}, "one product each"),
        ({"backend": "triton"}, "cannot run lmu"),
        ({"order": 0}, "order 0"),
    ],
)
def test_what_cannot_run_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        memory(torch.zeros(1, 2, dtype=torch.float64), **({"order": 4, "window": 8} | options))


@pytest.mark.parametrize("order", [40, 64])
def test_the_triton_scan_spills_nothing(order, capability, launches, compile_launch):
    from forecast.kernels.lmu.triton import scan

    scan(torch.zeros(64, 7, order), torch.zeros(64, order), torch.zeros(order, order))
    (launch,) = launches
    used = compile_launch(launch, capability)
    assert used.spilled == 0
    assert used.registers <= 255
    assert used.shared <= (99 if capability == 80 else 200) * 1024
