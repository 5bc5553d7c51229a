"""Forecast tables into tables: each as a whole, or long ones of any size in pieces."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, BinaryIO, cast

from forecast import outputs, recipe
from forecast.catalogue.inputs import STDIN, expand
from forecast.contracts import Request, Written
from forecast.errors import Failure, UsageError, nearest
from forecast.series import bulk
from forecast.series import context as series_context
from forecast.series import predict as prediction
from forecast.series.forecaster import Forecaster
from forecast.series.intervals import METHODS, Method
from forecast.tables.layout import write_table

_NAMED = 5


def predict_files(forecaster: Forecaster, request: Request) -> Written:
    """Forecast the rows that follow the last one of each series.

    Tables are read in pieces, as one, where `bulk.is_called_for` says so.

    Raises:
        ForecastError: the request does not fit, or an input cannot be used.
    """
    if request.intervals not in METHODS:
        raise UsageError(
            f"Intervals cannot be calibrated by {request.intervals!r}.",
            hint=nearest(request.intervals, METHODS),
        )
    sources = expand(request.inputs)
    if not sources:
        raise UsageError(
            "No file is named whose rows are to be gone on from.",
            hint="Name one, or - for standard input.",
        )
    if bulk.is_called_for(forecaster.layout, sources, resume=request.resume):
        return _in_pieces(forecaster, sources, request)
    return _whole(forecaster, sources, request)


def _reading(request: Request) -> dict[str, Any]:
    given = {
        "date_format": request.date_format,
        "timezone": request.timezone,
        "fill": request.fill,
    }
    stated = {name: value for name, value in given.items() if value is not None}
    return stated | recipe.reading(request.settings or ())


def _in_pieces(forecaster: Forecaster, sources: list[str], request: Request) -> Written:
    for name, hint in (
        ("history", "Name single files: they are read as a whole."),
        ("future", "Put what is known in advance into rows behind the last target."),
    ):
        if getattr(request, name) is not None:
            raise UsageError(
                f"A table that is read in pieces is forecast without --{name}.", hint=hint
            )
    if request.out is None:
        raise UsageError(
            "A table that is read in pieces is forecast in parts, and they need a place.",
            hint="Name a file or a folder: --out forecasts/",
        )
    report = bulk.predict_files(
        forecaster,
        sources,
        request.out,
        reading=_reading(request),
        device=request.device,
        level=request.level,
        resume=request.resume,
        safe_ids=request.safe_ids,
        tell=request.tell,
    )
    for text in report.notices:
        request.tell(text)
    lacking = ""
    if report.failed:
        first = report.failed[0]
        lacking = (
            f"{len(report.failed):,} series have no forecast; {report.side_file} says why. The "
            f"first is {first.id!r}: {first.reason}"
        )
    return Written(summary=report.summary(), lacking=lacking)


def _whole(forecaster: Forecaster, sources: list[str], request: Request) -> Written:
    for beside in (request.history, request.future):
        if request.out is not None:
            outputs.refuse_input(request.out, [beside])
    places = outputs.destinations(sources, request.out)
    for place in places:
        outputs.refuse_input(place, [request.history, request.future])
    reading = _reading(request)
    earlier = known = None
    if request.history is not None:
        earlier = series_context.read_context(
            forecaster, request.history, name=request.history, reading=reading
        )
    if request.future is not None:
        known = series_context.read_future(
            forecaster, request.future, name=request.future, reading=reading
        )
    written: list[dict[str, Any]] = []
    failed: list[Failure] = []
    for number, source in enumerate(sources):
        place, label = (places[number] if places else None), _label(source)
        table = series_context.read_context(
            forecaster, _opened(source), name=label, reading=reading
        )
        if earlier is not None:
            table = series_context.after_history(forecaster, table, earlier)
        table, lacking = prediction.without_failing(forecaster, table, known)
        predicted = prediction.predict_table(
            forecaster,
            table,
            request.device,
            future=known,
            level=request.level,
            method=cast(Method, request.intervals),
        )
        for text in predicted.notices:
            request.tell(f"{label}: {text}")
        frame = predicted.frame
        if request.safe_ids and (place is None or place.suffix != ".parquet"):
            frame = bulk.safe(frame, table.layout.id)
        write_table(frame, place, table.layout)
        failed += [
            Failure(id=f"{label}: {one.id}", reason=one.reason, hint=one.hint) for one in lacking
        ]
        failed += [
            Failure(id=f"{label}: {name}", reason="no observed value to forecast from")
            for name in predicted.skipped
        ]
        written.append(
            {
                "input": label,
                "output": str(place) if place else "-",
                "rows": predicted.frame.height,
                "series": predicted.series,
                "skipped": [one.id for one in lacking] + list(predicted.skipped),
            }
            | ({"intervals": predicted.intervals} if predicted.intervals else {})
        )
        if place:
            request.tell(f"{predicted.frame.height:,} rows written to {place}")
    return Written(summary={"written": written}, lacking=_told(failed))


def _told(failed: list[Failure]) -> str:
    """Name what failed, the reasons with it."""
    if not failed:
        return ""
    shown = "\n".join(f"{one.id}: {one.reason}" for one in failed[:_NAMED])
    more = f"\nand {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    return f"{len(failed):,} series have no forecast:\n{shown}{more}"


def _opened(source: str) -> Path | BinaryIO:
    return sys.stdin.buffer if source == STDIN else Path(source)


def _label(source: str) -> str:
    return "standard input" if source == STDIN else source
