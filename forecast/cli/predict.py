"""`forecast predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forecast.cli import console
from forecast.cli.options import AsJson, DateFormat, Device, Fill, Level, Timezone

if TYPE_CHECKING:
    from forecast.artefact import GraphForecaster, GridForecaster


_CLUSTER, _GRAPHS = "On a cluster", "On graphs"
_TOP = 20
# How the names of forecasts of graphs end.
_FRAMES = (".csv", ".csv.gz", ".parquet")


def predict(
    model: Annotated[
        str,
        typer.Argument(
            help="Artefact folder, runs:/ID, models:/NAME/3 or models:/NAME@alias.",
            show_default=False,
        ),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE...",
            help="CSV or Parquet with the history: files, patterns such as 'in/*.csv', a known "
            "data set, a folder or an address (s3://...) of one long table, or - for standard "
            "input; of grids NetCDF, Zarr, HDF5, npz; of graphs events that go on from those kept "
            "with the model, or none.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="PATH",
            help="File to write (.csv, .csv.gz, .parquet; .nc, .zarr), or a folder for several "
            "inputs; CSV on standard output by default.",
        ),
    ] = None,
    date_format: DateFormat = None,
    timezone: Timezone = None,
    fill: Fill = None,
    history: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Rows before those of the inputs, as many as there are, for a model that carries "
            "a state: it reads them once, and then the inputs.",
            rich_help_panel="What to forecast",
        ),
    ] = None,
    future: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="What is known in advance of the rows to forecast, where the history does not "
            "hold it in rows behind the last target.",
            rich_help_panel="How to read a file",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a killed job: all inputs are one long table, read in pieces.",
        ),
    ] = False,
    safe_ids: Annotated[
        bool,
        typer.Option(
            "--safe-ids", help="Put ' before ids that a spreadsheet takes for formulas, in CSV."
        ),
    ] = False,
    level: Level = None,
    intervals: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="How intervals are calibrated: adaptive, on the misses in the rows of the file "
            "too, or split, on the validation part of the training data alone.",
            rich_help_panel="What to forecast",
        ),
    ] = "adaptive",
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Forecast a long table in Parquet on a cluster: ray or spark (extras of these "
            "names). --out is a new folder.",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    places_apart: Annotated[
        int,
        typer.Option(
            "--places",
            min=1,
            help="Places that an engine deals series out to.",
            rich_help_panel=_CLUSTER,
        ),
    ] = 8,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="When links are asked for; right after the last event by default.",
            rich_help_panel=_GRAPHS,
        ),
    ] = None,
    top: Annotated[
        int,
        typer.Option(
            "--top-k", min=1, help="Destinations to name for each source.", rich_help_panel=_GRAPHS
        ),
    ] = _TOP,
    ask: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            metavar="ID",
            help="Source to ask about, repeatable; all by default.",
            rich_help_panel=_GRAPHS,
        ),
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Forecast the rows that follow the last one of each series.

    The forecast has the columns, units and time format of the input; an interval of 90 % adds
    COLUMN-lo-90 and COLUMN-hi-90. No truth is needed.

    A folder, an address, and a file of more than 256 MiB are read in pieces, if the model is one of
    long tables: memory does not grow with the rows. Series that cannot be forecast are named in
    failed.csv; intervals are those of --intervals split.

    Of grids, all inputs together are one grid if --out is a file; the forecast is written as NetCDF
    or Zarr with CF coordinates and lead_time.

    Examples:

      forecast predict models:/metro-traffic@champion new.csv --out forecast.csv

      forecast predict ./artefact new.csv --level 90 --level 50 --out forecast.csv

      forecast predict ./artefact today.csv --history 2016-to-yesterday.csv

      cat new.csv | forecast predict ./artefact - > forecast.csv

      forecast predict ./artefact 't2m/*.nc' --out forecast.nc

      forecast predict ./artefact events.csv --at 1083000000 --top-k 20 --out links.csv
    """
    from forecast import bulk, prediction
    from forecast.artefact import GraphForecaster, GridForecaster
    from forecast.cli import files, options
    from forecast.data import tables
    from forecast.device import set_threads
    from forecast.errors import PartialError, UsageError, nearest
    from forecast.intervals import METHODS

    if intervals not in METHODS:
        raise UsageError(
            f"Intervals cannot be calibrated by {intervals!r}.", hint=nearest(intervals, METHODS)
        )
    inputs = inputs or []
    if engine is not None:
        _predict_on(engine, model, inputs, files.required(out), level, places_apart, as_json)
        return
    forecaster = prediction.load(model)
    set_threads(forecaster.recipe.train.threads)
    kind = forecaster.spec.kind
    given = {
        "--date-format": date_format,
        "--timezone": timezone,
        "--fill": fill,
        "--future": future,
        "--history": history,
        "--level": level,
        "--resume": resume or None,
        "--safe-ids": safe_ids or None,
        "--at": at,
        "--source": ask,
        "--top-k": None if top == _TOP else top,
    }
    of_graphs = ("--at", "--source", "--top-k")
    for name, value in given.items():
        if value is not None and kind != ("graph" if name in of_graphs else "series"):
            raise UsageError(
                f"{name} is for {'graphs' if name in of_graphs else 'tables'}, and this model "
                f"forecasts {'tables' if kind == 'series' else kind + 's'}.",
                hint=f"Leave {name} out.",
            )
    if isinstance(forecaster, GraphForecaster):
        if device not in ("auto", "cpu"):
            raise UsageError("Forecasts of graphs are made on the CPU.", hint="Leave out --device.")
        _predict_graph(forecaster, model, inputs, out, at, top, ask, as_json)
        return
    if not inputs:
        raise UsageError(
            "No file is named whose rows are to be gone on from.",
            hint="Name one, or - for standard input.",
        )
    if isinstance(forecaster, GridForecaster):
        _predict_grids(forecaster, model, inputs, out, device, as_json)
        return
    sources = files.expand(inputs)
    reading = options.reading(date_format=date_format, timezone=timezone, fill=fill)
    if bulk.is_called_for(forecaster.layout, sources, resume=resume):
        if history is not None:
            raise UsageError(
                "A table that is read in pieces is forecast without --history.",
                hint="Name single files: they are read as a whole.",
            )
        if future is not None:
            raise UsageError(
                "A table that is read in pieces is forecast without --future.",
                hint="Put what is known in advance into rows behind the last target.",
            )
        report = bulk.predict_files(
            forecaster,
            sources,
            files.required(out),
            reading=reading,
            device=device,
            level=level,
            resume=resume,
            safe_ids=safe_ids,
            tell=console.notice,
        )
        for text in report.notices:
            console.notice(text)
        if as_json:
            console.document({"model": model, **report.summary()})
        if report.failed:
            raise PartialError(
                f"{len(report.failed):,} series have no forecast; {report.side_file} says why. The "
                f"first is {report.failed[0].id!r}: {report.failed[0].reason}",
                hint="Everything else was written.",
            )
        return
    places = files.destinations(sources, out, as_json)
    known = earlier = None
    if history is not None:
        earlier = prediction.read_context(forecaster, history, name=history, reading=reading)
    if future is not None:
        known = prediction.read_future(forecaster, future, name=future, reading=reading)
    written: list[dict[str, Any]] = []
    skipped: list[str] = []
    for source, place in zip(sources, places, strict=True):
        table = prediction.read_context(
            forecaster, files.stream(source), name=files.label(source), reading=reading
        )
        if earlier is not None:
            table = prediction.after_history(forecaster, table, earlier)
        predicted = prediction.predict_table(
            forecaster, table, device, future=known, level=level, method=intervals
        )
        for text in predicted.notices:
            console.notice(f"{files.label(source)}: {text}")
        frame = predicted.frame
        if safe_ids and (place is None or place.suffix != ".parquet"):
            frame = bulk.safe(frame, table.layout.id)
        tables.write_table(frame, place, table.layout)
        skipped += [f"{files.label(source)}: {name}" for name in predicted.skipped]
        written.append(
            {
                "input": files.label(source),
                "output": str(place) if place else "-",
                "rows": predicted.frame.height,
                "series": predicted.series,
                "skipped": list(predicted.skipped),
            }
            | ({"intervals": predicted.intervals} if predicted.intervals else {})
        )
        if place and not as_json:
            console.notice(f"{predicted.frame.height:,} rows written to {place}")
    if as_json:
        console.document({"model": model, "written": written})
    if skipped:
        raise PartialError(
            f"{len(skipped)} series have no observed value to forecast from: "
            f"{', '.join(skipped[:5])}.",
            hint="Everything else was written.",
        )


