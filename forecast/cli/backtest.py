"""`forecast backtest`."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from forecast.cli import console, options
from forecast.cli.options import (
    AsJson,
    DateFormat,
    Fill,
    Horizon,
    Id,
    Lookback,
    Set,
    Target,
    Time,
    Timezone,
)

_HOW = "How to divide the data"


def backtest(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|DATASET|FILE",
            help="What `forecast train` takes.",
            autocompletion=options.sources,
            show_default=False,
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model, repeatable; all that are trained by steps by default. The closed forms "
            "stand beside them anyway.",
            autocompletion=options.model_names,
            rich_help_panel="What to forecast",
        ),
    ] = None,
    windows: Annotated[
        int, typer.Option(min=1, help="Test windows, one after the other.", rich_help_panel=_HOW)
    ] = 4,
    step: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Rows, frames, events, or periods of shares in a window; the horizon by default.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    gap: Annotated[
        int,
        typer.Option(
            min=0,
            help="Rows, frames, events or periods between what is known and what is scored.",
            rich_help_panel=_HOW,
        ),
    ] = 0,
    rolling: Annotated[
        bool,
        typer.Option(
            "--rolling/--expanding",
            help="Train on as much for each window as for the first, or on all before it.",
            rich_help_panel=_HOW,
        ),
    ] = False,
    refit: Annotated[
        bool,
        typer.Option(
            help="Train for each window, or for the first one only.", rich_help_panel=_HOW
        ),
    ] = True,
    lookback: Lookback = None,
    horizon: Horizon = None,
    column: Target = None,
    time: Time = None,
    series: Id = None,
    date_format: DateFormat = None,
    timezone: Timezone = None,
    fill: Fill = None,
    settings: Set = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with this very backtest where it stopped.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score models on several windows of time, with standard errors and a paired test.

    The last rows are divided into windows; for each, a model is trained on what came before, and
    scored once. Every trained model is kept, and `forecast evaluate` gives the same figures.

    Examples:

      forecast backtest etth1 --horizon 96 --windows 4 --step 720

      forecast backtest sales.csv --horizon 28 --model itransformer --model dlinear --rolling

      forecast backtest collegemsg --windows 4 --step 2000
    """
    from forecast import kinds, recipe
    from forecast.cli.progress import Progress
    from forecast.contracts import Plan
    from forecast.device import Stopwatch
    from forecast.runs.backtest import backtest as run
    from forecast.runs.backtest import comparable_models

    watch = Stopwatch()
    reading = options.reading(
        target=column, time=time, series=series, date_format=date_format, timezone=timezone,
        fill=fill,
    )  # fmt: skip

    def resolved(name: str | None) -> recipe.Recipe:
        return recipe.load(
            target, model=name, lookback=lookback, horizon=horizon, settings=settings or (),
            data=reading,
        )  # fmt: skip

    first = resolved(model[0] if model else None)
    recipes = [resolved(name) for name in model or comparable_models(first)]
    length = kinds.of(first.model).window_length(first, step, horizon or first.window.horizon)
    plan = Plan(windows=windows, step=length, gap=gap, rolling=rolling)
    with Progress() as watcher:
        found = run(recipes, plan, refit=refit, resume=resume, watcher=watcher)
    if as_json:
        console.document(
            {
                "windows": [{"start": start, "stop": stop} for start, stop in found.windows],
                "models": {
                    row.model: {
                        "baseline": row.baseline,
                        **row.figures,
                        **{f"mean_{measure}": row.mean(measure) for measure in row.figures},
                        "standard_error": None if math.isnan(row.error) else row.error,
                        "p_value": None if math.isnan(row.p_value) else row.p_value,
                    }
                    for row in found.rows
                },
                "results": found.results,
                "folder": str(found.folder),
            }
            | watch.read()
        )
        return
    for number, (start, stop) in enumerate(found.windows, start=1):
        console.answer(f"window {number}: {start} to {stop}")
    console.answer("")
    first, *others = found.measures
    header = (
        "model", _shown(first), "error", *map(_shown, others), "p",
        *(str(number + 1) for number in range(windows)),
    )  # fmt: skip
    rows = [
        (
            f"  {row.model}" if row.baseline else row.model,
            f"{row.mean(first):.4g}",
            _figure(row.error),
            *(f"{row.mean(other):.4g}" for other in others),
            _figure(row.p_value),
            *(f"{one:.4g}" for one in row.figures[first]),
        )
        for row in found.rows
    ]
    console.table(header, rows, right=range(1, len(header)))
    cost = watch.read()
    console.answer(
        f"\n{' and '.join(map(_shown, found.measures))}: means over windows; error: standard error "
        f"of the mean {_shown(first)}; p: paired t-test\nagainst the first row; then the "
        f"{_shown(first)} of each window. Artefacts: {found.folder}"
        f"\n{cost['cpu_seconds']:.1f} CPU-s, {cost['seconds']:.1f} s"
    )


def _shown(measure: str) -> str:
    from forecast.scoring.measures import MEASURES

    return MEASURES[measure].heading


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}"
