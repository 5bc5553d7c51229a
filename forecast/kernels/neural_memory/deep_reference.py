"""A memory of two layers that learns at test time, token by token: the specification.

The memory is `M(k) = SiLU(k W1) W2`. What a token writes is the gradient of `|v - M(k)|^2 / 2` in
both matrices; the steps have momentum, and what was learned fades. Two things differ from a linear
memory:

- Gradients are taken at the weights with which a chunk of the stream began, its anchor. Chunks lie
  on a fixed grid of the stream, so that a state tells how far into a chunk it is and where the
  chunk began, and it does not matter how the tokens are cut.
- A step is divided by the tokens of a chunk, and by how far a step of one moves what the memory
  gives for the same key, the squared length of its gradients. A step then closes at most the whole
  error of a chunk in which all tokens are the same, whatever the weights have become.

What is learned is the change from the first weights, and it fades to none: at weights of zero both
gradients vanish, and a memory that had faded to them would never learn again.

Letters: B batch, H heads, T tokens, K key width, R inner width, V value width.

Source: Behrouz, Zhong and Mirrokni, "Titans: Learning to Memorize at Test Time", arXiv 2501.00663,
equations 8 to 14 and section 3.2 (gradients at the start of a chunk); the divisors and the way to
forget are ours.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Tokens of a chunk: all of them take their gradients where it begins.
CHUNK = 16


class Layers(NamedTuple):
    """A matrix of each layer.

    Attributes:
        inner: from keys to inner features.
        outer: from inner features to values.
    """

    inner: Float[Tensor, "*n K R"]
    outer: Float[Tensor, "*n R V"]


class DeepState(NamedTuple):
    """State carried from token to token.

    Attributes:
        change: what was learned: the weights less the first ones.
        surprise: the momentum of its steps; None without momentum.
        anchor: the change with which the chunk of the last token began.
        place: tokens of each stream before the next one.
    """

    change: Layers
    surprise: Layers | None
    anchor: Layers
    place: Int[Tensor, " B"]


class Slopes(NamedTuple):
    """Gradients of tokens: outer products, of which these are the factors.

    Attributes:
        features: SiLU(k W1); `features^T error` goes into the outer matrix.
        error: of the value.
        pulled: the error behind the outer matrix; `k^T pulled` goes into the inner one.
        size: by how much a step of length 1 may move what the memory gives for the key.
    """

    features: Float[Tensor, "*n T R"]
    error: Float[Tensor, "*n T V"]
    pulled: Float[Tensor, "*n T R"]
    size: Float[Tensor, "*n T"]


def slopes(k: Float[Tensor, "*n T K"], v: Float[Tensor, "*n T V"], weights: Layers) -> Slopes:
    """Compute minus the gradients of `|v - M(k)|^2 / 2` in the weights of M."""
    z = k @ weights.inner
    gate = torch.sigmoid(z)
    features = z * gate
    error = v - features @ weights.outer
    slope = gate + features * (1 - gate)  # SiLU'(z)
    pulled = (error @ weights.outer.transpose(-2, -1)) * slope
    # The trace of the gradients' Gram matrix over the width of the keys' length, 1, and the values.
    rows = weights.outer.square().sum(-1, keepdim=True)
    size = features.square().sum(-1) + (slope.square() @ rows).squeeze(-1)
    return Slopes(features, error, pulled, size)


def step_size(write: Float[Tensor, "*n T"], size: Float[Tensor, "*n T"]) -> Tensor:
    """Compute the step size of tokens, small enough for weights that move much."""
    return write / (CHUNK * size.clamp(min=1.0))


def added(first: Layers, change: Layers) -> Layers:
    """Add a change to the initial weights."""
    return Layers(first.inner + change.inner, first.outer + change.outer)


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
    """Write every token into the memory, then read it with the token's query."""
    change, surprise, anchor, place = state
    answers = list[Tensor]()
    for token in range(q.shape[2]):
        begins = (place % CHUNK == 0)[:, None, None, None]
        anchor = Layers(*(torch.where(begins, *pair) for pair in zip(change, anchor, strict=True)))
        query, key, value = (x[:, :, token, None] for x in (q, k, v))
        found = slopes(key, value, added(first, anchor))
        step = step_size(write[:, :, token, None], found.size).unsqueeze(3)
        # (B, H, K, R) and (B, H, R, V)
        moves = Layers(
            key.transpose(2, 3) * (step * found.pulled),
            found.features.transpose(2, 3) * (step * found.error),
        )
        if momentum is not None and surprise is not None:
            held = momentum[:, :, token, None, None].exp()
            surprise = moves = Layers(
                held * surprise.inner + moves.inner, held * surprise.outer + moves.outer
            )
        fade = keep[:, :, token, None, None].exp()
        change = Layers(fade * change.inner + moves.inner, fade * change.outer + moves.outer)
        now = added(first, change)
        answers.append(torch.nn.functional.silu(query @ now.inner) @ now.outer)
        place = place + 1
    return torch.cat(answers, 2), DeepState(change, surprise, anchor, place)