def _predict_on(
    engine: str,
    model: str,
    inputs: list[str],
    out: Path,
    level: list[float] | None,
    places: int,
    as_json: bool,
) -> None:
    from forecast import engines
    from forecast.errors import PartialError

    done = engines.predict_files(model, inputs, out, engine=engine, level=level, places=places)
    speed = done.rows / max(done.seconds, 1e-9)
    if as_json:
        console.document(
            {
                "model": model,
                "engine": engine,
                "output": str(done.out),
                "rows": done.rows,
                "failed": [{"id": name, "reason": reason} for name, reason in done.failed],
                "start_seconds": round(done.start_seconds, 2),
                "seconds": round(done.seconds, 2),
            }
        )
    else:
        console.notice(
            f"{done.rows:,} rows written to {done.out}: {engine} was up after "
            f"{done.start_seconds:.1f} s, then {done.seconds:.1f} s, {speed:,.0f} rows/s."
        )
    if done.failed:
        name, reason = done.failed[0]
        raise PartialError(
            f"{len(done.failed):,} series have no forecast. The first is {name!r}: {reason}",
            hint="Everything else was written.",
        )


def _predict_grids(
    forecaster: GridForecaster,
    model: str,
    inputs: list[str],
    out: Path | None,
    device: str,
    as_json: bool,
) -> None:
    from forecast import grid_prediction
    from forecast.cli import files
    from forecast.data import grid_output
    from forecast.errors import UsageError

    if out is None:
        raise UsageError(
            "A forecast of grids does not go to standard output.",
            hint="Name a file: --out forecast.nc, or .zarr",
        )
    if out.suffix:
        # Several files are the years or the variables of one grid.
        jobs = [(inputs, out)]
        files.destinations(inputs[:1], out, as_json)
        files.refuse_overwriting(files.expand(inputs), out)
        grid = forecaster.grid
        grid_output.check_target(out, slots=grid["format"] == "slots" and grid["dated"])
    else:
        inputs = files.expand(inputs)
        out.mkdir(parents=True, exist_ok=True)
        names = [str(Path(text).with_suffix(".nc")) for text in inputs]
        places = files.destinations(names, out, as_json)
        jobs = [([text], place) for text, place in zip(inputs, places, strict=True) if place]
    written: list[dict[str, Any]] = []
    for sources, place in jobs:
        predicted = grid_prediction.predict(forecaster, sources, device)
        for text in predicted.context.notices:
            console.notice(f"{', '.join(sources)}: {text}")
        predicted.write(place)
        frames, fields, rows, columns = predicted.values.shape
        written.append(
            {
                "input": sources[0] if len(sources) == 1 else sources,
                "output": str(place),
                "frames": frames,
                "fields": fields,
                "cells": [rows, columns],
            }
        )
        if not as_json:
            console.notice(f"{frames:,} frames of {rows} x {columns} cells written to {place}")
    if as_json:
        console.document({"model": model, "written": written})


