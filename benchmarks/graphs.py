"""Todyformer on graphs of events and of sensors, beside rules that learn nothing.

    python benchmarks/graphs.py [--points collegemsg metr-la ...] [--epochs 5] [--test]

collegemsg, enron, bitcoin-otc   links: each event ranked against 100 fixed negatives, half of them
                                 past ones; AP and AUC against one random destination
metr-la                          a week of speeds, 12 steps from 12: errors [mph] after 15, 30, 60
                                 minutes
england-covid                    cases of a day ahead from two weeks

Settings are chosen on the validation part; the test part is scored with `--test` only. Training is
`forecast.training.loop.fit`: a batch of events is a run of numbers in order, so the loop needs no
more than an `order` that keeps it. Times are process CPU time, memory the process's peak resident
size.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

from forecast.graphs import data as graphs
from forecast.graphs.score import baselines, error_sums, with_start
from forecast.graphs.section import GRAPHS, GraphSection
from forecast.models.todyformer.model import Todyformer, TodyformerConfig
from forecast.models.todyformer.sensors import SensorTodyformer, SensorTodyformerConfig
from forecast.recipe import TrainSection
from forecast.training.loop import Silence, fit

# (learning rate, windows of a step) by task
TRAINING = {"link": (1e-3, 200), "node": (1e-3, 1), "sensor": (2e-3, 32)}


class Report(Silence):
    """Print each epoch with what it cost.

    Args:
        windows: events, or windows, of an epoch.
    """

    def __init__(self, windows: int) -> None:
        self.windows, self.before = windows, time.process_time()

    def epoch(self, row):
        now = time.process_time()
        spent, self.before = now - self.before, now
        print(
            f"  epoch {row['epoch']:.0f}: train {row['train_loss']:.4f} val {row['val_loss']:.4f}, "
            f"{spent:.1f} CPU-s with validation, {self.windows / spent:.0f}/CPU-s",
            flush=True,
        )


@torch.no_grad()
def score(model, data, part):
    model.eval()
    sums = error_sums(data)
    for batch in data.windows(part).batches(64):
        sums.add(model(batch), batch)
    return sums.result()


def words(result):
    """Print what has a name in the field: of leads those after a quarter, a half and all."""
    if "mae_by_lead" in result and len(result["mae_by_lead"]) == 12:
        parts = [
            f"{name} " + " ".join(f"{result[f'{name}_by_lead'][lead]:.3f}" for lead in (2, 5, 11))
            for name in ("mae", "rmse", "mape")
        ]
        return ", ".join(parts)
    names = ("mrr", "hits_at_10", "ap", "auc", "mae", "rmse")
    return ", ".join(f"{name} {result[name]:.4f}" for name in names if name in result)


def run(name, options):
    known = GRAPHS[name]
    data = with_start(graphs.load(GraphSection(source=name, **known.options)))
    task = data.spec.task
    train = data.windows("train")
    print(f"\n{name}: {len(train)} windows to learn from", flush=True)
    torch.manual_seed(options.seed)
    if task == "sensor":
        config = SensorTodyformerConfig(dropout=options.dropout)
        model = SensorTodyformer(config, data.spec, **data.inputs())
    else:
        config = TodyformerConfig(dropout=options.dropout, weights=task == "node")
        model = Todyformer(config, data.spec, **data.inputs())
    rate, size = TRAINING[task]
    section = TrainSection(
        epochs=options.epochs, batch_size=size, learning_rate=options.rate * rate,
        optimizer="adamw", weight_decay=1e-4, schedule="cosine", clip=1.0, seed=options.seed,
        precision="fp32", patience=0,
    )  # fmt: skip
    print(f"  untrained val: {words(score(model, data, 'val'))}", flush=True)
    fitted = fit(model, train, data.windows("val"), section, watcher=Report(len(train)))
    print(f"  best epoch {fitted.best_epoch}")
    for part in ("val", "test") if options.test else ("val",):
        for rule, result in baselines(data, part).items():
            print(f"  {rule} {part}: {words(result)}")
        before = time.process_time()
        result = score(model, data, part)
        spent = time.process_time() - before
        print(f"  todyformer {part}: {words(result)}, {spent:.1f} CPU-s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", nargs="+", choices=GRAPHS, default=list(GRAPHS))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rate", type=float, default=1.0, help="times the learning rates")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--test", action="store_true", help="score the test part too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.points:
        run(name, options)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"  peak {peak:.2f} GiB", flush=True)


if __name__ == "__main__":
    main()
