"""`forecast tune`."""

from __future__ import annotations

from typing import Annotated

import typer

from forecast.cli import console, options
from forecast.cli.options import AsJson, Horizon, Lookback, Set


def tune(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|DATASET|FILE",
            help="What `forecast train` takes.",
            autocompletion=options.sources,
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Model (model.name).", autocompletion=options.model_names),
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SECTION.KEY=RANGE",
            help="What to search: low..high, or values with commas; repeatable. By default "
            "learning rate, batch size, width and dropout.",
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials in all.")] = 20,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Begin no new trial after so long.")
    ] = None,
    lookback: Lookback = None,
    horizon: Horizon = None,
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Search settings by the validation loss; the test part is not looked at.

    Bad trials are cut short. A search that was stopped goes on when the command is given again, and
    several processes may share one. The first trial is the recipe as it stands.

    Examples:

      forecast tune etth1 --model dlinear --trials 20

      forecast tune sales.toml --search train.learning_rate=1e-5..1e-2 --search model.width=64,128
    """
    from forecast import recipe
    from forecast.cli.progress import Progress
    from forecast.device import Stopwatch
    from forecast.runs import search_space, tuning

    watch = Stopwatch()
    resolved = recipe.load(
        target, model=model, lookback=lookback, horizon=horizon, settings=settings or ()
    )
    searches = [search_space.parse(text) for text in search or ()]
    searches = searches or search_space.default_searches(resolved)
    with Progress() as watcher:
        found = tuning.tune(resolved, searches, trials=trials, seconds=seconds, watcher=watcher)
    if as_json:
        console.document(
            {
                "recipe": str(found.recipe),
                "settings": found.settings,
                "validation_loss": found.loss,
                "default_loss": found.default_loss,
                "trials": found.trials,
                "pruned": found.pruned,
            }
            | watch.read()
        )
        return
    console.table(("setting", "best"), [(key, f"{value}") for key, value in found.settings.items()])
    before = f", as it stood {found.default_loss:.4g}" if found.default_loss is not None else ""
    cost = watch.read()
    console.answer(
        f"\nvalidation loss {found.loss:.4g}{before}; {found.trials} trials, {found.pruned} cut "
        f"short; {cost['cpu_seconds']:.1f} CPU-s\n\nTrain it:  forecast train {found.recipe}"
    )
