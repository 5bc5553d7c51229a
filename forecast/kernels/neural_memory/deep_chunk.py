"""The memory of two layers in chunks: exact, since all gradients of a chunk are those at its start.

The weights behind a token are then the weights before the chunk, faded, plus a sum of the outer
products of the tokens up to it, so that a query is answered without any of them being formed:

    z_t = q_t (W1 + b_t D1 + f_t S1) + sum_j G_tj (q_t k_j) p_j,   r_t = SiLU(z_t),
    y_t = r_t (W2 + b_t D2 + f_t S2) + sum_j G_tj (r_t s_j) e_j,

where D and S are the change and the momentum before the chunk, s, e and p are features, errors and
errors pulled back, b, f and G are made of the gates and step sizes alone. Zeros stand in G where j
comes after t, so that a later token changes no bit of an earlier answer.

For a gradient several chunks at a time are computed again rather than kept, so that what is kept
of a chunk is a fraction of its weights.

Letters: B batch, H heads, N planes (a head of a sample each), T tokens, C tokens of a chunk, K key
width, R inner width, V value width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from forecast.kernels.neural_memory.chunk import between
from forecast.kernels.neural_memory.deep_reference import (
    CHUNK,
    DeepState,
    Layers,
    added,
    slopes,
    step_size,
)

# Chunks that are computed again together.
_GROUP = 16


class Written(NamedTuple):
    """Consecutive tokens.

    Attributes:
        q: queries.
        k: keys.
        v: values.
        write: theta.
        keep: log(1 - alpha).
        momentum: log(eta); None without momentum.
    """

    q: Float[Tensor, "N T K"]
    k: Float[Tensor, "N T K"]
    v: Float[Tensor, "N T V"]
    write: Float[Tensor, "N T"]
    keep: Float[Tensor, "N T"]
    momentum: Float[Tensor, "N T"] | None

    def split(self, sizes: list[int]) -> list[Written]:
        """Cut them, each part once: slices one by one have gradients as long as the whole."""
        cuts = [[None] * len(sizes) if x is None else x.split(sizes, 1) for x in self]
        return [Written(*parts) for parts in zip(*cuts, strict=True)]  # pyright: ignore[reportArgumentType]


class Held(NamedTuple):
    """Change of the weights and its momentum, all of them (N, ...)."""

    change: Layers
    surprise: Layers | None


def memory(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    write: Float[Tensor, "B H T"],
    keep: Float[Tensor, "B H T"],
    momentum: Float[Tensor, "B H T"] | None,
    first: Layers,
    state: DeepState,
) -> tuple[Float[Tensor, "B H T V"], DeepState]:
    """Compute what `deep_reference.memory` defines, for streams at one place of their chunks."""
    batch, heads, tokens, _ = q.shape
    begin = int(state.place[0]) % CHUNK
    flat = (None if x is None else x.flatten(0, 1) for x in (q, k, v, write, keep, momentum))
    written = Written(*flat)  # pyright: ignore[reportArgumentType]
    weights = Layers(*(x.expand(batch, *x.shape).flatten(0, 1) for x in first))
    held = Held(_flat(state.change), None if state.surprise is None else _flat(state.surprise))
    anchor = _flat(state.anchor)
    answers = list[Tensor]()
    # The rest of the chunk that the state is in, then groups of chunks.
    head = min(CHUNK - begin, tokens) if begin else 0
    parts = written.split([head, *_sizes(tokens - head, _GROUP * CHUNK)])
    if head:
        answer, held = _chunk(parts[0], weights, held, anchor)
        answers.append(answer)
    for part in parts[1:]:
        surprise = held.surprise or (None, None)
        outputs: Any = _Group.apply(*part, *weights, *held.change, *surprise)
        answer, held, anchor = _named(*outputs)
        answers.append(answer)
    after = DeepState(
        _planes(held.change, heads),
        None if held.surprise is None else _planes(held.surprise, heads),
        _planes(anchor, heads),
        state.place + tokens,
    )
    return torch.cat(answers, 1).unflatten(0, (batch, heads)), after


def _sizes(tokens: int, size: int) -> list[int]:
    whole, rest = divmod(tokens, size)
    return whole * [size] + ([rest] if rest else [])


def _flat(layers: Layers) -> Layers:
    return Layers(*(x.flatten(0, 1) for x in layers))


def _planes(layers: Layers, heads: int) -> Layers:
    return Layers(*(x.unflatten(0, (-1, heads)) for x in layers))


def _named(answer: Tensor, *layers: Tensor | None) -> tuple[Float[Tensor, "N T V"], Held, Layers]:
    """Name the results of `_group`: outputs, the state behind them, and the last anchor."""
    change, anchor, surprise = (Layers(*layers[i : i + 2]) for i in (0, 2, 4))  # pyright: ignore[reportArgumentType]
    return answer, Held(change, surprise if layers[4] is not None else None), anchor


def _group(*inputs: Tensor | None) -> tuple[Tensor | None, ...]:
    """Go through chunks from the first token of one on.

    Args:
        inputs: what a `Written` holds, then inner and outer matrices: first weights, change, and
            momentum or None.
    """
    written, layers = Written(*inputs[:6]), inputs[6:]  # pyright: ignore[reportArgumentType]
    first, change, surprise = (Layers(*layers[i : i + 2]) for i in (0, 2, 4))  # pyright: ignore[reportArgumentType]
    held = Held(change, surprise if layers[4] is not None else None)
    answers, anchor = list[Tensor](), change
    for chunk in written.split(_sizes(written.q.shape[1], CHUNK)):
        anchor = held.change
        answer, held = _chunk(chunk, first, held, anchor)
        answers.append(answer)
    return torch.cat(answers, 1), *held.change, *anchor, *(held.surprise or (None, None))


class _Group(torch.autograd.Function):
    """Keep of a group of chunks what it begins with, and compute it again for its gradient."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(*inputs)
        outputs = _group(*inputs)
        # A group of one chunk gives its own start back as the anchor, and no output is an input.
        return tuple(
            x.clone() if any(x is given for given in inputs) and x is not None else x
            for x in outputs
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs = [None if x is None else x.detach().requires_grad_() for x in ctx.saved_tensors]
        with torch.enable_grad():
            outputs = _group(*inputs)
        wanted = [x for x in inputs if x is not None]
        pairs = [pair for pair in zip(outputs, gradients, strict=True) if pair[0] is not None]
        have, ways = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(have, wanted, ways))
        return tuple(None if x is None else next(found) for x in inputs)


