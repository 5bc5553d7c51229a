"""The registry of trained forecasters: what is there, where it lies, what is the champion.

All of it asks the store that `tracking_uri()` names.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from forecast.errors import DataError, NotFoundError, UsageError, nearest
from forecast.tracking import model, records, store
from forecast.tracking.deadline import while_growing
from forecast.tracking.records import Target
from forecast.tracking.scratch import scratch

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

_EXPERIMENT = "forecast"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def add(artefact: Path, name: str, alias: str | None = None) -> int:
    """Register an artefact folder that has no run here, in a small run of its own.

    Returns:
        The version.

    Raises:
        UsageError: MLflow does not allow such a name or alias.
        NotFoundError: the folder is not an artefact.
    """
    model.check_names(name, alias)
    described = model.describe(artefact)
    with store.client() as client:
        target = Target(client=client)
        start = {
            "kind": "start",
            "run_id": "",
            "experiment": _EXPERIMENT,
            "name": f"add {name}",
            "time": None,
            "params": {},
            "tags": described,
            "datasets": [],
        }
        records.send(target, start)
        records.send(
            target, {"kind": "model", "artefact": str(artefact.absolute()), "example": None}
        )
        version = model.register(client, target.model_id, name, alias)
        records.send(target, {"kind": "finish", "status": "FINISHED", "time": None})
    return version


def rows() -> list[dict[str, Any]]:
    """List every version of every registered model, the newest first within a name."""
    with store.client() as client:
        aliases = {item.name: item.aliases for item in _registered(client)}
        versions = store.pages(client.search_model_versions)
    listed = [_row(version, _aliases_of(version, aliases)) for version in versions]
    return sorted(listed, key=lambda row: (row["name"], -row["version"]))


def show(name: str, version: int | str) -> dict[str, Any]:
    """Return where a version, given by number or alias, comes from.

    Raises:
        NotFoundError: there is no such model, version or alias.
    """
    with store.client() as client:
        found = _version(client, name, str(version))
        aliases = {name: client.get_registered_model(name).aliases}
        run = client.get_run(found.run_id) if found.run_id else None
        place = client.get_model_version_download_uri(name, found.version)
    row = _row(found, _aliases_of(found, aliases))
    return row | {
        "digest": found.tags.get("digest"),
        "source": place,
        "params": dict(run.data.params) if run else {},
        "run_metrics": dict(run.data.metrics) if run else {},
        "datasets": [
            {
                "name": item.dataset.name,
                "digest": item.dataset.digest,
                "source": item.dataset.source,
                "context": next((tag.value for tag in item.tags), None),
            }
            for item in (run.inputs.dataset_inputs if run and run.inputs else [])
        ],
    }


def promote(name: str, version: int | str, alias: str) -> None:
    """Point an alias at a version, given by number or by another alias.

    Raises:
        UsageError: MLflow does not allow such an alias.
        NotFoundError: there is no such model or version.
        DataError: its artefact is damaged.
    """
    model.check_names(name, alias)
    with store.client() as client:
        found = _version(client, name, str(version))
        # An alias is what others load without looking: it names nothing that cannot be loaded.
        place = client.get_model_version_download_uri(name, found.version)
        uri = f"models:/{name}/{found.version}"
        model.verify(_fetched(uri, place, found.tags.get("digest", "")))
        client.set_registered_model_alias(name, alias, found.version)


def replay(folder: Path) -> int:
    """Send the spool that a run without a server has left in its folder.

    Returns:
        Number of records sent.

    Raises:
        NotFoundError: there is no spool.
        ForecastError: the server could not be reached; the spool stays.
    """
    if not records.spooled(folder):
        raise NotFoundError(
            f"There is nothing to send in {folder}: it has no {records.SPOOL}.",
            hint="Give the run's folder that the warning named.",
        )
    with store.client() as client:
        return records.send_spool(Target(client=client), folder)


def resolve(uri: str, *, cache: Path | None = None) -> Path:
    """Find the artefact folder behind a URI, downloading it unless it lies on this machine.

    Args:
        uri: `models:/NAME/VERSION`, `models:/NAME@ALIAS`, `models:/ID`, `runs:/ID` for the model
            logged last in that run, or `runs:/ID/PATH`.
        cache: where downloads are kept, by content; None takes `cache` at home.

    Raises:
        UsageError: the URI is none of these.
        NotFoundError: there is no such model, version, alias or run.
        DataError: what is there holds no forecaster, or another one than was registered.
    """
    scheme, _, rest = uri.partition(":/")
    rest = rest.strip("/")
    if scheme not in ("models", "runs") or not rest:
        raise UsageError(
            f"{uri!r} is not the URI of a model.",
            hint="Write models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID.",
        )
    with store.client() as client:
        place, digest = (_registered_place if scheme == "models" else _run_place)(client, rest)
        return _fetched(uri, place, digest, cache)


def _fetched(uri: str, place: str, digest: str, cache: Path | None = None) -> Path:
    """Return the artefact at a place, downloaded if need be, with the digest that was registered.

    Raises:
        DataError: the digest is none, or there is no such artefact at that place.
    """
    # It names a folder of the cache, and comes from whoever may write to the registry.
    if digest and not _SHA256.fullmatch(digest):
        raise DataError(
            f"The registry's tag `digest` of {uri} is {digest[:100]!r}, and not a sha256 of 64 hex "
            "digits.",
            hint="Register the artefact anew: forecast registry add FOLDER --name NAME",
        )
    folder = _local(place)
    if folder is None:
        key = digest or hashlib.sha256(place.encode()).hexdigest()
        folder = _downloaded(place, cache or store.home() / "cache", key)
    artefact = _artefact_in(folder, uri)
    if digest and model.digest(artefact) != digest:
        raise DataError(
            f"The artefact behind {uri} is not the one that was registered.",
            hint="It was changed in the artifact store: register it anew, or use another version.",
            file=str(artefact / model.DESCRIPTION),
        )
    return artefact


def _registered_place(client: MlflowClient, rest: str) -> tuple[str, str]:
    name, at, alias = rest.partition("@")
    name, _, number = (name, "", alias) if at else rest.partition("/")
    if not number and name.startswith("m-"):
        return _logged_place(client, name)
    if not number:
        known = _registered_named(client, name)
        raise UsageError(
            f"models:/{name} names no version.", hint=f"Model {name!r} has {_stock(client, known)}."
        )
    found = _version(client, name, number)
    place = client.get_model_version_download_uri(name, found.version)
    return place, found.tags.get("digest", "")


def _logged_place(client: MlflowClient, model_id: str) -> tuple[str, str]:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        logged = client.get_logged_model(model_id)
    except MlflowException as error:
        raise _absent(error, f"There is no logged model {model_id!r}") from error
    return logged.artifact_location, logged.tags.get("digest", "")


def _run_place(client: MlflowClient, rest: str) -> tuple[str, str]:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    run_id, _, path = rest.partition("/")
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise _absent(error, f"There is no run {run_id!r}") from error
    outputs = run.outputs.model_outputs if run.outputs else []
    models = [client.get_logged_model(output.model_id) for output in outputs]
    if fitting := [item for item in models if path in ("", item.name)]:
        last = max(fitting, key=lambda item: item.creation_timestamp)
        return last.artifact_location, last.tags.get("digest", "")
    if not path:
        raise NotFoundError(
            f"Run {run_id} has logged no model.",
            hint="Name the folder of its artefact: runs:/ID/PATH.",
        )
    return f"{run.info.artifact_uri}/{path}", ""


def _version(client: MlflowClient, name: str, which: str) -> ModelVersion:
    """Find a version by number or alias."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    known = _registered_named(client, name)
    number = str(known.aliases.get(which.removeprefix("@"), which))
    try:
        return client.get_model_version(name, number)
    except MlflowException as error:
        absent = _absent(error, f"Model {name!r} has no version or alias {which!r}")
        absent.hint = f"It has {_stock(client, known)}."
        raise absent from error


