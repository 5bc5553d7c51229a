"""Error against the rows that a stream has read, far beyond what its window or memories hold.

    python benchmarks/lookback.py ARTEFACT... [--rows 96 336 1024 4096 8192]

ARTEFACT is a trained model that carries a state. For every number of rows the same forecasts are
made, each by a stream that began that many rows before, and scored on the test part: of every 96
origins 24 in a row, so that patches are caught at every age. Training rows are read, not scored.
"""

from __future__ import annotations

import argparse
import time

SCORED, STRIDE = 24, 96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("artefacts", nargs="+")
    parser.add_argument("--rows", type=int, nargs="+", default=[96, 336, 1_024, 4_096, 8_192])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch

    from forecast import prediction, training
    from forecast.device import choose_device

    torch.set_num_threads(options.threads)
    print(f"{'':<40}" + "".join(f"{rows:>8,}" for rows in options.rows) + f"{'CPU-s':>8}")
    for name in options.artefacts:
        forecaster = prediction.load(name)
        data = training._load(forecaster.recipe, None, choose_device("cpu"))
        windows, begun = data.windows("test"), time.process_time()
        errors = [error(forecaster.model, windows, rows) for rows in options.rows]
        cost = time.process_time() - begun
        print(f"{name[-38:]:<40}" + "".join(f"{x:8.4f}" for x in errors) + f"{cost:8.1f}")


def error(model, windows, rows: int) -> float:
    """Give the MSE of forecasts by streams that have read so many rows, or up to 23 more."""
    import torch

    from forecast.data.segments import segments

    part = segments(windows, warm_up=rows - 1, scored=SCORED, stride=STRIDE)
    total = count = 0.0
    model.eval()
    with torch.no_grad():
        for batch in part.batches(8 * SCORED):
            dense, _ = model.run(batch, kept=SCORED)
            truth, mask = batch.truth()
            wrong = (dense.values - truth).double().square()
            total += float(wrong.sum() if mask is None else wrong[mask].sum())
            count += float(truth.numel() if mask is None else mask.sum())
    return total / count


if __name__ == "__main__":
    main()
