"""The state of many series: one tensor for each part of it, a row for each series; and its file.

Letters: S series.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from forecast import atomic
from forecast.errors import DataError, UsageError
from forecast.models.protocols import State, Stateful

# The first rows belong to no series: with them the engine fills up a step of too few.
SPARE = 16
_NEVER = np.iinfo(np.int64).min
_GROWTH = 4_096


@dataclass(kw_only=True, slots=True)
class Book:
    """What the engine itself knows of each series.

    Attributes:
        rows: taken in, missing ones included.
        ordinal: the step at which the last of them stands.
        phase: what is left of its time beyond that step.
        latest: the last observed values, NaN before the first.
        first: the first observed values, NaN before they came.
        count: observed values so far.
        total: sum of their distances from the first.
        square: sum of the squares of those.
        resumed: the ordinal up to which a resumed state has seen the rows.
    """

    rows: np.ndarray
    ordinal: np.ndarray
    phase: np.ndarray
    latest: np.ndarray
    first: np.ndarray
    count: np.ndarray
    total: np.ndarray
    square: np.ndarray
    resumed: np.ndarray


# What of the book goes into a file.
_KEPT = ("rows", "ordinal", "phase", "latest", "first", "count", "total", "square")


class Store:
    """Keep the state of series that are known by name.

    Args:
        model: begins the state of new series.
        variates: C.
    """

    def __init__(self, model: Stateful, variates: int) -> None:
        self._model = model
        self._numbers: dict[str, int] = {}
        self.state: State = model.init_state(SPARE)
        self.book = Book(
            rows=np.zeros(SPARE, np.int64),
            ordinal=np.zeros(SPARE, np.int64),
            phase=np.zeros(SPARE, np.int64),
            latest=np.full((SPARE, variates), np.nan),
            first=np.full((SPARE, variates), np.nan),
            count=np.zeros((SPARE, variates), np.int64),
            total=np.zeros((SPARE, variates)),
            square=np.zeros((SPARE, variates)),
            resumed=np.full(SPARE, _NEVER),
        )

    def __len__(self) -> int:
        """Return the number of series (S)."""
        return len(self._numbers)

    @property
    def names(self) -> list[str]:
        """Name the series in the order of their rows."""
        return list(self._numbers)

    @property
    def bytes_per_series(self) -> int:
        """Return what the state and the book of one series take."""
        state = [part[0].numel() * part.element_size() for part in self.state.values()]
        book = [getattr(self.book, name)[0].nbytes for name in Book.__slots__]
        return sum(state) + sum(book)

    def place(self, ids: Sequence[str]) -> Int[np.ndarray, " n"]:
        """Return the row of each of these series, and begin those that are new."""
        numbers, known = self._numbers, len(self._numbers)
        places = [numbers.setdefault(name, SPARE + len(numbers)) for name in ids]
        if len(numbers) > known:
            self._begin(SPARE + known, SPARE + len(numbers))
        return np.array(places, np.int64)

    def gather(self, rows: Int[Tensor, " n"]) -> State:
        """Copy the state of some rows."""
        return {name: part.index_select(0, rows) for name, part in self.state.items()}

    def scatter(self, rows: Int[Tensor, " n"], state: State) -> None:
        """Put the state of some rows in place; what `state` has beyond them is left out."""
        for name, part in state.items():
            self.state[name].index_copy_(0, rows, part[: rows.numel()])

    def _begin(self, first: int, end: int) -> None:
        held = len(self.book.rows)
        if end > held:
            # Room ahead costs nothing: memory that was never written to is not in use.
            self._make_room(first, max(end, 2 * held))
        for start in range(first, end, _GROWTH):
            stop = min(start + _GROWTH, end)
            for name, part in self._model.init_state(stop - start).items():
                self.state[name][start:stop] = part
        self.book.rows[first:end] = 0
        self.book.latest[first:end] = np.nan
        self.book.first[first:end] = np.nan
        for part in (self.book.count, self.book.total, self.book.square):
            part[first:end] = 0
        self.book.resumed[first:end] = _NEVER

    def _make_room(self, used: int, size: int) -> None:
        for name, part in self.state.items():
            larger = part.new_empty(size, *part.shape[1:])
            larger[:used] = part[:used]
            self.state[name] = larger
        for name in Book.__slots__:
            part = getattr(self.book, name)
            larger = np.empty((size, *part.shape[1:]), part.dtype)
            larger[:used] = part[:used]
            setattr(self.book, name, larger)

    def save(self, path: Path, identity: Mapping[str, str]) -> None:
        """Write all series to a file, whole or not at all.

        Args:
            path: the file.
            identity: what the state belongs to, by name.
        """
        some = slice(SPARE, SPARE + len(self))
        tensors = {f"state.{name}": part[some].cpu() for name, part in self.state.items()}
        tensors |= {
            f"book.{name}": torch.from_numpy(getattr(self.book, name)[some]) for name in _KEPT
        }
        # As a tensor, since a header has its limits and a million names are beyond them.
        names = bytearray(json.dumps(self.names, ensure_ascii=False).encode())
        tensors["names"] = torch.frombuffer(names, dtype=torch.uint8)
        atomic.write_bytes(path, save(tensors, metadata=dict(identity)))

    def resume(self, path: Path, identity: Mapping[str, str]) -> None:
        """Take over the series of a file.

        Raises:
            UsageError: what the state belongs to differs; the error names it.
            DataError: the file is damaged.
        """
        try:
            with safe_open(path, framework="pt") as file:
                _refuse_other(path, file.metadata() or {}, identity)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            names = json.loads(tensors["names"].numpy().tobytes())
            rows = self.place(names)
            self.scatter(
                torch.from_numpy(rows).to(next(iter(self.state.values())).device),
                {name: tensors[f"state.{name}"].to(part) for name, part in self.state.items()},
            )
            for name in _KEPT:
                getattr(self.book, name)[rows] = tensors[f"book.{name}"].numpy()
        except (SafetensorError, KeyError, ValueError, RuntimeError, OSError) as error:
            raise DataError(
                f"The state cannot be read: {error}.",
                hint="Take the file away to begin anew, and feed the history again.",
                file=str(path),
            ) from error
        self.book.resumed[rows] = self.book.ordinal[rows]


def _refuse_other(path: Path, found: Mapping[str, str], own: Mapping[str, str]) -> None:
    for name, value in own.items():
        if found.get(name) != value:
            raise UsageError(
                f"The state in {path} belongs to {name} {found.get(name)!r}, and this is {name} "
                f"{value!r}.",
                hint="Stream with what wrote it, or begin another file and feed the history again.",
            )
