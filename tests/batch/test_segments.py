"""Segments: every origin is scored once with its own targets, and nothing comes from elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from forecast.batch.segments import histories, segments
from forecast.batch.windows import Series, Windows, origins

# Row numbers as values, so that a value tells where it comes from; three series of which the
# second is too short for a window.
LENGTHS = (60, 9, 45)
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])
BORDERS = np.array([[length // 2, length * 3 // 4, length] for length in LENGTHS])
LOOKBACK, HORIZON = 8, 3


def windows(part, mask=None, calendar=False):
    count = OFFSETS[-1]
    values = torch.arange(count, dtype=torch.float32).view(-1, 1).repeat(1, 2)
    series = Series(
        values=values,
        mask=mask,
        calendar=values[:, :1] / 100 if calendar else None,
        series_id=torch.from_numpy(np.repeat(np.arange(3), LENGTHS)),
    )
    found = origins(OFFSETS, BORDERS, part, LOOKBACK, HORIZON)
    return Windows(
        series=series, origins=torch.from_numpy(found), lookback=LOOKBACK, horizon=HORIZON
    )


def scored(batch):
    """List the origins that count, by the first target of each."""
    truth, mask = batch.truth()
    first = truth[:, :, 0, 0]
    return first[torch.ones_like(first) > 0 if mask is None else mask[:, :, 0, 0]].long().tolist()


def test_histories_score_the_origins_of_the_windows_in_their_order():
    for part in ("train", "val", "test"):
        every = windows(part)
        for some in (every, every.every(2)):
            covered = histories(some, warm_up=5)
            found = [origin for batch in covered.batches(1) for origin in scored(batch)]
            assert found == some.origins.tolist(), part


def test_truth_and_past_are_rows_of_the_series_itself():
    batch = next(histories(windows("test", calendar=True), warm_up=70).batches(1_000))
    for sample, series in enumerate(batch.series_id.tolist()):
        seen = batch.past_mask[sample, :, 0]
        rows = batch.past[sample, seen, 0].long()
        # what is filled up in front is marked so; the rest are consecutive rows of the series
        assert torch.equal(rows, torch.arange(rows[0], rows[0] + len(rows)))
        assert OFFSETS[series] <= rows[0]
        assert rows[-1] + HORIZON < OFFSETS[series + 1]
        assert torch.equal(batch.past_time[sample, seen, 0], batch.past[sample, seen, 0] / 100)
        assert batch.past[sample, ~seen].eq(0).all()
    truth, mask = batch.truth()
    places = truth[..., 0] - truth[:, :, :1, 0]
    assert torch.equal(places[mask[..., 0]], torch.arange(3.0).repeat(int(mask[..., 0].sum()) // 3))


def test_a_long_part_is_cut_and_still_scored_once(monkeypatch):
    monkeypatch.setattr("forecast.batch.segments._MOST_TARGETS", 4 * HORIZON * 2)
    covered = histories(windows("train"), warm_up=2)
    assert covered.scored == 4
    found = [origin for batch in covered.batches(8) for origin in scored(batch)]
    assert found == windows("train").origins.tolist()


def test_training_segments_stay_in_their_part_and_begin_everywhere():
    every = windows("train")
    part = segments(every, warm_up=4, scored=6, stride=3)
    begun = set()
    for epoch in range(20):
        order = part.order(epoch, seed=1)
        assert len(order) == len(part)
        begun |= set(order.tolist())
        batch = part.batch(order)
        assert batch.past.shape[1] == part.lookback == 10
        assert set(scored(batch)) <= set(every.origins.tolist())
    assert begun == set(range(part.origins.numel()))
    assert torch.equal(part.order(3, 1), part.order(3, 1))
    assert not torch.equal(part.order(3, 1), part.order(4, 1))


def test_missing_cells_stay_missing():
    mask = torch.ones(OFFSETS[-1], 2, dtype=torch.bool)
    mask[50, 1] = False
    batch = next(histories(windows("test", mask), warm_up=3).batches(1_000))
    truth, observed = batch.truth()
    hidden = (truth == 50) & ~observed
    assert hidden[..., 1].any()
    assert not hidden[..., 0].any()


def test_half_of_the_training_segments_begin_with_all_their_history():
    cut = segments(windows("train"), warm_up=2, scored=3, stride=2, carried=1_000)
    bare = segments(windows("train"), warm_up=2, scored=3, stride=2)
    counts = {}
    for epoch in range(8):
        for number in cut.order(epoch, 0).tolist():
            index = torch.tensor([number])
            batch, plain = cut.batch(index), bare.batch(index)
            # what is scored, and by what truth, is the same
            assert scored(batch) == scored(plain)
            seen = batch.rows_from(0).past[0, :, 0]
            if batch.history:
                assert seen[0] == OFFSETS[int(batch.series_id)]
                assert batch.past_mask is None or batch.past_mask.all()
            begins = int(cut.origins[number] - cut.starts[number]) > cut.lookback
            if begins:
                counts.setdefault(number, set()).add(bool(batch.history))
    carried = sum(True in both for both in counts.values())
    assert carried == pytest.approx(len(counts) / 2, abs=2)
    # what is solved for and judged carries none
    assert all(batch.history == 0 for batch in cut.batches(1))


def test_a_segment_without_history_sees_nothing_of_what_its_neighbour_carries():
    cut = segments(windows("train"), warm_up=2, scored=3, stride=2, carried=1_000)
    both = torch.arange(len(cut.origins))
    batch, bare = cut.batch(both), cut._gather(both, None)
    assert batch.carrying.any()
    assert not batch.carrying.all()
    alone = ~batch.carrying
    width = bare.past.shape[1]
    assert torch.equal(batch.past[alone, -width:], bare.past[alone])
    assert not batch.past_mask[alone, :-width].any()
