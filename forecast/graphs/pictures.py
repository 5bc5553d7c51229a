"""Pictures of forecasts on graphs: ranks of links, shares of destinations, values of nodes.

Letters: N nodes, S steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from forecast import atomic
from forecast.batch import EventBatch
from forecast.graphs.baselines import score_links
from forecast.graphs.batches import AffinityBatches, LinkBatches
from forecast.graphs.data import GraphData
from forecast.graphs.links import LinkData, ShareData
from forecast.graphs.values import NodeData, SensorData
from forecast.scoring.ranking import link_ranks

_INK, _MODEL, _RULE = "#3b4252", "#c2410c", "#94a3b8"
_NODES, _SHARES, _STEPS = 4, 10, 288


def draw(path: Path, *, model: nn.Module, data: GraphData) -> None:
    """Draw how a model does on the test part, whatever is asked of the graph, and write a PNG."""
    match data:
        case LinkData():
            ranks(path, model=model, windows=data.windows("test"), rule=data.spec.rule)
        case ShareData():
            shares(path, model=model, windows=data.windows("test"))
        case _:
            values(path, model=model, data=data)


@torch.no_grad()
def ranks(path: Path, *, model: nn.Module, windows: LinkBatches, rule: str) -> None:
    """Draw the share of links that each rank or a better one holds, and write a PNG.

    Args:
        path: the file.
        model: scores links.
        windows: those of the part.
        rule: a rule of `LINK_RULES` to stand beside it; empty for none.
    """
    model.eval()
    places: dict[str, list[Tensor]] = {"model": []} | ({rule: []} if rule else {})
    for batch in windows.batches(0):
        places["model"].append(link_ranks(model(batch).values, batch))
        if rule:
            candidates = batch.candidates
            assert candidates is not None
            cut = torch.full_like(
                candidates, int(torch.searchsorted(windows.events.time, batch.now))
            )
            source = batch.query[:, None].expand_as(candidates)
            scores = score_links(rule, windows.history, source, candidates, cut)
            places[rule].append(link_ranks(scores, batch))
    figure, (panel,) = _figure("how often the true destination is among the first", 1)
    for (name, found), color in zip(places.items(), (_MODEL, _RULE), strict=False):
        ordered = torch.cat(found).sort().values.numpy()
        share = np.arange(1, len(ordered) + 1) / len(ordered)
        panel.step(ordered, share, where="post", color=color, linewidth=1.6, label=name)
    panel.set_xscale("log")
    panel.set_ylim(0, 1)
    panel.set_xlabel("rank among the negatives", fontsize=9, color=_INK)
    panel.set_ylabel("share of links", fontsize=9, color=_INK)
    panel.legend(fontsize=9, frameon=False)
    _save(figure, path)


@torch.no_grad()
def shares(path: Path, *, model: nn.Module, windows: AffinityBatches) -> None:
    """Draw true and forecast shares of the busiest destinations in the last period."""
    model.eval()
    batch: EventBatch = windows.batch(torch.tensor([len(windows) - 1]))
    assert batch.truth is not None
    chances = model(batch).values.softmax(1).mean(0)
    truth = batch.truth.mean(0)
    shown = truth.argsort(descending=True)[:_SHARES]
    figure, (panel,) = _figure("shares of the busiest destinations, last test period", 1)
    place = np.arange(len(shown))
    panel.bar(place - 0.2, truth[shown].numpy(), 0.4, color=_RULE, label="observed")
    panel.bar(place + 0.2, chances[shown].numpy(), 0.4, color=_MODEL, label="forecast")
    ids = windows.events.ids.gather(windows.candidates[shown].numpy()).to_list()
    panel.set_xticks(place, [str(name) for name in ids])
    panel.legend(fontsize=9, frameon=False)
    _save(figure, path)


@torch.no_grad()
def values(path: Path, *, model: nn.Module, data: NodeData | SensorData) -> None:
    """Draw values of the busiest nodes over the end of the test part, and forecasts of them.

    The horizons drawn follow each other without overlap.
    """
    model.eval()
    origins, horizon = data.origins("test"), data.spec.horizon
    first = max(0, len(origins) - 1 - (_STEPS - horizon) // horizon * horizon)
    chosen = torch.arange(first, len(origins), horizon)
    windows = data.windows("test")
    made = torch.cat([model(windows.batch(place[None])).values for place in chosen], 0)
    forecast = data.scaler.undo(made.flatten(0, 1))
    start, end = int(origins[first]), int(origins[chosen[-1]]) + horizon
    truth = data.scaler.undo(data.values[start:end]).masked_fill(~data.seen[start:end], torch.nan)
    shown = truth.nan_to_num().std(0).argsort(descending=True)[:_NODES]
    figure, panels = _figure("the nodes that vary most, end of the test part", len(shown))
    steps = np.arange(start, end)
    for panel, node in zip(panels, shown.tolist(), strict=True):
        panel.plot(steps, truth[:, node].numpy(), color=_INK, linewidth=1.0, label="observed")
        panel.plot(steps, forecast[:, node].numpy(), color=_MODEL, linewidth=1.4, label="forecast")
        panel.set_ylabel(data.ids[node], fontsize=9, color=_INK)
    panels[0].legend(fontsize=9, frameon=False, ncols=2)
    panels[-1].set_xlabel("step", fontsize=9, color=_INK)
    _save(figure, path)


def _figure(title: str, count: int) -> tuple[Any, Any]:
    # Without pyplot: no window system is asked for, and nothing global is left behind.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9, 2.0 + 1.6 * count), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, color=_INK, x=0.01, ha="left")
    panels: Any = figure.subplots(count, 1, squeeze=False, sharex=True)[:, 0]
    for panel in panels:
        panel.tick_params(labelsize=8, colors=_INK, length=2)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _save(figure: Any, path: Path) -> None:
    with atomic.replacing(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None})
