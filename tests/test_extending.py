"""docs/extending.md as it stands: its package is written, installed and run by its commands."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.test_plugins import PACKAGE, forget, install

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text("utf-8")
FILES = dict(re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
COMMANDS = [
    line
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """The folder of the page's package, installed where it lies."""
    folder = tmp_path_factory.mktemp("pumpworks")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    subprocess.run([sys.executable, "make_pumps.py"], cwd=folder, check=True)
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    install(folder, project["name"], project["entry-points"], project["version"])
    return folder


@pytest.mark.slow
def test_the_commands_of_the_page_run_on_the_package_of_the_page(
    package, command, tmp_path, monkeypatch
):
    assert len(FILES) == 5
    assert len(COMMANDS) == 6
    monkeypatch.syspath_prepend(package)
    forget()
    try:
        for line in COMMANDS:
            program, *arguments = shlex.split(line)
            assert program == "forecast"
            done = command(*arguments, cwd=package, extra={"FORECAST_HOME": tmp_path})
            assert done.returncode == 0, (line, done.stderr)
    finally:
        monkeypatch.undo()
        forget()
    assert len((package / "next-day.csv").read_text().splitlines()) == 1 + 24


def test_the_model_of_the_page_forecasts_what_the_page_says(package, monkeypatch):
    """Of a constant season the season, whatever the shares; else the mix, by hand."""
    import torch

    from forecast.batch import SeriesBatch, Spec

    monkeypatch.syspath_prepend(package)
    forget()
    from forecast.models import MODELS

    model, config = MODELS["seasonmix"].load()
    spec = Spec(lookback=4, horizon=3, variates=1, season=2)
    made = model(config(share=0.25), spec)
    past = torch.tensor([[[0.0], [1.0], [2.0], [6.0]]])
    forecast = made(SeriesBatch(past=past)).values.flatten().tolist()
    monkeypatch.undo()
    forget()
    assert forecast == [0.25 * 2 + 0.75 * 6, 6.0, 0.25 * 2 + 0.75 * 6]


def test_the_streaming_model_of_the_page_is_the_one_that_is_tested():
    (shown,) = re.findall(r"^```python verbatim\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    source = (PACKAGE / "forecast_ewma" / "model.py").read_text()
    (tested,) = (
        ast.get_source_segment(source, node)
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "EWMA"
    )
    assert shown.strip() == tested
