"""The protocol of link prediction: who is asked what, alike on every machine and in any library.

Parts are cut at quantiles of time. Each event of validation and test is ranked against negatives
that a 64-bit hash of its number fixes: up to half of them past destinations of its source, the
rest other destinations. No library's generator is involved.

Letters: E events, N nodes, K negatives of an event.

Source: the hash is SplitMix64 (Steele et al., OOPSLA 2014, figure 17); historical negatives are
those of Poursafaei et al., "Towards Better Evaluation for Dynamic Link Prediction", NeurIPS 2022,
section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from forecast.catalogue.dataset import Split
from forecast.errors import DataError
from forecast.graphs.events import Events

RANK_SEED, PAIR_SEED = 20, 21
# Negatives that each event is ranked against.
RANKED = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class EventSplit:
    """Which events are for what: each part a range of event numbers.

    Attributes:
        train: one past the last training event.
        val: one past the last validation event.
        test: the first test event.
        end: one past the last test event.
        unseen: nodes kept out of training, to ask about nodes that a model never met.
        kept: training events without an unseen node.
    """

    train: int
    val: int
    test: int
    end: int
    unseen: Bool[Tensor, " N"]
    kept: Bool[Tensor, " E"]

    def part(self, name: str) -> range:
        """Return the numbers of the events of `train`, `val` or `test`."""
        starts = {"train": (0, self.train), "val": (self.train, self.val)}
        return range(*starts.get(name, (self.test, self.end)))


def split(
    events: Events,
    *,
    division: Split | None = None,
    gap: int = 0,
    inductive: float = 0.0,
    seed: int = 2020,
) -> EventSplit:
    """Split events in time; all of one time are in one part, the earlier.

    Args:
        events: the events.
        division: fractions, taken as quantiles of the times, or numbers of events; by default
            0.7, 0.15 and 0.15.
        gap: events between validation and test that neither has, at the cost of validation where
            the division is by fractions.
        inductive: share of the nodes seen after training that it must not meet.
        seed: of that choice.

    Raises:
        DataError: a part is empty.
    """
    time = events.time.numpy()
    division = division or Split(train=0.7, val=0.15, test=0.15)
    if isinstance(division.train, int):
        first, second, end = division.borders(len(time), gap)
        first, second = round_up(events.time, first), round_up(events.time, second)
        test, end = round_up(events.time, second + gap), round_up(events.time, end)
    else:
        marks = np.quantile(time, (division.train, division.train + division.val))
        first, test = (int(np.searchsorted(time, mark, "right")) for mark in marks)
        second, end = round_down(events.time, test - gap), len(time)
    if not 0 < first < second <= test < end:
        between = f" with a gap of {gap:,}" if gap else ""
        raise DataError(
            f"{len(time):,} events do not divide into three parts of {division}{between}.",
            hint="Bring more events at more different times.",
        )
    unseen = torch.zeros(events.nodes, dtype=torch.bool)
    later = torch.unique(torch.cat([events.src[first:], events.dst[first:]])).numpy()
    if inductive:
        drawn = np.random.RandomState(seed).permutation(later)[: round(inductive * len(later))]
        unseen[torch.from_numpy(drawn)] = True
    kept = ~(unseen[events.src] | unseen[events.dst])
    kept[first:] = False
    return EventSplit(train=first, val=second, test=test, end=end, unseen=unseen, kept=kept)


def round_up(time: Float[Tensor, " E"], number: int) -> int:
    """Move a border between events forward until all of one time are before it."""
    return int(torch.searchsorted(time, time[number - 1], right=True)) if number > 0 else 0


def round_down(time: Float[Tensor, " E"], number: int) -> int:
    """Move a border between events backward until all of one time are behind it."""
    if number >= len(time):
        return number
    return int(torch.searchsorted(time, time[number])) if number > 0 else 0


def mix(word: np.ndarray) -> np.ndarray:
    """Scramble 64-bit words."""
    with np.errstate(over="ignore"):
        word = word + np.uint64(0x9E3779B97F4A7C15)
        word = (word ^ word >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ word >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return word ^ word >> np.uint64(31)


def _event_keys(seed: int, numbers: np.ndarray) -> np.ndarray:
    return mix(np.uint64(seed << 32) + numbers.astype(np.uint64))


def rank_negatives(
    events: Events, part: range, *, count: int = RANKED, past: int | None = None
) -> Int[Tensor, "n K"]:
    """Fix the negatives that each event of a part is ranked against; -1 fills up short rows.

    Args:
        events: the events.
        part: numbers of the events.
        count: K.
        past: destinations before the part that the source had; by default half of them.
    """
    past = count // 2 if past is None else past
    src, dst = events.src.numpy(), events.dst.numpy()
    destinations = np.unique(dst)
    ids = events.numbers().numpy().astype(np.uint64)[destinations]
    columns = np.searchsorted(destinations, dst)
    known = _Pairs.of(src[: part.start], columns[: part.start])
    # Events of one source at one time are not each other's negatives.
    inside = np.arange(part.start, part.stop)
    instant = np.unique(events.time.numpy()[inside], return_inverse=True)[1]
    moment = instant * events.nodes + src[inside]
    together = _Pairs.of(moment, columns[inside])
    found = [
        _least(
            mix(_event_keys(RANK_SEED, inside[rows])[:, None] ^ ids),
            known.mask(src[inside[rows]], len(ids)),
            together.mask(moment[rows], len(ids)),
            count,
            past,
        )
        for rows in np.split(np.arange(len(inside)), range(_ROWS, len(inside), _ROWS))
    ]
    places = np.concatenate(found)
    return torch.from_numpy(np.where(places >= 0, destinations[places], -1))


# Rows of hashes that are held at once.
_ROWS = 128
# The hash of a column that cannot be taken.
_LAST = np.uint64(2**64 - 1)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Which columns belong to a group, group after group."""

    groups: np.ndarray
    columns: np.ndarray

    @classmethod
    def of(cls, groups: np.ndarray, columns: np.ndarray) -> _Pairs:
        order = np.argsort(groups, kind="stable")
        return cls(groups[order], columns[order])

    def mask(self, groups: np.ndarray, width: int) -> np.ndarray:
        """Mark the columns of some groups, a row for each."""
        first, last = (np.searchsorted(self.groups, groups, side) for side in ("left", "right"))
        sizes = last - first
        rows = np.repeat(np.arange(len(groups)), sizes)
        within = np.arange(len(rows)) - np.repeat(sizes.cumsum() - sizes, sizes)
        marks = np.zeros((len(groups), width), dtype=np.bool_)
        marks[rows, self.columns[np.repeat(first, sizes) + within]] = True
        return marks


