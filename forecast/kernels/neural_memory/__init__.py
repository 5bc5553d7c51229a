"""Memory that learns at test time: a map from keys to values, corrected by every token.

Token t takes a gradient step on the error `e_t = v_t - k_t M` of the memory M, with momentum S and
forgetting: `S <- eta S + theta k_t^T e_t`, `M <- (1 - alpha) M + S`, and then reads `y_t = q_t M`.
Without momentum that is the gated delta rule, without forgetting too the delta rule; without the
correction (`gradient="none"`) retention. Keys are meant to have length 1 (`unit`), and step sizes
to leave room for the momentum (`gates`): otherwise the memory diverges. `deep_memory` is the same
for a map of two layers.

Letters: B batch, H heads, T tokens, K key width, V value width.

Source: Behrouz et al., "Titans", arXiv 2501.00663; Yang et al., "Gated Delta Networks", arXiv
2412.06464.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from forecast.errors import UsageError
from forecast.kernels import dispatch
from forecast.kernels.dispatch import Choice, Operation
from forecast.kernels.neural_memory import deep
from forecast.kernels.neural_memory.deep import deep_memory
from forecast.kernels.neural_memory.deep_reference import CHUNK as DEEP_CHUNK
from forecast.kernels.neural_memory.deep_reference import DeepState, Layers
from forecast.kernels.neural_memory.gates import Gates, gates, unit
from forecast.kernels.neural_memory.reference import Gradient, State

__all__ = [
    "BACKENDS",
    "DEEP_CHUNK",
    "DeepState",
    "Gates",
    "Layers",
    "State",
    "choose",
    "deep_memory",
    "explain",
    "gates",
    "memory",
    "unit",
]

BACKENDS = {
    "reference": "forecast.kernels.neural_memory.reference",
    "chunk": "forecast.kernels.neural_memory.chunk",
    "triton": "forecast.kernels.neural_memory.triton",
}
# Up to here tokens one by one cost less than the weights of a chunk.
_FEW_TOKENS = 3
# Beyond it the state of a slice of the values no longer fits into a program's registers.
_WIDEST = 64


def memory(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    gate: Gates,
    state: State | None = None,
    *,
    gradient: Gradient = "exact",
    backend: str = "auto",
) -> tuple[Float[Tensor, "B H T V"], State]:
    """Write every token into the memory, read it, and return the memory behind the last one.

    However the tokens are cut, the answers are the same up to rounding. With `gradient="chunk"`
    that holds for cuts at multiples of `reference.CHUNK` only: every call begins a mini-batch. In
    half precision the computation and the state are in float32.

    Args:
        q: queries.
        k: keys, of length 1.
        v: values.
        gate: step sizes and forgetting of every token, and momentum.
        state: before the first token; None for zeros.
        gradient: what the error of a value is taken against: the memory just before it, that at
            the start of its chunk, or nothing.
        backend: a name of `BACKENDS`, or `auto`.

    Raises:
        UsageError: the arguments contradict each other, or a named backend cannot run here.
    """
    batch, heads, tokens, width = q.shape
    if not tokens:
        raise UsageError("There is no token to write.", hint="Give one at least.")
    dtype = torch.promote_types(v.dtype, torch.float32)
    if state is None:
        size = (batch, heads, width, v.shape[3])
        zeros = torch.zeros(size, dtype=dtype, device=v.device)
        state = State(zeros, None if gate.momentum is None else zeros)
    if (state.surprise is None) != (gate.momentum is None):
        have, want = ("no", "a") if state.surprise is None else ("a", "no")
        raise UsageError(
            f"The state has {have} momentum, and the gates have {want} momentum.",
            hint="Give the state that a call with the same kind of gates returned.",
        )
    form = OPERATION.resolve(
        backend, q.device, dtype, width=width, tokens=tokens, gradient=gradient
    )
    inputs = [None if x is None else x.to(dtype) for x in (q, k, v, *gate)]
    held = State(*(None if x is None else x.to(dtype) for x in state))  # pyright: ignore[reportArgumentType]
    with torch.autocast(q.device.type, enabled=False):
        answer, held = form.memory(*inputs, held, gradient)
    return answer.to(v.dtype), held


def choose(
    device: torch.device,
    dtype: torch.dtype,
    *,
    width: int = 64,
    tokens: int = 1024,
    gradient: Gradient = "exact",
) -> Choice:
    """Choose the form that `auto` runs."""
    if tokens <= _FEW_TOKENS:
        return Choice("reference", "so few tokens are faster one by one")
    obstacle = _obstacle("triton", device, dtype, width=width, gradient=gradient)
    why = "the state stays on the chip; checked against the reference once"
    return dispatch.triton_or("chunk", device, obstacle, why)


def _obstacle(
    backend: str,
    device: torch.device,
    dtype: torch.dtype,
    *,
    width: int,
    gradient: Gradient,
    **_: Any,
) -> str:
    if backend != "triton":
        return ""
    if gradient == "chunk":
        return "the kernel's chunks are shorter than a mini-batch"
    if dtype == torch.float64:
        return "the kernel computes in float32"
    if width > _WIDEST:
        return f"the kernel holds keys of at most {_WIDEST} columns, not {width}"
    return dispatch.triton_obstacle(device, torch.float32)


@functools.cache
def self_check(device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """Hold the Triton form to the reference on this device; an empty string when it agrees."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, held = (
        torch.randn(2, 2, length, 40, generator=generator).to(device, dtype)
        for length in (130, 130, 130, 80)
    )
    numbers = (torch.randn(2, 2, 130, generator=generator).to(device, dtype) for _ in range(3))

    def run(backend: str, *inputs: Tensor) -> Tensor:
        q, k, v, held, *numbers = inputs
        gate, state = gates(*numbers), State(*held.chunk(2, 2))
        return dispatch.form(BACKENDS, backend).memory(unit(q), unit(k), v, *gate, state, "exact")[
            0
        ]

    fast, reference = (functools.partial(run, name) for name in ("triton", "reference"))
    return dispatch.disagreement(fast, reference, (q, k, v, held, *numbers), 1e-4)


OPERATION = Operation(
    name="memory",
    backends=BACKENDS,
    fallback="chunk",
    choose=choose,
    obstacle=_obstacle,
    check=self_check,
    calls={"memory": {}, "memory, one token": {"tokens": 1}},
)


def explain(device: torch.device, dtype: torch.dtype) -> list[tuple[str, str, str]]:
    """Rows of operation, backend and reason, of both memories."""
    return [*OPERATION.explain(device, dtype), *deep.OPERATION.explain(device, dtype)]
