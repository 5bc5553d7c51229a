"""Where and in what precision a model runs, and what that costs."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch

from forecast.errors import UsageError

Precision = Literal["auto", "fp32", "bf16"]
# What a run takes for `auto`, whatever the processor has; the tests force each in turn.
FORCED = "FORECAST_PRECISION"


def choose_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:n` into a device that is there.

    Raises:
        UsageError: the name is none of these, or no such device is there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise UsageError(
            f"The device {name!r} is none of auto, cpu, cuda or cuda:<number>.",
            hint="Write --set train.device=auto, or leave it out.",
        )
    if kind == "cuda":
        found = torch.cuda.device_count()
        if int(number or 0) >= found:
            raise UsageError(
                f"The device {name!r} is not there: torch {torch.__version__} sees {found} CUDA "
                "devices.",
                hint="Use device cpu or auto.",
            )
    return torch.device(name)


def choose_precision(name: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """Turn `auto` into bf16 where the processor multiplies bf16 in units of its own, else fp32.

    On a CPU these are AMX tiles; the older AVX-512 instructions for bf16 do not make up for the
    casts in models of a size that one trains on a CPU. The environment variable FORECAST_PRECISION,
    `fp32` or `bf16`, stands in for what the processor has.

    Raises:
        UsageError: FORECAST_PRECISION is neither of these.
    """
    if name != "auto":
        return name
    forced = os.environ.get(FORCED, "").strip().lower()
    if forced in ("fp32", "bf16"):
        return forced
    if forced not in ("", "auto"):
        raise UsageError(
            f"{FORCED} is {forced!r}; it may be fp32, bf16 or auto.",
            hint=f"Unset {FORCED}, or write --set train.precision=fp32.",
        )
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_amx_tile_supported() else "fp32"  # pyright: ignore[reportPrivateUsage]


def autocast(
    precision: Literal["fp32", "bf16"], device: torch.device
) -> AbstractContextManager[object]:
    """Enter the precision: nothing for fp32, torch's autocast for bf16."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


# Below so many weights, a step's operations are too short to be worth sharing out.
_SMALL_MODEL = 4_000_000


def set_threads(count: int, weights: int = 0) -> int:
    """Set torch's threads.

    Args:
        count: the number; 0 takes one for a small model, else all processors of this process.
        weights: how many weights the model has.

    Returns:
        The number in force.
    """
    if not count and weights < _SMALL_MODEL:
        count = 1
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(count or available or 1)
    return torch.get_num_threads()


@contextmanager
def memory_errors(what: str, batch_size: int) -> Generator[None]:
    """Turn running out of memory into an error that names the batch size.

    Args:
        what: what was being done, as in `training`.
        batch_size: the batch size in use.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        exhausted = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not exhausted and "can't allocate memory" not in str(error):
            raise
        raise UsageError(
            f"Out of memory while {what} with batches of {batch_size}.",
            hint=f"Try --set train.batch_size={max(1, batch_size // 2)}, or a smaller model.",
        ) from error


class Stopwatch:
    """Measure wall time, CPU time of all threads, and the peak memory of this process."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()

    def read(self) -> dict[str, float]:
        """Return `seconds` since it was made, `cpu_seconds` and `peak_memory_mb` of the process.

        CPU time counts from the start of the process, so the imports are in it.
        """
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Linux counts in KiB, macOS in bytes.
        peak_bytes = peak if sys.platform == "darwin" else peak * 1024
        return {
            "seconds": round(time.perf_counter() - self._wall, 3),
            "cpu_seconds": round(time.process_time(), 3),
            "peak_memory_mb": round(peak_bytes / 1e6, 1),
        }
