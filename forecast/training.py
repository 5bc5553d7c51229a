"""One run from a recipe to a scored, tracked and registered artefact.

```
$FORECAST_HOME/runs/etth1-itransformer-96-20261124-101500-3f2a/
  recipe.toml             the resolved recipe
  run.json                what the run is, and how far it came
  checkpoint.safetensors  from which a killed run goes on
  artefact/               the trained forecaster
  forecast.png            history, forecast and truth
  early.png               the error by the rows seen, of a model that carries a state
  memory.png              what a memory that learns does along the stream
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from forecast import artefact, atomic, diagnostics, evaluation, pictures, recipe, runs
from forecast.artefact import Forecaster
from forecast.checkpoint import Checkpoint
from forecast.data import loading, tables
from forecast.data.loading import SeriesData
from forecast.device import Stopwatch, choose_device, choose_precision, set_threads
from forecast.errors import UsageError
from forecast.loop import Fitted, Interrupted, Silence, Watcher, fit
from forecast.models import MODELS, replay, unread_covariates
from forecast.prediction import load as load_forecaster
from forecast.recipe import Recipe
from forecast.tracking import DatasetInfo, Run, check_names


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """Say what a run left behind.

    Attributes:
        artefact: folder of the trained forecaster.
        run_id: MLflow run, or None if the tracking server was away.
        version: version under which it was registered, or None.
        metrics: `test` and `baselines`, as `evaluation.score` gives them, and `validation`.
        beaten_by: baselines with a smaller test MSE, best first.
        cost: seconds, CPU seconds and peak memory of the process.
        picture: history, forecast and truth of the last test window.
    """

    artefact: Path
    run_id: str | None
    version: int | None
    seed: int
    metrics: dict[str, Any]
    beaten_by: list[str]
    cost: dict[str, float]
    picture: Path
    recipe: Recipe

    def to_json(self) -> dict[str, Any]:
        """Lay it out as the one document that `forecast train --json` prints."""
        return {
            "artefact": str(self.artefact),
            "run_id": self.run_id,
            "registered": {
                "name": self.recipe.tracking.register,
                "version": self.version,
                "alias": self.recipe.tracking.alias or None,
            }
            if self.version is not None
            else None,
            "metrics": self.metrics,
            "beaten_by": self.beaten_by,
            **self.cost,
            "seed": self.seed,
            "picture": str(self.picture),
        }


def train(
    target: str | Path | Recipe,
    *,
    model: str | None = None,
    lookback: int | None = None,
    horizon: int | None = None,
    settings: Sequence[str] = (),
    init: str | Path | None = None,
    resume: bool = False,
    out: str | Path | None = None,
    watcher: Watcher | None = None,
) -> Trained:
    """Train, score once on the test part beside the baselines, save, track and register.

    Args:
        target: a recipe (file, name or `Recipe`), the name of a data set, or a data file.
        model: name of the model; this and the next two are stronger than the recipe.
        lookback: L [rows].
        horizon: H [rows].
        settings: `section.key=value`, as `--set` takes them.
        init: artefact folder or model URI whose weights, scaler and shape to start from.
        resume: go on from the newest unfinished run of this very recipe, if there is one.
        out: folder for the artefact; None puts it into the run's own folder.
        watcher: is told how it goes.

    Raises:
        ForecastError: anything the user can put right.
    """
    watch, watcher = Stopwatch(), watcher or Silence()
    if isinstance(target, Recipe):
        resolved = target
    else:
        resolved = recipe.load(
            target, model=model, lookback=lookback, horizon=horizon, settings=settings
        )
    check_names(resolved.tracking.register, resolved.tracking.alias)
    start = load_forecaster(init) if init else None
    if start:
        _refuse_other_shape(start, model, lookback, horizon)
        resolved = replace(
            resolved, model=start.recipe.model, model_config=start.recipe.model_config
        ).replace("window", lookback=start.spec.lookback, horizon=start.spec.horizon)
        # The covariates that a model reads are part of its shape as well.
        resolved = resolved.replace(
            "data",
            static=start.layout.static,
            categorical=tuple(start.layout.levels),
            past_covariates=start.layout.past_covariates,
            known_future=start.layout.known_future,
            holidays=start.covariates.holidays,
        )
    device = choose_device(resolved.train.device)
    data = _load(resolved, start, device)
    for notice in (*data.notices, *unread_covariates(resolved.model, data.spec)):
        watcher.notice(notice)
    torch.manual_seed(resolved.train.seed)
    untrained = artefact.build(resolved.model, resolved.model_config, data.spec)
    if start:
        untrained.load_state_dict(start.model.state_dict())
    threads = set_threads(
        resolved.train.threads, sum(weight.numel() for weight in untrained.parameters())
    )
    precision = choose_precision(resolved.train.precision, device)
    # From here on the recipe states every number, so that the artefact does too.
    resolved = (
        resolved.replace("window", lookback=data.spec.lookback, horizon=data.spec.horizon)
        .replace("data", frequency=data.spec.frequency, season=data.spec.season)
        .replace("train", precision=precision, threads=threads)
    )
    identity = {
        "recipe": resolved.digest()[:16],
        "data": data.table.digest[:16],
        "start": artefact.weights_digest(start.model)[:16] if start else "fresh",
    }
    with runs.open_run(_title(resolved), identity, resume=resume) as kept:
        folder = kept.folder
        if resume and kept.fresh:
            watcher.notice("No unfinished run of this recipe was found; starting a new one.")
        atomic.write_bytes(folder / "recipe.toml", resolved.to_toml().encode())
        run = Run.start(
            experiment=resolved.tracking.experiment,
            name=folder.name,
            params=_flat(resolved),
            tags={"model": resolved.model, "recipe": identity["recipe"]},
            datasets=[_dataset_info(resolved, data, part) for part in ("training", "evaluation")],
            folder=folder,
            run_id=kept.run_id,
        )
        kept.note(run.run_id)
        status = "FAILED"
        try:
            trained = _train(
                untrained.to(device), resolved, data, folder, identity, run, watcher, out
            )
            status = "FINISHED"
        except (Interrupted, KeyboardInterrupt):
            status = "KILLED"
            raise
        finally:
            run.finish(status)
        # After its end, so that a registry out of reach does not make a failure of a good run.
        if register := resolved.tracking.register:
            version = run.register(register, resolved.tracking.alias or None)
            trained = replace(trained, version=version)
        kept.finish()
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return replace(trained, cost=watch.read())


def _train(
    model: nn.Module,
    resolved: Recipe,
    data: SeriesData,
    folder: Path,
    identity: dict[str, str],
    run: Run,
    watcher: Watcher,
    out: str | Path | None,
) -> Trained:
    fitted = _fit(model, resolved, data, folder, identity, run, watcher)
    baselines = evaluation.fit_baselines(data)
    models = {"model": model} | baselines
    calibrations = evaluation.calibrate_all(models, data)
    # The one time that this run looks at the test part.
    scores = evaluation.score_all(models, data, calibrations=calibrations)
    test = scores.pop("model")
    metrics = {
        "test": test,
        "baselines": scores,
        "validation": _validation(model, resolved, data, fitted),
    }
    early = _early(model, data)
    if early is not None:
        metrics["early"] = _thinned(early)
    memory, drawn = diagnostics.memory(model, data, resolved, folder)
    metrics |= memory
    forecaster = Forecaster(
        model=model,
        recipe=resolved,
        spec=data.spec,
        scaler=data.scaler,
        columns=data.table.columns,
        layout=data.table.layout,
        ridge=baselines["ridge"].state_dict()["weight"],
        covariates=data.covariates,
        calibration=calibrations["model"],
        data={
            "source": resolved.data.source,
            "digest": data.table.digest,
            "rows": len(data.table.times),
            "series": len(data.table.ids),
        },
        metrics=metrics,
    )
    place = Path(out) if out else folder / "artefact"
    artefact.save(place, forecaster)
    picture = folder / "forecast.png"
    pictures.last_window(model, data, resolved, picture)
    run.log(_figures(metrics), step=fitted.best_epoch if fitted else 0)
    run.artifact(picture)
    if early is not None:
        run.artifact(_draw_early(early, resolved, folder))
    for path in drawn:
        run.artifact(path)
    run.artifact(folder / "recipe.toml")
    run.model(place, example=_example(data))
    return Trained(
        artefact=place,
        run_id=run.run_id,
        version=None,
        seed=resolved.train.seed,
        metrics=metrics,
        beaten_by=evaluation.beaten_by(test, scores),
        cost={},
        picture=picture,
        recipe=resolved,
    )


def _early(model: nn.Module, data: SeriesData) -> tuple[np.ndarray, np.ndarray] | None:
    """Measure on the test part how a stream fares that has just begun; None without a state."""
    if not replay.carries_state(model):
        return None
    fresh, full = replay.early_errors(model, replay.beginnings(model, data.windows("test")))
    return fresh.numpy(), full.numpy()


def _thinned(early: tuple[np.ndarray, np.ndarray]) -> dict[str, list[float]]:
    """Give the errors after 1, 2, 4, ... rows, as an artefact tells them."""
    rows = [2**power for power in range(len(early[0]).bit_length())]
    rows = [row for row in rows if np.isfinite(early[0][row - 1])]
    fresh, full = ([float(part[row - 1]) for row in rows] for part in early)
    return {"rows": rows, "mse": fresh, "mse_with_all_history": full}


def _draw_early(early: tuple[np.ndarray, np.ndarray], resolved: Recipe, folder: Path) -> Path:
    picture = folder / "early.png"
    source = Path(resolved.data.source).name
    title = f"{source}  ·  {resolved.model}  ·  error by the rows that a stream has seen"
    pictures.early_errors(*early, title=title, path=picture)
    return picture


def _validation(
    model: nn.Module, resolved: Recipe, data: SeriesData, fitted: Fitted | None
) -> dict[str, Any]:
    """Say how the weights did on the validation part, whose loss is the MSE or else a CRPS."""
    if fitted is None:
        return {"mse": evaluation.score(model, data, data.windows("val"))["mse"]}
    found: dict[str, Any] = {"mse": fitted.best_loss, "best_epoch": fitted.best_epoch}
    if getattr(resolved.model_config, "quantiles", ()):
        found["crps"] = fitted.best_loss
        found["mse"] = evaluation.score(model, data, data.windows("val"))["mse"]
    return found


def _fit(
    model: nn.Module,
    resolved: Recipe,
    data: SeriesData,
    folder: Path,
    identity: dict[str, str],
    run: Run,
    watcher: Watcher,
) -> Fitted | None:
    """Find the weights, by steps or at once; None for a model that has no steps."""
    if MODELS[resolved.model].closed_form:
        evaluation.fit_closed_form(model, data)
        return None
    started = identity["start"] != "fresh"
    return fit(
        model,
        *replay.prepare(model, data.windows("train"), data.windows("val"), fresh=not started),
        resolved.train,
        watcher=_Logged(watcher, run),
        checkpoint=Checkpoint(path=folder / "checkpoint.safetensors", identity=identity),
    )


@dataclass(frozen=True, slots=True)
class _Logged:
    """Pass everything on to a watcher, and the figures of each epoch to the tracked run too."""

    watcher: Watcher
    run: Run

    def begin(self, epochs: int, steps: int) -> None:
        self.watcher.begin(epochs, steps)

    def step(self, epoch: int, step: int, loss: float) -> None:
        self.watcher.step(epoch, step, loss)

    def epoch(self, row: dict[str, float]) -> None:
        figures = {name: value for name, value in row.items() if name != "epoch"}
        self.run.log(figures, step=int(row["epoch"]))
        self.watcher.epoch(row)

    def notice(self, text: str) -> None:
        self.watcher.notice(text)


def _load(resolved: Recipe, start: Forecaster | None, device: torch.device) -> SeriesData:
    section = resolved.data
    table = loading.read(
        section.source,
        section,
        columns=start.columns if start else None,
        frequency=start.spec.frequency if start else None,
        levels=start.layout.levels if start else None,
    )
    return loading.load(
        table,
        split=section.split,
        lookback=resolved.window.lookback,
        horizon=resolved.window.horizon,
        season=section.season,
        marks=section.marks,
        holidays=section.holidays,
        device=device,
        scaler=start.scaler if start else None,
        covariates=start.covariates if start else None,
        all_history=MODELS[resolved.model].streams,
    )


def _refuse_other_shape(
    start: Forecaster, model: str | None, lookback: int | None, horizon: int | None
) -> None:
    """Refuse flags that contradict the model that training starts from."""
    asked = {"model": model, "lookback": lookback, "horizon": horizon}
    own = {
        "model": start.recipe.model,
        "lookback": start.spec.lookback,
        "horizon": start.spec.horizon,
    }
    for name, value in asked.items():
        if value is not None and value != own[name]:
            raise UsageError(
                f"--{name} {value} contradicts --init: that model has {name} {own[name]}.",
                hint=f"Leave out --{name}, or train from new weights without --init.",
            )


def _title(resolved: Recipe) -> str:
    source = Path(resolved.data.source).name.partition(".")[0]
    return f"{source}-{resolved.model}-{resolved.window.horizon}"


def _flat(resolved: Recipe) -> dict[str, Any]:
    return {
        f"{section}.{key}": value
        for section, values in resolved.to_dict().items()
        for key, value in values.items()
        if value is not None and value != ""
    }


def _dataset_info(resolved: Recipe, data: SeriesData, context: str) -> DatasetInfo:
    return DatasetInfo(
        name=Path(resolved.data.source).name,
        source=resolved.data.source,
        digest=data.table.digest,
        rows=len(data.table.times),
        columns=data.table.columns,
        context=context,
    )


def _example(data: SeriesData) -> pd.DataFrame:
    """Take the first lookback of the first series, in the form of the table."""
    table = data.table
    rows = slice(0, min(data.spec.lookback, int(table.offsets[1])))
    frame = tables.forecast_frame(
        table.layout, table.ids[:1], table.times[rows][None], table.values[rows][None]
    )
    return frame.to_pandas()


def _figures(metrics: dict[str, Any]) -> dict[str, float]:
    """Flatten scores to what MLflow charts: `test_mse`, `ridge_test_mse`, `test_mae_OT`."""
    figures: dict[str, float | None] = {}
    for name, scores in {"": metrics["test"], **metrics["baselines"]}.items():
        prefix = f"{name}_test" if name else "test"
        figures |= {
            f"{prefix}_{measure}": scores[measure]
            for measure in ("mse", "mae", "rmse", "smape", "mase", "rmsse")
            if scores.get(measure) is not None
        }
        for method, found in scores.get("intervals", {}).items():
            wide = found["levels"]["90"]
            figures |= {
                f"{prefix}_{method}_crps": found["crps"],
                f"{prefix}_{method}_coverage_90": wide["coverage"],
                f"{prefix}_{method}_interval_score_90": wide["interval_score"],
            }
    for column, scores in metrics["test"]["units"].items():
        figures |= {
            f"test_{measure}_{column}": value
            for measure, value in scores.items()
            if value is not None
        }
    for number, block in enumerate(metrics.get("memory", ())):
        figures |= {f"memory{number}_{name}": value for name, value in block.items()}
    figures["best_val_mse"] = metrics["validation"]["mse"]
    return {name: value for name, value in figures.items() if value is not None}
