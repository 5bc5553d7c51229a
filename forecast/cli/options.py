"""Options that several commands share: each is a short name for a field of the recipe."""

from __future__ import annotations

from typing import Annotated

import typer

_READ, _SIZE = "How to read a file", "What to forecast"


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
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<number>.")]


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
