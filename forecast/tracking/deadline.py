"""Calls to a server that end in stated time, whatever the server does.

A socket's timeout starts anew with every byte, so a server that sends one every few seconds keeps
a caller for ever. Here the whole call has a deadline; a call that misses it is left to a thread
that ends with the process, and the caller goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from forecast.errors import ForecastError

P = ParamSpec("P")
T = TypeVar("T")

# Of one question to a server [s].
CALL_SECONDS = 12.0
# What an upload must reach at least [B/s]; its time is added to that of a question.
SLOWEST = 100_000
# A download that has not grown for so long is given up [s].
STALL_SECONDS = 60.0
# Names of the client's methods that send a file or a folder, their path behind the id.
_UPLOADS = ("log_artifact", "log_artifacts", "log_model_artifacts")


class DeadlineError(ForecastError):
    """Report a server that has not answered in time."""


def within(
    seconds: float, what: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call a function, for so long at most.

    Args:
        seconds: the deadline.
        what: who is asked, as the message calls it.
        function: is called in a thread of its own.
        args: of the function.
        kwargs: of the function.

    Raises:
        DeadlineError: it has not returned in time; the thread goes on, and nobody listens to it.
    """
    call = _Call(function, *args, **kwargs)
    if not call.ended(seconds):
        raise _late(what, seconds)
    return call.result()


def while_growing(
    size: Callable[[], int], what: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call a function for as long as what it fetches grows.

    Args:
        size: what has come so far [B]; asked from time to time.
        what: who is asked, as the message calls it.
        function: is called in a thread of its own.
        args: of the function.
        kwargs: of the function.

    Raises:
        DeadlineError: nothing has come for `STALL_SECONDS`.
    """
    call, before = _Call(function, *args, **kwargs), -1
    while not call.ended(STALL_SECONDS):
        now = size()
        # Some bytes a minute are no download either.
        if now < before + SLOWEST:
            raise _late(what, STALL_SECONDS)
        before = now
    return call.result()


class Limited:
    """Stand before a client and give each of its calls a deadline.

    Args:
        client: whose methods are called.
        what: who is asked, as the message calls it.
    """

    def __init__(self, client: Any, what: str) -> None:
        self._client, self._what = client, what

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            seconds = CALL_SECONDS
            if name in _UPLOADS:
                seconds += _size(Path(args[1])) / SLOWEST
            return within(seconds, self._what, found, *args, **kwargs)

        return call


class _Call:
    """Run a function in a thread that does not keep the process alive."""

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._value: Any = None
        self._error: BaseException | None = None

        def run() -> None:
            try:
                self._value = function(*args, **kwargs)
            # Raised again where the result is asked for.
            except BaseException as error:  # noqa: BLE001
                self._error = error

        self._thread = threading.Thread(target=run, name="tracking-call", daemon=True)
        self._thread.start()

    def ended(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _late(what: str, seconds: float) -> DeadlineError:
    return DeadlineError(
        f"{what} has not answered within {seconds:.0f} s.",
        hint="See whether it is overloaded, or set MLFLOW_TRACKING_URI to another store.",
    )
