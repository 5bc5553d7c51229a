"""Runs, models and the registry in MLflow: everything that knows MLflow is in this package.

Importing it does not import MLflow, which takes a second; the first call that needs a store does.
"""

from forecast.tracking.model import check_names
from forecast.tracking.registry import add, promote, replay, resolve, rows, show
from forecast.tracking.run import Run
from forecast.tracking.search import Group, TrackedRun, grouped, tracked_runs
from forecast.tracking.store import home, prepare, tracking_uri

__all__ = [
    "Group",
    "Run",
    "TrackedRun",
    "add",
    "check_names",
    "grouped",
    "home",
    "prepare",
    "promote",
    "replay",
    "resolve",
    "rows",
    "show",
    "tracked_runs",
    "tracking_uri",
]
