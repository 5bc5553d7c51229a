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

Letters: N planes (a head of a sample each), H heads, C tokens of a chunk, K key width, R inner
width, V value width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from forecast.kernels.memory.deep_reference import (
    CHUNK,
    DeepState,
    Layers,
    added,
    slopes,
    step_size,
)

# Chunks that are computed again together.
_GROUP = 16


class Chunk(NamedTuple):
    """Hold the tokens of a chunk, or of the part of one that is there.

    Attributes:
        q: queries.
        k: keys.
        v: values.
        write: theta.
        keep: log(1 - alpha).
        momentum: log(eta); None without momentum.
    """

    q: Float[Tensor, "N C K"]
    k: Float[Tensor, "N C K"]
    v: Float[Tensor, "N C V"]
    write: Float[Tensor, "N C"]
    keep: Float[Tensor, "N C"]
    momentum: Float[Tensor, "N C"] | None


class Held(NamedTuple):
    """Hold the change of the weights and its momentum, all of them (N, ...)."""

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
    sizes = _sizes(begin, tokens)
    flat = [None if x is None else x.flatten(0, 1) for x in (q, k, v, write, keep, momentum)]
    # Cut once: gradients of slices taken one by one would each be as long as the whole.
    cuts = [[None] * len(sizes) if x is None else x.split(sizes, 1) for x in flat]
    chunks = [Chunk(*parts) for parts in zip(*cuts, strict=True)]  # pyright: ignore[reportArgumentType]
    weights = Layers(*(x.expand(batch, *x.shape).flatten(0, 1) for x in first))
    held = Held(_flat(state.change), None if state.surprise is None else _flat(state.surprise))
    anchor = _flat(state.anchor)
    answers = list[Tensor]()
    if begin:
        some, held = _chunk(chunks[0], weights, held, anchor)
        answers.append(some)
        chunks = chunks[1:]
    size = _GROUP if torch.is_grad_enabled() else max(1, len(chunks))
    for start in range(0, len(chunks), size):
        group = chunks[start : start + size]
        if len(chunks) > size:
            given: Any = checkpoint(
                _run, group, weights, held, use_reentrant=False, preserve_rng_state=False
            )
            some, held, anchor = given
        else:
            some, held, anchor = _run(group, weights, held)
        answers.append(some)
    after = DeepState(
        _planes(held.change, heads),
        None if held.surprise is None else _planes(held.surprise, heads),
        _planes(anchor, heads),
        state.place + tokens,
    )
    return torch.cat(answers, 1).unflatten(0, (batch, heads)), after


def _sizes(begin: int, tokens: int) -> list[int]:
    """Cut tokens where chunks end; the first of them has `begin` tokens of its chunk before it."""
    head = min((CHUNK - begin) % CHUNK, tokens) if begin else 0
    whole, rest = divmod(tokens - head, CHUNK)
    return [size for size in (head, *(whole * [CHUNK]), rest) if size]


def _flat(layers: Layers) -> Layers:
    return Layers(*(x.flatten(0, 1) for x in layers))


def _planes(layers: Layers, heads: int) -> Layers:
    return Layers(*(x.unflatten(0, (-1, heads)) for x in layers))


def _run(
    chunks: Sequence[Chunk], first: Layers, held: Held
) -> tuple[Float[Tensor, "N T V"], Held, Layers]:
    """Go through chunks from their first tokens on; the last return is the anchor of the last."""
    answers, anchor = list[Tensor](), held.change
    for chunk in chunks:
        anchor = held.change
        answer, held = _chunk(chunk, first, held, anchor)
        answers.append(answer)
    return torch.cat(answers, 1), held, anchor


def _chunk(
    chunk: Chunk, first: Layers, held: Held, anchor: Layers
) -> tuple[Float[Tensor, "N C V"], Held]:
    """Write tokens of one chunk, and answer their queries."""
    q, k, v, write, keep, momentum = chunk
    features, error, pulled, size = slopes(k, v, added(first, anchor))
    steps = step_size(write, size)
    fade, since = _between(keep), keep.cumsum(1).exp()
    (inner, outer), surprise = held
    drift = moved = None
    if momentum is None:
        weight = fade * steps.unsqueeze(1)
    else:
        kept, moved = _between(momentum), momentum.cumsum(1).exp()
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


def _between(x: Float[Tensor, "N C"]) -> Float[Tensor, "N C C"]:
    """Give `exp(sum of x_s for j < s <= i)` at (i, j), and 0 above the diagonal."""
    size = x.shape[1]
    upper = torch.ones(size, size, dtype=torch.bool, device=x.device).triu()
    rows = x.unsqueeze(2).expand(-1, -1, size).masked_fill(upper, 0.0)
    return rows.cumsum(1).masked_fill(upper.triu(1), -torch.inf).exp()
