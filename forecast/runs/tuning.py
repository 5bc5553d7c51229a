"""Tuning: settings searched for on the validation part; the test part is never looked at.

A trial is a training cut short when it is worse than half of the others at the same epoch. Trials
are kept in a file, so that a search that was stopped goes on, and several processes may share one.

```
$FORECAST_HOME/tuning/3f2a9c.../
  trials.db      every trial, as Optuna keeps them
  best.toml      the recipe of the best trial so far
```
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from forecast import atomic, kinds
from forecast.contracts import Task
from forecast.device import choose_device, choose_precision, set_threads
from forecast.errors import DataError, ForecastError, UsageError
from forecast.locks import exclusive
from forecast.models import MODELS, building
from forecast.paths import home_folder
from forecast.recipe import Recipe
from forecast.runs import search_space
from forecast.runs.search_space import Search
from forecast.tracking import Run
from forecast.training.loop import Interrupted, Silence, Watcher, fit

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

_STARTUP_TRIALS = 5
# The lock of the file of trials, and seconds to wait for it: it is held for moments.
_LOCK, _PATIENCE = ".lock", 120.0
# Seconds between looks at trials that other processes have under way.
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """Result of a search.

    Attributes:
        recipe: file of the best recipe.
        settings: what the best trial chose.
        loss: its validation loss.
        default_loss: that of the recipe as it was, the first trial.
        trials: number of trials in the file, those of earlier calls included.
        pruned: how many of them were cut short.
    """

    recipe: Path
    settings: dict[str, Any]
    loss: float
    default_loss: float | None
    trials: int
    pruned: int


class Stopped(ForecastError):  # noqa: N818 - it is no error of the search
    """Report that a search was stopped; its finished trials are kept."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__(
            "Stopped; the finished trials are kept.", hint="Give the command again to go on."
        )


def tune(
    resolved: Recipe,
    searches: Sequence[Search],
    *,
    trials: int = 20,
    seconds: float | None = None,
    watcher: Watcher | None = None,
) -> Tuned:
    """Search settings by the validation loss; the first trial is the recipe as it stands.

    Args:
        resolved: the recipe.
        searches: what may change.
        trials: trials in all, those kept from earlier calls included.
        seconds: stop beginning new ones after so long.
        watcher: is told how it goes.

    Raises:
        UsageError: Optuna is not installed, a setting is unknown, or the model has no steps.
    """
    optuna = _optuna()
    watcher = watcher or Silence()
    if MODELS[resolved.model].closed_form:
        raise UsageError(f"{resolved.model} is solved for at once and has nothing to tune.")
    search_space.check(resolved, searches)
    searches = [search_space.with_own(search, resolved) for search in searches]
    named = json.dumps([resolved.digest(), [repr(search) for search in searches]])
    folder = home_folder("tuning", hashlib.sha256(named.encode()).hexdigest()[:12])
    study = _open_study(resolved, searches, folder)
    states = optuna.trial.TrialState
    done = len(study.get_trials(states=(states.COMPLETE, states.PRUNED)))
    if done:
        watcher.notice(f"Going on with {done} trials that are done already.")
    parent = Run.start(
        experiment=resolved.tracking.experiment,
        name=f"tune-{resolved.source_name}-{resolved.model}",
        params={search.key: repr(search) for search in searches},
        tags={"model": resolved.model, "tuning": str(folder)},
        datasets=[],
        folder=folder,
    )
    status = "FAILED"
    cache: dict[str, Task] = {}
    try:
        deadline = None if seconds is None else time.monotonic() + seconds
        while deadline is None or time.monotonic() < deadline:
            with ExitStack() as held:
                trial = _next_trial(study, trials, folder, held)
                if trial is None and not study.get_trials(deepcopy=False, states=(states.RUNNING,)):
                    break
                if trial is None:
                    # Others are at the last ones; if one of them is killed, its trial is ours.
                    time.sleep(_LOOK_SECONDS)
                    continue
                _carry_out(
                    study,
                    trial,
                    lambda trial: _trial(
                        trial, resolved, searches, parent.run_id, folder, cache, watcher
                    ),
                )
            with exclusive(folder / _LOCK, "this search", _PATIENCE):
                _keep_best(study, resolved, searches, folder)
        # Also where the one that found the best was killed before it could write it down.
        with exclusive(folder / _LOCK, "this search", _PATIENCE):
            _keep_best(study, resolved, searches, folder)
        status = "FINISHED"
    except (Interrupted, KeyboardInterrupt) as error:
        status = "KILLED"
        raise Stopped from error
    finally:
        parent.finish(status)
    complete = study.get_trials(states=(states.COMPLETE,))
    if not complete:
        raise UsageError(
            "No trial was completed: there was no time for one, or all were cut short.",
            hint="Give it more --trials or --seconds, or search smaller ranges.",
        )
    best = study.best_trial
    as_it_stands = search_space.as_it_stands(resolved, searches)
    first = next((trial for trial in complete if trial.params == as_it_stands), None)
    assert best.value is not None
    return Tuned(
        recipe=folder / "best.toml",
        settings=search_space.chosen(best.params, searches),
        loss=best.value,
        default_loss=first.value if first else None,
        trials=len(complete) + len(study.get_trials(states=(states.PRUNED,))),
        pruned=len(study.get_trials(states=(states.PRUNED,))),
    )


