"""A run is one recipe: TOML and `--set` in, a frozen `Recipe` out, everything resolved.

What is not stated comes, in this order, from the recipe file, the data set's published protocol,
the model's own defaults and the defaults below. An unknown key is refused with the nearest name.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from forecast.data import DATASETS, kinds_of
from forecast.data.grid_section import GridSection
from forecast.data.tables import TableOptions
from forecast.errors import NotFoundError, UsageError, nearest
from forecast.models import DEFAULTS, MODELS, model_info

if typing.TYPE_CHECKING:
    from forecast.data.graph_section import GraphSection

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSection(TableOptions):
    """Say which data, and how to read and divide them.

    Attributes:
        source: name of a known data set, or path of a file.
        split: rows or fractions for train, validation and test, in time order; a train count of 0
            takes all rows before the other two, which end where the series does.
        gap: rows between validation and test that neither part has, for what is known only late.
        leave_out: rows at the end of each series that are not used at all.
        keep: rows of each series that are used, the last of those left; None uses all.
        season: rows in one season; None derives it from the frequency.
        marks: calendar features; `auto` follows the frequency.
        holidays: country or subdivision, such as `DE` or `DE-BY`, whose public holidays are a
            covariate known in advance.
    """

    source: str = ""
    split: tuple[int, int, int] | tuple[float, float, float] = (0.7, 0.1, 0.2)
    gap: NonNegative = 0
    leave_out: NonNegative = 0
    keep: Positive | None = None
    season: Positive | None = None
    marks: Literal["auto", "hourly", "daily", "none"] = "auto"
    holidays: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowSection:
    """Say how much a model sees and how far it forecasts.

    Attributes:
        lookback: past rows in a window; None takes four seasons.
        horizon: rows to forecast; None takes one season.
    """

    lookback: Positive | None = None
    horizon: Positive | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSection:
    """Say how the weights are found.

    Attributes:
        epochs: passes over the training windows at most.
        epoch_windows: windows in an epoch, drawn anew for each; 0 takes all. A model that overfits
            within one pass is validated in time by epochs that are shorter.
        batch_size: windows in a step.
        learning_rate: of the optimizer, before the schedule.
        optimizer: `adam` or `adamw`.
        weight_decay: of the optimizer.
        schedule: `constant`, `halving` (halved every epoch from the third on), `cosine` to zero,
            or `onecycle` (a tenth of the steps up, then cosine down).
        clip: largest norm of the gradient; 0 leaves it alone.
        patience: epochs without a better validation loss before the run stops; 0 never stops.
        precision: `fp32`, `bf16`, or `auto`: bf16 where the processor has units for it.
        seed: of the weights, the order of the windows and dropout.
        device: `auto`, `cpu`, `cuda` or `cuda:<number>`.
        threads: of torch on a CPU; 0 takes one for a small model, which a second one only slows
            down, else all processors.
        checkpoint_seconds: seconds between checkpoints inside an epoch.
        shard: of several processes, let each hold a part of the weights, gradients and moments
            (FSDP2) instead of all.
    """

    epochs: Positive = 10
    epoch_windows: NonNegative = 0
    batch_size: Positive = 32
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "halving", "cosine", "onecycle"] = "halving"
    clip: Annotated[float, Field(ge=0)] = 0.0
    patience: NonNegative = 3
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: NonNegative = 0
    device: str = "auto"
    threads: NonNegative = 0
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0
    shard: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackingSection:
    """Say where the run is written down.

    Attributes:
        experiment: MLflow experiment.
        register: name to register the model under; empty registers nothing.
        alias: alias to point at the new version, such as `champion`.
    """

    experiment: str = "forecast"
    register: str = ""
    alias: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Hold one complete run.

    Attributes:
        model: name of the model, a key of MODELS.
        model_config: the model's config, an instance of its own config class.
    """

    data: DataSection | GridSection | GraphSection
    window: WindowSection
    model: str
    model_config: Any
    train: TrainSection
    tracking: TrackingSection

    @property
    def source_name(self) -> str:
        """Call the data by a short name: that of the data set, file, folder or first of several."""
        source = self.data.source
        first = source if isinstance(source, str) else source[0]
        # Of a pattern, the folder it lies in.
        path = Path(first)
        return path.parent.name if "*" in path.name and path.parent.name else path.name

    @property
    def table(self) -> DataSection:
        """Give the data section of a recipe of series."""
        assert isinstance(self.data, DataSection)
        return self.data

    @property
    def grid(self) -> GridSection:
        """Give the data section of a recipe of grids."""
        assert isinstance(self.data, GridSection)
        return self.data

    @property
    def graph(self) -> GraphSection:
        """Give the data section of a recipe of graphs."""
        assert not isinstance(self.data, DataSection | GridSection)
        return self.data

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Lay the recipe out as sections of plain values, as a TOML file holds them."""
        return {
            "data": _plain(self.data),
            "window": _plain(self.window),
            "model": {"name": self.model} | _plain(self.model_config),
            "train": _plain(self.train),
            "tracking": _plain(self.tracking),
        }

    def to_toml(self) -> str:
        """Write the recipe as TOML; what is None is left out."""
        lines: list[str] = []
        for section, values in self.to_dict().items():
            lines += [f"[{section}]"]
            lines += [
                f"{key} = {_toml(value)}" for key, value in values.items() if value is not None
            ]
            lines += [""]
        return "\n".join(lines)

    def digest(self) -> str:
        """Name what decides the result: a hash over all sections but `tracking`."""
        decisive = {name: part for name, part in self.to_dict().items() if name != "tracking"}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def replace(self, section: str, **values: Any) -> Recipe:
        """Return a recipe with some values of one section changed."""
        changed = dataclasses.replace(getattr(self, section), **values)
        return dataclasses.replace(self, **{section: changed})


_SECTIONS = ("data", "window", "model", "train", "tracking")
# What people call the kinds of data.
_CALLED = {"series": "tables of series", "grid": "grids", "graph": "graphs"}


def from_dict(sections: Mapping[str, Any]) -> Recipe:
    """Check sections of plain values and build the recipe.

    Raises:
        UsageError: an unknown section or key, or a value of the wrong kind.
        NotFoundError: an unknown model.
    """
    for name in sections:
        if name not in _SECTIONS:
            raise UsageError(f"A recipe has no section [{name}].", hint=nearest(name, _SECTIONS))
        if not isinstance(sections[name], Mapping):
            raise UsageError(
                f"{name} = {sections[name]!r} stands outside of a section.",
                hint="Put it under [data], [window], [model], [train] or [tracking].",
            )
    chosen = dict(sections.get("model", {}))
    name = chosen.pop("name", DEFAULTS["series"])
    if not isinstance(name, str):
        raise UsageError(f"model.name = {name!r} is not text.", hint="Write the name in quotes.")
    info = model_info(name)
    _, config = info.load()
    train = {**info.train, **sections.get("train", {})}
    return Recipe(
        data=_section("data", _data_section(info.kind), sections.get("data", {})),
        window=_section("window", WindowSection, sections.get("window", {})),
        model=name,
        model_config=_section("model", config, chosen),
        train=_section("train", TrainSection, train),
        tracking=_section("tracking", TrackingSection, sections.get("tracking", {})),
    )


def load(
    target: str | Path,
    *,
    model: str | None = None,
    lookback: int | None = None,
    horizon: int | None = None,
    settings: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
    tracking: Mapping[str, Any] | None = None,
) -> Recipe:
    """Resolve what `forecast train` is given into a recipe.

    Args:
        target: a recipe file, the name of a recipe that comes with the program, the name of a
            data set, or a data file.
        model: name of the model; a flag like the next two, and stronger than the recipe.
        lookback: L [rows].
        horizon: H [rows].
        settings: `section.key=value`, the strongest of all; values are written as in TOML.
        data: fields of the data section, stronger than the recipe.
        tracking: fields of the tracking section, stronger than the recipe.

    Raises:
        UsageError: an unknown key, a value of the wrong kind, or TOML that does not parse.
        NotFoundError: no such recipe, data set, model or file.
    """
    flags = {
        "data": dict(data or {}),
        "window": _given(lookback=lookback, horizon=horizon),
        "model": _given(name=model),
        "tracking": dict(tracking or {}),
    }
    for section, key, value in map(_setting, settings):
        flags.setdefault(section, {})[key] = value
    sections = _sections_of(str(target), flags)
    for section, values in flags.items():
        if values:
            sections[section] = {**sections.get(section, {}), **values}
    _move_dataset_defaults_below(sections)
    _settle_kind(sections)
    return from_dict(sections)


def recipe_names() -> list[str]:
    """List the recipes that come with the program."""
    folder = _recipe_folder()
    return sorted(path.stem for path in folder.glob("*.toml")) if folder else []


def _sections_of(target: str, flags: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
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
        sections = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}.", hint="Mend that line.") from error
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


def _data_section(kind: str) -> type[Any]:
    if kind == "series":
        return DataSection
    if kind == "grid":
        return GridSection
    # Not before it is needed: it brings torch along.
    from forecast.data.graph_section import GraphSection  # noqa: PLC0415

    return GraphSection


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _setting(text: str) -> tuple[str, str, Any]:
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
    except tomllib.TOMLDecodeError:
        # Quotes round a word are what a shell takes away; a word alone is text.
        value = written.strip()
    return section, key, value


def _section(name: str, kind: type[Any], values: Mapping[str, Any]) -> Any:
    known = {field.name for field in fields(kind)}
    for key in values:
        if key not in known:
            hint = nearest(key, known) if known else f"The section [{name}] takes no keys here."
            raise UsageError(f"The section [{name}] has no key {key!r}.", hint=hint)
    hints = typing.get_type_hints(kind, include_extras=True)
    checked: dict[str, Any] = {}
    for key, value in values.items():
        try:
            # Strict, lest `epochs = true` become one epoch; TOML has lists where fields are tuples.
            given = tuple(value) if isinstance(value, list) else value
            checked[key] = TypeAdapter(hints[key]).validate_python(given, strict=True)
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise UsageError(
                f"{name}.{key} = {value!r}: {problem[0].lower()}{problem[1:]}.",
                hint=f"Allowed: {allowed(hints[key])}.",
            ) from error
    return kind(**checked)


def allowed(hint: Any) -> str:
    """Put into words what a field may hold, from its type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        bounds = [
            f"{word} {getattr(constraint, name)}"
            for item in arguments[1:]
            for constraint in getattr(item, "metadata", [])
            for name, word in (
                ("ge", "at least"),
                ("gt", "above"),
                ("lt", "below"),
                ("le", "at most"),
            )
            if hasattr(constraint, name)
        ]
        return " ".join([allowed(arguments[0]), " and ".join(bounds)]).strip()
    if origin is Literal:
        return ", ".join(str(choice) for choice in arguments)
    if origin in (types.UnionType, typing.Union):
        return " or ".join("nothing" if part is type(None) else allowed(part) for part in arguments)
    if origin is tuple:
        return f"a list of {allowed(arguments[0])}"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(hint, str(hint))


def _plain(section: Any) -> dict[str, Any]:
    return {
        field.name: list(value)
        if isinstance(value, tuple)
        else dict(typing.cast(Mapping[str, Any], value))
        if isinstance(value, Mapping)
        else value
        for field in fields(section)
        for value in (getattr(section, field.name),)
    }


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = typing.cast(Mapping[str, Any], value).items()
        return f"{{ {', '.join(f'{json.dumps(key)} = {_toml(item)}' for key, item in pairs)} }}"
    if isinstance(value, list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    # JSON writes text, numbers and booleans as TOML reads them.
    return json.dumps(value, ensure_ascii=False)


def _recipe_folder() -> Path | None:
    """Find the recipes: inside an installed wheel, or in cli/recipes of a checkout."""
    package = Path(str(resources.files("forecast")))
    for folder in (package / "recipes", package.parent / "cli" / "recipes"):
        if folder.is_dir():
            return folder
    return None
