"""From what a person asks for to the sections of a recipe, in plain values not checked yet.

A target is a recipe file, the name of a recipe or of a data set, or a data file. What it states is
overruled by flags, these by `--set`; what stays open is filled in by the data set's protocol.
"""

from __future__ import annotations

import glob
import tomllib
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from forecast import limits
from forecast.catalogue import DATASETS, kinds_of
from forecast.errors import NotFoundError, UsageError, nearest
from forecast.graphs.sniff import events_in
from forecast.models import DEFAULTS, MODELS, model_info

# A recipe is a page of text [B].
_MOST_RECIPE = 1 << 22
# What people call the kinds of data.
_CALLED = {"series": "tables of series", "grid": "grids", "graph": "graphs"}


def sections_of(
    target: str, flags: Mapping[str, Mapping[str, Any]], settings: Sequence[str]
) -> dict[str, Any]:
    """Collect the sections of a recipe from target, flags and settings.

    Args:
        target: what to begin with.
        flags: values by section and key, stronger than the target.
        settings: `section.key=value`, the strongest; values are written as in TOML.

    Raises:
        UsageError: a setting, or TOML, does not parse, or the model is of another kind of data.
        NotFoundError: no such recipe, data set or file.
    """
    stated = {section: dict(values) for section, values in flags.items()}
    for section, key, value in map(setting, settings):
        stated.setdefault(section, {})[key] = value
    sections = _sections_of_target(target, stated)
    for section, values in stated.items():
        if values:
            sections[section] = {**sections.get(section, {}), **values}
    _move_dataset_defaults_below(sections)
    _settle_kind(sections)
    return sections


def recipe_names() -> list[str]:
    """List the recipes that come with the program."""
    folder = _recipe_folder()
    return sorted(path.stem for path in folder.glob("*.toml")) if folder else []


