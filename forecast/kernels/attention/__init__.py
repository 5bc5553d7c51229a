"""Attention: one function for every model, whatever runs it.

Letters: B batch, H heads, L queries, S keys, E head width.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from forecast.errors import UsageError
from forecast.kernels import dispatch
from forecast.kernels.dispatch import Choice, Operation

BACKENDS = {
    "direct": "forecast.kernels.attention.direct",
    "reference": "forecast.kernels.attention.reference",
    "sdpa": "forecast.kernels.attention.sdpa",
    "tiled": "forecast.kernels.attention.tiled",
    "triton": "forecast.kernels.attention.triton",
}

Mask = Literal["none", "causal", "padding", "stored"]

# Up to here all scores at once are the fastest on a CPU: 16 MB of them in float32; and without
# dropout, where SDPA is fused, fewer keys than a vector register or two.
_FEW_SCORES = 1 << 22
_FEW_KEYS = 32


def attention(
    q: Float[Tensor, "B H L E"],
    k: Float[Tensor, "B H S E"],
    v: Float[Tensor, "B H S E"],
    *,
    causal: bool = False,
    window: int | None = None,
    key_padding: Bool[Tensor, "B S"] | None = None,
    dropout: float = 0.0,
    scale: float | None = None,
    backend: str = "auto",
) -> Float[Tensor, "B H L E"]:
    """Compute `softmax(q k^T scale) v` over the keys that each query may see.

    With `causal` or `window` the queries stand at the last L of the S positions. A query that sees
    no key gives 0.

    Args:
        q: queries.
        k: keys.
        v: values.
        causal: hide keys after the query's position.
        window: hide keys at `window` positions from the query or more; 1 leaves the query's own.
        key_padding: True hides a key of a sample from all its queries.
        dropout: probability of dropping an attention weight (the caller passes 0 in evaluation).
        scale: factor on the scores; None for `1 / sqrt(E)`.
        backend: a name of `BACKENDS`, or `auto`.

    Raises:
        UsageError: the arguments contradict each other, or a named backend cannot run here.
    """
    queries, keys, width = q.shape[2], k.shape[2], q.shape[3]
    if (causal or window is not None) and queries > keys:
        raise UsageError(
            f"{queries} queries cannot stand at the last positions of {keys} keys.",
            hint="Give at least as many keys as queries, or neither causal nor window.",
        )
    if window is not None and window < 1:
        raise UsageError(f"window={window}; a window is at least 1.", hint="Use window=None.")
    mask: Mask = "causal" if causal else "none"
    if window is not None or (causal and (key_padding is not None or queries != keys)):
        mask = "stored"
    elif key_padding is not None:
        mask = "padding"
    form = OPERATION.resolve(
        backend, q.device, q.dtype, head_width=width, mask=mask, dropout=dropout > 0, keys=keys,
        scores=q.shape[0] * q.shape[1] * queries * keys,
    )  # fmt: skip
    return form.attention(
        q, k, v, causal=causal, window=window, key_padding=key_padding, dropout=dropout,
        scale=1 / math.sqrt(width) if scale is None else scale,
    )  # fmt: skip


def choose(
    device: torch.device,
    dtype: torch.dtype,
    *,
    head_width: int = 64,
    mask: Mask = "none",
    dropout: bool = False,
    keys: int = 1024,
    scores: int = 1 << 30,
) -> Choice:
    """Choose the form that `auto` runs.

    Args:
        device: where the tensors are.
        dtype: what they hold.
        head_width: E.
        mask: what SDPA would be given: nothing, a flag, a mask of the keys, or one of L x S.
        dropout: whether weights are dropped.
        keys: S.
        scores: B H L S.
    """
    if device.type == "cuda":
        if mask in ("none", "causal"):
            return Choice("sdpa", "torch has a fused CUDA form of it")
        obstacle = dispatch.triton_obstacle(device, dtype, head_width)
        if not obstacle:
            return Choice("triton", "SDPA would store the mask; checked against the reference once")
        return Choice("tiled", f"SDPA would store the mask; {obstacle}")
    if mask == "stored":
        return Choice("tiled", "SDPA would store the mask")
    if mask == "none" and scores <= _FEW_SCORES and (dropout or keys < _FEW_KEYS):
        return Choice("direct", "so few scores are faster held all at once")
    if dropout:
        return Choice("tiled", "SDPA would store all scores on this device")
    return Choice("sdpa", "torch has a fused form of it")


def _obstacle(
    backend: str, device: torch.device, dtype: torch.dtype, *, head_width: int, mask: Mask, **_: Any
) -> str:
    if backend == "triton":
        return dispatch.triton_obstacle(device, dtype, head_width)
    return "it takes no mask" if backend == "direct" and mask != "none" else ""


@functools.cache
def self_check(device: torch.device, dtype: torch.dtype) -> str:
    """Hold the Triton form to the reference on this device; an empty string when it agrees."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, 2, length, 64, generator=generator).to(device, dtype)
        for length in (65, 130, 130)
    )
    padding = (torch.arange(130, device=device) >= 120).expand(2, 130)

    def run(backend: str, causal: bool, *inputs: Tensor) -> Tensor:
        return dispatch.form(BACKENDS, backend).attention(
            *inputs, causal=causal, window=70, key_padding=padding, dropout=0.0, scale=0.125
        )

    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    reasons = (
        dispatch.disagreement(
            functools.partial(run, "triton", causal),
            functools.partial(run, "reference", causal),
            (q, k, v),
            tolerance,
        )
        for causal in (False, True)
    )
    return next(filter(None, reasons), "")


OPERATION = Operation(
    name="attention",
    backends=BACKENDS,
    fallback="tiled",
    choose=choose,
    obstacle=_obstacle,
    check=self_check,
    calls={
        "attention": {},
        "attention, few keys": {"keys": 8, "scores": 1 << 16},
        "attention, dropout": {"dropout": True},
        "attention, key padding": {"mask": "padding"},
        "attention, window": {"mask": "stored"},
    },
)
explain = OPERATION.explain
