"""Every model keeps the contracts of models/protocols.py."""

from __future__ import annotations

import inspect

import pytest

from forecast.models import MODELS
from forecast.models.protocols import ClosedForm, Model, Stateful
from forecast.models.stateful.model import StatefulModel


def members(protocol):
    return {name for name in vars(protocol) if not name.startswith("_")}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_what_training_and_prediction_ask_of_it(name):
    info = MODELS[name]
    model, config = info.load()
    assert inspect.isclass(config)
    assert "forward" in dir(model), "called to forecast"
    if not info.closed_form or info.kind == "grid":
        for member in members(Model):
            assert callable(getattr(model, member)), member
    # A batch is the one argument that forward cannot do without.
    needed = [
        parameter
        for parameter in list(inspect.signature(model.forward).parameters.values())[1:]
        if parameter.default is inspect.Parameter.empty
    ]
    assert len(needed) == 1, needed


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].streams])
def test_a_streaming_model_has_what_the_engine_asks_of_it(name):
    model, _ = MODELS[name].load()
    assert issubclass(model, StatefulModel)
    for method in ("init_state", "step"):
        wanted = set(inspect.signature(getattr(Stateful, method)).parameters)
        assert wanted <= set(inspect.signature(getattr(model, method)).parameters)


def test_the_table_says_which_series_models_are_solved_for():
    solved = {
        name
        for name, info in MODELS.items()
        if info.kind == "series" and hasattr(info.load()[0], "fit")
    }
    assert solved == {"auto", "ridge"}
    assert all(MODELS[name].closed_form for name in solved)
    assert members(ClosedForm) == {"fit"}
