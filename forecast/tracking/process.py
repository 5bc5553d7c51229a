"""Which process a run belongs to, so that a later one can tell that it is dead."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path

HOST, PROCESS = "forecast.host", "forecast.process"


def tags() -> dict[str, str]:
    """Name this machine and this process, as tags of a run."""
    return {HOST: _host(), PROCESS: f"{os.getpid()} {_started(os.getpid())}"}


def is_dead(named: Mapping[str, str]) -> bool:
    """Return whether the process that these tags name has ended; False where unknown."""
    pid, _, started = named.get(PROCESS, "").partition(" ")
    if named.get(HOST) != _host() or not pid.isdigit() or not started:
        return False
    # A number is given again to another process, which began at another time.
    return _started(int(pid)) != started


def _host() -> str:
    """Name the machine since its last start, and the container, whose numbers are its own."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:13])
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts).replace("'", "")


def _started(pid: int) -> str:
    """Return when a process began, in ticks since the machine did; empty if there is none."""
    try:
        # The name of the program, in parentheses, may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return ""
    # Without /proc only that it lives can be known.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "alive"
