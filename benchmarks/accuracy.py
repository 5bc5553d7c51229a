"""Train recipes as a user would, each in a process of its own, and print a row for each.

python benchmarks/accuracy.py itransformer-etth1-96 itransformer-etth2-96 --seeds 0 1 2
python benchmarks/accuracy.py itransformer-etth1-96 --set train.precision=bf16
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile


def run(recipe: str, seed: int, settings: list[str], home: str) -> dict[str, object]:
    command = [
        sys.executable, "-m", "forecast", "train", recipe, "--json", "--set", f"train.seed={seed}"
    ]  # fmt: skip
    for setting in settings:
        command += ["--set", setting]
    environment = {**os.environ, "FORECAST_HOME": home, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--set", action="append", default=[], dest="settings")
    arguments = parser.parse_args()
    names = ("persistence", "seasonal-naive", "ridge")
    print("| recipe | seed | MSE | MAE | best epoch | CPU-s | MB |", *names, "|", sep=" | ")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as home:
        for recipe in arguments.recipes:
            scores = []
            for seed in arguments.seeds:
                found = run(recipe, seed, arguments.settings, home)
                test, validation = found["metrics"]["test"], found["metrics"]["validation"]
                scores.append((test["mse"], test["mae"]))
                baselines = " | ".join(
                    f"{found['metrics']['baselines'][name]['mse']:.4f}" for name in names
                )
                print(
                    f"| {recipe} | {seed} | {test['mse']:.4f} | {test['mae']:.4f} "
                    f"| {validation.get('best_epoch', '-')} | {found['cpu_seconds']:.1f} "
                    f"| {found['peak_memory_mb']:.0f} | {baselines} |",
                    flush=True,
                )
            if len(scores) > 1:
                means = [statistics.mean(column) for column in zip(*scores, strict=True)]
                spreads = [statistics.stdev(column) for column in zip(*scores, strict=True)]
                print(
                    f"| {recipe} | mean | {means[0]:.4f} ± {spreads[0]:.4f} "
                    f"| {means[1]:.4f} ± {spreads[1]:.4f} | | | | | | |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
