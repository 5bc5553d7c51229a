"""What a run tells its server, one record at a time.

A record is a dict that JSON can hold, so that what cannot be sent now is spooled to a file line by
line and sent later by the same function. Sending one twice does no harm, unless it is a model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from posixpath import normpath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from forecast import atomic
from forecast.errors import UsageError
from forecast.tracking import model, process, store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

Record = dict[str, Any]

SPOOL = "tracking-spool.jsonl"
LONG_PARAMETERS = "long-parameters.json"

_MOST_METRICS = 1000
_MOST_PARAMETERS = 100
_LONGEST_PARAMETER = 6000
_LONGEST_DIGEST = 36
_LONGEST_KEY = 250


@dataclass(kw_only=True, slots=True)
class Target:
    """Where records go.

    Attributes:
        client: client of the store.
        run_id: the run; empty until there is one.
        model_id: the model logged last; empty until there is one.
    """

    client: MlflowClient
    run_id: str = ""
    model_id: str = ""


def send(target: Target, record: Record) -> None:
    """Send one record to the server."""
    _SENDERS[record["kind"]](target, record)


def refused(error: Exception) -> bool:
    """Return whether the server understood the record and will not have it, now or later."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    return isinstance(error, MlflowException) and error.error_code == "INVALID_PARAMETER_VALUE"


def warn_refused(record: Record, error: Exception) -> None:
    """Say that a record has been dropped because the server refused it."""
    what = record["kind"]
    warnings.warn(f"The tracking server refused the run's {what}: {error}", stacklevel=2)


def spool(folder: Path, record: Record) -> None:
    """Append a record to the spool in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / SPOOL).open("a", encoding="utf-8") as stream:
        stream.write(_line(record))


def spooled(folder: Path) -> list[Record]:
    """Read the spool in `folder`; a line that a kill cut short is left out."""
    path = folder / SPOOL
    found: list[Record] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
    return found


def send_spool(target: Target, folder: Path) -> int:
    """Send the spool in `folder` in order and remove it; return the number of records.

    After a record that makes something new on the server, a run or a model, the spool is cut
    behind it: an interruption costs no second run.
    """
    waiting = spooled(folder)
    for done, record in enumerate(waiting, start=1):
        try:
            send(target, record)
        except Exception as error:
            if not (target.run_id and refused(error)):
                raise
            warn_refused(record, error)
        if record["kind"] in ("start", "model"):
            rest = [{"kind": "start", "run_id": target.run_id}, *waiting[done:]]
            atomic.write_bytes(folder / SPOOL, "".join(map(_line, rest)).encode())
    (folder / SPOOL).unlink(missing_ok=True)
    return len(waiting)


def _line(record: Record) -> str:
    # The line break comes first: it also ends a line that a kill cut short.
    return "\n" + json.dumps(record, ensure_ascii=False)


def _start(target: Target, record: Record) -> None:
    """Open a run, or go on with one that is there."""
    from mlflow.entities import Param, RunTag  # noqa: PLC0415

    client = target.client
    run = _existing(client, record)
    if run is None:
        experiment = _experiment(client, record["experiment"])
        run = client.create_run(experiment, record["time"], run_name=record["name"])
    target.run_id = run.info.run_id
    if "experiment" not in record:
        return
    # What the run states already stays: MLflow refuses another value for a parameter, and
    # `mlflow run` has said where a run of its own comes from.
    tags = {
        key: text
        for key, text in record["tags"].items()
        if key not in run.data.tags or key in (process.HOST, process.PROCESS)
    }
    params = {key: text for key, text in record["params"].items() if key not in run.data.params}
    client.log_batch(target.run_id, tags=[RunTag(_key(key), text) for key, text in tags.items()])
    if datasets := _datasets(record["datasets"]):
        client.log_inputs(target.run_id, datasets=datasets)
    short = [Param(_key(key), _shortened(text)) for key, text in params.items()]
    for first in range(0, len(short), _MOST_PARAMETERS):
        client.log_batch(target.run_id, params=short[first : first + _MOST_PARAMETERS])
    if long := {key: text for key, text in params.items() if len(text) > _LONGEST_PARAMETER}:
        client.log_dict(target.run_id, long, LONG_PARAMETERS)


def close_dead(target: Target) -> None:
    """End the runs beside this one whose processes were killed on this machine."""
    client = target.client
    mine = client.get_run(target.run_id)
    host = process.tags()[process.HOST]
    running = client.search_runs(
        [mine.info.experiment_id],
        filter_string=f"attributes.status = 'RUNNING' and tags.`{process.HOST}` = '{host}'",
        max_results=100,
    )
    for run in running:
        if run.info.run_id != target.run_id and process.is_dead(run.data.tags):
            client.set_terminated(run.info.run_id, "KILLED")


def _existing(client: MlflowClient, record: Record) -> Run | None:
    """Reopen the run that a record goes on with; None for a new one, or for one that is gone."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    if not (run_id := record["run_id"]):
        return None
    try:
        run = client.get_run(run_id)
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        gone = error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
        if not gone or "experiment" not in record:
            raise
        warnings.warn(
            f"Run {run_id} is not on the tracking server any more; a new one is made.",
            stacklevel=2,
        )
        return None
    return run


