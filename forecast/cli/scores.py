"""The table of scores that `train` and `evaluate` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from forecast.cli import console

if TYPE_CHECKING:
    from forecast.recipe import Recipe

_MOST_NAMED = 3
# Columns of a table whose errors stand beside the others; more have a table of their own.
_BESIDE = 4
# Measures without a unit, which compare series of any size.
_FREE = ("mase", "wape")
# Measures of grids that published tables hold, in their order.
_OPENSTL = ("mse", "mae", "ssim", "psnr")
_AREA = ("rmse", "mae", "bias", "acc")


def show(name: str, own: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the model's figures and the baselines', on standardised values and in units."""
    if "units" not in own:
        _show_measures(name, own, baselines)
        return
    from forecast.scoring.measures import MEASURES

    # Counts scaled to [0, 1] have errors that four decimals do not show.
    figure = _unit if "openstl" in own else console.figure
    scaled = "scaled" if "openstl" in own else "standardised"
    free = [key for key in _FREE if own.get(key) is not None]
    columns = list(own["units"]) if len(own["units"]) <= _BESIDE else []
    beside = "the columns after them are MAE in units of the data.\n" if columns else ""
    console.answer(
        f"Test part: {own['windows']:,} windows, {own['values']:,} values. MSE and MAE are on "
        f"{scaled} values{',' if beside else '.'}\n{beside}"
    )
    shown = ("mse", "mae", *free)
    header = ("model", *(MEASURES[key].heading for key in shown), *columns)
    rows = [
        (
            label,
            figure(figures["mse"]),
            figure(figures["mae"]),
            *(_unit(figures.get(key)) for key in free),
            *(_unit(figures["units"][column]["mae"]) for column in columns),
        )
        for label, figures in {
            name: own,
            **{f"  {key}": baselines[key] for key in baselines},
        }.items()
    ]
    console.table(header, rows, right=range(1, len(header)))
    if not columns:
        _show_columns(name, own, baselines)
    for method, found in own.get("intervals", {}).items():
        level, figures = list(found["levels"].items())[-1]
        leads = figures["coverage_by_lead"]
        console.answer(
            f"{level} % intervals, {method}: {figures['coverage']:.1%} covered, "
            f"{min(leads):.0%} to {max(leads):.0%} by step ahead, interval score "
            f"{figures['interval_score']:.3g}"
        )


def _show_columns(
    name: str, own: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]
) -> None:
    """Print the MAE of every column of a wide table, a row for each."""
    console.answer("\nMAE of each column, in units of the data:\n")
    rows = [
        (column, *(_unit(one["units"][column]["mae"]) for one in (own, *baselines.values())))
        for column in own["units"]
    ]
    header = ("column", name, *baselines)
    console.table(header, rows, right=range(1, len(header)))


def _show_measures(
    name: str, own: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]
) -> None:
    """Print what forecasts on graphs are judged by; values are in their own unit."""
    from forecast.scoring.measures import of_kind

    counted = "queries" if "queries" in own else "values"
    console.answer(f"Test part: {own[counted]:,} {counted}.\n")
    shown = {name: row for name, row in of_kind("graph").items() if own.get(name) is not None}
    header = ("model", *(row.heading for row in shown.values()))
    rows = [
        (label, *(_measure(figures.get(measure)) for measure in shown))
        for label, figures in {
            name: own,
            **{f"  {key}": baselines[key] for key in baselines},
        }.items()
    ]
    console.table(header, rows, right=range(1, len(header)))
    if leads := own.get("mae_by_lead"):
        places = sorted({0, len(leads) // 4, len(leads) // 2, len(leads) - 1})
        told = ", ".join(f"{leads[place]:.4g} at {place + 1}" for place in places)
        console.answer(f"MAE by steps ahead: {told}")


def _measure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def show_protocol(own: Mapping[str, Any], protocol: str) -> None:
    """Print, below the table, the protocol, and of grids what published tables hold."""
    if "units" not in own:
        console.answer(f"\nprotocol: {protocol}")
    if "openstl" not in own:
        return
    from forecast.scoring.measures import MEASURES

    found = {key: own["openstl"][key] for key in _OPENSTL if key in own["openstl"]}
    sums = [f"{MEASURES[key].title} {value:.4g}" for key, value in found.items()]
    lines = [f"protocol {protocol}; summed over each frame, as OpenSTL has it: {', '.join(sums)}"]
    for column, figures in own.get("area", {}).items():
        parts = [
            f"{MEASURES[key].title} {figures[key]:.4g}"
            for key in _AREA
            if figures.get(key) is not None
        ]
        lines.append(f"{column}{', by area' if 'rmse' in figures else ''}: {', '.join(parts)}")
    console.answer("\n" + "\n".join(lines))


def show_precision(recipe: Recipe) -> None:
    """Print, below the table, in what precision the model was trained; scores are in fp32."""
    from forecast.models import MODELS

    if not MODELS[recipe.model].closed_form:
        console.answer(f"trained in {recipe.train.precision}, scored in fp32")


def verdict(name: str, beaten_by: Sequence[str]) -> None:
    """Say so when baselines beat the model."""
    if beaten_by:
        better = " and ".join(beaten_by[:_MOST_NAMED])
        if (more := len(beaten_by) - _MOST_NAMED) > 0:
            better += f" and {more} more"
        console.answer(
            f"\n{name} loses to {better} on these data: the baseline is the better forecast, and "
            "the cheaper one."
        )


def _unit(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
