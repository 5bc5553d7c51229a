"""The Triton kernels compile for GPUs that are not here, spill nothing, and do not grow.

After a change that is meant, write the table anew with

    UPDATE_RESOURCES=1 python -m pytest tests/kernels/test_resources.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

CAPABILITIES = (80, 90, 100)
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
def test_kernels_spill_nothing_and_do_not_grow(case, launches, compile_launch):
    import triton

    launch, dtype, width = CASES[case]
    launch(*(torch.zeros(1, 2, 128, width, dtype=dtype, requires_grad=True) for _ in range(3)))
    found = {}
    for number, item in enumerate(launches):
        name = item.kernel.__name__
        for capability in CAPABILITIES:
            used = compile_launch(item, capability)
            assert used.spilled == 0, (name, capability)
            assert used.registers <= (128 if name in LIGHT else 255), (name, capability)
            assert used.shared <= (99 if capability == 80 else 200) * 1024, (name, capability)
            found[f"{number} {name}, {capability}"] = [used.registers, used.shared]
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    if os.environ.get("UPDATE_RESOURCES"):
        table |= {"triton": triton.__version__, case: found}
        TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
    if triton.__version__ != table["triton"]:
        pytest.skip(f"the table is of Triton {table['triton']}; the limits above were held")
    assert found.keys() == table[case].keys()
    for name, used in found.items():
        for now, before in zip(used, table[case][name], strict=True):
            assert now <= 1.1 * before, f"{name}: {used}, in the table {table[case][name]}"