def _chunk(
    chunk: Written, first: Layers, held: Held, anchor: Layers
) -> tuple[Float[Tensor, "N C V"], Held]:
    """Write tokens of one chunk, and answer their queries."""
    q, k, v, write, keep, momentum = chunk
    features, error, pulled, size = slopes(k, v, added(first, anchor))
    steps = step_size(write, size)
    fade, since = between(keep), keep.cumsum(1).exp()
    (inner, outer), surprise = held
    drift = moved = None
    if momentum is None:
        weight = fade * steps.unsqueeze(1)
    else:
        kept, moved = between(momentum), momentum.cumsum(1).exp()
        steps = kept * steps.unsqueeze(1)  # of each token's outer products in the momentum
        weight = fade @ steps
        drift = (fade @ moved.unsqueeze(2)).squeeze(2)

    def read(x: Tensor, start: Tensor, change: Tensor, moving: Tensor | None) -> Tensor:
        """Multiply rows by the weights before the chunk as they stand at each token."""
        answer = x @ start + (since.unsqueeze(2) * x) @ change
        if moving is None or drift is None:
            return answer
        return answer + (drift.unsqueeze(2) * x) @ moving

    s_inner, s_outer = (None, None) if surprise is None else surprise
    z = read(q, first.inner, inner, s_inner)
    z = z + ((q @ k.transpose(1, 2)) * weight) @ pulled
    r = torch.nn.functional.silu(z)
    answer = read(r, first.outer, outer, s_outer)
    answer = answer + ((r @ features.transpose(1, 2)) * weight) @ error
    last = weight[:, -1].unsqueeze(2)
    keys, rows = k.transpose(1, 2), features.transpose(1, 2)
    faded = since[:, -1, None, None]
    change = Layers(
        torch.baddbmm(faded * inner, keys, last * pulled),
        torch.baddbmm(faded * outer, rows, last * error),
    )
    if surprise is None or drift is None or moved is None:
        return answer, Held(change, None)
    drifted, left = drift[:, -1, None, None], moved[:, -1, None, None]
    change = Layers(
        change.inner + drifted * surprise.inner, change.outer + drifted * surprise.outer
    )
    last = steps[:, -1].unsqueeze(2)
    surprise = Layers(
        torch.baddbmm(left * surprise.inner, keys, last * pulled),
        torch.baddbmm(left * surprise.outer, rows, last * error),
    )
    return answer, Held(change, surprise)
