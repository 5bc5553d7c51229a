"""Time and memory of full, SDPA, published, shared and exact attention by sequence length.

    python benchmarks/attention.py [--lengths 96 336 1440] [--repeat 5] [--threads 1]

Every point runs in a process of its own, on tensors laid out as a model hands them over (heads
split from a projection). Times are process CPU time, the least of the repeats after a warm-up;
memory is what the process's peak resident size grew by. A point that would need more than
--memory GB is left out.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time

BATCH, HEADS, WIDTH = 4, 8, 64
FORMS = {
    "full, reference": {"mode": "full", "backend": "reference"},
    "full, SDPA": {"mode": "full", "backend": "sdpa"},
    "published layout": {"mode": "published", "backend": "reference"},
    "shared": {"mode": "shared", "backend": "auto"},
    "exact": {"mode": "exact", "backend": "auto"},
}
# The published code itself, forward and forward + backward in ms, on another machine.
PUBLISHED_CODE = {96: (18.4, 22.6), 336: (191, 218), 720: (532, 526), 1440: (1325, 1439)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[96, 192, 336, 720, 1440, 2880, 5760]
    )
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", type=float, default=8.0, help="limit of a point in GB")
    parser.add_argument("--point", nargs=2, metavar=("FORM", "LENGTH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        form, length = options.point
        print(json.dumps(measure(form, int(length), options)))
        return
    results = {
        form: {length: run(form, length, options) for length in options.lengths} for form in FORMS
    }
    titles = ("ms forward", "ms forward + backward", "MB forward", "MB forward + backward")
    for place, title in enumerate(titles):
        show(title, results, place)


def measure(form: str, length: int, options: argparse.Namespace) -> list[float]:
    """Time one form at one length in this process."""
    import torch

    from forecast.kernels.probsparse import probsparse

    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(BATCH, length, HEADS, WIDTH, generator=generator).transpose(1, 2)
        for _ in range(3)
    )

    def forward() -> torch.Tensor:
        return probsparse(q, k, v, generator=generator, **FORMS[form])

    def both() -> None:
        forward().sum().backward()
        q.grad = k.grad = v.grad = None

    def least(call) -> float:
        times = []
        for _ in range(options.repeat + 1):
            start = time.process_time()
            call()
            times.append((time.process_time() - start) * 1e3)
            if sum(times) > 20e3 and len(times) > 1:
                break
        return min(times[1:])

    # The first call of all loads what torch loads late.
    small = torch.randn(1, 1, 8, WIDTH, requires_grad=True)
    probsparse(small, small, small, **FORMS[form]).sum().backward()
    limit = int(options.memory * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    base = peak()
    forward_time, forward_peak = least(forward), peak()
    for x in (q, k, v):
        x.requires_grad_()
    both_time, both_peak = least(both), peak()
    return [forward_time, both_time, forward_peak - base, both_peak - base]


def peak() -> float:
    """Give the peak resident size of this process in MB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (2**20 if sys.platform == "darwin" else 2**10)


def run(form: str, length: int, options: argparse.Namespace) -> list[float] | None:
    """Run a point in a fresh process; None when it does not fit."""
    command = [sys.executable, __file__, "--point", form, str(length)]
    command += [f"--{name}={getattr(options, name)}" for name in ("repeat", "threads", "memory")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "memory" not in done.stderr:
        raise SystemExit(done.stderr)
    return None if done.returncode else json.loads(done.stdout)


def show(title: str, results: dict[str, dict[int, list[float] | None]], place: int) -> None:
    """Print one quantity by form and length, and its slope on a log-log scale from L = 720 on."""
    lengths = list(next(iter(results.values())))
    print(f"\n{title}".ljust(23) + "".join(f"{f'L={n}':>10}" for n in lengths) + f"{'slope':>8}")
    for form, points in results.items():
        values = {n: point[place] for n, point in points.items() if point}
        cells = "".join(f"{values[n]:10.2f}" if n in values else f"{'-':>10}" for n in lengths)
        print(f"{form:<22}{cells}{slope({n: x for n, x in values.items() if n >= 720}):>8}")
    if place < 2:
        cells = "".join(f"{PUBLISHED_CODE.get(n, ('-', '-'))[place]:>10}" for n in lengths)
        print(f"{'published code, noted':<22}{cells}")


def slope(values: dict[int, float]) -> str:
    """Fit log(value) against log(length)."""
    if len(values) < 2 or min(values.values()) <= 0:
        return "-"
    x = [math.log(n) for n in values]
    y = [math.log(value) for value in values.values()]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    rise = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return f"{rise / sum((a - mean_x) ** 2 for a in x):.2f}"


if __name__ == "__main__":
    main()
