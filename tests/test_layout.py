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

# Bottom first. A file may import from the rooms below its own and from its own room, never from
# another room of its level. A name with a dot takes one file out of its room.
LEVELS = [
    {"", "errors"},
    {"atomic"},
    {"limits", "locks", "paths"},
    {"outputs"},
    {"batch", "device", "documents"},
    {"scoring", "auto"},
    {"benchmark"},
    {"kernels"},
    {"layers"},
    {"models"},
    {"catalogue", "tables"},
    # What a recipe reads of a kind: its section, and the formats that the section names.
    {
        "grids.axes",
        "grids.calendars",
        "grids.files",
        "grids.section",
        "graphs.events",
        "graphs.formats",
        "graphs.section",
        "graphs.sniff",
    },
    {"recipe"},
    {"training"},
    {"contracts"},
    {"series", "grids", "graphs"},
    {"kinds"},
    {"artefact"},
    {"tracking"},
    {"engines"},
    {"runs"},
    {"api"},
    {"cli", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
# A program of its own, like the command line: MLflow's server runs it.
ENTRY_POINTS = {"forecast.tracking.pyfunc", "forecast.__main__", "forecast"}


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def unit(module):
    """The longest name of `LEVELS` that a module lies in."""
    parts = module.split(".")[1:]
    names = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((name for name in names if name in LEVEL), "")


def imports(module, *, deferred=True):
    """The modules of `forecast` that a file imports, but under TYPE_CHECKING.

    Without `deferred`, only what is imported when the file is.
    """
    tree = ast.parse(FILES[module].read_text())
    left_out = {
        id(child)
        for node in ast.walk(tree)
        if (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        or (not deferred and isinstance(node, ast.FunctionDef))
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "forecast":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in FILES else node.module
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "forecast")


def test_every_part_has_a_level():
    parts = {module.split(".")[1] for module in FILES if module != "forecast"}
    assert parts <= {name.partition(".")[0] for name in LEVEL}


@pytest.mark.parametrize("module", [name for name in FILES if name not in ENTRY_POINTS])
def test_imports_point_down(module):
    own = unit(module)
    for imported in set(imports(module)) - {"forecast"}:
        other = unit(imported)
        room, its_room = own.partition(".")[0], other.partition(".")[0]
        assert LEVEL[other] < LEVEL[own] or (LEVEL[other] == LEVEL[own] and room == its_room), (
            f"{module} imports {imported}, which is not below it"
        )


def test_no_circle_of_files():
    """Files that import each other, however far around, cannot be read one at a time."""
    graph = {
        module: {name for name in imports(module) if name in FILES and name != module}
        for module in FILES
    }
    # A package's __init__ hands on what its files define; they may import the package's name.
    for imported in graph.values():
        imported.discard("forecast")
    circles, done = [], set()
    for start in sorted(graph):
        path, trail = [(start, iter(sorted(graph[start])))], [start]
        while path:
            here, rest = path[-1]
            following = next(rest, None)
            if following is None:
                done.add(here)
                path.pop()
                trail.pop()
            elif following in trail:
                circles.append([*trail[trail.index(following) :], following])
            elif following not in done:
                path.append((following, iter(sorted(graph[following]))))
                trail.append(following)
    assert not circles, circles


def test_only_kinds_tells_kinds_apart():
    """What differs among kinds is a function of the kind's own module, found through `kinds`.

    The catalogue and the recipe say which kind a source is of; the table of models, which kind a
    model is of.
    """
    allowed = {"kinds", "catalogue", "recipe", "models"}
    found = []
    for module, path in FILES.items():
        if unit(module).partition(".")[0] in allowed:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare) and {
                part.value for part in ast.walk(node) if isinstance(part, ast.Constant)
            } & {"series", "grid", "graph"}:
                text = ast.unparse(node)
                if "kind" in text:
                    found.append(f"{module}:{node.lineno} {text}")
            if isinstance(node, ast.Assert) and "isinstance" in ast.unparse(node):
                text = ast.unparse(node)
                if "Forecaster" in text or "Section" in text or "Data" in text:
                    found.append(f"{module}:{node.lineno} {text}")
    assert not found, found


def test_no_model_is_asked_what_attributes_it_has():
    """What a model may offer is a protocol of models/protocols.py, told by isinstance."""
    for module, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "hasattr":
                assert "model" not in ast.unparse(node.args[0]), f"{module}:{node.lineno}"


def test_only_tracking_knows_mlflow_and_nothing_below_the_command_line_prints():
    for path in FILES.values():
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
