"""`forecast benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forecast.cli import console
from forecast.cli.options import AsJson


def benchmark(
    sets: Annotated[
        list[str],
        typer.Argument(
            metavar="SET...",
            help="gift-eval (16 configurations), or names of single ones, such as ett1/H/short.",
            show_default=False,
        ),
    ],
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models",
            help="auto, seasonal-naive, or the beginning of candidates' names (ridge, in-context, "
            "smoothing, theta): the best of them on validation. Repeat for more.",
            show_default="auto, ridge, in-context, seasonal-naive",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Folder that holds ett/ and bench/.",
            show_default="the data root",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder of all_results.csv; rows that stand there are not run again.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="First configurations only.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run models on public benchmarks, with the published figures beside them.

    Example: forecast benchmark gift-eval --models auto --models ridge --out results/
    """
    from forecast.benchmark import run
    from forecast.benchmark.sets import GIFT_EVAL, published
    from forecast.catalogue.files import data_root

    names = [name for one in sets for name in (GIFT_EVAL if one == "gift-eval" else (one,))]
    names = list(dict.fromkeys(names))[:limit]
    root = data or data_root()
    chosen = models or ["auto", "ridge", "in-context", "seasonal-naive"]
    result = run.benchmark(
        names,
        root,
        chosen,
        out,
        done=lambda row: console.notice(f"{row['dataset']}: {row['model']} is done."),
    )
    peers = published(root)
    if as_json:
        console.document(
            {
                "rows": result.rows,
                "relative": result.relative,
                "published": {name: peers.get(name, {}) for name in names},
                "published_relative": result.peers,
            }
        )
        return
    rows = [
        (
            str(row["dataset"]),
            str(row["model"]),
            console.figure(float(row[run.MASE])),
            console.figure(float(row[run.WQL])),
            f"{float(row['cpu_seconds']):.1f}",
            f"{float(row['peak_memory_mb']):.0f}",
        )
        for row in result.rows
    ]
    console.table(
        ("configuration", "model", "MASE", "WQL", "CPU-s", "MB"), rows, right=(2, 3, 4, 5)
    )
    means: list[tuple[str, str, float, float]]
    means = [(model, "ours", *figures) for model, figures in result.relative.items()]
    means += [(model, "published", *figures) for model, figures in result.peers.items()]
    console.table(
        ("model", "", "MASE / naive", "WQL / naive"),
        [(m, w, f"{mase:.3f}", f"{wql:.3f}") for m, w, mase, wql in sorted(means, key=_by_wql)],
        right=(2, 3),
    )


def _by_wql(row: tuple[str, str, float, float]) -> float:
    return row[3]
