"""`Operation`: one computation, its forms, and which of them runs.

A form is a module. A facade lists its forms in a `BACKENDS` dict, so that a form, and whatever it
imports, is loaded only when it is used, and declares an `OPERATION` that its function resolves:

```
OPERATION = Operation(
    name="gated", backends=BACKENDS, fallback="tiled",
    choose=choose, obstacle=_obstacle, check=self_check, calls={"gated": {}},
)

def gated(both, *, backend="auto"):
    return OPERATION.resolve(backend, both.device, both.dtype).gated(both)
```
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from forecast.errors import UsageError, nearest


class Choice(NamedTuple):
    """The form that runs, and why."""

    backend: str
    why: str


def unchecked(device: torch.device, dtype: torch.dtype) -> str:
    """Self-check of an operation without a Triton form: nothing to find."""
    return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One computation, its forms, and the rule by which one of them runs.

    `choose` and `obstacle` take device and dtype of the tensors, and by keyword whatever else of a
    call decides (a width, a mask); all of it has a default in `choose`.

    Attributes:
        name: what messages call it.
        backends: module of each form.
        fallback: the form that runs where the Triton form fails its check.
        choose: the form that `auto` runs, `choose(device, dtype, **call)`.
        obstacle: what keeps a named form from running, `obstacle(backend, device, dtype, **call)`;
            an empty string for nothing.
        check: how the Triton form differs from the reference, `check(device, dtype)`; an empty
            string where they agree. It is run before the first use and has to keep its answer.
        calls: the calls that `explain` lists, by label.
    """

    name: str
    backends: Mapping[str, str]
    fallback: str
    choose: Callable[..., Choice]
    obstacle: Callable[..., str]
    check: Callable[[torch.device, torch.dtype], str] = unchecked
    calls: Mapping[str, Mapping[str, Any]]

    def resolve(self, backend: str, device: torch.device, dtype: torch.dtype, **call: Any) -> Any:
        """Import the form that runs a call.

        Args:
            backend: a form, or `auto`.
            device: where the tensors are.
            dtype: what they are computed in.
            call: what else `choose` and `obstacle` ask.

        Raises:
            UsageError: no form has this name, or the named one cannot run here.
        """
        if backend == "auto":
            backend = self.choose(device, dtype, **call).backend
            if backend == "triton" and (reason := self.check(device, dtype)):
                backend = self.fallback
                _warn_fallback(self.name, reason, backend)
        elif backend in self.backends:
            _require(self.name, backend, self.obstacle(backend, device, dtype, **call))
        return form(self.backends, backend)

    def explain(self, device: torch.device, dtype: torch.dtype) -> list[tuple[str, str, str]]:
        """Rows of operation, backend and reason: what `auto` chooses for each kind of call."""
        return [
            (label, choice.backend, choice.why)
            for label, call in self.calls.items()
            for choice in [self.choose(device, dtype, **call)]
        ]


def triton_or(fallback: str, device: torch.device, obstacle: str, why: str) -> Choice:
    """Choose the Triton form for its reason `why` where it can run on a GPU, else the fallback."""
    if obstacle or device.type != "cuda":
        return Choice(fallback, obstacle or "Triton's interpreter is for tests")
    return Choice("triton", why)


def form(backends: Mapping[str, str], backend: str) -> Any:
    """Import the module of a form.

    Raises:
        UsageError: no form has this name.
    """
    if backend not in backends:
        known = [*backends, "auto"]
        raise UsageError(
            f"{backend!r} is no backend; allowed are {', '.join(known)}.",
            hint=nearest(backend, known),
        )
    return importlib.import_module(backends[backend])


def triton_obstacle(device: torch.device, dtype: torch.dtype, head_width: int = 64) -> str:
    """Return what keeps a Triton kernel from running on such tensors; empty for nothing."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"Triton kernels run on CUDA tensors, and these are on {device.type}"
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"the kernel takes float32, float16 and bfloat16, not {str(dtype).split('.')[-1]}"
    widest = 64 if dtype == torch.float32 else 128
    if head_width > widest:
        return f"the kernel holds heads of at most {widest} columns here, not {head_width}"
    return ""


def _require(operation: str, backend: str, obstacle: str) -> None:
    if obstacle:
        raise UsageError(
            f"backend={backend!r} cannot run {operation}: {obstacle}.", hint="Use backend='auto'."
        )


def disagreement(
    fast: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    tolerance: float,
) -> str:
    """Hold a form's values and gradients to the reference; an empty string when they agree.

    The reference sees the same rounded inputs in float64. A form that raises, a kernel that does
    not compile for this device for one, disagrees as well.

    Args:
        fast: the form under test, a function of `inputs`.
        reference: the same function written for float64.
        inputs: tensors to differentiate with respect to.
        tolerance: largest allowed difference, as a fraction of the reference's largest value; a
            result a tenth the size of the largest one, or less, is held to that tenth.
    """
    exact = [x.detach().double().requires_grad_() for x in inputs]
    trial = [x.detach().clone().requires_grad_() for x in inputs]
    with torch.enable_grad(), torch.autocast(inputs[0].device.type, enabled=False):
        expected = reference(*exact)
        weights = torch.linspace(-1.0, 1.0, expected.numel(), dtype=torch.float64)
        weights = weights.to(expected.device).view(expected.shape)
        wanted = (expected.detach(), *torch.autograd.grad(expected, exact, weights))
        try:
            output = fast(*trial)
            found = (output.detach(), *torch.autograd.grad(output, trial, weights.to(output.dtype)))
        except Exception as error:  # noqa: BLE001  # a compiler may fail in any way it likes
            return f"it raised {type(error).__name__}: {error}"
    # Results may all be 0, where every key is hidden.
    least = max(1e-30, *(float(x.abs().max()) / 10 for x in wanted))
    for place, (have, want) in enumerate(zip(found, wanted, strict=True)):
        error = (have.double() - want).abs().max() / want.abs().max().clamp(min=least)
        # Written so that NaN counts as a disagreement.
        if not error <= tolerance:
            what = "its values" if place == 0 else f"its gradient {place} of {len(inputs)}"
            return f"{what} differ from the reference by {float(error):.1e} of the largest"
    return ""


def _warn_fallback(operation: str, reason: str, instead: str) -> None:
    warnings.warn(
        f"The Triton form of {operation} is not used: {reason}. {instead!r} runs instead.",
        RuntimeWarning,
        stacklevel=5,
    )
