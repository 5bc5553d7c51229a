"""Options that several commands share: each is a short name for a field of the recipe."""

from __future__ import annotations

from typing import Annotated

import typer

_READ, _SIZE = "How to read a file", "What to forecast"
_CLUSTER, _GRAPHS = "On a cluster", "On graphs"


def model_names(incomplete: str) -> list[str]:
    """Complete the name of a model."""
    from forecast.models import MODELS

    return [name for name in MODELS if name.startswith(incomplete)]


def sources(incomplete: str) -> list[str]:
    """Complete the name of a data set or of a recipe that comes with the program."""
    from forecast.catalogue import DATASETS

    return [name for name in DATASETS if name.startswith(incomplete)]


Lookback = Annotated[
    int | None,
    typer.Option(min=1, help="Past rows a model sees (window.lookback).", rich_help_panel=_SIZE),
]
Horizon = Annotated[
    int | None,
    typer.Option(min=1, help="Rows to forecast (window.horizon).", rich_help_panel=_SIZE),
]
Level = Annotated[
    list[float] | None,
    typer.Option(
        "--level",
        metavar="PERCENT",
        help="Level of a prediction interval, such as 90; repeatable.",
        rich_help_panel=_SIZE,
    ),
]
Target = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        help="Column to forecast, repeatable; all numeric ones by default (data.target).",
        rich_help_panel=_READ,
    ),
]
Time = Annotated[str | None, typer.Option(help="Time column (data.time).", rich_help_panel=_READ)]
Id = Annotated[
    str | None,
    typer.Option("--id", help="Series column of a long table (data.id).", rich_help_panel=_READ),
]
DateFormat = Annotated[
    str | None,
    typer.Option(
        help="Format of the times, such as %d/%m/%Y (data.date_format).", rich_help_panel=_READ
    ),
]
Timezone = Annotated[
    str | None,
    typer.Option(
        help="Zone of local times, such as Europe/London (data.timezone).", rich_help_panel=_READ
    ),
]
Fill = Annotated[
    str | None,
    typer.Option(
        help="What to do with missing cells and rows: none, hold, linear, refuse (data.fill).",
        rich_help_panel=_READ,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set any field; repeatable."),
]
Trained = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Artefact folder, runs:/ID, models:/NAME/3 or models:/NAME@alias.",
        show_default=False,
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILE...",
        help="CSV or Parquet with the history: files, patterns such as 'in/*.csv', a known "
        "data set, a folder or an address (s3://...) of one long table, or - for standard "
        "input; of grids NetCDF, Zarr, HDF5, npz; of graphs events that go on from those kept "
        "with the model, or none.",
        show_default=False,
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        metavar="PATH",
        help="File to write (.csv, .csv.gz, .parquet; .nc, .zarr), or a folder for several "
        "inputs; CSV on standard output by default.",
    ),
]
History = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Rows before those of the inputs, as many as there are, for a model that carries "
        "a state: it reads them once, and then the inputs.",
        rich_help_panel=_SIZE,
    ),
]
Future = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="What is known in advance of the rows to forecast, where the history does not "
        "hold it in rows behind the last target.",
        rich_help_panel=_READ,
    ),
]
ResumeJob = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on with a killed job: all inputs are one long table, read in pieces."
    ),
]
SafeIds = Annotated[
    bool,
    typer.Option(
        "--safe-ids", help="Put ' before ids that a spreadsheet takes for formulas, in CSV."
    ),
]
Intervals = Annotated[
    str,
    typer.Option(
        metavar="METHOD",
        help="How intervals are calibrated: adaptive, on the misses in the rows of the file "
        "too, or split, on the validation part of the training data alone.",
        rich_help_panel=_SIZE,
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Forecast a long table in Parquet on a cluster: ray or spark (extras of these "
        "names). --out is a new folder.",
        rich_help_panel=_CLUSTER,
    ),
]
Places = Annotated[
    int,
    typer.Option(
        "--places", min=1, help="Places that an engine deals series out to.",
        rich_help_panel=_CLUSTER,
    ),
]  # fmt: skip
At = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="When links are asked for; right after the last event by default.",
        rich_help_panel=_GRAPHS,
    ),
]
Top = Annotated[
    int | None,
    typer.Option(
        "--top-k", min=1, help="Destinations to name for each source; 20 by default.",
        rich_help_panel=_GRAPHS,
    ),
]  # fmt: skip
Ask = Annotated[
    list[str] | None,
    typer.Option(
        "--source", metavar="ID", help="Source to ask about, repeatable; all by default.",
        rich_help_panel=_GRAPHS,
    ),
]  # fmt: skip
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<number>.")]


Edges = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Edges between the sensors that are the columns of FILE, as src, dst, weight (second "
        "of data.source).",
        rich_help_panel=_READ,
    ),
]


def with_edges(file: str, edges: str | None) -> dict[str, object]:
    """Collect readings and edges as one source.

    Raises:
        UsageError: edges are given to what is no file of readings.
    """
    from pathlib import Path

    from forecast.errors import UsageError

    if edges is None:
        return {}
    if not Path(file).is_file() or file.endswith(".toml"):
        raise UsageError(
            f"--edges goes with a file of readings, and {file!r} is none.",
            hint="forecast train readings.csv --edges edges.csv",
        )
    return {"source": [file, edges]}


def reading(
    *,
    target: list[str] | None = None,
    time: str | None = None,
    series: str | None = None,
    date_format: str | None = None,
    timezone: str | None = None,
    fill: str | None = None,
) -> dict[str, object]:
    """Collect those given, by the names of the recipe's fields."""
    given = {
        "target": tuple(target) if target else None,
        "time": time,
        "id": series,
        "date_format": date_format,
        "timezone": timezone,
        "fill": fill,
    }
    return {name: value for name, value in given.items() if value is not None}
