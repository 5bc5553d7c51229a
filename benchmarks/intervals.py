"""Train recipes, or take artefacts that are kept, and print how 90 % intervals fare on test parts.

python benchmarks/intervals.py itransformer-etth1-96 itransformer-etth2-96 metro-traffic
python benchmarks/intervals.py exchange --horizon 96 --keep /tmp/intervals
python benchmarks/intervals.py itransformer-etth1-96 --set 'model.quantiles=[0.05, 0.5, 0.95]'

The rate of the adaptive intervals and how much of a move is shared were chosen by

python benchmarks/intervals.py itransformer-etth1-96 itransformer-etth2-96 metro-traffic --choose

on validation parts alone: calibrated on the first half of each, followed over the second.

The targets: 88 to 92 % covered in all, 85 to 95 % at every step, and a mean interval score below
that of the seasonal naive forecast with split conformal intervals.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

RATES = (0.003, 0.00625, 0.0125, 0.025, 0.05)
SHARES = (0.0, 0.5, 1.0)


def train(name: str, horizon: int | None, settings: list[str], keep: Path) -> Path:
    """Train once, and keep the artefact in the folder."""
    artefact = keep / "-".join([name, *([str(horizon)] if horizon else []), *settings])
    if not (artefact / "forecaster.json").is_file():
        command = ["train", name, "--out", str(artefact), "--json"]
        command += ["--horizon", str(horizon)] if horizon else []
        command += [part for setting in settings for part in ("--set", setting)]
        forecast(command)
    return artefact


def evaluated(name: str, horizon: int | None, settings: list[str], keep: Path) -> dict[str, object]:
    """Score what was trained."""
    artefact = train(name, horizon, settings, keep)
    return json.loads(forecast(["evaluate", str(artefact), "--json"]))


def forecast(arguments: list[str]) -> str:
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, "-m", "forecast", *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def choose(name: str, horizon: int | None, settings: list[str], keep: Path) -> None:
    """Print how each rate and share fares on the second half of the validation part."""
    import numpy as np
    import torch

    from forecast import api
    from forecast.series import data as loading
    from forecast.series import intervals, score

    torch.set_num_threads(1)
    trained = api.load(train(name, horizon, settings, keep))
    section, spec = trained.recipe.data, trained.spec
    table = loading.read(section.source, section, columns=trained.columns)
    data = loading.load(
        table, split=section.split, lookback=spec.lookback, horizon=spec.horizon,
        season=spec.season, marks=section.marks, scaler=trained.scaler,
        covariates=trained.covariates,
    )  # fmt: skip
    train_end, val_end, _ = data.borders.T
    halves = dataclasses.replace(
        data, borders=np.stack([train_end, (train_end + val_end) // 2, val_end], axis=1)
    )
    model = trained.model.eval()
    calibration = intervals.calibrate(model, halves.windows("val"))
    for rate, shared in itertools.product(RATES, SHARES):
        intervals.RATE, intervals.SHARED = rate, shared
        scores = score.score(
            model, halves, halves.windows("test"), calibration, ("adaptive",)
        )["intervals"]["adaptive"]  # fmt: skip
        print(row(name, f"rate {rate}, shared {shared}", scores["crps"], scores["levels"]["90"]))


def row(name: str, method: str, crps: float, figures: dict[str, object]) -> str:
    leads = figures["coverage_by_lead"]
    assert isinstance(leads, list)
    return (
        f"| {name} | {method} | {figures['coverage']:.3f} | {min(leads):.3f} to {max(leads):.3f} "
        f"| {figures['width']:.3f} | {figures['interval_score']:.4f} | {crps:.4f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", help="recipes or known data sets")
    parser.add_argument("--horizon", type=int)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--keep", type=Path, help="folder for artefacts, to be used again")
    parser.add_argument("--choose", action="store_true", help="compare rates on validation parts")
    arguments = parser.parse_args()
    print("| data | intervals | covered | by step | width | interval score | CRPS |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        keep = arguments.keep or Path(temporary)
        for name in arguments.sources:
            if arguments.choose:
                choose(name, arguments.horizon, arguments.settings, keep)
                continue
            found = evaluated(name, arguments.horizon, arguments.settings, keep)
            metrics = found["metrics"]
            naive = metrics["baselines"]["seasonal-naive"]["intervals"]
            for label, intervals in (
                (found["model"], metrics["test"]["intervals"]),
                ("naive", naive),
            ):
                for method, scores in intervals.items():
                    print(row(name, f"{label}, {method}", scores["crps"], scores["levels"]["90"]))
            best = metrics["test"]["intervals"]["adaptive"]["levels"]["90"]
            met = (
                0.88 <= best["coverage"] <= 0.92
                and min(best["coverage_by_lead"]) >= 0.85
                and max(best["coverage_by_lead"]) <= 0.95
                and best["interval_score"] < naive["split"]["levels"]["90"]["interval_score"]
            )
            print(f"| {name} | targets {'met' if met else 'MISSED'} | | | | | |", flush=True)


if __name__ == "__main__":
    main()
