"""The registry: names, versions, aliases, where an artefact lies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forecast.errors import DataError, ForecastError, NotFoundError, UsageError
from forecast.tracking import add, check_names, model, promote, resolve, rows, show, store


@settings(max_examples=300, deadline=None)
@given(
    name=st.text(alphabet="ab1/:. _-", min_size=1, max_size=6),
    alias=st.text("vV1l@.-é ", max_size=4),
)
@example(name="a", alias="latest")
@example(name="..a", alias="Latest")
@example(name=".", alias="x" * 256)
def test_mlflow_takes_every_name_that_passes(name: str, alias: str) -> None:
    store.load()
    from mlflow.utils import validation

    for given_name, given_alias in ((name, ""), ("model", alias)):
        try:
            check_names(given_name, given_alias)
        except UsageError:
            continue
        validation._validate_model_name(given_name)
        if given_alias:
            validation._validate_model_alias_name(given_alias)
            validation._validate_model_alias_name_reserved(given_alias)


def test_ordinary_names_pass() -> None:
    check_names("", "")
    check_names("", None)
    check_names("ETTh1 iTransformer, 96 -> 96.", "champion_2-é")


def test_names_that_mlflow_takes_and_then_cannot_tell_apart_or_store_are_refused() -> None:
    with pytest.raises(UsageError, match="no model"):
        check_names("", "champion")
    # models:/a@b would be model a with alias b.
    with pytest.raises(UsageError, match="or @"):
        check_names("a@b", "")
    # A column of 256 characters, whose length sqlite does not check and Postgres does.
    with pytest.raises(UsageError, match="at most 256"):
        check_names("a" * 257, "")
    # models:/name@3 would be alias 3 or version 3.
    with pytest.raises(UsageError, match="reads like a version"):
        check_names("etth1", "3")


def test_what_was_added_is_listed_shown_and_found(
    uri: str, make_artefact: Callable[..., Path]
) -> None:
    good, better = make_artefact("good", mse=0.4), make_artefact("better", mse=0.25)
    assert add(good, "etth1", "champion") == 1
    assert add(better, name="etth1") == 2
    assert add(better, name="other") == 1
    promote("etth1", 2, "challenger")

    listed = rows()
    assert [(row["name"], row["version"], row["aliases"]) for row in listed] == [
        ("etth1", 2, ["challenger"]),
        ("etth1", 1, ["champion"]),
        ("other", 1, []),
    ]
    # The scores of the test part; what is counted or nested is not a score.
    assert listed[0]["metrics"] == {"test.mse": 0.25, "test.mae": 0.5}
    assert (listed[0]["model"], listed[0]["dataset"]) == ("itransformer", "etth1.csv")

    shown = show("etth1", "champion")
    assert shown == show("etth1", 1)
    assert shown["run_id"] == listed[1]["run_id"]
    for address, artefact in {
        "models:/etth1@champion": good,
        "models:/etth1/2": better,
        "models:/etth1@challenger": better,
        f"runs:/{shown['run_id']}": good,
        f"runs:/{shown['run_id']}/forecaster": good,
    }.items():
        found = resolve(address)
        assert (found / "forecaster.json").read_bytes() == (
            artefact / "forecaster.json"
        ).read_bytes()
        assert (found / "weights.safetensors").is_file()
    promote("etth1", "challenger", "champion")
    assert resolve("models:/etth1@champion") == resolve("models:/etth1/2")


def test_what_is_not_there_is_said_with_what_is(
    uri: str, make_artefact: Callable[..., Path]
) -> None:
    with pytest.raises(NotFoundError, match="forecast registry list"):
        resolve("models:/etth1@champion")
    add(make_artefact(), name="etth1", alias="champion")
    for address, kind, words in [
        ("models:/etth@champion", NotFoundError, "Did you mean 'etth1'"),
        ("models:/etth1@champ", NotFoundError, "version 1 and alias champion -> 1"),
        ("models:/etth1/7", NotFoundError, "version 1 and alias champion -> 1"),
        ("models:/etth1/seven", NotFoundError, "version 1 and alias champion -> 1"),
        ("models:/etth1", UsageError, "version 1 and alias champion -> 1"),
        ("models:/m-00", NotFoundError, "no logged model 'm-00'"),
        ("runs:/00", NotFoundError, "no run '00'"),
        ("runs:/", UsageError, "models:/NAME@ALIAS"),
        ("mlflow-artifacts:/x", UsageError, "models:/NAME@ALIAS"),
    ]:
        with pytest.raises(kind) as caught:
            resolve(address)
        assert words in str(caught.value), address
    with pytest.raises(NotFoundError, match="version 1"):
        promote("etth1", 7, "champion")
    with pytest.raises(NotFoundError, match="no trained forecaster"):
        add(Path(store.__file__).parent, name="etth1")


def test_a_run_without_a_model_says_so(uri: str, tmp_path: Path) -> None:
    client = store.connect(uri)
    run = client.create_run(client.create_experiment("forecast", str(tmp_path / "artifacts")))
    with pytest.raises(NotFoundError, match="logged no model"):
        resolve(f"runs:/{run.info.run_id}")
    folder = tmp_path / "by hand"
    folder.mkdir()
    (folder / "forecaster.json").write_text("{}")
    client.log_artifacts(run.info.run_id, str(folder), "some/place")
    assert (resolve(f"runs:/{run.info.run_id}/some/place") / "forecaster.json").is_file()
    with pytest.raises(ForecastError, match="other"):
        resolve(f"runs:/{run.info.run_id}/other")


def test_an_artefact_changed_behind_the_registry_is_refused(
    uri: str, make_artefact: Callable[..., Path]
) -> None:
    add(make_artefact(), name="etth1", alias="champion")
    found = resolve("models:/etth1@champion")
    (found / "forecaster.json").write_text("{}")
    with pytest.raises(DataError, match="not the one that was registered"):
        resolve("models:/etth1@champion")
    shutil.rmtree(found)
    with pytest.raises(DataError, match="no forecaster"):
        resolve("models:/etth1@champion")


def test_a_store_that_cannot_be_used_is_an_error_here(
    monkeypatch: pytest.MonkeyPatch, make_artefact: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/file/mlflow.db")
    with pytest.raises(ForecastError, match="could not be used"):
        rows()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for action in (rows, lambda: resolve("models:/a/1"), lambda: add(make_artefact(), name="a")):
        with pytest.raises(ForecastError, match="does not answer"):
            action()


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("", ["forecast==9.8"]),
        ('{"url": "file:///a/wheel.whl", "archive_info": {}}', ["forecast @ file:///a/wheel.whl"]),
        ('{"url": "https://host/f", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}',
         ["forecast @ git+https://host/f@c0ffee"]),
        (None, []),
    ],
)  # fmt: skip
def test_a_model_asks_for_this_program_where_it_came_from(
    origin: str | None, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(name: str) -> metadata.PathDistribution:
        if origin is None:
            raise metadata.PackageNotFoundError(name)
        (tmp_path / "METADATA").write_text("Name: forecast\nVersion: 9.8\n")
        (tmp_path / "direct_url.json").write_text(origin)
        return metadata.PathDistribution(tmp_path)

    monkeypatch.setattr(metadata, "distribution", found)
    others = [f"{name}==1" for name in model._PACKAGES]
    monkeypatch.setattr(metadata, "version", lambda name: "1+cpu")
    assert model.requirements() == expected + others
