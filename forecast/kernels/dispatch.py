"""What every facade of this package needs to choose among forms of one operation.

A form is a module. A facade lists its forms in a `BACKENDS` dict, so that a form, and whatever it
imports, is loaded only when it is used.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from forecast.errors import UsageError, nearest


class Choice(NamedTuple):
    """Name the form that runs, and say why."""

    backend: str
    why: str

    def row(self, operation: str) -> tuple[str, str, str]:
        """Give operation, backend and reason."""
        return operation, self.backend, self.why


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
    """Say what keeps a Triton kernel from running on such tensors; an empty string for nothing."""
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


def require(operation: str, backend: str, obstacle: str) -> None:
    """Refuse a named backend that cannot run.

    Raises:
        UsageError: there is an obstacle.
    """
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


def warn_fallback(operation: str, reason: str, instead: str) -> None:
    """Tell that a Triton form failed its check, and what runs in its place."""
    warnings.warn(
        f"The Triton form of {operation} is not used: {reason}. {instead!r} runs instead.",
        RuntimeWarning,
        stacklevel=4,
    )