def _least(
    hashes: np.ndarray, known: np.ndarray, taken: np.ndarray, count: int, past: int
) -> np.ndarray:
    """Take the columns of least hash: up to `past` known ones, then others up to `count`.

    Hashes of one row differ, for the scrambling can be undone.
    """
    hashes = np.where(taken, _LAST, hashes)
    old = _smallest(np.where(known, hashes, _LAST), past)
    rows, places = (old >= 0).nonzero()
    hashes[rows, old[rows, places]] = _LAST
    both = np.concatenate([old, _smallest(hashes, count)], 1)
    order = np.argsort(both < 0, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(both, order, 1)


def _smallest(hashes: np.ndarray, count: int) -> np.ndarray:
    """Return the columns of the smallest hashes of each row, in order; -1 fills up."""
    least = min(count, hashes.shape[1])
    columns = np.argpartition(hashes, least - 1, axis=1)[:, :least]
    chosen = np.take_along_axis(hashes, columns, 1)
    order = np.argsort(chosen, axis=1)
    columns = np.take_along_axis(columns, order, 1)
    columns[np.take_along_axis(chosen, order, 1) == _LAST] = -1
    return np.pad(columns, ((0, 0), (0, count - least)), constant_values=-1)


def pair_negatives(events: Events, part: range) -> Int[Tensor, " n"]:
    """Fix the one destination that stands against each event of a part for AP and AUC."""
    destinations = np.unique(events.dst.numpy())
    inside = np.arange(part.start, part.stop)
    place = (_event_keys(PAIR_SEED, inside) % np.uint64(len(destinations))).astype(np.int64)
    equal = destinations[place] == events.dst.numpy()[inside]
    return torch.from_numpy(destinations[(place + equal) % len(destinations)])
