"""`forecast models`: what there is to train."""

from __future__ import annotations

import dataclasses
import typing
from typing import Annotated

import typer

from forecast.cli import console, options
from forecast.cli.options import AsJson

app = typer.Typer(help="List the models, and show what can be set of each.", no_args_is_help=True)


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the models.

    Example: forecast models list
    """
    from forecast.models import MODELS

    if as_json:
        console.document(
            [
                {
                    "name": name,
                    "title": info.title,
                    "kind": info.kind,
                    "closed_form": info.closed_form,
                    "streams": info.streams,
                    "source": info.source,
                }
                for name, info in MODELS.own.items()
            ]
            + [
                {"name": name, "package": package, "version": version}
                for name, package, version in MODELS.added()
            ]
        )
        return
    console.table(
        ("name", "data", "fitting", "what it does", "source"),
        [
            (
                name,
                info.kind,
                "closed form" if info.closed_form else "by steps",
                info.title,
                info.source,
            )
            for name, info in MODELS.own.items()
        ]
        + [
            (name, "", "", f"forecast models show {name}", f"package {package} {version}")
            for name, package, version in MODELS.added()
        ],
    )


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(help="A name from the list.", autocompletion=options.model_names)
    ],
    as_json: AsJson = False,
) -> None:
    """Show the fields of a model's config, its training defaults and its recipes.

    Example: forecast models show itransformer
    """
    from forecast.models import model_info
    from forecast.recipe import allowed
    from forecast.recipe.sections import recipe_names

    info = model_info(name)
    model, config = info.load()
    hints = typing.get_type_hints(config, include_extras=True)
    settable = [
        (field.name, field.default, allowed(hints[field.name]))
        for field in dataclasses.fields(config)
    ]
    recipes = [recipe for recipe in recipe_names() if recipe.startswith(f"{name}-")]
    if as_json:
        console.document(
            {
                "name": name,
                "title": info.title,
                "source": info.source,
                "config": {
                    key: {"default": default, "allowed": words} for key, default, words in settable
                },
                "train": dict(info.train),
                "recipes": recipes,
            }
        )
        return
    console.answer(f"{name}: {info.title}\n{info.source}\n\n{_summary(model)}\n")
    if settable:
        rows = [(f"model.{key}", str(default), words) for key, default, words in settable]
        console.table(("field", "default", "allowed"), rows)
    else:
        console.answer("Nothing to set.")
    for key, value in info.train.items():
        console.answer(f"train.{key} is {value} unless the recipe says otherwise")
    if recipes:
        console.answer("\nRecipes that come with the program: forecast train NAME")
        console.answer("\n".join(f"  {recipe}" for recipe in recipes))


def _summary(model: type[object]) -> str:
    import inspect

    return inspect.getdoc(model) or ""
