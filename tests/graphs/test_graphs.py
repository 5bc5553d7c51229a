"""Graphs from file to table: rules and models on the same batches, later files, forecasts."""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
import pytest
import torch

from forecast.errors import DataError, NotFoundError, UsageError
from forecast.graphs import data as graphs
from forecast.graphs import pictures, predict
from forecast.graphs.baselines import pooled
from forecast.graphs.header import header_of
from forecast.graphs.protocol import RANKED
from forecast.graphs.score import baselines, error_sums, with_start
from forecast.graphs.section import GraphSection
from forecast.models.todyformer.model import Todyformer, TodyformerConfig
from forecast.models.todyformer.sensors import SensorTodyformer, SensorTodyformerConfig
from forecast.recipe import TrainSection
from forecast.training.loop import fit

SMALL = {"width": 16, "heads": 2, "time_width": 8, "patches": 4, "dropout": 0.0}


def write_events(folder, count=400, nodes=12, name="events.csv", start=0):
    """Write events in which whom one met lately is whom one meets next, half of the time."""
    generator = np.random.default_rng(0)
    rows, met = [], {}
    for step in range(count):
        source = int(generator.integers(nodes))
        again = source in met and generator.random() < 0.5
        target = met[source] if again else int(generator.integers(nodes))
        met[source] = target
        rows.append((f"n{source:02}", f"n{target:02}", start + 60 * step, 1 + step % 3))
    frame = pl.DataFrame(rows, schema=["src", "dst", "t", "weight"], orient="row")
    frame.write_csv(folder / name)
    return frame


def score(model, data, part):
    model.eval()
    sums = error_sums(data)
    with torch.no_grad():
        for batch in data.windows(part).batches(8):
            sums.add(model(batch), batch)
    return sums.result()


def links(folder, **options):
    section = GraphSection(source=str(folder / "events.csv"), queries=20, **options)
    data = with_start(graphs.load(section, lookback=100))
    torch.manual_seed(0)
    return data, Todyformer(TodyformerConfig(**SMALL), data.spec, **data.inputs())


def test_an_untrained_model_of_links_ranks_as_the_best_rule_does(tmp_path):
    write_events(tmp_path)
    data, model = links(tmp_path)
    rules = baselines(data, "val")
    best = max(
        ("undirected-recency-then-destination", "recency-then-destination", "destination-recency"),
        key=lambda name: rules[name]["mrr"],
    )
    assert data.spec.rule == best
    for part in ("val", "test"):
        found, wanted = score(model, data, part), baselines(data, part)[best]
        assert found["queries"] == len(data.windows(part))
        for name in ("mrr", "hits_at_10"):
            assert found[name] == pytest.approx(wanted[name])


def test_training_never_leaves_a_model_below_the_rule_on_the_validation_part(tmp_path):
    write_events(tmp_path)
    data, model = links(tmp_path)
    rule = baselines(data, "val")[data.spec.rule]
    for rate in (1e-3, 3.0):
        section = TrainSection(
            epochs=2, batch_size=data.batch_size, learning_rate=rate, precision="fp32"
        )
        fitted = fit(model, data.windows("train"), data.windows("val"), section)
        found = score(model, data, "val")
        assert found["mrr"] == pytest.approx(1 - fitted.best_loss)
        assert found["mrr"] >= rule["mrr"] - 1e-9


def test_drawn_negatives_stand_for_all_of_the_protocol_and_are_of_training(tmp_path):
    frame = write_events(tmp_path)
    late = pl.DataFrame({"src": ["n00"], "dst": ["new"], "t": [60 * 399], "weight": [1]})
    pl.concat([frame, late]).write_csv(tmp_path / "events.csv")
    data, _ = links(tmp_path)
    train = data.windows("train")
    batch = train.batch(torch.arange(100, 120))
    torch.testing.assert_close(
        batch.prior[:, 1:].exp().sum(1), torch.full((20,), float(RANKED)), rtol=1e-5, atol=0
    )
    assert float(batch.prior[:, 0].abs().max()) == 0
    new = data.events.ids.to_list().index("new")
    assert new in data.windows("test").negatives
    assert all(new not in one.candidates for one in train.batches(0))
    # the one for AP stands at the end and is in no rank
    batch = data.windows("test").batch(torch.arange(5))
    assert batch.pair.tolist() == [batch.candidates.shape[1] - 1] * 5


