"""The memory of two layers: its gradients, one result however cut, bounds, and what it holds."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from forecast.errors import UsageError
from forecast.kernels import dispatch
from forecast.kernels import neural_memory as room
from forecast.kernels.neural_memory import (
    DEEP_CHUNK,
    DeepState,
    Gates,
    Layers,
    deep_memory,
    gates,
    memory,
    unit,
)
from forecast.kernels.neural_memory.deep_reference import slopes

DOUBLE = torch.float64
OFF = -math.inf


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fill fresh memory with NaN, so that what is read before it is written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def draw(tokens, width=6, inner=10, values=5, planes=(2, 3), dtype=DOUBLE):
    """Draw queries, keys, values, three kinds of gates, first weights, and a state's parts."""
    generator = torch.Generator().manual_seed(tokens)
    batch, heads = planes
    pair = [(heads, width, inner), (heads, inner, values)]
    shapes = [(*planes, tokens, size) for size in (width, width, values)] + 3 * [(*planes, tokens)]
    shapes += pair + 3 * [(batch, *shape) for shape in pair]
    return [torch.randn(shape, generator=generator, dtype=dtype) / 2 for shape in shapes]


def runner(backend, *, momentum=True, place=0):
    """Give a function of what `draw` drew: all that a call returns, in one vector."""

    def run(q, k, v, write, forget, move, *layers):
        first, change, surprise, anchor = (
            Layers(*pair) for pair in zip(layers[::2], layers[1::2], strict=True)
        )
        gate = gates(write + 2, forget, move if momentum else None)
        state = DeepState(
            change, surprise if momentum else None, anchor, torch.full((len(q),), place)
        )
        answer, after = deep_memory(unit(q), unit(k), v, gate, first, state, backend=backend)
        found = [answer, *after.change, *after.anchor, *(after.surprise or ())]
        unused = 0.0 * sum(x.sum() for x in (k, move, *surprise, *anchor))
        return torch.cat([x.flatten() for x in found]) + unused

    return run


@pytest.mark.parametrize("momentum", [True, False])
def test_values_and_gradients_equal_the_recurrence(momentum):
    # Places in the chunk, and tokens: within one chunk, to its end, beyond, and in several groups.
    for place, tokens in ((0, 1), (0, 16), (3, 5), (3, 13), (5, 40), (16, 33), (7, 300)):
        trial, exact = (
            runner(form, momentum=momentum, place=place) for form in ("chunk", "reference")
        )
        planes = (1, 1) if tokens > 100 else (2, 3)
        for dtype, tolerance in ((DOUBLE, 1e-10), (torch.float32, 1e-5)):
            inputs = draw(tokens, planes=planes, dtype=dtype)
            assert dispatch.disagreement(trial, exact, inputs, tolerance) == "", (place, tokens)


def test_gradients_agree_with_finite_differences():
    inputs = [x.requires_grad_() for x in draw(21, 3, 4, 2, planes=(1, 1))]
    assert torch.autograd.gradcheck(runner("chunk", place=13), inputs, fast_mode=True)


def test_what_is_written_is_the_gradient_of_half_the_squared_error():
    _, k, v, *_, inner, outer = draw(9)[:8]
    inner, outer = inner.requires_grad_(), outer.requires_grad_()
    found = slopes(k, v, Layers(inner, outer))
    lost = (v - torch.nn.functional.silu(k @ inner) @ outer).square().sum() / 2
    wanted = torch.autograd.grad(lost, (inner, outer))
    for have, want in zip(
        (k.transpose(2, 3) @ found.pulled, found.features.transpose(2, 3) @ found.error),
        wanted,
        strict=True,
    ):
        torch.testing.assert_close(-have.sum(0), want, rtol=0, atol=1e-12)


def test_the_size_of_a_step_bounds_how_far_it_moves_the_answer():
    _, k, v, *_, inner, outer = draw(9, planes=(1, 1))[:8]
    k, v = unit(k)[0, 0], v[0, 0]
    weights = Layers(inner[0], outer[0])

    def recall(key, inner, outer):
        return torch.nn.functional.silu(key @ inner) @ outer

    for key, size in zip(k, slopes(k, v, weights).size, strict=True):
        ways = torch.autograd.functional.jacobian(lambda *w, key=key: recall(key, *w), weights)
        way = torch.cat([x.flatten(1) for x in ways], 1)
        # the largest eigenvalue of J J^T is what a gradient step of length 1 may multiply by
        assert torch.linalg.eigvalsh(way @ way.T)[-1] <= size + 1e-12


