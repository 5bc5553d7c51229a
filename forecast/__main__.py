"""Let `python -m forecast` be the command."""

from forecast.cli import main

main()
