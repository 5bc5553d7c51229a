"""`forecast baselines`."""

from __future__ import annotations

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


def baselines(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET|FILE...",
            help="Known data sets or files.",
            autocompletion=options.sources,
            show_default=False,
        ),
    ],
    lookback: Lookback = None,
    horizon: Horizon = None,
    column: Target = None,
    time: Time = None,
    series: Id = None,
    date_format: DateFormat = None,
    timezone: Timezone = None,
    fill: Fill = None,
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Score the closed-form baselines alone: the floor that any model has to beat.

    Example: forecast baselines etth1 exchange --horizon 96
    """
    from forecast import evaluation, recipe
    from forecast.data import loading
    from forecast.device import Stopwatch, set_threads

    watch = Stopwatch()
    reading = options.reading(
        target=column,
        time=time,
        series=series,
        date_format=date_format,
        timezone=timezone,
        fill=fill,
    )
    found: dict[str, dict[str, object]] = {}
    rows: list[tuple[str, ...]] = []
    for source in data:
        resolved = recipe.load(
            source, lookback=lookback, horizon=horizon, settings=settings or (), data=reading
        )
        set_threads(resolved.train.threads)
        section = resolved.data
        table = loading.read(section.source, section)
        prepared = loading.load(
            table,
            split=section.split,
            lookback=resolved.window.lookback,
            horizon=resolved.window.horizon,
            season=section.season,
            marks="none",
        )
        for text in prepared.notices:
            console.notice(f"{source}: {text}")
        scores = evaluation.score_all(evaluation.fit_baselines(prepared), prepared)
        found[source] = {
            "lookback": prepared.spec.lookback,
            "horizon": prepared.spec.horizon,
            "season": prepared.spec.season,
            "metrics": scores,
        }
        rows += [
            (
                source,
                f"{prepared.spec.lookback} -> {prepared.spec.horizon}",
                name,
                console.figure(figures["mse"]),
                console.figure(figures["mae"]),
            )
            for name, figures in scores.items()
        ]
    if as_json:
        console.document({"data": found} | watch.read())
        return
    console.table(("data", "rows", "baseline", "MSE", "MAE"), rows, right=(1, 3, 4))
