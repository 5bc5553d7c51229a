"""What a change of the code's layout must leave equal: recorded before, compared after.

    python benchmarks/equality.py record FOLDER      run everything on this tree, and keep it
    python benchmarks/equality.py compare FOLDER     run it again; exit 1 if anything differs
    python benchmarks/equality.py load FOLDER        load the recorded artefacts and forecast again
    python benchmarks/equality.py artefacts FOLDER   write the artefacts of tests/artefacts

Small runs of every model and every kind of data, backtests, streams, bulk predictions and every
`--help`: weights and forecasts as bytes, documents and messages as text in which times, paths and
ids are masked. The program is driven by its command line and by `forecast.load` and
`forecast.predict` alone, so that the same script runs on any tree. Data are drawn from seeds.
One thread and float32: on one machine, with the same packages, equal means bit for bit. A Python
environment of its own is not needed; FORECAST_HOME and the working folder are temporary.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import difflib
import hashlib
import io
import json
import os
import re
import runpy
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

# Before anything reads them: torch its threads, typer the width of its help.
os.environ |= {
    "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "100", "NO_COLOR": "1",
    "TERMINAL_WIDTH": "100", "GIT_PYTHON_REFRESH": "quiet", "PYTHONWARNINGS": "ignore",
}  # fmt: skip
for _name in ("FORCE_COLOR", "FORECAST_DEBUG", "FORECAST_HOME", "FORECAST_DATA"):
    os.environ.pop(_name, None)
# The tree that this script lies in, whatever is installed.
TREE = str(Path(__file__).resolve().parent.parent)
sys.path.insert(0, TREE)

import numpy as np  # noqa: E402 - after the number of threads is settled

START = np.datetime64("2024-03-01T00:00")
COMMON = ["train.epochs=1", "train.threads=1", 'train.precision="fp32"', 'train.device="cpu"']
ATTENTION = ["model.width=8", "model.heads=2", "model.feed_forward=16"]
WIDE = ["data/wide.csv", "--lookback", "24", "--horizon", "6"]
PANEL = ["data/panel.csv", "--lookback", "24", "--horizon", "6", "--target", "y", "--id", "shop"]
COVARIATES = [
    'data.past_covariates=["heat"]', 'data.known_future=["promo"]', 'data.categorical=["sky"]',
    'data.static=["size", "town"]', 'data.holidays="DE"',
]  # fmt: skip
GRID = ["data/grid.nc", "--lookback", "6", "--horizon", "3"]
GATED = ["model.width=8", "model.heads=2", "model.gate=8", "model.blocks=3", "model.patch=2"]
GRAPH = ["model.width=8", "model.heads=2", "model.depth=1"]
LINKS = ["data/events.csv", "--model", "todyformer", "--lookback", "60"]
SENSORS = ("data/readings.csv", "data/edges.csv")
# Fast enough that the memory, which starts with no say beside the direct path, has one.
CARRIED = ["model.width=8", "model.segment=96", "train.learning_rate=0.02", "train.epochs=2"]


def run(arguments, settings, source, **options):
    """Describe a training run: how it is asked for, and what the trained model then forecasts."""
    return {"train": arguments, "settings": settings, "source": source, "options": options}


RUNS = {
    "informer": run([*WIDE, "--model", "informer"], ATTENTION, "data/wide.csv"),
    "informer-stack": run(
        [*WIDE, "--model", "informer"],
        [*ATTENTION, "model.quantiles=[0.1, 0.5, 0.9]", "model.stack=[2, 1]", "model.factor=2",
         'model.attention="published"'],
        "data/wide.csv",
    ),
    "itransformer": run(
        [*WIDE, "--model", "itransformer"], [*ATTENTION, "train.epochs=3"], "data/wide.csv",
        level=[90],
    ),
    "itransformer-panel": run(
        [*PANEL, "--model", "itransformer"], [*ATTENTION, *COVARIATES], "data/panel.csv",
        future="data/future.csv",
    ),
    "lmuformer": run([*WIDE, "--model", "lmuformer"], CARRIED, "data/wide.csv"),
    "lmuformer-spiking": run(
        [*WIDE, "--model", "lmuformer"],
        [*CARRIED, "model.spiking=true", "model.calendar=true", "model.half_life=48"],
        "data/wide.csv",
    ),
    "lmuformer-panel": run([*PANEL, "--model", "lmuformer"], CARRIED, "data/panel.csv"),
    "titans": run(
        [*WIDE, "--model", "titans"], [*CARRIED, "model.heads=2", "model.patch=4"], "data/wide.csv"
    ),
    "titans-deep": run(
        [*WIDE, "--model", "titans"],
        [*CARRIED, "model.heads=2", "model.patch=4", 'model.memory="deep"', "model.momentum=true",
         'model.variant="layer"'],
        "data/wide.csv",
    ),
    "dlinear": run([*WIDE, "--model", "dlinear"], ["model.kernel=5"], "data/wide.csv", level=[50]),
    "dlinear-panel": run(
        [*PANEL, "--model", "dlinear"],
        ["model.kernel=5", 'data.known_future=["promo"]', "model.quantiles=[0.1, 0.5, 0.9]"],
        "data/panel.csv", future="data/future.csv",
    ),
    "ridge": run([*WIDE, "--model", "ridge"], [], "data/wide.csv", level=[90], method="split"),
    "ridge-panel": run([*PANEL, "--model", "ridge"], [], "data/panel.csv", level=[90]),
    "ridge-dialect": run(
        ["data/dialect.csv", "--model", "ridge", "--lookback", "24", "--horizon", "6",
         "--date-format", "%d.%m.%Y %H:%M", "--timezone", "Europe/Berlin", "--fill", "linear"],
        [], "data/dialect.csv",
    ),
    "persistence": run([*WIDE, "--model", "persistence"], [], "data/wide.csv"),
    "seasonal-naive": run([*WIDE, "--model", "seasonal-naive"], [], "data/wide.csv"),
    "mean": run([*WIDE, "--model", "mean"], [], "data/wide.csv"),
    "predformer": run([*GRID, "--model", "predformer"], GATED, "data/grid.nc"),
    "predformer-direct": run(
        [*GRID, "--model", "predformer"],
        [*GATED, 'model.head="direct"', 'model.base="blend"', "model.calendar=true",
         "model.references=true", "model.window_norm=true"],
        "data/grid.nc",
    ),
    "grid-rule": run([*GRID, "--model", "grid-rule"], ['model.rule="day"'], "data/grid.nc"),
    "todyformer": run(LINKS, [*GRAPH, "data.queries=50", "model.patches=4"], None, top=3),
    "todyformer-affinity": run(
        LINKS,
        [*GRAPH, "data.queries=50", 'data.task="affinity"', "data.period=50", "model.patches=4"],
        None, top=3,
    ),
    "todyformer-node": run(
        ["data/nodes.json", "--lookback", "5", "--horizon", "2"], GRAPH, "data/nodes.json"
    ),
    "todyformer-sensors": run(["data/sensors.toml"], GRAPH, SENSORS),
}  # fmt: skip

# The runs whose artefacts are kept in the tests: one for each model, and each form of an artefact.
KEPT = (
    "informer", "itransformer", "itransformer-panel", "lmuformer", "titans", "titans-deep",
    "dlinear", "ridge", "ridge-panel", "persistence", "seasonal-naive", "mean", "predformer",
    "grid-rule", "todyformer", "todyformer-affinity", "todyformer-node", "todyformer-sensors",
)  # fmt: skip

_FAST = [word for one in COMMON for word in ("--set", one)]
# After the runs, on their artefacts: what else the program does.
COMMANDS = {
    "evaluate informer": ["evaluate", "out/informer", "--json"],
    "evaluate lmuformer cold": ["evaluate", "out/lmuformer", "--cold", "--json"],
    "evaluate ridge on a file": ["evaluate", "out/ridge", "data/wide.csv", "--json"],
    "evaluate panel": ["evaluate", "out/itransformer-panel"],
    "evaluate grid": ["evaluate", "out/predformer", "--json"],
    "evaluate graph": ["evaluate", "out/todyformer", "data/later.csv", "--json"],
    "evaluate sensors": ["evaluate", "out/todyformer-sensors", "--json"],
    "evaluate shares": ["evaluate", "out/todyformer-affinity", "--json"],
    "predict intervals": [
        "predict", "out/itransformer", "data/wide.csv", "--level", "90", "--level", "50",
        "--intervals", "split", "--out", "made/intervals.csv", "--json",
    ],
    "predict to a screen": ["predict", "out/dlinear", "data/wide.csv", "--level", "80"],
    "predict after a history": [
        "predict", "out/titans", "data/wide-late.csv", "--history", "data/wide-early.csv",
        "--out", "made/history.parquet", "--json",
    ],
    "predict with a future": [
        "predict", "out/dlinear-panel", "data/panel.csv", "--future", "data/future.csv",
        "--out", "made/future.csv", "--json",
    ],
    "predict grid": ["predict", "out/predformer", "data/grid.nc", "--out", "made/g.nc", "--json"],
    "predict grid to zarr": ["predict", "out/grid-rule", "data/grid.nc", "--out", "made/g.zarr"],
    "predict links": [
        "predict", "out/todyformer", "data/later.csv", "--source", "a3", "--source", "nobody",
        "--top-k", "4", "--out", "made/links.csv", "--json",
    ],
    "predict in bulk": [
        "predict", "out/ridge-panel", "data/bulk", "--level", "90", "--out", "made/bulk/", "--json",
    ],
    "backtest": [
        "backtest", *WIDE, "--model", "dlinear", "--model", "persistence", "--windows", "2",
        *_FAST, "--json",
    ],
    "backtest of a panel": [
        "backtest", *PANEL, "--model", "ridge", "--windows", "2", "--rolling", *_FAST,
    ],
    "backtest of a grid": [
        "backtest", *GRID, "--model", "grid-rule", "--windows", "2", *_FAST, "--json",
    ],
    "tune": [
        "tune", *WIDE, "--model", "dlinear", "--trials", "2",
        "--search", "train.learning_rate=0.001,0.01", *_FAST, "--json",
    ],
    "baselines": ["baselines", *WIDE, "--json"],
    "baselines of a grid": ["baselines", *GRID],
    "go on from a model": [
        "train", *WIDE, "--init", "out/dlinear", *_FAST, "--out", "made/again", "--json",
    ],
    "recipe of a table": ["init", "data/wide.csv", "--horizon", "6", "--out", "made/wide.toml"],
    "recipe of a grid": ["init", "data/grid.nc", "--out", "made/grid.toml"],
    "register": [
        "train", *WIDE, "--model", "persistence", *_FAST, "--register", "kept", "--alias",
        "champion",
    ],
    "registry": ["registry", "list", "--json"],
    "registered": ["predict", "models:/kept@champion", "data/wide.csv"],
    "runs": ["compare", "--json"],
    "runs as text": ["compare", "--data", "grid.nc"],
    "models": ["models", "list", "--json"],
    "models as text": ["models", "list"],
    "data sets": ["datasets", "list", "--json"],
    "a data set": ["datasets", "show", "etth1", "--json"],
    "a data set of grids": ["datasets", "show", "taxibj", "--json"],
    "a data set of graphs": ["datasets", "show", "collegemsg"],
    # What goes wrong, in the words that a user reads.
    "no such model": ["train", *WIDE, "--model", "imformer"],
    "no such key": ["train", *WIDE, "--set", "train.epoch=3"],
    "a value that is not allowed": ["train", *WIDE, "--set", "train.epochs=0"],
    "a model of another kind": ["train", *GRID, "--model", "ridge"],
    "no such file": ["train", "data/none.csv"],
    "too short": ["train", "data/wide.csv", "--horizon", "300", "--lookback", "300"],
    "an option for graphs": ["predict", "out/ridge", "data/wide.csv", "--top-k", "3"],
    "an option for tables": ["predict", "out/predformer", "data/grid.nc", "--level", "90"],
    "other columns": ["predict", "out/ridge", "data/panel.csv"],
    "a stream of a model without a state": ["stream", "out/dlinear"],
    "a stream of a closed form": ["stream", "out/ridge"],
}  # fmt: skip
STREAMS = {
    "stream of a table": (["stream", "out/lmuformer", "--every", "8"], "data/wide.csv"),
    "stream of a panel": (
        ["stream", "out/lmuformer-panel", "--every", "20", "--horizon", "2"], "data/stream.csv"
    ),
    "stream of a deep memory": (["stream", "out/titans-deep", "--every", "16"], "data/rows.jsonl"),
    "memory of a stream": (["stream", "out/titans", "--info"], "data/wide.csv"),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("record", "compare", "load", "artefacts"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--all", action="store_true", help="print equal items too")
    options = parser.parse_args()
    folder = options.folder.resolve()
    started = time.process_time()
    if options.what == "load":
        recorded = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        found = forecasts(folder)
        differing = report({name: recorded[name] for name in found}, found, everything=True)
    elif options.what == "artefacts":
        with workplace() as work:
            keep(work, folder)
        return
    else:
        with workplace() as work:
            found = observed(work)
            if options.what == "record":
                write(work, folder, found)
                print(f"{len(found)} items recorded in {folder}")
                differing = [
                    name
                    for name, text in found.items()
                    if name.startswith(("train ", "forecast "))
                    and text.startswith("exit: ")
                    and not text.startswith("exit: 0")
                ]
                print("".join(f"failed: {name}\n{found[name]}\n" for name in differing), end="")
            else:
                recorded = json.loads((folder / "record.json").read_text(encoding="utf-8"))
                differing = report(recorded, found, everything=options.all)
    print(f"{time.process_time() - started:.0f} CPU-s")
    sys.exit(1 if differing else 0)


@contextlib.contextmanager
def workplace():
    """Go to a new folder of small data; the program's own home is in it too."""
    with tempfile.TemporaryDirectory(prefix="forecast-equality-") as name:
        work, before = Path(name).resolve(), Path.cwd()
        os.environ["FORECAST_HOME"] = str(work / "home")
        os.environ["FORECAST_DATA"] = str(work / "data")
        os.chdir(work)
        try:
            for below in ("data", "out", "made"):
                (work / below).mkdir()
            make_data(work / "data")
            yield work
        finally:
            os.chdir(before)


