"""`forecast baselines`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from forecast.batch import AnySpec
    from forecast.recipe import Recipe


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
    from forecast import recipe
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
        scores, spec, notices = _scored(resolved)
        for text in notices:
            console.notice(f"{source}: {text}")
        found[source] = {
            "lookback": spec.lookback,
            "horizon": spec.horizon,
            "season": getattr(spec, "season", None),
            "metrics": scores,
        }
        rows += [
            (
                source,
                f"{spec.lookback} -> {spec.horizon}",
                name,
                _figure(figures, "mse"),
                _figure(figures, "mae"),
            )
            for name, figures in scores.items()
        ]
    if as_json:
        console.document({"data": found} | watch.read())
        return
    console.table(("data", "rows", "baseline", "MSE", "MAE"), rows, right=(1, 3, 4))


def _figure(figures: dict[str, Any], measure: str) -> str:
    """Print a measure; of links and shares, which have no errors, what they are judged by."""
    from forecast.scoring.comparison import primary_measure
    from forecast.scoring.measures import MEASURES

    if measure in figures:
        return console.figure(figures[measure])
    judge = primary_measure(figures)
    if MEASURES[judge].better == "more" and measure == "mse":
        return f"{MEASURES[judge].heading} {console.figure(figures[judge])}"
    return "-"


def _scored(
    resolved: Recipe,
) -> tuple[dict[str, dict[str, Any]], AnySpec, tuple[str, ...]]:
    """Score the baselines of one recipe; give the shape of its task and notices too."""
    from forecast.graphs import data as graphs
    from forecast.graphs import score as graph_score
    from forecast.grids import data as grids
    from forecast.grids.score import score
    from forecast.grids.section import GridSection
    from forecast.recipe import DataSection
    from forecast.series import data as loading
    from forecast.series import score as evaluation

    section, window = resolved.data, resolved.window
    if isinstance(section, GridSection):
        data = grids.load(section, lookback=window.lookback, horizon=window.horizon)
        return score(None, data, "test"), data.spec, data.notices
    if not isinstance(section, DataSection):
        graph = graphs.load(section, lookback=window.lookback, horizon=window.horizon)
        return graph_score.baselines(graph, "test"), graph.spec, graph.notices
    prepared = loading.load(
        loading.read(section.source, section, keep=section.keep, leave_out=section.leave_out),
        split=section.split,
        gap=section.gap,
        lookback=window.lookback,
        horizon=window.horizon,
        season=section.season,
        marks="none",
    )
    scores = evaluation.score_all(evaluation.fit_baselines(prepared), prepared)
    return scores, prepared.spec, prepared.notices
