"""The precision of the suite: fp32 on any machine, unless FORECAST_PRECISION forces another.

What a processor has decides nothing here. Tests marked `bf16` hold their promise in bf16 too:
`FORECAST_PRECISION=bf16 pytest -m bf16`.
"""

from __future__ import annotations

import os

os.environ.setdefault("FORECAST_PRECISION", "fp32")