def _metrics(target: Target, record: Record) -> None:
    from mlflow.entities import Metric  # noqa: PLC0415

    rows = [
        Metric(_key(key), math.nan if value is None else value, time, step)
        for key, value, time, step in record["rows"]
    ]
    for first in range(0, len(rows), _MOST_METRICS):
        target.client.log_batch(target.run_id, metrics=rows[first : first + _MOST_METRICS])


def _tag(target: Target, record: Record) -> None:
    target.client.set_tag(target.run_id, record["key"], record["value"])


def _artifact(target: Target, record: Record) -> None:
    if not Path(record["path"]).is_file():
        warnings.warn(f"There is no file {record['path']} to attach to the run.", stacklevel=2)
        return
    target.client.log_artifact(target.run_id, record["path"], record["folder"] or None)


def _model(target: Target, record: Record) -> None:
    target.model_id = ""
    target.model_id = model.log(
        target.client,
        target.run_id,
        Path(record["artefact"]),
        record["example"],
    )


def _finish(target: Target, record: Record) -> None:
    target.client.set_terminated(target.run_id, record["status"], record["time"])


_SENDERS = {
    "start": _start,
    "metrics": _metrics,
    "tag": _tag,
    "artifact": _artifact,
    "model": _model,
    "finish": _finish,
}


def _experiment(client: MlflowClient, name: str) -> str:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    found = client.get_experiment_by_name(name)
    if found is None:
        root = store.artifact_root(client.tracking_uri)
        plain = re.fullmatch(r"[\w\-]{1,100}", name)
        folder = quote(name) if plain else hashlib.sha256(name.encode()).hexdigest()[:16]
        place = root and f"{root}/{folder}"
        try:
            return client.create_experiment(name, artifact_location=place)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            # Another first run made it between the two calls.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise UsageError(
            f"The experiment {name!r} has been deleted on the tracking server.",
            hint=f"Choose another name, or run: "
            f"mlflow experiments restore --experiment-id {found.experiment_id}",
        )
    return found.experiment_id


def _datasets(items: list[dict[str, Any]]) -> list[DatasetInput]:
    """Describe data sets to MLflow, which lists one of the same name and digest only once."""
    from mlflow.entities import Dataset, DatasetInput, InputTag  # noqa: PLC0415

    contexts: dict[tuple[str, str], list[str]] = {}
    for item in items:
        contexts.setdefault((item["name"], item["digest"]), []).append(item["context"])
    unique = {(item["name"], item["digest"]): item for item in items}
    return [
        DatasetInput(
            Dataset(
                name=item["name"],
                digest=item["digest"][:_LONGEST_DIGEST],
                source_type="http" if item["source"].startswith(("http:", "https:")) else "local",
                source=json.dumps({"uri": item["source"]}),
                schema=json.dumps(
                    {"mlflow_colspec": [{"name": n, "type": "double"} for n in item["columns"]]}
                ),
                profile=json.dumps(
                    {
                        "num_rows": item["rows"],
                        "num_columns": len(item["columns"]),
                        "digest": item["digest"],
                    }
                ),
            ),
            tags=[InputTag("mlflow.data.context", ", ".join(contexts[key]))],
        )
        for key, item in unique.items()
    ]


def _key(name: str) -> str:
    """Write a name, of a column perhaps, in the characters that MLflow takes for a key."""
    key = re.sub(r"[^\w./\- :]", "_", name)
    # A key is a relative path to MLflow, which takes it in its shortest form alone.
    key = key if normpath(key) == key and not key.startswith(("/", "..")) else key.replace("/", "_")
    return key[:_LONGEST_KEY]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_PARAMETER else f"{text[: _LONGEST_PARAMETER - 3]}..."