def _registered_named(client: MlflowClient, name: str) -> RegisteredModel:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        absent = _absent(error, f"There is no registered model {name!r}")
        if names := [item.name for item in _registered(client)]:
            absent.hint = nearest(name, names)
        raise absent from error


def _stock(client: MlflowClient, known: RegisteredModel) -> str:
    """Put into words which versions and aliases there are."""
    versions = store.pages(client.search_model_versions)
    numbers = sorted(int(item.version) for item in versions if item.name == known.name)
    aliases = [f"{alias} -> {number}" for alias, number in sorted(known.aliases.items())]
    return f"{_counted('version', numbers)} and {_counted('alias', aliases)}"


def _counted(what: str, items: Sequence[object]) -> str:
    if not items:
        return f"no {what}"
    plural = {"version": "versions", "alias": "aliases"}[what]
    return f"{what if len(items) == 1 else plural} {', '.join(map(str, items))}"


def _row(version: ModelVersion, aliases: list[str]) -> dict[str, Any]:
    tags: Mapping[str, str] = version.tags
    created = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    return {
        "name": version.name,
        "version": int(version.version),
        "aliases": aliases,
        "model": tags.get("model", ""),
        "dataset": tags.get("dataset", ""),
        "metrics": {
            key.removeprefix(model.METRIC): float(value)
            for key, value in tags.items()
            if key.startswith(model.METRIC)
        },
        "created": created.isoformat(timespec="seconds"),
        "run_id": version.run_id or None,
    }


