"""LMUFormer: Legendre memories between pointwise layers, trained in parallel, run as a stream.

Every layer looks back only: convolutions over the last rows, Legendre memories of the last theta
steps, and maps of single steps. So the network has a state of fixed size, and computing all steps
at once, in pieces with the state carried, or one by one gives the same forecasts up to rounding.

Source: Liu et al., "LMUFormer: Low Complexity Yet Powerful Spiking Model With Legendre Memory
Units", ICLR 2024, arXiv 2402.04882, section 4. The published network classifies clips and is not
causal: its convolutions are padded on both sides (five steps of look-ahead), batch norm mixes all
steps, the memory is fixed to 128 steps. Here convolutions are padded on the left, norms are of one
step, memories are of any length and of several channels, and a head forecasts from every step. New
here is the direct path: one linear map of the memory of the input itself and of the last rows, each
less the last value, which is a ridge regression on a compressed window.

Letters: B batch, L rows, H horizon, C variates, F calendar features, N streams, V values of a
stream, D width, U memory channels, d order of a memory, P rows that the direct path reads as such.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from forecast.batch import DenseForecast, Forecast, SeriesBatch, Spec
from forecast.data.segments import SegmentBatch
from forecast.errors import UsageError
from forecast.kernels.lmu import least_order, memory
from forecast.layers import Dropout, squared_error

Positive = Annotated[int, Field(ge=1)]
State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class LMUFormerConfig:
    """Choose the size of an LMUFormer.

    Attributes:
        width: D, numbers that stand for a step between the layers.
        depth: blocks.
        convolutions: causal convolutions that embed the rows.
        kernel: rows that each of them reads.
        channels: U, Legendre memories of a block, shared out evenly among the windows.
        windows: theta, lengths of the memories [rows]; by default seven seasons, of short seasons
            four.
        order: d; by default what seasons need that fill the longest window.
        expansion: width of a block's last layer, as a multiple of `width`.
        direct_window: rows that the direct path remembers; by default twice the longest window.
        direct_order: order of that memory; 0 leaves the direct path out.
        direct_rows: P; by default one season, at most 24.
        channel_independent: forecast every variate by itself, with the same weights, instead of
            all together.
        calendar: let the network see calendar features.
        observed: let the network see which values are missing; they are held in either case.
        half_life: scale by a mean and deviation carried along, in which a row weighs half after so
            many rows; None leaves the scale as it is.
        dropout: probability of zeroing an element between two layers.
        spiking: let inner values be spikes of leaky integrate-and-fire neurons. They run step by
            step and cost several times more to train and nothing less to run on ordinary
            processors; what they would save takes neuromorphic hardware.
    """

    width: Positive = 64
    depth: Positive = 1
    convolutions: Positive = 2
    kernel: Positive = 3
    channels: Positive = 4
    windows: tuple[Positive, ...] = ()
    order: Positive | None = None
    expansion: Positive = 2
    direct_window: Positive | None = None
    direct_order: Annotated[int, Field(ge=0)] | None = None
    direct_rows: Positive | None = None
    channel_independent: bool = True
    calendar: bool = False
    observed: bool = False
    half_life: Annotated[float, Field(gt=0)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    spiking: bool = False
