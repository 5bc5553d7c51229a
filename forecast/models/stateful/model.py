"""Models that carry a state from row to row: what LMUFormer and Titans have in common.

The forecast of such a model is the last value, plus the direct path, plus what its network adds.
Here is all that stands around the network: variates laid out as streams, missing values held, the
scale carried along, rows taken in at once, in pieces or one by one, and the loss of segments.

Letters: B batch, L rows, H horizon, C variates, F calendar features, G groups of variates that are
forecast together, V variates of a group, N = B G streams, K positions to forecast from, X inputs
of a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from forecast.batch import DenseForecast, Forecast, SeriesBatch, tiled_rows
from forecast.batch.segments import SegmentBatch, Segments
from forecast.errors import UsageError
from forecast.layers import squared_error
from forecast.models.protocols import State
from forecast.models.stateful.direct_path import DirectPath, Known, fading_scale, hold

# Rows computed at once where no gradient is wanted: the state goes on, the memory in use does not.
_PIECE = 1_024


class Piece(NamedTuple):
    """Hold consecutive rows of streams, as a network reads them.

    Attributes:
        inputs: values, which of them were observed, and the calendar, as far as the model wants
            them; 0 before a stream begins, which it does with the first observation of any value.
        live: False before a stream begins; None where all have begun.
        age: rows since each stream began, after the last of these.
        kept: K; forecasts from so many last rows are wanted.
        backend: the form of Legendre memories.
    """

    inputs: Float[Tensor, "N L X"]
    live: Bool[Tensor, "N L 1"] | None
    age: Int[Tensor, " N"]
    kept: int
    backend: str


class StatefulModel(nn.Module, ABC):
    """A model that carries a state, around the network that each one writes itself.

    Attributes:
        horizon: H.
        variates: C.
        together: V.
        observed: whether its network sees which values are missing.
        calendar_rows: 1 if it sees the calendar of each row, else 0.
        half_life: of the rows in the carried scale; None without one.
        direct: the direct path; None without one.
        context: rows that its memories hold, after which a stream is no longer cold.
        forgets: whether what lies far beyond those no longer shows.
        segment: rows of a training segment that are scored.
        warm_up: rows before them that only bring the state up.
        carried: most rows of history that half of the training segments begin with.
    """

    # Every batch goes through all blocks.
    same_path = True

    horizon: int
    variates: int
    together: int
    observed: bool
    calendar_rows: int
    half_life: float | None
    direct: DirectPath | None
    context: int
    forgets: bool
    segment: int
    warm_up: int
    carried: int

    @abstractmethod
    def state_sizes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each part of the state that the network has for a stream."""

    @abstractmethod
    def network(self, piece: Piece, before: State) -> tuple[Float[Tensor, "N K H V"], State]:
        """Compute what the network adds behind the last K rows, and its state after them."""

    def init_state(self, batch_size: int, variates: int | None = None) -> State:
        """State before the first row of `batch_size` series: tensors (B, G, ...).

        Returns:
            `count` rows since the first observation and `last` value, `recent` values and `direct`
            memory, `scale` (mean and variance), as far as the model has them, and the parts of its
            network.
        """
        groups = (variates or self.variates) // self.together
        shapes: dict[str, tuple[int, ...]] = {"last": (self.together,)}
        if self.direct is not None:
            shapes |= self.direct.sizes(self.together)
        if self.half_life:
            shapes["scale"] = (self.together, 2)
        shapes |= self.state_sizes()
        weight = next(self.parameters())
        # Not of its like: one among several processes may hold it in parts.
        state = {
            name: torch.zeros(batch_size, groups, *shape, dtype=weight.dtype, device=weight.device)
            for name, shape in shapes.items()
        }
        state["count"] = torch.zeros(
            batch_size, groups, self.together, dtype=torch.int64, device=weight.device
        )
        return state

    def step(
        self,
        x: Float[Tensor, "B C"],
        state: State,
        *,
        mask: Bool[Tensor, "B C"] | None = None,
        time: Float[Tensor, "B 1 F"] | None = None,
        future_time: Float[Tensor, "B H F"] | None = None,
    ) -> tuple[Forecast, State]:
        """Take one row of each series in, and forecast: what `run` does, for a single row.

        Args:
            x: the row in scaled space, 0 where a value is missing.
            state: of these series, row by row; they need not have begun together.
            mask: False where a value is missing.
            time: the calendar features of the row, if the model sees them.
            future_time: those of the horizon, which these models do not read.

        Returns:
            The forecast (B, H, C), and the next state.
        """
        count, filled = len(x), tiled_rows(len(x))
        if filled != count and not torch.is_grad_enabled():
            x = _filled(x, filled)
            mask = None if mask is None else _filled(mask, filled)
            time = None if time is None else _filled(time, filled)
            state = {name: _filled(part, filled) for name, part in state.items()}
        seen = None if mask is None else mask.unsqueeze(1)
        values, state = _advance(self, x.unsqueeze(1), seen, time, state, 1, "auto")
        if filled != count:
            state = {name: part[:count] for name, part in state.items()}
        return Forecast(values=values[:count, 0]), state

    def forward(self, batch: SeriesBatch) -> Forecast:
        """Forecast what follows windows, by what lies in them and nothing before.

        Returns:
            Values (B, H, C) in the scaled space of the batch.
        """
        return self.run(batch, kept=1)[0].last()

    def run(
        self,
        batch: SeriesBatch,
        state: State | None = None,
        *,
        kept: int | None = None,
        backend: str = "auto",
    ) -> tuple[DenseForecast, State]:
        """Forecast from the last `kept` positions of windows, and return the state behind them.

        Args:
            batch: the windows.
            state: the state before their first rows; None where there is no history.
            kept: K; None for all positions.
            backend: the form of Legendre memories.
        """
        past = batch.past
        count, rows, variates = past.shape
        state = self.init_state(count, variates) if state is None else state
        kept = rows if kept is None else kept
        size = rows if torch.is_grad_enabled() else _PIECE
        values: list[Tensor] = [past.new_empty(count, 0, self.horizon, variates)]
        for piece, some in _pieces(rows, kept, size):
            forecasts, state = _advance(
                self,
                past[:, piece],
                None if batch.past_mask is None else batch.past_mask[:, piece],
                None if batch.past_time is None else batch.past_time[:, piece],
                state,
                some,
                backend,
            )
            values.append(forecasts)
        return DenseForecast(values=torch.cat(values, 1)), state

    def loss(self, batch: SeriesBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Sum the squared errors over observed targets, and count those.

        Of a segment every scored position counts; the rows before them bring the state up and pass
        no gradient on. A segment that carries a state has its history run through first. Of a
        window it is the one forecast behind its last row.
        """
        if not isinstance(batch, SegmentBatch):
            return squared_error(self.run(batch, kept=1)[0].last(), batch)
        first, scored = batch.history, batch.past.shape[1] - batch.scored
        state = None
        with torch.no_grad():
            if batch.carrying is not None:
                # Rows that the others do not have would leave no trace in their state.
                state = self.init_state(len(batch), batch.past.shape[2])
                _, carried = self.run(batch.rows_from(0, first, batch.carrying), kept=0)
                for name, part in carried.items():
                    state[name][batch.carrying] = part.to(state[name].dtype)
            if scored > first:
                _, state = self.run(batch.rows_from(first, scored), state, kept=0)
        forecast, _ = self.run(batch.rows_from(scored), state)
        truth, mask = batch.truth()
        error = forecast.values.float() - truth
        if mask is None:
            return error.square().sum(), error.new_tensor(float(error.numel()))
        return (error.square() * mask).sum(), mask.sum().to(error.dtype)

    @torch.no_grad()
    def solve(self, train: Segments, val: Segments) -> None:
        """Solve for the direct path, the network still adding nothing.

        Training then goes on from the best linear forecast.
        """
        if self.direct is not None:
            direct = self.direct
            direct.solve(_examples(self, direct, train), _examples(self, direct, val))


def _filled(part: Tensor, count: int) -> Tensor:
    """Repeat the last row of a tensor until it has `count` rows."""
    return torch.cat([part, part[-1:].expand(count - len(part), *part.shape[1:])])


def own_part(state: State, prefix: str) -> State:
    """Take the parts of a state whose names begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): part for name, part in state.items() if name.startswith(prefix)
    }


