"""What an artefact keeps of the graph that a model was trained on.

Later files must agree with it, and they are read by its options.

Letters: F features of an event, N nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from forecast.documents import from_plain, to_plain

_NAME = "The artefact's description of its graph"


@dataclass(frozen=True, kw_only=True, slots=True)
class EventOptions:
    """How events are read and asked about; the fields are those of `GraphSection`."""

    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    unit: float = 1.0
    queries: int = 200
    longest: float | None = None
    period: float = 0.0
    averaged: int = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class EventHeader:
    """A graph of events.

    Attributes:
        task: what is asked.
        dated: times were given as dates.
        ids: ids of nodes with features, in the order of these; empty without.
        features: F names.
        last: the time of the last event.
        options: how events are read.
    """

    task: Literal["link", "affinity"]
    dated: bool
    ids: tuple[str | int, ...]
    features: tuple[str, ...]
    last: float
    options: EventOptions

    def to_dict(self) -> dict[str, Any]:
        """Lay it out as plain values, as `header_of` reads them."""
        return to_plain(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueOptions:
    """How values of nodes are read and compared; the fields are those of `GraphSection`."""

    season: int = 1
    averaged: int = 7
    zero_is_missing: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueHeader:
    """Values of nodes, step by step.

    Attributes:
        task: what is asked.
        ids: N ids, in the order of the model.
        logarithm: values are scaled by their logarithm.
        steps: steps of the training data.
        options: how values are read.
    """

    task: Literal["node", "sensor"]
    ids: tuple[str, ...]
    logarithm: bool
    steps: int
    options: ValueOptions

    def to_dict(self) -> dict[str, Any]:
        """Lay it out as plain values, as `header_of` reads them."""
        return to_plain(self)


GraphHeader = EventHeader | ValueHeader
_KINDS: dict[str, type[EventHeader] | type[ValueHeader]] = {
    "link": EventHeader,
    "affinity": EventHeader,
    "node": ValueHeader,
    "sensor": ValueHeader,
}


def header_of(document: Any) -> GraphHeader:
    """Read it from an artefact's description.

    Raises:
        DataError: a field is missing, or a value has the wrong type.
    """
    task = document.get("task") if isinstance(document, Mapping) else None
    # Of another task, what is said is that the task is none of the known ones.
    kind = _KINDS.get(task, EventHeader) if isinstance(task, str) else EventHeader
    return from_plain(kind, document, name=_NAME)