def observed(work: Path) -> dict[str, str]:
    """Run everything; each item is a hash of bytes, or a text."""
    found: dict[str, str] = {}
    for path in helps():
        found[f"help: {' '.join(path)}"] = command([*path, "--help"], work)
    for name, one in RUNS.items():
        print(name, file=sys.stderr, flush=True)
        found[f"train {name}"] = train(name, one, work)
        found |= artefact(name, work / "out" / name)
    found |= forecasts(work)
    for name, arguments in COMMANDS.items():
        print(name, file=sys.stderr, flush=True)
        found[name] = command(arguments, work)
    for name, (arguments, source) in STREAMS.items():
        print(name, file=sys.stderr, flush=True)
        found[name] = command(arguments, work, given=(work / source).read_bytes())
    for path in sorted((work / "made").rglob("*")):
        if path.is_file():
            found[f"written: {path.relative_to(work)}"] = content(path)
    return found


def train(name: str, one: dict, work: Path) -> str:
    settings = [word for line in [*COMMON, *one["settings"]] for word in ("--set", line)]
    return command(["train", *one["train"], *settings, "--out", f"out/{name}", "--json"], work)


def forecasts(work: Path) -> dict[str, str]:
    """Load every artefact by the library, and forecast by it."""
    import forecast

    found = {}
    before = Path.cwd()
    os.chdir(work)
    try:
        for name, one in RUNS.items():
            try:
                held = forecast.load(f"out/{name}")
                text = as_text(forecast.predict(held, one["source"], **one["options"]))
            except Exception as error:  # noqa: BLE001 - an item too
                text = f"exit: {traceback.format_exception_only(error)}"
            found[f"forecast {name}"] = text
    finally:
        os.chdir(before)
    return found


