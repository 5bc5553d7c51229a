"""Scores of graphs against numbers derived by hand."""

from __future__ import annotations

import math

import pytest
import torch

from forecast.scoring import ranking


def test_ranks_count_ties_half_and_leave_masked_negatives_out():
    negatives = torch.tensor([[3.0, 2.0, 1.0, 9.0], [0.0, 0.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    # 1 + one above + half of one tie; 1 + half of four ties
    places = ranking.ranks(torch.tensor([2.0, 0.0]), negatives, mask)
    assert places.tolist() == [2.5, 3.0]
    assert ranking.mean_reciprocal_rank(places) == pytest.approx((1 / 2.5 + 1 / 3) / 2)
    assert ranking.hits(places, at=2) == 0.0


def test_precision_and_area():
    scores, truth = torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([True, False, True, False])
    # precision 1 at recall 1/2, 2/3 at recall 1
    assert ranking.average_precision(scores, truth) == pytest.approx((1 + 2 / 3) / 2)
    # of four pairs three are in order
    assert ranking.area_under_curve(scores, truth) == pytest.approx(3 / 4)
    # one value for all says nothing
    assert ranking.average_precision(torch.zeros(4), truth) == 0.5
    assert ranking.area_under_curve(torch.zeros(4), truth) == 0.5


def test_gain_of_an_order():
    truth = torch.tensor([[0.0, 1.0, 3.0], [0.0, 0.0, 0.0]])
    scores = torch.tensor([[0.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    third = 1 / math.log2(3)
    wanted = (1 + 3 * third) / (3 + third)
    assert ranking.ndcg(scores, truth) == pytest.approx(wanted)
    # all tie: every place has the mean weight
    mean = (1 + third + 0.5) / 3
    assert ranking.ndcg(torch.zeros(2, 3), truth) == pytest.approx(4 * mean / (3 + third))
    assert ranking.ndcg(scores, truth, at=1) == pytest.approx(1 / 3)


def test_zeros_and_gaps_of_sensors_count_nowhere():
    truth = torch.tensor([[[10.0, 0.0, torch.nan, 20.0]]])
    found = ranking.masked_errors(torch.tensor([[[13.0, 7.0, 7.0, 16.0]]]), truth)
    assert found["mae"].item() == 3.5
    assert found["rmse"].item() == pytest.approx(math.sqrt(12.5))
    assert found["mape"].item() == pytest.approx(25.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_no_numbers_rank_last(bad):
    negatives = torch.tensor([[3.0, 2.0], [bad, 0.0], [bad, bad]])
    places = ranking.ranks(torch.tensor([bad, 1.0, bad]), negatives)
    # below both; below the one that is no number; below both again
    assert places.tolist() == [3.0, 2.0, 3.0]
    truth = torch.tensor([True, False, True, False])
    # both positives tie behind both negatives: two of four, as if nothing was known
    broken = torch.tensor([bad, 1.0, bad, 0.0])
    assert ranking.average_precision(broken, truth) == 0.5
    assert ranking.area_under_curve(broken, truth) == 0.0
    assert ranking.area_under_curve(torch.full((4,), bad), truth) == 0.0
    shares = torch.tensor([[0.6, 0.4], [0.6, 0.4]])
    assert ranking.ndcg(torch.tensor([[2.0, 1.0], [bad, 1.0]]), shares) == pytest.approx(0.5)
