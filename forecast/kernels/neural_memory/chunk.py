"""The learning memory in chunks: exact, and parallel but for a short scan between the chunks.

Within a chunk each error depends on the ones before it through the keys they share, linearly. So
one triangular system gives all errors of a chunk from the memory before it; what they add to the
memory, and what each query reads, are matrix products. The result does not depend on the chunk.

Memory and momentum are stacked into one state Z of R rows. With weights that depend on the gates
alone, a chunk is

    E = (I + L)^-1 (V - P Z),   O = A E + W Z,   Z' = D Z + Y^T E,

where L = stril(K K^T Gm), A = tril(Q K^T G), and P, W, Y are keys and queries times weights; all of
these are computed for all chunks at once, and differentiated by torch. `_Scan` does the rest.

Zeros stand where an error comes after a query, so that a later token changes no bit of an earlier
answer.

Letters: N planes (a head of a sample each), G chunks, C tokens of a chunk, K key width, V value
width, R rows of the state: K, and as many again with momentum.

Source: the recurrence of `reference`, unrolled; for the delta rule alone the form is that of Yang
et al., "Parallelizing Linear Transformers with the Delta Rule", arXiv 2406.06484, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from forecast.kernels.neural_memory.reference import CHUNK, Gradient, State


class Chunks(NamedTuple):
    """What a scan needs of all chunks.

    Attributes:
        inverse: (I + L)^-1; None for the identity.
        values: V.
        predict: P, what the state predicts of the values.
        change: Y, what an error adds to the state.
        decay: of the memory; with momentum also momentum to memory, and of the momentum.
    """

    inverse: Float[Tensor, "N G C C"] | None
    values: Float[Tensor, "N G C V"]
    predict: Float[Tensor, "N G C R"] | None
    change: Float[Tensor, "N G C R"]
    decay: Float[Tensor, "N G w"]


# Both give, for all chunks, what the first line of their bodies' docstrings says.
Forward = Callable[[Chunks, Tensor], tuple[Tensor, Tensor]]
Backward = Callable[[Chunks, Tensor, Tensor], tuple[Tensor, Tensor]]


class Scan(NamedTuple):
    """The two directions of a scan."""

    forward: Forward
    backward: Backward


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
    """Compute what `reference.memory` defines."""
    return chunked(q, k, v, write, keep, momentum, state, gradient, Scan(forward, backward))


def chunked(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    write: Float[Tensor, "B H T"],
    keep: Float[Tensor, "B H T"],
    momentum: Float[Tensor, "B H T"] | None,
    state: State,
    gradient: Gradient,
    scan: Scan,
    chunk: int = CHUNK,
) -> tuple[Float[Tensor, "B H T V"], State]:
    """Compute the memory with a scan of one's own: whole chunks, then the shorter last one."""
    tokens = q.shape[2]
    whole = tokens // chunk * chunk
    parts = [part for part in (slice(0, whole), slice(whole, tokens)) if part.start < part.stop]
    held = state.memory
    if state.surprise is not None:
        held = torch.cat([held, state.surprise], 2)
    held = held.flatten(0, 1)
    answers: list[Tensor] = []
    for part in parts:
        size = min(chunk, part.stop - part.start)

        def cut(x: Tensor, part: slice = part, size: int = size) -> Tensor:
            return x[:, :, part].flatten(0, 1).unflatten(1, (-1, size))

        move = None if momentum is None else cut(momentum)
        answer, held = _run(
            cut(q), cut(k), cut(v), cut(write), cut(keep), move, held, gradient, scan
        )
        answers.append(answer.flatten(1, 2))
    answer = answers[0] if len(answers) == 1 else torch.cat(answers, 1)
    held = held.unflatten(0, q.shape[:2])
    after = State(held, None) if momentum is None else State(*held.chunk(2, 2))
    return answer.unflatten(0, q.shape[:2]), after


def _run(
    q: Float[Tensor, "N G C K"],
    k: Float[Tensor, "N G C K"],
    v: Float[Tensor, "N G C V"],
    write: Float[Tensor, "N G C"],
    keep: Float[Tensor, "N G C"],
    momentum: Float[Tensor, "N G C"] | None,
    held: Float[Tensor, "N R V"],
    gradient: Gradient,
    scan: Scan,
) -> tuple[Float[Tensor, "N G C V"], Float[Tensor, "N R V"]]:
    fade, since = between(keep), keep.cumsum(2).exp()
    if momentum is None:
        weight = fade * write.unsqueeze(2)  # G: of k_j^T e_j in M_t
        read = since.unsqueeze(3) * q
        change = weight[:, :, -1, :, None] * k
        decay = since[:, :, -1:]
        before = _before(since, 1.0).unsqueeze(3) * k
    else:
        steps = between(momentum) * write.unsqueeze(2)  # N: of k_j^T e_j in S_t
        weight = fade @ steps
        moved = momentum.cumsum(2).exp()
        drift = (fade @ moved.unsqueeze(3)).squeeze(3)  # f: of the first S in M_t
        read = torch.cat([since.unsqueeze(3) * q, drift.unsqueeze(3) * q], 3)
        change = torch.cat([weight[:, :, -1, :, None] * k, steps[:, :, -1, :, None] * k], 3)
        decay = torch.stack([since[:, :, -1], drift[:, :, -1], moved[:, :, -1]], 2)
        before = torch.cat(
            [_before(since, 1.0).unsqueeze(3) * k, _before(drift, 0.0).unsqueeze(3) * k], 3
        )
    system = predict = None
    if gradient == "exact":
        late = torch.nn.functional.pad(weight[:, :, :-1], (0, 0, 1, 0))
        system, predict = ((k @ k.transpose(2, 3)) * late).tril(-1), before
    elif gradient == "chunk":
        predict = k if momentum is None else torch.cat([k, torch.zeros_like(k)], 3)
    outputs: Any = _Scan.apply(system, v, predict, change, decay, held, scan)
    errors, states = outputs
    attend = (q @ k.transpose(2, 3)) * weight
    answer = attend @ errors + read @ states[:, :-1]
    return answer, states[:, -1]