def _open_study(resolved: Recipe, searches: Sequence[Search], folder: Path) -> Study:
    """Open the file of trials; one process at a time, for the first one makes its tables."""
    optuna = _optuna()
    with exclusive(folder / _LOCK, "this search", _PATIENCE):
        study: Study = optuna.create_study(
            storage=f"sqlite:///{folder / 'trials.db'}",
            study_name=resolved.model,
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(
                seed=resolved.train.seed, n_startup_trials=_STARTUP_TRIALS
            ),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS, n_warmup_steps=1),
        )
        if not study.get_trials():
            study.enqueue_trial(search_space.as_it_stands(resolved, searches))
    return study


def _next_trial(study: Study, trials: int, folder: Path, held: ExitStack) -> Trial | None:
    """Begin the next trial and hold it, unless as many as wanted are done or under way elsewhere.

    A trial whose process was killed is set to failed, and its settings are tried again.
    """
    states = _optuna().trial.TrialState
    with exclusive(folder / _LOCK, "this search", _PATIENCE):
        for lost in study.get_trials(states=(states.RUNNING,)):
            try:
                with exclusive(_lock_of(folder, lost.number), "the trial"):
                    study.tell(lost.number, state=states.FAIL)
            except ForecastError:
                continue  # another process is at it
            _try_again(study, lost)
            _lock_of(folder, lost.number).unlink(missing_ok=True)
        taken = study.get_trials(states=(states.COMPLETE, states.PRUNED, states.RUNNING))
        if len(taken) >= trials:
            return None
        trial = study.ask()
        held.enter_context(exclusive(_lock_of(folder, trial.number), "the trial"))
        return trial


def _try_again(study: Study, lost: FrozenTrial) -> None:
    # What it was to be told, if it was killed before it asked for all of it.
    settings = lost.system_attrs.get("fixed_params", {}) | lost.params
    if settings:
        study.enqueue_trial(settings)


def _lock_of(folder: Path, number: int) -> Path:
    return folder / f".trial-{number}.lock"


def _carry_out(study: Study, trial: Trial, objective: Callable[[Trial], float]) -> None:
    """Run a trial and record how it ended."""
    optuna = _optuna()
    states = optuna.trial.TrialState
    try:
        value = objective(trial)
    except optuna.TrialPruned:
        study.tell(trial, state=states.PRUNED)
    except BaseException:
        study.tell(trial, state=states.FAIL)
        # Stopped or failed, not judged: the next call tries it again.
        _try_again(study, study.get_trials()[trial.number])
        raise
    else:
        study.tell(trial, value)


