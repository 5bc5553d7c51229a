"""Runs that were tracked, brought together for comparison."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from forecast.errors import NotFoundError, nearest
from forecast.tracking import store

# The tag of a run that is a part of another figure, such as a window of a backtest.
PART = "forecast.part"
# What may differ between runs that are repeats of one another.
_REPEATED = ("train.seed", "train.threads", "train.device", "train.checkpoint_seconds")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackedRun:
    """What the store says of one finished run.

    Attributes:
        run_id: MLflow's id.
        name: the run's name, which is that of its folder.
        started: time it began, UTC.
        params: the resolved recipe, as `section.key`.
        metrics: figures by name, such as `test_mse` and `ridge_test_mse`.
    """

    run_id: str
    name: str
    started: datetime
    params: Mapping[str, str]
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Runs of one recipe that differ in their seeds alone.

    Attributes:
        runs: the newest first.
        differing: settings in which it differs from other groups of the same data, window and
            model.
    """

    runs: tuple[TrackedRun, ...]
    differing: Mapping[str, str]

    def param(self, name: str) -> str:
        """Return a setting of the recipe; empty if it has none."""
        return self.runs[0].params.get(name, "")

    def values(self, metric: str) -> list[float]:
        """Return a figure of every run that has it."""
        return [run.metrics[metric] for run in self.runs if metric in run.metrics]

    def mean(self, metric: str) -> float | None:
        """Average a figure over the runs; None if none has it."""
        values = self.values(metric)
        return statistics.fmean(values) if values else None

    def spread(self, metric: str) -> float | None:
        """Return the standard deviation between runs; None of fewer than two."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else None

    def best_baseline(self, metric: str, *, more: bool | None = None) -> tuple[str, float] | None:
        """Name the baseline with the best figure, such as `test_mse`, of the newest run.

        Args:
            metric: the figure.
            more: it is the better the larger it is; None for what `MEASURES` says.
        """
        # It brings torch along, which listing what is registered does not need.
        from forecast.scoring.comparison import more_is_better  # noqa: PLC0415

        found = [
            (value, name.removesuffix(f"_{metric}"))
            for name, value in self.runs[0].metrics.items()
            if name.endswith(f"_{metric}") and math.isfinite(value)
        ]
        if not found:
            return None
        more = more_is_better(metric) if more is None else more
        value, name = (max if more else min)(found)
        return name, value


def tracked_runs(
    experiment: str, *, names: Sequence[str] = (), most: int = 1000
) -> list[TrackedRun]:
    """List the finished runs of an experiment, the newest first.

    Args:
        experiment: its name.
        names: ids or names of runs, or beginnings of them; none takes all.
        most: runs to look at.

    Raises:
        NotFoundError: there is no such experiment or run.
        ForecastError: the store cannot be reached.
    """
    with store.client() as client:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            known = [one.name for one in store.pages(client.search_experiments)]
            raise NotFoundError(
                f"The store has no experiment {experiment!r}.", hint=nearest(experiment, known)
            )
        entities = client.search_runs(
            [found.experiment_id],
            filter_string="attributes.status = 'FINISHED'",
            max_results=most,
            order_by=["attributes.start_time DESC"],
        )
        # A window of a backtest is a part of one figure; it is compared when it is named.
        runs = [
            TrackedRun(
                run_id=one.info.run_id,
                name=one.info.run_name or "",
                started=datetime.fromtimestamp((one.info.start_time or 0) / 1000, UTC),
                params=dict(one.data.params),
                metrics=dict(one.data.metrics),
            )
            for one in entities
            if names or PART not in one.data.tags
        ]
    # A trial of a tuning has a few settings alone, and is compared by `tune`.
    runs = [run for run in runs if run.params.get("window.lookback")]
    for name in names:
        if not any(run.run_id.startswith(name) or run.name.startswith(name) for run in runs):
            raise NotFoundError(
                f"The experiment {experiment!r} has no finished run {name!r}.",
                hint=nearest(name, [run.name for run in runs]),
            )
    return [
        run
        for run in runs
        if not names or any(run.run_id.startswith(n) or run.name.startswith(n) for n in names)
    ]


def grouped(runs: Sequence[TrackedRun]) -> list[Group]:
    """Put runs of one recipe together, and say in what the recipes differ."""
    by_recipe: dict[tuple[tuple[str, str], ...], list[TrackedRun]] = {}
    for run in runs:
        by_recipe.setdefault(_recipe_of(run), []).append(run)
    groups: list[Group] = []
    for recipe, own in by_recipe.items():
        alike = [other for other in by_recipe if _task_of(dict(other)) == _task_of(dict(recipe))]
        differing = {
            key: value
            for key, value in recipe
            if any(dict(other).get(key) != value for other in alike)
        }
        groups.append(Group(runs=tuple(own), differing=differing))
    return groups


def _recipe_of(run: TrackedRun) -> tuple[tuple[str, str], ...]:
    return tuple(
        sorted(
            (key, value)
            for key, value in run.params.items()
            if key not in _REPEATED and not key.startswith("tracking.")
        )
    )


def _task_of(params: Mapping[str, str]) -> tuple[str | None, ...]:
    keys = ("data.source", "window.lookback", "window.horizon", "model.name")
    return tuple(params.get(key) for key in keys)
