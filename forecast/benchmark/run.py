"""Running models on benchmark sets: windows, scores, one row a (set, model), resumable.

Every model is fitted once on the rows before the first test window; each window is then forecast
from the rows before it. Nothing reads a test row but to score, or as past of a later window.

Letters: N series, W windows, H horizon, Q levels.
"""

from __future__ import annotations

import csv
import os
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from forecast.auto import scores
from forecast.auto.choose import Settings
from forecast.auto.fitting import fit, seasons_of
from forecast.auto.form import Array
from forecast.benchmark.sets import Set, load_set, published
from forecast.errors import DataError

# The columns of GIFT-Eval's own submissions, then ours.
_GIFT = "eval_metrics/"
COLUMNS: tuple[str, ...] = (
    "dataset",
    "model",
    *(
        _GIFT + name
        for name in (
            "MSE[mean]",
            "MSE[0.5]",
            "MAE[0.5]",
            "MASE[0.5]",
            "MAPE[0.5]",
            "sMAPE[0.5]",
            "MSIS",
            "RMSE[mean]",
            "NRMSE[mean]",
            "ND[0.5]",
            "mean_weighted_sum_quantile_loss",
        )
    ),
    "domain",
    "num_variates",
    "RMSSE",
    "CRPS",
    "coverage_80",
    "coverage_90",
    "left_out_series",
    "cpu_seconds",
    "peak_memory_mb",
)
MASE, WQL = _GIFT + "MASE[0.5]", _GIFT + "mean_weighted_sum_quantile_loss"
Row = dict[str, str | float | int]


@dataclass(frozen=True, slots=True)
class Result:
    """What a benchmark measured.

    Attributes:
        rows: one a (set, model), in the order of the request.
        relative: model -> geometric means of MASE and WQL relative to seasonal naive, over the
            sets that the model and seasonal naive's published figures share.
        peers: the same of published models, over the same sets.
    """

    rows: list[Row]
    relative: dict[str, tuple[float, float]]
    peers: dict[str, tuple[float, float]]


def origins_of(one: Set) -> list[int]:
    """First row of each test window."""
    rows = one.values.shape[1]
    return [rows - (one.windows - k) * one.horizon for k in range(one.windows)]


def seasonal_naive(one: Set) -> Array:
    """Repeat the last m rows, as every quantile, (N, W, H, Q): the protocol's own floor."""
    ahead = np.stack(
        [
            one.values[:, o - one.season : o][:, np.arange(one.horizon) % one.season]
            for o in origins_of(one)
        ],
        axis=1,
    )
    return np.repeat(ahead[..., None], len(scores.LEVELS), axis=-1)


def forecasts(one: Set, model: str, settings: Settings | None = None) -> Array:
    """Quantiles (N, W, H, Q) of a model's forecasts of every test window.

    Args:
        one: the set.
        model: `auto`, `seasonal-naive`, or the beginning of candidates' names, of which the best
            on validation is taken: `ridge`, `in-context`, `smoothing`, `theta` ...
        settings: what else `auto` is told.
    """
    if model == "seasonal-naive":
        return seasonal_naive(one)
    settings = settings or Settings()
    if model != "auto":
        settings = Settings(models=(model,), blend=False)
    origins = origins_of(one)
    made = fit(one.values[:, : origins[0]], one.horizon, seasons_of(one.frequency), settings)
    return made.forecast(one.values, origins)


