"""A run is one recipe: TOML and `--set` in, a frozen `Recipe` out, everything resolved.

What is not stated comes, in this order, from the recipe file, the data set's published protocol,
the model's own defaults and the defaults below. An unknown key is refused with the nearest name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from forecast.errors import UsageError, nearest
from forecast.grids.section import GridSection
from forecast.models import DEFAULTS, model_info
from forecast.recipe.sections import sections_of, setting
from forecast.tables.reading import TableOptions

if typing.TYPE_CHECKING:
    from forecast.graphs.section import GraphSection

# Counts of rows, windows and epochs: sums and products of two still fit into 64 bits.
_MOST = 2**31 - 1
# What every generator takes as a seed, and more threads than any machine has processors.
MOST_SEED, MOST_THREADS = 2**32 - 1, 1_024
Positive = Annotated[int, Field(ge=1, le=_MOST)]
NonNegative = Annotated[int, Field(ge=0, le=_MOST)]


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
        weight_decay: of the optimizer, on matrices alone.
        schedule: `constant`, `halving` (halved every epoch from the third on), `cosine` to zero,
            or `onecycle` (a share of the steps up, then cosine down).
        warm_up: share of the steps that `onecycle` takes on its way up; 0.3 is that of torch's
            OneCycleLR and of the published PredFormer.
        clip: largest norm of the gradient; 0 leaves it alone.
        patience: epochs without a better validation loss before the run stops; 0 never stops.
        precision: `fp32`, `bf16`, or `auto`: what FORECAST_PRECISION says, else bf16
            where the processor has units for it.
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
    warm_up: Annotated[float, Field(gt=0, lt=1)] = 0.3
    clip: Annotated[float, Field(ge=0)] = 0.0
    patience: NonNegative = 3
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = 0
    device: str = "auto"
    threads: Annotated[int, Field(ge=0, le=MOST_THREADS)] = 0
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
    return from_dict(sections_of(str(target), flags, settings))


# What is a matter of one file, and not of the trained model.
_OF_A_FILE = (
    "time", "id", "date_format", "timezone", "fill", "duplicates", "delimiter", "decimal",
    "encoding", "missing",
)  # fmt: skip


def reading(settings: Sequence[str]) -> dict[str, Any]:
    """Check settings of how one table is read for a trained model.

    Args:
        settings: `data.key=value`, as `load` takes them.

    Returns:
        Fields of `TableOptions`.

    Raises:
        UsageError: a setting is of something else, which the model has settled.
    """
    stated: dict[str, Any] = {}
    for section, key, value in map(setting, settings):
        if section != "data" or key not in _OF_A_FILE:
            raise UsageError(
                f"--set {section}.{key} cannot be changed for a trained model.",
                hint=f"How a file is read can: {', '.join(f'data.{name}' for name in _OF_A_FILE)}.",
            )
        stated[key] = value
    checked = _section("data", DataSection, stated)
    return {name: getattr(checked, name) for name in stated}


def _data_section(kind: str) -> type[Any]:
    if kind == "series":
        return DataSection
    if kind == "grid":
        return GridSection
    # Not before it is needed: it brings torch along.
    from forecast.graphs.section import GraphSection  # noqa: PLC0415

    return GraphSection


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


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
