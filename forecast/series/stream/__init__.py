"""Streams: rows of many series in, forecasts out as the rows arrive, and a state that survives.

```python
streamer = Streamer(forecast.load("models:/etth1@champion"))
streamer.resume(Path("state.safetensors"))
pump(streamer, sys.stdin.buffer, write)
```

What becomes of a row, for each series by itself:

- It is the next one: taken in.
- Rows are missing before it: `gap` says whether the last values stand in for them, whether they
  count as missing, or whether that is an error. They are taken in first, without a forecast.
- It stands at the time of the last row, or before it: a duplicate, or late. It is counted and left
  out, since a state cannot be taken back. Rows that a resumed state has seen are counted apart, so
  that after a stop the whole file may be fed again.
- A cell is missing: it is held or masked, as it was in training.

Rows of different series may be interleaved in any way. The first row of each that is at hand, the
second of each, and so on are taken in as one batch; what a series is forecast does not depend on
which others it shares a batch with, nor on when its rows came.
"""

from __future__ import annotations

from forecast.series.stream.engine import Gap, Streamer
from forecast.series.stream.pump import pump
from forecast.series.stream.window import RollingWindow

__all__ = ["Gap", "RollingWindow", "Streamer", "pump"]
