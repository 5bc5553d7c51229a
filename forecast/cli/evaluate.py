"""`forecast evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from forecast.cli import console
from forecast.cli.options import AsJson, Device, Set, Trained


def evaluate(
    model: Trained,
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE...]",
            help="Score every row of this file; of grids several are one, of sensors two: readings "
            "and edges. By default the test part of the training data.",
            show_default=False,
        ),
    ] = None,
    cold: Annotated[
        bool,
        typer.Option(
            "--cold",
            help="Let a model that carries a state forecast from the rows of the lookback alone.",
        ),
    ] = False,
    settings: Set = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Score a trained model, with the baselines beside it.

    Examples:

      forecast evaluate models:/metro-traffic@champion

      forecast evaluate ./artefact new.csv --json
    """
    from forecast import api, kinds, recipe
    from forecast.cli import scores
    from forecast.device import Stopwatch, set_threads
    from forecast.scoring import comparison

    watch = Stopwatch()
    forecaster = api.load(model)
    set_threads(forecaster.recipe.train.threads)
    source = tuple(data) if data and len(data) > 1 else data[0] if data else None
    reading = recipe.reading(settings or ())
    result = kinds.evaluate(forecaster, source, device, cold=cold, reading=reading)
    for text in result.pop("notices"):
        console.notice(text)
    metrics = result["metrics"]
    beaten_by = comparison.beaten_by(metrics["test"], metrics["baselines"])
    if as_json:
        console.document(
            {"artefact": model, "model": forecaster.recipe.model}
            | result
            | {
                "beaten_by": beaten_by,
                "seed": forecaster.recipe.train.seed,
                "precision": forecaster.recipe.train.precision,
            }
            | watch.read()
        )
        return
    scores.show(forecaster.recipe.model, metrics["test"], metrics["baselines"])
    scores.show_protocol(metrics["test"], result["protocol"])
    scores.show_precision(forecaster.recipe)
    scores.verdict(forecaster.recipe.model, beaten_by)
