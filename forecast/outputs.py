"""Where results go: looked at before any work is done, and never a place that is read from.

Every command that writes a file or a folder asks here first.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from forecast.errors import DataError, NotFoundError, UsageError, from_system

_SHOWN = 200


def check_file(
    path: str | Path, inputs: Iterable[str | Path | None] = (), *, option: str = "--out"
) -> Path:
    """Refuse a file that cannot be written, or that is one of the inputs.

    Args:
        path: the file; it need not exist.
        inputs: files, folders and patterns that are read; what is no path is passed over.
        option: names the file in messages.

    Raises:
        UsageError: it is an input, a folder or a device.
        NotFoundError: the folder to write into is not there.
        DataError: nothing can be written there.
    """
    path = Path(path)
    refuse_input(path, inputs, option=option)
    try:
        if path.is_dir():
            raise UsageError(
                f"{option} names the folder {path}, and a file is to be written.",
                hint=f"Name a file in it: {option} {path / 'NAME'}",
            )
        if path.exists() and not path.is_file():
            raise UsageError(
                f"{option} names {path}, which is a device or a pipe and no file.",
                hint="Name a file; standard output takes what no option names a place for.",
            )
        # A link that leads nowhere is written through: its target is what is made.
        target = Path(os.path.realpath(path))
        if not target.parent.is_dir():
            raise NotFoundError(
                f"There is no folder {_shown(target.parent)} to write {_shown(path.name)} into.",
                hint=f"Make it first: mkdir -p {_shown(target.parent)}",
            )
        # The name too may be one that the file system does not take.
        _try_name(target)
        _try_to_write(target.parent, path)
    except OSError as error:
        raise _refused(error, path) from error
    return path


def check_folder(
    path: str | Path, inputs: Iterable[str | Path | None] = (), *, option: str = "--out"
) -> Path:
    """Refuse a folder that cannot be made or written into, or that holds an input or lies in one.

    The folder is not made yet; its parents need not exist either.

    Raises:
        UsageError: it is an input, or something else than a folder.
        DataError: nothing can be written there.
    """
    path = Path(path)
    refuse_input(path, inputs, option=option)
    try:
        if path.exists() and not path.is_dir():
            raise UsageError(
                f"{option} names {path}, and that is no folder.", hint="Name another place."
            )
        there = path.absolute()
        while not there.exists():
            _try_name(there)
            there = there.parent
        if not there.is_dir():
            raise NotADirectoryError(20, "", str(there))
        _try_to_write(there, path)
    except OSError as error:
        raise _refused(error, path) from error
    return path


def destinations(sources: Sequence[str], out: Path | None, suffix: str | None = None) -> list[Path]:
    """Return where the forecast of each input goes, looked at; a folder is made if need be.

    Args:
        sources: the inputs, - for standard input.
        out: a file for one input, or a folder.
        suffix: how the files of a folder end; None takes the names of the inputs.

    Returns:
        A place for each input; none at all means standard output.

    Raises:
        UsageError: several inputs and no folder, or two of them with one name.
        NotFoundError: the folder to write into is not there.
        DataError: nothing can be written there.
    """
    if out is None:
        if len(sources) > 1:
            raise UsageError(
                f"{len(sources)} inputs have {len(sources)} forecasts.",
                hint="Name a folder for them: --out forecasts/",
            )
        return []
    if not is_folder(out):
        if len(sources) > 1:
            raise UsageError(
                f"{len(sources)} inputs cannot go into the one file {out}.",
                hint="Name a folder, without a suffix: --out forecasts/",
            )
        return [check_file(out, sources)]
    check_folder(out)
    names = [Path(source).name if source != "-" else "stdin.csv" for source in sources]
    if suffix:
        names = [str(Path(name).with_suffix(suffix)) for name in names]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(
            f"Two inputs are called {twice}; their forecasts would overwrite each other.",
            hint="Forecast them into different folders.",
        )
    places = [out / name for name in names]
    for place in places:
        refuse_input(place, sources)
    out.mkdir(parents=True, exist_ok=True)
    return places


def is_folder(out: Path) -> bool:
    """Whether an output is a folder: one that is there, or a name without a suffix.

    How many inputs there are, which a pattern decides, has no part in it.
    """
    return out.is_dir() if out.exists() else not out.suffix


def refuse_input(
    path: str | Path, inputs: Iterable[str | Path | None], *, option: str = "--out"
) -> None:
    """Refuse to write over what is read: the same file by any name or link, or a folder round it.

    Raises:
        UsageError: the place is an input, holds one, or lies in a folder that is one.
    """
    target = Path(os.path.realpath(path))
    for given in inputs:
        source = _local(given)
        if source is None:
            continue
        there = Path(os.path.realpath(source))
        same = target == there or _same(target, there)
        # A folder that becomes the output is replaced with all that it holds.
        if same or (there.is_dir() and there in target.parents):
            raise UsageError(
                f"The output {path} would overwrite the input {given}.",
                hint=f"Name another place: {option}",
            )


def to_stdout(content: bytes) -> None:
    """Write a result to standard output, all of it and at once.

    Raises:
        BrokenPipeError: nobody reads on.
        DataError: it takes no more, as on a full disk.
    """
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise from_system(error, "standard output") or error from error


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _local(given: str | Path | None) -> Path | None:
    """Take an input for a path; None for standard input, an address, and what is not there."""
    if given is None or str(given) == "-" or "://" in str(given):
        return None
    try:
        return Path(given) if Path(given).exists() else None
    except (OSError, ValueError):
        return None


def _try_name(path: Path) -> None:
    try:
        path.lstat()
    except FileNotFoundError:
        return


def _try_to_write(folder: Path, path: Path) -> None:
    with tempfile.TemporaryFile(dir=folder):
        pass


def _refused(error: OSError, path: Path) -> DataError:
    fault = from_system(error, path)
    reason = fault.message.partition(": ")[2] if fault else str(error)
    return DataError(
        f"Nothing can be written there. {reason}",
        file=_shown(path),
        hint=fault.hint if fault else "Name another place.",
    )


def _shown(path: Path | str) -> str:
    text = str(path)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
