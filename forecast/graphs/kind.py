"""Graphs: links, shares and values of nodes, scored beside rules that learn nothing."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import nn

from forecast import contracts
from forecast.batch import Batches, EventSpec
from forecast.contracts import (
    DatasetInfo,
    Finished,
    Fold,
    Plan,
    refuse_changed,
    refuse_cold,
    refuse_level,
    too_short,
)
from forecast.errors import UsageError
from forecast.graphs import data as graphs
from forecast.graphs import pictures
from forecast.graphs import predict as graph_context
from forecast.graphs import predict_files as files
from forecast.graphs import section as graph_section
from forecast.graphs.data import GraphData
from forecast.graphs.forecaster import GraphForecaster
from forecast.graphs.header import ValueHeader
from forecast.graphs.links import LinkData, ShareData
from forecast.graphs.score import baselines, protocol, score, with_start
from forecast.recipe import Recipe
from forecast.scoring.comparison import flat
from forecast.training.loop import Fitted

# Sensors named to the registry.
_MOST_COLUMNS = 50
NOUN = "graphs"
OPTIONS = frozenset[str]({"at", "top", "sources"})


def continued(resolved: Recipe, start: GraphForecaster) -> Recipe:
    """Read the graph as that of the forecaster was read."""
    section = graphs.section_of(start.graph, resolved.graph.source)
    own = resolved.graph
    parts = replace(section, split=own.split, gap=own.gap, leave_out=own.leave_out, keep=own.keep)
    return replace(resolved, data=parts)


def open_task(resolved: Recipe, start: GraphForecaster | None, device: torch.device) -> GraphTask:
    """Read and divide a graph."""
    window = resolved.window
    data = graphs.load(
        resolved.graph,
        lookback=window.lookback,
        horizon=window.horizon,
        device=device,
        arrays=start.statistics if start else None,
    )
    data = with_start(data)
    if (data.spec.task == "sensor") != (resolved.model == "todyformer-sensors"):
        fitting = "todyformer-sensors" if data.spec.task == "sensor" else "todyformer"
        raise UsageError(
            f"{resolved.model} does not do the task {data.spec.task!r} of these data.",
            hint=f"Take the model that does: --model {fitting}",
        )
    stated = resolved.replace("window", lookback=data.spec.lookback, horizon=data.spec.horizon)
    # The task too: `auto` is told from files that may lie elsewhere later.
    stated = stated.replace("data", task=data.section.task)
    if data.batch_size is not None:
        stated = stated.replace("train", batch_size=data.batch_size)
    return GraphTask(recipe=stated, data=data, told=_told(resolved, data))


def evaluate(
    forecaster: GraphForecaster,
    source: str | tuple[str, ...] | None,
    device: str,
    recipe: Recipe | None = None,
    *,
    cold: bool = False,
) -> dict[str, Any]:
    """Score a forecaster of graphs."""
    if cold:
        refuse_cold(forecaster)
    graph_context.on_cpu(device)
    spec = forecaster.spec
    if source is None:
        section = (recipe or forecaster.recipe).graph
        if isinstance(forecaster.graph, ValueHeader):
            # As its own statistics are, whatever other steps would have asked for.
            logarithm = forecaster.graph.logarithm
            section = replace(section, scaling="log" if logarithm else "standard")
        data = graphs.load(
            section,
            lookback=spec.lookback,
            horizon=spec.horizon,
            arrays=forecaster.statistics,
        )
        if recipe is None:
            refuse_changed(forecaster, data.digest)
    else:
        data = graphs.as_test_set(
            forecaster.graph, forecaster.statistics, spec, source, history=forecaster.history
        )
    own = score(copy.deepcopy(forecaster.model), data, "test")
    return {
        "protocol": protocol(data) if source is None else f"new data; {protocol(data)}",
        "data": _text(source) if source else forecaster.recipe.source_name,
        "metrics": {"test": own, "baselines": baselines(data, "test")},
        "notices": list(data.notices),
    }


def predict(
    forecaster: GraphForecaster,
    source: Any,
    device: str = "auto",
    *,
    at: str | float | None = None,
    sources: list[Any] | None = None,
    top: int = 20,
) -> pl.DataFrame:
    """Forecast what follows the last event or the last step.

    Args:
        forecaster: the forecaster.
        source: of events a file that goes on from those kept with the model, or None; of values
            the file whose last steps are gone on from, of sensors a pair.
        device: is the CPU.
        at: the time of links and shares that are asked for; None is right after the last event.
        sources: ids to ask about; None asks about all.
        top: destinations to name for each source.
    """
    graph_context.on_cpu(device)
    return graph_context.predict(
        forecaster.model, context(forecaster, source, at), sources=sources, top=top
    )


def context(
    forecaster: GraphForecaster, source: Any, at: str | float | None
) -> graph_context.GraphContext:
    """Read what a forecast rests on."""
    return graph_context.read_context(
        forecaster.graph,
        forecaster.statistics,
        forecaster.spec,
        source,
        history=forecaster.history,
        at=at,
    )


predict_files = files.predict_files


def predict_frame(
    forecaster: GraphForecaster, frame: pl.DataFrame, *, level: Sequence[float] | None = None
) -> pl.DataFrame:
    """Forecast a frame in memory, as the model server does."""
    refuse_level(level)
    return graph_context.predict_frame(
        forecaster.model,
        forecaster.graph,
        forecaster.statistics,
        forecaster.spec,
        frame,
        history=forecaster.history,
    )


restore = GraphForecaster.restored


def window_length(resolved: Recipe, step: int | None, ahead: int | None) -> int:
    """Length of a backtest's window; of events and periods it has to be given."""
    task = graph_section.resolve(resolved.graph)[0].task
    if step is None and task in ("link", "affinity"):
        what = "events" if task == "link" else "periods"
        raise UsageError(
            f"Windows of {what} have no length of their own.",
            hint=f"Say how many {what} each has: --step {2000 if task == 'link' else 10}",
        )
    return contracts.window_length(step, ahead)


