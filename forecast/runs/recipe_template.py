"""The commented recipe that `forecast init` writes for a file."""

from __future__ import annotations

import json
import os
from dataclasses import fields

import numpy as np

from forecast.catalogue.dataset import Split
from forecast.graphs.data import Found
from forecast.grids.reading import Grid
from forecast.models import MODELS
from forecast.recipe import DataSection, Recipe, TrainSection
from forecast.series.calendar import season_length
from forecast.series.data import usual_window
from forecast.tables.reading import Table
from forecast.tables.suggest import Suggestions


def write_recipe(recipe: Recipe, table: Table, found: Suggestions | None = None) -> str:
    """Write a recipe with what was found in the table, and what one may want to change.

    Args:
        recipe: what was asked for.
        table: the file, read.
        found: what its other columns may be good for.

    Returns:
        TOML text that `recipe.load` reads back.
    """
    found = found or Suggestions()
    season = recipe.table.season or season_length(table.frequency)
    division = Split(**dict(zip(("train", "val", "test"), recipe.table.split, strict=True)))
    longest = int(np.diff(table.offsets).max())
    usual = usual_window(longest, division, season, recipe.table.gap)
    lookback, horizon = recipe.window.lookback or usual[0], recipe.window.horizon or usual[1]
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
    lines += _covariates(recipe, found, long=layout.kind == "long")
    plain = DataSection()
    stated = (
        "layout", "date_format", "timezone", "fill", "duplicates", "delimiter", "decimal",
        "encoding", "missing",
    )  # fmt: skip
    for name in stated:
        value = getattr(layout if name == "date_format" else recipe.table, name)
        if value != getattr(plain, name):
            lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    lines += [
        f"frequency = {_text(table.frequency)}",
        f"season = {season}              # rows in one season",
        "split = [0.7, 0.1, 0.2]  # train, validation, test, in time order; rows or fractions",
        '# fill = "linear"         # missing cells: none (masked), hold, linear, refuse',
        *_rest(recipe, lookback, horizon, "rows"),
    ]
    return "\n".join(lines)


def _covariates(recipe: Recipe, found: Suggestions, *, long: bool) -> list[str]:
    """Write the columns that may help: on where they are stated, to be switched on where found."""
    lines: list[str] = []
    for name, what in (
        ("static", "the same for all rows of a series"),
        ("categorical", "words that change from row to row"),
        ("past_covariates", "columns that help, known up to now"),
        ("known_future", "columns that help, known in advance"),
    ):
        if name in ("static", "categorical") and not long:
            continue
        stated, proposed = getattr(recipe.table, name), getattr(found, name)
        value = json.dumps(list(stated or proposed or ("x",)), ensure_ascii=False)
        found_here = " (found in this file)" if proposed and not stated else ""
        lines.append(f"{'' if stated else '# '}{name} = {value}  # {what}{found_here}")
    holidays = recipe.table.holidays
    lines.append(
        f"{'' if holidays else '# '}holidays = {_text(holidays or 'DE')}  # public holidays: a "
        "country, or a part of one such as DE-BY"
        + (" (a column of this file is called so)" if found.holidays else "")
    )
    return lines


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
    first, last = clock.text(grid.times[0]), clock.text(grid.times[-1])
    when = f", one every {clock.frequency}, {first} to {last}"
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


def write_graph_recipe(recipe: Recipe, found: Found) -> str:
    """Write a recipe with what was found in the files of a graph, and what one may want to change.

    Args:
        recipe: what was asked for.
        found: what the files hold.

    Returns:
        TOML text that `recipe.load` reads back.
    """
    section, events = found.section, found.section.task in ("link", "affinity")
    source = [section.source] if isinstance(section.source, str) else section.source
    paths = [os.path.abspath(one) for one in source]
    what = (
        f"{found.events:,} events between {found.nodes:,} nodes, {found.first} to {found.last}"
        if events
        else f"{found.steps:,} steps of {found.nodes:,} nodes with {found.edges:,} edges"
    )
    lines = [
        f"# {what}.",
        "# Any line that starts with a # may be switched on; see `forecast train --help`.",
        "",
        "[data]",
        f"source = {json.dumps(paths[0] if len(paths) == 1 else paths, ensure_ascii=False)}",
        f"task = {_text(section.task)}",
        "split = [0.7, 0.15, 0.15]  # train, validation, test, in time order; fractions or counts",
    ]
    if section.columns:
        pairs = ", ".join(f"{key} = {_text(name)}" for key, name in section.columns.items())
        lines.append(f"columns = {{ {pairs} }}")
    if events:
        lines += [
            f"queries = {section.queries}              # events asked about at once",
            f"unit = {json.dumps(section.unit)}                 # seconds in a unit of time",
            '# task = "affinity"         # how a source\'s next events share out; with a period:',
            "# period = 604800           # length of the periods, in units of time",
            '# nodes = "nodes.csv"       # features of nodes by id',
            "# inductive = 0.1           # share of later nodes that training must not meet",
        ]
    else:
        lines += [
            f"season = {section.season}               # steps in a season: 288 of 5 minutes a day",
            f"averaged = {section.averaged}              # steps of the moving average in scores",
            '# scaling = "log"          # counts by their logarithm; standard: as they are',
        ]
    if section.task == "sensor":
        lines.append("# zero_is_missing = false    # a reading of 0 is one")
    lookback = recipe.window.lookback or (4096 if events else 12)
    named = "events" if events else "steps"
    return "\n".join([*lines, *_rest(recipe, lookback, recipe.window.horizon or 1, named)])


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
    # What is the model's own stays switched off, so that the recipe fits every other model too.
    usual = type(recipe.model_config)()
    for field in fields(recipe.model_config):
        value = getattr(recipe.model_config, field.name)
        if field.name == "quantiles" and not value:
            lines.append("# quantiles = [0.05, 0.5, 0.95]  # instead of one value, see --level too")
        elif value is not None:
            off = "# " if value == getattr(usual, field.name) else ""
            lines.append(f"{off}{field.name} = {json.dumps(value)}")
    lines += ["", "[train]"]
    usual = TrainSection(**MODELS[recipe.model].train)
    for field in fields(TrainSection):
        value = getattr(recipe.train, field.name)
        off = "# " if value == getattr(usual, field.name) else ""
        lines.append(f"{off}{field.name} = {json.dumps(value)}")
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