def between(x: Float[Tensor, "... C"]) -> Float[Tensor, "... C C"]:
    """Compute `exp(sum of x_s for j < s <= i)` at (i, j), and 0 above the diagonal.

    Summed down the rows: a difference of two running sums is NaN where x is -inf, and less exact.
    """
    size = x.shape[-1]
    upper = torch.ones(size, size, dtype=torch.bool, device=x.device).triu()
    rows = x.unsqueeze(-1).expand(*x.shape, size).masked_fill(upper, 0.0)
    return rows.cumsum(-2).masked_fill(upper.triu(1), -torch.inf).exp()


def _before(x: Float[Tensor, "N G C"], first: float) -> Float[Tensor, "N G C"]:
    return torch.nn.functional.pad(x[:, :, :-1], (1, 0), value=first)


class _Scan(torch.autograd.Function):
    """Carry the state through the chunks, and its gradient back; both ways have the same form."""

    @staticmethod
    def forward(
        ctx: Any,
        system: Tensor | None,
        values: Tensor,
        predict: Tensor | None,
        change: Tensor,
        decay: Tensor,
        held: Tensor,
        scan: Scan,
    ) -> tuple[Tensor, Tensor]:
        inverse = None
        if system is not None:
            identity = torch.eye(system.shape[-1], dtype=system.dtype, device=system.device)
            # The diagonal of the system counts as 1.
            inverse = torch.linalg.solve_triangular(
                system, identity.expand_as(system), upper=False, unitriangular=True
            )
        chunks = Chunks(inverse, values, predict, change, decay)
        errors, states = scan.forward(chunks, held)
        ctx.save_for_backward(*chunks, errors, states)
        ctx.scan = scan
        return errors, states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inverse, values, predict, change, decay, errors, states = ctx.saved_tensors
        chunks = Chunks(inverse, values, predict, change, decay)
        d_values, d_states = ctx.scan.backward(chunks, *gradients)
        before, after = states[:, :-1], d_states[:, 1:]
        d_predict = d_system = None
        if predict is not None:
            d_predict = -(d_values @ before.transpose(2, 3))
        if inverse is not None:
            d_system = -(d_values @ errors.transpose(2, 3)).tril(-1)
        d_change = errors @ after.transpose(2, 3)
        if decay.shape[2] == 1:
            pairs = [(before, after)]
        else:
            (m, s), (d_m, d_s) = before.chunk(2, 2), after.chunk(2, 2)
            pairs = [(m, d_m), (s, d_m), (s, d_s)]
        d_decay = torch.stack([torch.einsum("ngrv,ngrv->ng", *pair) for pair in pairs], 2)
        return d_system, d_values, d_predict, d_change, d_decay, d_states[:, 0], None


def forward(
    chunks: Chunks, held: Float[Tensor, "N R V"]
) -> tuple[Float[Tensor, "N G C V"], Float[Tensor, "N G1 R V"]]:
    """Compute the errors of all chunks, and the states before each and after the last."""
    inverse, values, predict, change, decay = chunks
    states = held.new_empty(len(held), values.shape[1] + 1, *held.shape[1:])
    states[:, 0] = held
    errors = torch.empty_like(values)
    for chunk in range(values.shape[1]):
        held = states[:, chunk]
        error = values[:, chunk]
        if predict is not None:
            error = torch.baddbmm(error, predict[:, chunk], held, alpha=-1)
        if inverse is not None:
            error = torch.bmm(inverse[:, chunk], error)
        errors[:, chunk] = error
        faded = _mixed(decay[:, chunk], held)
        states[:, chunk + 1] = torch.baddbmm(faded, change[:, chunk].transpose(1, 2), error)
    return errors, states


def backward(
    chunks: Chunks, d_errors: Float[Tensor, "N G C V"], d_states: Float[Tensor, "N G1 R V"]
) -> tuple[Float[Tensor, "N G C V"], Float[Tensor, "N G1 R V"]]:
    """Compute the gradients of the values, and of the states along every path."""
    inverse, values, predict, change, decay = chunks
    d_values, total = torch.empty_like(values), torch.empty_like(d_states)
    total[:, -1] = d_states[:, -1]
    for chunk in reversed(range(values.shape[1])):
        after = total[:, chunk + 1]
        slope = torch.baddbmm(d_errors[:, chunk], change[:, chunk], after)
        if inverse is not None:
            slope = torch.bmm(inverse[:, chunk].transpose(1, 2), slope)
        d_values[:, chunk] = slope
        before = d_states[:, chunk] + _mixed(decay[:, chunk], after, back=True)
        if predict is not None:
            before = torch.baddbmm(before, predict[:, chunk].transpose(1, 2), slope, alpha=-1)
        total[:, chunk] = before
    return d_values, total


def _mixed(
    decay: Float[Tensor, "N w"], held: Float[Tensor, "N R V"], back: bool = False
) -> Float[Tensor, "N R V"]:
    """Let the state fade over a chunk without errors: D Z, or D^T Z on the way back."""
    if decay.shape[1] == 1:
        return decay.unsqueeze(2) * held
    keep, drift, moved = (x[:, None, None] for x in decay.unbind(1))
    first, second = held.chunk(2, 1)
    if back:
        return torch.cat([keep * first, drift * first + moved * second], 1)
    return torch.cat([keep * first + drift * second, moved * second], 1)
