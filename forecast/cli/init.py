"""`forecast init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forecast.cli import console, options
from forecast.cli.options import DateFormat, Fill, Horizon, Id, Lookback, Target, Time, Timezone


def init(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="The CSV or Parquet file to forecast.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="RECIPE", help="By default FILE's name with .toml."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Model.", autocompletion=options.model_names)
    ] = "itransformer",
    lookback: Lookback = None,
    horizon: Horizon = None,
    column: Target = None,
    time: Time = None,
    series: Id = None,
    date_format: DateFormat = None,
    timezone: Timezone = None,
    fill: Fill = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the recipe.")] = False,
) -> None:
    """Look at a file and write a commented recipe for it, ready for `forecast train`.

    Example: forecast init sales.csv --horizon 28
    """
    from forecast import atomic, recipe
    from forecast.data import loading
    from forecast.errors import UsageError
    from forecast.starter import write_recipe

    stem = Path(file).name.partition(".")[0] or "recipe"
    place = out or Path(f"{stem}.toml")
    if place.exists() and not force:
        raise UsageError(
            f"{place} is there already.", hint="Add --force to overwrite it, or --out OTHER.toml."
        )
    resolved = recipe.load(
        file,
        model=model,
        lookback=lookback,
        horizon=horizon,
        data=options.reading(
            target=column,
            time=time,
            series=series,
            date_format=date_format,
            timezone=timezone,
            fill=fill,
        ),
    )
    table = loading.read(resolved.data.source, resolved.data)
    for text in table.notices:
        console.notice(text)
    atomic.write_bytes(place, write_recipe(resolved, table).encode())
    console.answer(f"{place} written. Train with:\n\n  forecast train {place}")
