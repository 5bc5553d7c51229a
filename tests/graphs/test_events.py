"""Events and their protocol: files of the field, splits, negatives, and rules of known scores."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from forecast.errors import DataError, NotFoundError
from forecast.graphs import events as event_files
from forecast.graphs import formats, protocol
from forecast.graphs.baselines import fit_pooled, moving_average, pooled, score_links, slot_means
from forecast.graphs.batches import window
from forecast.graphs.history import EventHistory
from forecast.graphs.snapshots import read_snapshots
from forecast.scoring import ranking

DATA = os.environ.get("FORECAST_DATA")
real = pytest.mark.skipif(
    not DATA or not (Path(DATA) / "graph").is_dir(), reason="needs FORECAST_DATA with graph/"
)


def write(folder, text, name="events.csv"):
    path = folder / name
    path.write_text(text)
    return path


def test_ids_stay_as_given_and_rows_are_put_in_order_with_a_notice(tmp_path):
    text = "src,dst,t,weight,feat_a\nbob,amy,5,1,0.5\namy,amy,2,3,1.5\nbob,amy,5,1,0.5\n"
    events = event_files.read(write(tmp_path, text))
    assert events.ids.to_list() == ["amy", "bob"]
    assert events.src.tolist() == [0, 1, 1]
    assert events.time.tolist() == [2, 5, 5]
    assert events.weight.tolist() == [3, 1, 1]
    assert events.features[:, 0].tolist() == [1.5, 0.5, 0.5]
    said = " ".join(events.notices)
    for words in ("1 of 3 events come before", "1 events go from a node to itself", "1 events rep"):
        assert words in said
    assert events.codes(pl.Series(["bob", "zoe"])).tolist() == [1, -1]


def test_text_without_a_header_dates_parquet_and_negative_times(tmp_path):
    events = event_files.read(write(tmp_path, "7 9 -3\n9 7 4\n", "a.txt"))
    assert events.ids.to_list() == [7, 9]
    assert "1 events have negative times" in events.notices[0]
    assert events.codes(pl.Series(["9", "x", "7"])).tolist() == [1, -1, 0]
    dated = event_files.read(write(tmp_path, "from,to,date\n1,2,1970-01-02\n1,3,1970-01-03\n"))
    assert dated.time.tolist() == [86_400, 172_800]
    path = tmp_path / "b.parquet"
    pl.DataFrame({"u": [1], "i": [2], "ts": [3.5]}).write_parquet(path)
    assert event_files.read(path).time.tolist() == [3.5]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("src,dst,t\n1,2,3\n1,,4\n", "row 3, column 'dst': An event has no id"),
        ("src,dst,t\n1,2,3\n1,2,soon\n", "row 3, column 't': 'soon' is no time"),
        ("src,dst,when\n1,2,3\n", "no column for t"),
        ("src,dst,t,weight\n1,2,3,inf\n", "row 2, column 'weight'"),
        ("src,dst,t\n", "no events"),
        ("1 2\n", "needs src, dst and t"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        event_files.read(write(tmp_path, text))
    with pytest.raises(NotFoundError):
        event_files.read(tmp_path / "none.csv")


def test_parts_end_at_quantiles_of_time_and_unseen_nodes_are_kept_out():
    table = pl.DataFrame({"src": [1, 2] * 50, "dst": [3, 4] * 50, "t": range(100)})
    events = event_files.build(table)
    split = protocol.split(events)
    # quantile 0.7 of 0..99 is 69.3: 70 events up to it; 0.85 is 84.15
    assert (split.train, split.val, split.end) == (70, 85, 100)
    unseen = protocol.split(events, inductive=0.25)
    assert unseen.unseen.sum() == 1
    assert unseen.kept.sum() == 35
    assert not unseen.kept[70:].any()


def test_a_window_is_strictly_before_and_takes_whole_times():
    table = pl.DataFrame({"src": [0] * 6, "dst": [1] * 6, "t": [1, 2, 2, 2, 3, 4]})
    events = event_files.build(table)
    assert window(events, 3.0, 2) == slice(1, 4)
    assert window(events, 1.0, 2) == slice(0, 0)
    assert window(events, 9.0, 99, longest=6.0) == slice(4, 6)


def test_history_equals_a_loop():
    generator = torch.Generator().manual_seed(0)
    src, dst = torch.randint(6, (2, 80), generator=generator)
    time = torch.randint(40, (80,), generator=generator).sort().values.double()
    history = EventHistory(src, dst, time, nodes=6)
    for u, v, cut in [(0, 1, 80), (3, 3, 41), (5, 2, 0), (2, 5, 17), (-1, 2, 80), (2, 99, 80)]:
        last, count = history.pair(torch.tensor([u]), torch.tensor([v]), torch.tensor([cut]))
        met = [float(t) for a, b, t in zip(src[:cut], dst[:cut], time[:cut], strict=True)
               if (a, b) == (u, v)]  # fmt: skip
        assert float(last[0]) == max(met, default=-torch.inf)
        assert int(count[0]) == len(met)
    drawn, known = history.draw_past(torch.tensor([0, 4]), torch.tensor([60, 60]), 200)
    for row, number, node in zip(drawn, known, (0, 4), strict=True):
        met = set(dst[:60][src[:60] == node].tolist())
        assert set(row.tolist()) == met | {-1}
        # each of them once
        assert int((row >= 0).sum()) == number == len(met)


def test_the_hash_is_the_published_one():
    found = protocol.mix(np.array([0, 1], dtype=np.uint64))
    assert found.tolist() == [16294208416658607535, 10451216379200822465]


@real
@pytest.mark.parametrize(
    ("name", "sizes", "digest", "rule", "score"),
    [
        ("CollegeMsg.txt", (41884, 8975, 8976), "6c54ef0da1733f70",
         "undirected-recency-then-destination", 0.520),
        ("ml_enron.txt", (87664, 18786, 18785), "0ccb42865fb929db",
         "recency-then-destination", 0.536),
        ("soc-sign-bitcoinotc.csv", (24914, 5339, 5339), "1b2ddb01c337732e",
         "destination-recency", 0.334),
    ],
)  # fmt: skip
def test_real_files_give_the_known_negatives_and_scores(name, sizes, digest, rule, score):
    events = event_files.read(Path(DATA) / "graph" / name)
    split = protocol.split(events)
    assert (split.train, split.val - split.train, split.end - split.val) == sizes
    part = split.part("test")
    negatives = protocol.rank_negatives(events, part)
    ids = torch.cat([events.numbers(), torch.tensor([-1])])
    assert hashlib.sha256(ids[negatives].numpy().tobytes()).hexdigest().startswith(digest)
    history = EventHistory(events.src, events.dst, events.time, nodes=events.nodes)
    number = torch.arange(part.start, part.stop)
    first = events.time[part.start + (number - part.start) // 200 * 200]
    candidates = torch.cat([events.dst[number][:, None], negatives], 1)
    scores = score_links(
        rule, history, events.src[number][:, None].expand_as(candidates), candidates,
        history.cut(first)[:, None].expand_as(candidates),
    )  # fmt: skip
    places = ranking.ranks(scores[:, 0], scores[:, 1:], negatives >= 0)
    assert ranking.mean_reciprocal_rank(places) == pytest.approx(score, abs=5e-4)


@real
def test_real_snapshots_and_sensors():
    folder = Path(DATA) / "graph"
    covid = read_snapshots(folder / "england_covid.json")
    assert covid.values.shape == (61, 129)
    assert float(covid.values.max()) == 182
    assert int(covid.offsets[-1]) / 61 == pytest.approx(1353, abs=10)
    metr = formats.read_sensors(folder / "los_speed.csv", folder / "metr_la_adj_edges.csv")
    assert metr.values.shape == (2016, 207)
    assert len(metr.src) == 1722 - 207
    assert float(metr.values[:1411].mean()) == pytest.approx(59.370, abs=1e-3)


def test_triples_count_from_one_and_arrays_are_taken(tmp_path):
    write(tmp_path, ",u,i,ts,label,idx\n0,1,3,0.0,0,1\n1,2,3,5.0,1,2\n", "ml_x.csv")
    np.save(tmp_path / "ml_x.npy", np.array([[0.0, 0], [1, 2], [3, 4]]))
    np.save(tmp_path / "ml_x_node.npy", np.arange(4.0)[:, None])
    events = formats.read_triple(tmp_path / "ml_x.csv")
    assert events.features.tolist() == [[1, 2], [3, 4]]
    assert events.label.tolist() == [0, 1]
    assert events.node_features[:, 0].tolist() == [1, 2, 3]
    arrays = {"src": [1, 2], "dst": [3, 3], "t": [0, 5], "msg": [[1, 2], [3, 4]]}
    np.savez(tmp_path / "x.npz", **arrays)
    assert torch.equal(formats.read_arrays(tmp_path / "x.npz").features, events.features)


def test_steps_are_in_order_of_numbers_and_unknown_sensors_are_counted(tmp_path):
    held = {
        "edge_mapping": {"edge_index": {"10": [[0, 1]], "9": [[1, 0]]},
                         "edge_weight": {"10": [2.0], "9": [3.0]}},
        "y": [[1, 2], [3, 4]],
    }  # fmt: skip
    found = read_snapshots(write(tmp_path, json.dumps(held), "a.json"))
    assert found.weight.tolist() == [3, 2]
    assert found.offsets.tolist() == [0, 1, 2]
    held["y"] = [[1], [2]]
    with pytest.raises(DataError, match="leads to node 1"):
        read_snapshots(write(tmp_path, json.dumps(held), "a.json"))
    readings = write(tmp_path, "time,a,b\n0,1.5,0\n1,2.5,3.5\n", "r.csv")
    edges = write(tmp_path, "src,dst,weight\na,b,0.5\na,zzz,1\na,a,1\n", "e.csv")
    graph = formats.read_sensors(readings, edges)
    assert graph.ids == ("a", "b")
    assert graph.src.tolist() == [0]
    assert graph.dst.tolist() == [1]
    said = " ".join(graph.notices)
    assert "1 edges name a sensor without" in said
    assert "1 readings of 0" in said
    by_place = formats.read_sensors(readings, write(tmp_path, "src,dst\n1,0\n", "e.csv"))
    assert (by_place.src.tolist(), by_place.weight.tolist()) == ([1], [1])
    edges = write(tmp_path, "src,dst\nq,zzz\n", "e.csv")
    with pytest.raises(DataError, match="No edge has both"):
        formats.read_sensors(readings, edges)


def test_a_matrix_of_weights_is_read_as_its_edges(tmp_path):
    readings = write(tmp_path, "a,b,c,d\n1,2,3,4\n", "r.csv")
    matrix = write(tmp_path, "1,0,0.5,0\n0,1,0,0\n0,0,0,0.25\n0,0,0,1\n", "m.csv")
    graph = formats.read_sensors(readings, matrix)
    assert (graph.src.tolist(), graph.dst.tolist()) == ([0, 2], [2, 3])
    assert graph.weight.tolist() == [0.5, 0.25]


def test_rules_for_values():
    past = torch.tensor([[[1.0], [2.0], [6.0]]])
    assert moving_average(past, 2, steps=2).flatten().tolist() == [4, 4]
    train = torch.tensor([[1.0], [10.0], [3.0]])
    # slot 0 has 1 and 3, slot 1 has 10, slot 2 has none
    found = slot_means(train, torch.tensor([0, 1, 0]), season=3)
    assert found.flatten().tolist() == [2, 10, pytest.approx(14 / 3)]
    # each next value is twice the last one less the one before and 1 more, at every node
    generator = torch.Generator().manual_seed(0)
    windows = torch.randn(9, 2, 3, generator=generator)
    target = 2 * windows[:, 1:] - windows[:, :1] + 1
    mask = torch.ones_like(target, dtype=torch.bool)
    mask[0], target[0] = False, 99.0
    weights = fit_pooled(windows, target, mask)
    torch.testing.assert_close(weights.flatten(), torch.tensor([-1.0, 2.0, 1.0]))
    torch.testing.assert_close(pooled(windows, weights)[1:], target[1:])
