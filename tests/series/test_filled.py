"""Filled cells: read by a model as far as they were known at its origin, and never scored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from forecast.batch.segments import histories
from forecast.batch.windows import Windows
from forecast.errors import UsageError
from forecast.series import online_intervals
from forecast.series.covariates import Covariates
from forecast.series.data import resident
from forecast.series.scaling import Scaler
from forecast.tables import reading
from forecast.tables.reading import TableOptions


def rows(tmp_path, fill, cells="1,2,,,,10,11,12"):
    path = tmp_path / "table.csv"
    days = [f"2024-01-{day:02d},{cell}" for day, cell in enumerate(cells.split(","), 1)]
    path.write_text("\n".join(["date,y", *days]))
    table = reading.read(path, TableOptions(fill=fill))
    one = Scaler(mean=np.zeros((1, 1)), deviation=np.ones((1, 1)), ids=("",))
    return resident(table, one, Covariates(), "none", carried=fill == "hold")


def window(series, origin):
    windows = Windows(series=series, origins=torch.tensor([origin]), lookback=3, horizon=2)
    return windows.batch(torch.tensor([0]))


def test_a_line_is_hidden_from_origins_in_the_gap_and_seen_from_behind_it(tmp_path):
    series = rows(tmp_path, "linear")
    inside = window(series, 4)  # rows 1, 2, 3: the line from 2 to 10 ends in row 5
    assert inside.past[0, :, 0].tolist() == [2, 0, 0]
    assert inside.past_mask[0, :, 0].tolist() == [True, False, False]
    behind = window(series, 6)  # rows 3, 4, 5
    assert behind.past[0, :, 0].tolist() == [6, 8, 10]
    assert behind.past_mask.all()


@pytest.mark.parametrize("fill", ["hold", "linear"])
def test_targets_keep_the_mask_of_the_file(tmp_path, fill):
    batch = window(rows(tmp_path, fill), 4)
    assert batch.target_mask[0, :, 0].tolist() == [False, True]
    assert batch.target[0, 1, 0] == 10


def test_segments_read_held_values_and_score_observed_ones(tmp_path):
    series = rows(tmp_path, "hold")
    origins = torch.arange(1, 7)
    windows = Windows(series=series, origins=origins, lookback=1, horizon=2)
    batch = histories(windows, warm_up=0).batch(torch.tensor([0]))
    assert batch.past[0, :, 0].tolist() == [1, 2, 2, 2, 2, 10]
    _, mask = batch.truth()
    # the rows behind positions 0 to 5: rows 2, 3, 4 are missing
    seen = [(True, False), (False, False), (False, False), (False, True), (True, True)]
    assert [tuple(row) for row in mask[0, :, :, 0].tolist()] == [*seen, (True, True)]


def test_a_level_below_one_percent_is_a_slip(tmp_path):
    with pytest.raises(UsageError, match=r"A level of 0\.9 would be 0\.9 %") as caught:
        online_intervals.levels(None, [0.9])
    assert caught.value.hint.endswith("--level 90")
