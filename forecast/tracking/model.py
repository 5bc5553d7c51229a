"""An artefact folder as an MLflow model: described, logged, registered.

The folder that MLflow calls a model is put together here and not by `mlflow.pyfunc.save_model`,
which runs the model's code, compares the requirements with every package installed (0.6 CPU-s) and
writes paths of this machine into the model. What it holds is MLflow's documented format.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forecast.catalogue.files import sha256_of
from forecast.errors import UsageError
from forecast.tracking import store
from forecast.tracking.scratch import scratch

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import Model, ModelSignature

ARTEFACT = "artifacts/forecaster"
DESCRIPTION = "forecaster.json"
METRIC = "metric."

_NAME = "forecaster"
_CODE = "forecast_pyfunc.py"
_EXAMPLE = "input_example.json"
_SERVING_EXAMPLE = "serving_input_example.json"
_REQUIREMENTS = "requirements.txt"
_ENVIRONMENT = "python_env.yaml"
_PACKAGES = ("torch", "numpy", "polars", "pandas", "pydantic", "safetensors", "mlflow")


def check_names(name: str, alias: str | None) -> None:
    """Refuse, before any work is done, what MLflow would refuse as a model's name or an alias.

    Both may be empty: nothing is to be registered then.

    Raises:
        UsageError: such a name or alias cannot be registered.
    """
    if alias and not name:
        raise UsageError(
            f"The alias {alias!r} has no model to belong to.",
            hint="Give the model's name too: --register NAME",
        )
    if name and (
        not name.strip()
        or len(name) > 256
        or len(name.encode(errors="replace")) > 255
        or re.search("[/:@]", name)
        or re.match(r"\.$|\.\.", name)
    ):
        raise UsageError(
            f"A model cannot be registered as {name!r}: a name has at most 256 characters and 255 "
            "bytes, none of them / : or @, and does not start with two dots.",
            hint="Choose a name such as etth1-itransformer.",
        )
    if not alias:
        return
    if not re.fullmatch(r"[\w\-]{1,255}", alias):
        raise UsageError(
            f"{alias!r} cannot be an alias: it is made of letters, digits, _ and -.",
            hint="Choose one such as champion.",
        )
    if re.fullmatch(r"[vV]?\d+", alias) or alias.lower() == "latest":
        raise UsageError(
            f"{alias!r} cannot be an alias: it reads like a version.",
            hint="Choose one such as champion. Versions are numbered by the registry itself.",
        )


def describe(artefact: Path) -> dict[str, str]:
    """Check an artefact by its hashes, and put what it is into a few words: tags of its model.

    Raises:
        NotFoundError: the folder is not an artefact.
        DataError: a file of it is missing, changed or damaged.
    """
    from forecast import artefact as artefacts  # noqa: PLC0415

    held = artefacts.verify(artefact)
    scores = {
        f"{METRIC}test.{key}": f"{value:.6g}"
        for key, value in held["metrics"].get("test", {}).items()
        if isinstance(value, float)
    }
    return {
        "model": held["model"],
        "dataset": Path(held["data"]["source"]).name,
        "horizon": str(held["spec"]["horizon"]),
        "digest": digest(artefact),
        **scores,
    }


def verify(artefact: Path) -> None:
    """Check all files of an artefact by their hashes.

    Raises:
        DataError: one is missing, changed or damaged.
    """
    from forecast import artefact as artefacts  # noqa: PLC0415

    artefacts.verify(artefact)


def digest(artefact: Path) -> str:
    """Name an artefact by its content: its description holds the hashes of the other files."""
    return sha256_of(artefact / DESCRIPTION)


def log(
    client: MlflowClient,
    run_id: str,
    artefact: Path,
    example: Mapping[str, Any] | None = None,
) -> str:
    """Log an artefact folder as a model of a run.

    Args:
        client: client of the store.
        run_id: the run that made it.
        artefact: the folder.
        example: some rows of input, as `columns` and `data`.

    Returns:
        The model's id.
    """
    from mlflow.entities import LoggedModelOutput  # noqa: PLC0415
    from mlflow.models import Model  # noqa: PLC0415

    from forecast import artefact as artefacts  # noqa: PLC0415

    run = client.get_run(run_id)
    made = client.create_logged_model(
        run.info.experiment_id,
        name=_NAME,
        source_run_id=run_id,
        tags=describe(artefact),
        params=run.data.params,
        model_type="forecast",
    )
    written = Model(
        artifact_path=made.artifact_location,
        run_id=run_id,
        model_uuid=made.model_id,
        model_id=made.model_id,
        signature=_signature(artefacts.describe(artefact)),
    )
    with scratch(store.home() / "scratch") as temporary:
        _assemble(temporary / "model", written, artefact, example)
        client.log_model_artifacts(made.model_id, str(temporary / "model"))
    client.finalize_logged_model(made.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    return made.model_id


def register(
    client: MlflowClient, model_id: str, name: str, alias: str | None, *, once: bool = False
) -> int:
    """Make a logged model the next version of a registered model; return the version.

    Args:
        client: of the registry.
        model_id: the logged model.
        name: of the registered model.
        alias: to point at the version.
        once: a version of the same run that is there already is taken, so that a run that was
            killed in between, and goes on, ends with one version and its alias.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    logged = client.get_logged_model(model_id)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = _version_of(client, name, logged.source_run_id) if once else None
    made = made or client.create_model_version(
        name,
        # The place itself and not `models:/ID`: MLflow looks the latter up in its global store.
        source=logged.artifact_location,
        run_id=logged.source_run_id,
        tags={key: value for key, value in logged.tags.items() if not key.startswith("mlflow.")},
        model_id=model_id,
    )
    if alias:
        client.set_registered_model_alias(name, alias, str(made.version))
    return int(made.version)


