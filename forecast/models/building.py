"""Models from a name, a config and a spec, and back from their weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import save
from torch import Tensor, nn

from forecast.batch import AnySpec
from forecast.models import model_info


@runtime_checkable
class Configured(Protocol):
    """What names a model: a recipe."""

    @property
    def model(self) -> str:
        """Key of MODELS."""
        ...

    @property
    def model_config(self) -> Any:
        """Instance of the model's config class."""
        ...


def build(name: str, config: Any, spec: AnySpec, **inputs: Tensor) -> nn.Module:
    """Make an untrained model of this name.

    Args:
        name: a key of MODELS.
        config: an instance of its config class.
        spec: the shape of the task.
        inputs: tensors that models of graphs are made with beside these.
    """
    model, _ = model_info(name).load()
    return model(config, spec, **inputs)


def restore(
    recipe: Configured, spec: AnySpec, weights: Mapping[str, Tensor], **inputs: Tensor
) -> nn.Module:
    """Make a model and load its weights, in evaluation mode.

    Raises:
        RuntimeError: the weights are not of this model.
    """
    model = build(recipe.model, recipe.model_config, spec, **inputs)
    model.load_state_dict(weights)
    return model.eval()


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Serialise tensors as safetensors; those that share memory are copied apart."""
    return save(
        {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in tensors.items()
        }
    )


def weights_digest(model: nn.Module) -> str:
    """Hash a model's weights (sha256, hex)."""
    return hashlib.sha256(tensor_bytes(model.state_dict())).hexdigest()


@runtime_checkable
class Described(Protocol):
    """What a short description is made of: a forecaster."""

    @property
    def recipe(self) -> Any:
        """Recipe it was trained by."""
        ...

    @property
    def spec(self) -> AnySpec:
        """Shape of its task."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what it forecasts."""
        ...


def described_briefly(forecaster: Described) -> str:
    """Return one line for the prompt, instead of the weights and all ids."""
    names = ", ".join(forecaster.columns[:3])
    more = f" and {len(forecaster.columns) - 3} more" if len(forecaster.columns) > 3 else ""
    spec, recipe = forecaster.spec, forecaster.recipe
    return (
        f"{type(forecaster).__name__}({recipe.model} on {recipe.source_name}: {names}{more}; "
        f"lookback {spec.lookback}, horizon {spec.horizon})"
    )
