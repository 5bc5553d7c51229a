"""`forecast compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forecast.cli import console
from forecast.cli.options import AsJson

if TYPE_CHECKING:
    from forecast.tracking import Group, TrackedRun


def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN...]",
            help="Ids or names of runs, or how they begin; all of the experiment by default.",
            show_default=False,
        ),
    ] = None,
    experiment: Annotated[str, typer.Option(help="MLflow experiment.")] = "forecast",
    data: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Only runs on these data.")
    ] = None,
    metric: Annotated[str, typer.Option(help="Figure to sort by.")] = "test_mse",
    most: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Put tracked runs side by side: the mean and spread over seeds, and the best baseline.

    Runs whose recipes differ in nothing but the seed are one row.

    Example: forecast compare --data etth1 --metric test_mae
    """
    from forecast import tracking
    from forecast.errors import NotFoundError, nearest
    from forecast.scoring.comparison import loss

    found = tracking.tracked_runs(experiment, names=runs or ())
    if data:
        kept = [run for run in found if data in _names(run)]
        if not kept:
            known = sorted({name for run in found for name in _names(run)})
            raise NotFoundError(f"No finished run is on {data!r}.", hint=nearest(data, known))
        found = kept
    groups = tracking.grouped(found)
    measured = [group for group in groups if group.mean(metric) is not None]
    if groups and not measured:
        known = sorted({name for run in found for name in run.metrics})
        raise NotFoundError(f"No run has a figure {metric!r}.", hint=nearest(metric, known))
    measured.sort(
        key=lambda group: (
            group.param("data.source"),
            int(group.param("window.horizon") or 0),
            loss(metric, group.mean(metric)),
        )
    )
    if as_json:
        console.document([_facts(group, metric) for group in measured])
        return
    if not measured:
        console.notice(f"The experiment {experiment!r} has no finished run yet.")
        return
    rows = [
        (
            Path(group.param("data.source")).name,
            f"{group.param('window.lookback')} -> {group.param('window.horizon')}",
            group.param("model.name"),
            str(len(group.runs)),
            _figure(group.mean(metric)),
            _figure(group.spread(metric)),
            " ".join(map(str, _baseline(group, metric))),
            group.runs[0].name,
            _settings(group),
        )
        for group in measured[:most]
    ]
    header = ("data", "rows", "model", "runs", metric, "spread", "baseline", "newest", "settings")
    console.table(header, rows, right=(3, 4, 5))
    if len(measured) > most:
        console.notice(f"{len(measured) - most} more: --most {len(measured)}")


def _names(run: TrackedRun) -> tuple[str, str]:
    source = run.params.get("data.source", "")
    return source, Path(source).name


def _facts(group: Group, metric: str) -> dict[str, object]:
    best = group.best_baseline(metric)
    return {
        "data": group.param("data.source"),
        "lookback": int(group.param("window.lookback")),
        "horizon": int(group.param("window.horizon")),
        "model": group.param("model.name"),
        "metric": metric,
        "mean": group.mean(metric),
        "spread": group.spread(metric),
        "baseline": {"name": best[0], "value": best[1]} if best else None,
        "settings": dict(group.differing),
        "runs": [
            {
                "run_id": run.run_id,
                "name": run.name,
                "started": run.started.isoformat(),
                "seed": run.params.get("train.seed"),
                "value": run.metrics.get(metric),
            }
            for run in group.runs
        ],
    }


def _baseline(group: Group, metric: str) -> tuple[str, str]:
    best = group.best_baseline(metric)
    return (best[0], _figure(best[1])) if best else ("-", "")


def _settings(group: Group) -> str:
    parts = [f"{key}={value}" for key, value in group.differing.items()]
    return ", ".join(parts[:3]) + (f" and {len(parts) - 3} more" if len(parts) > 3 else "")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