def command(arguments: list[str], work: Path, given: bytes = b"") -> str:
    """Run a command as `python -m forecast` does, in this process; return all that it says."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(3)]
    streams[0].buffer.write(given)
    streams[0].buffer.seek(0)
    before = sys.argv, sys.stdin, sys.stdout, sys.stderr
    sys.argv, (sys.stdin, sys.stdout, sys.stderr) = ["forecast", *arguments], streams
    code: object = 0
    try:
        runpy.run_module("forecast", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv, sys.stdin, sys.stdout, sys.stderr = before
    for stream in streams[1:]:
        stream.flush()
    out, err = (stream.buffer.getvalue().decode() for stream in streams[1:])
    with contextlib.suppress(json.JSONDecodeError):
        out = json.dumps(masked(json.loads(out)), indent=1, ensure_ascii=False)
    text = f"exit: {code}\n{out}\n--- stderr\n{err}"
    return cleaned(text, work)


def helps() -> list[list[str]]:
    """Walk through the commands by what `--help` names."""
    paths, ahead = [], [[]]
    while ahead:
        path = ahead.pop(0)
        paths.append(path)
        text = command([*path, "--help"], Path.cwd())
        usage = next((line for line in text.splitlines() if "Usage:" in line), "")
        if "COMMAND" in usage:
            ahead += [[*path, name] for name in re.findall(r"(?m)^│ ([a-z][a-z-]*) {2}", text)]
    return paths


# Keys of documents whose values tell of the machine, the hour or the place.
_VOLATILE = {
    "versions", "seconds", "cpu_seconds", "peak_memory_mb", "run_id", "start_seconds", "created",
    "started", "ended", "duration", "changed", "rows_per_second", "experiment_id", "study",
}  # fmt: skip


def masked(value, key=""):
    """Mask what differs from one run to the next."""
    if key in _VOLATILE or key.endswith("_seconds"):
        return "#"
    if isinstance(value, dict):
        return {name: masked(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [masked(one) for one in value]
    return value


_PATTERNS = (
    (r"(?m)^.*\b(?:alembic|mlflow\.)[^\n]*\n", ""),
    (r"\b\d{8}-\d{6}-[0-9a-f]{4}\b", "<run>"),
    (r"\b[0-9a-f]{32}\b", "<id>"),
    # The data are of 2024.
    (r"\b20(?:2[5-9]|[3-9]\d)-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?(?:Z|\+\d\d:\d\d)?",
     "<time>"),
    (r"[\w/.-]+\.py:\d+", "<line>"),
    (r" *\b[\d.,]+ ?(?:CPU-s|ms|s|seconds|MB|rows/s|series/s)(?![\w])", " #"),
    (r"[ \t]+$", ""),
)  # fmt: skip


def cleaned(text: str, work: Path) -> str:
    text = text.replace(str(work), "<work>").replace(TREE, "<tree>")
    for pattern, instead in _PATTERNS:
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    return text


def artefact(name: str, folder: Path) -> dict[str, str]:
    """Describe an artefact: each of its files, and the numbers whatever they are called."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = {f"artefact {name}: files": "\n".join(str(one.relative_to(folder)) for one in files)}
    for path in files:
        found[f"artefact {name}: {path.relative_to(folder)}"] = content(path)
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            tensors = load_file(path)
            marks = sorted(
                hashlib.sha256(f"{one.shape}{one.dtype}".encode() + one.tobytes()).hexdigest()
                for one in tensors.values()
            )
            found[f"artefact {name}: {path.stem}, values"] = digest("".join(marks).encode())
    return found


