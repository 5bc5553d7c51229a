"""Known gridded data sets: what is published about each, and where its files are looked for."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from forecast.catalogue.dataset import Published
from forecast.errors import NotFoundError
from forecast.paths import data_root

GRID_SUFFIXES = (".nc", ".nc4", ".cdf", ".h5", ".hdf5", ".npz", ".npy", ".zip", ".zarr")


@dataclass(frozen=True, kw_only=True, slots=True)
class GridDataset(Published):
    """A published gridded data set.

    Attributes:
        kind: the kind of data.
        patterns: where its files lie under the data root if they are not known bit for bit: a
            pattern for each variable.
        missing: what to say when they do not.
    """

    kind: Literal["grid"] = "grid"
    patterns: tuple[str, ...] = ()
    missing: str = ""

    def paths(self) -> list[Path]:
        """Find its files.

        Raises:
            NotFoundError: they are not there; says where they come from.
            DataError: a known file's content differs from the published one.
        """
        if self.files:
            return Published.paths(self)
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
    """Return the files that a path, a folder, a pattern or several of them stand for.

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
