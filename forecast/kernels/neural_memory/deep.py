"""A memory of two layers that learns at test time: `M(k) = SiLU(k W1) W2`, experimental.

What it does is defined by `deep_reference`, and how it is computed in parallel by `deep_chunk`.
Gates and keys are those of the linear memory. It can hold what no linear map of the keys can, and
learns a sixteenth as much from a token, since a step is divided by the tokens of a chunk.

Letters: B batch, H heads, T tokens, K key width, R inner width, V value width.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from forecast.errors import UsageError
from forecast.kernels.dispatch import Choice, Operation
from forecast.kernels.neural_memory.deep_reference import CHUNK, DeepState, Layers
from forecast.kernels.neural_memory.gates import Gates

BACKENDS = {
    "reference": "forecast.kernels.neural_memory.deep_reference",
    "chunk": "forecast.kernels.neural_memory.deep_chunk",
}
# Up to here tokens one by one cost less than the weights of a chunk.
_FEW_TOKENS = 1


def deep_memory(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    gate: Gates,
    first: Layers,
    state: DeepState | None = None,
    *,
    backend: str = "auto",
) -> tuple[Float[Tensor, "B H T V"], DeepState]:
    """Write every token into the memory, read it, and return the memory behind the last one.

    However the tokens are cut, the answers are the same up to rounding: the state tells how far
    into a chunk a stream is. In half precision the computation and the state are in float32.

    Args:
        q: queries.
        k: keys, of length 1.
        v: values.
        gate: step sizes and forgetting of every token, and momentum.
        first: the weights before anything is learned, and to which the memory fades; of each head.
        state: before the first token; None for the beginning of the streams.
        backend: a name of `BACKENDS`, or `auto`.

    Raises:
        UsageError: the arguments contradict each other, or a named backend cannot run here.
    """
    if not q.shape[2]:
        raise UsageError("There is no token to write.", hint="Give one at least.")
    dtype = torch.promote_types(v.dtype, torch.float32)
    first = Layers(*(x.to(dtype) for x in first))
    if state is None:
        state = begin(first, len(q), momentum=gate.momentum is not None)
    if (state.surprise is None) != (gate.momentum is None):
        have, want = ("no", "a") if state.surprise is None else ("a", "no")
        raise UsageError(
            f"The state has {have} momentum, and the gates have {want} momentum.",
            hint="Give the state that a call with the same kind of gates returned.",
        )
    form = OPERATION.resolve(backend, q.device, dtype, tokens=q.shape[2], place=state.place)
    inputs = [None if x is None else x.to(dtype) for x in (q, k, v, *gate)]
    held = DeepState(
        Layers(*(x.to(dtype) for x in state.change)),
        None if state.surprise is None else Layers(*(x.to(dtype) for x in state.surprise)),
        Layers(*(x.to(dtype) for x in state.anchor)),
        state.place,
    )
    with torch.autocast(q.device.type, enabled=False):
        answer, held = form.memory(*inputs, first, held)
    return answer.to(v.dtype), held


def begin(first: Layers, batch: int, *, momentum: bool) -> DeepState:
    """Return the state before the first token of streams: nothing has been learned."""
    nothing = Layers(*(x.new_zeros(batch, *x.shape) for x in first))
    place = torch.zeros(batch, dtype=torch.int64, device=first.inner.device)
    return DeepState(nothing, nothing if momentum else None, nothing, place)


def choose(
    device: torch.device,
    dtype: torch.dtype,
    *,
    tokens: int = CHUNK,
    place: Int[Tensor, " B"] | None = None,
) -> Choice:
    """Choose the form that `auto` runs."""
    if tokens <= _FEW_TOKENS:
        return Choice("reference", "a single token needs no chunk")
    obstacle = _obstacle("chunk", device, dtype, place=place)
    if obstacle:
        return Choice("reference", obstacle)
    return Choice("chunk", "tokens of a chunk share the gradients' weights")


def _obstacle(
    backend: str,
    _device: torch.device,
    _dtype: torch.dtype,
    *,
    place: Int[Tensor, " B"] | None,
    **_: Any,
) -> str:
    if backend != "chunk" or place is None:
        return ""
    alike = bool((place % CHUNK == place[0] % CHUNK).all())
    return "" if alike else "the streams are at different places of their chunks"


OPERATION = Operation(
    name="deep_memory",
    backends=BACKENDS,
    fallback="chunk",
    choose=choose,
    obstacle=_obstacle,
    calls={"memory, deep": {}, "memory, deep, one token": {"tokens": 1}},
)