def _predict_graph(
    forecaster: GraphForecaster,
    model: str,
    inputs: list[str],
    out: Path | None,
    at: str | None,
    top: int,
    ask: list[str] | None,
    as_json: bool,
) -> None:
    from forecast.cli import files
    from forecast.data import graph_context
    from forecast.errors import UsageError
    from forecast.tasks import graphs

    (place,) = files.destinations(["-"], out, as_json)
    if place is not None:
        files.refuse_overwriting(inputs, place)
        if "".join(place.suffixes[-2:]) not in _FRAMES and place.suffix not in _FRAMES:
            raise UsageError(
                f"Forecasts of graphs are written as {', '.join(_FRAMES)}, not {place.name}.",
                hint="Name the file links.csv, for example.",
            )
    source = None if not inputs else inputs[0] if len(inputs) == 1 else tuple(inputs)
    context = graphs.context(forecaster, source, at)
    for text in context.notices:
        console.notice(text)
    frame = graph_context.predict(forecaster.model, context, sources=ask, top=top)
    _write_frame(frame, place)
    if as_json:
        written = {"output": str(place), "rows": frame.height, "columns": frame.columns}
        console.document({"model": model, "written": [written]})
    elif place:
        console.notice(f"{frame.height:,} rows written to {place}")


def _write_frame(frame: Any, place: Path | None) -> None:
    import gzip
    import sys

    from forecast import atomic

    if place is None:
        sys.stdout.buffer.write(frame.write_csv().encode())
        return
    with atomic.replacing(place) as temporary:
        if place.suffix == ".parquet":
            frame.write_parquet(temporary)
        elif place.suffix == ".gz":
            temporary.write_bytes(gzip.compress(frame.write_csv().encode(), mtime=0))
        else:
            frame.write_csv(temporary)
