"""The layers of Titans: a memory that learns as it reads, and attention to the last tokens.

Letters: N streams, T tokens, D width, W tokens of the attention's window, P persistent tokens,
U sources of keys, E head width, K key width, V value width, R rows of a ring, X anything, M columns
of what a memory holds.

Source: Behrouz et al., "Titans", arXiv 2501.00663, sections 3 and 4.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from forecast.kernels import neural_memory as kernel
from forecast.kernels.attention import attention
from forecast.layers import RMSNorm, RowLinear
from forecast.layers.recomputed import recomputed
from forecast.models.stateful.model import State
from forecast.models.titans.memory_store import STORES, Kind

Target = Literal["next", "self"]
# Tokens, the last, of which everything is kept for the gradient: half a gigabyte at width 128.
_KEPT = 8_192
# Of those before, tokens between two states that are kept.
_SLAB = 1_024
# Tokens that the convolutions on queries, keys and values look at.
_KERNEL = 4
_ROTARY_BASE = 10_000.0


class Tokens(NamedTuple):
    """Masks, positions and times of tokens: what is known of them besides their values.

    Of streams that do not begin together the later ones are filled up in front with tokens that
    stand for nothing: they leave the state as it is, and none is seen by another token.

    Attributes:
        place: how many tokens of the stream came before each; below 0 before the stream begins.
        live: False where nothing of a token's patch was observed: it is not written.
        absent: True before the stream begins; None where all have begun.
    """

    place: Int[Tensor, "N T"]
    live: Bool[Tensor, "N T"]
    absent: Bool[Tensor, "N T"] | None = None

    @classmethod
    def at(cls, place: Int[Tensor, "N T"], live: Bool[Tensor, "N T"]) -> Tokens:
        """Build from positions; absent tokens have negative ones."""
        absent = place < 0
        return cls(place, live, absent if absent.any() else None)

    def part(self, some: slice) -> Tokens:
        """Take some of the tokens."""
        absent = None if self.absent is None else self.absent[:, some]
        return Tokens(self.place[:, some], self.live[:, some], absent)

    def kept(self, x: Float[Tensor, "N T X"]) -> Float[Tensor, "N T X"]:
        """Zero the outputs of absent tokens."""
        return x if self.absent is None else x.masked_fill(self.absent.unsqueeze(2), 0.0)

    def visible(self, most: int | Int[Tensor, "N T"]) -> Int[Tensor, "N T"]:
        """Return how many of the last tokens each may attend to, itself among them."""
        # An absent token sees itself, so that it is a number: nobody asks which.
        return torch.minimum(self.place + 1, torch.as_tensor(most)).clamp(min=1)


class Readings(NamedTuple):
    """What a memory did with tokens, recorded for a report.

    Attributes:
        error: squared length of what a value is from what the memory gives for its key before it
            is written: the surprise.
        size: squared length of the value; of an error as large nothing was known.
        write: theta, the size of the step; 0 where nothing is written.
        forget: alpha, the share of the memory that goes.
        keys: under which values are written.
    """

    error: Float[Tensor, "N H T"]
    size: Float[Tensor, "N H T"]
    write: Float[Tensor, "N H T"]
    forget: Float[Tensor, "N H T"]
    keys: Float[Tensor, "N H T K"]


class Memory(nn.Module):
    """Write each token into a memory of several heads, and read it with the token's query.

    With `target="next"` the value of a token is written under the key of the token before it: what
    the memory learns is what follows, and nothing is written before it was observed.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        momentum: bool,
        target: Target,
        kind: Kind = "linear",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.heads, self.momentum, self.target = heads, momentum, target
        self.hold = STORES[kind](heads, width // heads, backend=backend)
        self.norm = RMSNorm(width)
        self.project = RowLinear(width, 3 * width, bias=False)
        self.mix = nn.Parameter(torch.empty(_KERNEL, 3 * width))
        self.mix_bias = nn.Parameter(torch.zeros(3 * width))
        self.write, self.forget = RowLinear(width, heads), RowLinear(width, heads)
        self.move = RowLinear(width, heads) if momentum else None
        self.norm_read = RMSNorm(width // heads)
        self.gate = RowLinear(width, width)
        self.out = RowLinear(width, width, bias=False)
        nn.init.uniform_(self.mix, -1 / math.sqrt(_KERNEL), 1 / math.sqrt(_KERNEL))

    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each part of the state of a stream."""
        width = self.out.in_features
        shapes = self.hold.sizes(self.momentum) | {"ring": (_KERNEL - 1, 3 * width)}
        if self.target == "next":
            shapes["key"] = (self.heads, width // self.heads)
        return shapes

    def forward(
        self, tokens: Float[Tensor, "N T D"], known: Tokens, state: State
    ) -> tuple[Float[Tensor, "N T D"], State]:
        """Return what is read, and the state after the last token.

        Of a long series the first tokens are taken slab by slab: of each its inputs are kept for
        the gradient, and the rest is computed again.
        """
        if tokens.shape[1] > _KEPT:
            return self._slabs(tokens, known, state)
        inputs = self.norm(tokens)
        q, k, v, after = self._written(inputs, known, state)
        answer, changed = self.hold(q, k, v, self.gates(inputs, known), known.place, state)
        return self._answer(answer, inputs), after | changed

    def readings(self, tokens: Float[Tensor, "N T D"], known: Tokens, state: State) -> Readings:
        """Compute what `forward` does with tokens, for a report."""
        inputs = self.norm(tokens)
        _, k, v, _ = self._written(inputs, known, state)
        gate = self.gates(inputs, known)
        # What is read behind a token by the next one's key is what that one meets.
        ahead = torch.cat([k[:, :, 1:], k[:, :, -1:]], 2)
        recalled, _ = self.hold(ahead, k, v, gate, known.place, state)
        first = self.hold.recall(k[:, :, :1], state["memory"])
        error = v - torch.cat([first, recalled[:, :, :-1]], 2)
        return Readings(
            error.square().sum(3), v.square().sum(3), gate.write, -torch.expm1(gate.keep), k
        )

    def read(
        self, tokens: Float[Tensor, "N T D"], held: Float[Tensor, "N H K M"]
    ) -> Float[Tensor, "N T D"]:
        """Read a memory by each token itself, without writing."""
        inputs = self.norm(tokens)
        query = self.project.weight[: self.out.in_features]
        q = kernel.unit(self._heads(nn.functional.silu(inputs @ query.T)))
        return self._answer(self.hold.recall(q, held), inputs)

    def gates(self, inputs: Float[Tensor, "N T D"], known: Tokens) -> kernel.Gates:
        """Compute write, keep and momentum gates of each token; none without observations.

        Args:
            inputs: tokens, normalised.
            known: which of them have something observed.
        """
        layers = (self.write, self.forget, self.move)
        numbers = (None if x is None else x(inputs).transpose(1, 2) for x in layers)
        gate = kernel.gates(*numbers)  # pyright: ignore[reportArgumentType]
        return gate._replace(write=gate.write * known.live.unsqueeze(1))

    def _slabs(
        self, tokens: Float[Tensor, "N T D"], known: Tokens, state: State
    ) -> tuple[Float[Tensor, "N T D"], State]:
        names, weights = list(self.sizes()), dict(self.named_parameters())

        def run(own: Tokens, some: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            before = dict(zip(names, rest, strict=False))
            given = dict(zip(weights, rest[len(names) :], strict=True))
            read, after = torch.func.functional_call(self, given, (some, own, before))
            # A view would hold on to all that it is a part of.
            return read, *(after[name].clone() for name in names)

        reads: list[Tensor] = []
        count = tokens.shape[1] - _KEPT
        first, last = tokens.split([count, _KEPT], 1)
        for number, some in enumerate(first.split(_SLAB, 1)):
            begin = number * _SLAB
            own = functools.partial(run, known.part(slice(begin, begin + some.shape[1])))
            held = (state[name] for name in names)
            read, *after = recomputed(own, some, *held, *weights.values())
            state = dict(zip(names, after, strict=True))
            reads.append(read)
        # The way back begins with the last: what it keeps is soon gone.
        read, state = self(last, known.part(slice(count, None)), state)
        return torch.cat([*reads, read], 1), state

    def _written(
        self, inputs: Float[Tensor, "N T D"], known: Tokens, state: State
    ) -> tuple[Tensor, Tensor, Tensor, State]:
        """Compute queries, the pairs that are written, and the state but for the memory."""
        q, k, v, ring = self._project(inputs, known, state["ring"])
        after: State = {"ring": ring}
        if self.target == "next":
            reach = torch.cat([state["key"].unsqueeze(2), k], 2)
            k, after["key"] = reach[:, :, :-1], reach[:, :, -1]
        return q, k, v, after

    def _project(
        self, inputs: Float[Tensor, "N T D"], known: Tokens, ring: Float[Tensor, "N R X"]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute queries, keys and values, and the rows that the next convolution needs."""
        count = inputs.shape[1]
        reach = torch.cat([ring, known.kept(self.project(inputs))], 1)
        mixed = _Mixed.apply(reach, self.mix, self.mix_bias)
        # Nothing is written under the key of an absent token: it is 0.
        q, k, v = (self._heads(known.kept(x)) for x in nn.functional.silu(mixed).chunk(3, 2))
        return kernel.unit(q), kernel.unit(k), v, reach[:, count:]

    def _heads(self, x: Float[Tensor, "N T D"]) -> Float[Tensor, "N H T K"]:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _answer(
        self, read: Float[Tensor, "N H T V"], inputs: Float[Tensor, "N T D"]
    ) -> Float[Tensor, "N T D"]:
        merged = self.norm_read(read.transpose(1, 2)).flatten(2)
        return self.out(merged * nn.functional.silu(self.gate(inputs)))


class _Mixed(torch.autograd.Function):
    """Convolve each channel over the rows; by torch alone the way back copies all rows per tap."""

    @staticmethod
    def forward(
        ctx: Any,
        reach: Float[Tensor, "N R X"],
        mix: Float[Tensor, "W X"],
        bias: Float[Tensor, " X"],
    ) -> Float[Tensor, "N T X"]:
        ctx.save_for_backward(reach, mix)
        count, mixed = reach.shape[1] - len(mix) + 1, bias
        for row, weight in enumerate(mix.unbind(0)):
            mixed = torch.addcmul(mixed, reach[:, row : row + count], weight)
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        reach, mix = ctx.saved_tensors
        (slope,) = gradients
        count, d_reach, d_mix = slope.shape[1], torch.zeros_like(reach), torch.empty_like(mix)
        for row in reversed(range(len(mix))):
            rows = slice(row, row + count)
            d_reach[:, rows] += slope * mix[row]
            d_mix[row] = (slope * reach[:, rows]).sum((0, 1))
        return d_reach, d_mix, slope.sum((0, 1))


class WindowAttention(nn.Module):
    """Attend to the last W tokens, and to P persistent (learned) ones.

    Places are told apart by rotating queries and keys; what persists turns along with the query.
    Every token brings a key from each of U sources.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        window: int,
        persistent: int,
        dropout: float,
        sources: int = 1,
    ) -> None:
        super().__init__()
        self.heads, self.window, self.sources, self.dropout = heads, window, sources, dropout
        self.norm = RMSNorm(width)
        self.query = RowLinear(width, width, bias=False)
        self.pair = RowLinear(width, 2 * width, bias=False)
        self.out = RowLinear(width, width, bias=False)
        self.persistent = nn.Parameter(torch.randn(persistent, width) * 0.02)
        half = width // heads // 2
        speeds = _ROTARY_BASE ** (-torch.arange(half, dtype=torch.float64) / half)
        self.speeds: list[float] = speeds.tolist()

    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each part of the state of a stream: rotated keys, and values."""
        return {"pairs": (self.window - 1, self.sources, 2 * self.out.in_features)}

    def forward(
        self,
        tokens: Float[Tensor, "N T D"],
        known: Tokens,
        visible: Int[Tensor, "N T"],
        state: State,
        *others: Float[Tensor, "N T D"],
    ) -> tuple[Float[Tensor, "N T D"], State]:
        """Return what is attended to, and the state after the last token.

        Args:
            tokens: they ask, and bring the first source of keys.
            known: where they stand.
            visible: how many of the last tokens each may see, itself among them.
            state: the keys and values before the first token.
            others: the further sources.
        """
        streams, count, width = tokens.shape
        inputs = self.norm(tokens)
        turn = self._turn(known.place, inputs.dtype)
        q = self._rotate(self.query(inputs).unflatten(2, (self.heads, -1)), turn)
        sources = torch.stack([inputs, *(self.norm(x) for x in others)], 2)  # (N, T, U, D)
        k, v = self.pair(sources).chunk(2, 3)
        k = self._rotate(k.unflatten(3, (self.heads, -1)), turn.unsqueeze(3)).flatten(3)
        pairs = known.kept(torch.cat([k, v], 3).flatten(2)).unflatten(2, (self.sources, 2 * width))
        reach = torch.cat([state["pairs"], pairs], 1)
        # (N, T, W U, 2 D): what each token may see, oldest first
        seen = reach.unfold(1, self.window, 1).permute(0, 1, 4, 2, 3).flatten(2, 3)
        lasting = self.pair(self.norm(self.persistent)).expand(streams, count, -1, -1)
        k, v = torch.cat([lasting, seen], 2).unflatten(3, (2, self.heads, -1)).unbind(3)
        kept = self._rotate(k[:, :, : len(self.persistent)], turn.unsqueeze(3))
        k = torch.cat([kept, k[:, :, len(self.persistent) :]], 2)
        slot = torch.arange(self.window, device=tokens.device)
        hidden = (slot < self.window - visible.unsqueeze(2)).repeat_interleave(self.sources, 2)
        hidden = nn.functional.pad(hidden, (len(self.persistent), 0))
        answer = attention(
            q.flatten(0, 1).unsqueeze(2),
            k.flatten(0, 1).transpose(1, 2),
            v.flatten(0, 1).transpose(1, 2),
            key_padding=hidden.flatten(0, 1),
            dropout=self.dropout if self.training else 0.0,
        )
        return self.out(answer.reshape(streams, count, width)), {"pairs": reach[:, count:]}

    def _turn(self, place: Int[Tensor, "N T"], dtype: torch.dtype) -> Float[Tensor, "N T 1 E"]:
        """Return cosines and behind them sines, of angles that are exact at any position."""
        speeds = torch.tensor(self.speeds, dtype=torch.float64, device=place.device)
        angle = place[:, :, None, None] * speeds
        return torch.cat([angle.cos(), angle.sin()], 3).to(dtype)

    def _rotate(self, x: Tensor, turn: Tensor) -> Tensor:
        (first, second), (cosine, sine) = x.chunk(2, -1), turn.chunk(2, -1)
        return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)
