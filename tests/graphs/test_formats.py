"""Files of the field as they are published, and what says that a file is no graph."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import xarray as xr

from forecast import recipe
from forecast.catalogue import DATASETS
from forecast.cli.init import init
from forecast.cli.options import with_edges
from forecast.errors import DataError, UsageError
from forecast.graphs import data as graphs
from forecast.graphs import events, predict
from forecast.graphs.header import EventHeader, ValueHeader, header_of
from forecast.graphs.score import baselines
from forecast.graphs.section import GraphSection
from forecast.graphs.snapshots import read_snapshots
from forecast.outputs import destinations, is_folder

TENNIS = {
    "time_periods": 3,
    "1": {"edges": [[1, 0]], "weights": [2], "X": [[7, 0.5], [8, 0.1]], "y": [3, 4]},
    "0": {"edges": [[0, 1], [1, 0]], "weights": [1, 5], "X": [[5, 0.5], [6, 0.1]], "y": [1, 2]},
    "2": {"edges": [], "weights": [], "X": [[9, 0.5], [0, 0.1]], "y": [5, 6]},
}
BUS = {
    "directed": True,
    "nodes": [
        {"bus_stop": 4711, "X": {"y": [1.0, 2.0, 3.0]}, "y": [1.0, 2.0, 3.0]},
        {"bus_stop": 42, "X": {"y": [4.0, 5.0, 6.0]}, "y": [4.0, 5.0, 6.0]},
    ],
    "links": [{"source": 42, "target": 4711, "weight": 0.25}],
}


def written(folder, document, name="s.json"):
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_a_snapshot_under_each_number_as_twitter_tennis_has_them(tmp_path):
    found = read_snapshots(written(tmp_path, TENNIS))
    # in the order of the numbers, whatever that of the file
    assert found.values.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert found.offsets.tolist() == [0, 2, 3, 3]
    assert (found.src.tolist(), found.dst.tolist()) == ([0, 1, 1], [1, 0, 0])
    assert found.weight.tolist() == [1, 5, 2]
    bare = {key: one for key, one in TENNIS.items() if key != "time_periods"}
    for step in ("0", "1", "2"):
        bare[step] = {key: one for key, one in bare[step].items() if key != "y"}
    # without targets the first number of a node's features is its value
    assert read_snapshots(written(tmp_path, bare)).values.tolist() == [[5, 6], [7, 8], [9, 0]]


def test_nodes_and_links_by_id_as_montevideo_bus_has_them(tmp_path):
    found = read_snapshots(written(tmp_path, BUS))
    assert found.ids == ("4711", "42")
    assert found.values.tolist() == [[1, 4], [2, 5], [3, 6]]
    assert found.src.tolist() == [1, 1, 1]
    assert found.dst.tolist() == [0, 0, 0]
    assert found.weight.tolist() == [0.25] * 3
    assert found.run(slice(1, 3)).ids == ("4711", "42")


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("{", "cannot be read as snapshots"),
        ("[" * 100_000, "cannot be read as snapshots"),
        ("[1, 2]", "it is no object"),
        ({"y": [[1, 2], [3]], "edges": []}, "cannot be read as snapshots"),
        ({"y": [["a"]], "edges": []}, "cannot be read as snapshots"),
        ({"FX": [[1.0]]}, "no values of nodes with edges"),
        ({**BUS, "links": [{"source": 1, "target": 42}]}, "cannot be read as snapshots"),
        ({"0": {"edges": [[0, 5]], "y": [1, 2]}}, "leads to node 5; there are values of 2"),
        ({"0": {"edges": [[0, 1]], "weights": [], "y": [1, 2]}}, "1 edges and 0 weights"),
    ],
)
def test_json_of_another_form_is_one_error_that_names_the_forms(tmp_path, document, told):
    with pytest.raises(DataError, match=told) as caught:
        read_snapshots(written(tmp_path, document))
    assert caught.value.hint


def test_a_table_of_jodie_has_users_and_items_of_their_own_and_a_feature_for_each_cell(tmp_path):
    text = "user_id,item_id,timestamp,state_label,comma_separated_list_of_features\n"
    text += "0,0,0.0,0,0.5,-1.0\n0,1,36.0,0,0.25,2.0\n1,0,77.0,1,0.0,3.0\n"
    found = events.read(written(tmp_path, text, "wikipedia.csv"))
    assert found.ids.to_list() == ["i0", "i1", "u0", "u1"]
    assert [found.ids[int(one)] for one in found.src] == ["u0", "u0", "u1"]
    assert [found.ids[int(one)] for one in found.dst] == ["i0", "i1", "i0"]
    assert found.feature_names == ("feat_0", "feat_1")
    assert found.features.tolist() == [[0.5, -1.0], [0.25, 2.0], [0.0, 3.0]]
    assert found.label.tolist() == [0, 0, 1]
    assert "both count from 0" in " ".join(found.notices)


def test_a_grid_and_other_bytes_are_no_graph_and_say_so(tmp_path):
    grid = tmp_path / "a.nc"
    xr.Dataset({"t": (("time", "y", "x"), np.zeros((3, 2, 2)))}).to_netcdf(grid, engine="h5netcdf")
    with pytest.raises(DataError, match="holds a grid, and a graph is asked for"):
        graphs.load(GraphSection(source=str(grid), task="link"))
    header = EventHeader(
        task="link", dated=False, ids=(), features=(), last=1.0,
        options=graphs.load(_links(tmp_path), lookback=10).header.options,
    )  # fmt: skip
    with pytest.raises(DataError, match="holds a grid"):
        predict.read_context(header, {}, graphs.EventSpec(), str(grid))
    (tmp_path / "b.csv").write_bytes(b"\x1f\x8b\x08\x00")
    with pytest.raises(DataError, match="neither text nor Parquet nor npz"):
        graphs.load(GraphSection(source=str(tmp_path / "b.csv")))
    (tmp_path / "c.csv").write_bytes("src,dst,t\nM\xfcller,b,1\n".encode("latin-1"))
    with pytest.raises(DataError, match="no table of events"):
        graphs.load(GraphSection(source=str(tmp_path / "c.csv")))


def _links(folder, count=60):
    rows = [(step % 5, 5 + step % 3, step) for step in range(count)]
    pl.DataFrame(rows, schema=["src", "dst", "t"], orient="row").write_csv(folder / "e.csv")
    return GraphSection(source=str(folder / "e.csv"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("src,dst,t,weight\na,b,1,2\n", "columns src, dst, t"),
        ("FROM_NODE,TO_NODE,TRUST_INDEX,TIME_SINCE_EPOCH\n6,2,4,1289241911.7\n", "columns from_no"),
        ("1 2 1082040961\n3 4 1082155839\n", "two whole numbers and a time"),
        ("date,load,heat\n2024-01-01,1,2\n", ""),
        ("date,source,value\n2024-01-01,a,2\n", ""),
        ("2024-01-01 1 2\n", ""),
        ("0.5,1.5,2.5\n", ""),
    ],
)
def test_events_without_a_model_say_how_and_tables_are_left_alone(tmp_path, text, found):
    path = str(written(tmp_path, text, "x.csv"))
    if not found:
        assert recipe.load(path).model == "itransformer"
        return
    with pytest.raises(UsageError, match=found) as caught:
        recipe.load(path)
    assert "--model todyformer" in caught.value.hint
    # whoever names the model, or a column of a table, has said what it is
    assert recipe.load(path, model="todyformer").model == "todyformer"
    assert recipe.load(path, data={"time": "t"}).model == "itransformer"


def _sensors(folder):
    values = 50 + np.random.default_rng(0).normal(size=(80, 3)).cumsum(0)
    pl.DataFrame(dict(zip(("a", "b", "c"), values.T, strict=True))).write_csv(folder / "r.csv")
    written(folder, "src,dst,weight\na,b,0.5\n", "edges.csv")
    return str(folder / "r.csv"), str(folder / "edges.csv")


def test_init_writes_recipes_of_events_snapshots_and_sensors_that_load_again(tmp_path, capsys):
    readings, edges = _sensors(tmp_path)
    _links(tmp_path)
    cases = {
        "sensor": ((readings,), {"edges": edges}, "80 steps of 3 nodes with 1 edges"),
        "link": ((str(tmp_path / "e.csv"),), {"model": "todyformer"}, "60 events between 8 nodes"),
        "node": ((str(written(tmp_path, TENNIS)),), {}, "3 steps of 2 nodes with 3 edges"),
    }
    for task, (given, options, told) in cases.items():
        out = tmp_path / f"{task}.toml"
        init(*given, out=out, horizon=1, lookback=4, **options)
        assert told in out.read_text()
        made = recipe.load(out)
        assert made.graph.task == task
        assert made.model == ("todyformer-sensors" if task == "sensor" else "todyformer")
        assert made.window.lookback == 4
        # every line that is offered can be switched on
        switched = "\n".join(
            line.removeprefix("# ")
            for line in out.read_text().splitlines()
            if not line.startswith("# ") or (" = " in line and "affinity" not in line)
        )
        (tmp_path / "nodes.csv").write_text("id,size\n0,1\n")
        assert recipe.load(written(tmp_path, switched, f"all-{task}.toml")).model == made.model
    capsys.readouterr()


def test_edges_go_with_a_file_of_readings_alone(tmp_path):
    readings, edges = _sensors(tmp_path)
    made = recipe.load(readings, data=with_edges(readings, edges))
    assert made.graph.source == (readings, edges)
    assert made.model == "todyformer-sensors"
    with pytest.raises(UsageError, match="--edges goes with a file of readings"):
        with_edges("metr-la", edges)


def test_an_output_is_a_folder_by_its_name_and_not_by_how_many_inputs_there_are(tmp_path):
    out = tmp_path / "out"
    assert destinations(["in/a.csv"], out, False) == [out / "a.csv"]
    assert destinations(["in/a.csv", "in/b.csv"], out, False) == [out / "a.csv", out / "b.csv"]
    assert not is_folder(tmp_path / "f.nc")
    assert not is_folder(Path(os.devnull))
    (tmp_path / "run.1").mkdir()
    assert is_folder(tmp_path / "run.1")


def test_averages_of_counts_are_of_counts_and_of_what_was_observed(tmp_path):
    # 0 and 100 in turn: the mean is 50, that of logarithms is exp(log(101) / 2) - 1 = 9.05
    values = [[0, 100], [100, 0]] * 20
    held = {"y": values, "edges": [[0, 1]], "weights": [1.0]}
    section = GraphSection(
        source=str(written(tmp_path, held)), split=(20, 10, 10), averaged=4, season=4
    )
    data = graphs.load(section, lookback=4, horizon=1)
    assert data.scaler.logarithm
    found = baselines(data, "test")["moving-average-4"]
    assert found["mae"] == pytest.approx(50, rel=1e-4)
    # sensors: a report of 80 held over a gap of seven days is not eight reports
    readings = pl.DataFrame({"a": [80.0, 40.0] + [0.0, 40.0] * 7 + [40.0, 40.0] * 22,
                             "b": [40.0] * 60})  # fmt: skip
    readings.write_csv(tmp_path / "r.csv")
    written(tmp_path, "src,dst\na,b\n", "edges.csv")
    source = (str(tmp_path / "r.csv"), str(tmp_path / "edges.csv"))
    data = graphs.load(
        GraphSection(source=source, split=(16, 20, 24), season=2), lookback=2, horizon=1
    )
    means = data.scaler.undo(data.rules["means"])
    torch.testing.assert_close(means, torch.tensor([[80.0, 40.0], [40.0, 40.0]]))


def test_where_no_pair_occurs_twice_the_candidates_say_so(tmp_path):
    rows = [(source, 100 + target, 40 * source + target) for source in range(40)
            for target in range(40)]  # fmt: skip
    for name, more in (("once", []), ("twice", [(0, 100, 1)])):
        frame = pl.DataFrame(rows + more, schema=["src", "dst", "t"], orient="row").sort("t")
        frame.write_csv(tmp_path / f"{name}.csv")
        data = graphs.load(GraphSection(source=str(tmp_path / f"{name}.csv")), lookback=50)
        told = [one for one in data.notices if "No pair of the training part" in one]
        assert len(told) == (name == "once")
    assert "ruled out by construction" in DATASETS["bitcoin-otc"].description


def test_headers_come_back_from_json_and_refuse_what_is_none(tmp_path):
    data = graphs.load(_links(tmp_path), lookback=10)
    assert header_of(json.loads(json.dumps(data.header.to_dict()))) == data.header
    held = data.header.to_dict()
    for change, told in (
        ({"dated": "yes"}, "dated: input should be a valid boolean"),
        ({"task": "guess"}, "task: input should be 'link' or 'affinity'"),
        (
            {"options": {**held["options"], "unit": "s"}},
            r"options\.unit: input should be a valid nu",
        ),
        ({"ids": 3}, "ids: "),
    ):
        with pytest.raises(DataError, match=told):
            header_of(held | change)
    with pytest.raises(DataError, match="last: is missing"):
        header_of({key: one for key, one in held.items() if key != "last"})
    with pytest.raises(DataError, match="cannot be read"):
        header_of(["link"])
    values = {"task": "node", "ids": ["0"], "logarithm": True, "steps": 3, "options": {}}
    assert isinstance(header_of(values), ValueHeader)
