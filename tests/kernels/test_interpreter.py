"""All Triton kernels on CPU tensors: in one process, told from its start to interpret them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

HERE = Path(__file__).parent
# Each file whose tests are marked `interpreter`.
FILES = (*sorted(HERE.glob("interpreted*.py")), HERE / "test_gated.py", HERE / "test_segment.py")


def test_every_file_with_a_marked_test_is_run():
    marked = {
        path
        for path in HERE.glob("*.py")
        if path != Path(__file__) and "pytest.mark.interpreter" in path.read_text()
    }
    assert marked == set(FILES)


@pytest.mark.parametrize(
    "which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)], ids=["some", "rest"]
)
def test_kernels_agree_with_the_reference_in_tritons_interpreter(which):
    # Nothing of this run's workers and options.
    variables = {name: to for name, to in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", *map(str, FILES), "-m", f"interpreter and {which}",
            "-n", "0",
            "-p", "no:cacheprovider",
        ],
        env=variables | {"TRITON_INTERPRET": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