def test_a_chunk_by_hand():
    # One key of length 1, one feature, W1 = 0: SiLU(0) = 0 and SiLU'(0) = 1/2. The error is the
    # value, W2's gradient 0, W1's 2 e W2 / 4: with W2 = 2, e = 3: p = 3 * 2 / 2 = 3. The size is
    # (1/2)^2 * 2^2 = 1, so that a step of 1 / 16 writes 3/16 for each token at one anchor.
    one = torch.ones(1, 1, 2, 1, dtype=DOUBLE)
    first = Layers(torch.zeros(1, 1, 1, dtype=DOUBLE), torch.full((1, 1, 1), 2.0, dtype=DOUBLE))
    full = torch.ones(1, 1, 2, dtype=DOUBLE)
    silu = torch.nn.functional.silu
    step = torch.tensor([3 / 16], dtype=DOUBLE)
    none, half = torch.zeros_like(full), torch.full_like(full, math.log(0.5))
    # The inner weight behind either token, in steps: plain, forgetting half, a momentum of half.
    for keep, move, wanted in (
        (none, None, (1, 2)),
        (half, None, (1, 1.5)),
        (none, half, (1, 2.5)),
    ):
        for backend in ("reference", "chunk"):
            answer, after = deep_memory(
                one, one, 3 * one, Gates(full, keep, move), first, backend=backend
            )
            expected = torch.cat([2 * silu(step * times) for times in wanted])
            torch.testing.assert_close(answer.flatten(), expected, rtol=0, atol=1e-15)
            assert after.change.inner.item() == pytest.approx(3 / 16 * wanted[1])
            assert after.change.outer.item() == after.anchor.inner.item() == 0
            assert after.place.tolist() == [2]


@pytest.mark.parametrize("momentum", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(DOUBLE, 1e-10), (torch.float32, 1e-5)])
@torch.no_grad()
def test_any_cut_of_ragged_streams_gives_the_same(momentum, dtype, tolerance):
    q, k, v, *numbers, inner, outer = draw(50, dtype=dtype)[:8]
    q, k, first = unit(q), unit(k), Layers(inner, outer)
    gate = gates(numbers[0] + 3, numbers[1], numbers[2] if momentum else None)

    def run(part, state, rows=slice(None)):
        some = Gates(*(None if x is None else x[rows, :, part] for x in gate))
        return deep_memory(*(x[rows, :, part] for x in (q, k, v)), some, first, state)

    def pieces(state):
        return [state.place, *state.change, *state.anchor, *(state.surprise or ())]

    whole, last = run(slice(0, 50), None)
    for borders in ([*range(51)], [0, 1, 17, 18, 40, 50], [0, 16, 48, 50]):
        state, answers = None, []
        for first_, stop in itertools.pairwise(borders):
            answer, state = run(slice(first_, stop), state)
            answers.append(answer)
        assert (torch.cat(answers, 2) - whole).abs().max() <= tolerance
        for have, want in zip(pieces(state), pieces(last), strict=True):
            assert (have - want).abs().max() <= tolerance
    # The second stream began seven tokens later: neither is disturbed by the other's place.
    ahead = [run(slice(0, stop), None, slice(row, row + 1))[1] for row, stop in ((0, 27), (1, 20))]
    state = DeepState(
        *(
            None if one is None else Layers(*map(torch.cat, zip(one, other, strict=True)))
            for one, other in list(zip(*ahead, strict=True))[:3]
        ),
        torch.tensor([27, 20]),
    )

    def late(x):
        return torch.cat([x[:1, :, 27:50], x[1:, :, 20:43]])

    some = Gates(*(None if x is None else late(x) for x in gate))
    answer, _ = deep_memory(late(q), late(k), late(v), some, first, state)
    assert (answer[0] - whole[0, :, 27:]).abs().max() <= tolerance
    assert (answer[1] - whole[1, :, 20:43]).abs().max() <= tolerance


@pytest.mark.parametrize("backend", ["reference", "chunk"])
@torch.no_grad()
def test_a_later_token_changes_no_bit_of_an_earlier_answer(backend):
    for first in (3, 15, 16, 29):
        answers = []
        for shift in (0.0, 1e4):
            q, k, v, *numbers, inner, outer = draw(40, dtype=torch.float32)[:8]
            for x in (q, k, v, *numbers):
                x[:, :, first:] += shift
            layers = Layers(inner, outer)
            answers.append(
                deep_memory(unit(q), unit(k), v, gates(*numbers), layers, backend=backend)[0]
            )
        assert torch.equal(answers[0][:, :, :first], answers[1][:, :, :first])
        assert not torch.equal(answers[0][:, :, first:], answers[1][:, :, first:])


