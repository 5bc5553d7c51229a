"""Forecasting with transformers: tables behind one command and one artefact.

```python
import forecast

trained = forecast.train("etth1", model="itransformer", horizon=96)
table = forecast.predict(trained.artefact, "new.csv")   # a polars DataFrame
model = forecast.load("models:/etth1@champion")         # the forecaster itself
```
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from forecast.api import evaluate, load, predict, predict_files, train

__all__ = ["__version__", "evaluate", "load", "predict", "predict_files", "train"]


def __getattr__(name: str) -> Any:
    # Imported when first used: the command line asks for the version without paying for torch.
    if name in __all__:
        return getattr(importlib.import_module("forecast.api"), name)
    raise AttributeError(f"module 'forecast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
