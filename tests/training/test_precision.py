"""Precision: what decides it, and that models run in bf16 without a warning."""

from __future__ import annotations

import warnings

import pytest
import torch

from forecast import device
from forecast.batch import SeriesBatch, Spec
from forecast.errors import UsageError
from forecast.layers import RMSNorm
from forecast.models.titans.model import Titans, TitansConfig

CPU = torch.device("cpu")


@pytest.mark.parametrize("amx", [True, False])
def test_the_environment_decides_for_auto_whatever_the_processor_has(monkeypatch, amx):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    for forced in ("fp32", "bf16"):
        monkeypatch.setenv("FORECAST_PRECISION", forced)
        assert device.choose_precision("auto", CPU) == forced
        # a recipe that states one is not overruled
        assert device.choose_precision("fp32", CPU) == "fp32"
    monkeypatch.delenv("FORECAST_PRECISION")
    assert device.choose_precision("auto", CPU) == ("bf16" if amx else "fp32")
    monkeypatch.setenv("FORECAST_PRECISION", "fp16")
    with pytest.raises(UsageError, match="may be fp32, bf16 or auto"):
        device.choose_precision("auto", CPU)


def test_rms_norm_takes_bf16_and_answers_in_the_precision_of_its_weight():
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer = RMSNorm(8)(x)
    wide = x.float()
    expected = wide / (wide.square().mean(1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt()
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer, expected)


@pytest.mark.parametrize("variant", ["gate", "context"])
def test_titans_trains_in_bf16_without_a_warning_and_near_fp32(variant):
    torch.manual_seed(0)
    config = TitansConfig(width=16, heads=2, window=4, dropout=0.0, variant=variant, direct=False)
    model = Titans(config, Spec(lookback=48, horizon=4, variates=2, season=12))
    torch.nn.init.normal_(model.head.weight, std=0.1)
    batch = SeriesBatch(past=torch.randn(2, 48, 2), target=torch.randn(2, 4, 2))
    losses, slopes = [], []
    for precision in ("fp32", "bf16"):
        model.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with device.autocast(precision, CPU):
                total, count = model.loss(batch)
            (total / count).backward()
        losses.append(total.item())
        slopes.append(
            torch.cat([w.grad.flatten() for w in model.parameters() if w.grad is not None])
        )
    # 8 bits of mantissa, through a dozen roundings
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    assert torch.cosine_similarity(slopes[0], slopes[1], 0) > 0.99
