"""Forecast the kept rows of all series, some thousands of series at a time.

Letters: S series, L lookback.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import forecast
from forecast.device import choose_device
from forecast.errors import DataError, Failure
from forecast.models import building
from forecast.series import predict
from forecast.series.bulk.output import Output, Part
from forecast.series.bulk.tails import Tails
from forecast.series.forecaster import Forecaster
from forecast.tables import reading
from forecast.tables.reading import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was forecast.

    Attributes:
        output: the file or folder.
        side_file: where the series without a forecast are named; None if there is none.
        parts: how many files of forecasts were put together or stand in the folder.
        reused: of them those that an earlier job had made.
        series: how many series have a forecast.
        rows: how many rows that makes.
        rows_read: how many rows the inputs have.
        failed: the series without a forecast.
        notices: sentences for the user.
    """

    output: Path
    side_file: Path | None
    parts: int
    reused: int
    series: int
    rows: int
    rows_read: int
    failed: tuple[Failure, ...]
    notices: tuple[str, ...]

    def summary(self) -> dict[str, object]:
        """Return it in plain types, the failed series as a number."""
        return {
            "output": str(self.output),
            "failed_file": str(self.side_file) if self.side_file else None,
            "parts": self.parts,
            "reused": self.reused,
            "series": self.series,
            "rows": self.rows,
            "rows_read": self.rows_read,
            "failed": len(self.failed),
        }


