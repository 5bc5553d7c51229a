"""Maps of truth, forecast and error, as one picture.

Letters: H horizon, C channels, Y X rows and columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from forecast import atomic
from forecast.batch import GridBatch
from forecast.grids.data import GridData
from forecast.grids.files import Header
from forecast.grids.times import Clock
from forecast.grids.windows import GridScaler

_INK = "#3b4252"
_LEADS = 4


def draw_last(path: Path, *, model: nn.Module, data: GridData) -> None:
    """Draw truth, forecast and error of the last test window as maps and write a PNG."""
    windows = data.windows("test")
    origin = int(windows.origins[-1])
    draw(
        path,
        model=model,
        batch=windows.batch(torch.tensor([len(windows) - 1])),
        scaler=windows.frames.scaler,
        header=data.grid.header,
        times=data.grid.times[origin : origin + data.spec.horizon],
        clock=data.grid.clock,
    )


@torch.no_grad()
def draw(
    path: Path,
    *,
    model: nn.Module,
    batch: GridBatch,
    scaler: GridScaler,
    header: Header,
    times: np.ndarray,
    clock: Clock,
) -> None:
    """Draw the first channel of one window at up to four leads and write a PNG.

    Args:
        path: the file.
        model: forecasts the window.
        batch: one window with its target.
        scaler: brings it back to the units of the data.
        header: names the channel, and places its cells.
        times: (H,) instants of the targets.
        clock: tells their dates, where they have any.
    """
    # Without pyplot: no window system is asked for, and nothing global is left behind.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    assert batch.target is not None
    model.eval()
    target = batch.target
    if batch.target_mask is not None:
        target = target.masked_fill(~batch.target_mask, torch.nan)
    truth, forecast = (
        scaler.undo(frames)[0, :, 0].float().cpu().numpy()
        for frames in (target, model(batch).values)
    )  # (H, Y, X)
    leads = np.unique(np.linspace(0, len(truth) - 1, _LEADS).round().astype(int))
    error = forecast - truth
    lowest, highest = np.nanmin(truth), np.nanmax(truth)
    largest = float(np.nanmax(np.abs(error))) or 1.0
    mesh = header.mesh
    height = max(1.2, 2.6 * mesh.shape[0] / mesh.shape[1])
    figure = Figure(
        figsize=(2.7 * len(leads) + 1.2, 3 * height + 1.0), dpi=110, layout="constrained"
    )
    FigureCanvasAgg(figure)
    channel = header.channels[0]
    unit = f" [{channel.units}]" if channel.units not in ("", "1") else ""
    figure.suptitle(
        f"{channel.name}{unit}  ·  last test window", fontsize=11, color=_INK, x=0.01, ha="left"
    )
    panels: Any = figure.subplots(3, len(leads), squeeze=False)
    rows = (
        ("truth", truth, {"vmin": lowest, "vmax": highest, "cmap": "viridis"}),
        ("forecast", forecast, {"vmin": lowest, "vmax": highest, "cmap": "viridis"}),
        ("error", error, {"vmin": -largest, "vmax": largest, "cmap": "RdBu_r"}),
    )
    for line, (name, frames, options) in zip(panels, rows, strict=True):
        shown: Any = None
        for panel, lead in zip(line, leads, strict=True):
            shown = panel.pcolormesh(mesh.x, mesh.y, frames[lead], shading="nearest", **options)
            panel.set_xticks([])
            panel.set_yticks([])
            panel.spines[:].set_visible(False)
        line[0].set_ylabel(name, fontsize=9, color=_INK)
        figure.colorbar(shown, ax=list(line), pad=0.01, aspect=12).ax.tick_params(labelsize=7)
    for panel, lead in zip(panels[0], leads, strict=True):
        when = f"\n{clock.short(times[lead])[:16]}" if clock.dated else ""
        panel.set_title(f"{lead + 1} ahead{when}", fontsize=8, color=_INK)
    with atomic.replacing(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None})