def test_links_are_forecast_from_the_history_kept_and_from_a_file_alike(tmp_path):
    frame = write_events(tmp_path)
    data, model = links(tmp_path)
    kept = data.header, data.arrays(), data.spec
    # what is described goes through JSON
    kept = (header_of(json.loads(json.dumps(kept[0].to_dict()))), *kept[1:])
    context = predict.read_context(*kept, history=data.history())
    table = predict.predict(model, context, sources=["n03", "stranger"], top=3)
    assert table.columns == ["src", "rank", "dst", "score", "probability", "known"]
    assert table["src"].to_list() == ["n03"] * 3 + ["stranger"] * 3
    assert table["known"].to_list() == [True] * 3 + [False] * 3
    assert table["score"].is_finite().all()
    # the untrained model names whom one met last
    last = frame.filter((pl.col("src") == "n03") | (pl.col("dst") == "n03")).row(-1)
    assert table["dst"][0] == last[1 if last[0] == "n03" else 0]
    read = predict.read_context(*kept, str(tmp_path / "events.csv"))
    assert predict.predict(model, read, sources=["n03", "stranger"], top=3).equals(table)
    # the same events again change nothing, and later ones do not reach back
    both = predict.read_context(*kept, str(tmp_path / "events.csv"), history=data.history())
    assert "400 events are not later" in " ".join(both.notices)
    assert len(both.events) == 400
    early = predict.read_context(*kept, history=data.history(), at=60.0 * 200)
    cut = frame.head(200)
    cut.write_csv(tmp_path / "cut.csv")
    alone = predict.read_context(*kept, str(tmp_path / "cut.csv"), at=60.0 * 200)
    found, wanted = (predict.predict(model, one) for one in (early, alone))
    assert found.equals(wanted)
    assert len(found["src"].unique()) == 12
    other = frame.drop("weight").with_columns(pl.col("t") + 10**6)
    other.write_csv(tmp_path / "other.csv")
    with pytest.raises(DataError, match="those kept with the model src, dst, t, weight"):
        predict.read_context(*kept, str(tmp_path / "other.csv"), history=data.history())
    for at, words in (("2020-01-01", "is not a number"), (-5.0, "No event is before")):
        with pytest.raises((UsageError, DataError), match=words):
            predict.read_context(*kept, history=data.history(), at=at)


def test_a_trained_model_is_scored_on_a_later_file(tmp_path):
    write_events(tmp_path)
    data, model = links(tmp_path)
    write_events(tmp_path, count=90, nodes=15, name="later.csv", start=10**6)
    later = graphs.as_test_set(data.header, data.arrays(), data.spec, str(tmp_path / "later.csv"))
    assert len(later.windows("test")) == 89
    rule = baselines(later, "test")[data.spec.rule]
    assert score(model, later, "test")["mrr"] == pytest.approx(rule["mrr"])
    # with the history known every event can be asked about, and the same file again is scored alone
    kept = data.header, data.arrays(), data.spec
    known = graphs.as_test_set(*kept, str(tmp_path / "later.csv"), history=data.history())
    assert len(known.windows("test")) == 90
    assert len(known.windows("test").batch(torch.arange(20)).time) == 100
    same = graphs.as_test_set(*kept, str(tmp_path / "events.csv"), history=data.history())
    assert len(same.windows("test")) == 399


def test_features_of_nodes_keep_their_nodes_and_new_nodes_have_the_mean(tmp_path):
    frame = write_events(tmp_path)
    ids = sorted({*frame["src"], *frame["dst"]})
    pl.DataFrame({"id": ids, "size": [float(n) for n in range(len(ids))]}).write_csv(
        tmp_path / "nodes.csv"
    )
    data, model = links(tmp_path, nodes=str(tmp_path / "nodes.csv"))
    assert data.spec.node_features == 1
    again = Todyformer(TodyformerConfig(**SMALL), data.spec, **graphs.inputs(data.arrays()))
    again.load_state_dict(model.state_dict())
    later = pl.DataFrame(
        {"src": ["a0", "n05"], "dst": ["n05", "n01"], "t": [10**6, 10**6 + 1], "weight": [1, 1]}
    )
    later.write_csv(tmp_path / "later.csv")
    context = predict.read_context(
        data.header, data.arrays(), data.spec, str(tmp_path / "later.csv")
    )
    # known nodes have their numbers, the new one the next
    assert context.events.src.tolist() == [12, 5]
    assert context.events.dst.tolist() == [5, 1]
    assert predict.predict(again, context)["score"].is_finite().all()


