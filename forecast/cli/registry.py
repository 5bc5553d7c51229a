"""`forecast registry`: what is registered, and which version an alias names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from forecast.cli import console
from forecast.cli.options import AsJson

app = typer.Typer(
    help="List, show and promote registered models; register an artefact.", no_args_is_help=True
)
Name = Annotated[str, typer.Argument(help="Name of a registered model.")]


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the registered versions, with their aliases and scores.

    Example: forecast registry list
    """
    from forecast import tracking

    rows = tracking.rows()
    if as_json:
        console.document(rows)
        return
    if not rows:
        console.notice(
            "Nothing is registered. Train with --register NAME --alias champion to begin."
        )
        return
    header = ("name", "version", "aliases", "model", "dataset", "MSE", "created")
    console.table(
        header,
        [
            (
                str(row["name"]),
                str(row["version"]),
                ", ".join(row["aliases"]),
                str(row["model"]),
                str(row["dataset"]),
                console.figure(row["metrics"].get("test.mse")),
                str(row["created"]),
            )
            for row in rows
        ],
        right=(1, 5),
    )


@app.command()
def show(
    name: Name,
    version: Annotated[
        str, typer.Argument(help="A version's number or an alias.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Show where a version comes from: run, recipe, data, scores.

    Example: forecast registry show metro-traffic champion
    """
    from forecast import tracking

    facts = tracking.show(name, version)
    if as_json:
        console.document(facts)
        return
    for label, value in _brief(facts).items():
        console.answer(f"{label:<9} {value}")
    console.notice("Every setting and figure: --json")


# Settings that say what was trained; the rest is in --json.
_TOLD = ("data.source", "window.lookback", "window.horizon", "train.epochs", "train.seed")
# Figures of a screen.
_MOST_SCORES = 6


def _brief(facts: dict[str, Any]) -> dict[str, str]:
    """Lay out on one screen what a version is and where it comes from."""
    scores = {name.removeprefix("test."): value for name, value in facts["metrics"].items()}
    settings = {name: facts["params"][name] for name in _TOLD if name in facts["params"]}
    lines = {
        "name": f"models:/{facts['name']}/{facts['version']}",
        "aliases": ", ".join(facts["aliases"]) or "-",
        "model": facts["model"],
        "dataset": facts["dataset"],
        "test": ", ".join(
            f"{name} {value:.4g}" for name, value in [*scores.items()][:_MOST_SCORES]
        ),
        "settings": ", ".join(f"{name} = {value}" for name, value in settings.items()),
        "run": facts["run_id"] or "-",
        "created": facts["created"],
        "digest": facts["digest"] or "-",
        "source": facts["source"],
    }
    return {label: value for label, value in lines.items() if value}


@app.command()
def promote(
    name: Name,
    version: Annotated[
        str, typer.Argument(help="A version's number or an alias.", show_default=False)
    ],
    alias: Annotated[str, typer.Option(help="The alias that shall name it.")] = "champion",
) -> None:
    """Point an alias at a version.

    Example: forecast registry promote metro-traffic 3 --alias champion
    """
    from forecast import tracking

    tracking.promote(name, version, alias)
    named = tracking.show(name, alias)["version"]
    console.answer(f"models:/{name}@{alias} is now version {named}")


@app.command()
def add(
    artefact: Annotated[Path, typer.Argument(help="Folder of a trained forecaster.")],
    name: Annotated[str, typer.Option(help="Name to register it under.", show_default=False)],
    alias: Annotated[str | None, typer.Option(help="Alias for the new version.")] = None,
) -> None:
    """Register an artefact that was trained elsewhere, or while the server was away.

    Example: forecast registry add ./artefact --name metro-traffic --alias champion
    """
    from forecast import tracking

    version = tracking.add(artefact, name, alias)
    console.answer(f"registered as models:/{name}/{version}")
    if alias:
        console.answer(f"alias models:/{name}@{alias}")


@app.command()
def sync(
    folder: Annotated[
        Path, typer.Argument(help="Folder of the run, as `forecast train` named it.")
    ],
) -> None:
    """Send what a run could not send while its tracking server was away.

    Example: forecast registry sync ~/.local/share/forecast/runs/etth1-itransformer-96-...
    """
    from forecast import tracking

    sent = tracking.replay(folder)
    console.answer(f"{sent} records sent to {tracking.tracking_uri()}")