def content(path: Path) -> str:
    """Return a file's text, its numbers, or its hash."""
    if path.suffix == ".json":
        described = masked(json.loads(path.read_text(encoding="utf-8")))
        if isinstance(described, dict):
            # Hashes of the other files, which are items themselves.
            described.pop("sha256", None)
        return cleaned(json.dumps(described, indent=1, ensure_ascii=False), Path.cwd())
    if path.suffix == ".toml":
        return cleaned(path.read_text(encoding="utf-8"), Path.cwd())
    if path.suffix == ".nc":
        import xarray

        with xarray.open_dataset(path, engine="h5netcdf") as data:
            return as_text(data.load())
    return digest(path.read_bytes())


def as_text(result) -> str:
    """Put a forecast into text without loss: a frame as CSV, grids as their numbers."""
    if hasattr(result, "write_csv"):
        return result.write_csv()
    lines = [f"{result.sizes!r}", f"{result.attrs!r}"]
    for name, one in sorted(result.variables.items()):
        values = one.values
        if values.dtype.kind == "M":
            values = values.astype(str)
        lines.append(f"{name} {one.dims} {one.dtype} {one.attrs!r} {values.tolist()}")
    return "\n".join(lines) + "\n"


def digest(data: bytes) -> str:
    return f"sha256 {hashlib.sha256(data).hexdigest()}"


