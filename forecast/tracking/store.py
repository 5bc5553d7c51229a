"""Where runs are kept, and how MLflow is loaded: late, quietly and without its usage reports.

The default store is one sqlite file, with artifacts in a folder beside it. A store is always named
by its URI here, never by MLflow's global state, which belongs to the user.
"""

from __future__ import annotations

import gc
import http.client
import importlib
import os
import socket
import sqlite3
import ssl
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import SplitResult, quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from forecast.errors import ForecastError
from forecast.locks import exclusive
from forecast.paths import home
from forecast.tracking.deadline import DeadlineError, Limited, within

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
# A server that is there answers its simplest question, with anything, in so many seconds.
_HEALTH_SECONDS = 6.0
# How long another program may hold the sqlite file, or be making it [s].
_BUSY_SECONDS = 5.0
_MAKING_SECONDS = 120.0
_SIZE = ("page_count", "page_size")


def tracking_uri() -> str:
    """Return the URI of the store in use: `MLFLOW_TRACKING_URI`, else the sqlite file at home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def is_server(uri: str) -> bool:
    """Return whether a store is behind HTTP, and so may answer late or never."""
    return _server(uri) is not None


def prepare(uri: str) -> None:
    """Create the store behind a sqlite URI if it is not there yet; leave any other URI alone.

    MLflow builds the tables in some hundred steps. They are taken under a lock in a draft that gets
    its name at the end, so that several first runs at once make one store, and one that is killed
    makes none.
    """
    file = _sqlite_file(uri)
    if file is None or _begun(file):
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = file.with_name(f"{file.name}.lock")
    with exclusive(lock, f"the tracking store {file}, which it makes", _MAKING_SECONDS):
        if _begun(file):
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
    """Return where artifacts of a sqlite store go: beside the file, not wherever one stands.

    None for any other store, which has its own opinion.
    """
    file = _sqlite_file(uri)
    return None if file is None else (file.parent / "mlartifacts").as_uri()


def connect(uri: str) -> MlflowClient:
    """Return a client of the store, made first if need be.

    Each call of a client of a server has a deadline: see `deadline`.

    Raises:
        ForecastError: nobody listens at the address, or the sqlite file is locked or damaged.
    """
    registry = os.environ.get("MLFLOW_REGISTRY_URI") or uri
    for one in dict.fromkeys((uri, registry)):
        _probe(one)
        _check_file(one)
    prepare(uri)
    load()
    from mlflow import MlflowClient  # noqa: PLC0415

    with _collector_paused():
        made = MlflowClient(uri, registry_uri=registry)
    remote = [one for one in (uri, registry) if _server(one)]
    if not remote:
        return made
    return cast("MlflowClient", Limited(made, f"The tracking server {shown(remote[0])}"))


@contextmanager
def client() -> Generator[MlflowClient]:
    """Yield a client of the store, and put MLflow's errors into ours."""
    uri = tracking_uri()
    load()
    from alembic.util import CommandError  # noqa: PLC0415
    from mlflow.exceptions import MlflowException  # noqa: PLC0415
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    try:
        yield connect(uri)
    except (MlflowException, SQLAlchemyError, sqlite3.Error, CommandError, OSError) as error:
        raise unusable(uri, error) from error


def unusable(uri: str, error: Exception) -> ForecastError:
    """Put into a sentence why a store could not be used."""
    # What follows the first line of a database's error is the statement in SQL.
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return ForecastError(
        f"The tracking store {shown(uri)} could not be used: {reason}.",
        hint="Mend that, or set MLFLOW_TRACKING_URI to another store.",
    )


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


def _server(uri: str) -> SplitResult | None:
    """Take the address of a server apart; None for any other store."""
    parts = urlsplit(uri)
    return parts if parts.scheme in ("http", "https") and parts.hostname else None


def _probe(uri: str) -> None:
    """Find out in seconds that a server is not there, where MLflow would take its time."""
    parts = _server(uri)
    if parts is None or (parts.scheme in getproxies() and not proxy_bypass(str(parts.hostname))):
        return
    host, port = str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), timeout=_PROBE_SECONDS).close()
        within(
            _HEALTH_SECONDS, f"The tracking server {host}:{port}", _ask_health, parts, host, port
        )
    except DeadlineError:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise ForecastError(
            f"The tracking server {host}:{port} does not answer: {error}.",
            hint="Start it, or set MLFLOW_TRACKING_URI to the one that runs.",
        ) from error


def _ask_health(parts: SplitResult, host: str, port: int) -> None:
    """Ask a server the simplest question; any answer is one."""
    if parts.scheme == "https":
        # Nothing is sent that is worth an attack; MLflow itself checks the certificate later.
        unchecked = ssl.create_default_context()
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            host, port, timeout=_HEALTH_SECONDS, context=unchecked
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=_HEALTH_SECONDS)
    with closing(connection):
        connection.request("GET", f"{parts.path.rstrip('/')}/health")
        connection.getresponse()


def _begun(file: Path) -> bool:
    """Return whether there is a store; an empty file is what a kill leaves of one."""
    return file.exists() and (not file.is_file() or file.stat().st_size > 0)


def _check_file(uri: str) -> None:
    """Refuse at once a sqlite file that cannot be read; MLflow tries again for an hour.

    Raises:
        ForecastError: it is locked, cut off, or no database.
    """
    file = _sqlite_file(uri)
    if file is None or not _begun(file):
        return
    try:
        with file.open("rb") as stream:
            head = stream.read(100)
        name = quote(str(file))
        with closing(
            sqlite3.connect(f"file:{name}?mode=rw", uri=True, timeout=_BUSY_SECONDS)
        ) as db:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            pages, size = (db.execute(f"PRAGMA {one}").fetchone()[0] for one in _SIZE)
        # Counted by the header, as long as the last writer knew of that field; a file that is
        # shorter has lost its end, and would fail somewhere later.
        counted = int.from_bytes(head[28:32]) if head[24:28] == head[92:96] else 0
        if file.stat().st_size < max(pages, counted) * size:
            raise sqlite3.DatabaseError("the file has been cut off")
    except (sqlite3.Error, OSError) as error:
        locked = "locked" in str(error)
        raise ForecastError(
            f"The tracking store {file} could not be used: {error}.",
            hint="Another program holds it: wait until that has ended."
            if locked
            else "Move the file away, and a new store is made; or bring back a copy of it; or set "
            "MLFLOW_TRACKING_URI to another store.",
        ) from error


def _sqlite_file(uri: str) -> Path | None:
    scheme, _, path = uri.partition(":///")
    if not scheme.startswith("sqlite") or not path or path.startswith(":memory:"):
        return None
    return Path(path.partition("?")[0]).absolute()


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
