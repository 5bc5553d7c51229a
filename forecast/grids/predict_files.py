"""Forecast gridded files into files: all inputs as one grid, or each on its own into a folder."""

from __future__ import annotations

from typing import Any

from forecast import outputs
from forecast.catalogue.inputs import expand
from forecast.contracts import Request, Written
from forecast.errors import UsageError
from forecast.grids import output
from forecast.grids import predict as grid_prediction
from forecast.grids.forecaster import GridForecaster


def predict_files(forecaster: GridForecaster, request: Request) -> Written:
    """Forecast the frames that follow the last one.

    Several inputs are the years or the variables of one grid where a file is asked for.

    Raises:
        ForecastError: the request does not fit, or an input cannot be used.
    """
    out, inputs = request.out, list(request.inputs)
    if not inputs:
        raise UsageError(
            "No file is named whose rows are to be gone on from.",
            hint="Name one, or - for standard input.",
        )
    if out is None:
        raise UsageError(
            "A forecast of grids does not go to standard output.",
            hint="Name a file: --out forecast.nc, or .zarr",
        )
    if out.suffix == ".zarr" or not outputs.is_folder(out):
        output.check_target(out, slots=forecaster.grid.counts_slots)
        # A store of Zarr is a folder, which is replaced as a whole.
        check = outputs.check_folder if out.suffix == ".zarr" else outputs.check_file
        check(out, expand(inputs))
        jobs = [(inputs, out)]
    else:
        inputs = expand(inputs)
        places = outputs.destinations(inputs, out, ".nc")
        jobs = [([text], place) for text, place in zip(inputs, places, strict=True)]
    written: list[dict[str, Any]] = []
    for sources, place in jobs:
        predicted = grid_prediction.predict(forecaster, sources, request.device)
        for text in predicted.context.notices:
            request.tell(f"{', '.join(sources)}: {text}")
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
        request.tell(f"{frames:,} frames of {rows} x {columns} cells written to {place}")
    return Written(summary={"written": written})
