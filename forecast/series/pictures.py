"""Pictures of a run: history, forecast and truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from forecast import atomic
from forecast.recipe import Recipe
from forecast.series import rolling_origin
from forecast.series.data import SeriesData

_MOST_PANELS = 4
_HISTORY = 3
_INK, _FORECAST, _GRID = "#3b4252", "#d1495b", "#d8dee9"
_LINES = (_FORECAST, _INK, "#5e81ac", "#a3a847")
_MOST_POINTS = 300


@torch.no_grad()
def last_window(model: nn.Module, data: SeriesData, recipe: Recipe, path: Path) -> None:
    """Draw the last test window: up to four variates, the last ones of the table first.

    History is cut to three horizons. Values are in the units of the data; what was not observed
    is a gap.
    """
    windows = data.windows("test")
    last_one = replace(windows, origins=windows.origins[-1:])
    model.eval()
    ((answer, _, _),) = rolling_origin.answers(model, last_one, 1)
    origin = int(windows.origins[-1])
    series = int(np.searchsorted(data.table.offsets, origin, side="right")) - 1
    spec, table = data.spec, data.table
    deviation, mean = data.scaler.deviation[series], data.scaler.mean[series]
    forecast = answer.point()[0].double().cpu().numpy() * deviation + mean  # (H, C)
    first = origin - min(spec.lookback, _HISTORY * spec.horizon)
    last = origin + spec.horizon
    title = (
        f"{recipe.source_name}  ·  {recipe.model}  ·  {spec.lookback} rows in, "
        f"{spec.horizon} out  ·  last test window"
    )
    draw(
        path,
        title=title,
        columns=table.columns,
        times=table.times[first:last],
        truth=table.values[first:last],
        forecast=forecast,
    )


def early_errors(
    fresh: Float[np.ndarray, " K"], full: Float[np.ndarray, " K"], *, title: str, path: Path
) -> None:
    """Draw the error of a stream by the rows it has seen, with and without earlier history.

    Args:
        fresh: MSE after 1, 2, ..., K rows of a stream that begins there.
        full: MSE of the same forecasts with all the history before.
        title: heading.
        path: the file, a PNG.
    """
    figure, (panel,) = _panels(1, title, height=3.6)
    rows = np.arange(1, len(fresh) + 1)
    panel.semilogx(rows, full, color=_INK, linewidth=1.2, label="all history")
    panel.semilogx(rows, fresh, color=_FORECAST, linewidth=1.6, label="rows since the start alone")
    panel.set_xlabel("rows seen", fontsize=9, color=_INK)
    panel.set_ylabel("MSE, standardised", fontsize=9, color=_INK)
    _plain(panel)
    panel.legend(fontsize=9, frameon=False)
    _save(figure, path)


def memory(
    lines: Mapping[str, Sequence[Float[np.ndarray, " T"]]], rows: int, *, title: str, path: Path
) -> None:
    """Draw what a memory does along a stream, a panel for each figure and a line for each block.

    Args:
        lines: figures of each token by name, for every block.
        rows: rows of a token.
        title: heading.
        path: the file, a PNG.
    """
    figure, panels = _panels(len(lines), title, height=1.0 + 1.8 * len(lines))
    for panel, (name, blocks) in zip(panels, lines.items(), strict=True):
        for number, values in enumerate(blocks):
            # Of many tokens the mean over some at a time: a line has no room for more.
            some = max(1, len(values) // _MOST_POINTS)
            count = len(values) // some
            means = values[: count * some].reshape(count, some).mean(1)
            place = (np.arange(count) * some + some / 2) * rows
            label = f"block {number + 1}"
            panel.plot(place, means, color=_LINES[number % len(_LINES)], linewidth=1.2, label=label)
        panel.set_ylabel(name, fontsize=9, color=_INK)
        panel.set_ylim(bottom=0)
        _plain(panel)
    panels[-1].set_xlabel("rows read", fontsize=9, color=_INK)
    if len(next(iter(lines.values()))) > 1:
        panels[0].legend(fontsize=9, frameon=False)
    _save(figure, path)


def draw(
    path: Path,
    *,
    title: str,
    columns: tuple[str, ...],
    times: np.ndarray,
    truth: np.ndarray,
    forecast: np.ndarray,
) -> None:
    """Draw history, truth and forecast, a panel for each variate, and write a PNG.

    Args:
        path: the file.
        title: heading.
        columns: C names.
        times: (T,) of all rows, the last H being those of the forecast.
        truth: (T, C) values, NaN where not observed.
        forecast: (H, C) values.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415

    shown = list(range(len(columns)))[-_MOST_PANELS:][::-1]
    figure, panels = _panels(len(shown), title, height=1.0 + 1.8 * len(shown))
    start = len(times) - len(forecast)
    for panel, place in zip(panels, shown, strict=True):
        panel.plot(times, truth[:, place], color=_INK, linewidth=1.1, label="observed")
        panel.plot(
            times[start:], forecast[:, place], color=_FORECAST, linewidth=1.6, label="forecast"
        )
        panel.axvline(times[start], color=_GRID, linewidth=1)
        panel.set_ylabel(columns[place], fontsize=9, color=_INK)
        _plain(panel)
    locator = AutoDateLocator()
    panels[-1].xaxis.set_major_locator(locator)
    panels[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper right", fontsize=9, frameon=False, ncols=2)
    _save(figure, path)


def _panels(count: int, title: str, height: float) -> tuple[Any, Any]:
    """Make a figure of panels one above the other."""
    # Without pyplot: no window system is asked for, and nothing global is left behind.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(10, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, color=_INK, x=0.01, ha="left")
    return figure, figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]


def _plain(panel: Any) -> None:
    panel.grid(axis="y", color=_GRID, linewidth=0.6)
    panel.tick_params(labelsize=8, colors=_INK, length=2)
    panel.spines[["top", "right"]].set_visible(False)


def _save(figure: Any, path: Path) -> None:
    with atomic.replacing(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None})