@dataclass(kw_only=True, slots=True)
class Job:
    """Forecast what was kept, part by part.

    Attributes:
        forecaster: the forecaster.
        device: where to run.
        level: levels of prediction intervals [%], see `prediction.predict_table`.
        output: what is written.
        safe_ids: whether no id in text may begin like a formula.
        size: how many series with a forecast make a part.
        about: what the manifest says besides.
        tell: takes sentences on how far it is.
    """

    forecaster: Forecaster
    device: str
    level: Sequence[float] | None
    output: Output
    safe_ids: bool
    size: int
    about: dict[str, Any]
    tell: Callable[[str], object]

    def run(self, kept: Tails) -> Report:
        """Make every part, and put the output in its place."""
        kept = self._judge_steps(kept)
        failed = [kept.failed[name] for name in sorted(kept.failed)]
        start, reused = 0, 0
        while start < len(kept.ids):
            part = self.output.reuse(lambda taken, start=start: self._key(kept, start, taken))
            reused += part is not None
            part = part or self._make(kept, start)
            self.output.add(part, self.about)
            failed += part.failed
            start += part.taken
            self.tell(f"{start:,} of {len(kept.ids):,} series forecast.")
        made = self.output.parts
        if not any(part.name for part in made):
            raise DataError(
                f"None of {len(failed):,} series can be read. The first: {failed[0].reason}",
                hint=failed[0].hint,
            )
        self.output.publish(self.about, failed, kept.reading.keys[0], safe_ids=self.safe_ids)
        count = sum(part.series for part in made)
        return Report(
            output=self.output.target,
            side_file=self.output.side_file if failed else None,
            parts=sum(bool(part.name) for part in made),
            reused=reused,
            series=count,
            rows=sum(part.rows for part in made),
            rows_read=self.about["rows_read"],
            failed=tuple(failed),
            notices=self._notices(made, count),
        )

    def _make(self, kept: Tails, start: int) -> Part:
        """Forecast as many series from `start` on as make a part."""
        found: list[Table] = []
        failed: list[Failure] = []
        stop = start
        # Series that fail are made up for, so that every part is cut into the same batches.
        while stop < len(kept.ids) and (lacking := self.size - (stop - start - len(failed))):
            first, stop = stop, min(stop + lacking, len(kept.ids))
            more, bad = self._read(kept, first, stop, whole=False)
            found += more
            failed += bad
        part = Part(
            key=self._key(kept, start, stop - start), taken=stop - start, failed=tuple(failed)
        )
        if not found:
            return part
        table = reading.join(found)
        table = replace(table, layout=replace(table.layout, time_format=kept.time_format))
        predicted = predict.predict_table(
            self.forecaster, table, self.device, level=self.level, method="split"
        )
        name, digest, header = self.output.write(
            predicted.frame, table.layout, safe_ids=self.safe_ids
        )
        lookback = self.forecaster.spec.lookback
        failed += [
            Failure(id=name, reason=f"It has no observed value in its last {lookback} steps.")
            for name in predicted.skipped
        ]
        return replace(
            part,
            name=name,
            series=predicted.series,
            rows=predicted.frame.height,
            sha256=digest,
            header=header,
            failed=tuple(failed),
            short=int(np.count_nonzero(np.diff(table.offsets) < lookback)),
            new=len(self.forecaster.scaler.new_ids(table.ids)),
        )

    def _read(
        self, kept: Tails, start: int, stop: int, *, whole: bool
    ) -> tuple[list[Table], list[Failure]]:
        """Read series together; if that fails, find those that fail by halving."""
        try:
            table = reading.from_cells(
                kept.cells(start, stop),
                kept.reading.options,
                columns=self.forecaster.columns,
                frequency=self.forecaster.spec.frequency,
                levels=self.forecaster.layout.levels,
                whole=whole,
            )
            self._check_inputs(table)
        except DataError as error:
            if stop - start == 1:
                return [], [Failure.of(kept.ids[start], error)]
            half = (start + stop) // 2
            first, bad = self._read(kept, start, half, whole=whole)
            second, worse = self._read(kept, half, stop, whole=whole)
            return first + second, bad + worse
        return [table], []

    def _check_inputs(self, table: Table) -> None:
        """Refuse series whose covariates the model cannot take.

        Raises:
            DataError: one of them has such; of one alone, saying what is wrong.
        """
        self.forecaster.covariates.of_series(table)
        lacking = (np.diff(table.ahead_offsets) < self.forecaster.spec.horizon).any()
        if not table.layout.known_future or not (lacking or np.isnan(table.ahead).any()):
            return
        if len(table.ids) > 1:
            raise DataError("Some series may lack what is to be known in advance.")
        predict.predict_table(self.forecaster, table, self.device, level=self.level)

    def _judge_steps(self, kept: Tails) -> Tails:
        """Leave out series whose rows, all of them, are several steps apart."""
        if np.gcd.reduce(kept.spread) > 1:
            # Not one series has the frequency of the model: this says so, of some of them.
            reading.from_cells(
                kept.cells(0, min(len(kept.ids), self.size)),
                kept.reading.options,
                columns=self.forecaster.columns,
                frequency=self.forecaster.spec.frequency,
                levels=self.forecaster.layout.levels,
            )
        failed: dict[str, Failure] = {}
        for series in np.flatnonzero((kept.spread > 1) & (kept.counts > 2)).tolist():
            _, bad = self._read(kept, series, series + 1, whole=True)
            failed |= {failure.id: failure for failure in bad}
        return kept.without(failed)

    def _key(self, kept: Tails, start: int, taken: int) -> str:
        """Name the rows of some series, and all else that their forecasts depend on."""
        stop = min(start + taken, len(kept.ids))
        how = {
            "model": self.about["model"],
            "options": asdict(kept.reading.options),
            "time_format": kept.time_format,
            "device": choose_device(self.device).type,
            "level": self.level,
            "versions": [forecast.__version__, torch.__version__],
            "safe_ids": self.safe_ids,
        }
        digest = hashlib.sha256(json.dumps(how, sort_keys=True).encode())
        digest.update(kept.cells(start, stop).frame.write_csv().encode())
        return digest.hexdigest()

    def _notices(self, made: Sequence[Part], count: int) -> tuple[str, ...]:
        lookback = self.forecaster.spec.lookback
        notices: list[str] = []
        if short := sum(part.short for part in made):
            notices.append(
                f"{short:,} of {count:,} series have no row where their last {lookback} steps "
                "begin; what they lack counts as missing."
            )
        if new := sum(part.new for part in made):
            notices.append(
                f"{new:,} of {count:,} series were not in the training data and are scaled by "
                f"their own last {lookback} rows."
            )
        return tuple(notices)


def aligned(part_series: int, forecaster: Forecaster) -> int:
    """Return how many series make a part: whole batches, as the series of one table are cut into.

    What a row gives may depend in its last bit on the size of its batch.
    """
    batch = forecaster.batch_size
    return max(1, round(part_series / batch)) * batch


def digest(forecaster: Forecaster) -> str:
    """Name a forecaster by all that its forecasts depend on."""
    described = {
        "recipe": forecaster.recipe.to_dict(),
        "spec": asdict(forecaster.spec),
        "layout": asdict(forecaster.layout),
        "columns": forecaster.columns,
        "ids": forecaster.scaler.ids,
        "static": forecaster.covariates.static,
        "weights": building.weights_digest(forecaster.model),
    }
    named = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode())
    for scaler in (forecaster.scaler, forecaster.covariates.scaler):
        if scaler is not None:
            named.update(scaler.mean.tobytes() + scaler.deviation.tobytes())
    if forecaster.calibration is not None:
        named.update(forecaster.calibration.reaches.numpy().tobytes())
    return named.hexdigest()
