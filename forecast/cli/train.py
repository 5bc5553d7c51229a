"""`forecast train`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from forecast.cli import console, options
from forecast.cli.options import (
    AsJson,
    DateFormat,
    Edges,
    Fill,
    Horizon,
    Id,
    Lookback,
    Set,
    Target,
    Time,
    Timezone,
)

_KEEP = "What to keep"


def train(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|DATASET|FILE",
            help="A recipe (file or name), a known data set, a CSV or Parquet file, or a file, "
            "folder or pattern of grids: NetCDF, Zarr, HDF5, npz.",
            autocompletion=options.sources,
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="Model (model.name); see `forecast models list`.",
            autocompletion=options.model_names,
            rich_help_panel="What to forecast",
        ),
    ] = None,
    lookback: Lookback = None,
    horizon: Horizon = None,
    column: Target = None,
    time: Time = None,
    series: Id = None,
    date_format: DateFormat = None,
    timezone: Timezone = None,
    fill: Fill = None,
    edges: Edges = None,
    settings: Set = None,
    register: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Register the model under this name (tracking.register).",
            rich_help_panel=_KEEP,
        ),
    ] = None,
    alias: Annotated[
        str | None,
        typer.Option(
            help="Alias for the new version, such as champion (tracking.alias).",
            rich_help_panel=_KEEP,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Put the artefact here.", rich_help_panel=_KEEP),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Overwrite a model that --out holds.", rich_help_panel=_KEEP),
    ] = False,
    init: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Go on from a trained model, with these data."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last unfinished run of this recipe.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model, score it once beside honest baselines, track and register it.

    Examples:

      forecast train metro-traffic --horizon 24

      forecast train etth1 --model itransformer --horizon 96 --register etth1 --alias champion

      forecast train sales.csv --target sales --set train.epochs=3

      forecast train uk-t2m --horizon 12
    """
    from forecast import recipe
    from forecast.cli.progress import Progress
    from forecast.runs import run
    from forecast.training import distributed

    resolved = recipe.load(
        target,
        model=model,
        lookback=lookback,
        horizon=horizon,
        settings=settings or (),
        data=options.reading(
            target=column,
            time=time,
            series=series,
            date_format=date_format,
            timezone=timezone,
            fill=fill,
        )
        | options.with_edges(target, edges),
        tracking={
            name: value
            for name, value in (("register", register), ("alias", alias))
            if value is not None
        },
    )
    with Progress() as watcher:
        trained = run.train(
            resolved,
            model=model,
            lookback=lookback,
            horizon=horizon,
            init=init,
            resume=resume,
            out=out,
            force=force,
            watcher=watcher,
        )
    if not distributed.rank():
        if as_json:
            console.document(trained.to_json())
        else:
            report(trained)
    if distributed.size() > 1:
        # All is written. Threads of torch now and then abort a process of several as it ends.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def report(trained: object) -> None:
    """Print scores and places of a finished run."""
    from forecast.cli import scores
    from forecast.runs.run import Trained

    assert isinstance(trained, Trained)
    scores.show(trained.recipe.model, trained.metrics["test"], trained.metrics["baselines"])
    scores.show_protocol(trained.metrics["test"], trained.metrics["protocol"])
    scores.show_precision(trained.recipe)
    scores.verdict(trained.recipe.model, trained.beaten_by)
    cost = trained.cost
    lines = [
        ("artefact", str(trained.artefact)),
        ("picture", str(trained.picture)),
        ("MLflow run", trained.run_id or "not sent: the tracking server was away"),
    ]
    if trained.version is not None:
        name = trained.recipe.tracking.register
        handle = trained.recipe.tracking.alias
        lines.append(("registered", f"models:/{name}/{trained.version}"))
        if handle:
            lines.append(("alias", f"models:/{name}@{handle}"))
    lines.append(
        (
            "cost",
            f"{cost['cpu_seconds']:.1f} CPU-s, {cost['seconds']:.1f} s, "
            f"{cost['peak_memory_mb']:.0f} MB",
        )
    )
    console.answer("\n" + "\n".join(f"{label:<11} {value}" for label, value in lines))
