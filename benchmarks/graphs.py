"""Todyformer on graphs of events and of sensors, beside rules that learn nothing.

    python benchmarks/graphs.py [--points uci enron otc metr] [--epochs 3] [--test]

uci, enron, otc   links: each event ranked against 100 fixed negatives, half of them past ones;
                  MRR by part, AP and AUC of the test part against one random destination
metr              a week of speeds in Los Angeles, 12 steps from 12: MAE, RMSE [mph] and MAPE [%]

Settings are chosen on the validation part; the test part is scored with `--test` only. Training is
`forecast.loop.fit`: a batch of events is a run of numbers in order, so the loop needs no more than
an `order` that keeps it. Times are process CPU time, memory the process's peak resident size.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path

import torch

from forecast import graph_metrics
from forecast.batch import EventSpec, Spec
from forecast.data import events as event_files
from forecast.data import link_protocol
from forecast.data.event_batches import link_batches
from forecast.data.event_history import FACTS, EventHistory
from forecast.data.temporal_graphs import read_sensors
from forecast.data.windows import Series, Windows
from forecast.loop import Silence, fit
from forecast.models.graph_baselines import (
    LINK_RULES,
    historical_mean,
    moving_average,
    persistence,
    score_links,
)
from forecast.models.todyformer import Todyformer, TodyformerConfig
from forecast.models.todyformer_sensors import SensorTodyformer, SensorTodyformerConfig
from forecast.recipe import TrainSection

LINKS = {"uci": "CollegeMsg.txt", "enron": "ml_enron.txt", "otc": "soc-sign-bitcoinotc.csv"}


class Report(Silence):
    """Print each epoch with what it cost.

    Args:
        events: events, or windows, of an epoch.
    """

    def __init__(self, events: int) -> None:
        self.events, self.before = events, time.process_time()

    def epoch(self, row):
        now = time.process_time()
        spent, self.before = now - self.before, now
        print(
            f"  epoch {row['epoch']:.0f}: train {row['train_loss']:.4f} val {row['val_loss']:.4f}, "
            f"{spent:.1f} CPU-s with validation, {self.events / spent:.0f}/CPU-s",
            flush=True,
        )


@torch.no_grad()
def ranked(model, batches):
    model.eval()
    scores = torch.cat([model(batch).values for batch in batches.batches(0)])
    places = graph_metrics.ranks(scores[:, 0], scores[:, 1:])
    return graph_metrics.mean_reciprocal_rank(places), graph_metrics.hits(places), scores


def links(name, options):
    events = event_files.read(options.data / "graph" / LINKS[name])
    split = link_protocol.split(events)
    parts = ["val", "test"] if options.test else ["val"]
    train = link_batches(events, split, "train", window=options.window, past=options.past)
    held = {part: link_batches(events, split, part, window=options.window) for part in parts}
    print(f"\n{name}: {len(events)} events, {len(train)} to learn from")
    for rule in LINK_RULES:
        print(f"  {rule}: " + ", ".join(by_rule(rule, events, held[part]) for part in parts))
    spec = EventSpec(
        time_unit=float(events.time[split.train - 1] - events.time[0]) / 1e4, facts=FACTS
    )
    torch.manual_seed(options.seed)
    model = Todyformer(TodyformerConfig(dropout=options.dropout), spec)
    section = TrainSection(
        epochs=options.epochs, batch_size=200, learning_rate=options.rate, optimizer="adamw",
        weight_decay=1e-4, schedule="cosine", clip=1.0, seed=options.seed, precision="fp32",
    )  # fmt: skip
    fit(model, train, held["val"], section, watcher=Report(len(train)))
    for part in parts:
        before = time.process_time()
        reciprocal, hits, _ = ranked(model, held[part])
        spent = time.process_time() - before
        print(f"  todyformer {part}: MRR {reciprocal:.4f}, Hits@10 {hits:.4f}, {spent:.1f} CPU-s")
    if options.test:
        pairs = link_protocol.pair_negatives(events, split.part("test"))[:, None]
        object.__setattr__(held["test"], "negatives", pairs)
        scores = ranked(model, held["test"])[2]
        truth = torch.zeros_like(scores, dtype=torch.bool)
        truth[:, 0] = True
        flat = scores.flatten(), truth.flatten()
        print(
            f"  todyformer test, random negatives: AP {graph_metrics.average_precision(*flat):.4f},"
            f" AUC {graph_metrics.area_under_curve(*flat):.4f}"
        )


def by_rule(rule, events, batches):
    history = EventHistory(events.src, events.dst, events.time, nodes=events.nodes)
    numbers = batches.numbers
    first = numbers[torch.arange(len(numbers)) // batches.batch_size * batches.batch_size]
    cut = history.cut(events.time[first])[:, None]
    candidates = torch.cat([events.dst[numbers][:, None], batches.negatives], 1)
    source = events.src[numbers][:, None].expand_as(candidates)
    lately = float(events.time[numbers[-1]] - events.time[numbers[0]])
    scores = score_links(
        rule, history, source, candidates, cut.expand_as(candidates), lately=lately
    )
    places = graph_metrics.ranks(scores[:, 0], scores[:, 1:], candidates[:, 1:] >= 0)
    return f"{graph_metrics.mean_reciprocal_rank(places):.3f}"


def metr(options):
    folder = options.data / "graph"
    graph = read_sensors(folder / "los_speed.csv", folder / "metr_la_adj_edges.csv")
    values, day = graph.values.nan_to_num(), 288
    borders = {"train": (0, 1411), "val": (1411, 1612), "test": (1612, 2016)}
    mean, deviation = values[:1411].mean(), values[:1411].std()
    angle = torch.arange(len(values)) * (2 * torch.pi / day)
    series = Series(
        values=(values - mean) / deviation,
        calendar=torch.stack([angle.sin(), angle.cos(), (2 * angle).sin(), (2 * angle).cos()], 1),
    )
    windows = {
        part: Windows(
            series=series,
            origins=torch.arange(max(first, 12), end - 11),
            lookback=12,
            horizon=12,
        )
        for part, (first, end) in borders.items()
    }
    torch.manual_seed(options.seed)
    model = SensorTodyformer(
        SensorTodyformerConfig(dropout=options.dropout),
        Spec(lookback=12, horizon=12, variates=len(graph.ids), calendar=4),
        graph.src, graph.dst, graph.weight,
    )  # fmt: skip
    section = TrainSection(
        epochs=options.epochs, batch_size=32, learning_rate=2 * options.rate, optimizer="adamw",
        weight_decay=1e-4, schedule="cosine", clip=1.0, seed=options.seed, precision="fp32",
        patience=0,
    )  # fmt: skip
    print(f"\nmetr: {len(windows['train'])} windows to learn from; {' '.join(graph.notices)}")
    fit(model, windows["train"], windows["val"], section, watcher=Report(len(windows["train"])))
    model.eval()
    for part in ("val", "test") if options.test else ("val",):
        batches = list(windows[part].batches(64))
        truth = torch.cat([batch.target for batch in batches]) * deviation + mean
        past = torch.cat([batch.past for batch in batches]) * deviation + mean
        slots = (windows[part].origins[:, None] + torch.arange(12)) % day
        with torch.no_grad():
            answers = torch.cat([model(batch).values for batch in batches]) * deviation + mean
        rows = {
            "persistence": persistence(past, 12),
            "moving average of 3": moving_average(past, 12, steps=3),
            "historical mean": historical_mean(values[:1411], slots, season=day),
            "todyformer": answers,
        }
        for name, answer in rows.items():
            errors = graph_metrics.masked_errors(answer, truth)
            text = ", ".join(
                f"{metric} " + " ".join(f"{float(found[lead]):.3f}" for lead in (2, 5, 11))
                for metric, found in errors.items()
            )
            print(f"  {name} {part}: {text}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FORECAST_DATA", ".")))
    parser.add_argument("--points", nargs="+", choices=[*LINKS, "metr"], default=[*LINKS, "metr"])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--window", type=int, default=4096)
    parser.add_argument("--past", type=float, default=0.5, help="share of past negatives")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--test", action="store_true", help="score the test part too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.points:
        metr(options) if name == "metr" else links(name, options)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"  peak {peak:.2f} GiB")


if __name__ == "__main__":
    main()
