"""`forecast predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forecast.cli import console
from forecast.cli.options import AsJson, DateFormat, Device, Fill, Timezone


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
            "data set, or - for standard input.",
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
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Forecast the rows that follow the last one of each series.

    The forecast has the columns, units and time format of the input. No truth is needed.

    Examples:

      forecast predict models:/metro-traffic@champion new.csv --out forecast.csv

      cat new.csv | forecast predict ./artefact - > forecast.csv
    """
    from forecast import prediction
    from forecast.cli import files, options
    from forecast.data import tables
    from forecast.device import set_threads
    from forecast.errors import PartialError

    sources = files.expand(inputs)
    places = files.destinations(sources, out, as_json)
    forecaster = prediction.load(model)
    set_threads(forecaster.recipe.train.threads)
    reading = options.reading(date_format=date_format, timezone=timezone, fill=fill)
    written: list[dict[str, object]] = []
    skipped: list[str] = []
    for source, place in zip(sources, places, strict=True):
        table = prediction.read_context(
            forecaster, files.stream(source), name=files.label(source), reading=reading
        )
        predicted = prediction.predict_table(forecaster, table, device)
        for text in predicted.notices:
            console.notice(f"{files.label(source)}: {text}")
        tables.write_table(predicted.frame, place, table.layout)
        skipped += [f"{files.label(source)}: {name}" for name in predicted.skipped]
        written.append(
            {
                "input": files.label(source),
                "output": str(place) if place else "-",
                "rows": predicted.frame.height,
                "series": predicted.series,
                "skipped": list(predicted.skipped),
            }
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
