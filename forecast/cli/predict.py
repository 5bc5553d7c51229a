"""`forecast predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from forecast.cli import console
from forecast.cli.options import AsJson, DateFormat, Device, Fill, Level, Timezone

_CLUSTER, _GRAPHS = "On a cluster", "On graphs"
_TOP = 20


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
    from forecast import api
    from forecast.cli import files, options, predicting
    from forecast.device import set_threads
    from forecast.errors import PartialError, UsageError, nearest
    from forecast.graphs.forecaster import GraphForecaster
    from forecast.grids.forecaster import GridForecaster
    from forecast.series import bulk, context
    from forecast.series import predict as prediction
    from forecast.series.intervals import METHODS
    from forecast.tables import reading as tables

    if intervals not in METHODS:
        raise UsageError(
            f"Intervals cannot be calibrated by {intervals!r}.", hint=nearest(intervals, METHODS)
        )
    inputs = inputs or []
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
    if engine is not None:
        unread = [name for name, value in given.items() if value is not None and name != "--level"]
        if unread:
            raise UsageError(
                f"{unread[0]} does not go with --engine.", hint=f"Leave {unread[0]} out."
            )
        predicting.on_engine(
            engine, model, inputs, files.required(out), level, places_apart, as_json
        )
        return
    loaded = api.load(model)
    forecaster: Any = loaded
    set_threads(forecaster.recipe.train.threads)
    kind = forecaster.spec.kind
    of_graphs = ("--at", "--source", "--top-k")
    for name, value in given.items():
        if value is not None and kind != ("graph" if name in of_graphs else "series"):
            raise UsageError(
                f"{name} is for {'graphs' if name in of_graphs else 'tables'}, and this model "
                f"forecasts {'tables' if kind == 'series' else kind + 's'}.",
                hint=f"Leave {name} out.",
            )
    if isinstance(forecaster, GraphForecaster):
        from forecast.graphs import kind as graphs

        graphs.on_cpu(device)
        if forecaster.spec.task in ("node", "sensor") and (ask or top != _TOP):
            raise UsageError(
                "Values are forecast of all nodes; --source and --top-k are for links and shares.",
                hint="Leave them out.",
            )
        predicting.graph(forecaster, model, inputs, out, at, top, ask, as_json)
        return
    if not inputs:
        raise UsageError(
            "No file is named whose rows are to be gone on from.",
            hint="Name one, or - for standard input.",
        )
    if isinstance(forecaster, GridForecaster):
        predicting.grids(forecaster, model, inputs, out, device, as_json)
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
        earlier = context.read_context(forecaster, history, name=history, reading=reading)
    if future is not None:
        known = context.read_future(forecaster, future, name=future, reading=reading)
    written: list[dict[str, Any]] = []
    skipped: list[str] = []
    for source, place in zip(sources, places, strict=True):
        table = context.read_context(
            forecaster, files.stream(source), name=files.label(source), reading=reading
        )
        if earlier is not None:
            table = context.after_history(forecaster, table, earlier)
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