def folds(resolved: Recipe, plan: Plan) -> list[Fold]:
    """Divide events, periods of shares or steps of values anew for each window.

    What lies behind a window is left out, as if the data ended with it.
    """
    section = resolved.graph
    data = graphs.load(section, lookback=resolved.window.lookback, horizon=resolved.window.horizon)
    what = {"link": "events", "affinity": "periods"}.get(data.spec.task, "steps")
    if isinstance(data, LinkData | ShareData):
        validation = len(data.split.part("val"))
    else:
        validation = data.ends[1] - data.ends[0]
    stops = [data.rows]
    for _ in range(plan.windows):
        stops.append(data.before(stops[-1], plan.step))
    borders: list[tuple[int, int, int, int]] = []
    for stop, start in itertools.pairwise(stops):
        known = data.before(start, plan.gap) if plan.gap else data.moved(start - section.gap)
        begin = data.moved(known - validation)
        if begin <= 0:
            raise too_short(data.rows, "events" if what == "periods" else what, plan, validation)
        borders.append((begin, known, start, stop))
    borders.reverse()
    room = borders[0][0]
    found: list[Fold] = []
    for begin, known, start, stop in borders:
        first = data.moved(begin - room) if plan.rolling else 0
        if what == "steps":
            # The first step has the place in its season that the first of all has.
            first -= first % section.season
        divided = resolved.replace(
            "data",
            split=(begin - first if plan.rolling else 0, known - begin, stop - start),
            gap=start - known,
            leave_out=section.leave_out + data.rows - stop,
            keep=stop - first if plan.rolling or section.keep else None,
        )
        found.append(Fold(recipe=divided, start=data.moment(start), stop=data.moment(stop - 1)))
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphTask:
    """A recipe of graphs with its data.

    Attributes:
        recipe: every number in it stated.
        data: as read and divided.
        told: what the data decide instead of the recipe.
    """

    recipe: Recipe
    data: GraphData
    told: tuple[str, ...] = ()

    @property
    def spec(self) -> EventSpec:
        """Shape of the task."""
        return self.data.spec

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """What a model is made with beside its config and the spec."""
        return self.data.inputs()

    @property
    def digest(self) -> str:
        """Name the graph by its content."""
        return self.data.digest

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences for the user."""
        return (*self.data.notices, *self.told)

    def with_train(self, **train: Any) -> GraphTask:
        """Return the task with fields of the recipe's training section set."""
        return replace(self, recipe=self.recipe.replace("train", **train))

    def dataset(self, context: str) -> DatasetInfo:
        """Describe the data for the lineage of a run."""
        return DatasetInfo(
            name=self.recipe.source_name,
            source=_text(self.recipe.graph.source),
            digest=self.digest,
            rows=self.data.rows,
            columns=tuple(self.data.columns)[:_MOST_COLUMNS],
            context=context,
        )

    def batches(self, model: nn.Module, *, fresh: bool) -> tuple[Batches[Any], Batches[Any]]:
        """Return the batches of the training and of the validation part."""
        return self.data.windows("train"), self.data.windows("val")

    def solve(self, model: nn.Module) -> None:
        """Do nothing: no model of graphs has a closed form."""

    def finish(self, model: nn.Module, fitted: Fitted | None, folder: Path) -> Finished:
        """Score once on the test part, draw and keep a model."""
        data = self.data
        metrics: dict[str, Any] = {
            "protocol": protocol(data),
            # The one time that this run looks at the test part.
            "test": score(model, data, "test"),
            "baselines": baselines(data, "test"),
            "validation": score(model, data, "val")
            | ({"best_epoch": fitted.best_epoch} if fitted else {}),
        }
        picture = folder / "forecast.png"
        pictures.draw(picture, model=model, data=data)
        forecaster = GraphForecaster(
            model=model,
            recipe=self.recipe,
            spec=data.spec,
            statistics=data.arrays(),
            graph=data.header,
            history=data.history(),
            data={
                "source": _text(self.recipe.graph.source),
                "digest": data.digest,
                "rows": data.rows,
                "series": len(data.columns),
                "columns": list(data.columns)[:_MOST_COLUMNS],
            },
            metrics=metrics,
        )
        return Finished(
            forecaster=forecaster,
            metrics=metrics,
            figures=flat(metrics, "graph"),
            pictures=(picture,),
        )

    def example(self) -> None:
        """Return nothing: the registry shows tables of series alone."""


def _told(resolved: Recipe, data: GraphData) -> tuple[str, ...]:
    """Describe which settings the data decide instead of the recipe."""
    notices: list[str] = []
    size, window = data.batch_size, resolved.window
    if size is not None and resolved.train.batch_size != size:
        notices.append(
            f"A step of training has {size} queries, as data.queries has them, or one time; "
            f"train.batch_size = {resolved.train.batch_size} is not asked."
        )
    if window.horizon is not None and window.horizon != data.spec.horizon:
        notices.append(
            f"The task {data.spec.task} looks {data.spec.horizon} ahead, not {window.horizon}."
        )
    return tuple(notices)


def _text(source: str | tuple[str, ...]) -> str:
    return source if isinstance(source, str) else ", ".join(source)
