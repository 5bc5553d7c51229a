"""A memory that learns at test time, one token after the other: the specification of other forms.

The memory is a matrix that maps keys to values. Each token takes a gradient step on the error of
its own value; the step has momentum, and the memory fades.

Letters: B batch, H heads, T tokens, K key width, V value width.

Source: Behrouz, Zhong and Mirrokni, "Titans: Learning to Memorize at Test Time", arXiv 2501.00663,
equations 8 to 14 for a linear memory; the factor 2 of their gradient is part of the step size.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

# What the error of a value is taken against: the memory just before it, the memory at the start of
# its chunk (the mini-batch of the paper), or nothing at all (retention).
Gradient = Literal["exact", "chunk", "none"]
# Tokens of a chunk: what is computed at once, and with `gradient="chunk"` the mini-batch.
CHUNK = 64


class State(NamedTuple):
    """State carried from token to token.

    Attributes:
        memory: M, the map from keys to values.
        surprise: S, the momentum of its steps; None without momentum.
    """

    memory: Float[Tensor, "B H K V"]
    surprise: Float[Tensor, "B H K V"] | None


def memory(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    write: Float[Tensor, "B H T"],
    keep: Float[Tensor, "B H T"],
    momentum: Float[Tensor, "B H T"] | None,
    state: State,
    gradient: Gradient,
) -> tuple[Float[Tensor, "B H T V"], State]:
    """Write every token into the memory, then read it with the token's query."""
    held, surprise = state
    anchor, answers = held, list[Tensor]()
    for token in range(q.shape[2]):
        if token % CHUNK == 0:
            anchor = held
        key, value = k[:, :, token, :, None], v[:, :, token, None]
        error = value
        if gradient != "none":
            seen = held if gradient == "exact" else anchor
            error = value - (key * seen).sum(2, keepdim=True)
        step = write[:, :, token, None, None] * key * error
        if momentum is not None and surprise is not None:
            surprise = step = momentum[:, :, token, None, None].exp() * surprise + step
        held = keep[:, :, token, None, None].exp() * held + step
        answers.append((q[:, :, token, :, None] * held).sum(2))
    return torch.stack(answers, 2), State(held, surprise)
