"""Train recipes, or take artefacts that are kept, and print how 90 % intervals fare on test parts.

python benchmarks/intervals.py itransformer-etth1-96 itransformer-etth2-96 metro-traffic
python benchmarks/intervals.py exchange --horizon 96 --keep /tmp/intervals
python benchmarks/intervals.py itransformer-etth1-96 --set 'model.quantiles=[0.05, 0.5, 0.95]'

The targets: 88 to 92 % covered in all, 85 to 95 % at every step, and a mean interval score below
that of the seasonal naive forecast with split conformal intervals.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def evaluated(name: str, horizon: int | None, settings: list[str], keep: Path) -> dict[str, object]:
    """Train once and keep the artefact in the folder; score what is there."""
    artefact = keep / "-".join([name, *([str(horizon)] if horizon else []), *settings])
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    if not (artefact / "forecaster.json").is_file():
        command = ["train", name, "--out", str(artefact), "--json"]
        command += ["--horizon", str(horizon)] if horizon else []
        command += [part for setting in settings for part in ("--set", setting)]
        forecast(command, environment)
    return json.loads(forecast(["evaluate", str(artefact), "--json"], environment))


def forecast(arguments: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "forecast", *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


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
    arguments = parser.parse_args()
    print("| data | intervals | covered | by step | width | interval score | CRPS |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        keep = arguments.keep or Path(temporary)
        for name in arguments.sources:
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
