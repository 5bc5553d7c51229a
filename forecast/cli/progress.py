"""The progress of a training on stderr: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

from forecast.cli import console


class Progress:
    """Watch a training and draw it."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._epochs = 0
        self._steps = 0

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("loss {task.fields[loss]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def begin(self, epochs: int, steps: int) -> None:
        """Set the bar up."""
        self._epochs, self._steps = epochs, steps
        if self._bar:
            self._task = self._bar.add_task("epoch 1", total=epochs * steps, loss="-")

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Move the bar."""
        if self._bar:
            self._bar.update(
                self._task,
                completed=epoch * self._steps + step,
                description=f"epoch {epoch + 1}/{self._epochs}",
                loss=f"{loss:.4f}",
            )

    def epoch(self, row: dict[str, float]) -> None:
        """Write an epoch's figures."""
        number = int(row["epoch"])
        self._say(
            f"epoch {number}/{self._epochs}  train {row['train_loss']:.4f}  "
            f"validation {row['val_loss']:.4f}"
        )
        self.step(number, 0, row["train_loss"])

    def notice(self, text: str) -> None:
        """Write a sentence."""
        self._say(text)

    def _say(self, text: str) -> None:
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            console.notice(text)
