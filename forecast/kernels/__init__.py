"""Operations that decide how fast a model runs: one folder each, one function each.

Every folder has a facade (`__init__.py`), the specification (`reference.py`, as the paper writes
it, in plain torch) and faster forms of the same mathematics.
"""

from __future__ import annotations

import importlib

import torch

OPERATIONS = {
    "attention": "forecast.kernels.attention",
    "memory": "forecast.kernels.neural_memory",
    "probsparse": "forecast.kernels.probsparse",
    "lmu": "forecast.kernels.lmu",
    "gated": "forecast.kernels.gated",
    "segment": "forecast.kernels.segment",
}


def explain(
    device: torch.device | str, dtype: torch.dtype = torch.float32
) -> list[tuple[str, str, str]]:
    """Return for every operation which backend would run here, and why.

    Nothing is compiled or run.

    Returns:
        Rows of operation, backend, reason.
    """
    rows: list[tuple[str, str, str]] = []
    for module in OPERATIONS.values():
        rows += importlib.import_module(module).explain(torch.device(device), dtype)
    return rows
