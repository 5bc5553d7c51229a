"""The memory that learns: every form against the recurrence in float64, and bounds on its size."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from forecast.errors import UsageError
from forecast.kernels import OPERATIONS, dispatch
from forecast.kernels import neural_memory as room
from forecast.kernels.neural_memory import Gates, State, choose, gates, memory, unit

STEPS = (1, 4, 63, 64, 65, 130)
DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fill fresh memory with NaN, so that what is read before it is written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def draw(tokens, width=16, values=24, planes=(2, 3), dtype=DOUBLE):
    """Draw queries, keys, values, three kinds of gates, and a state."""
    generator = torch.Generator().manual_seed(tokens)
    shapes = [(tokens, width), (tokens, width), (tokens, values)] + 3 * [(tokens,)]
    shapes += 2 * [(width, values)]
    return [torch.randn(*planes, *shape, generator=generator, dtype=dtype) for shape in shapes]


def runner(backend, *, momentum=True, gradient="exact", strength=0.0):
    """Give a function of what `draw` drew: all that a call returns, in one vector."""

    def run(q, k, v, write, forget, move, held, surprise):
        gate = gates(write + strength, forget + strength, move + strength if momentum else None)
        answer, after = memory(
            unit(q), unit(k), v, gate, State(held, surprise if momentum else None),
            gradient=gradient, backend=backend,
        )  # fmt: skip
        found = [answer, *(x for x in after if x is not None)]
        unused = 0.0 * (k.sum() + move.sum() + surprise.sum())
        return torch.cat([x.flatten() for x in found]) + unused

    return run


@pytest.mark.parametrize("gradient", ["exact", "chunk", "none"])
@pytest.mark.parametrize("momentum", [True, False])
def test_values_and_gradients_equal_the_recurrence(momentum, gradient):
    options = {"momentum": momentum, "gradient": gradient}
    trial, exact = (runner(backend, **options) for backend in ("chunk", "reference"))
    for tokens in STEPS:
        for dtype, tolerance in ((DOUBLE, 1e-10), (torch.float32, 1e-5)):
            inputs = draw(tokens, dtype=dtype)
            assert dispatch.disagreement(trial, exact, inputs, tolerance) == "", tokens


def test_long_wide_and_strong():
    trial, exact = (runner(backend, strength=3.0) for backend in ("chunk", "reference"))
    for tokens, width, values in ((1000, 16, 16), (130, 128, 32), (65, 32, 128), (70, 64, 1)):
        inputs = draw(tokens, width, values, planes=(1, 1))
        assert dispatch.disagreement(trial, exact, inputs, 1e-10) == "", (tokens, width, values)


def test_gradients_agree_with_finite_differences():
    inputs = [x.requires_grad_() for x in draw(66, 3, 2, planes=(1, 1))]
    assert torch.autograd.gradcheck(runner("chunk"), inputs, fast_mode=True)


@pytest.mark.parametrize("momentum", [True, False])
def test_any_cut_of_the_tokens_gives_the_same(momentum):
    q, k, v, *numbers, held, surprise = draw(130)
    gate = gates(*numbers[:2], numbers[2] if momentum else None)
    state = State(held, surprise if momentum else None)
    whole, last = memory(unit(q), unit(k), v, gate, state)
    for middle in range(1, 130):
        after, answers = state, []
        for part in (slice(0, middle), slice(middle, 130)):
            some = Gates(*(None if x is None else x[:, :, part] for x in gate))
            answer, after = memory(
                unit(q[:, :, part]), unit(k[:, :, part]), v[:, :, part], some, after
            )
            answers.append(answer)
        torch.testing.assert_close(torch.cat(answers, 2), whole, rtol=0, atol=1e-10)
        torch.testing.assert_close(after.memory, last.memory, rtol=0, atol=1e-10)


@pytest.mark.parametrize("backend", ["reference", "chunk"])
def test_a_later_token_changes_no_bit_of_an_earlier_answer(backend):
    q, k, v, *numbers, held, surprise = draw(200, dtype=torch.float32)
    for first in (3, 63, 64, 90, 130):
        answers = []
        for shift in (0.0, 1e4):
            changed = [x.clone() for x in (q, k, v, *numbers)]
            for x in changed:
                x[:, :, first:] += shift
            gate = gates(*changed[3:])
            answers.append(
                memory(
                    unit(changed[0]), unit(changed[1]), changed[2], gate, State(held, surprise),
                    backend=backend,
                )[0]
            )  # fmt: skip
        assert torch.equal(answers[0][:, :, :first], answers[1][:, :, :first])
        assert not torch.equal(answers[0][:, :, first:], answers[1][:, :, first:])


def test_special_gates_give_the_known_rules():
    # One key of length 1, two values. M_1 = theta v_1; the second error is v_2 - M_1.
    k = torch.ones(1, 1, 2, 1, dtype=DOUBLE)
    v = torch.tensor([4.0, 8.0], dtype=DOUBLE).view(1, 1, 2, 1)
    half = torch.full((1, 1, 2), 0.5, dtype=DOUBLE)
    none, off = torch.zeros_like(half), torch.full_like(half, -math.inf)

    def answers(gate, gradient="exact"):
        return [
            memory(k, k, v, gate, gradient=gradient, backend=form)[0].flatten().tolist()
            for form in ("reference", "chunk")
        ]

    # delta rule: 2, then 2 + (8 - 2) / 2
    assert answers(Gates(half, none, None)) == 2 * [[2.0, 5.0]]
    # a momentum of 0 is none
    assert answers(Gates(half, none, off)) == 2 * [[2.0, 5.0]]
    # all gradients at the chunk's first memory, which is 0: 2, then 2 + 8 / 2, as without errors
    assert answers(Gates(half, none, None), "chunk") == 2 * [[2.0, 6.0]]
    assert answers(Gates(half, none, None), "none") == 2 * [[2.0, 6.0]]
    # momentum 1/2: the second step is 2 / 2 + (8 - 2) / 2
    for found in answers(Gates(half, none, half.log())):
        assert found == pytest.approx([2.0, 6.0])
    # forgetting 1/2: 2, then 2 / 2 + (8 - 2) / 2
    for found in answers(Gates(half, half.log(), None)):
        assert found == pytest.approx([2.0, 4.0])


def test_a_full_step_of_the_delta_rule_recalls_the_last_value_of_every_key():
    keys = torch.eye(8, dtype=DOUBLE)[torch.arange(100) % 8].view(1, 1, 100, 8)
    v = draw(100, 8, 5, planes=(1, 1))[2]
    gate = Gates(torch.ones(1, 1, 100, dtype=DOUBLE), torch.zeros(1, 1, 100, dtype=DOUBLE), None)
    _, after = memory(keys, keys, v, gate)
    wanted = v[0, 0, 92:].roll(-(96 - 92), 0)
    torch.testing.assert_close(after.memory[0, 0], wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("keys", ["random", "periodic", "constant"])
@torch.no_grad()
def test_the_stable_step_stays_bounded_over_65536_tokens(keys):
    generator = torch.Generator().manual_seed(0)
    tokens, width = 65_536, 16
    drawn = unit(torch.randn(tokens, width, generator=generator))
    place = {"random": tokens, "periodic": 24, "constant": 1}[keys]
    k = drawn[torch.arange(tokens) % place].expand(1, 4, -1, -1)
    v = torch.randn(1, 4, tokens, 8, generator=generator)
    # the largest step, nothing forgotten, and momentum from .5 to .99
    eta = torch.tensor([0.5, 0.9, 0.97, 0.99])
    full = torch.full((1, 4, tokens), 20.0)
    gate = gates(full, -full, torch.logit(eta).view(1, 4, 1).expand(-1, -1, tokens))
    _, after = memory(k, k, v, gate)
    assert after.memory.square().mean((2, 3)).sqrt().max() < 2


def test_the_step_of_the_paper_diverges_where_the_stable_one_does_not():
    drawn = unit(draw(24, 16, 8, planes=(1, 1))[1])
    k, v = drawn.repeat(1, 1, 40, 1), draw(960, 16, 8, planes=(1, 1))[2]
    gate = gates(*(torch.full((1, 1, 960), x, dtype=DOUBLE) for x in (0.0, -20.0, 2.2)))
    assert memory(k, k, v, gate)[1].memory.abs().max() < 10
    paper = gate._replace(write=torch.full_like(gate.write, 0.5))
    assert memory(k, k, v, paper)[1].memory.abs().max() > 1e6


def test_half_precision_carries_its_state_in_single():
    q, k, v, *numbers, _, _ = (x.bfloat16() for x in draw(70))
    with torch.autocast("cpu", torch.bfloat16):
        answer, after = memory(unit(q), unit(k), v, gates(*numbers))
    assert answer.dtype == torch.bfloat16
    assert after.memory.dtype == torch.float32


def test_who_runs():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose(cpu, torch.float32).backend == "chunk"
    assert choose(cpu, torch.float32, tokens=1).backend == "reference"
    assert choose(cuda, DOUBLE).backend == "chunk"
    assert choose(cuda, torch.float32, width=256).backend == "chunk"
    assert OPERATIONS["memory"] == room.__name__
    assert [row[:2] for row in room.explain(cpu, torch.float32)][:1] == [("memory", "chunk")]


def test_what_cannot_run_is_refused():
    q, k, v, *numbers, held, _ = draw(4)
    with pytest.raises(UsageError, match="'chunks' is no backend"):
        memory(q, k, v, gates(*numbers), backend="chunks")
    with pytest.raises(UsageError, match="cannot run memory: the kernel computes in float32"):
        memory(q, k, v, gates(*numbers), backend="triton")
    with pytest.raises(UsageError, match="The state has no momentum"):
        memory(q, k, v, gates(*numbers), State(held, None))
    with pytest.raises(UsageError, match="no token"):
        memory(*(x[:, :, :0] for x in (q, k, v)), gates(*(x[:, :, :0] for x in numbers)))


def test_a_chain_of_calls_is_differentiated_through_its_states():
    q, k, v, *numbers, held, surprise = draw(90)
    gate = gates(*numbers)
    slopes = []
    for borders in ((0, 90), (0, 40, 90)):
        start = held.clone().requires_grad_()
        after, total = State(start, surprise), torch.zeros((), dtype=DOUBLE)
        for first, last in itertools.pairwise(borders):
            part = slice(first, last)
            answer, after = memory(
                unit(q[:, :, part]), unit(k[:, :, part]), v[:, :, part],
                Gates(*(x[:, :, part] for x in gate)), after,
            )  # fmt: skip
            total = total + answer.square().sum()
        slopes += torch.autograd.grad(total, start)
    torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("width", [32, 64])
def test_the_triton_scan_spills_nothing(width, capability, launches, compile_launch):
    from forecast.kernels.neural_memory.triton import memory as form

    shapes = 3 * [(128, width)] + 3 * [(128,)] + 2 * [(width, width)]
    inputs = [torch.zeros(1, 1, *shape, requires_grad=True) for shape in shapes]
    form(*inputs[:6], State(*inputs[6:]), "exact")[0].sum().backward()
    assert [launch.kernel.__name__ for launch in launches] == ["_forward", "_backward"]
    for launch in launches:
        used = compile_launch(launch, capability)
        assert used.spilled == 0, launch.kernel.__name__
        assert used.registers <= 255, launch.kernel.__name__
        assert used.shared <= (99 if capability == 80 else 200) * 1024, launch.kernel.__name__
