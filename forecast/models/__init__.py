"""MODELS: every forecaster by name. Importing this costs nothing; a model is imported when used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from forecast.errors import NotFoundError, nearest

if TYPE_CHECKING:
    from forecast.batch import Spec


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """A row of `MODELS`: what a model is and where its code lies.

    Attributes:
        title: one line for people.
        source: paper or definition.
        module: the Python module.
        model: name of the `nn.Module` in it.
        config: name of its config class in it.
        kind: the kind of data it forecasts.
        closed_form: it is solved for at once, or needs no fitting, instead of trained by steps.
        streams: it takes rows one at a time with a carried state.
        reads: the kinds of covariates it reads, as the fields of `Spec` are called.
        own_batches: the data say how many examples a step of training takes, not the recipe.
        auto_device: the device that `auto` stands for, where it is not the best one there is.
        train: settings of the recipe's `[train]` section that differ from the general defaults.
    """

    title: str
    source: str
    module: str
    model: str
    config: str
    kind: Literal["series", "grid", "graph"] = "series"
    closed_form: bool = False
    streams: bool = False
    reads: tuple[str, ...] = ()
    own_batches: bool = False
    auto_device: str = "auto"
    train: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def device(self, name: str) -> str:
        """Name of the device to choose, where a recipe asks for `name`."""
        return self.auto_device if name == "auto" else name

    def load(self) -> tuple[type[Any], type[Any]]:
        """Import the model's class and its config's class."""
        module = importlib.import_module(self.module)
        return getattr(module, self.model), getattr(module, self.config)


def _baseline(title: str, model: str) -> ModelInfo:
    return ModelInfo(
        title=title,
        source="closed form",
        module="forecast.models.baselines",
        model=model,
        config="NoConfig",
        closed_form=True,
    )


# What both networks of graphs are trained by.
_GRAPHS = {"optimizer": "adamw", "weight_decay": 1e-4, "schedule": "cosine", "clip": 1.0}

MODELS: dict[str, ModelInfo] = {
    "itransformer": ModelInfo(
        title="attention over variates, each one's window being one token",
        source="Liu et al., ICLR 2024, arXiv 2310.06625",
        module="forecast.models.itransformer",
        model="ITransformer",
        config="ITransformerConfig",
        reads=("past_covariates", "known_future", "static"),
    ),
    "informer": ModelInfo(
        title="few queries attend, all rows of the horizon forecast at once",
        source="Zhou et al., AAAI 2021, arXiv 2012.07436",
        module="forecast.models.informer",
        model="Informer",
        config="InformerConfig",
        train={"epochs": 6},
    ),
    "lmuformer": ModelInfo(
        title="Legendre memories carried from row to row, a forecast from every one of them",
        source="Liu et al., ICLR 2024, arXiv 2402.04882",
        module="forecast.models.lmuformer.model",
        model="LMUFormer",
        config="LMUFormerConfig",
        streams=True,
        train={
            "optimizer": "adamw",
            "learning_rate": 5e-4,
            "weight_decay": 0.05,
            "batch_size": 16,
            "schedule": "cosine",
        },
    ),
    "titans": ModelInfo(
        title="a memory that learns while it reads, beside attention to the last patches",
        source="Behrouz et al., arXiv 2501.00663",
        module="forecast.models.titans.model",
        model="Titans",
        config="TitansConfig",
        streams=True,
        train={
            "optimizer": "adamw",
            "learning_rate": 1e-3,
            "weight_decay": 0.1,
            "batch_size": 16,
            "schedule": "cosine",
        },
    ),
    "predformer": ModelInfo(
        title="patches of frames, mixed over space and over time by gated attention",
        source="Tang et al., arXiv 2410.04733",
        module="forecast.models.predformer",
        model="PredFormer",
        config="PredFormerConfig",
        kind="grid",
        train={
            "optimizer": "adamw",
            "learning_rate": 1e-3,
            "weight_decay": 1e-2,
            "batch_size": 16,
            "schedule": "onecycle",
        },
    ),
    "todyformer": ModelInfo(
        title="events cut into patches: messages inside of each, attention along a node's patches",
        source="Biparva et al., arXiv 2402.05944",
        module="forecast.models.todyformer.model",
        model="Todyformer",
        own_batches=True,
        auto_device="cpu",
        config="TodyformerConfig",
        kind="graph",
        train={**_GRAPHS, "learning_rate": 1e-3, "batch_size": 200, "epochs": 8},
    ),
    "todyformer-sensors": ModelInfo(
        title="the same for sensors whose edges stay; taken for data.task = sensor",
        source="Biparva et al., arXiv 2402.05944",
        module="forecast.models.todyformer.sensors",
        model="SensorTodyformer",
        own_batches=True,
        auto_device="cpu",
        config="SensorTodyformerConfig",
        kind="graph",
        train={**_GRAPHS, "learning_rate": 2e-3, "batch_size": 32, "epochs": 10},
    ),
    "dlinear": ModelInfo(
        title="linear maps of a window's trend and remainder",
        source="Zeng et al., AAAI 2023, arXiv 2205.13504",
        module="forecast.models.baselines",
        model="DLinear",
        config="DLinearConfig",
        reads=("known_future",),
        train={"learning_rate": 1e-3},
    ),
    "ridge": _baseline("one penalised linear map for all variates, solved for at once", "Ridge"),
    "auto": ModelInfo(
        title="closed forms of a window, weighed by their errors on the validation windows",
        source="closed form; Bates and Granger 1969",
        module="forecast.models.auto",
        model="Auto",
        config="AutoConfig",
        closed_form=True,
        auto_device="cpu",
    ),
    "in-context": ModelInfo(
        title="a season's mean and a small ridge regression over the window alone",
        source="closed form; Akyürek et al., ICLR 2023, arXiv 2211.15661",
        module="forecast.models.in_context",
        model="InContext",
        config="InContextConfig",
        closed_form=True,
        auto_device="cpu",
    ),
    "persistence": _baseline("the last observed value, repeated", "Persistence"),
    "seasonal-naive": _baseline("the last season, repeated", "SeasonalNaive"),
    "mean": _baseline("the mean of the training rows", "Mean"),
    "grid-rule": ModelInfo(
        title="the last frame, the one a day before, the mean of the hour, ... (model.rule)",
        source="closed form",
        module="forecast.models.grid_baselines",
        model="GridRule",
        config="GridRuleConfig",
        kind="grid",
        closed_form=True,
    ),
}

# The model of each kind of data that is trained unless another one is named.
DEFAULTS: Mapping[str, str] = {
    "series": "itransformer",
    "grid": "predformer",
    "graph": "todyformer",
}
# The closed forms that stand beside every score of series, in the order they are printed.
BASELINES = ("persistence", "seasonal-naive", "mean", "ridge")


def model_info(name: str) -> ModelInfo:
    """Look a model up by name.

    Raises:
        NotFoundError: there is none of this name.
    """
    if name not in MODELS:
        raise NotFoundError(f"There is no model {name!r}.", hint=nearest(name, MODELS))
    return MODELS[name]


def unread_covariates(name: str, spec: Spec) -> list[str]:
    """Return sentences that name the covariates at hand which a model does not read."""
    words = {
        "past_covariates": "past covariates",
        "known_future": "covariates known in advance",
        "static": "static columns",
    }
    # What is known in advance is among the past covariates too; it is named once.
    given = {
        "past_covariates": spec.past_covariates - spec.known_future,
        "known_future": spec.known_future,
        "static": spec.static,
    }
    unread = [
        words[kind] for kind, count in given.items() if count and kind not in MODELS[name].reads
    ]
    if not unread:
        return []
    readers = [other for other, info in MODELS.items() if info.reads]
    return [
        f"{name} does not read {' or '.join(unread)}; they change nothing. Models that read some: "
        f"{', '.join(readers)}."
    ]
