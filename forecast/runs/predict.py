"""Forecast files into files, of any kind of data, here or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from forecast import engines, kinds, outputs
from forecast.contracts import AnyForecaster, Request, Written
from forecast.device import set_threads
from forecast.errors import UsageError
from forecast.tracking.loading import load

# Options whose names differ from those of the fields, as messages call them.
_FLAGS = {"settings": "--set", "top": "--top-k", "sources": "--source"}
_GENERAL = {"inputs", "out", "device", "tell"}


def predict_files(
    model: str | Path | AnyForecaster,
    inputs: str | Path | Sequence[str | Path] = (),
    out: str | Path | None = None,
    *,
    engine: str | None = None,
    places: int = 8,
    device: str = "auto",
    tell: Callable[[str], object] = lambda _: None,
    **options: Any,
) -> Written:
    """Forecast what follows the last row, frame or event of files, and write it.

    Args:
        model: a forecaster, or where it is: a folder, `runs:/...` or `models:/name@alias`.
        inputs: files, patterns, known data sets, folders or addresses; - is standard input.
        out: a file or a folder; None writes CSV to standard output.
        engine: `ray` or `spark` forecast a long table in Parquet on a cluster; `out` is a new
            folder.
        places: places that an engine deals series out to.
        device: where to run.
        tell: takes sentences for the user.
        options: the other fields of `contracts.Request`: of tables `date_format`, `timezone`,
            `fill`, `history`, `future`, `level`, `intervals`, `resume`, `safe_ids`; of graphs `at`,
            `top`, `sources`.

    Returns:
        What was written, and what could not be forecast.

    Raises:
        ForecastError: the model, an option or an input cannot be used.
    """
    named = (inputs,) if isinstance(inputs, str | Path) else tuple(inputs)
    request = Request(
        inputs=tuple(str(one) for one in named),
        out=None if out is None else _place(out),
        device=device,
        tell=tell,
        **{name: _frozen(value) for name, value in options.items()},
    )
    if engine is not None:
        _refuse_others(request, {"level"}, "does not go with --engine")
        return _on_engine(engine, model, request, places)
    forecaster = load(model) if isinstance(model, str | Path) else model
    kind = kinds.of(forecaster.recipe.model)
    for name in _given(request) - kind.OPTIONS:
        owner = next(one for one in kinds.all_kinds() if name in one.OPTIONS)
        raise UsageError(
            f"{_flag(name)} is for {owner.NOUN}, and this model forecasts {kind.NOUN}.",
            hint=f"Leave {_flag(name)} out.",
        )
    set_threads(forecaster.recipe.train.threads)
    return kind.predict_files(forecaster, request)


def _place(out: str | Path) -> Path:
    # A slash behind a name says that it is a folder, and a path forgets it.
    path = Path(out)
    if str(out).endswith("/") and not path.exists():
        outputs.check_folder(path)
        path.mkdir(parents=True)
    return path


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _given(request: Request) -> set[str]:
    """Name the options that were set."""
    return {
        field.name
        for field in fields(Request)
        if field.name not in _GENERAL and getattr(request, field.name) != field.default
    }


def _flag(name: str) -> str:
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")


def _refuse_others(request: Request, allowed: set[str], why: str) -> None:
    for name in sorted(_given(request) - allowed):
        raise UsageError(f"{_flag(name)} {why}.", hint=f"Leave {_flag(name)} out.")


def _on_engine(
    engine: str, model: str | Path | AnyForecaster, request: Request, places: int
) -> Written:
    if not isinstance(model, str | Path):
        raise UsageError(
            "An engine loads the model on every machine.", hint="Name its folder or address."
        )
    if request.out is None:
        raise UsageError(
            "A table that is read in pieces is forecast in parts, and they need a place.",
            hint="Name a file or a folder: --out forecasts/",
        )
    outputs.check_folder(request.out, request.inputs)
    done = engines.predict_files(
        str(model), request.inputs, request.out, engine=engine, level=request.level, places=places
    )
    speed = done.rows / max(done.seconds, 1e-9)
    request.tell(
        f"{done.rows:,} rows written to {done.out}: {engine} was up after "
        f"{done.start_seconds:.1f} s, then {done.seconds:.1f} s, {speed:,.0f} rows/s."
    )
    lacking = ""
    if done.failed:
        name, reason = done.failed[0]
        lacking = f"{len(done.failed):,} series have no forecast. The first is {name!r}: {reason}"
    return Written(
        summary={
            "engine": engine,
            "output": str(done.out),
            "rows": done.rows,
            "failed": [{"id": name, "reason": reason} for name, reason in done.failed],
            "start_seconds": round(done.start_seconds, 2),
            "seconds": round(done.seconds, 2),
        },
        lacking=lacking,
    )
