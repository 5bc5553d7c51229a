"""Artefacts of format 1, kept here as they were written, load and forecast what they did then.

`python benchmarks/equality.py artefacts FOLDER` wrote them. They are not to be written again: a
forecaster that someone trained long ago cannot be.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import forecast

FOLDER = Path(__file__).parent / "artefacts"
CASES = json.loads((FOLDER / "cases.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CASES)
def test_an_artefact_of_an_earlier_version_forecasts_the_same(name, monkeypatch):
    monkeypatch.chdir(FOLDER)
    source, options = CASES[name]["source"], CASES[name]["options"]
    source = tuple(source) if isinstance(source, list) else source
    found = forecast.predict(forecast.load(name), source, **options)
    if (FOLDER / name / "forecast.csv").is_file():
        with (FOLDER / name / "forecast.csv").open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file))
        again, *found_rows = list(csv.reader(found.write_csv().splitlines()))
        assert again == header
        assert len(found_rows) == len(rows)
        cells = [cell for row in rows for cell in row]
        for given, kept in zip((c for row in found_rows for c in row), cells, strict=True):
            same(given, kept)
    else:
        kept = json.loads((FOLDER / name / "forecast.json").read_text(encoding="utf-8"))
        assert set(found.data_vars) == set(kept)
        for variable, values in kept.items():
            # Processors differ in the last bits.
            np.testing.assert_allclose(found[variable].values, values, rtol=1e-5)


def same(given, kept):
    try:
        number = float(kept)
    except ValueError:
        assert given == kept
    else:
        assert float(given) == pytest.approx(number, rel=1e-5, abs=1e-5, nan_ok=True)
