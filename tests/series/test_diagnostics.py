"""What is told of a memory that learns: its errors as they are met, and rates and ranks known."""

from __future__ import annotations

import math

import pytest
import torch

from forecast.batch import Spec
from forecast.batch.windows import Series, Windows
from forecast.models.lmuformer.model import LMUFormer, LMUFormerConfig
from forecast.models.titans.layers import Memory, Readings, Tokens
from forecast.models.titans.model import Titans, TitansConfig
from forecast.series.memory_report import figures, readings


@pytest.mark.parametrize("target", ["next", "self"])
@pytest.mark.parametrize(("kind", "momentum"), [("linear", 0), ("linear", 1), ("deep", 1)])
@torch.no_grad()
def test_the_surprise_of_a_token_is_the_error_that_it_is_written_by(target, kind, momentum):
    torch.manual_seed(0)
    layer = Memory(8, heads=2, momentum=bool(momentum), target=target, kind=kind).double()
    tokens = torch.randn(1, 9, 8, dtype=torch.float64)
    known = Tokens.at(torch.arange(9).view(1, 9), torch.ones(1, 9, dtype=torch.bool))
    state = {
        name: torch.randn(1, *size, dtype=torch.float64) for name, size in layer.sizes().items()
    }
    found = layer.readings(tokens, known, state)
    errors = []
    for token in range(9):
        some, own = tokens[:, token : token + 1], known.part(slice(token, token + 1))
        _, k, v, _ = layer._written(layer.norm(some), own, state)
        errors.append((v - layer.hold.recall(k, state["memory"])).square().sum(3))
        _, state = layer(some, own, state)
    torch.testing.assert_close(found.error, torch.cat(errors, 2))


def test_rates_ranks_and_half_lives_are_those_of_their_definitions():
    # In two of four directions as often as in each other and back: a covariance of equal parts.
    keys = torch.tensor([[1.0, 0, 0, 0], [-1, 0, 0, 0], [0, 1, 0, 0], [0, -1, 0, 0]]).repeat(
        1, 1, 1, 1
    )
    flat = torch.ones(1, 1, 4)
    told = figures([Readings(flat / 4, flat, flat / 2, flat / 100, keys)], patch=8)
    assert told == pytest.approx(
        {
            "surprise": 0.25,
            "write": 0.5,
            "forget": 0.01,
            "half_life": 8 * math.log(2) / 0.01,
            "key_rank": 2.0,
            "key_width": 4.0,
        }
    )


def test_streams_are_read_whole_and_other_models_have_nothing_to_tell():
    spec = Spec(lookback=24, horizon=4, variates=2, season=24)
    values = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(values, dtype=torch.bool)
    mask[:8] = False
    mask[:24, 1] = False
    origins = torch.arange(250, 297)
    series = Series(values=values * mask, mask=mask)
    windows = Windows(series=series, origins=origins, lookback=24, horizon=4)
    config = TitansConfig(width=8, heads=2, depth=2, patch=8)
    blocks = readings(Titans(config, spec), windows)
    # 296 rows are read, of which one variate lacks the first 8 and the other the first 24
    assert [[some.write.shape[2] for some in block] for block in blocks] == [[36, 34]] * 2
    assert readings(LMUFormer(LMUFormerConfig(width=8), spec), windows) == []
