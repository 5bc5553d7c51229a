"""Todyformer: nothing of the future reaches a score, packing is exact, and it learns."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
import torch

from forecast.batch import EventBatch, EventSpec, SeriesBatch
from forecast.errors import UsageError
from forecast.graphs import events as event_files
from forecast.graphs.batches import AffinityBatches, LinkBatches, window
from forecast.graphs.history import FACTS, EventHistory
from forecast.graphs.snapshot_batches import SnapshotBatches
from forecast.graphs.snapshots import Snapshots
from forecast.models.todyformer.model import Todyformer, TodyformerConfig
from forecast.models.todyformer.sensors import SensorTodyformer, SensorTodyformerConfig
from forecast.models.todyformer.tokens import patches, tokenise
from forecast.training.optimizer import Adam

SMALL = {"width": 16, "heads": 2, "time_width": 8, "patches": 4, "dropout": 0.0}


def draw(count=300, nodes=20, times=120, seed=0):
    generator = torch.Generator().manual_seed(seed)
    src, dst = torch.randint(nodes, (2, count), generator=generator)
    time = torch.randint(times, (count,), generator=generator).sort().values
    return event_files.build(
        pl.DataFrame({"src": src.numpy(), "dst": dst.numpy(), "t": time.numpy()})
    )


def model(task="link", **changes):
    torch.manual_seed(1)
    spec = EventSpec(task=task, time_unit=1.0, facts=FACTS if task == "link" else 0, lookback=3)
    built = Todyformer(TodyformerConfig(**SMALL | changes), spec)
    # heads that start at zero would hide what the blocks do
    for weight in built.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.3)
    return built.eval()


def ask(events, places, size=100):
    history = EventHistory(events.src, events.dst, events.time, nodes=events.nodes)
    generator = torch.Generator().manual_seed(5)
    negatives = torch.randint(20, (len(places), 6), generator=generator)
    batches = LinkBatches(
        events=events, history=history, numbers=places, window=size, negatives=negatives,
        destinations=torch.arange(events.nodes),
    )  # fmt: skip
    return batches.batch(torch.arange(len(places)))


@torch.no_grad()
def test_no_event_at_or_after_the_query_time_changes_a_bit():
    events = draw()
    places = torch.arange(200, 210)
    first = int(torch.searchsorted(events.time, float(events.time[200])))
    network, batch = model(), ask(events, places)
    wanted = network(batch).values
    generator = torch.Generator().manual_seed(9)
    src, dst = events.src.clone(), events.dst.clone()
    # all but the events asked about, of which the query itself is known
    for ends in (src, dst):
        ends[210:] = torch.randint(20, (90,), generator=generator)
        ends[first:200] = torch.randint(20, (200 - first,), generator=generator)
    assert torch.equal(network(ask(replace(events, src=src, dst=dst), places)).values, wanted)
    shortened = events.take(torch.arange(len(events)) < 210)
    assert torch.equal(network(ask(shortened, places)).values, wanted)
    # and what came before it does change it
    dst = events.dst.clone()
    dst[first - 5 : first] = (dst[first - 5 : first] + 1) % 20
    assert not torch.equal(network(ask(replace(events, dst=dst), places)).values, wanted)


@torch.no_grad()
@pytest.mark.parametrize("coalesce", [True, False])
def test_the_order_inside_a_time_changes_nothing(coalesce):
    events, places = draw(times=30), torch.arange(295, 300)
    network = model(coalesce=coalesce)
    noise = torch.rand(300, generator=torch.Generator().manual_seed(2)).double()
    order = (events.time + 0.5 * noise)[:295].argsort()
    order = torch.cat([order, places])
    shuffled = replace(events, src=events.src[order], dst=events.dst[order])
    assert torch.equal(shuffled.time, events.time)
    found, wanted = (network(ask(given, places)).values for given in (shuffled, events))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_query_time_matters_and_a_far_future_or_unknown_node_is_finite():
    events = draw()
    network, history = model(), EventHistory(events.src, events.dst, events.time, nodes=20)
    src = torch.tensor([3, -1, 500])
    candidates = torch.tensor([[1, 2, -1, 77]]).expand(3, -1)
    answers = []
    for now in (121.0, 121.0 + 86_400, 1e12):
        part = window(events, now, 100)
        time = torch.full(candidates.shape, now, dtype=torch.float64)
        facts = history.facts(
            src[:, None].expand_as(candidates), candidates, time, history.cut(time)
        )
        batch = EventBatch(
            src=events.src[part], dst=events.dst[part], time=events.time[part], now=now, query=src,
            query_time=time[:, 0], candidates=candidates, facts=facts,
        )  # fmt: skip
        answers.append(network(batch).values)
        assert answers[-1].isfinite().all()
    assert not torch.equal(answers[0], answers[1])
    none = replace(batch, src=src[:0], dst=src[:0], time=time[0, :0])
    assert network(none).values.isfinite().all()


def test_patches_and_runs_equal_those_of_a_loop():
    batch = ask(draw(seed=3), torch.arange(250, 255), size=120)
    count = len(batch.time)
    cut = patches(batch.time, 4)
    times = batch.time.tolist()
    assert cut.tolist() == [times.index(time) * 4 // count for time in times]
    tokens = tokenise(batch, patch_count=4, time_unit=1.0)
    events = list(zip(batch.src.tolist(), batch.dst.tolist(), cut.tolist(), times, strict=True))
    wanted = sorted({(u, m) for u, _, m, _ in events} | {(v, m) for _, v, m, _ in events})
    assert list(zip(tokens.node.tolist(), tokens.patch.tolist(), strict=True)) == wanted
    for place, (node, patch) in enumerate(wanted):
        mine = [e for e in events if e[2] == patch and node in e[:2]]
        assert tokens.incoming[place] == sum(e[1] == node for e in mine)
        assert tokens.outgoing[place] == sum(e[0] == node for e in mine)
        assert tokens.since[place] == pytest.approx(batch.now - max(e[3] for e in mine))
        # a message for each pair of this patch that leads here, by either way
        inside = slice(int(tokens.offsets[place]), int(tokens.offsets[place + 1]))
        found = sorted(tokens.node[tokens.source[inside]].tolist())
        pairs = {e[:2] for e in mine}
        ins = [u for u, v in pairs if v == node]
        outs = [v for u, v in pairs if u == node and v != node]
        assert found == sorted(ins + outs)
    rows = [row for bucket in tokens.buckets for row in runs(bucket)]
    assert sorted(rows) == [
        [place for place, (node, _) in enumerate(wanted) if node == chosen]
        for chosen in tokens.nodes.tolist()
    ]


def runs(bucket):
    real = torch.ones_like(bucket.rows, dtype=torch.bool) if bucket.real is None else bucket.real
    return [row[mask].tolist() for row, mask in zip(bucket.rows, real, strict=True)]


@torch.no_grad()
def test_packed_attention_equals_attention_over_each_run():
    batch = ask(draw(), torch.arange(250, 255), size=150)
    block = model().global_blocks[0].double()
    tokens = tokenise(batch, patch_count=4, time_unit=1.0)
    x = torch.randn(len(tokens.node), 16, dtype=torch.float64)
    position = torch.randn(4, 16, dtype=torch.float64)
    found = block(tokens, x, position)
    for node in tokens.nodes:
        mine = tokens.node == node
        y = x[mine] + position[tokens.patch[mine]]
        q, k, v = block.qkv(block.attention_norm(y)).view(len(y), 3, 2, 8).permute(1, 2, 0, 3)
        out = torch.softmax(q @ k.transpose(1, 2) / 8**0.5, -1) @ v
        y = y + block.out(out.transpose(0, 1).reshape(len(y), 16))
        torch.testing.assert_close(found[mine], y + block.mixer(y), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_one_patch_is_plain_message_passing():
    batch = ask(draw(count=60, nodes=8), torch.arange(50, 55), size=40)
    block = model().local_blocks[0].double()
    tokens = tokenise(batch, patch_count=1, time_unit=1.0)
    x = torch.randn(len(tokens.node), 16, dtype=torch.float64)
    code = torch.randn(len(tokens.edge_count), 9, dtype=torch.float64)
    found = block(tokens, x, code)
    pairs = sorted(set(zip(batch.src.tolist(), batch.dst.tolist(), strict=True)))
    place = {int(node): number for number, node in enumerate(tokens.node)}
    for target, row in place.items():
        scores, values = [], []
        for edge, (u, v) in enumerate(pairs):
            ways = [(u, v, 0)] + ([(v, u, 1)] if u != v else [])
            for origin, end, way in ways:
                if end != target:
                    continue
                kv = block.key_value(x[place[origin]]) + block.edge(code[edge])
                key, value = (kv + block.direction[way]).view(2, 2, 8)
                scores.append((block.query(x[row]).view(2, 8) * key).sum(1) / 8**0.5)
                values.append(value)
        weights = torch.softmax(torch.stack(scores), 0)
        got = (weights[..., None] * torch.stack(values)).sum(0).flatten()
        wanted = block.norm(torch.nn.functional.gelu(block.out(got) + block.skip(x[row])))
        torch.testing.assert_close(found[row], wanted, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_names_of_nodes_do_not_matter_and_single_events_need_no_joining():
    events, places = draw(), torch.arange(250, 260)
    network, batch = model(), ask(events, places)
    renamed = torch.randperm(20, generator=torch.Generator().manual_seed(4))
    changed = replace(
        batch, src=renamed[batch.src], dst=renamed[batch.dst], query=renamed[batch.query],
        candidates=renamed[batch.candidates],
    )  # fmt: skip
    torch.testing.assert_close(network(changed).values, network(batch).values)
    ends = torch.arange(40)
    once = replace(batch, src=ends % 20, dst=(ends * 7 + 1) % 20, time=ends.double())
    torch.testing.assert_close(model(coalesce=False)(once).values, network(once).values)


def train(network, batches, steps):
    optimizer = Adam(network.parameters())
    network.train()
    losses = []
    for step in range(steps):
        total, count = network.loss(batches[step % len(batches)])
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step(3e-3)
        losses.append(float(total.detach() / count))
    return losses


def test_it_learns_which_node_answers_which():
    # node u always turns to u + 10
    generator = torch.Generator().manual_seed(0)
    src = torch.randint(10, (400,), generator=generator)
    events = event_files.build(
        pl.DataFrame({"src": src.numpy(), "dst": (src + 10).numpy(), "t": range(400)})
    )
    history = EventHistory(events.src, events.dst, events.time, nodes=20)
    batches = LinkBatches(
        events=events, history=history, numbers=torch.arange(100, 400), window=80, drawn=5,
        destinations=torch.arange(10, 20),
    )  # fmt: skip
    torch.manual_seed(0)
    drawn = [batches.batch(index) for index in torch.arange(300).split(50)]
    losses = train(model(pair_features=False), drawn, 90)
    assert sum(losses[-6:]) < 0.7 * sum(losses[:6])


@torch.no_grad()
def test_scores_of_different_queries_share_a_level_and_draws_stand_for_others():
    batch = ask(draw(), torch.arange(250, 260))
    prior = torch.rand(batch.candidates.shape)
    weighed = replace(batch, prior=prior)
    scores = model()(batch).values
    torch.testing.assert_close(model()(weighed).values, scores + prior)
    alone, _ = model(alike=0.0).loss(weighed)
    total, _ = model(alike=0.5).loss(weighed)
    # the level is that of the scores themselves, whatever the draws stand for
    level = torch.log1p(torch.exp(-scores[:, 0])) + torch.log1p(torch.exp(scores[:, -1]))
    torch.testing.assert_close(total - alone, 0.5 * level.sum())


def snapshots(steps=30, nodes=6):
    # a node's next value is its neighbour's last one: messages alone can tell it
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(steps, nodes, generator=generator)
    ring = torch.arange(nodes)
    return Snapshots(
        values=values, src=ring.repeat(steps), dst=((ring + 1) % nodes).repeat(steps),
        weight=values.roll(0, 1).flatten(), offsets=torch.arange(steps + 1) * nodes,
    )  # fmt: skip


def test_values_of_nodes_come_from_snapshots_before_the_step_alone():
    graph = snapshots()
    batches = SnapshotBatches(graph=graph, steps=torch.arange(4, 30), lookback=3)
    network = model("node", patches=3, weights=True)
    batch = batches.batch(torch.tensor([10]))
    wanted = network(batch).values
    assert wanted.shape == (1, 1, 6)
    changed, weight = graph.values.clone(), graph.weight.clone()
    changed[14:], weight[14 * 6 :] = 9.0, 9.0
    later = replace(graph, values=changed, weight=weight)
    found = network(replace(batches, graph=later).batch(torch.tensor([10]))).values
    assert torch.equal(found, wanted)
    drawn = [batches.batch(torch.tensor([place])) for place in range(20)]
    losses = train(network, drawn, 100)
    assert sum(losses[-20:]) < sum(losses[:20])
    with pytest.raises(UsageError, match="one step"):
        batches.batch(torch.arange(2))


def test_shares_start_at_the_moving_average():
    events = draw()
    batches = AffinityBatches(
        events=events, starts=torch.tensor([60.0, 80.0]), period=20.0, window=100,
        candidates=torch.arange(20), averaged=2,
    )  # fmt: skip
    batch = batches.batch(torch.tensor([1]))
    torch.testing.assert_close(batch.truth.sum(1), torch.ones(len(batch)))
    past = (events.time >= 40) & (events.time < 80) & (events.src == batch.query[0])
    counted = torch.bincount(events.dst[past], minlength=20) / 2
    torch.testing.assert_close(batch.prior[0], counted.log1p())
    network = model("affinity")
    total, count = network.loss(batch)
    assert total.isfinite()
    assert count == len(batch)
    assert float(batch.time.max()) < 80


def test_sensors_start_at_persistence_and_hear_only_their_neighbours():
    torch.manual_seed(0)
    spec = EventSpec(task="sensor", lookback=12, horizon=3, nodes=5)
    config = SensorTodyformerConfig(width=16, heads=2, patch=3, depth=1, dropout=0.0)
    src, dst = torch.tensor([0, 1]), torch.tensor([1, 2])
    network = SensorTodyformer(config, spec, src, dst, torch.tensor([0.5, 0.9])).eval()
    past = torch.randn(2, 12, 5)
    answer = network(SeriesBatch(past=past)).values
    assert torch.equal(answer, past[:, -1:].expand(-1, 3, -1))
    torch.nn.init.normal_(network.head.weight)
    before = network(SeriesBatch(past=past)).values
    past[:, :6, 0] += 1.0
    moved = (network(SeriesBatch(past=past)).values - before).abs().amax((0, 1)) > 1e-6
    # one block carries sensor 0 to itself and to 1, along the edge and not against it
    assert moved.tolist() == [True, True, False, False, False]
    # what is not learned from is forecast a few windows at a time, and alike
    many = SeriesBatch(past=torch.randn(70, 12, 5))
    together = network(many).values
    with torch.no_grad():
        torch.testing.assert_close(network(many).values, together)
    with pytest.raises(UsageError, match="does not divide the lookback"):
        SensorTodyformer(replace(config, patch=5), spec, src, dst, torch.ones(2))
