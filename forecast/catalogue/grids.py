"""Known gridded data sets: what is published about each, and where its files are looked for."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from forecast.catalogue import files
from forecast.catalogue.files import KnownFile
from forecast.errors import NotFoundError
from forecast.paths import data_root

GRID_SUFFIXES = (".nc", ".nc4", ".cdf", ".h5", ".hdf5", ".npz", ".npy", ".zip", ".zarr")


@dataclass(frozen=True, kw_only=True, slots=True)
class GridDataset:
    """State what is published about one gridded data set, as `Dataset` does for tables.

    Attributes:
        name: what commands and recipes call it.
        title: one line for people.
        kind: the kind of data.
        description: what was measured, in a sentence or two.
        files: its files, where they are known bit for bit.
        patterns: where else they lie under the data root: a pattern for each variable.
        missing: what to say when they do not.
        options: how to read and divide them, by the field names of `GridSection`.
        rows: frames of the whole set.
        variates: the fields of a frame.
        target: the field most readers come for.
        frequency: the step between frames as a pandas offset alias.
        season: frames in a day, or in a year of months.
        lookback: past frames a model sees unless told otherwise.
        horizon: frames to forecast unless told otherwise.
        licence: the licence's short name and what it asks for.
        citation: whom to cite.
        source: the publisher's page.
    """

    name: str
    title: str
    kind: Literal["grid"] = "grid"
    description: str
    files: tuple[KnownFile, ...] = ()
    patterns: tuple[str, ...] = ()
    missing: str = ""
    options: Mapping[str, Any]
    rows: int
    variates: tuple[str, ...]
    target: str
    frequency: str
    season: int
    lookback: int
    horizon: int
    licence: str
    citation: str
    source: str

    def paths(self) -> list[Path]:
        """Find its files.

        Raises:
            NotFoundError: they are not there; says where they come from.
            DataError: a known file's content differs from the published one.
        """
        if self.files:
            return [files.locate(file) for file in self.files]
        try:
            return locate(self.patterns)
        except NotFoundError as error:
            raise NotFoundError(
                f"{self.name} is not on this machine; looked for "
                + " and ".join(str(data_root() / pattern) for pattern in self.patterns)
                + f".\n{self.missing}",
                hint="Put the files there, or name your own: --set data.source='folder/*'",
            ) from error


def locate(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """Give the files that a path, a folder, a pattern or several of them stand for.

    Raises:
        NotFoundError: there are none.
    """
    if not isinstance(source, str | Path):
        return [path for one in source for path in locate(one)]
    text = str(source)
    # A relative path is meant from here, or else from the data root.
    for base in (Path(), data_root()):
        path = base / Path(text).expanduser()
        if path.is_file() or any((path / mark).exists() for mark in (".zgroup", "zarr.json")):
            return [path]
        if path.is_dir():
            found = [one for one in path.iterdir() if one.suffix in GRID_SUFFIXES]
        else:
            found = [Path(name) for name in glob.glob(str(path))] if glob.has_magic(text) else []
        if found:
            return sorted(one for one in found if not one.name.startswith("."))
    raise NotFoundError(
        f"There are no gridded files at {text!r}; looked from here and from {data_root()}.",
        hint="Give a file, a folder or a pattern in quotes, such as 't2m/*.nc'.",
    )