def score(one: Set, quantiles: Array) -> Row:
    """Every measure of the quantiles (N, W, H, Q) of a set's windows."""
    origins, values = origins_of(one), one.values
    truth = np.stack([values[:, o : o + one.horizon] for o in origins], axis=1)
    ordered = np.sort(quantiles, axis=-1)
    middle = scores.at_level(ordered, scores.LEVELS, 0.5)
    low, high = ordered[..., 0], ordered[..., -1]
    # The 95 % interval is wider than our outermost levels: continued along the same slope.
    reach = 0.5 * (ordered[..., 1] - low), 0.5 * (high - ordered[..., -2])
    seen = np.isfinite(truth)
    error = np.where(seen, truth - middle, np.nan)
    size = float(np.abs(truth[seen]).mean()) if seen.any() else float("nan")
    scales = np.stack([scores.seasonal_scale(values[:, :o], one.season) for o in origins], 1)
    squares = np.stack([scores.seasonal_scale(values[:, :o], one.season, 2) for o in origins], 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(truth != 0, np.abs(error / truth), np.nan)
    square = float(np.nanmean(error**2))
    absolute = float(np.nanmean(np.abs(error)))
    row: Row = {
        "MSE[mean]": square,
        "MSE[0.5]": square,
        "MAE[0.5]": absolute,
        "MASE[0.5]": scores.mase(truth, middle, scales),
        "MAPE[0.5]": float(np.nanmean(share)),
        "sMAPE[0.5]": scores.smape(truth, middle),
        "MSIS": scores.msis(truth, low - reach[0], high + reach[1], scales),
        "RMSE[mean]": square**0.5,
        "NRMSE[mean]": square**0.5 / size,
        "ND[0.5]": absolute / size,
        "mean_weighted_sum_quantile_loss": scores.wql(truth, ordered),
    }
    row = {_GIFT + name: value for name, value in row.items()}
    row["RMSSE"] = scores.rmsse(truth, middle, squares)
    row["CRPS"] = float(np.nanmean(scores.crps(truth, ordered)))
    row["coverage_80"] = scores.coverage(truth, ordered[..., 1], ordered[..., -2])
    row["coverage_90"] = scores.coverage(truth, low, high)
    row["left_out_series"] = int((~np.isfinite(scales)).all(1).sum())
    return row


def benchmark(
    names: Sequence[str],
    root: Path,
    models: Sequence[str] = ("auto", "ridge", "in-context", "seasonal-naive"),
    out: Path | None = None,
    settings: Settings | None = None,
    done: Callable[[Row], None] | None = None,
) -> Result:
    """Run models on sets, or go on where an earlier run stopped.

    Args:
        names: names of sets, see `sets.SETS`.
        root: folder that holds `ett/` and `bench/`.
        models: see `forecasts`.
        out: folder of `all_results.csv`; rows that stand there are not run again.
        settings: what `auto` is told.
        done: is called with every row as it is known.

    Raises:
        UsageError: an unknown set or candidate.
        NotFoundError: a file is not there.
        DataError: a file is not the published one, or `all_results.csv` is not ours.
    """
    known = _read(out) if out else {}
    rows: list[Row] = []
    for name in names:
        one: Set | None = None
        for model in models:
            row = known.get((name, model))
            if row is None:
                one = one or load_set(name, root)
                row = _measured(one, model, settings)
                if out:
                    _append(out, row)
            rows.append(row)
            if done:
                done(row)
    peers = published(root)
    return Result(rows, relative(rows, peers), _peer_means(names, peers))


def _measured(one: Set, model: str, settings: Settings | None) -> Row:
    begun = time.process_time()
    quantiles = forecasts(one, model, settings)
    seconds = time.process_time() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "dataset": one.name,
        "model": model,
        **score(one, quantiles),
        "domain": one.domain,
        "num_variates": len(one.values) if one.variates else 1,
        "cpu_seconds": seconds,
        "peak_memory_mb": peak,
    }


def relative(
    rows: Iterable[Row], peers: dict[str, dict[str, tuple[float, float]]]
) -> dict[str, tuple[float, float]]:
    """Geometric means of MASE and WQL over seasonal naive's published ones, by model."""
    logs: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        floor = peers.get(str(row["dataset"]), {}).get("seasonal_naive")
        if floor:
            ratio = float(row[MASE]) / floor[0], float(row[WQL]) / floor[1]
            logs.setdefault(str(row["model"]), []).append(ratio)
    return {model: _geometric(ratios) for model, ratios in logs.items()}


def _peer_means(
    names: Sequence[str], peers: dict[str, dict[str, tuple[float, float]]]
) -> dict[str, tuple[float, float]]:
    kept = [peers[name] for name in names if name in peers]
    everywhere = set.intersection(*map(set, kept)) if kept else set[str]()
    return {
        model: _geometric(
            [
                (one[model][0] / one["seasonal_naive"][0], one[model][1] / one["seasonal_naive"][1])
                for one in kept
            ]
        )
        for model in sorted(everywhere)
    }


def _geometric(ratios: list[tuple[float, float]]) -> tuple[float, float]:
    means = np.exp(np.log(np.maximum(np.asarray(ratios), 1e-12)).mean(0))
    return float(means[0]), float(means[1])


def _read(out: Path) -> dict[tuple[str, str], Row]:
    """Rows of an earlier run; a last line that was cut off is run again."""
    path = out / "all_results.csv"
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    if lines and set(lines[0]) - {None} != set(COLUMNS):
        raise DataError(
            f"{path} has other columns than a benchmark writes.",
            hint="Name another folder with --out.",
        )
    rows: dict[tuple[str, str], Row] = {}
    for line in lines:
        if any(line.get(column) in (None, "") for column in COLUMNS):
            continue
        row: Row = {
            column: line[column]
            if column in ("dataset", "model", "domain")
            else float(line[column])
            for column in COLUMNS
        }
        rows[line["dataset"], line["model"]] = row
    return rows


def _append(out: Path, row: Row) -> None:
    """Add a row and wait until the disk has it."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "all_results.csv"
    fresh = not path.exists()
    cut = not fresh and not path.read_bytes().endswith(b"\n")
    with path.open("a", newline="") as file:
        if cut:
            file.write("\n")
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row)
        file.flush()
        os.fsync(file.fileno())
