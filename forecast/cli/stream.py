"""`forecast stream`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from forecast.cli import console
from forecast.cli.options import Device


def stream(
    model: Annotated[
        str,
        typer.Argument(
            help="Artefact folder, runs:/ID, models:/NAME/3 or models:/NAME@alias.",
            show_default=False,
        ),
    ],
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
    save_every: Annotated[
        int, typer.Option(min=1, help="Rows from one time of saving the state to the next.")
    ] = 10_000,
    info: Annotated[
        bool, typer.Option("--info", help="Tell the memory that a series takes, and read nothing.")
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

      forecast stream models:/plant@champion --every 24 --horizon 24 < rows.jsonl > out.jsonl
    """
    import dataclasses
    import io
    import sys
    from typing import cast

    from forecast import api
    from forecast.device import set_threads
    from forecast.series.stream import Streamer, pump

    forecaster = api.load_series(model)
    set_threads(forecaster.recipe.train.threads)
    streamer = Streamer(forecaster, every=every, horizon=horizon, gap=gap, device=device)
    if state and state.exists():
        streamer.resume(state)
        console.notice(f"Going on from {state}: {len(streamer):,} series.")
    if info:
        console.answer(
            f"{streamer.bytes_per_series:,} bytes for each series; a start is cold for "
            f"{streamer.model.context:,} rows."
        )
        return

    def write(text: bytes) -> None:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()

    try:
        caught = pump(
            streamer,
            cast(io.BufferedReader, sys.stdin.buffer),
            write,
            state=state,
            save_every=save_every,
        )
    finally:
        for name, count in dataclasses.asdict(streamer.counts).items():
            if count or name in ("rows", "forecasts"):
                console.notice(f"{name.replace('_', ' ')}: {count:,}")
    if caught:
        raise typer.Exit(128 + caught)