def _sections_of_target(target: str, flags: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    folder = _recipe_folder()
    if target.endswith(".toml"):
        path = Path(target)
        packaged = folder / path.name if folder else None
        if not path.is_file() and packaged and packaged.is_file() and path.name == target:
            path = packaged
        if not path.is_file():
            names = [f"{name}.toml" for name in recipe_names()]
            raise NotFoundError(f"There is no recipe {target!r}.", hint=nearest(target, names))
        return _read(path)
    if folder and (folder / f"{target}.toml").is_file():
        return _read(folder / f"{target}.toml")
    if target in DATASETS:
        # The published row for this data set, model and horizon, when there is a recipe of it.
        model = flags.get("model", {}).get("name", DEFAULTS[DATASETS[target].kind])
        horizon = flags.get("window", {}).get("horizon", DATASETS[target].horizon)
        row = folder / f"{model}-{target}-{horizon}.toml" if folder else None
        if row and row.is_file():
            return _read(row)
        return {"data": {"source": target}}
    if not (Path(target).exists() or Path(target).suffix or glob.has_magic(target)):
        raise NotFoundError(
            f"{target!r} is neither a file, nor a data set, nor a recipe.",
            hint=nearest(target, [*DATASETS, *recipe_names()]),
        )
    # Of a file that is not there, reading says which others are in its folder.
    return {"data": {"source": target}}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = limits.read_regular(path, _MOST_RECIPE)
        sections = tomllib.loads(content.decode())
    # Beside what is no TOML, ValueError covers numbers of too many digits.
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise UsageError(f"{path} is not valid TOML: {reason}.", hint="Mend that line.") from error
    data = sections.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    if isinstance(source, str):
        sections["data"]["source"] = _from_recipe(path.parent, source)
    if isinstance(data, dict) and isinstance(nodes := data.get("nodes"), str) and nodes:
        sections["data"]["nodes"] = _from_recipe(path.parent, nodes)
    if isinstance(source, list):
        sections["data"]["source"] = [
            _from_recipe(path.parent, one) if isinstance(one, str) else one
            for one in typing.cast(list[object], source)
        ]
    return sections


def _from_recipe(folder: Path, source: str) -> str:
    """Take a path in a recipe from where the recipe lies, wherever one stands."""
    if source in DATASETS:
        return source
    beside = folder / source
    there = glob.glob(str(beside)) if glob.has_magic(source) else beside.exists()
    return str(beside) if there else source


def setting(text: str) -> tuple[str, str, Any]:
    """Take `section.key=value` apart; the value is TOML, or else text as it stands."""
    path, equals, written = text.partition("=")
    section, dot, key = path.strip().partition(".")
    if not (equals and dot and key):
        raise UsageError(
            f"--set {text!r} is not of the form section.key=value.",
            hint="For example: --set train.epochs=3",
        )
    try:
        value = tomllib.loads(f"value = {written}")["value"]
    except RecursionError as error:
        raise UsageError(
            f"--set {section}.{key} is nested too deep.", hint="Give a value, or a list of them."
        ) from error
    except tomllib.TOMLDecodeError:
        # Quotes round a word are what a shell takes away; a word alone is text.
        value = written.strip()
    except ValueError as error:
        raise UsageError(
            f"--set {section}.{key}: {error}.", hint="Give a number that a computer can hold."
        ) from error
    return section, key, value


def _move_dataset_defaults_below(sections: dict[str, Any]) -> None:
    """Let the published protocol of a known data set fill in what the recipe leaves open."""
    data = sections.get("data")
    source = data.get("source") if isinstance(data, Mapping) else None
    known = DATASETS.get(source) if isinstance(source, str) else None
    if data is None or known is None:
        return
    defaults: dict[str, Any] = {}
    if known.kind == "series":
        split = (known.split.train, known.split.val, known.split.test)
        defaults = {"season": known.season, "frequency": known.frequency, "split": split}
    sections["data"] = {**defaults, **known.options, **data}
    window = {"lookback": known.lookback, "horizon": known.horizon}
    sections["window"] = {**window, **sections.get("window", {})}


def _settle_kind(sections: dict[str, Any]) -> None:
    """Take a model of the kind of data at hand, and refuse one of another kind."""
    data, chosen = sections.get("data"), sections.get("model", {})
    source = data.get("source") if isinstance(data, Mapping) else None
    if not source or not isinstance(source, str | list) or not isinstance(chosen, Mapping):
        return
    kinds = kinds_of(typing.cast("str | list[str]", source))
    kind = kinds[0]
    table = {"time", "target", "id", "frequency"} & set(typing.cast("dict[str, Any]", data))
    if isinstance(source, str) and "name" not in chosen and kinds == ("series", "graph"):
        found = "" if table else events_in(Path(source))
        if found:
            raise UsageError(
                f"{source} looks like events between nodes ({found}), and no model is named.",
                hint="Of a graph, --model todyformer forecasts who meets whom; of a table of "
                f"series, --model {DEFAULTS['series']} its columns.",
            )
    name = chosen.get("name", DEFAULTS[kind])
    # Sensors, whose edges stay, have a network of their own; nodes weigh the edges.
    task = data.get("task") if isinstance(data, Mapping) else None
    if name == "todyformer" and (task == "sensor" or isinstance(source, list)):
        name = "todyformer-sensors"
    defaults = {"weights": True} if name == "todyformer" and task == "node" else {}
    sections["model"] = {**defaults, **chosen, "name": name}
    if isinstance(name, str) and (info := model_info(name)).kind not in kinds:
        fitting = [one for one in MODELS if MODELS[one].kind == kind]
        raise UsageError(
            f"{name} forecasts {_CALLED[info.kind]}, and {source} holds {_CALLED[kind]}.",
            hint=f"For {_CALLED[kind]} there are {', '.join(fitting)}: --model {fitting[0]}",
        )


def _recipe_folder() -> Path | None:
    """Find the recipes: inside an installed wheel, or in cli/recipes of a checkout."""
    package = Path(str(resources.files("forecast")))
    for folder in (package / "recipes", package.parent / "cli" / "recipes"):
        if folder.is_dir():
            return folder
    return None
