"""Which files a command reads and writes."""

from __future__ import annotations

import glob
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from forecast.errors import NotFoundError, UsageError

STDIN = "-"


def expand(inputs: Sequence[str]) -> list[str]:
    """Turn names of data sets and patterns into files, in order, each file once.

    Raises:
        NotFoundError: a pattern matches nothing.
        UsageError: standard input is named twice.
    """
    from forecast.catalogue import DATASETS
    from forecast.catalogue.files import locate

    found: list[str] = []
    for text in inputs:
        known = DATASETS.get(text)
        if known and known.kind == "series":
            found.append(str(locate(known.files[0])))
            continue
        if text == STDIN or "://" in text or Path(text).exists() or not glob.has_magic(text):
            found.append(text)
            continue
        matches = sorted(glob.glob(text, recursive=True))
        if not matches:
            raise NotFoundError(
                f"No file matches {text!r}.", hint="Check the folder and the pattern."
            )
        found += matches
    if found.count(STDIN) > 1:
        raise UsageError("Standard input can be read once only.", hint="Name - once.")
    return list(dict.fromkeys(found))


def destinations(sources: Sequence[str], out: Path | None, as_json: bool) -> list[Path | None]:
    """Say where the forecast of each input goes; None is standard output.

    Raises:
        UsageError: several inputs and no folder, JSON and CSV both to standard output, or an
            unknown suffix.
        NotFoundError: the folder to write into is not there.
    """
    if out is None:
        if as_json:
            raise UsageError(
                "--json prints one document to standard output, where the forecast would go too.",
                hint="Say where the forecast goes: --out forecast.csv",
            )
        if len(sources) > 1:
            raise UsageError(
                f"{len(sources)} inputs have {len(sources)} forecasts.",
                hint="Name a folder for them: --out forecasts/",
            )
        return [None]
    folder = out.is_dir() or str(out).endswith("/") or (len(sources) > 1 and not out.suffix)
    if not folder:
        if len(sources) > 1:
            raise UsageError(
                f"{len(sources)} inputs cannot go into the one file {out}.",
                hint="Name a folder: --out forecasts/",
            )
        if not out.parent.is_dir():
            raise NotFoundError(
                f"There is no folder {out.parent} to write {out.name} into.",
                hint=f"Make it first: mkdir -p {out.parent}",
            )
        refuse_overwriting(sources, out)
        return [out]
    out.mkdir(parents=True, exist_ok=True)
    names = [Path(source).name if source != STDIN else "stdin.csv" for source in sources]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(
            f"Two inputs are called {twice}; their forecasts would overwrite each other.",
            hint="Forecast them into different folders.",
        )
    same = [
        source
        for source, name in zip(sources, names, strict=True)
        if source != STDIN and (out / name).resolve() == Path(source).resolve()
    ]
    if same:
        raise UsageError(
            f"The forecast of {same[0]} would overwrite it.", hint="Name another folder."
        )
    return [out / name for name in names]


def refuse_overwriting(sources: Sequence[str], out: Path) -> None:
    """Refuse to write a forecast over the history it is made from.

    Raises:
        UsageError: a source is the very file to write.
    """
    same = [one for one in sources if one != STDIN and Path(one).resolve() == out.resolve()]
    if same:
        raise UsageError(
            f"The forecast of {same[0]} would overwrite it.", hint="Name another file: --out"
        )


def required(out: Path | None) -> Path:
    """Refuse to write to standard output what comes in parts.

    Raises:
        UsageError: no output is named.
    """
    if out is None:
        raise UsageError(
            "A table that is read in pieces is forecast in parts, and they need a place.",
            hint="Name a file or a folder: --out forecasts/",
        )
    return out


def stream(source: str) -> Path | BinaryIO:
    """Open standard input; a path stays a path."""
    return sys.stdin.buffer if source == STDIN else Path(source)


def label(source: str) -> str:
    """Name an input in messages."""
    return "standard input" if source == STDIN else source
