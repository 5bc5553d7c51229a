"""The table of scores that `train` and `evaluate` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forecast.cli import console


def show(name: str, own: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the model's figures and the baselines', on standardised values and in units."""
    console.answer(
        f"Test part: {own['windows']:,} windows, {own['values']:,} values. MSE and MAE are on "
        "standardised values,\nthe columns after them are MAE in units of the data.\n"
    )
    columns = list(own["units"])[-4:]
    header = ("model", "MSE", "MAE", *columns)
    rows = [
        (
            label,
            console.figure(figures["mse"]),
            console.figure(figures["mae"]),
            *(_unit(figures["units"][column]["mae"]) for column in columns),
        )
        for label, figures in {
            name: own,
            **{f"  {key}": baselines[key] for key in baselines},
        }.items()
    ]
    console.table(header, rows, right=range(1, len(header)))
    for method, found in own.get("intervals", {}).items():
        level, figures = list(found["levels"].items())[-1]
        leads = figures["coverage_by_lead"]
        console.answer(
            f"{level} % intervals, {method}: {figures['coverage']:.1%} covered, "
            f"{min(leads):.0%} to {max(leads):.0%} by step, interval score "
            f"{figures['interval_score']:.3g}"
        )


def verdict(name: str, beaten_by: Sequence[str]) -> None:
    """Say so when baselines beat the model."""
    if beaten_by:
        console.answer(
            f"\n{name} loses to {' and '.join(beaten_by)} on these data: the baseline is the "
            "better forecast, and the cheaper one."
        )


def _unit(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
