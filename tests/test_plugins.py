"""Models and data sets that an installed package adds, from its metadata to a registered model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from forecast import artefact
from forecast.catalogue import DATASETS
from forecast.errors import NotFoundError, UsageError
from forecast.models import MODELS, ModelInfo, model_info
from tests.conftest import environment

PACKAGE = Path(__file__).parent / "plugin_package"
ROW = """from forecast.models import ModelInfo
GOOD = ModelInfo(
    title="one", source="", module="MODULE", model="Net", config="Config", streams=STREAMS
)
OTHER = 3
ODD = ModelInfo(title="", source="", module="x", model="x", config="x", kind="video")
"""


def rows(module: str = "net", streams: bool = False) -> str:
    """Return the text of a module of rows."""
    return ROW.replace("MODULE", module).replace("STREAMS", str(streams))


def install(site: Path, name: str, points: dict[str, dict[str, str]], version: str = "0.3") -> None:
    """Write what an installer writes of a package: its name, version and entry points."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, rows in points.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in rows.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with the package of `plugin_package` installed."""
    folder = tmp_path_factory.mktemp("site")
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    install(folder, project["name"], project["entry-points"], project["version"])
    shutil.copytree(PACKAGE / "forecast_ewma", folder / "forecast_ewma")
    return folder


def flat(text: str) -> str:
    """Return what a panel says, without its frame and line breaks."""
    return " ".join(text.replace("│", " ").replace("|", " ").split())


def forget() -> None:
    for table in (MODELS, DATASETS):
        table.refresh()


@pytest.fixture
def installed(site, monkeypatch):
    """The package, visible to this process."""
    monkeypatch.syspath_prepend(site)
    forget()
    yield site
    monkeypatch.undo()
    forget()


