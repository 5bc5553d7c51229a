"""What a search may try: ranges and choices of single settings, and a recipe with them changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from forecast import recipe
from forecast.errors import UsageError, nearest
from forecast.models import MODELS
from forecast.recipe import Recipe

if TYPE_CHECKING:
    from optuna import Trial

# Ranges over more than this factor are searched on a logarithmic scale.
_LOGARITHMIC = 50.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """Range of one setting.

    Attributes:
        key: `section.field`.
        choices: the values to choose from; empty for a range.
        low: the smallest of a range.
        high: the largest.
        whole: the range is of whole numbers.
    """

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False

    def suggest(self, trial: Trial) -> Any:
        """Suggest the value of this setting in a trial."""
        if self.choices:
            # Optuna keeps choices as JSON; a list is one value.
            picked = trial.suggest_categorical(self.key, [json.dumps(one) for one in self.choices])
            return json.loads(picked)
        logarithmic = self.low > 0 and self.high / self.low >= _LOGARITHMIC
        if self.whole:
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=logarithmic)
        return trial.suggest_float(self.key, self.low, self.high, log=logarithmic)


def parse(text: str) -> Search:
    """Read `section.key=low..high`, or `section.key=one,two,three`.

    Raises:
        UsageError: it is neither.
    """
    key, equals, written = text.partition("=")
    wrong = UsageError(
        f"--search {text!r} is neither a range nor a list of values.",
        hint="For example: --search train.learning_rate=1e-5..1e-2 --search model.width=64,128",
    )
    if not equals or "." not in key or not written:
        raise wrong
    low, dots, high = written.partition("..")
    try:
        if dots:
            bounds = float(low), float(high)
            if not bounds[0] < bounds[1]:
                raise wrong
            whole = all(part.strip().lstrip("-").isdigit() for part in (low, high))
            return Search(key=key.strip(), low=bounds[0], high=bounds[1], whole=whole)
    except ValueError:
        raise wrong from None
    return Search(key=key.strip(), choices=tuple(_value(one) for one in written.split(",")))


def default_searches(resolved: Recipe) -> list[Search]:
    """Search what usually matters: learning rate, batch size, width and dropout."""
    searches = [Search(key="train.learning_rate", low=3e-5, high=1e-2)]
    if not MODELS[resolved.model].own_batches:
        searches.append(Search(key="train.batch_size", choices=(16, 32, 64)))
    config = resolved.model_config
    known = {field.name for field in fields(config)}
    if "width" in known:
        width = config.width
        searches.append(Search(key="model.width", choices=(width // 2, width, 2 * width)))
    if "dropout" in known:
        searches.append(Search(key="model.dropout", low=0.0, high=0.4))
    return searches


def apply(resolved: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """Return a recipe with settings, by `section.key`, changed.

    Raises:
        UsageError: an unknown setting, or a value that it does not allow.
    """
    sections: dict[str, dict[str, Any]] = {
        name: {key: value for key, value in part.items() if value is not None}
        for name, part in resolved.to_dict().items()
    }
    for path, value in settings.items():
        section, _, key = path.partition(".")
        sections.setdefault(section, {})[key] = value
    return recipe.from_dict(sections)


def check(resolved: Recipe, searches: Sequence[Search]) -> None:
    """Refuse to search what is no setting, or what makes losses incomparable.

    Raises:
        UsageError: one of the searches is such, or its values are not allowed.
    """
    for search in searches:
        low = search.choices[0] if search.choices else search.low
        section, _, key = search.key.partition(".")
        known = [f"{name}.{one}" for name, part in resolved.to_dict().items() for one in part]
        if search.key not in known or key == "name":
            raise UsageError(
                f"There is no setting {search.key!r} to search.", hint=nearest(search.key, known)
            )
        if section in ("data", "tracking"):
            raise UsageError(
                f"{search.key} decides what is measured; losses under different values cannot be "
                "compared.",
                hint="Search settings of [model], [train] and window.lookback.",
            )
        if search.key == "train.batch_size" and MODELS[resolved.model].own_batches:
            raise UsageError(
                "A step of training on a graph has as many queries as data.queries says.",
                hint="Leave train.batch_size out of the search.",
            )
        if search.key == "window.horizon":
            raise UsageError("Losses of different horizons cannot be compared.")
        apply(resolved, {search.key: int(low) if search.whole else low})


def with_own(search: Search, resolved: Recipe) -> Search:
    """Widen a search by what the recipe says, so that the recipe itself can be tried."""
    section, _, key = search.key.partition(".")
    value = resolved.to_dict()[section][key]
    if value is None or isinstance(value, list):
        return search
    if search.choices:
        known = value in search.choices
        return search if known else replace(search, choices=(*search.choices, value))
    if isinstance(value, bool | str):
        return search
    return replace(search, low=min(search.low, value), high=max(search.high, value))


def as_it_stands(resolved: Recipe, searches: Sequence[Search]) -> dict[str, Any]:
    """Return the values of the recipe itself, as far as the search allows them."""
    stated: dict[str, Any] = {}
    for search in searches:
        section, _, key = search.key.partition(".")
        value = resolved.to_dict()[section][key]
        if search.choices:
            if value in search.choices:
                stated[search.key] = json.dumps(value)
        elif value is not None and search.low <= value <= search.high:
            stated[search.key] = value
    return stated


def chosen(params: Mapping[str, Any], searches: Sequence[Search]) -> dict[str, Any]:
    """Return the settings of a trial as values: choices were kept as JSON."""
    return {
        search.key: json.loads(params[search.key]) if search.choices else params[search.key]
        for search in searches
    }


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text.strip()
