"""Kill a training with SIGKILL at random moments, resume it, and compare every byte of the weights.

python benchmarks/kill.py --times 20
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = (
    sys.executable, "-m", "forecast", "train", "metro-traffic", "--horizon", "24", "--json",
    "--set", "model.width=32", "--set", "model.heads=4", "--set", "train.epochs=3",
    "--set", "train.checkpoint_seconds=0.5", "--set", "train.threads=1",
)  # fmt: skip


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "FORECAST_HOME": str(home), "OMP_WAIT_POLICY": "PASSIVE"}


def weights(document: str) -> str:
    path = Path(json.loads(document)["artefact"], "weights.safetensors")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        began = time.monotonic()
        done = subprocess.run(
            COMMAND, env=environment(folder / "first"), capture_output=True, text=True, check=True
        )
        duration, expected = time.monotonic() - began, weights(done.stdout)
        print(f"undisturbed: {duration:.1f} s, weights {expected[:16]}")
        equal = 0
        for number in range(arguments.times):
            home = environment(folder / str(number))
            process = subprocess.Popen(
                COMMAND, env=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            moment = draw.uniform(0, duration)
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.kill()
            process.wait()
            done = subprocess.run(
                [*COMMAND, "--resume"], env=home, capture_output=True, text=True, check=True
            )
            same = weights(done.stdout) == expected
            equal += same
            going_on = next((s for s in done.stderr.splitlines() if "Going on" in s), "from new")
            print(f"killed after {moment:5.2f} s: {'equal' if same else 'DIFFERENT'}  ({going_on})")
        print(f"{equal} of {arguments.times} resumed runs end with the undisturbed weights")


if __name__ == "__main__":
    main()
