"""`forecast predict`."""

from __future__ import annotations

from forecast.cli import console
from forecast.cli.options import (
    AsJson,
    Ask,
    At,
    DateFormat,
    Device,
    Engine,
    Fill,
    Future,
    History,
    Inputs,
    Intervals,
    Level,
    Out,
    Places,
    ResumeJob,
    SafeIds,
    Set,
    Timezone,
    Top,
    Trained,
)  # fmt: skip


def predict(
    model: Trained,
    inputs: Inputs = None,
    out: Out = None,
    date_format: DateFormat = None,
    timezone: Timezone = None,
    fill: Fill = None,
    history: History = None,
    future: Future = None,
    resume: ResumeJob = False,
    safe_ids: SafeIds = False,
    level: Level = None,
    settings: Set = None,
    intervals: Intervals = "adaptive",
    engine: Engine = None,
    places: Places = 8,
    at: At = None,
    top: Top = None,
    ask: Ask = None,
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
    from forecast.errors import PartialError

    console.refuse_both(out, as_json)
    done = api.predict_files(
        model, inputs or (), out, engine=engine, places=places, device=device,
        tell=console.notice, date_format=date_format, timezone=timezone, fill=fill,
        history=history, future=future, resume=resume, safe_ids=safe_ids, level=level,
        intervals=intervals, at=at, top=top, sources=ask,
        settings=settings,
    )  # fmt: skip
    if as_json:
        console.document({"model": model, **done.summary})
    if done.lacking:
        raise PartialError(done.lacking, hint="Everything else was written.")