@pytest.fixture(scope="module")
def trained(site, command, tmp_path_factory):
    """The package's model, trained on its data set and registered: the document printed."""
    out = tmp_path_factory.mktemp("ewma") / "artefact"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        forget()
        done = command(
            "train", "tides", "--model", "ewma", "--set", "train.epochs=2",
            "--register", "tides", "--alias", "champion", "--out", out, "--json",
        )  # fmt: skip
    forget()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_names_are_listed_and_completed_without_importing_the_package(site, home):
    """In a process, where nothing else can have imported it."""
    script = (
        "import sys\n"
        "from forecast.cli import run\n"
        "assert run(['models', 'list']) == 0 and run(['--help']) == 0\n"
        "from forecast.cli.options import model_names, sources\n"
        "assert model_names('ew') == ['ewma'] and sources('ti') == ['tides']\n"
        "assert not {'forecast_ewma', 'torch'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False,
        env=environment(home) | {"PYTHONPATH": f"{site}:{PACKAGE.parent.parent}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("ewma"))
    assert "forecast-ewma 0.3" in line


def test_a_model_and_a_data_set_of_a_package_are_shown_like_any_other(installed, command):
    done = command("models", "list", "--json")
    assert {"name": "ewma", "package": "forecast-ewma", "version": "0.3"} in json.loads(done.stdout)
    assert "model.half_life" in command("models", "show", "ewma").stdout
    shown = command("datasets", "show", "tides").stdout
    assert "package forecast_ewma" in shown
    assert "absent" not in shown
    assert command("datasets", "verify", "tides").returncode == 0
    assert "tides" in command("datasets", "list").stdout


def test_a_model_of_a_package_learns_and_is_registered_with_its_package(trained, installed):
    made = artefact.load(trained["artefact"])
    assert made.recipe.model == "ewma"
    assert made.recipe.window.horizon == 12, "the protocol of the data set"
    rate = made.model.rate.sigmoid().item()
    assert abs(rate - 0.5 ** (1 / 12)) > 1e-3, "the weight moved from where it began"
    # What a model server would install.
    from forecast.tracking.model import requirements

    assert "forecast-ewma==0.3" in requirements("ewma")
    assert not any(line.startswith("forecast-ewma") for line in requirements("itransformer"))


def test_a_stream_of_a_package_s_model_gives_the_mean_by_definition(trained, installed, command):
    """By the formula in float64 from the table alone, at every row of a stream."""
    lines = (PACKAGE / "forecast_ewma" / "tides.csv").read_text().splitlines()[:41]
    done = command("stream", trained["artefact"], "--horizon", "1", stdin="\n".join(lines) + "\n")
    assert done.returncode == 0, done.stderr
    told = pl.read_csv(done.stdout.encode())
    assert len(told) == 40
    made = artefact.load(trained["artefact"])
    fading = made.model.rate.double().sigmoid().item()
    for name in ("north", "south"):
        values = np.array([float(row.split(",")[1 + (name == "south")]) for row in lines[1:]])
        total = weight = 0.0
        for value, forecast in zip(values, told[name], strict=True):
            total, weight = fading * total + value, fading * weight + 1
            assert forecast == pytest.approx(total / weight, abs=1e-4)


@pytest.mark.slow
def test_a_model_of_a_package_is_backtested_and_compared(installed, command, tmp_path):
    done = command(
        "backtest", "tides", "--model", "ewma", "--model", "dlinear", "--windows", "2",
        "--set", "train.epochs=1", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ewma" in done.stdout


def test_without_its_package_an_artefact_says_what_it_needs(trained, command):
    done = command("predict", trained["artefact"], PACKAGE / "forecast_ewma" / "tides.csv")
    assert done.returncode == 4
    assert "There is no model 'ewma'" in done.stderr
    assert "install" in done.stderr


@pytest.fixture
def add(tmp_path, monkeypatch):
    """Return a function that installs a package with one module of rows, or broken ones."""
    monkeypatch.syspath_prepend(tmp_path)

    def of(points, *, group="forecast.models", name="some-rows", **modules):
        for module, text in modules.items():
            (tmp_path / f"{module}.py").write_text(text)
            monkeypatch.delitem(sys.modules, module, raising=False)
        install(tmp_path, name, {group: points})
        forget()

    yield of
    monkeypatch.undo()
    forget()


@pytest.mark.parametrize(
    ("value", "text", "sentence"),
    [
        ("gone_rows:ROW", None, "No module named 'gone_rows'"),
        ("bad_rows:GONE", rows(), "has no attribute 'GONE'"),
        ("bad_rows:ROW", "def (", "SyntaxError"),
        ("bad_rows:ROW", "1 / 0", "ZeroDivisionError: division by zero"),
        ("bad_rows:OTHER", rows(), "is no forecast.models.ModelInfo"),
        ("bad_rows:ODD", rows(), "has kind='video', not series, grid, graph"),
    ],
)
def test_a_row_that_cannot_be_used_is_one_sentence_of_its_own_name(
    value, text, sentence, add, command
):
    add({"broken": value}, **({"bad_rows": text} if text else {}))
    done = command("models", "show", "broken")
    assert done.returncode in {2, 4}
    assert "The model 'broken' of the package some-rows 0.3" in flat(done.stderr)
    assert sentence in flat(done.stderr)
    assert "Traceback" not in done.stderr
    # It is listed, and nothing else is touched by it.
    assert "broken" in command("models", "list").stdout
    assert command("models", "show", "itransformer").returncode == 0
    with pytest.warns(UserWarning, match="broken"):
        assert "titans" in dict(MODELS.usable())


@pytest.mark.parametrize(
    ("module", "streams", "text", "sentence"),
    [
        ("gone_net", False, "", "No module named 'gone_net'"),
        ("net", False, "class Net: ...\nclass Config: ...", "no forward and no loss"),
        ("net", False, "class Net:\n forward = loss = print\nclass Config: ...", "no dataclass"),
        (
            "net",
            True,
            "from dataclasses import dataclass\nclass Net:\n forward = loss = print\n"
            "@dataclass\nclass Config: ...",
            "no StatefulModel",
        ),
    ],
)
def test_a_model_that_lacks_what_is_asked_of_it_is_refused(
    module, streams, text, sentence, add, command, table
):
    add({"lacking": "rows:GOOD"}, rows=rows(module, streams), net=text)
    done = command("train", table, "--model", "lacking", "--lookback", "48", "--horizon", "12")
    assert done.returncode in {2, 4}
    assert sentence in flat(done.stderr)
    assert "Traceback" not in done.stderr


def test_a_name_that_is_taken_is_refused(add, command):
    add({"titans": "rows:GOOD", "Loud Name": "rows:GOOD"}, rows=rows())
    done = command("models", "list")
    told = flat(done.stderr)
    assert "The package some-rows adds a model called 'titans', a name that is taken" in told
    assert "'Loud Name', no name of lower-case letters" in told
    forget()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert model_info("titans").module == "forecast.models.titans.model"
        assert "Loud Name" not in MODELS


def test_a_name_that_two_packages_add_is_neither_s(add):
    add({"same": "rows:GOOD"}, rows=rows())
    add({"same": "rows:GOOD"}, name="other-rows")
    with pytest.raises(UsageError, match=r"Several packages .* 'same': .*other-rows"):
        model_info("same")


def test_a_data_set_is_called_what_its_entry_point_is(add, site, monkeypatch):
    monkeypatch.syspath_prepend(site)
    add({"waves": "forecast_ewma:TIDES"}, group="forecast.datasets", name="waves")
    with pytest.raises(UsageError, match="calls itself 'tides'"):
        DATASETS["waves"]


def test_rows_set_by_a_program_are_looked_up_like_any_other(monkeypatch):
    row = ModelInfo(title="", source="", module="x", model="x", config="x")
    monkeypatch.setitem(MODELS, "mine", row)
    assert model_info("mine") is row
    assert "mine" in set(MODELS)
    monkeypatch.delitem(MODELS, "mine")
    with pytest.raises(NotFoundError, match="mine"):
        model_info("mine")
