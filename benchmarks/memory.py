"""Time and memory of one layer of the learning memory by the number of steps.

    python benchmarks/memory.py [--steps 1024 4096 16384] [--repeat 5] [--threads 1]
        [--kind deep] [--heads 4]

The layer is that of Titans at width 128 with one head (K = V = 128) and momentum, batch 1, forward
and backward; with `--kind deep` its memory has two layers, 256 wide between them. Every point runs
in a process of its own. Times are process CPU time, the least of the repeats after a warm-up;
memory is the peak resident size of the whole process.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time

WIDTH = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[1_024, 4_096, 16_384])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kind", choices=["linear", "deep"], default="linear")
    parser.add_argument("--heads", type=int, default=1)
    parser.add_argument("--point", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        print(json.dumps(measure(options.point, options)))
        return
    points = [run(steps, options) for steps in options.steps]
    print(f"{'steps':>8}{'CPU-ms':>10}{'peak MB':>10}")
    for steps, (cost, peak) in zip(options.steps, points, strict=True):
        print(f"{steps:8,}{cost:10.1f}{peak:10.0f}")
    if len(points) > 1:
        print(f"slope of the time on a log-log scale: {slope(options.steps, points):.2f}")


def measure(steps: int, options: argparse.Namespace) -> tuple[float, float]:
    """Time one number of steps in this process."""
    import torch

    from forecast.models.titans.layers import Memory, Tokens

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    layer = Memory(WIDTH, heads=options.heads, momentum=True, target="next", kind=options.kind)
    tokens = torch.randn(1, steps, WIDTH, requires_grad=True)
    place = torch.arange(steps).unsqueeze(0)
    known = Tokens(place, torch.ones_like(place, dtype=torch.bool))
    state = {name: torch.zeros(1, *size) for name, size in layer.sizes().items()}
    times: list[float] = []
    for _ in range(options.repeat + 1):
        start = time.process_time()
        layer(tokens, known, state)[0].sum().backward()
        times.append((time.process_time() - start) * 1e3)
        layer.zero_grad()
        tokens.grad = None
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return min(times[1:]), size / (2**20 if sys.platform == "darwin" else 2**10)


def run(steps: int, options: argparse.Namespace) -> tuple[float, float]:
    """Run a point in a fresh process."""
    command = [sys.executable, __file__, "--point", str(steps)]
    names = ("repeat", "threads", "kind", "heads")
    command += [f"--{name}={getattr(options, name)}" for name in names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    cost, peak = json.loads(done.stdout)
    return cost, peak


def slope(steps: list[int], points: list[tuple[float, float]]) -> float:
    """Fit log(time) against log(steps)."""
    x = [math.log(n) for n in steps]
    y = [math.log(cost) for cost, _ in points]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    rise = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return rise / sum((a - mean_x) ** 2 for a in x)


if __name__ == "__main__":
    main()
