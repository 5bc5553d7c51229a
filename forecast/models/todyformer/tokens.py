"""A window of events as tokens: patches in time, one token for a node in a patch, ragged runs.

Tokens are in the order of node, then patch, so that the tokens of a node are a run; runs of similar
length share a bucket, whose width is a power of two. Everything is done by sorting; no loop goes
over events or nodes.

Letters: W events of a window, M patches, T tokens, U nodes of the window, e edges, m messages,
F numbers of an event.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from forecast.batch import EventBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucket:
    """The sequences of nodes with about equally many tokens.

    Attributes:
        rows: the tokens of each run; short runs repeat their first.
        real: which of them are no repetition; None when all are.
    """

    rows: Int[Tensor, "n k"]
    real: Bool[Tensor, "n k"] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """A window cut into patches.

    Attributes:
        node: the node of each token.
        patch: its patch.
        since: time from its node's last event inside the patch to now [tau].
        incoming: events into its node in the patch.
        outgoing: events out of it.
        age: mean time from the events of each patch to now [tau].
        edge_count: events that an edge stands for.
        edge_since: time from the last of them to now [tau].
        edge_numbers: means of their weights and features.
        source: the token that each message comes from; messages are in the order of their targets.
        edge: its edge, and e more for one against the edge's direction.
        offsets: the first message into each token, and m.
        nodes: the nodes of the window, ascending.
        last: the last token of each.
        buckets: the runs of the nodes.
        unpacked: where each token is when the real rows of all buckets are put in a row.
    """

    node: Int[Tensor, " T"]
    patch: Int[Tensor, " T"]
    since: Float[Tensor, " T"]
    incoming: Float[Tensor, " T"]
    outgoing: Float[Tensor, " T"]
    age: Float[Tensor, " M"]
    edge_count: Float[Tensor, " e"]
    edge_since: Float[Tensor, " e"]
    edge_numbers: Float[Tensor, "e F"]
    source: Int[Tensor, " m"]
    edge: Int[Tensor, " m"]
    offsets: Int[Tensor, " T1"]
    nodes: Int[Tensor, " U"]
    last: Int[Tensor, " U"]
    buckets: tuple[Bucket, ...]
    unpacked: Int[Tensor, " T"]


def patches(time: Float[Tensor, " W"], count: int) -> Int[Tensor, " W"]:
    """Cut sorted events into patches of about equally many, never inside one time."""
    first = torch.searchsorted(time.contiguous(), time.contiguous())
    return first * count // max(len(time), 1)


def tokenise(
    batch: EventBatch, *, patch_count: int, time_unit: float, coalesce: bool = True
) -> Tokens:
    """Cut the window of a batch into patches and number its tokens, edges and messages.

    Args:
        batch: whose window it is.
        patch_count: M.
        time_unit: tau.
        coalesce: let equal events of a patch be one edge.
    """
    src, dst = batch.src, batch.dst
    patch = patches(batch.time, patch_count) if batch.patch is None else batch.patch
    since = (batch.now - batch.time) / time_unit  # float64
    ends = torch.cat([src, dst]) * patch_count + torch.cat([patch, patch])
    keys, place = torch.unique(ends, return_inverse=True)
    count = len(keys)
    src_token, dst_token = place[: len(src)], place[len(src) :]
    token_since = since.new_full((count,), torch.inf)
    token_since = token_since.scatter_reduce(0, place, since.repeat(2), "amin")
    events = torch.bincount(patch, minlength=patch_count).clamp(min=1)
    age = since.new_zeros(patch_count).index_add_(0, patch, since) / events

    pair = src_token * count + dst_token
    if coalesce:
        pair, group = torch.unique(pair, return_inverse=True)
    else:
        order = torch.argsort(since, stable=True)
        order = order[torch.argsort(pair[order], stable=True)]
        group = torch.empty_like(order)
        group[order] = torch.arange(len(order), device=order.device)
        pair = pair[order]
    edges = len(pair)
    edge_count = torch.bincount(group, minlength=edges)
    edge_since = since.new_full((edges,), torch.inf).scatter_reduce(0, group, since, "amin")
    given = [] if batch.weight is None else [batch.weight[:, None]]
    given += [] if batch.features is None else [batch.features]
    numbers = torch.cat(given, 1).double() if given else since.new_zeros(len(src), 0)
    sums = numbers.new_zeros(edges, numbers.shape[1]).index_add_(0, group, numbers)
    first, second = torch.div(pair, max(count, 1), rounding_mode="floor"), pair % max(count, 1)

    # A self-loop is one message, any other edge two.
    back = (first != second).nonzero().flatten()
    source, target = torch.cat([first, second[back]]), torch.cat([second, first[back]])
    edge = torch.cat([torch.arange(edges, device=pair.device), edges + back])
    order = torch.argsort(target * max(count, 1) + source, stable=True)
    offsets = torch.searchsorted(target[order], torch.arange(count + 1, device=pair.device))

    node = torch.div(keys, patch_count, rounding_mode="floor")
    nodes, lengths = torch.unique_consecutive(node, return_counts=True)
    ends_of = lengths.cumsum(0)
    buckets, unpacked = _pack(ends_of - lengths, lengths, patch_count)
    return Tokens(
        node=node,
        patch=keys % patch_count,
        since=token_since.float(),
        incoming=torch.bincount(dst_token, minlength=count).float(),
        outgoing=torch.bincount(src_token, minlength=count).float(),
        age=age.float(),
        edge_count=edge_count.float(),
        edge_since=edge_since.float(),
        edge_numbers=(sums / edge_count[:, None]).float(),
        source=source[order],
        edge=edge[order],
        offsets=offsets,
        nodes=nodes,
        last=ends_of - 1,
        buckets=buckets,
        unpacked=unpacked,
    )


def _pack(
    firsts: Int[Tensor, " U"], lengths: Int[Tensor, " U"], longest: int
) -> tuple[tuple[Bucket, ...], Int[Tensor, " T"]]:
    """Gather runs by the next power of two of their length."""
    buckets: list[Bucket] = []
    tokens: list[Tensor] = []
    below, width = 0, 1
    while below < longest:
        chosen = ((lengths > below) & (lengths <= width)).nonzero().flatten()
        if len(chosen):
            steps = torch.arange(width, device=lengths.device)
            real = steps < lengths[chosen, None]
            rows = firsts[chosen, None] + steps * real
            buckets.append(Bucket(rows=rows, real=None if real.all() else real))
            tokens.append(rows[real])
        below, width = width, 2 * width
    order = torch.cat(tokens) if tokens else lengths[:0]
    unpacked = torch.empty_like(order)
    unpacked[order] = torch.arange(len(order), device=order.device)
    return tuple(buckets), unpacked
