"""Kill -9 at random moments: train, registration, tune, stream and predict; go on; count losses.

After each kill the same command is run again, as a user would, and what it leaves must be, byte for
byte, what an undisturbed run leaves: weights, forecasts, one version for one registration, every
trial once, every row of a stream once. Litter in the folders counts as a loss too.

python benchmarks/kills.py --times 100
python benchmarks/kills.py --times 10 --only predict stream
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SMALL = (
    "--lookback", "24", "--horizon", "4", "--set", "model.width=16", "--set", "model.heads=2",
    "--set", "train.epochs=3", "--set", "train.batch_size=16", "--set", "train.threads=1",
    "--set", "train.checkpoint_seconds=0.1",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One command that is killed: how it is run, run again, and what it must leave."""

    run: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]]
    left: Callable[[Path], str]
    stdin: bytes = b""


def digest(*paths: Path) -> str:
    found = hashlib.sha256()
    for path in paths:
        found.update(path.read_bytes() if path.is_file() else b"absent")
    return found.hexdigest()[:16]


def rows(count: int) -> bytes:
    times = np.datetime64("2024-01-01T00") + np.arange(count).astype("timedelta64[h]")
    random_walk = np.random.default_rng(0).normal(size=count)
    lines = (
        f"{str(time).replace('T', ' ')}:00:00,{np.sin(number / 4) + value / 5:.4f}\n"
        for number, (time, value) in enumerate(zip(times, random_walk, strict=True))
    )
    return ("date,y\n" + "".join(lines)).encode()


def attacks(table: Path, model: Path, text: bytes) -> dict[str, Attack]:
    train = ["train", str(table), *SMALL, "--json"]

    def versions(folder: Path) -> str:
        shown = command(folder, ["registry", "show", "plant", "--json"])
        document = json.loads(shown.stdout)
        weights = digest(folder / "artefact" / "weights.safetensors")
        return f"{document['name']} {document['version']} {weights}"

    def trials(folder: Path) -> str:
        done = command(folder, ["tune", str(table), *SMALL, "--trials", "3", "--json"])
        document = json.loads(done.stdout)
        return f"{document['trials']} {document['loss']}"

    def forecasts(folder: Path) -> str:
        lines = (folder / "out.csv").read_bytes().splitlines(keepends=True)
        whole = {line for line in lines if line.endswith(b"\n")}
        return hashlib.sha256(b"".join(sorted(whole))).hexdigest()[:16]

    def out(folder: Path) -> list[str]:
        return ["--out", str(folder / "artefact")]

    tune = ["tune", str(table), *SMALL, "--trials", "3", "--json"]
    register = ["--register", "plant", "--alias", "champion"]
    return {
        "train": Attack(
            run=lambda folder: [*train, *out(folder)],
            again=lambda folder: [*train, *out(folder), "--resume"],
            left=lambda folder: digest(folder / "artefact" / "weights.safetensors"),
        ),
        "registration": Attack(
            run=lambda folder: [*train, *out(folder), *register],
            again=lambda folder: [*train, *out(folder), *register, "--resume"],
            left=versions,
        ),
        "tune": Attack(run=lambda _: tune, again=lambda _: tune, left=trials),
        "stream": Attack(
            run=lambda folder: [
                "stream", str(model), "--state", str(folder / "state"), "--save-every", "50",
            ],
            again=lambda folder: ["stream", str(model), "--state", str(folder / "state")],
            left=forecasts,
            stdin=text,
        ),
        "predict": Attack(
            run=lambda folder: ["predict", str(model), str(table), "--out", f"{folder}/f.csv"],
            again=lambda folder: ["predict", str(model), str(table), "--out", f"{folder}/f.csv"],
            left=lambda folder: digest(folder / "f.csv"),
        ),
    }  # fmt: skip


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "FORECAST_HOME": str(folder / "home"), "OMP_WAIT_POLICY": "PASSIVE"}


def command(
    folder: Path, arguments: list[str], stdin: bytes = b"", kill_after: float | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run to the end, or kill after a time; a stream appends what it writes to a file."""
    with (folder / "out.csv").open("ab") as out:
        streams = arguments[0] == "stream"
        try:
            return subprocess.run(
                [sys.executable, "-m", "forecast", *arguments],
                input=stdin, stdout=out if streams else subprocess.PIPE, stderr=subprocess.PIPE,
                env=environment(folder), check=False, timeout=kill_after,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            return subprocess.CompletedProcess(arguments, -9, error.stdout or b"", b"")


def litter(folder: Path) -> list[str]:
    """Name temporary files that nobody will take up again."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob(".*")
        if not path.name.endswith(".lock") and "mlartifacts" not in path.parts
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        table, text = root / "plant.csv", rows(400)
        table.write_bytes(text)
        made = command(root, ["train", str(table), *SMALL, "--out", str(root / "model")])
        assert made.returncode == 0, made.stderr.decode()
        for name, attack in attacks(table, root / "model", text).items():
            if arguments.only and name not in arguments.only:
                continue
            first = root / name
            first.mkdir()
            began = time.monotonic()
            done = command(first, attack.run(first), attack.stdin)
            duration = time.monotonic() - began
            assert done.returncode == 0, done.stderr.decode()
            expected, losses, killed = attack.left(first), 0, 0
            for number in range(arguments.times):
                folder = root / f"{name}-{number}"
                folder.mkdir()
                moment = draw.uniform(0.2, 1.0) * duration
                killed += command(folder, attack.run(folder), attack.stdin, moment).returncode < 0
                again = command(folder, attack.again(folder), attack.stdin)
                found = attack.left(folder) if again.returncode == 0 else again.stderr.decode()
                left = litter(folder)
                if found != expected or left:
                    losses += 1
                    print(f"{name}, killed after {moment:.2f} s: {found} {left}")
            print(
                f"{name}: {duration:.1f} s undisturbed, {killed} of {arguments.times} killed, "
                f"{losses} losses",
                flush=True,
            )


if __name__ == "__main__":
    main()