@pytest.mark.parametrize("momentum", [True, False])
@torch.no_grad()
def test_it_stays_bounded_over_65536_tokens(momentum):
    generator = torch.Generator().manual_seed(0)
    tokens, width = 65_536, 8
    drawn = unit(torch.randn(tokens, width, generator=generator))
    # a stream each of random, periodic and constant keys, with small values and with large ones
    k = torch.stack([drawn[torch.arange(tokens) % place] for place in (tokens, 24, 1)])
    k = k.repeat(2, 1, 1)
    v = torch.randn(3, 1, tokens, width, generator=generator).expand(-1, 4, -1, -1)
    v = torch.cat([v, 10 * v])
    first = Layers(
        torch.randn(4, width, 16, generator=generator),
        torch.randn(4, 16, width, generator=generator) / 4,
    )
    # the largest step; momentum from .5 to .99, or forgetting from none to nearly all
    eta, alpha = torch.tensor([0.5, 0.9, 0.97, 0.99]), torch.tensor([1e-9, 1e-3, 0.1, 0.99])
    full = torch.full((6, 4, tokens), 20.0)
    move, fade = (torch.logit(x).view(1, 4, 1).expand(6, -1, tokens) for x in (eta, alpha))
    gate = gates(full, -full, move) if momentum else gates(full, fade, None)
    k = k.unsqueeze(1).expand(-1, 4, -1, -1)
    answer, after = deep_memory(k, k, v, gate, first)
    # No answer is larger than the largest values are.
    assert (answer.abs().amax((1, 2, 3)) <= v.abs().amax((1, 2, 3))).all()
    assert max(x.square().mean((2, 3)).sqrt().max() for x in after.change) < 3


@torch.no_grad()
def test_it_holds_a_product_of_signs_that_no_linear_memory_holds():
    # The value of a key of four signs is the product of the first two: over all sixteen keys it is
    # orthogonal to every column, so that the best linear map recalls nothing.
    keys = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)))
    generator = torch.Generator().manual_seed(0)
    order = torch.cat([torch.randperm(16, generator=generator) for _ in range(400)])
    k, v = (
        x[order].view(1, 1, -1, width)
        for x, width in ((unit(keys), 4), (keys[:, 0] * keys[:, 1], 1))
    )
    # Every token asks for what the next one will write.
    ask, write, value = k[:, :, 1:], k[:, :, :-1], v[:, :, :-1]
    full = torch.ones(1, 1, len(order) - 1)
    first = Layers(
        2 * torch.randn(1, 4, 16, generator=generator),
        torch.randn(1, 16, 1, generator=generator) / 4,
    )
    deep, _ = deep_memory(ask, write, value, Gates(full, 0 * full, None), first)
    linear, _ = memory(ask, write, value, Gates(full / 10, 0 * full, None))
    lost = [(x - v[:, :, 1:])[:, :, -800:].square().mean().item() for x in (deep, linear)]
    assert lost[0] < 0.1
    assert lost[1] > 0.9


def test_half_precision_carries_its_state_in_single():
    q, k, v, *numbers, inner, outer = (x.bfloat16() for x in draw(20)[:8])
    with torch.autocast("cpu", torch.bfloat16):
        answer, after = deep_memory(unit(q), unit(k), v, gates(*numbers), Layers(inner, outer))
    assert answer.dtype == torch.bfloat16
    assert after.change.inner.dtype == after.anchor.outer.dtype == torch.float32


def test_who_runs_and_what_is_refused():
    q, k, v, *numbers, inner, outer = draw(4)[:8]
    first, gate = Layers(inner, outer), gates(*numbers)
    shown = room.explain(torch.device("cpu"), torch.float32)
    assert [row[:2] for row in shown][2:] == [
        ("memory, deep", "chunk"),
        ("memory, deep, one token", "reference"),
    ]
    _, state = deep_memory(q, k, v, gate, first)
    ragged = state._replace(place=torch.tensor([4, 4 + DEEP_CHUNK + 1]))
    with pytest.raises(UsageError, match="at different places of their chunks"):
        deep_memory(q, k, v, gate, first, ragged, backend="chunk")
    with pytest.raises(UsageError, match="'triton' is no backend"):
        deep_memory(q, k, v, gate, first, backend="triton")
    with pytest.raises(UsageError, match="The state has a momentum"):
        deep_memory(q, k, v, gate._replace(momentum=None), first, state)
    with pytest.raises(UsageError, match="no token"):
        deep_memory(*(x[:, :, :0] for x in (q, k, v)), gate, first)
