"""The layout's promises: imports point down, no stray Python, and a wheel with what it needs."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "forecast"

# Bottom first; a module may import from its own level and from those before it.
LEVELS = [
    {"errors", "atomic", ""},
    {"batch"},
    {"kernels"},
    {"layers", "optimizer"},
    {
        "models",
        "data",
        "metrics",
        "grid_metrics",
        "graph_metrics",
        "device",
        "distributed",
        "sharded",
        "intervals",
    },
    {"recipe_sections"},
    {"recipe"},
    {"forecasters"},
    {"artefact", "checkpoint", "search_space", "starter"},
    {"tracking"},
    {"loop", "pictures", "runs"},
    {"interval_openings", "series_context"},
    {"evaluation", "prediction", "grid_prediction", "diagnostics"},
    {"bulk", "engines", "streaming", "tasks"},
    {"training"},
    {"backtest", "tuning"},
    {"cli", "__main__"},
]
# A program of its own, like the command line: MLflow's server runs it.
ENTRY_POINTS = {"tracking/pyfunc.py"}
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}


def unit(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path):
    """Yield the units of `forecast` that a file imports, anywhere in it but under TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "forecast":
            if node.module == "forecast":
                yield from (alias.name for alias in node.names if alias.name in LEVEL)
            else:
                yield unit(node.module)
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("forecast."):
                    yield unit(alias.name)


def files():
    return sorted(PACKAGE.rglob("*.py"))


def test_every_part_has_a_level():
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in files()}
    assert parts - {"__init__"} == set(LEVEL) - {""}


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    relative = path.relative_to(PACKAGE)
    if str(relative) in ENTRY_POINTS or relative == Path("__init__.py"):
        return
    own = LEVEL[relative.parts[0].removesuffix(".py")]
    upward = {name for name in imports(path) if LEVEL[name] > own}
    assert not upward, f"{relative} imports upward: {upward}"


def test_only_tracking_knows_mlflow_and_nothing_below_the_command_line_prints():
    for path in files():
        relative = path.relative_to(PACKAGE)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or ""] + [a.name for a in node.names]
                if any(name.split(".")[0] == "mlflow" for name in names):
                    assert relative.parts[0] == "tracking", relative
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
                raise AssertionError(f"{relative}:{node.lineno} prints")


def test_the_folders_people_work_with_hold_no_python():
    tracked = subprocess.run(
        ["git", "ls-files", "datasets", "cli", "mlflow"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    if tracked.returncode:
        pytest.skip("not a git checkout")
    assert not [name for name in tracked.stdout.split() if name.endswith(".py")]


def test_the_root_does_not_hide_mlflow_or_datasets():
    done = subprocess.run(
        [sys.executable, "-c", "import mlflow; print(mlflow.__version__)"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_what_an_installed_program_needs(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for wanted in (
        "forecast/catalogue/sample/metro_traffic.csv.gz",
        "forecast/recipes/itransformer-etth1-96.toml",
        "forecast/tracking/pyfunc.py",
        "forecast/cli/train.py",
    ):
        assert wanted in names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"forecast"}
    # From the wheel alone, in a folder of its own: the recipes and the sample are found.
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import forecast; assert sys.argv[1] in forecast.__file__\n"
        "from forecast import recipe\n"
        "from forecast.catalogue import DATASETS, files\n"
        "assert recipe.load('itransformer-etth1-96').model_config.width == 256\n"
        "print(files.locate(DATASETS['metro-traffic'].files[0]))\n"
    )
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    done = subprocess.run(
        [sys.executable, "-c", script, str(unpacked)],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(unpacked) in done.stdout
