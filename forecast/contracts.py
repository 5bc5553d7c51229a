"""Contracts between the kinds of data and what trains, scores, keeps and tracks them.

A kind (`series`, `grids`, `graphs`) is a module that has what `Kind` lists. It opens a recipe as a
`Task`, which holds the data and ends as `Finished`, with an `AnyForecaster` in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from forecast.batch import AnySpec, Batches
from forecast.errors import DataError, UsageError
from forecast.recipe import Recipe
from forecast.training.loop import Fitted

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import xarray


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo:
    """Data that a run has used, for its lineage.

    Attributes:
        name: name of the data set.
        source: path or address it came from.
        digest: hash of its content.
        rows: rows it has.
        columns: names of its numeric columns.
        context: what it was used for: `training`, `validation`, `evaluation`.
    """

    name: str
    source: str
    digest: str
    rows: int
    columns: tuple[str, ...]
    context: str = "training"


class AnyForecaster(Protocol):
    """A trained forecaster of any kind: the model with all that forecasting with it needs."""

    @property
    def model(self) -> nn.Module:
        """The model, in evaluation mode, on the CPU after loading."""
        ...

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe that it was trained by."""
        ...

    @property
    def spec(self) -> AnySpec:
        """Shape of its task."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what is forecast."""
        ...

    @property
    def data(self) -> dict[str, Any]:
        """Name, digest and size of the training data."""
        ...

    @property
    def metrics(self) -> dict[str, Any]:
        """Scores measured when it was trained."""
        ...

    def arrays(self) -> dict[str, Tensor]:
        """Tensors to keep beside the weights."""
        ...

    def files(self) -> dict[str, bytes]:
        """Files to keep beside the tensors."""
        ...

    def described(self) -> dict[str, Any]:
        """Plain values to keep of the data that it was trained on."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """Result of a training, scored.

    Attributes:
        forecaster: the model with all that forecasting needs, its metrics among it.
        metrics: `protocol`, `test` and `baselines`, each with the measure that
            `comparison.primary_measure` names, and `validation`.
        figures: the numbers among them, flat and by the names that the tracking server charts.
        pictures: files in the run's folder; the first is the one to show.
    """

    forecaster: AnyForecaster
    metrics: dict[str, Any]
    figures: dict[str, float]
    pictures: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How a backtest divides the data.

    Attributes:
        windows: number of test windows, which end with the data and touch each other.
        step: rows or frames of each window.
        gap: rows between what a model has seen and the first that it is scored on.
        rolling: every window trains on as many rows as the first one, not on all before it.
    """

    windows: int
    step: int
    gap: int = 0
    rolling: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """One window of a backtest.

    Attributes:
        recipe: the recipe whose test part is the window.
        start: the time of its first row.
        stop: the time of its last row.
    """

    recipe: Recipe
    start: str
    stop: str


class Task(Protocol):
    """A recipe with its data read, divided and scaled."""

    @property
    def recipe(self) -> Recipe:
        """The recipe, with no value left open."""
        ...

    @property
    def spec(self) -> AnySpec:
        """Shape of the task, from which a model is built."""
        ...

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Tensors that a model is made with beside its config and the spec."""
        ...

    @property
    def digest(self) -> str:
        """Digest of the content of the data."""
        ...

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences for the user."""
        ...

    def with_train(self, **train: Any) -> Task:
        """Return the task with fields of the recipe's training section set."""
        ...

    def dataset(self, context: str) -> DatasetInfo:
        """Return the data that a run used, for its lineage."""
        ...

    def batches(self, model: nn.Module, *, fresh: bool) -> tuple[Batches[Any], Batches[Any]]:
        """Prepare a model for training by steps; return training and validation batches.

        Args:
            model: the model.
            fresh: whether its weights are still those it was made with.
        """
        ...

    def solve(self, model: nn.Module) -> None:
        """Find the weights of a model that has a closed form."""
        ...

    def finish(self, model: nn.Module, fitted: Fitted | None, folder: Path) -> Finished:
        """Score a model once on the test part, beside the baselines; draw and keep it.

        Args:
            model: the model with its best weights.
            fitted: how training by steps ended; None for a closed form.
            folder: for the pictures.
        """
        ...

    def example(self) -> pd.DataFrame | None:
        """Return some rows of input for the registry to show; None where input is no table."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Arguments of `predict_files`.

    Attributes:
        inputs: files, patterns, known data sets, folders, addresses, - for standard input.
        out: a file or a folder; None is standard output.
        device: where to run.
        tell: takes sentences for the user.
        date_format: of times in the inputs.
        timezone: of times in the inputs.
        fill: what becomes of missing cells.
        settings: further ways to read a table, `data.key=value`.
        history: a file of rows before those of the inputs.
        future: a file of what is known in advance.
        level: levels of prediction intervals [%].
        intervals: how they are calibrated, `adaptive` or `split`.
        resume: go on with a killed job; all inputs are one long table.
        safe_ids: whether no id in text may begin like a formula.
        at: the time at which links and shares are asked for.
        top: destinations to name for each source; None takes the default.
        sources: ids to ask about; None asks about all.
    """

    inputs: tuple[str, ...]
    out: Path | None
    device: str = "auto"
    tell: Callable[[str], object] = lambda _: None
    date_format: str | None = None
    timezone: str | None = None
    fill: str | None = None
    settings: tuple[str, ...] | None = None
    history: str | None = None
    future: str | None = None
    level: tuple[float, ...] | None = None
    intervals: str = "adaptive"
    resume: bool = False
    safe_ids: bool = False
    at: str | None = None
    top: int | None = None
    sources: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """Result of `predict_files`.

    Attributes:
        summary: in plain types, as `forecast predict --json` prints it.
        lacking: what could not be forecast while the rest was, in sentences; empty if all was.
    """

    summary: dict[str, Any]
    lacking: str = ""


