"""Compile Triton kernels for GPUs that are not here, and read what the compiler says they use."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Launch(NamedTuple):
    """Hold one launch that a form made: the kernel and its arguments by name."""

    kernel: Any
    arguments: dict[str, Any]
    options: dict[str, int]


class Resources(NamedTuple):
    """Hold what one thread, or for shared memory one block, of a kernel uses."""

    registers: int
    spilled: int
    shared: int


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs Triton's interpreter, but in the process that has it."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return
    needing = [item for item in items if item.get_closest_marker("interpreter")]
    config.hook.pytest_deselected(items=needing)
    items[:] = [item for item in items if item not in needing]


# Of the compute capabilities one by default, all three with the slow tests.
@pytest.fixture(
    params=[
        pytest.param(80, marks=pytest.mark.slow), 90, pytest.param(100, marks=pytest.mark.slow)
    ]
)  # fmt: skip
def capability(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def hold_to_table(capability: int) -> Callable[[Path, str, dict[str, list[int]]], None]:
    """Give a function that holds registers and shared memory to what a table says of this GPU.

    `UPDATE_RESOURCES=1` writes them into the table instead, for a change that is meant.
    """
    import triton

    def hold(path: Path, case: str, found: dict[str, list[int]]) -> None:
        table = json.loads(path.read_text()) if path.exists() else {}
        if os.environ.get("UPDATE_RESOURCES"):
            others = {
                name: used
                for name, used in table.get(case, {}).items()
                if not name.endswith(f", {capability}")
            }
            table |= {"triton": triton.__version__, case: others | found}
            path.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
        if triton.__version__ != table["triton"]:
            pytest.skip(f"the table is of Triton {table['triton']}; the limits above were held")
        stated = {
            name: used for name, used in table[case].items() if name.endswith(f", {capability}")
        }
        assert found.keys() == stated.keys()
        for name, used in found.items():
            for now, before in zip(used, stated[name], strict=True):
                assert now <= 1.1 * before, f"{name}: {used}, in the table {stated[name]}"

    return hold


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Launch]]:
    """Record kernel launches instead of running them, so that what is compiled is what is run."""
    jit = pytest.importorskip("triton.runtime.jit", reason="Triton is not installed")
    # The default changes in Triton 3.10; the numbers below belong to this one.
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    recorded: list[Launch] = []

    def record(kernel: Any, *values: Any, grid: Any, warmup: bool, **named: Any) -> None:
        arguments = dict(zip(kernel.arg_names, values, strict=False))
        options = {key: named.pop(key) for key in ("num_warps", "num_stages") if key in named}
        recorded.append(Launch(kernel, arguments | named, options))

    monkeypatch.setattr(jit.JITFunction, "run", record)
    return recorded


@pytest.fixture
def compile_launch(tmp_path: Path) -> Callable[[Launch, int], Resources]:
    """Give a function that compiles a recorded launch for a compute capability."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.runtime.jit import mangle_type

    # They come with Triton; a compute capability needs no such device.
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

    def run(tool: str, *arguments: str | Path) -> str:
        command = [str(tools / tool), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    def read(pattern: str, text: str) -> tuple[str, ...]:
        match = re.search(pattern, text)
        assert match, text
        return match.groups()

    def compile_launch(launch: Launch, capability: int) -> Resources:
        constants = {
            parameter.name: launch.arguments[parameter.name]
            for parameter in launch.kernel.params
            if parameter.is_constexpr
        }
        signature, attributes = {}, {}
        for place, name in enumerate(launch.kernel.arg_names):
            value = launch.arguments[name]
            signature[name] = "constexpr" if name in constants else mangle_type(value)
            # What a launch would specialise on: aligned pointers, sizes that 16 divides.
            aligned = hasattr(value, "data_ptr") or (isinstance(value, int) and value % 16 == 0)
            if name not in constants and aligned:
                attributes[(place,)] = [["tt.divisibility", 16]]
        source = ASTSource(launch.kernel, signature, constants, attributes)
        target = GPUTarget("cuda", capability, 32)
        built = triton.compile(source, target=target, options=launch.options)
        cubin, ptx = tmp_path / "kernel.cubin", tmp_path / "kernel.ptx"
        cubin.write_bytes(built.asm["cubin"])
        registers, stack = (
            int(n) for n in read(r"REG:(\d+) STACK:(\d+)", run("cuobjdump", "-res-usage", cubin))
        )
        spilled = 0
        if stack:
            # Spills live on the stack, but not they alone: the assembler tells them apart.
            ptx.write_text(built.asm["ptx"])
            (architecture,) = read(r"\.target (\w+)", built.asm["ptx"])
            report = run(
                "ptxas-blackwell", "-v", f"--gpu-name={architecture}", ptx, "-o", os.devnull
            )
            spilled = sum(int(n) for n in re.findall(r"(\d+) bytes spill", report))
        return Resources(registers, spilled, built.metadata.shared)

    return compile_launch