def write(work: Path, folder: Path, found: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for below in ("data", "out"):
        shutil.rmtree(folder / below, ignore_errors=True)
        shutil.copytree(work / below, folder / below)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    (folder / "record.json").write_text(text, encoding="utf-8")


def report(recorded: dict[str, str], found: dict[str, str], *, everything: bool) -> list[str]:
    """Print a table of what is equal and what differs; return the names of the latter."""
    names = [*recorded, *(name for name in found if name not in recorded)]
    differing = []
    for name in names:
        before, after = recorded.get(name), found.get(name)
        if before == after:
            if everything:
                print(f"equal      {name}")
            continue
        differing.append(name)
        print(f"different  {name}")
        if before is None or after is None:
            print(f"             {'new' if before is None else 'gone'}")
            continue
        lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
        changed = [line for line in lines if line[:2] not in ("--", "++", "@@")]
        # Of a long difference the beginning of both, since an error stands where a document stood.
        shown = [line for sign in "-+" for line in [o for o in changed if o[0] == sign][:4]]
        print("".join(f"             {line[:200]}\n" for line in shown), end="")
        if len(changed) > len(shown):
            print(f"             ... {len(changed) - len(shown)} lines more")
    print(f"\n{len(names) - len(differing)} equal, {len(differing)} different")
    return differing


def keep(work: Path, folder: Path) -> None:
    """Write the artefacts of the tests: the models, what they forecast from, and what they said."""
    import forecast

    folder.mkdir(parents=True, exist_ok=True)
    cases, sources = {}, set()
    for name in KEPT:
        one = RUNS[name]
        said = train(name, one, work)
        if not said.startswith("exit: 0"):
            sys.exit(f"{name}: {said}")
        result = forecast.predict(forecast.load(f"out/{name}"), one["source"], **one["options"])
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(work / "out" / name, folder / name)
        if hasattr(result, "write_csv"):
            result.write_csv(folder / name / "forecast.csv")
        else:
            values = {str(key): value.values.tolist() for key, value in result.data_vars.items()}
            text = json.dumps(values, indent=1)
            (folder / name / "forecast.json").write_text(text, encoding="utf-8")
        cases[name] = {"source": one["source"], "options": one["options"]}
        for given in (one["source"], one["options"].get("future")):
            sources |= {given} if isinstance(given, str) else set(given or ())
    (folder / "data").mkdir(exist_ok=True)
    for source in sources:
        shutil.copy(work / source, folder / source)
    text = json.dumps(cases, indent=1) + "\n"
    (folder / "cases.json").write_text(text, encoding="utf-8")


def make_data(folder: Path) -> None:
    """Draw all data from seeds."""
    wide = wide_table()
    table(folder / "wide.csv", wide)
    table(folder / "wide-early.csv", wide[:300])
    table(folder / "wide-late.csv", [wide[0], *wide[300:]])
    dialect(folder / "dialect.csv", wide)
    rows = [dict(zip(wide[0], row, strict=True)) for row in wide[1:]]
    (folder / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    panel, future = panel_tables()
    table(folder / "panel.csv", panel)
    table(folder / "future.csv", future)
    short = [panel[0][:3], *(row[:3] for row in panel[1:])]
    table(folder / "stream.csv", [short[0], *sorted(short[1:], key=lambda row: row[1])[:240]])
    (folder / "bulk").mkdir()
    table(folder / "bulk" / "first.csv", short[:400])
    # A series that is too short, and one with a step of its own, which has no forecast.
    few = [["few", *row[1:]] for row in short[1:6]]
    slow = [["slow", *row[1:]] for row in short[1:100:2]]
    table(folder / "bulk" / "second.csv", [short[0], *short[400:], *few, *slow])
    grid(folder / "grid.nc")
    table(folder / "events.csv", events(500, 0, 0))
    table(folder / "later.csv", events(60, 1, 1200))
    sensors(folder)
    nodes(folder / "nodes.json")


def table(path: Path, rows: list) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def hours(count: int) -> list[str]:
    return [str(START + np.timedelta64(hour, "h")).replace("T", " ") for hour in range(count)]


def wide_table(count: int = 360) -> list:
    random = np.random.default_rng(0)
    hour = np.arange(count)
    load = 50 + 10 * np.sin(hour * np.pi / 12) + random.normal(size=count)
    heat = 15 + 6 * np.cos(hour * np.pi / 12) + 0.5 * random.normal(size=count)
    cold = 0.4 * load - 0.2 * heat + random.normal(size=count)
    values = np.round(np.stack([load, heat, cold], 1), 2)
    rows = [[at, *row] for at, row in zip(hours(count), values.tolist(), strict=True)]
    # Some cells are missing.
    for row in random.integers(0, count - 1, 6):
        rows[row][2] = ""
    return [["date", "load", "heat", "cold"], *rows]


def dialect(path: Path, wide: list) -> None:
    """Write it as another country does, with a row missing."""
    lines = ["Zeit;Last;Wärme"]
    for at, load, heat, _ in wide[1:200] + wide[201:]:
        day, hour = at.split(" ")
        numbers = (str(one).replace(".", ",") for one in (load, heat))
        lines.append(f"{'.'.join(reversed(day.split('-')))} {hour};{';'.join(numbers)}")
    path.write_bytes(("\r\n".join(lines) + "\r\n").encode("utf-8-sig"))


def panel_tables(count: int = 240, ahead: int = 6) -> tuple[list, list]:
    random = np.random.default_rng(1)
    head = ["shop", "time", "y", "heat", "promo", "sky", "size", "town"]
    rows, future = [head], [["shop", "time", "promo"]]
    for place, name in enumerate(("north", "south", "west")):
        promo = random.integers(0, 2, count + ahead)
        heat = np.round(random.normal(size=count), 2)
        y = 10 * (place + 1) + np.sin(np.arange(count) * np.pi / 12) + 3 * promo[:count]
        y = np.round(y + np.concatenate([[0], heat[:-1]]), 3)
        sky = random.choice(["rain", "sun"], count)
        times = hours(count + ahead)
        town = "port" if place else "inland"
        columns = (times[:count], y.tolist(), heat.tolist(), promo[:count].tolist(), sky.tolist())
        rows += [[name, *row, 10 * (place + 1), town] for row in zip(*columns, strict=True)]
        future += [[name, times[row], int(promo[row])] for row in range(count, count + ahead)]
    return rows, future


def grid(path: Path, count: int = 192) -> None:
    import xarray

    random = np.random.default_rng(2)
    place = np.arange(24).reshape(4, 6) / 7
    values = 280 + 5 * np.sin(np.arange(count)[:, None, None] * np.pi / 12 + place)
    values = values + random.normal(size=(count, 4, 6))
    data = xarray.Dataset(
        {"t2m": (("time", "lat", "lon"), values.astype(np.float32), {"units": "K"})},
        {
            "time": (START + np.arange(count) * np.timedelta64(1, "h")).astype("datetime64[ns]"),
            "lat": np.linspace(58, 55, 4),
            "lon": np.linspace(-10, -5, 6),
        },
    )
    data.to_netcdf(path, engine="h5netcdf")


def events(count: int, seed: int, late: float) -> list:
    random = np.random.default_rng(seed)
    source = random.integers(0, 15, count)
    target = 2 * source + random.integers(0, 2, count)
    at = np.round(np.sort(random.uniform(0, 1000, count)) + late, 2)
    weight = random.integers(1, 5, count)
    rows = zip(source.tolist(), target.tolist(), at.tolist(), weight.tolist(), strict=True)
    return [["src", "dst", "t", "weight"], *([f"a{a}", f"b{b}", t, w] for a, b, t, w in rows)]


def sensors(folder: Path, count: int = 240) -> None:
    random = np.random.default_rng(3)
    step = np.arange(count)[:, None]
    values = np.round(
        60 + 10 * np.sin(step / 10 + np.arange(4)) + random.normal(size=(count, 4)), 2
    )
    names = ["773869", "767541", "767542", "717447"]
    table(folder / "readings.csv", [names, *values.tolist()])
    weights = ["weight", 0.5, 0.9, 0.3]
    table(folder / "edges.csv", list(zip(["src", *names[:3]], ["dst", *names[1:]], weights,
                                         strict=True)))  # fmt: skip
    (folder / "sensors.toml").write_text(
        '[data]\nsource = ["data/readings.csv", "data/edges.csv"]\ntask = "sensor"\n'
        "split = [160, 30, 50]\n[window]\nlookback = 6\nhorizon = 3\n"
    )


def nodes(path: Path, count: int = 60) -> None:
    random = np.random.default_rng(4)
    values = random.poisson(20 + 10 * np.sin(np.arange(count)[:, None] / 4 + np.arange(5)))
    named = {str(step): [[0, 1], [1, 2], [2, 3], [3, 4], [4, step % 4]] for step in range(count)}
    weights = {str(step): random.integers(1, 9, 5).tolist() for step in range(count)}
    mapping = {"edge_index": named, "edge_weight": weights}
    path.write_text(json.dumps({"y": values.tolist(), "edge_mapping": mapping}))


if __name__ == "__main__":
    main()