class Kind(Protocol):
    """What the module of a kind of data has.

    Attributes:
        NOUN: what its data are called in messages.
        OPTIONS: the fields of a `Request` that are for it, beside those for all.
    """

    NOUN: str
    OPTIONS: frozenset[str]

    def continued(self, resolved: Recipe, start: AnyForecaster) -> Recipe:
        """Return a recipe with the shape of the forecaster that its training starts from."""
        ...

    def open_task(
        self, resolved: Recipe, start: AnyForecaster | None, device: torch.device
    ) -> Task:
        """Read the data of a recipe."""
        ...

    def evaluate(
        self,
        forecaster: AnyForecaster,
        source: str | tuple[str, ...] | None,
        device: str,
        recipe: Recipe | None = None,
        *,
        cold: bool = False,
    ) -> dict[str, Any]:
        """Score a forecaster."""
        ...

    def window_length(self, resolved: Recipe, step: int | None, ahead: int | None) -> int:
        """Length of a backtest's window in rows, frames or events, the horizon if not given."""
        ...

    def folds(self, resolved: Recipe, plan: Plan) -> list[Fold]:
        """Divide the data anew for each window of a backtest."""
        ...

    def predict(
        self, forecaster: AnyForecaster, source: Any, device: str, **options: Any
    ) -> pl.DataFrame | xarray.Dataset:
        """Forecast what follows."""
        ...

    def predict_files(self, forecaster: Any, request: Request) -> Written:
        """Forecast files into files."""
        ...

    def predict_frame(
        self, forecaster: Any, frame: pl.DataFrame, *, level: Sequence[float] | None = None
    ) -> pl.DataFrame:
        """Forecast a frame in memory, as the model server does; of grids one row for a cell.

        Args:
            forecaster: the forecaster.
            frame: what is known.
            level: levels of prediction intervals [%], of series alone.
        """
        ...

    def restore(
        self,
        resolved: Recipe,
        weights: dict[str, Tensor],
        arrays: dict[str, Tensor],
        kept: dict[str, Any],
        files: dict[str, bytes],
    ) -> AnyForecaster:
        """Build a forecaster from the contents of an artefact."""
        ...


def refuse_cold(forecaster: AnyForecaster) -> None:
    """Refuse `--cold` for a model without a carried state."""
    raise UsageError(
        f"{forecaster.recipe.model} carries no state that --cold could leave out.",
        hint="Leave --cold out.",
    )


def window_length(step: int | None, ahead: int | None) -> int:
    """Length of a backtest's window in rows: `step`, or as far as is forecast.

    Args:
        step: as asked for.
        ahead: the horizon, as far as it is known.

    Raises:
        UsageError: neither is given, or the window holds no forecast.
    """
    length = step or ahead
    if length is None:
        raise UsageError(
            "The length of a window is open: neither --step nor a horizon is given.",
            hint="Say how far to forecast: --horizon 24",
        )
    if ahead and length < ahead:
        raise UsageError(
            f"A window of {length} rows holds no forecast of {ahead}.",
            hint=f"Take --step {ahead} or more.",
        )
    return length


def too_short(count: int, what: str, plan: Plan, validation: int) -> DataError:
    """Return the error that data are too short for a backtest."""
    return DataError(
        f"{count:,} {what} do not hold {plan.windows} windows of {plan.step}"
        + (f", a gap of {plan.gap}" if plan.gap else "")
        + f" and {validation:,} {what} of validation, with any to train on.",
        hint="Ask for fewer or shorter windows: --windows, --step.",
    )


def refuse_changed(forecaster: AnyForecaster, digest: str) -> None:
    """Refuse data other than those that a forecaster was trained on.

    Args:
        forecaster: the forecaster.
        digest: names, by their content, the data found there now.

    Raises:
        DataError: they have changed.
    """
    trained_on = forecaster.data
    if digest != trained_on["digest"]:
        raise DataError(
            f"{trained_on['source']} has changed since training: the digest of its content was "
            f"{trained_on['digest']} and is {digest}.",
            hint="Name the file as an argument to score it as new data.",
        )


def refuse_level(level: Sequence[float] | None) -> None:
    """Refuse levels of intervals where there are none.

    Raises:
        UsageError: some are asked for.
    """
    if level:
        raise UsageError(
            "This forecaster has no prediction intervals; those of series alone have.",
            hint="Leave `level` out.",
        )