def test_shares_of_the_next_period(tmp_path):
    write_events(tmp_path)
    data, model = links(tmp_path, task="affinity", period=1200.0, averaged=2)
    assert set(baselines(data, "test")) == {"last-period", "moving-average"}
    found = score(model, data, "test")
    assert 0 < found["ndcg_at_10"] <= 1
    context = predict.read_context(data.header, data.arrays(), data.spec, history=data.history())
    table = predict.predict(model, context, sources=["n03", "n01"], top=50)
    assert table.columns == ["src", "rank", "dst", "share", "known"]
    sums = table.group_by("src").agg(pl.col("share").sum())["share"]
    assert sums.to_list() == pytest.approx([1, 1])
    with pytest.raises(UsageError, match=r"data\.period is 0"):
        links(tmp_path, task="affinity")


def write_sensors(folder, *, dated=True, rows=120):
    slots = np.arange(rows)
    first = 30 + 10 * np.sin(slots * 2 * np.pi / 24)
    frame = pl.DataFrame({"b7": first, "a1": 50 + np.roll(first, 1), "c": 20.0 + slots % 5})
    if dated:
        times = pl.datetime_range(
            pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 1) + pl.duration(hours=rows - 1), "1h",
            eager=True,
        )  # fmt: skip
        frame = pl.select(time=times.dt.to_string("%Y-%m-%d %H:%M:%S")).hstack(frame)
    frame.write_csv(folder / "r.csv")
    (folder / "e.csv").write_text("src,dst,weight\nb7,a1,0.5\n")
    return frame


@pytest.mark.parametrize("dated", [True, False])
def test_readings_of_sensors(tmp_path, dated):
    frame = write_sensors(tmp_path, dated=dated)
    source = (str(tmp_path / "r.csv"), str(tmp_path / "e.csv"))
    data = graphs.load(
        GraphSection(source=source, season=24, split=(0.6, 0.2, 0.2)), lookback=6, horizon=3
    )
    assert data.spec.task == "sensor"
    model = SensorTodyformer(SensorTodyformerConfig(width=8, heads=2), data.spec, **data.inputs())
    rules = baselines(data, "test")
    # untrained it is the pooled map, in the unit of the file; what repeats daily is known by slot
    found, wanted = score(model, data, "test"), rules["pooled-regression"]
    assert found["mae_by_lead"] == pytest.approx(wanted["mae_by_lead"], rel=1e-4)
    # one step ahead: the mean change from row to row of all sensors over the scored rows
    values = frame.select("b7", "a1", "c").to_numpy()
    changes = np.abs(np.diff(values, axis=0))[96 - 1 : 120 - 3]
    assert rules["persistence"]["mae_by_lead"][0] == pytest.approx(changes.mean(), rel=1e-4)
    assert rules["historical-mean"]["mae_by_lead"][2] < rules["persistence"]["mae_by_lead"][2]
    description = header_of(json.loads(json.dumps(data.header.to_dict())))
    kept = description, data.arrays(), data.spec
    later = graphs.as_test_set(*kept, source)
    assert len(later.windows("test")) == 120 - 6 - 3 + 1
    assert torch.equal(later.slots, data.slots)
    table = predict.predict(model, predict.read_context(*kept, source))
    assert table.columns == ["time" if dated else "step", "b7", "a1", "c"]
    ahead = data.scaler.undo(pooled(data.values[None, -6:], data.rules["pooled"]))[0]
    np.testing.assert_allclose(table.select(data.ids).to_numpy(), ahead.numpy(), rtol=1e-5)
    assert str(table[table.columns[0]][0]) == ("2024-01-06 00:00:00" if dated else "120")
    frame.rename({"c": "d"}).write_csv(tmp_path / "r.csv")
    with pytest.raises(DataError, match="'d' is none of them"):
        graphs.as_test_set(*kept, source)