def _examples(
    model: StatefulModel, direct: DirectPath, part: Segments
) -> Iterator[tuple[Tensor, Tensor]]:
    """Give the features of the direct path and the changes they should give.

    Origins with a missing target are left out.
    """
    together = model.together

    def targets(part: Shaped[Tensor, "B K H C"]) -> Shaped[Tensor, "N K H V"]:
        groups = part.unflatten(3, (-1, together))  # (B, K, H, G, V)
        return groups.permute(0, 3, 1, 2, 4).flatten(0, 1)

    for batch in part.batches(_PIECE):
        truth, mask = batch.truth()
        state = model.init_state(len(batch), batch.past.shape[2])
        state = {name: value.flatten(0, 1) for name, value in state.items()}
        done = 0
        for piece, kept in _pieces(batch.past.shape[1], batch.scored, _PIECE):
            seen = None if batch.past_mask is None else batch.past_mask[:, piece]
            known = _known(batch.past[:, piece], seen, state, together)
            features, moved = direct.features(known, state, kept)  # (N, V, K, X)
            state = {"last": known.values[:, -1], "count": known.rows} | moved
            if not kept:
                continue
            some = slice(done, done := done + kept)
            last = known.values[:, -kept:].unsqueeze(2)  # (N, K, 1, V)
            change = (targets(truth[:, some]) - last).permute(0, 3, 1, 2)  # (N, V, K, H)
            if mask is None:
                yield features.flatten(0, 2), change.flatten(0, 2)
            else:
                whole = targets(mask[:, some]).all(2).transpose(1, 2)  # (N, V, K)
                yield features[whole], change[whole]