def _version_of(client: MlflowClient, name: str, run_id: str | None) -> ModelVersion | None:
    if not run_id:
        return None
    found = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    return max(found, key=lambda one: int(one.version), default=None)


def requirements() -> list[str]:
    """List this package and the ones it computes with, in the versions that are installed."""
    # A local part (`2.6.0+cpu`) names a build that the package index does not have.
    versions = {name: metadata.version(name).partition("+")[0] for name in _PACKAGES}
    return [*_own_requirement(), *(f"{name}=={version}" for name, version in versions.items())]


def _own_requirement() -> list[str]:
    """Name this package where it was installed from; name nothing if it was not installed.

    Its name and version alone are right only if an index is where it came from: on another index
    they may be another program's, which a model server would then install and run.
    """
    try:
        own = metadata.distribution("forecast")
    except metadata.PackageNotFoundError:
        return []
    # PEP 610: written for all that was not installed from an index.
    if not (written := own.read_text("direct_url.json")):
        return [f"forecast=={own.version}"]
    origin = json.loads(written)
    if version_control := origin.get("vcs_info"):
        return [
            f"forecast @ {version_control['vcs']}+{origin['url']}@{version_control['commit_id']}"
        ]
    return [f"forecast @ {origin['url']}"]


def _signature(description: Mapping[str, Any]) -> ModelSignature:
    """State the columns that prediction takes and returns, of grids a row for each cell."""
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types import ColSpec, Schema  # noqa: PLC0415

    if "grid" in description:
        from forecast.grids.header import GridHeader  # noqa: PLC0415
        from forecast.grids.output import table_columns  # noqa: PLC0415

        (time, *places), fields = table_columns(GridHeader.from_dict(description["grid"]))
        cells = Schema(
            [ColSpec("string", time), *(ColSpec("double", name) for name in (*places, *fields))]
        )
        return ModelSignature(inputs=cells, outputs=cells)
    if "graph" in description:
        return _graph_signature(description["graph"])
    return _series_signature(description)


def _series_signature(description: Mapping[str, Any]) -> ModelSignature:
    """State the columns of a table: keys, variates, covariates; and the level of intervals."""
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema  # noqa: PLC0415

    layout, codes = description["layout"], description.get("static", {})
    # An id such as 007 and a time in any notation stay what they are only as text.
    keys = [layout["id"], layout["time"]] if layout["kind"] == "long" else [layout["time"]]
    # Of static words an artefact keeps the levels, of static numbers mean and deviation.
    static = {
        name: "double" if codes.get(name) and not isinstance(codes[name][0], str) else "string"
        for name in layout["static"]
    }
    covariates = [*layout["past_covariates"], *layout["known_future"]]
    returned = dict.fromkeys(keys, "string") | dict.fromkeys(layout["values"], "double")
    taken = returned | dict.fromkeys(layout["levels"], "string") | static
    taken |= dict.fromkeys(covariates, "double")
    inputs, outputs = (
        Schema([ColSpec(kind, name) for name, kind in side.items()]) for side in (taken, returned)
    )
    # No default but none: then the model's own quantiles say which intervals there are.
    level = ParamSchema([ParamSpec("level", "double", default=[], shape=(-1,))])
    return ModelSignature(inputs=inputs, outputs=outputs, params=level)


def _graph_signature(graph: Mapping[str, Any]) -> ModelSignature:
    """State the columns of events, and of the answer; ids are text to the registry."""
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types import ColSpec, Schema  # noqa: PLC0415

    named = graph["options"].get("columns", {})
    asked: list[Any] = [ColSpec("string", named.get(role, role)) for role in ("src", "dst")]
    asked += [ColSpec("double", name) for name in (named.get("t", "t"), *graph.get("features", ()))]
    share = "share" if graph["task"] == "affinity" else "probability"
    told: list[Any] = [
        ColSpec("string", "src"), ColSpec("long", "rank"), ColSpec("string", "dst"),
        ColSpec("double", share),
    ]  # fmt: skip
    return ModelSignature(inputs=Schema(asked), outputs=Schema(told))


def _assemble(
    folder: Path, written: Model, artefact: Path, example: Mapping[str, Any] | None
) -> None:
    """Put a model together: artefact, code, requirements, example and what says so."""
    from mlflow.pyfunc import add_to_model  # noqa: PLC0415

    shutil.copytree(artefact, folder / ARTEFACT)
    shutil.copyfile(Path(__file__).with_name("pyfunc.py"), folder / _CODE)
    (folder / _REQUIREMENTS).write_text("\n".join(requirements()) + "\n")
    environment = {
        "python": platform.python_version(),
        "build_dependencies": ["pip", "setuptools", "wheel"],
        "dependencies": [f"-r {_REQUIREMENTS}"],
    }
    # YAML 1.2 contains JSON.
    (folder / _ENVIRONMENT).write_text(json.dumps(environment, indent=2))
    if example is not None:
        (folder / _EXAMPLE).write_text(json.dumps(example))
        (folder / _SERVING_EXAMPLE).write_text(json.dumps({"dataframe_split": example}))
        written.saved_input_example_info = {
            "artifact_path": _EXAMPLE,
            "serving_input_path": _SERVING_EXAMPLE,
            "type": "dataframe",
            "pandas_orient": "split",
        }
    add_to_model(
        written,
        loader_module="mlflow.pyfunc.loaders.code_model",
        python_env=_ENVIRONMENT,
        model_code_path=_CODE,
        artifacts={_NAME: {"path": ARTEFACT, "uri": ARTEFACT}},
        streamable=False,
    )
    written.save(str(folder / "MLmodel"))
