"""Forecast links, shares or values of a graph into a table."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl

from forecast import atomic, outputs
from forecast.contracts import Request, Written
from forecast.errors import UsageError
from forecast.graphs import predict as graph_context
from forecast.graphs.forecaster import GraphForecaster

# How the names of forecasts end.
_SUFFIXES = (".csv", ".csv.gz", ".parquet")
_TOP = 20


def predict_files(forecaster: GraphForecaster, request: Request) -> Written:
    """Forecast what follows the last event or the last step.

    Raises:
        ForecastError: the request does not fit, or an input cannot be used.
    """
    graph_context.on_cpu(request.device)
    if forecaster.spec.task in ("node", "sensor") and (request.sources or request.top):
        raise UsageError(
            "Values are forecast of all nodes; --source and --top-k are for links and shares.",
            hint="Leave them out.",
        )
    out, inputs = request.out, request.inputs
    if out is not None:
        if not out.name.endswith(_SUFFIXES):
            raise UsageError(
                f"Forecasts of graphs are written as {', '.join(_SUFFIXES)}, not {out.name}.",
                hint="Name the file links.csv, for example.",
            )
        outputs.check_file(out, inputs)
    source = None if not inputs else inputs[0] if len(inputs) == 1 else inputs
    context = graph_context.read_context(
        forecaster.graph,
        forecaster.statistics,
        forecaster.spec,
        source,
        history=forecaster.history,
        at=request.at,
    )
    for text in context.notices:
        request.tell(text)
    frame = graph_context.predict(
        forecaster.model, context, sources=request.sources, top=request.top or _TOP
    )
    _write(frame, out)
    if out:
        request.tell(f"{frame.height:,} rows written to {out}")
    written = {"output": str(out), "rows": frame.height, "columns": frame.columns}
    return Written(summary={"written": [written]})


def _write(frame: pl.DataFrame, out: Path | None) -> None:
    if out is None:
        outputs.to_stdout(frame.write_csv().encode())
        return
    with atomic.replacing(out) as temporary:
        if out.suffix == ".parquet":
            frame.write_parquet(temporary)
        elif out.suffix == ".gz":
            temporary.write_bytes(gzip.compress(frame.write_csv().encode(), mtime=0))
        else:
            frame.write_csv(temporary)
