"""Run the Triton kernels on CPU tensors: in a process of their own, told so from its start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")


def test_kernels_agree_with_the_reference_in_tritons_interpreter():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(Path(__file__).parent / "interpreted.py"), "-q"],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
