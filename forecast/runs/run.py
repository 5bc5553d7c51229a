"""One run from a recipe to a scored, tracked and registered artefact.

```
$FORECAST_HOME/runs/etth1-itransformer-96-20261124-101500-3f2a/
  recipe.toml             the resolved recipe
  run.json                what the run is, and how far it came
  checkpoint.safetensors  from which a killed run goes on
  artefact/               the trained forecaster
  forecast.png            history, forecast and truth; of grids maps of forecast, truth and error
  early.png               the error by the rows seen, of a model that carries a state
  memory.png              what a memory that learns does along the stream
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from forecast import artefact, atomic, kinds, outputs, recipe
from forecast.contracts import AnyForecaster, Task
from forecast.device import Stopwatch, choose_device, choose_precision, set_threads
from forecast.errors import UsageError
from forecast.models import MODELS, building
from forecast.recipe import Recipe
from forecast.runs import folders
from forecast.scoring import comparison
from forecast.tracking import Run, check_names
from forecast.tracking.loading import load as load_forecaster
from forecast.training import distributed
from forecast.training.checkpoint import Checkpoint
from forecast.training.distributed import Team
from forecast.training.loop import Fitted, Interrupted, Silence, Watcher, fit


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """Result of a training run.

    Attributes:
        artefact: folder of the trained forecaster.
        run_id: MLflow run, or None if the tracking server was away.
        version: version under which it was registered, or None.
        metrics: `protocol`, `test` and `baselines`, as `tasks.Finished` has them, and `validation`.
        beaten_by: baselines with a smaller test MSE, best first.
        cost: seconds, CPU seconds and peak memory of the process.
        picture: forecast and truth of the last test window.
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

    def __repr__(self) -> str:
        spec, measures = self.recipe, self.metrics.get("test", {})
        shown = [f"{k} {v:.4g}" for k, v in measures.items() if isinstance(v, float)][:2]
        return (
            f"Trained({spec.model} on {spec.source_name}, horizon {spec.window.horizon}, "
            f"{', '.join(shown) or 'no score'}, artefact {str(self.artefact)!r})"
        )

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
            "precision": self.recipe.train.precision,
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
    force: bool = False,
    watcher: Watcher | None = None,
    tags: Mapping[str, str] | None = None,
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
        force: put it there even where a model lies already.
        watcher: is told how it goes.
        tags: further tags of the tracked run.

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
    if not resume:
        _refuse_overwriting(out, force)
    start = load_forecaster(init) if init else None
    if start:
        _refuse_other_shape(start, model, lookback, horizon)
        resolved = kinds.continued(resolved, start)
    if out is not None:
        outputs.check_folder(out, _sources(resolved))
    device = distributed.device_of(
        choose_device(MODELS[resolved.model].device(resolved.train.device))
    )
    with distributed.joined(device, shard=resolved.train.shard) as team:
        task = kinds.open_task(resolved, start, device)
        for notice in task.notices:
            watcher.notice(notice)
        torch.manual_seed(resolved.train.seed)
        untrained = building.build(resolved.model, resolved.model_config, task.spec, **task.inputs)
        if start:
            untrained.load_state_dict(start.model.state_dict())
        threads = set_threads(
            resolved.train.threads, sum(weight.numel() for weight in untrained.parameters())
        )
        precision = choose_precision(resolved.train.precision, device)
        # From here on the recipe states every number, so that the artefact does too.
        task = task.with_train(precision=precision, threads=threads)
        resolved = task.recipe
        identity = {
            "recipe": resolved.digest()[:16],
            "data": task.digest[:16],
            "start": building.weights_digest(start.model)[:16] if start else "fresh",
        }
        if team.rank:
            return _follow(untrained.to(device), task, identity, team)
        with folders.open_run(_title(resolved), identity, resume=resume) as kept:
            folder = kept.folder
            if resume and kept.fresh:
                # What an unfinished run has put there is its own.
                _refuse_overwriting(out, force)
                watcher.notice("No unfinished run of this recipe was found; starting a new one.")
            atomic.write_bytes(folder / "recipe.toml", resolved.to_toml().encode())
            run = Run.start(
                experiment=resolved.tracking.experiment,
                name=folder.name,
                params=_flat(resolved),
                tags={**(tags or {}), "model": resolved.model, "recipe": identity["recipe"]},
                datasets=[task.dataset(context) for context in ("training", "evaluation")],
                folder=folder,
                run_id=kept.run_id,
            )
            kept.note(run.run_id)
            status = "FAILED"
            try:
                team.broadcast(str(folder))
                fitted = _fit(
                    untrained.to(device), task, folder, identity, _Logged(watcher, run), team
                )
                trained = _keep(untrained, task, fitted, folder, run, out)
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
        trained = replace(trained, cost=watch.read())
        team.broadcast(trained)
        return trained


def _follow(model: nn.Module, task: Task, identity: dict[str, str], team: Team) -> Trained:
    """Train along with process 0, which alone writes, scores and speaks."""
    folder = team.broadcast(None)
    _fit(model, task, Path(folder), identity, Silence(), team)
    return team.broadcast(None)


def _fit(
    model: nn.Module,
    task: Task,
    folder: Path,
    identity: dict[str, str],
    watcher: Watcher,
    team: Team,
) -> Fitted | None:
    """Find the weights, by steps or at once; None for a model that has no steps."""
    if MODELS[task.recipe.model].closed_form:
        task.solve(model)
        return None
    return fit(
        model,
        *task.batches(model, fresh=identity["start"] == "fresh"),
        task.recipe.train,
        watcher=watcher,
        team=team,
        checkpoint=Checkpoint(path=folder / "checkpoint.safetensors", identity=identity),
    )


def _keep(
    model: nn.Module,
    task: Task,
    fitted: Fitted | None,
    folder: Path,
    run: Run,
    out: str | Path | None,
) -> Trained:
    """Score the model, and put it, its figures and pictures where they belong."""
    finished = task.finish(model, fitted, folder)
    place = Path(out) if out else folder / "artefact"
    artefact.save(place, finished.forecaster)
    run.log(finished.figures, step=fitted.best_epoch if fitted else 0)
    for path in (*finished.pictures, folder / "recipe.toml"):
        run.artifact(path)
    run.model(place, example=task.example())
    metrics = finished.metrics
    return Trained(
        artefact=place,
        run_id=run.run_id,
        version=None,
        seed=task.recipe.train.seed,
        metrics=metrics,
        beaten_by=comparison.beaten_by(metrics["test"], metrics["baselines"]),
        cost={},
        picture=finished.pictures[0],
        recipe=task.recipe,
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


def _refuse_other_shape(
    start: AnyForecaster, model: str | None, lookback: int | None, horizon: int | None
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


def _sources(resolved: Recipe) -> tuple[str, ...]:
    """Return the files that a recipe's data come from."""
    source = resolved.data.source
    return (source,) if isinstance(source, str) else tuple(source)


def _refuse_overwriting(out: str | Path | None, force: bool) -> None:
    if out and not force and artefact.is_one(Path(out)):
        raise UsageError(
            f"{out} holds a model already, and training would overwrite it.",
            hint="Name another folder with --out, or add --force.",
        )


def _title(resolved: Recipe) -> str:
    source = resolved.source_name.partition(".")[0]
    return f"{source}-{resolved.model}-{resolved.window.horizon}"


def _flat(resolved: Recipe) -> dict[str, Any]:
    return {
        f"{section}.{key}": value
        for section, values in resolved.to_dict().items()
        for key, value in values.items()
        if value is not None and value != ""
    }
