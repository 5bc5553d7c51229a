"""Error against the rows that a forecast may read, far beyond what a window or a memory holds.

    python benchmarks/lookback.py ARTEFACT... [--picture FILE] [--figures FILE]

ARTEFACT is a trained model that carries a state. Each stands in the row `MODEL DATA`: its streams
begin so many rows before the forecasts that are scored. Of a Titans there is a further row `reset`:
its memory is emptied 96 rows before them, while attention and the direct path keep what they have.
Beside them stand a ridge regression and DLinear on windows of so many rows, trained here, one for
each length, as long as the training part has as many windows as those have rows. The ridge stops at
`--most`, beyond which its matrix takes gigabytes. DLinear draws 2,000 windows an epoch and stops
after 5, or one without a better validation loss, at a rate of 1e-3 sqrt(96 / rows).

All rows of the table are scored on the same forecasts of the test part: of every 96 origins 24 in a
row, so that patches are caught at every age. A stream has therefore read up to 23 rows more.
`--figures` keeps what was measured, and does not measure again what is kept.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

SCORED, STRIDE, WINDOW = 24, 96, 96
HOURLY, FINER = (96, 336, 1_024, 4_096, 8_192), (96, 336, 1_024, 4_096, 16_384)
DLINEAR = {"epochs": 5, "epoch_windows": 2_000, "patience": 1, "batch_size": 32}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("artefacts", nargs="+")
    parser.add_argument("--rows", type=int, nargs="+", help="hourly up to 8,192, else to 16,384")
    parser.add_argument("--most", type=int, default=4_096, help="the longest window of the ridge")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--figures", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    import torch

    from forecast import api

    torch.set_num_threads(options.threads)
    kept = options.figures
    figures = json.loads(kept.read_text()) if kept and kept.exists() else {}

    def measured(key: tuple[str, str], rows: int, measure) -> None:
        """Measure a point unless it is known; keep MSE and CPU seconds."""
        points = figures.setdefault(key[0], {}).setdefault(key[1], {})
        if str(rows) not in points:
            begun = time.process_time()
            points[str(rows)] = [measure(), time.process_time() - begun]
            print(f"{' '.join(key):<32}{rows:>8,}{points[str(rows)][0]:9.4f}", flush=True)
            if kept:
                kept.write_text(json.dumps(figures, indent=1))

    for name in options.artefacts:
        forecaster = api.load(name)
        source, model = forecaster.recipe.source_name, forecaster.model
        data = opened(source, forecaster.recipe.model, WINDOW, forecaster.spec.horizon)
        windows, label = data.data.windows("test"), called(forecaster.recipe)
        lengths = options.rows or (HOURLY if data.spec.season <= 24 else FINER)
        for rows in lengths:
            measured((source, label), rows, partial(streams, model, windows, rows))
            if label == "titans":
                again = partial(streams, model, windows, rows, reset=True)
                measured((source, f"{label}, reset"), rows, again)
        horizon = forecaster.spec.horizon
        spare = int(data.data.borders[0, 0]) - horizon + 1
        for label, train in (("ridge", ridge), ("dlinear", dlinear)):
            for rows in lengths:
                if rows <= spare - rows and (label != "ridge" or rows <= options.most):
                    measured((source, label), rows, partial(train, source, rows, horizon))
    show(figures)
    if options.picture:
        draw(figures, options.picture)


def called(recipe) -> str:
    """Name a row: Titans by how its memory and attention are joined, unless it is the default."""
    variant = getattr(recipe.model_config, "variant", "gate")
    return recipe.model if variant == "gate" else f"{recipe.model}, {variant} alone"


def opened(source: str, model: str, rows: int, horizon: int):
    """Open a data set as a model with windows of so many rows is trained on it."""
    from forecast import kinds, recipe
    from forecast.device import choose_device

    resolved = recipe.load(source, model=model, lookback=rows, horizon=horizon)
    return kinds.open_task(resolved, None, choose_device("cpu"))


def scored(windows, rows: int):
    """Cut the segments whose positions are scored, each behind so many rows or up to 23 more."""
    from forecast.batch.segments import segments

    return segments(windows, warm_up=rows - 1, scored=SCORED, stride=STRIDE)


def streams(model, windows, rows: int, reset: bool = False) -> float:
    """Give the MSE of forecasts by streams that began so many rows before."""
    import torch

    total = count = 0.0
    model.eval()
    with torch.no_grad():
        for batch in scored(windows, rows).batches(8 * SCORED):
            state, late = None, batch
            if reset and (before := batch.past.shape[1] - SCORED - WINDOW + 1):
                _, state = model.run(batch.rows_from(0, before), kept=0)
                for name, part in state.items():
                    if name.endswith((".memory", ".surprise")):
                        state[name] = torch.zeros_like(part)
                late = batch.rows_from(before)
            dense, _ = model.run(late, state, kept=SCORED)
            truth, mask = batch.truth()
            wrong = (dense.values - truth).double().square()
            total += float(wrong.sum() if mask is None else wrong[mask].sum())
            count += float(truth.numel() if mask is None else mask.sum())
    return total / count


def ridge(source: str, rows: int, horizon: int) -> float:
    """Solve for a ridge regression on windows of so many rows, and give its MSE."""
    from forecast.models import MODELS, building

    task = opened(source, "ridge", rows, horizon)
    model = building.build("ridge", MODELS["ridge"].load()[1](), task.spec)
    task.solve(model)
    return error(model, task.data.windows("test"))


def dlinear(source: str, rows: int, horizon: int) -> float:
    """Train a DLinear on windows of so many rows, and give its MSE."""
    import torch

    from forecast.models import building
    from forecast.training.loop import fit

    task = opened(source, "dlinear", rows, horizon)
    torch.manual_seed(0)
    model = building.build("dlinear", task.recipe.model_config, task.spec)
    rate = 1e-3 * math.sqrt(WINDOW / rows)
    section = replace(task.recipe.train, **DLINEAR, learning_rate=rate, schedule="halving", seed=0)
    val = task.data.windows("val")
    # An odd step meets every hour of the day.
    fit(model, task.data.windows("train"), val.every(max(1, len(val) // 1_500) | 1), section)
    return error(model, task.data.windows("test"))


def error(model, windows) -> float:
    """Give the MSE of forecasts from windows, by the origins that streams are scored on."""
    import torch

    part = scored(windows, 1)
    last = part.origins[:: part.stride, None]
    origins = (last - torch.arange(SCORED - 1, -1, -1)).flatten()
    assert torch.isin(origins, windows.origins).all()
    total = count = 0.0
    model.eval()
    with torch.no_grad():
        for batch in replace(windows, origins=origins).batches(64):
            wrong = (model(batch).point() - batch.target).double().square()
            mask = batch.target_mask
            total += float(wrong.sum() if mask is None else wrong[mask].sum())
            count += float(wrong.numel() if mask is None else mask.sum())
    return total / count


def show(figures: dict) -> None:
    """Print one table for each data set."""
    for source, rows in figures.items():
        lengths = sorted({int(length) for points in rows.values() for length in points})
        print(f"\n{source:<32}" + "".join(f"{length:>9,}" for length in lengths) + f"{'CPU-s':>8}")
        for label, points in rows.items():
            found = [points.get(str(length), [math.nan])[0] for length in lengths]
            cells = "".join(f"{'-' if math.isnan(x) else f'{x:.4f}':>9}" for x in found)
            print(f"{label:<32}{cells}{sum(cost for _, cost in points.values()):8.1f}")


def draw(figures: dict, path: Path) -> None:
    """Draw one panel for each data set."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(figures), 3.4), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    labels = list(dict.fromkeys(label for rows in figures.values() for label in rows))
    for place, (source, rows) in enumerate(figures.items()):
        axes = figure.add_subplot(1, len(figures), place + 1, title=source, xlabel="rows read")
        for label, points in rows.items():
            number = labels.index(label)
            lengths = sorted(points, key=int)
            axes.plot(
                [int(length) for length in lengths], [points[length][0] for length in lengths],
                marker="osv^Dx+"[number % 7], markersize=4, linewidth=1.2, color=f"C{number}",
                linestyle="-" if label.startswith("titans") else "--", label=label,
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks([96, 336, 1_024, 4_096, 16_384], ["96", "336", "1,024", "4,096", "16,384"])
        axes.minorticks_off()
        axes.set_xlim(80, 20_000)
        axes.grid(alpha=0.3)
        if not place:
            axes.set_ylabel("MSE, standardised")
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
