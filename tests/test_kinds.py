"""Every kind of data has what `contracts.Kind` lists, by the names and parameters listed there."""

from __future__ import annotations

import importlib
import inspect

import pytest

from forecast.contracts import Kind, Task
from forecast.kinds import KINDS

TASKS = {"series": "SeriesTask", "grid": "GridTask", "graph": "GraphTask"}


def members(protocol):
    return [name for name in vars(protocol) if not name.startswith("_")]


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_keeps_its_contract(name):
    module = importlib.import_module(KINDS[name])
    for member in members(Kind):
        own, stated = getattr(module, member), getattr(Kind, member)
        wanted = list(inspect.signature(stated).parameters)[1:]
        found = list(inspect.signature(own).parameters)
        assert len(found) >= len([one for one in wanted if one != "options"]), (member, found)


@pytest.mark.parametrize("name", KINDS)
def test_its_task_keeps_the_contract_of_tasks(name):
    task = getattr(importlib.import_module(KINDS[name]), TASKS[name])
    assert not [member for member in members(Task) if not hasattr(task, member)]
