"""Recipes: precedence, refusals that name the nearest word, and round trips."""

from __future__ import annotations

import re

import pytest

from forecast import recipe
from forecast.errors import NotFoundError, UsageError
from forecast.recipe.sections import recipe_names


def test_flags_beat_the_file_and_set_beats_the_flags(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        '[data]\nsource = "etth1"\n[window]\nhorizon = 48\n[train]\nepochs = 2\nseed = 5\n'
    )
    found = recipe.load(path, horizon=24, settings=["window.horizon=12", "train.epochs=7"])
    assert found.window.horizon == 12
    assert found.train.epochs == 7
    assert found.train.seed == 5
    # what nobody states is the data set's protocol
    assert found.window.lookback == 96
    assert found.data.split == (8640, 2880, 2880)
    assert found.data.season == 24


def test_a_data_set_takes_the_published_row_when_there_is_one():
    assert recipe.load("etth1").model_config.width == 256
    assert recipe.load("etth1", horizon=336).model_config.width == 512
    assert recipe.load("ettm1", horizon=96).data.marks == "hourly"
    # no recipe has this horizon: general defaults
    assert recipe.load("etth1", horizon=17).model_config.width == 128


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["train.epoch=3"], r"\[train\] has no key 'epoch'.*Did you mean 'epochs'"),
        (["trian.epochs=3"], r"no section \[trian\].*Did you mean 'train'"),
        (["train.epochs=0"], r"train\.epochs = 0.*a whole number at least 1"),
        (["train.epochs=true"], r"train\.epochs = True.*a whole number"),
        (["train.epochs=many"], r"train\.epochs = 'many'"),
        (["train.schedule=halve"], r"constant, halving, cosine, onecycle"),
        (["model.widht=3"], r"\[model\] has no key 'widht'.*Did you mean 'width'"),
        (["train.dropout=0.1"], r"\[train\] has no key 'dropout'"),
        (["epochs=3"], r"not of the form section\.key=value"),
        (["model.dropout=1.5"], r"model\.dropout = 1\.5.*below 1"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(settings, words):
    with pytest.raises(UsageError) as caught:
        recipe.load("etth1", settings=settings)
    assert_matches(str(caught.value), words)


def assert_matches(text, words):
    assert re.search(words, text, re.DOTALL), text


def test_mistyped_names_get_the_nearest_one(tmp_path):
    with pytest.raises(NotFoundError, match="Did you mean 'etth1'"):
        recipe.load("eth1")
    with pytest.raises(NotFoundError, match="Did you mean 'itransformer'"):
        recipe.load("etth1", model="itransfomer")
    with pytest.raises(NotFoundError, match=r"Did you mean 'itransformer-etth1-96\.toml'"):
        recipe.load("itransformer-etth1-69.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[train\nepochs = 1")
    with pytest.raises(UsageError, match=r"not valid TOML.*line 1"):
        recipe.load(broken)


def test_dict_and_toml_round_trips_are_exact(tmp_path):
    found = recipe.load("metro-traffic", settings=["train.learning_rate=3e-4"])
    assert recipe.from_dict(found.to_dict()) == found
    path = tmp_path / "again.toml"
    path.write_text(found.to_toml())
    assert recipe.load(path) == found
    assert recipe.load(path).digest() == found.digest()


def test_the_digest_ignores_tracking_and_nothing_else():
    found = recipe.load("etth1")
    assert found.digest() == recipe.load("etth1", tracking={"register": "x"}).digest()
    assert found.digest() != recipe.load("etth1", settings=["train.seed=1"]).digest()
    assert found.digest() != recipe.load("etth1", settings=["model.dropout=0.2"]).digest()


def test_a_path_in_a_recipe_is_meant_from_where_the_recipe_lies(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "table.csv").write_text("date,y\n")
    (folder / "run.toml").write_text('[data]\nsource = "table.csv"\n')
    monkeypatch.chdir(tmp_path)
    assert recipe.load("project/run.toml").data.source == "project/table.csv"


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_ships_resolves(name):
    found = recipe.load(name)
    model, *_, horizon = name.split("-")
    assert found.model == model
    assert found.data.source in name
    assert found.window.horizon == int(horizon)
