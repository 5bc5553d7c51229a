"""Rows that this package adds to forecast; torch is not imported before a model is used."""

from forecast.catalogue import Dataset, KnownFile, Split
from forecast.models import ModelInfo

EWMA = ModelInfo(
    title="an exponentially weighted mean of all the past, its weight learnt",
    source="Brown, Smoothing, Forecasting and Prediction of Discrete Time Series, 1963",
    module="forecast_ewma.model",
    model="EWMA",
    config="EWMAConfig",
    streams=True,
    train={"learning_rate": 0.05},
)

TIDES = Dataset(
    name="tides",
    title="Tides of two made-up harbours, every hour",
    description="Sums of a daily and a half-daily sine, with noise.",
    files=(
        KnownFile(
            path="tides.csv",
            sha256="5dde345a082cc624f947f2af1bd014ad5636852d06b72d1af163b1d109da5036",
            size=13_452,
            dataset="tides",
            packaged="forecast_ewma",
        ),
    ),
    options={"time": "time"},
    rows=480,
    variates=("north", "south"),
    target="north",
    frequency="h",
    season=24,
    lookback=48,
    horizon=12,
    split=Split(train=0.7, val=0.1, test=0.2),
    licence="CC0 1.0",
    citation="none",
    source="generated",
)
