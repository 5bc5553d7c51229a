"""The model `auto`: it mixes what is good, and is level with its best member."""

import numpy as np
import pytest
import torch

from forecast.batch import Spec
from forecast.cli import run as command
from forecast.models import MODELS
from forecast.models.auto import Auto, AutoConfig


def test_unfitted_it_is_the_plain_mean_and_commutes_with_a_shift():
    from forecast.batch import SeriesBatch

    spec = Spec(lookback=64, horizon=8, variates=2, season=8)
    model = Auto(AutoConfig(), spec)
    assert len(model.names) == 8
    assert model.shares.sum() == pytest.approx(1)
    past = torch.randn(3, 64, 2, dtype=torch.float64).cumsum(1)
    model.double()
    one = model(SeriesBatch(past=past)).values
    assert one.shape == (3, 8, 2)
    torch.testing.assert_close(model(SeriesBatch(past=past + 5)).values, one + 5)


def test_it_is_trained_and_forecasts_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORECAST_HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(0)
    rows = np.arange(400)
    value = 10 + 3 * np.sin(2 * np.pi * rows / 7) + rng.normal(size=400)
    days = np.datetime64("2020-01-01") + rows
    table = tmp_path / "sales.csv"
    table.write_text(
        "date,sales\n" + "".join(f"{d},{v:.4f}\n" for d, v in zip(days, value, strict=True))
    )
    made = tmp_path / "model"
    arguments = ["train", str(table), "--model", "auto", "--lookback", "56", "--horizon", "7"]
    assert command([*arguments, "--out", str(made), "--json"]) == 0
    capsys.readouterr()
    assert command(["predict", str(made), str(table)]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 8
    ahead = np.array([float(line.split(",")[1]) for line in lines[1:]])
    truth = 10 + 3 * np.sin(2 * np.pi * np.arange(400, 407) / 7)
    assert np.abs(ahead - truth).mean() < 0.8
    assert MODELS["auto"].closed_form
