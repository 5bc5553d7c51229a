"""The command line: each command parses, calls one function and prints.

No command imports anything heavy before it runs, so that `forecast --help` starts at once.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from types import FrameType
from typing import Annotated

import click
import typer

import forecast
from forecast.cli import (
    backtest,
    baselines,
    benchmark,
    compare,
    console,
    datasets,
    doctor,
    evaluate,
    init,
    models,
    predict,
    registry,
    stream,
    train,
    tune,
)
from forecast.errors import ForecastError, from_system

# The interruptions of the command that runs.
_STOPPED: list[int] = []

_RUN, _KNOW = "Forecast", "Know what there is"

app = typer.Typer(
    name="forecast",
    help="Train, compare, register and run transformer forecasters.",
    epilog="Start with:  forecast train metro-traffic   or   forecast init YOUR.csv",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command(rich_help_panel=_RUN)(init.init)
app.command(rich_help_panel=_RUN)(train.train)
app.command(rich_help_panel=_RUN)(evaluate.evaluate)
app.command(rich_help_panel=_RUN)(predict.predict)
app.command(rich_help_panel=_RUN)(stream.stream)
app.command(rich_help_panel=_RUN)(baselines.baselines)
app.command(rich_help_panel=_RUN)(backtest.backtest)
app.command(rich_help_panel=_RUN)(compare.compare)
app.command(rich_help_panel=_RUN)(benchmark.benchmark)
app.command(rich_help_panel=_RUN)(tune.tune)
app.add_typer(datasets.app, name="datasets", rich_help_panel=_KNOW)
app.add_typer(models.app, name="models", rich_help_panel=_KNOW)
app.add_typer(registry.app, name="registry", rich_help_panel=_KNOW)
app.command(rich_help_panel=_KNOW)(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        console.answer(f"forecast {forecast.__version__}")
        raise typer.Exit


@app.callback()
def _root(  # pyright: ignore[reportUnusedFunction]
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and end the process with its exit code."""
    # Idle OpenMP threads that spin double the CPU time of small models.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGINT, _interrupted)
    warnings.showwarning = _warned
    code = run(sys.argv[1:])
    # What is left to do is to end, and a Ctrl-C has nothing more to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(console.end(code))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; errors are printed as one panel on stderr."""
    _STOPPED.clear()
    try:
        code = app(arguments, prog_name="forecast", standalone_mode=False) or 0
    except ForecastError as error:
        console.panel(error.message, error.hint)
        return error.exit_code
    except SystemExit as exit_:
        # Typer makes an exit of 1 of a reader that has seen enough, such as `head`.
        if isinstance(exit_.__context__, BrokenPipeError):
            console.hush()
            return 0
        return exit_.code if isinstance(exit_.code, int) else 1
    except BaseException as error:  # noqa: BLE001 - the last resort: no traceback reaches a user
        return _unexpected(error)
    # Typer makes an exit with this code of an interruption.
    return _stopped() if code == 130 else code


def _stopped() -> int:
    console.panel("Stopped by Ctrl-C.", title="Stopped")
    return 130


def _unexpected(error: BaseException) -> int:
    # Libraries make errors of their own of an interruption, and Typer an abort.
    if _STOPPED or isinstance(error, KeyboardInterrupt | click.Abort):
        return _stopped()
    if isinstance(error, BrokenPipeError):
        console.hush()
        return 0
    show = getattr(error, "show", None)
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        # Typer's own: a usage error shows itself, an abort or exit has nothing to show.
        if show:
            show()
        return code
    fault = from_system(error)
    if fault is not None and not os.environ.get("FORECAST_DEBUG"):
        console.panel(fault.message, fault.hint)
        return fault.exit_code
    if os.environ.get("FORECAST_DEBUG"):
        traceback.print_exc()
        return 1
    console.panel(
        f"{type(error).__name__}: {error}",
        "This is a fault of the program. FORECAST_DEBUG=1 before the command prints where it "
        "happened; please report that.",
        title="Internal error",
    )
    return 1


def _warned(message: Warning | str, *rest: object) -> None:
    console.notice(f"Warning: {message}")


def _interrupted(number: int, frame: FrameType | None) -> None:
    _STOPPED.append(number)
    raise KeyboardInterrupt


def _terminated(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
