"""The command, also as `python -m forecast`; stopped by Ctrl-C it says so, however early."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and end the process with its exit code."""
    try:
        # Here, so that an interruption while it loads is caught too.
        from forecast.cli import main as run  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.stderr.write("Stopped:\n| Stopped by Ctrl-C.\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
