"""The Triton kernels compile for GPUs that are not here, spill nothing, and do not grow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from .conftest import CAPABILITIES, Launch, Resources

TABLE = Path(__file__).parent / "resources.json"


def launch_all():
    from forecast.kernels.attention import triton as fused
    from forecast.kernels.probsparse import triton as sparse

    for dtype in (torch.bfloat16, torch.float32):
        for E in (64, 128) if dtype == torch.bfloat16 else (64,):
            q, k, v = (torch.zeros(1, 2, 128, E, dtype=dtype, requires_grad=True) for _ in range(3))
            pad = torch.zeros(1, 128, dtype=torch.bool)
            fused.attention(
                q, k, v, causal=True, window=50, key_padding=pad, dropout=0.0, scale=0.1
            ).sum().backward()
            rows = torch.arange(32).expand(1, 2, 32)
            sparse.attend(q, k, v, rows, causal=False, dropout=0.1).sum().backward()
            with torch.no_grad():
                sparse.measure(q, k, sample=None, causal=True)
                sparse.measure(q, k, sample=torch.arange(40), causal=True)


def test_x(launches, compile_launch):
    import time

    launch_all()
    for l in launches:
        for c in CAPABILITIES:
            a = time.process_time()
            r = compile_launch(l, c)
            print(
                l.kernel.__name__,
                l.arguments["WIDTH"],
                str((l.arguments.get("q") if "q" in l.arguments else l.arguments["x"]).dtype),
                c,
                r,
                round(time.process_time() - a, 2),
            )
