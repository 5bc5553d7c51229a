"""`forecast predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from forecast.cli import console
from forecast.cli.options import AsJson, DateFormat, Device, Fill, Level, Timezone


def predict(
    model: Annotated[
        str,
        typer.Argument(
            help="Artefact folder, runs:/ID, models:/NAME/3 or models:/NAME@alias.",
            show_default=False,
        ),
    ],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="CSV or Parquet with the history: files, patterns such as 'in/*.csv', a known "
            "data set, a folder or an address (s3://...) of one long table, or - for standard "
            "input.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="PATH",
            help="File to write (.csv, .csv.gz, .parquet), or a folder for several inputs; CSV on "
            "standard output by default.",
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
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Forecast the rows that follow the last one of each series.

    The forecast has the columns, units and time format of the input; an interval of 90 % adds
    COLUMN-lo-90 and COLUMN-hi-90. No truth is needed.

    A folder, an address, and a file of more than 256 MiB are read in pieces, if the model is one of
    long tables: memory does not grow with the rows. Series that cannot be forecast are named in
    failed.csv; intervals are those of --intervals split.

    Examples:

      forecast predict models:/metro-traffic@champion new.csv --out forecast.csv

      forecast predict ./artefact new.csv --level 90 --level 50 --out forecast.csv

      forecast predict ./artefact today.csv --history 2016-to-yesterday.csv

      cat new.csv | forecast predict ./artefact - > forecast.csv
    """
    from forecast import bulk, prediction
    from forecast.cli import files, options
    from forecast.data import tables
    from forecast.device import set_threads
    from forecast.errors import PartialError, UsageError, nearest
    from forecast.intervals import METHODS

    if intervals not in METHODS:
        raise UsageError(
            f"Intervals cannot be calibrated by {intervals!r}.", hint=nearest(intervals, METHODS)
        )
    sources = files.expand(inputs)
    forecaster = prediction.load(model)
    set_threads(forecaster.recipe.train.threads)
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