def _pieces(rows: int, kept: int, size: int) -> Iterator[tuple[slice, int]]:
    """Cut rows into pieces, and tell how many of the last `kept` rows lie in each."""
    for start in range(0, rows, size):
        stop = min(start + size, rows)
        yield slice(start, stop), min(stop - start, max(0, stop - rows + kept))


def _advance(
    model: StatefulModel,
    past: Float[Tensor, "B L C"],
    mask: Bool[Tensor, "B L C"] | None,
    time: Float[Tensor, "B L F"] | None,
    state: State,
    kept: int,
    backend: str,
) -> tuple[Float[Tensor, "B K H C"], State]:
    """Take rows in; every way to run a model ends here."""
    batch, rows, variates = past.shape
    if variates % model.together:
        raise UsageError(
            f"The model forecasts {model.together} variates together, and got {variates}.",
            hint="Bring the columns it was trained on, or train with "
            "model.channel_independent = true.",
        )
    groups = variates // model.together
    before = {name: part.flatten(0, 1) for name, part in state.items()}
    known = _known(past, mask, before, model.together)
    values, begun = known.values, known.begun  # (N, L, V)
    after: State = {"last": values[:, -1], "count": known.rows}
    answer = values[:, rows - kept :].unsqueeze(2)  # (N, K, 1, V)
    if model.direct is not None:
        change, moved = model.direct(known, before, kept, backend)
        answer, after = answer + change, after | moved
    inputs, spread = values, None
    if model.half_life:
        mean, deviation, after["scale"] = fading_scale(
            known, before["scale"], model.half_life, backend
        )
        inputs = (values - mean) / deviation
        spread = deviation[:, rows - kept :].unsqueeze(2)
    parts = [inputs if begun is None else inputs * begun]
    if model.observed:
        seen = None if mask is None else _streams(mask, model.together)
        parts.append(torch.ones_like(values) if seen is None else seen.to(values.dtype))
    if model.calendar_rows and time is not None:
        parts.append(time.to(values.dtype).repeat_interleave(groups, 0))
    live = None if begun is None else begun.any(2, keepdim=True)
    read = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
    read = read if live is None else read * live
    added, changed = model.network(Piece(read, live, known.rows.amax(1), kept, backend), before)
    after |= changed
    answer = answer + (added if spread is None else added * spread)  # (N, K, H, V)
    if begun is not None:
        answer = answer * begun[:, rows - kept :].unsqueeze(2)
    answer = answer.view(batch, groups, kept, model.horizon, model.together)
    answer = answer.permute(0, 2, 3, 1, 4).flatten(3)
    return answer, {name: after[name].unflatten(0, (batch, groups)) for name in state}


def _known(
    past: Float[Tensor, "B L C"], mask: Bool[Tensor, "B L C"] | None, before: State, together: int
) -> Known:
    seen = None if mask is None else _streams(mask, together)
    return hold(_streams(past, together), seen, before)


def _streams(part: Shaped[Tensor, "B L C"], together: int) -> Shaped[Tensor, "N L V"]:
    """Lay the groups of variates out as streams."""
    batch, rows, variates = part.shape
    if together == variates:
        return part
    return part.transpose(1, 2).reshape(batch * variates, rows, 1)
