"""The needle tasks are what they say: rows counted by hand; distances are whole patches."""

from __future__ import annotations

import runpy
from pathlib import Path

import torch

FILE = Path(__file__).parent.parent / "benchmarks" / "needles.py"


def test_the_tasks_are_what_they_say() -> None:
    runpy.run_path(str(FILE))["check"]()


def test_a_needle_returns_at_the_border_of_a_patch_and_no_farther_than_trained() -> None:
    names = runpy.run_path(str(FILE))
    random = torch.Generator().manual_seed(0)
    for patch in names["PATCH"].values():
        drawn = [names["draw"](*names["FAR"], patch, random) for _ in range(2_000)]
        assert min(drawn) == 64
        assert max(drawn) == 1_024
        assert not any(distance % patch for distance in drawn)


def test_a_query_begins_as_the_key_of_the_same_patch_after_any_background() -> None:
    names = runpy.run_path(str(FILE))
    model = names["build"]("event", 0)
    seen = []
    memory = model.blocks[1].memory

    def read(layer, inputs, _) -> None:
        tokens, known, state = inputs
        q, k, _, _ = layer._project(layer.norm(tokens), known, state["ring"])
        # The motif's first half is token 12; it returns in the last one.
        seen.append((q[:, 0, -1] * k[:, 0, 12]).sum(1))

    memory.register_forward_hook(read)
    trials = names["event"](20, 128, torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.run(names["batch"](trials.past), kept=1)
    assert float(seen[0].min()) > 0.9
