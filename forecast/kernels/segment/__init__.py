"""Softmax and sums over ragged segments: messages sorted by the token that they go to.

`attend` weighs each message of a segment by a softmax over its scores and sums their values;
nothing is padded, and an empty segment gives 0. Sums are in the order of the messages, so that two
runs agree bit for bit.

Letters: T segments, m messages, A heads, E columns of a head.
"""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float, Int
from torch import Tensor

from forecast.kernels import dispatch
from forecast.kernels.dispatch import Choice, Operation

BACKENDS = {
    "reference": "forecast.kernels.segment.reference",
    "ragged": "forecast.kernels.segment.ragged",
    "triton": "forecast.kernels.segment.triton",
}


def attend(
    scores: Float[Tensor, "m A"],
    values: Float[Tensor, "m A E"],
    offsets: Int[Tensor, " T1"],
    *,
    backend: str = "auto",
) -> Float[Tensor, "T A E"]:
    """Sum the values of each segment, weighed by a softmax over its scores.

    Args:
        scores: of the messages, segment after segment.
        values: of the messages.
        offsets: the first message of each segment, and m.
        backend: a name of `BACKENDS`, or `auto`.

    Raises:
        UsageError: a named backend cannot run here.
    """
    form = OPERATION.resolve(backend, values.device, values.dtype, width=values.shape[-1])
    return form.attend(scores, values, offsets)


def total(values: Float[Tensor, m * rest], offsets: Int[Tensor, " T1"]) -> Tensor:
    """Sum the values of each segment, in the order of the messages."""
    owner = owners(offsets)
    out = values.new_zeros(len(offsets) - 1, *values.shape[1:])
    return out.index_add(0, owner, values)


def owners(offsets: Int[Tensor, " T1"]) -> Int[Tensor, " m"]:
    """Return the segment of each message."""
    return torch.repeat_interleave(offsets.diff())


def choose(device: torch.device, dtype: torch.dtype, width: int = 16) -> Choice:
    """Choose the form that `auto` runs."""
    if device.type != "cuda":
        return Choice("ragged", "sums in the order of the messages, nothing padded")
    why = "a program for each segment and head; checked against the reference"
    return dispatch.triton_or("ragged", device, _obstacle("triton", device, dtype, width), why)


def _obstacle(backend: str, device: torch.device, dtype: torch.dtype, width: int) -> str:
    return dispatch.triton_obstacle(device, dtype, width) if backend == "triton" else ""


@functools.cache
def self_check(device: torch.device, dtype: torch.dtype) -> str:
    """Hold the Triton form to the reference on this device; an empty string when it agrees."""
    generator = torch.Generator().manual_seed(0)
    offsets = torch.tensor([0, 1, 1, 64, 129, 259], device=device)
    scores = torch.randn(259, 3, generator=generator).to(device, dtype)
    values = torch.randn(259, 3, 16, generator=generator).to(device, dtype)
    trial, exact = (
        functools.partial(dispatch.form(BACKENDS, name).attend, offsets=offsets)
        for name in ("triton", "reference")
    )
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    return dispatch.disagreement(trial, exact, (scores, values), tolerance)


OPERATION = Operation(
    name="segment",
    backends=BACKENDS,
    fallback="ragged",
    choose=choose,
    obstacle=_obstacle,
    check=self_check,
    calls={"segment": {}},
)
explain = OPERATION.explain
