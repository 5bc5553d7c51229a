"""Tables of the program that installed packages add rows to, through entry points.

The names of added rows come from the metadata of the packages; a row is imported when it is asked
for, and never for being listed. A row that cannot be used is an error of its own name alone.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from forecast.errors import ForecastError, NotFoundError, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Row = TypeVar("Row")
# What becomes part of file names, recipes and addresses of the registry.
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class Registry(MutableMapping[str, Row], Generic[Row]):
    """Rows by name: those of this program, then those that installed packages add.

    Names, length and membership import nothing. Looking a row of a package up imports it.

    Args:
        rows: the rows of this program; the table writes to the same dict.
        group: the entry points that add rows.
        called: what a row is, for messages: `model`.
        fault: what is wrong with a row that came from a package, a clause; empty for nothing.
    """

    def __init__(
        self,
        rows: dict[str, Row],
        *,
        group: str,
        called: str,
        fault: Callable[[str, object], str],
    ) -> None:
        self._rows, self._group, self._called, self._fault = rows, group, called, fault
        self._points: dict[str, list[EntryPoint]] | None = None
        self._imported: dict[str, Row] = {}

    def __getitem__(self, name: str) -> Row:
        """Row of that name.

        Raises:
            KeyError: there is none.
            NotFoundError: a package adds it, and it cannot be imported.
            UsageError: several packages add it, or it is no row of this table.
        """
        points = self._added().get(name, [])
        if name in self._rows or not points:
            return self._rows[name]
        if name not in self._imported:
            self._imported[name] = self._import(name, points)
        return self._imported[name]

    def __setitem__(self, name: str, row: Row) -> None:
        self._rows[name] = row

    def __delitem__(self, name: str) -> None:
        del self._rows[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._rows
        yield from (name for name in self._added() if name not in self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows or name in self._added()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def usable(self) -> Iterator[tuple[str, Row]]:
        """Names and rows, without those that cannot be used, of which a warning tells.

        What concerns other rows goes on, whatever is wrong with one.
        """
        for name in self:
            try:
                row = self[name]
            except ForecastError as error:
                warnings.warn(str(error).replace("\n", " "), stacklevel=2)
            else:
                yield name, row

    @property
    def own(self) -> Mapping[str, Row]:
        """Rows of this program alone."""
        return self._rows

    def added(self) -> list[tuple[str, str, str]]:
        """Names that packages add, each with the package and its version; nothing is imported."""
        return [
            (name, *_package(point)) for name, points in self._added().items() for point in points
        ]

    def refresh(self) -> None:
        """Look again which packages are installed."""
        self._points = None
        self._imported.clear()

    def _added(self) -> dict[str, list[EntryPoint]]:
        """Entry points by name, read once; names that are refused are told of and left out."""
        if self._points is not None:
            return self._points
        from importlib.metadata import entry_points  # noqa: PLC0415 - it costs most of the table

        try:
            points = entry_points(group=self._group)
        except Exception as error:  # noqa: BLE001 - the metadata of any package may be damaged
            warnings.warn(
                f"The entry points of the installed packages cannot be read ({_reason(error)}): "
                f"no {self._called} of a package is known.",
                stacklevel=3,
            )
            points = ()
        found: dict[str, list[EntryPoint]] = {}
        for point in points:
            refused = ""
            if point.name in self._rows:
                refused = "a name that is taken: the one of this program stands"
            elif not _NAME.fullmatch(point.name):
                refused = "no name of lower-case letters, digits and single hyphens: it is left out"
            if refused:
                package, _ = _package(point)
                warnings.warn(
                    f"The package {package} adds a {self._called} called {point.name!r}, "
                    f"{refused}.",
                    stacklevel=3,
                )
                continue
            found.setdefault(point.name, []).append(point)
        self._points = found
        return found

    def _import(self, name: str, points: list[EntryPoint]) -> Row:
        if len(points) > 1:
            raise UsageError(
                f"Several packages add a {self._called} called {name!r}: "
                f"{' and '.join(_package(point)[0] for point in points)}.",
                hint="Uninstall all but one of them.",
            )
        (point,) = points
        stated = f"The {self._called} {name!r} of the package {' '.join(_package(point))}"
        try:
            row: Any = point.load()
        except Exception as error:  # code of others: whatever it raises is told in a sentence
            raise NotFoundError(
                f"{stated} cannot be imported from {point.value}: {_reason(error)}.",
                hint="Install the package again, or uninstall it.",
            ) from error
        if fault := self._fault(name, row):
            raise UsageError(
                f"{stated} cannot be used: {point.value} {fault}.",
                hint="Mend the package, or uninstall it.",
            )
        return row


def attribute(module: str, name: str, wanted: str) -> Any:
    """Import what a row names.

    Args:
        module: the module.
        name: the attribute in it.
        wanted: what it is for, for the message.

    Raises:
        NotFoundError: it cannot be imported.
    """
    try:
        return getattr(importlib.import_module(module), name)
    except ForecastError:
        raise
    except Exception as error:  # code of others: whatever it raises is told in a sentence
        raise NotFoundError(
            f"{wanted} cannot be imported from {module}:{name}: {_reason(error)}.",
            hint="Install the package that it comes from again.",
        ) from error


def _package(point: EntryPoint) -> tuple[str, str]:
    """Name and version of the package that an entry point is of."""
    return (point.dist.name, point.dist.version) if point.dist else ("without a name", "")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
