"""Feed hostile lines to `forecast stream`, and count the internal errors: there are to be none.

Every second line is a good one, and its forecast must be that of a stream without the others.

python benchmarks/hostile_lines.py --lines 1000
"""

from __future__ import annotations

import argparse
import json
import random
import string
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

TRAIN = ("--lookback", "24", "--horizon", "4", "--model", "ridge")


def good(hours: int) -> list[str]:
    times = np.datetime64("2024-01-01T00") + np.arange(hours).astype("timedelta64[h]")
    rows = zip(times, np.sin(np.arange(hours) / 4), strict=True)
    return [f"{str(time).replace('T', ' ')}:00:00,{value:.4f}" for time, value in rows]


def hostile(draw: random.Random, row: str) -> bytes:
    """Spoil a row in one of many ways; a line feed is never part of it."""
    raw = row.encode()
    place, length = draw.randrange(len(raw)), draw.choice((1, 10, 200_000))
    noise = bytes(draw.randrange(256) for _ in range(draw.randrange(1, 40)))
    made = draw.choice(
        (
            noise,
            raw[:place] + noise + raw[place:],
            raw[:place],
            raw + b"," * length,
            raw.replace(b",", b"," + b"9" * length, 1),
            b'"' + raw,
            raw.replace(b",", b',"', 1),
            raw.replace(b"2024", draw.choice((b"0000", b"9999", b"-1", b"99999999999"))),
            raw.replace(b":00", draw.choice((b":30", b":61", b"")), 1),
            json.dumps({"date": row, "y": draw.choice((None, [], {}, "\ud800", 1e308))}).encode(),
            b"[" * length,
            raw + "".join(draw.choices(string.printable, k=9)).encode(),
            b"\x00" * length,
            b"\xff\xfe" + raw.decode().encode("utf-16-le"),
            raw.split(b",")[0] + draw.choice((b",inf", b",1e999", b",nan", b",0x10", b",--1")),
        )
    )
    return made.replace(b"\n", b" ").replace(b"\r", b" ")


def stream(model: Path, text: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "forecast", "stream", str(model), *options],
        input=text, capture_output=True, check=False,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    rows = good(arguments.lines)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "plant.csv").write_text("date,y\n" + "\n".join(rows[:400]) + "\n")
        command = [sys.executable, "-m", "forecast", "train", str(folder / "plant.csv"), *TRAIN]
        model = folder / "model"
        subprocess.run([*command, "--out", str(model)], check=True, capture_output=True)
        spoilt = [hostile(draw, row) for row in rows]
        text = b"date,y\n" + b"".join(
            row.encode() + b"\n" + bad + b"\n" for row, bad in zip(rows, spoilt, strict=True)
        )
        mixed = stream(model, text, "--bad-rows", str(folder / "bad.csv"))
        state = folder / "state.safetensors"
        stopped = [
            stream(model, b"date,y\n" + rows[0].encode() + b"\n" + bad + b"\n", "--state", state)
            for bad in spoilt[:2]
        ]
        faults = sum(done.returncode == 1 for done in (mixed, *stopped))
        traces = sum(b"Traceback" in done.stderr for done in (mixed, *stopped))
        issued = {line.split(b",")[0] for line in mixed.stdout.splitlines()[1:]}
        lost = sum(row.split(",")[0].encode() not in issued for row in rows)
        print(mixed.stderr.decode(errors="replace").strip())
        print(
            f"{len(spoilt):,} hostile lines: exit code {mixed.returncode}, {faults} internal "
            f"errors, {traces} tracebacks, {lost} of {len(rows):,} good rows without a forecast"
        )


if __name__ == "__main__":
    main()
