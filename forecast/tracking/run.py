"""A training run in MLflow that never stands in the way of training.

One thread does all the talking, so that a slow server costs the training nothing. When the server
fails, the user is warned once, and from then on everything goes to a spool in the run's folder; it
is sent when the server is back, by this run or later by `forecast registry sync`.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import math
import os
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar

from forecast.errors import ForecastError, UsageError
from forecast.tracking import model, process, records, store
from forecast.tracking.records import Record, Target

if TYPE_CHECKING:
    import pandas as pd

    from forecast.contracts import DatasetInfo

P = ParamSpec("P")
T = TypeVar("T")
Status = Literal["FINISHED", "FAILED", "KILLED"]

# Metrics go out when so many wait, or so many seconds after the last ones went.
_BATCH = 500
_BATCH_SECONDS = 2.0
# A server that failed is tried again at most this often, and never for metrics alone.
_RETRY_SECONDS = 60.0
_FLUSH_SECONDS = 2.0
# So long the work waits for a server to open the run; after that it begins without.
_START_SECONDS = 3.0


class Run:
    """Write one run down; as a context manager it ends as finished, failed or killed.

    Attributes:
        uri: the store.
        run_id: MLflow's id of the run; None while no server has been reached.
    """

    def __init__(self, *, folder: Path, uri: str) -> None:
        self.uri = uri
        self.run_id: str | None = None
        self._folder = folder
        self._target: Target | None = None
        self._retry_at = 0.0
        self._trouble: Exception | None = None
        self._nonfinite_seen = False
        self._artefact: Path | None = None
        self._buffer: deque[tuple[str, float, int, int]] = deque()
        self._due = time.monotonic() + _BATCH_SECONDS
        self._sending: Future[None] | None = None
        self._finished = False
        self._opened_late = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tracking")

    @classmethod
    def start(
        cls,
        *,
        experiment: str,
        name: str,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        datasets: Sequence[DatasetInfo],
        folder: Path,
        run_id: str | None = None,
        uri: str | None = None,
    ) -> Self:
        """Open a run, or go on with one.

        Args:
            experiment: name of the experiment; it is made if need be.
            name: name of the run.
            params: what decides the run; values are written as text.
            tags: anything else worth a search.
            datasets: which data it uses.
            folder: the run's own folder, where the spool goes.
            run_id: the run to go on with; None asks `MLFLOW_RUN_ID`, which `mlflow run` sets.
            uri: the store; None takes `tracking_uri()`.

        Raises:
            UsageError: the experiment has no name, or has been deleted.
        """
        if not experiment.strip():
            raise UsageError(
                "The experiment has no name.",
                hint='Give one: --set tracking.experiment="forecast"',
            )
        run = cls(folder=folder, uri=uri or store.tracking_uri())
        # Taken out, as MLflow itself does: a second run of this process is another run.
        run_id = run_id or os.environ.pop("MLFLOW_RUN_ID", None)
        source = {"mlflow.source.name": Path(sys.argv[0]).name, "mlflow.source.type": "LOCAL"}
        record: Record = {
            "kind": "start",
            "run_id": run_id or "",
            "experiment": experiment,
            "name": name,
            "time": _now(),
            "params": {key: str(value) for key, value in params.items()},
            "tags": {**source, "mlflow.user": _user(), **process.tags(), **tags},
            "datasets": [asdict(dataset) for dataset in datasets],
        }
        run._open(record)
        return run

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        killed = kind is not None and not issubclass(kind, Exception)
        self.finish("KILLED" if killed else "FAILED" if kind else "FINISHED")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Note metrics of a step; they are sent in batches, later and elsewhere.

        Infinities are written as NaN, which MLflow leaves out of a curve instead of drawing it up
        to 1e308, and the run is tagged `nonfinite` with the first place.
        """
        now = _now()
        self._buffer.extend((key, float(value), now, step) for key, value in metrics.items())
        if len(self._buffer) >= _BATCH or time.monotonic() >= self._due:
            self._send_soon()

    def flush(self) -> None:
        """Send what has been logged so far; return after two seconds even if the server is slow."""
        with contextlib.suppress(TimeoutError):
            self._thread.submit(self._drain).result(_FLUSH_SECONDS)

    def artifact(self, path: Path, folder: str = "") -> None:
        """Attach a file to the run, under `folder` there."""
        record = {"kind": "artifact", "path": str(path.absolute()), "folder": folder}
        self._call(self._tell, record)

    def model(self, artefact: Path, *, example: pd.DataFrame | None = None) -> str | None:
        """Log an artefact folder as the model of this run.

        Args:
            artefact: the folder; it is copied to the server.
            example: some rows of input, times as text.

        Returns:
            The model's URI; None if it waits in the spool.
        """
        self._artefact = artefact.absolute()
        record: Record = {
            "kind": "model",
            "artefact": str(self._artefact),
            "example": None if example is None else _split(example),
        }
        self._call(self._tell, record)
        logged = self._target.model_id if self._target else ""
        return f"models:/{logged}" if logged else None

    def register(self, name: str, alias: str | None = None) -> int:
        """Register the logged model as the next version of `name`; return the version.

        Raises:
            UsageError: MLflow does not allow such a name or alias.
            ForecastError: the server could not be reached, or refused.
        """
        model.check_names(name, alias)
        try:
            return self._call(self._register, name, alias)
        except UsageError:
            raise
        except Exception as error:
            again = f"forecast registry add {self._artefact} --name {name}"
            raise ForecastError(
                f"The model was trained and is kept in {self._artefact}, but not registered as "
                f"{name!r}: {_first_line(error)}",
                hint=f"Register it when the server is back:\n{again}"
                + (f" --alias {alias}" if alias else ""),
            ) from error

    def finish(self, status: Status = "FINISHED") -> None:
        """Send or spool what is left and end the run; a second call does nothing."""
        if self._finished:
            return
        self._call(self._drain)
        self._call(self._tell, {"kind": "finish", "status": status, "time": _now()})
        self._finished = True
        self._thread.shutdown()

    # What follows runs in the run's own thread, or in the caller's once the run is finished.

    def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._finished:
            return function(*args, **kwargs)
        return self._thread.submit(function, *args, **kwargs).result()

    def _open(self, record: Record) -> None:
        """Begin in the run's thread; a server may take longer than the work will wait."""
        begun = self._thread.submit(self._begin, record)
        try:
            begun.result(_START_SECONDS if store.is_server(self.uri) else None)
        except FutureTimeoutError:
            self._opened_late = True

    def _begin(self, record: Record) -> None:
        target = None
        try:
            target = Target(client=store.connect(self.uri), run_id=record["run_id"])
            # What an earlier part of this run, now resumed, could not send.
            records.send_spool(target, self._folder)
            record = {**record, "run_id": target.run_id}
            records.send(target, record)
            self._target = target
            with contextlib.suppress(Exception):
                records.close_dead(target)
        # Artifact places raise the errors of their own libraries, and none may end a training.
        except Exception as error:
            if isinstance(error, UsageError) and not self._opened_late:
                raise
            if target and target.run_id and records.refused(error):
                records.warn_refused(record, error)
                self._target = target
            else:
                if not records.spooled(self._folder):
                    run_id = target.run_id if target else record["run_id"]
                    records.spool(self._folder, {**record, "run_id": run_id})
                self._lost(error)
        self.run_id = (target.run_id if target else record["run_id"]) or None

    def _tell(self, record: Record) -> None:
        """Send a record, or spool it."""
        if self._target is None and record["kind"] != "metrics":
            with contextlib.suppress(Exception):
                self._reconnect()
        if self._target is not None:
            try:
                return records.send(self._target, record)
            except Exception as error:  # noqa: BLE001
                if records.refused(error):
                    return records.warn_refused(record, error)
                records.spool(self._folder, {"kind": "start", "run_id": self.run_id or ""})
                records.spool(self._folder, record)
                return self._lost(error)
        return records.spool(self._folder, record)

    def _reconnect(self) -> None:
        """Find the server again and send it the spool; raise what is in the way."""
        if self._trouble and time.monotonic() < self._retry_at:
            raise self._trouble
        target = None
        try:
            target = Target(client=store.connect(self.uri), run_id=self.run_id or "")
            records.send_spool(target, self._folder)
            self._target = target
        except Exception as error:
            self._trouble = error
            raise
        finally:
            self.run_id = (target.run_id if target else self.run_id) or None
            self._retry_at = time.monotonic() + _RETRY_SECONDS

    def _send_soon(self) -> None:
        if self._sending is None or self._sending.done():
            self._sending = self._thread.submit(self._drain)
        self._due = time.monotonic() + _BATCH_SECONDS

    def _drain(self) -> None:
        taken = [self._buffer.popleft() for _ in range(len(self._buffer))]
        if not taken:
            return
        rows = [
            (key, value if math.isfinite(value) else None, when, step)
            for key, value, when, step in taken
        ]
        self._tell({"kind": "metrics", "rows": rows})
        bad = next(((key, step) for key, value, _, step in rows if value is None), None)
        if bad and not self._nonfinite_seen:
            self._nonfinite_seen = True
            self._tell({"kind": "tag", "key": "nonfinite", "value": f"{bad[0]} at step {bad[1]}"})

    def _register(self, name: str, alias: str | None) -> int:
        if self._target is None:
            self._reconnect()
        if self._target is None or not self._target.model_id:
            raise ForecastError("no model of this run is on the tracking server.")
        return model.register(self._target.client, self._target.model_id, name, alias, once=True)

    def _lost(self, error: Exception) -> None:
        """Give the server up for a while; the caller has spooled what did not get through."""
        self._target, self._retry_at = None, time.monotonic() + _RETRY_SECONDS
        first, self._trouble = self._trouble is None, error
        if first:
            warnings.warn(
                f"The run is not being tracked: {_first_line(error)} It goes on, and what it logs "
                f"is kept in {self._folder / records.SPOOL}; send it later by: "
                f"forecast registry sync {self._folder}",
                stacklevel=2,
            )


def _split(example: pd.DataFrame) -> dict[str, Any]:
    return json.loads(str(example.to_json(orient="split", index=False, double_precision=15)))


def _first_line(error: Exception) -> str:
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line if line.endswith(".") else f"{line}."


def _now() -> int:
    return time.time_ns() // 1_000_000


def _user() -> str:
    try:
        return getpass.getuser()
    # No name for this user id, as in many containers: KeyError before Python 3.13, then OSError.
    except (KeyError, OSError):
        return "unknown"