def _aliases_of(version: ModelVersion, aliases: Mapping[str, Mapping[str, Any]]) -> list[str]:
    pointing = aliases.get(version.name, {}).items()
    return sorted(alias for alias, number in pointing if int(number) == int(version.version))


def _registered(client: MlflowClient) -> list[RegisteredModel]:
    return store.pages(client.search_registered_models)


def _local(place: str) -> Path | None:
    """Return the folder if a place is one on this machine."""
    parts = urlsplit(place)
    if parts.scheme not in ("", "file"):
        return None
    folder = Path(unquote(parts.path) if parts.scheme else place)
    if not folder.is_dir():
        raise NotFoundError(
            f"The artifacts are in {folder}, and there is no such folder on this machine.",
            hint="Start the tracking server so that it serves artifacts: "
            "mlflow server --artifacts-destination ...",
        )
    return folder


def _downloaded(place: str, cache: Path, key: str) -> Path:
    """Return the folder `key` of the cache, filled first if it is not there yet."""
    from mlflow.artifacts import download_artifacts  # noqa: PLC0415

    folder = cache / key
    if folder.is_dir():
        return folder
    with scratch(cache) as temporary:
        target = temporary / "model"
        target.mkdir()
        while_growing(
            lambda: sum(file.stat().st_size for file in target.rglob("*") if file.is_file()),
            f"The tracking server {store.shown(store.tracking_uri())}",
            download_artifacts,
            artifact_uri=place,
            dst_path=str(target),
            tracking_uri=store.tracking_uri(),
        )
        for file in target.rglob("*"):
            if file.is_symlink() or not (file.is_dir() or file.is_file()):
                raise DataError(
                    f"{place} holds {file.name!r}, which is a link or no regular file.",
                    hint="Register the artefact anew from a folder of plain files.",
                )
        # When another process was first, its folder holds the same content.
        with contextlib.suppress(OSError):
            target.rename(folder)
    return folder


def _artefact_in(folder: Path, uri: str) -> Path:
    """Find the artefact in the folder of a model, wherever its layout has put it."""
    for place in (folder / model.ARTEFACT, folder):
        if (place / model.DESCRIPTION).is_file():
            return place
    found = sorted(path.parent for path in folder.rglob(model.DESCRIPTION))
    if len(found) != 1:
        raise DataError(
            f"{uri} holds {'several forecasters' if found else 'no forecaster'}.",
            hint="Choose a model that `forecast registry list` shows.",
        )
    return found[0]


def _absent(error: Exception, sentence: str) -> NotFoundError:
    """Turn MLflow's "not there" into ours, and let any other error of its pass."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    codes = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
    if isinstance(error, MlflowException) and error.error_code not in codes:
        raise error
    return NotFoundError(
        f"{sentence} in {store.shown(store.tracking_uri())}.",
        hint="See what is there: forecast registry list",
    )
