"""The commented recipe that `forecast init` writes for a file."""

from __future__ import annotations

import json
import os
from dataclasses import fields

from forecast.grids.reading import Grid
from forecast.recipe import Recipe, TrainSection
from forecast.series.calendar import season_length
from forecast.tables.reading import Table


def write_recipe(recipe: Recipe, table: Table) -> str:
    """Write a recipe with what was found in the table, and what one may want to change.

    Args:
        recipe: what was asked for.
        table: the file, read.

    Returns:
        TOML text that `recipe.load` reads back.
    """
    season = recipe.table.season or season_length(table.frequency)
    horizon = recipe.window.horizon or season
    lookback = recipe.window.lookback or 4 * season
    series = len(table.ids)
    rows = len(table.times)
    layout = table.layout
    what = f"{rows:,} rows" if series == 1 else f"{rows:,} rows in {series:,} series"
    lines = [
        f"# {what}, one every {table.frequency}, {_time(table, 0)} to {_time(table, -1)}.",
        "# Any line that starts with a # may be switched on; see `forecast train --help`.",
        "",
        "[data]",
        # A recipe's paths are meant from where the recipe lies; this one is right from anywhere.
        f"source = {_text(os.path.abspath(recipe.table.source))}",
        f"time = {_text(layout.time)}",
        f"target = {json.dumps(list(layout.values), ensure_ascii=False)}",
    ]
    if layout.kind == "long":
        lines += [
            f"id = {_text(layout.id or 'unique_id')}",
            "# joint = true           # forecast the series together, as variates of one",
        ]
    lines += [
        '# past_covariates = ["x"]  # columns that help, known up to now',
        '# known_future = ["x"]     # columns that help, known in advance',
        '# holidays = "DE"          # public holidays: a country, or a part of one such as DE-BY',
    ]
    stated = ("date_format", "timezone", "fill")
    for name in stated:
        value = getattr(recipe.table, name)
        if value not in (None, "none"):
            lines.append(f"{name} = {_text(value)}")
    lines += [
        f"frequency = {_text(table.frequency)}",
        f"season = {season}              # rows in one season",
        "split = [0.7, 0.1, 0.2]  # train, validation, test, in time order; rows or fractions",
        '# fill = "linear"         # missing cells: none (masked), hold, linear, refuse',
        *_rest(recipe, lookback, horizon, "rows"),
    ]
    return "\n".join(lines)


def write_grid_recipe(recipe: Recipe, grid: Grid) -> str:
    """Write a recipe with what was found in gridded files, and what one may want to change.

    Args:
        recipe: what was asked for.
        grid: the files' headers, read.

    Returns:
        TOML text that `recipe.load` reads back.
    """
    header, clock, count = grid.header, grid.clock, len(grid.times)
    rows, columns = header.mesh.shape
    when = f", one every {clock.frequency}, {grid.times[0]} to {grid.times[-1]}"
    found = [f"{one.name} [{one.units}]" if one.units else one.name for one in header.channels]
    source = recipe.grid.source
    paths = [os.path.abspath(one) for one in ([source] if isinstance(source, str) else source)]
    variables = list(dict.fromkeys(one.variable for one in header.channels))
    lookback = recipe.window.lookback or 12
    lines = [
        f"# {count:,} frames of {rows} x {columns} cells{when if clock.dated else ''}.",
        f"# Fields: {', '.join(found)}.",
        "# Any line that starts with a # may be switched on; see `forecast train --help`.",
        "",
        "[data]",
        f"source = {json.dumps(paths[0] if len(paths) == 1 else paths, ensure_ascii=False)}",
    ]
    if header.format in ("netcdf", "zarr"):
        lines.append(f"variables = {json.dumps(variables, ensure_ascii=False)}")
    lines += [
        "# latitude = [50.0, 58.0]  # a region; longitude likewise, or rows and columns by number",
        "split = [0.7, 0.1, 0.2]    # train, validation, test, in time order; or two dates",
        '# scaling = "cell"         # by the mean of each cell; standard: of each field',
        '# gaps = "split"           # missing frames: refuse, or let windows end there',
        '# references = ["day"]     # simple forecasts to bring along; else as the data support',
        "# counts = true            # whole numbers from 0 on, scaled by the largest",
        *_rest(recipe, lookback, recipe.window.horizon or lookback, "frames"),
    ]
    return "\n".join(lines)


def _rest(recipe: Recipe, lookback: int, horizon: int, what: str) -> list[str]:
    """Write the sections that all kinds of data have."""
    lines = [
        "",
        "[window]",
        f"lookback = {lookback}           # past {what} the model sees",
        f"horizon = {horizon}            # {what} to forecast",
        "",
        "[model]",
        f"name = {_text(recipe.model)}     # others: forecast models list",
    ]
    for field in fields(recipe.model_config):
        value = getattr(recipe.model_config, field.name)
        if field.name == "quantiles" and not value:
            lines.append("# quantiles = [0.05, 0.5, 0.95]  # instead of one value, see --level too")
        elif value is not None:
            lines.append(f"{field.name} = {json.dumps(value)}")
    lines += ["", "[train]"]
    shown = ("epochs", "batch_size", "learning_rate", "schedule", "patience", "precision", "seed")
    lines += [f"{name} = {json.dumps(getattr(recipe.train, name))}" for name in shown]
    others = [field.name for field in fields(TrainSection) if field.name not in shown]
    lines += [f"# {name} = {json.dumps(getattr(recipe.train, name))}" for name in others]
    return [
        *lines,
        "",
        "[tracking]",
        'experiment = "forecast"',
        '# register = "my-model"   # name in the registry',
        '# alias = "champion"',
        "",
    ]


def _time(table: Table, place: int) -> str:
    return str(table.times[place]).replace("T", " ").removesuffix(".000000")


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
