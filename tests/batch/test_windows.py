"""Windows: counts of the published protocol, content, and borders that never leak."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from forecast.batch.windows import Series, Windows, origins
from forecast.catalogue.dataset import Split

ETT_HOURLY = Split(train=8640, val=2880, test=2880)
ETT_QUARTER = Split(train=34560, val=11520, test=11520)
CUSTOM = Split()


@pytest.mark.parametrize(
    ("rows", "split", "horizon", "counts"),
    [
        # specs of the field's protocol: N - L - H + 1 for training, N - H + 1 after it
        (17_420, ETT_HOURLY, 96, (8_449, 2_785, 2_785)),
        (17_420, ETT_HOURLY, 720, (8_640 - 96 - 720 + 1, 2_161, 2_161)),
        (69_680, ETT_QUARTER, 96, (34_369, 11_425, 11_425)),
        (7_588, CUSTOM, 96, (5_120, 665, 1_422)),
    ],
)
def test_window_counts_equal_the_standard_protocol(rows, split, horizon, counts):
    borders = np.array([split.borders(rows)])
    found = [
        len(origins(np.array([0, rows]), borders, part, 96, horizon))
        for part in ("train", "val", "test")
    ]
    assert tuple(found) == counts


def test_targets_stay_in_their_part_and_inputs_in_their_series():
    # Two series of 50 and 40 rows; every row knows its own number, so a window shows where it lies.
    offsets = np.array([0, 50, 90])
    borders = np.array([[30, 40, 50], [24, 32, 40]])
    lookback, horizon = 5, 3
    series = Series(
        values=torch.arange(90.0).unsqueeze(1), series_id=torch.tensor([0] * 50 + [1] * 40)
    )
    for number, part in enumerate(("train", "val", "test")):
        windows = Windows(
            series=series,
            origins=torch.from_numpy(origins(offsets, borders, part, lookback, horizon)),
            lookback=lookback,
            horizon=horizon,
        )
        batch = windows.batch(torch.arange(len(windows)))
        for past, target, name in zip(batch.past, batch.target, batch.series_id, strict=True):
            start = offsets[name]
            first = borders[name][number - 1] if number else lookback
            assert past[0, 0] >= start
            assert start + first <= target[0, 0]
            assert target[-1, 0] < start + borders[name][number]
            # past and target are consecutive rows
            rows = torch.cat([past, target]).flatten()
            assert torch.equal(rows, torch.arange(rows[0], rows[0] + lookback + horizon))
        # every permitted origin is there, once
        expected = sum(
            max(0, int(border[number] - max(lookback, border[number - 1] if number else 0)) - 2)
            for border in borders
        )
        assert len(windows) == expected == len(set(windows.origins.tolist()))


def test_a_series_too_short_for_a_window_gives_none():
    found = origins(np.array([0, 4, 30]), np.array([[4, 4, 4], [20, 23, 26]]), "train", 5, 3)
    assert found.min() >= 4 + 5


def test_order_is_a_permutation_decided_by_epoch_and_seed():
    windows = Windows(
        series=Series(values=torch.zeros(200, 1)),
        origins=torch.arange(10, 110),
        lookback=5,
        horizon=3,
    )
    first = windows.order(0, seed=1)
    assert sorted(first.tolist()) == list(range(100))
    assert torch.equal(first, windows.order(0, seed=1))
    assert not torch.equal(first, windows.order(1, seed=1))
    assert not torch.equal(first, windows.order(0, seed=2))


def test_batches_cover_all_windows_whatever_their_size():
    windows = Windows(
        series=Series(values=torch.arange(40.0).unsqueeze(1)),
        origins=torch.arange(5, 36),
        lookback=5,
        horizon=3,
    )
    for size in (1, 7, 256):
        targets = torch.cat([batch.target[:, 0, 0] for batch in windows.batches(size)])
        assert torch.equal(targets, torch.arange(5.0, 36.0))
