"""Scores of models and of the simple rules on a part of a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from forecast.batch import Forecast, Scores
from forecast.device import memory_errors
from forecast.errors import DataError
from forecast.graphs import baselines as rules
from forecast.graphs.baselines import LINK_RULES, score_links
from forecast.graphs.batches import LinkBatches
from forecast.graphs.data import GraphData
from forecast.graphs.links import LinkData, ShareData
from forecast.graphs.values import NodeData, SensorData
from forecast.models.todyformer.link_rules import STARTS
from forecast.scoring.ranking import LinkSums, ShareSums, ValueSums
from forecast.training.loop import EVALUATION_BATCH

# Windows whose rules are scored at once.
_CHUNK = 256


@torch.no_grad()
def score(model: nn.Module, data: GraphData, part: str) -> dict[str, Any]:
    """Score a model on all of a part."""
    windows: Any = data.windows(part)
    if not len(windows):
        raise DataError(
            f"The {part} part asks nothing that has a past of {data.spec.lookback}.",
            hint="Give it more with --set data.split=..., or take a shorter --lookback.",
        )
    model.eval()
    sums: Any = error_sums(data)
    with memory_errors("evaluating", EVALUATION_BATCH):
        for batch in windows.batches(EVALUATION_BATCH):
            sums.add(model(batch), batch)
    return sums.result()


def protocol(data: GraphData) -> str:
    """Name what a score depends on beside the data."""
    spec, section = data.spec, data.section
    if spec.task == "link":
        return f"strict time, {section.queries} events at once, window of {spec.lookback} events"
    if spec.task == "affinity":
        return f"strict time, periods of {section.period:g}, window of {spec.lookback} events"
    missing = ", zeros missing" if spec.task == "sensor" and section.zero_is_missing else ""
    return f"{spec.lookback} steps in, {spec.horizon} out{missing}"


def error_sums(data: GraphData) -> LinkSums | ShareSums | ValueSums:
    """Make an accumulator of what the task is measured by, values in the unit of the data."""
    match data:
        case LinkData():
            return LinkSums()
        case ShareData():
            return ShareSums()
        case _:
            return ValueSums(data.scaler.undo)


def baselines(data: GraphData, part: str) -> dict[str, dict[str, object]]:
    """Score the rules that learn nothing on a part."""
    match data:
        case LinkData():
            return _score_links(data.windows(part), LINK_RULES)
        case ShareData():
            return _score_shares(data, part)
        case _:
            return _score_values(data, part)


def with_start(data: GraphData) -> GraphData:
    """Name the rule of links that a score starts from: the best on the validation part."""
    if not isinstance(data, LinkData):
        return data
    scores = _score_links(data.windows("val"), STARTS)
    rule = max(scores, key=lambda name: float(str(scores[name]["mrr"])))
    return replace(data, spec=replace(data.spec, rule=rule))


def _score_links(windows: LinkBatches, names: Iterable[str]) -> dict[str, dict[str, object]]:
    """Score rules of links on the batches of a part."""
    time = windows.events.time
    lately = float(time[windows.numbers[-1]] - time[windows.numbers[0]])
    sums = {name: LinkSums() for name in names}
    for batch in windows.batches(0):
        candidates = batch.candidates
        assert candidates is not None
        source = batch.query[:, None].expand_as(candidates)
        cut = torch.full_like(candidates, int(torch.searchsorted(time, batch.now)))
        for name, one in sums.items():
            scores = score_links(name, windows.history, source, candidates, cut, lately=lately)
            one.add(Scores(values=scores), batch)
    return {name: one.result() for name, one in sums.items()}


def _score_shares(data: ShareData, part: str) -> dict[str, dict[str, object]]:
    """Score the last period and the moving average."""
    windows = data.windows(part)
    found: dict[str, dict[str, object]] = {}
    for name, averaged in {"last-period": 1, "moving-average": data.section.averaged}.items():
        sums = ShareSums()
        for batch in replace(windows, averaged=averaged).batches(1):
            assert batch.prior is not None
            sums.add(Scores(values=batch.prior), batch)
        found[name] = sums.result()
    return found


def _score_values(data: NodeData | SensorData, part: str) -> dict[str, dict[str, object]]:
    """Score the simple forecasts of values; averages are taken in the unit of the data."""
    windows, horizon, scaler = data.series(part), data.spec.horizon, data.scaler
    averaged = min(data.spec.lookback, data.section.averaged)

    def moving_average(past: Tensor, origins: Tensor) -> Tensor:
        return scaler.apply(rules.moving_average(scaler.undo(past), horizon, steps=averaged))

    def slot_means(past: Tensor, origins: Tensor) -> Tensor:
        rows = origins[:, None] + torch.arange(horizon)
        return data.rules["means"][data.slots[rows]]

    made: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "persistence": lambda past, origins: rules.persistence(past, horizon),
        f"moving-average-{averaged}": moving_average,
        "pooled-regression": lambda past, origins: rules.pooled(past, data.rules["pooled"]),
    }
    if data.section.season > 1:
        made["historical-mean"] = slot_means
    sums = {name: ValueSums(scaler.undo) for name in made}
    for index in torch.arange(len(windows)).split(_CHUNK):
        batch = windows.batch(index)
        for name, rule in made.items():
            answer = rule(batch.past, windows.origins[index])
            sums[name].add(Forecast(values=answer), batch)
    return {name: one.result() for name, one in sums.items()}