def test_a_gap_is_bridged_by_the_last_report_and_scored_nowhere(tmp_path):
    frame = write_sensors(tmp_path, dated=False)
    gap = frame.with_columns(
        b7=pl.when(pl.int_range(120) == 0).then(0.0).when(pl.int_range(120) > 116).then(0.0)
        .otherwise("b7")
    )  # fmt: skip
    gap.write_csv(tmp_path / "r.csv")
    source = (str(tmp_path / "r.csv"), str(tmp_path / "e.csv"))
    data = graphs.load(GraphSection(source=source, split=(0.6, 0.2, 0.2)), lookback=6, horizon=3)
    assert data.values[0, 0] == 0
    torch.testing.assert_close(data.values[117:, 0], data.values[116:117, 0].expand(3))
    windows = (24 - 3 + 1) * 3 * 3
    # the last three rows of one sensor: in 1, 2 and 3 windows
    assert baselines(data, "test")["persistence"]["values"] == windows - 6


def test_values_beside_snapshots(tmp_path):
    generator = np.random.default_rng(1)
    steps, nodes = 40, 5
    values = generator.poisson(20, (steps, nodes))
    edges = {str(step): [[0, 1], [2, 3]] for step in range(steps)}
    weights = {str(step): [5.0, 10.0] for step in range(steps)}
    held = {
        "edge_mapping": {"edge_index": edges, "edge_weight": weights},
        "y": values.tolist(),
    }
    path = tmp_path / "s.json"
    path.write_text(json.dumps(held))
    section = GraphSection(source=str(path), split=(24, 8, 8), season=7)
    data = graphs.load(section, lookback=7, horizon=2)
    assert data.spec.task == "node"
    # counts are taken by their logarithm and come back whole
    assert data.scaler.logarithm
    torch.testing.assert_close(data.scaler.undo(data.values), torch.tensor(values).float())
    assert float(data.graph.weight.max()) == 1
    model = Todyformer(TodyformerConfig(**SMALL, weights=True), data.spec, **data.inputs())
    found, rules = score(model, data, "test"), baselines(data, "test")
    assert found["mae"] == pytest.approx(rules["pooled-regression"]["mae"], rel=1e-4)
    assert found["values"] == (8 - 2 + 1) * 2 * nodes
    kept = header_of(json.loads(json.dumps(data.header.to_dict()))), data.arrays(), data.spec
    table = predict.predict(model, predict.read_context(*kept, str(path)))
    assert table.columns == ["step", "id", "value"]
    assert table["step"].to_list() == [40] * nodes + [41] * nodes
    assert ((table["value"] > 5) & (table["value"] < 50)).all()
    with pytest.raises(UsageError, match="where their file ends"):
        predict.read_context(*kept, str(path), at=3)


def test_each_kind_of_graph_has_a_picture(tmp_path):
    write_events(tmp_path)
    data, model = links(tmp_path)
    pictures.draw(tmp_path / "links.png", model=model, data=data)
    data, model = links(tmp_path, task="affinity", period=1200.0)
    pictures.draw(tmp_path / "shares.png", model=model, data=data)
    write_sensors(tmp_path)
    source = (str(tmp_path / "r.csv"), str(tmp_path / "e.csv"))
    data = graphs.load(GraphSection(source=source), lookback=6, horizon=3)
    model = SensorTodyformer(SensorTodyformerConfig(width=8, heads=2), data.spec, **data.inputs())
    pictures.draw(tmp_path / "values.png", model=model, data=data)
    for name in ("links", "shares", "values"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("section", "error", "words"),
    [
        ({}, UsageError, "does not say which data"),
        ({"source": "nowhere.csv"}, NotFoundError, "no file 'nowhere.csv'"),
        ({"source": "events.csv", "task": "sensor"}, UsageError, "does not go with 1 files"),
        ({"source": "events.csv", "leave_out": 10**6}, DataError, "leaves none"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path, monkeypatch, section, error, words):
    write_events(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        graphs.load(GraphSection(**section))


def test_right_after_the_last_event_is_no_time_at_all(tmp_path):
    write_events(tmp_path)
    data, _ = links(tmp_path)
    context = predict.read_context(data.header, data.arrays(), data.spec, history=data.history())
    assert context.at == math.nextafter(60 * 399, math.inf)
    assert len(context.events) == 400
