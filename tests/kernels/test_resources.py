"""The Triton kernels compile for GPUs that are not here, spill nothing, and do not grow.

After a change that is meant, write the table anew with

    UPDATE_RESOURCES=1 python -m pytest tests/kernels/test_resources.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

TABLE = Path(__file__).parent / "resources.json"
# Kernels that multiply no large tiles leave room for many blocks on a multiprocessor.
LIGHT = {"_measure", "_running"}


def launch_attention(q, k, v):
    from forecast.kernels.attention.triton import attention

    padding = torch.zeros(1, 128, dtype=torch.bool)
    attention(
        q, k, v, causal=True, window=50, key_padding=padding, dropout=0.0, scale=0.1
    ).sum().backward()


def launch_probsparse(q, k, v):
    from forecast.kernels.probsparse import triton as form

    rows = torch.arange(32).expand(1, 2, 32)
    with torch.no_grad():
        form.measure(q, k, sample=None, causal=False)
        form.measure(q, k, sample=torch.arange(40), causal=True)
    form.attend(q, k, v, rows, causal=False, dropout=0.1).sum().backward()


CASES = {
    "attention, bfloat16, 64": (launch_attention, torch.bfloat16, 64),
    "attention, float32, 64": (launch_attention, torch.float32, 64),
    "probsparse, bfloat16, 64": (launch_probsparse, torch.bfloat16, 64),
    "probsparse, bfloat16, 128": (launch_probsparse, torch.bfloat16, 128),
    "probsparse, float32, 64": (launch_probsparse, torch.float32, 64),
}


@pytest.mark.parametrize("case", CASES)
def test_kernels_spill_nothing_and_do_not_grow(
    case, capability, launches, compile_launch, hold_to_table
):
    launch, dtype, width = CASES[case]
    launch(*(torch.zeros(1, 2, 128, width, dtype=dtype, requires_grad=True) for _ in range(3)))
    found = {}
    for number, item in enumerate(launches):
        name = item.kernel.__name__
        used = compile_launch(item, capability)
        assert used.spilled == 0, name
        assert used.registers <= (128 if name in LIGHT else 255), name
        assert used.shared <= (99 if capability == 80 else 200) * 1024, name
        found[f"{number} {name}, {capability}"] = [used.registers, used.shared]
    hold_to_table(TABLE, case, found)
