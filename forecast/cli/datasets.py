"""`forecast datasets`: list, show, fetch and verify the known data sets."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forecast.cli import console
from forecast.cli.options import AsJson
from forecast.errors import DataError, NotFoundError

if TYPE_CHECKING:
    from forecast.catalogue import Known
    from forecast.catalogue.files import KnownFile, Progress

app = typer.Typer(help="List, show, fetch and verify the known data sets.", no_args_is_help=True)


def _complete(incomplete: str) -> list[str]:
    from forecast.catalogue import DATASETS

    return [name for name in DATASETS if name.startswith(incomplete)]


# What rows and variates are called of each kind of data.
_WORDS = {
    "series": ("rows", "variates"),
    "grid": ("frames", "fields"),
    "graph": ("events", "forecast"),
}
Name = Annotated[str, typer.Argument(help="A name from the list.", autocompletion=_complete)]
Names = Annotated[list[str], typer.Argument(help="Names from the list.", autocompletion=_complete)]


@app.command("list")
def list_datasets(as_json: AsJson = False) -> None:
    """List the data sets, and whether their files are on this machine.

    Example: forecast datasets list
    """
    from forecast import paths
    from forecast.catalogue import DATASETS

    if as_json:
        console.document([_facts(known) for _, known in DATASETS.usable()])
        return
    console.table(
        ("name", "rows", "variates", "step", "bytes", "files", "title"),
        [
            (
                known.name,
                f"{known.rows:,}",
                str(len(known.variates)),
                known.frequency,
                f"{sum(file.size for file in known.files):,}",
                "here" if _is_here(known) else "absent",
                known.title,
            )
            for _, known in DATASETS.usable()
        ],
        right=(1, 2, 4),
    )
    console.notice(f"Data root: {paths.data_root()}")


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show what is known of one data set: shape, split, licence, files, whom to cite.

    Example: forecast datasets show etth1
    """
    from forecast import paths
    from forecast.catalogue import Dataset, GridDataset, dataset

    known = dataset(name)
    if as_json:
        console.document(_facts(known))
        return
    what, every = _WORDS[known.kind]
    lines = [
        (what, f"{known.rows:,}" + (f", one every {known.frequency}" if known.frequency else "")),
        (every, ", ".join(known.variates)),
        ("target", known.target),
        ("season", f"{known.season} {what}"),
    ]
    if isinstance(known, Dataset):
        train_end, val_end, test_end = known.split.borders(known.rows)
        lines += [
            ("train", f"rows 0 to {train_end:,}"),
            ("validation", f"rows {train_end:,} to {val_end:,}"),
            ("test", f"rows {val_end:,} to {test_end:,}"),
        ]
    read = ", ".join(f"{key}={value}" for key, value in known.options.items())
    lines.append(("read with", read))
    if isinstance(known, GridDataset) and not known.files:
        root = paths.data_root()
        lines += [("looked for", str(root / pattern)) for pattern in known.patterns]
        lines.append(("lies at", "here" if _is_here(known) else known.missing))
    for file in known.files:
        lines += [
            ("file", f"{file.path}, {file.size:,} bytes"),
            ("sha256", file.sha256),
            ("address", ", ".join(file.urls) or (_ships_with(file) or "none")),
            ("lies at", _location(file) or f"absent: forecast datasets fetch {known.name}"),
        ]
    lines += [("licence", known.licence), ("cite", known.citation), ("source", known.source)]
    facts = "\n".join(f"{label:<12}{value}" for label, value in lines)
    console.answer(f"{known.name}: {known.title}\n\n{known.description}\n\n{facts}")


@app.command()
def fetch(
    names: Names,
    mirror: Annotated[
        str | None,
        typer.Option(metavar="PLACE", help="A folder or address to ask instead of the official."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Put the files here, not in the root.")
    ] = None,
) -> None:
    """Download data sets, or copy them from a mirror; print where each file lies.

    Every file is verified before it gets its name; a broken download goes on where it stopped.

    Examples: forecast datasets fetch etth1 ettm1
    or forecast datasets fetch exchange --mirror /media/stick
    """
    from forecast.catalogue import GridDataset, dataset, files

    for known in [dataset(name) for name in names]:
        if isinstance(known, GridDataset) and not known.files:
            # Says where they come from, if they are not there.
            for path in known.paths():
                console.answer(str(path))
        for file in known.files:
            with _progress(file) as progress:
                path = files.fetch(file, mirror=mirror, root=to, progress=progress)
            console.answer(str(path))


@app.command()
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names from the list; all by default.", autocompletion=_complete),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check files against the published sha256.

    Exit code 3: a file differs. Exit code 4: a data set named here is absent.

    Example: forecast datasets verify etth1
    """
    from forecast.catalogue import DATASETS, dataset, files

    results: list[dict[str, str | None]] = []
    wanted = [dataset(name) for name in names] if names else [row for _, row in DATASETS.usable()]
    for known in wanted:
        for file in known.files:
            path = files.find(file)
            digest = None if path is None else files.sha256_of(path)
            results.append(
                {
                    "dataset": known.name,
                    "state": {None: "absent", file.sha256: "ok"}.get(digest, "differs"),
                    "sha256": digest,
                    "published": file.sha256,
                    "path": None if path is None else str(path),
                }
            )
    if as_json:
        console.document(results)
    else:
        header = ("dataset", "state", "sha256", "path")
        console.table(header, [[row[key] or "-" for key in header] for row in results])
    if differing := [row for row in results if row["state"] == "differs"]:
        raise DataError(
            "\n".join(
                f"{row['path']} has sha256 {row['sha256']}, the published file {row['published']}."
                for row in differing
            ),
            hint=f"Get the published file: {_fetching(differing)}",
        )
    if names and (absent := [row for row in results if row["state"] == "absent"]):
        raise NotFoundError(
            f"Not on this machine: {', '.join(str(row['dataset']) for row in absent)}.",
            hint=f"Get them: {_fetching(absent)}",
        )


def _fetching(results: Sequence[Mapping[str, str | None]]) -> str:
    return " ".join(("forecast datasets fetch", *(str(row["dataset"]) for row in results)))


def _ships_with(file: KnownFile) -> str:
    return (
        f"package {file.packaged}"
        if isinstance(file.packaged, str)
        else ("this package" if file.packaged else "")
    )


def _location(file: KnownFile) -> str | None:
    from forecast.catalogue import files

    path = files.find(file)
    return None if path is None else str(path)


def _is_here(known: Known) -> bool:
    from forecast.catalogue import GridDataset

    if isinstance(known, GridDataset) and not known.files:
        try:
            return bool(known.paths())
        except NotFoundError:
            return False
    return all(_location(file) for file in known.files)


def _facts(known: Known) -> dict[str, Any]:
    """Return a data set as one JSON object."""
    from forecast.catalogue import Dataset

    facts = dataclasses.asdict(known)
    if isinstance(known, Dataset):
        facts["split"]["borders"] = known.split.borders(known.rows)
    else:
        facts["here"] = _is_here(known)
    for file, stated in zip(known.files, facts["files"], strict=True):
        stated["location"] = _location(file)
    return facts


@contextmanager
def _progress(file: KnownFile) -> Generator[Progress | None]:
    """Draw a bar on stderr while bytes come in, if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(file.name, total=file.size)
        yield lambda done, total: bar.update(task, completed=done, total=total)
