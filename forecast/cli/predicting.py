"""What `forecast predict` does with grids, with graphs, and on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from forecast.cli import console

if TYPE_CHECKING:
    from forecast.graphs.forecaster import GraphForecaster
    from forecast.grids.forecaster import GridForecaster

# How the names of forecasts of graphs end.
_FRAMES = (".csv", ".csv.gz", ".parquet")


def on_engine(
    engine: str,
    model: str,
    inputs: list[str],
    out: Path,
    level: list[float] | None,
    places: int,
    as_json: bool,
) -> None:
    """Forecast a long table on a cluster."""
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


def grids(
    forecaster: GridForecaster,
    model: str,
    inputs: list[str],
    out: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Forecast gridded files: all inputs as one grid into a file, or each into a folder."""
    from forecast.cli import files
    from forecast.errors import UsageError
    from forecast.grids import output
    from forecast.grids import predict as grid_prediction

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
        output.check_target(out, slots=grid["format"] == "slots" and grid["dated"])
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


def graph(
    forecaster: GraphForecaster,
    model: str,
    inputs: list[str],
    out: Path | None,
    at: str | None,
    top: int,
    ask: list[str] | None,
    as_json: bool,
) -> None:
    """Forecast links, shares or values of a graph."""
    from forecast.cli import files
    from forecast.errors import UsageError
    from forecast.graphs import kind
    from forecast.graphs import predict as graph_context

    (place,) = files.destinations(["-"], out, as_json)
    if place is not None:
        files.refuse_overwriting(inputs, place)
        if "".join(place.suffixes[-2:]) not in _FRAMES and place.suffix not in _FRAMES:
            raise UsageError(
                f"Forecasts of graphs are written as {', '.join(_FRAMES)}, not {place.name}.",
                hint="Name the file links.csv, for example.",
            )
    source = None if not inputs else inputs[0] if len(inputs) == 1 else tuple(inputs)
    context = kind.context(forecaster, source, at)
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
