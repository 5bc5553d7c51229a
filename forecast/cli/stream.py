"""`forecast stream`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from forecast.cli import console
from forecast.cli.options import Device, Trained


def stream(
    model: Trained,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Go on from this file if it is there, and save the state to it.",
        ),
    ] = None,
    every: Annotated[
        int, typer.Option(min=1, help="Rows of a series from one forecast to the next.")
    ] = 1,
    horizon: Annotated[
        int | None, typer.Option(min=1, help="Rows to forecast; all that the model can by default.")
    ] = None,
    gap: Annotated[
        Literal["hold", "nan", "refuse"],
        typer.Option(help="What stands in for missing rows: the last values, nothing, an error."),
    ] = "hold",
    bad_rows: Annotated[
        str,
        typer.Option(
            metavar="stop|skip|FILE",
            help="What becomes of rows that cannot be read: the first ends the stream, they are "
            "left out, or they go into a file with the reasons, and the exit code is 6.",
        ),
    ] = "stop",
    save_every: Annotated[
        int, typer.Option(min=1, help="Rows from one time of saving the state to the next.")
    ] = 10_000,
    info: Annotated[
        bool, typer.Option("--info", help="Tell the memory that a series takes, and read nothing.")
    ] = False,
    safe_ids: Annotated[
        bool,
        typer.Option(
            "--safe-ids", help="Put ' before ids that a spreadsheet takes for formulas, in CSV."
        ),
    ] = False,
    device: Device = "auto",
) -> None:
    """Forecast rows as they arrive on standard input: CSV or JSON lines, wide or long.

    Series may be interleaved. Forecasts go to standard output in the same form, and what became of
    the rows is counted at the end. With --state a stopped stream goes on as if nothing had
    happened: feed it the rows again from any earlier one, or from the next; those seen are left
    out.

    Examples:

      tail -n +1 -f meter.csv | forecast stream ./artefact --state meter.safetensors

      forecast stream ./artefact --state s.safetensors --bad-rows bad.csv < rows.csv > out.csv

      forecast stream models:/plant@champion --every 24 --horizon 24 < rows.jsonl > out.jsonl
    """
    import io
    import sys
    from typing import cast

    from forecast import api, outputs
    from forecast.errors import PartialError

    if info:
        size, context = api.stream_memory(model, device)
        console.answer(f"{size:,} bytes for each series; a start is cold for {context:,} rows.")
        return
    done = api.stream(
        model, cast(io.BufferedReader, sys.stdin.buffer), outputs.to_stdout, state=state,
        every=every, horizon=horizon, gap=gap, bad_rows=bad_rows, save_every=save_every,
        device=device, safe_ids=safe_ids, tell=console.notice,
    )  # fmt: skip
    if done.signal:
        raise typer.Exit(128 + done.signal)
    if done.bad:
        raise PartialError(
            f"{done.bad:,} rows were left out. The first: {done.first}",
            hint="The forecasts of all others were written.",
        )
