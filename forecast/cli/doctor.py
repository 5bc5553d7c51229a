"""`forecast doctor`."""

from __future__ import annotations

from forecast.cli import console
from forecast.cli.options import AsJson, Device


def doctor(device: Device = "auto", as_json: AsJson = False) -> None:
    """Show what this machine has, where things lie, and which kernels will run here, and why.

    Example: forecast doctor
    """
    import os
    import platform

    import torch

    import forecast
    from forecast import kernels, paths, tracking
    from forecast.device import choose_device, choose_precision

    place = choose_device(device)
    facts = {
        "forecast": forecast.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(place),
        "processors": str(os.cpu_count()),
        "precision": choose_precision("auto", place),
        "data root": str(paths.data_root()),
        "home": str(paths.home()),
        "tracking": tracking.tracking_uri(),
    }
    choices = kernels.explain(place, torch.float32)
    if as_json:
        console.document(
            facts
            | {
                "kernels": [
                    {"operation": operation, "backend": backend, "why": why}
                    for operation, backend, why in choices
                ]
            }
        )
        return
    console.answer("\n".join(f"{label:<11} {value}" for label, value in facts.items()) + "\n")
    console.table(("operation", "backend", "why"), choices)
