"""`forecast init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forecast.cli import console, options
from forecast.cli.options import (
    DateFormat,
    Edges,
    Fill,
    Horizon,
    Id,
    Lookback,
    Set,
    Target,
    Time,
    Timezone,
)


def init(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="The CSV or Parquet file to forecast, gridded files, or events or values of a "
            "graph.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="RECIPE", help="By default FILE's name with .toml."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model.", autocompletion=options.model_names)
    ] = None,
    lookback: Lookback = None,
    horizon: Horizon = None,
    column: Target = None,
    time: Time = None,
    series: Id = None,
    date_format: DateFormat = None,
    timezone: Timezone = None,
    fill: Fill = None,
    edges: Edges = None,
    settings: Set = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the recipe.")] = False,
) -> None:
    """Look at a file and write a commented recipe for it, ready for `forecast train`.

    Example: forecast init sales.csv --horizon 28
    """
    from forecast import atomic, outputs, recipe
    from forecast.errors import UsageError
    from forecast.grids import data as grids
    from forecast.grids import reading
    from forecast.grids.section import GridSection
    from forecast.runs import recipe_template
    from forecast.series import data as loading
    from forecast.tables import suggest

    name = Path(file).name
    # Of a pattern, the folder it lies in.
    stem = (Path(file).parent.name if "*" in name else name.partition(".")[0]) or "recipe"
    # With its ending the name may not have more than 255 bytes.
    short = stem.encode(errors="surrogateescape")[:240].decode(errors="ignore")
    place = out or Path(f"{short}.toml")
    if place.exists() and not force:
        raise UsageError(
            f"{place} is there already.", hint="Add --force to overwrite it, or --out OTHER.toml."
        )
    outputs.check_file(place, [file])
    resolved = recipe.load(
        file,
        model=model,
        lookback=lookback,
        horizon=horizon,
        settings=settings or (),
        data=options.reading(
            target=column,
            time=time,
            series=series,
            date_format=date_format,
            timezone=timezone,
            fill=fill,
        )
        | options.with_edges(file, edges),
    )
    if isinstance(resolved.data, GridSection):
        grid = reading.read(grids.located(resolved.data.source), resolved.data)
        notices, text = grid.notices, recipe_template.write_grid_recipe(resolved, grid)
    elif not isinstance(resolved.data, recipe.DataSection):
        from forecast.graphs import data as graphs

        notices, found = graphs.described(resolved.data)
        text = recipe_template.write_graph_recipe(resolved, found)
    else:
        found = suggest.suggest(str(loading.locate(resolved.data.source)), resolved.data)
        if found.id is not None:
            console.notice(
                f"The column {found.id!r} tells the series apart, and is taken for their id."
            )
            resolved = resolved.replace(
                "data", id=found.id, target=resolved.data.target or found.target
            )
        table = loading.read(resolved.table.source, resolved.table)
        notices, text = table.notices, recipe_template.write_recipe(resolved, table, found)
    for notice in notices:
        console.notice(notice)
    atomic.write_bytes(place, text.encode())
    console.answer(f"{place} written. Train with:\n\n  forecast train {place}")
