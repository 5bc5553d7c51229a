"""Where runs are kept, and how MLflow is loaded: late, quietly and without its usage reports.

The default store is one sqlite file, with artifacts in a folder beside it. A store is always named
by its URI here, never by MLflow's global state, which belongs to the user.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import os
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from forecast.errors import ForecastError
from forecast.paths import home

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.entities import PagedList

Item = TypeVar("Item")
# What MLflow reads from the environment when it is imported or called. Its own defaults report
# usage to its makers, narrate on stderr, print on stdout, where results go, and try for minutes to
# reach a dead server.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
_PROBE_SECONDS = 3.0


def tracking_uri() -> str:
    """Return the URI of the store in use: `MLFLOW_TRACKING_URI`, else the sqlite file at home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def prepare(uri: str) -> None:
    """Create the store behind a sqlite URI if it is not there yet; leave any other URI alone.

    MLflow builds the tables in some hundred steps. They are taken under a lock in a draft that gets
    its name at the end, so that several first runs at once make one store, and one that is killed
    makes none.
    """
    file = _sqlite_file(uri)
    if file is None or file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with _locked(file.with_name(f"{file.name}.lock")):
        if file.exists():
            return
        load()
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # noqa: PLC0415

        draft = file.with_name(f"{file.name}.draft")
        # With the journal beside a draft that was killed, sqlite would bring that one back.
        for left in file.parent.glob(f"{draft.name}*"):
            left.unlink()
        with _collector_paused():
            made = SqlAlchemyStore(f"sqlite:///{draft}", artifact_root(uri) or "")
        made.engine.dispose()
        draft.replace(file)


def artifact_root(uri: str) -> str | None:
    """Say where artifacts of a sqlite store go: beside the file, not wherever one stands.

    None for any other store, which has its own opinion.
    """
    file = _sqlite_file(uri)
    return None if file is None else (file.parent / "mlartifacts").as_uri()


def connect(uri: str) -> MlflowClient:
    """Return a client of the store, made first if need be.

    Raises:
        ForecastError: nobody listens at the address.
    """
    _probe(uri)
    prepare(uri)
    load()
    from mlflow import MlflowClient  # noqa: PLC0415

    with _collector_paused():
        return MlflowClient(uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or uri)


@contextmanager
def client() -> Generator[MlflowClient]:
    """Yield a client of the store, and put MLflow's errors into ours."""
    uri = tracking_uri()
    load()
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        yield connect(uri)
    except (MlflowException, OSError) as error:
        raise ForecastError(
            f"The tracking store {shown(uri)} could not be used: {error}",
            hint="Mend that, or set MLFLOW_TRACKING_URI to another store.",
        ) from error


def pages(search: Callable[..., PagedList[Item]]) -> list[Item]:
    """Collect all pages of a search."""
    page = search()
    found = list(page)
    while page.token:
        page = search(page_token=page.token)
        found += page
    return found


def shown(uri: str) -> str:
    """Write a URI for a message, without the password it may hold."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    return uri.replace(f":{parts.password}@", ":***@")


def load() -> None:
    """Import MLflow, with its environment set before where the user has not set it otherwise."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with _collector_paused():
        importlib.import_module("mlflow")


def _probe(uri: str) -> None:
    """Find out in seconds that a server is not there, where MLflow would take its time."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        return
    if parts.scheme in getproxies() and not proxy_bypass(parts.hostname):
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=_PROBE_SECONDS).close()
    except OSError as error:
        raise ForecastError(
            f"The tracking server {parts.hostname}:{port} does not answer: {error}.",
            hint="Start it, or set MLFLOW_TRACKING_URI to the one that runs.",
        ) from error


def _sqlite_file(uri: str) -> Path | None:
    scheme, _, path = uri.partition(":///")
    if not scheme.startswith("sqlite") or not path or path.startswith(":memory:"):
        return None
    return Path(path.partition("?")[0]).absolute()


@contextmanager
def _locked(path: Path) -> Generator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def _collector_paused() -> Generator[None]:
    """Hold the garbage collector: imports and mappers allocate a lot and drop nothing.

    Going through it all again and again is a third of the time that MLflow takes to load.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
