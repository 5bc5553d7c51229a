"""ProbSparse attention: full attention for the few queries that need it, a mean for the rest.

Letters: B batch, H heads, L queries, S keys, E head width, U sampled keys, u active queries.

Source: Zhou et al., "Informer", arXiv 2012.07436, algorithm 1.
"""

from __future__ import annotations

import functools
import math
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from forecast.errors import UsageError, nearest
from forecast.kernels import dispatch
from forecast.kernels.attention import attention
from forecast.kernels.dispatch import Choice, Operation

Mode = Literal["full", "exact", "shared", "published"]
BACKENDS = {
    "reference": "forecast.kernels.probsparse.reference",
    "tiled": "forecast.kernels.probsparse.tiled",
    "triton": "forecast.kernels.probsparse.triton",
}


def probsparse(
    q: Float[Tensor, "B H L E"],
    k: Float[Tensor, "B H S E"],
    v: Float[Tensor, "B H S E"],
    *,
    mode: Mode,
    factor: int = 5,
    causal: bool = False,
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> Float[Tensor, "B H L E"]:
    """Let `factor * ceil(ln L)` queries attend to all keys, and answer the others by a mean.

    Which queries are active depends on all of them, with `causal` too: a causal call hides later
    values from a query, but a later query can displace it from the active set. Do not use it where
    a forecast must not depend on what comes after it.

    Args:
        q: queries.
        k: keys.
        v: values.
        mode: how the active queries are found. `full`: all are active. `exact`: by all keys,
            without chance. `shared`: by `factor * ceil(ln S)` keys, drawn once per call for all
            queries. `published`: by as many keys for each query, the way of the published code.
        factor: the sampling factor c.
        causal: hide keys after the query's position; needs L = S.
        dropout: probability of dropping an attention weight of an active query.
        generator: draws the keys, on the CPU; None for torch's default generator.
        backend: a name of `BACKENDS`, or `auto`; with `full`, a name of `attention.BACKENDS`.

    Raises:
        UsageError: the arguments contradict each other, or a named backend cannot run here.
    """
    queries, keys = q.shape[2], k.shape[2]
    if mode not in get_args(Mode):
        modes = get_args(Mode)
        raise UsageError(
            f"mode={mode!r}; allowed are {', '.join(modes)}.", hint=nearest(mode, modes)
        )
    if factor < 1:
        raise UsageError(f"factor={factor}; at least one.", hint="The paper's factor is 5.")
    if causal and queries != keys:
        raise UsageError(
            f"A causal mask needs as many keys as queries, not {queries} queries and {keys} keys.",
            hint="Use causal=False between two sequences.",
        )
    if mode == "full":
        return attention(q, k, v, causal=causal, dropout=dropout, backend=backend)
    form = OPERATION.resolve(backend, q.device, q.dtype, mode=mode, head_width=q.shape[3])
    q, k, v = (x.contiguous() for x in (q, k, v))
    with torch.no_grad():
        sample = draw(mode, queries, keys, factor, generator)
        if sample is not None:
            sample = sample.to(q.device, non_blocking=True)
        measured = form.measure(q, k, sample=sample, causal=causal)
        rows = form.select(measured, logarithmic(queries, factor))
    return form.attend(q, k, v, rows, causal=causal, dropout=dropout)


def logarithmic(length: int, factor: int) -> int:
    """Count the active queries, or the sampled keys, among `length`."""
    return min(length, max(1, factor * math.ceil(math.log(length))))


def draw(
    mode: Mode, queries: int, keys: int, factor: int, generator: torch.Generator | None
) -> Int[Tensor, " U"] | Int[Tensor, "L U"] | None:
    """Draw the keys by which a mode finds the active queries."""
    count = logarithmic(keys, factor)
    if mode == "shared":
        return torch.randperm(keys, generator=generator)[:count]
    if mode == "published":
        return torch.randint(keys, (queries, count), generator=generator)
    return None


def choose(device: torch.device, dtype: torch.dtype, *, mode: Mode, head_width: int = 64) -> Choice:
    """Choose the form that `auto` runs; `full` is the choice of `attention`."""
    obstacle = _obstacle("triton", device, dtype, mode=mode, head_width=head_width)
    why = "scores are never stored; checked against the reference once"
    return dispatch.triton_or("tiled", device, obstacle, why)


def _obstacle(
    backend: str, device: torch.device, dtype: torch.dtype, *, mode: Mode, head_width: int
) -> str:
    if backend != "triton":
        return ""
    if mode == "published":
        return "the published sampling is for parity alone and has no Triton kernel"
    return dispatch.triton_obstacle(device, dtype, head_width)


@functools.cache
def self_check(device: torch.device, dtype: torch.dtype) -> str:
    """Hold the Triton form to the reference on this device; an empty string when it agrees."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2, 130, 64, generator=generator).to(device, dtype) for _ in range(3))
    sample = draw("shared", 130, 130, 5, generator)
    assert sample is not None
    sample = sample.to(device)
    reference, triton = (dispatch.form(BACKENDS, name) for name in ("reference", "triton"))
    for causal in (False, True):
        for keys in (sample, None):
            measured = reference.measure(q.double(), k.double(), sample=keys, causal=causal)
            try:
                error = triton.measure(q, k, sample=keys, causal=causal).double() - measured
            except Exception as failure:  # noqa: BLE001  # a compiler may fail in any way it likes
                return f"its measure raised {type(failure).__name__}: {failure}"
            if not error.abs().max() <= 1e-3 * measured.abs().max():
                return f"its measure differs from the reference by {float(error.abs().max()):.1e}"
        rows = reference.select(measured, 25)
        reason = dispatch.disagreement(
            functools.partial(triton.attend, rows=rows, causal=causal, dropout=0.0),
            functools.partial(reference.attend, rows=rows, causal=causal, dropout=0.0),
            (q, k, v),
            1e-4 if dtype == torch.float32 else 2e-2,
        )
        if reason:
            return reason
    return ""


OPERATION = Operation(
    name="probsparse",
    backends=BACKENDS,
    fallback="tiled",
    choose=choose,
    obstacle=_obstacle,
    check=self_check,
    calls={f"probsparse, {mode}": {"mode": mode} for mode in ("exact", "shared", "published")},
)
explain = OPERATION.explain
