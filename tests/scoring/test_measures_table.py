"""One table of measures: a new row is summed, tracked, compared and printed by being there."""

from __future__ import annotations

import math

import pytest
import torch

from forecast.batch import Forecast, GridBatch, SeriesBatch
from forecast.cli import scores as printed
from forecast.scoring import comparison, measures
from forecast.scoring.fields import GridErrorSums
from forecast.scoring.measures import MEASURES, Measure
from forecast.scoring.ranking import LinkSums, ValueSums
from forecast.scoring.sums import ErrorSums

# What scores hold beside measures: how many were scored, and figures by lead or by column.
COUNTS = {"windows", "values", "queries", "units", "openstl", "area"}
PREDICTION, TRUTH = torch.tensor([[[1.0], [4.0]]]), torch.tensor([[[0.0], [2.0]]])


def cubed(error, prediction, truth):
    return error.abs() ** 3


def series_scores():
    sums = ErrorSums(torch.tensor([[10.0]]), torch.tensor([[5.0]]))
    sums.add(PREDICTION, TRUTH)
    return sums.result(("a",))


def grid_scores():
    sums = GridErrorSums(columns=("a",), deviation=torch.tensor([[[10.0]]]))
    batch = GridBatch(frames=torch.zeros(1, 1, 1, 1, 1), target=TRUTH[..., None, None])
    sums.add(Forecast(values=PREDICTION[..., None, None]), batch)
    return sums.result()


def graph_scores():
    sums = ValueSums(lambda values: values)
    batch = SeriesBatch(past=torch.zeros(1, 1, 1), target=TRUTH)
    sums.add(Forecast(values=PREDICTION), batch)
    return sums.result()


SCORES = {"series": series_scores, "grid": grid_scores, "graph": graph_scores}


@pytest.mark.parametrize("kind", SCORES)
def test_a_measure_of_elements_is_one_row(monkeypatch, kind):
    before = SCORES[kind]()
    row = Measure(title="MCE", unit="scaled", kinds=(kind,), elementwise=cubed, factor=2)
    monkeypatch.setitem(MEASURES, "mce", row)
    root = Measure(title="RMCE", unit="scaled", kinds=(kind,), root_of="mce")
    monkeypatch.setitem(MEASURES, "rmce", root)
    scores = SCORES[kind]()
    # Errors of 1 and 2, cubed: twice (1 + 8) / 2.
    assert scores["mce"] == 9.0
    assert scores["rmce"] == 3.0
    assert {name: value for name, value in scores.items() if name in before} == before
    metrics = {"test": scores, "baselines": {"ridge": scores | {"mce": 8.0}}, "validation": before}
    assert comparison.flat(metrics, kind)["ridge_test_mce"] == 8.0
    assert not comparison.more_is_better("ridge_test_mce")


def test_a_measure_of_values_in_units_sees_units(monkeypatch):
    def share(error, prediction, truth):
        return error / truth

    monkeypatch.setitem(MEASURES, "mpe", Measure(title="MPE", kinds=("series",), elementwise=share))
    # In units 15 for 5 and 45 for 25: 10 / 5 and 20 / 25.
    assert series_scores()["mpe"] == pytest.approx((2 + 0.8) / 2)


def test_a_measure_of_ranks_is_one_row_and_is_printed(monkeypatch, capsys):
    row = Measure(
        title="hits@3",
        better="more",
        kinds=("graph",),
        of_rank=lambda ranks: measures.hit(ranks, 3),
    )
    monkeypatch.setitem(MEASURES, "hits_at_3", row)
    sums = LinkSums()
    sums._ranks.append(torch.tensor([1.0, 3.0, 3.5, 20.0]))
    scores = sums.result()
    assert scores["hits_at_3"] == 0.5
    assert comparison.more_is_better("recency_test_hits_at_3")
    printed.show("model", scores, {})
    assert "hits@3" in capsys.readouterr().out


@pytest.mark.parametrize("kind", SCORES)
def test_the_table_names_every_figure_of_scores_and_has_their_parts(kind):
    names = {name.removesuffix("_by_lead") for name in SCORES[kind]()} - COUNTS
    assert names <= set(measures.of_kind(kind))


def test_a_figure_is_of_the_measure_before_its_column_and_after_its_baseline():
    for figure, title in {
        "test_mae_auc": "MAE",  # a column of that name
        "auc_test_mse": "MSE",  # a baseline of that name
        "mean_test_mrr": "MRR",
        "best_val_mrr": "MRR",
        "mean_mrr": "MRR",
        "test_openstl_ssim_range_2": "SSIM of range 2",
        "test_split_interval_score_90": "interval score",
        "test_area_acc_t2m": "ACC",
    }.items():
        found = comparison.measure_of(figure)
        assert found is not None, figure
        assert found.title == title, figure
    assert comparison.measure_of("train_loss") is None


def test_what_is_not_finite_is_never_the_best():
    assert comparison.loss("test_mrr", 0.5) < comparison.loss("test_mrr", 0.4)
    assert comparison.loss("test_mse", 0.4) < comparison.loss("test_mse", 0.5)
    for name in ("mrr", "mse"):
        for value in (math.nan, math.inf, -math.inf, None):
            assert comparison.loss(name, value) == math.inf
    assert comparison.primary_measure({"mae": 1.0, "rmse": 2.0}) == "mae"
    assert comparison.primary_measure({"mrr": 0.5, "ap": 0.9}) == "mrr"
    assert comparison.beaten_by({"mrr": 0.5}, {"a": {"mrr": 0.6}, "b": {"mrr": math.nan}}) == ["a"]