def _trial(
    trial: Trial,
    resolved: Recipe,
    searches: Sequence[Search],
    parent: str | None,
    folder: Path,
    cache: dict[str, Task],
    watcher: Watcher,
) -> float:
    """Train once and return the best validation loss."""
    optuna = _optuna()
    chosen = {search.key: search.suggest(trial) for search in searches}
    try:
        own = search_space.apply(resolved, chosen)
    except UsageError as error:
        # Such as a width that the number of heads does not divide.
        watcher.notice(f"trial {trial.number}: {error}")
        raise optuna.TrialPruned from error
    device = choose_device(MODELS[own.model].device(own.train.device))
    key = json.dumps([own.to_dict()["data"], own.to_dict()["window"]], sort_keys=True)
    try:
        task = cache.get(key) or kinds.open_task(own, None, device)
        cache[key] = task
        if MODELS[own.model].own_batches:
            # A step of a graph has as many queries as the task says.
            own = own.replace("train", batch_size=task.recipe.train.batch_size)
        torch.manual_seed(own.train.seed)
        model = building.build(own.model, own.model_config, task.spec, **task.inputs).to(device)
    except (UsageError, DataError) as error:
        watcher.notice(f"trial {trial.number}: {error}")
        raise optuna.TrialPruned from error
    set_threads(own.train.threads, sum(weight.numel() for weight in model.parameters()))
    words = ", ".join(f"{name}={_short(value)}" for name, value in chosen.items())
    watcher.notice(f"trial {trial.number}: {words}")
    run = Run.start(
        experiment=own.tracking.experiment,
        name=f"trial-{trial.number}",
        params=chosen,
        tags={"model": own.model} | ({"mlflow.parentRunId": parent} if parent else {}),
        datasets=[],
        folder=folder,
    )
    status = "FAILED"
    try:
        fitted = fit(
            model,
            *task.batches(model, fresh=True),
            replace(own.train, precision=choose_precision(own.train.precision, device)),
            watcher=_Reporting(trial, watcher),
        )
        run.log({"best_val_loss": fitted.best_loss}, step=fitted.best_epoch)
        status = "FINISHED"
        return fitted.best_loss
    except optuna.TrialPruned:
        status = "FINISHED"
        raise
    except UsageError as error:
        # A loss that is no longer finite, or memory that ran out: a bad choice of settings.
        watcher.notice(f"trial {trial.number}: {error}")
        raise optuna.TrialPruned from error
    finally:
        run.finish(status)


@dataclass(frozen=True, slots=True)
class _Reporting:
    """Report the validation loss of each epoch to a trial, and end it when it falls behind."""

    trial: Trial
    watcher: Watcher

    def begin(self, epochs: int, steps: int) -> None:
        self.watcher.begin(epochs, steps)

    def step(self, epoch: int, step: int, loss: float) -> None:
        self.watcher.step(epoch, step, loss)

    def epoch(self, row: dict[str, float]) -> None:
        self.watcher.epoch(row)
        self.trial.report(row["val_loss"], int(row["epoch"]))
        if self.trial.should_prune():
            raise _optuna().TrialPruned

    def notice(self, text: str) -> None:
        self.watcher.notice(text)


def _keep_best(study: Study, resolved: Recipe, searches: Sequence[Search], folder: Path) -> None:
    try:
        best = study.best_trial
    except ValueError:
        return  # none is complete yet
    own = search_space.apply(resolved, search_space.chosen(best.params, searches))
    source = own.data.source
    # The recipe lies elsewhere, and its paths are meant from there.
    if isinstance(source, str):
        own = own.replace("data", source=_absolute(source))
    else:
        own = own.replace("data", source=tuple(map(_absolute, source)))
    text = f"# Validation loss {best.value:.6g}, trial {best.number} of {len(study.trials)}.\n\n"
    atomic.write_bytes(folder / "best.toml", (text + own.to_toml()).encode())


def _absolute(source: str) -> str:
    there = Path(source).exists() or (glob.has_magic(source) and glob.glob(source))
    return os.path.abspath(source) if there else source


def _optuna() -> Any:
    try:
        import optuna  # noqa: PLC0415
    except ImportError:
        raise UsageError(
            "Tuning needs Optuna, which is not installed.",
            hint="Install it: pip install 'forecast[tune]'",
        ) from None
    optuna.logging.set_verbosity(logging.ERROR)
    return optuna


def _short(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.3g}"
    return str(value)
