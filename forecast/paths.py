"""Where the program keeps what it makes: `$FORECAST_HOME`, `$FORECAST_DATA`, the user's folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import platformdirs

from forecast.errors import DataError, UsageError, from_system


def user_data_directory() -> Path:
    """Return the folder in which this user's programs keep their data."""
    found = Path(platformdirs.user_data_dir())
    # The XDG specification has a relative path ignored.
    return found if found.is_absolute() else Path.home() / ".local" / "share"


def home() -> Path:
    """Return the folder of the default store, of its artifacts and of runs; it need not exist.

    Raises:
        UsageError: `FORECAST_HOME` is no path.
    """
    return _stated("FORECAST_HOME") or user_data_directory() / "forecast"


def data_root() -> Path:
    """Return the folder under which data sets lie; it need not exist yet.

    Raises:
        UsageError: `FORECAST_DATA` is no path.
    """
    if stated := _stated("FORECAST_DATA"):
        return stated
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file() and (checkout / "datasets").is_dir():
        return checkout / "datasets"
    return user_data_directory() / "forecast" / "datasets"


def home_folder(*parts: str) -> Path:
    """Make a folder at home, and see that it can be written to, before anything rests on it.

    Raises:
        DataError: it cannot.
    """
    folder = home().joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        fault = from_system(error, folder)
        raise DataError(
            f"Runs are kept under {home()}, and that cannot be written to. "
            f"{fault.message if fault else error}",
            hint="Set FORECAST_HOME to a folder that can.",
        ) from error
    return folder


def _stated(variable: str) -> Path | None:
    text = os.environ.get(variable)
    if not text:
        return None
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise UsageError(
            f"{variable} is {text!r}, and there is no such user.", hint="Name a folder in full."
        ) from error
