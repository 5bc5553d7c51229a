"""Scores of forecasts on grids, and their sums over many batches, whose size changes no figure.

Conventions:
    openstl: squares or absolute errors are summed over channels, rows and columns of a frame and
        averaged over frames, as the tables of OpenSTL and PredFormer have it; divided by C Y X they
        are per cell. They are of scaled values, for counts in [0, 1].
    PSNR: 10 log10(1 / mse) of each frame, the forecast cut to [0, 1], averaged over frames.
    SSIM: of each channel with a uniform window of 7 x 7 cells, sample covariances and borders left
        out; C1 = (0.01 R)^2 and C2 = (0.03 R)^2 with the data range R. R = 1 is what [0, 1] means;
        R = 2 is what published tables hold, the range an older library took for any fractions.
    area: rows count by their share of the globe. RMSE is the root after the mean over times.
    ACC: the correlation, by area, of forecast and true anomalies from the climatology at each
        instant, not centred again, averaged over instants.

Source of the last two: Rasp et al., "WeatherBench 2", JAMES 2024, section 3; of SSIM: Wang et al.,
IEEE Transactions on Image Processing 13, 2004, equation 13.

Letters: B batch, H horizon, C channels, Y X rows and columns.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from forecast.batch import Forecast, GridBatch
from forecast.scoring.measures import MEASURES, elementwise, with_roots

_WINDOW = 7


def area_weights(latitudes: Float[Tensor, " Y"]) -> Float[Tensor, " Y"]:
    """Weigh each row by the area of its cells, with mean 1.

    A row reaches half-way to its neighbours, the outer ones as far outwards as inwards but not
    beyond a pole: the sine of the upper bound less that of the lower one.
    """
    rows = latitudes.double()
    if len(rows) == 1:
        return torch.ones_like(rows)
    middles = (rows[1:] + rows[:-1]) / 2
    outer = torch.stack([2 * rows[0] - middles[0], 2 * rows[-1] - middles[-1]])
    bounds = torch.cat([outer[:1], middles, outer[1:]]).clamp(-90, 90)
    weights = torch.sin(torch.deg2rad(bounds)).diff().abs()
    return weights / weights.mean()


def ssim(
    prediction: Float[Tensor, "*n Y X"], truth: Float[Tensor, "*n Y X"], data_range: float
) -> Float[Tensor, "*n"]:
    """Compare the structure of frames, 1 for equal ones."""
    shape = truth.shape
    x, y = (frames.double().reshape(-1, 1, *shape[-2:]) for frames in (prediction, truth))

    def mean(frames: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(frames, _WINDOW, stride=1)

    count = _WINDOW**2
    sample = count / (count - 1)
    mean_x, mean_y = mean(x), mean(y)
    variances = sample * (mean(x * x) - mean_x**2 + mean(y * y) - mean_y**2)
    covariance = sample * (mean(x * y) - mean_x * mean_y)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    index = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    index = index / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))
    return index.mean((1, 2, 3)).view(shape[:-2])


def psnr(
    prediction: Float[Tensor, "*n C Y X"], truth: Float[Tensor, "*n C Y X"]
) -> Float[Tensor, "*n"]:
    """Return the peak signal-to-noise ratio of frames in [0, 1] [dB]; 100 for equal ones."""
    error = prediction.double().clamp(0, 1) - truth.double()
    return -10 * error.square().mean((-3, -2, -1)).clamp(min=1e-10).log10()


def anomaly_correlation(
    prediction: Float[Tensor, "*n Y X"],
    truth: Float[Tensor, "*n Y X"],
    climate: Float[Tensor, "*n Y X"],
    weights: Float[Tensor, "Y X"] | Float[Tensor, "*n Y X"],
) -> Float[Tensor, "*n"]:
    """Correlate anomalies from the climatology over the cells of each frame, without centring."""
    ours, true = prediction.double() - climate, truth.double() - climate
    product = (weights * ours * true).sum((-2, -1))
    power = (weights * ours.square()).sum((-2, -1)) * (weights * true.square()).sum((-2, -1))
    return product / power.clamp(min=1e-60).sqrt()


class GridErrorSums:
    """Add up the errors of batches of forecasts; what it holds does not grow with them.

    Args:
        columns: C names.
        deviation: (C, 1, 1) or (C, Y, X), what one scaled unit is worth.
        latitudes: (Y,) of the rows [degrees]; None leaves out all figures by area.
        climate: which reference of the batches is the climatology; None leaves out ACC.
        unit_range: scaled values lie in [0, 1]; else PSNR and SSIM are left out.
    """

    def __init__(
        self,
        *,
        columns: tuple[str, ...],
        deviation: Float[Tensor, "C _ _"],
        latitudes: Float[Tensor, " Y"] | None = None,
        climate: int | None = None,
        unit_range: bool = False,
    ) -> None:
        self._columns = columns
        self._deviation = deviation.double()
        self._weights: Tensor | None = None
        if latitudes is not None:
            self._weights = area_weights(latitudes).to(deviation.device)[:, None]  # (Y, 1)
        self._climate = climate
        self._unit_range = unit_range
        self._errors = elementwise("grid")
        self._sums: dict[str, Tensor] = {}
        self._frame_cells = 0
        self.windows = 0

    def add(self, answer: Forecast, batch: GridBatch) -> None:
        """Add one batch of scaled forecasts."""
        assert batch.target is not None
        prediction, truth, mask = answer.values.double(), batch.target.double(), batch.target_mask
        seen = torch.ones_like(truth) if mask is None else mask.double()
        error = (prediction - truth) * seen
        units = error * self._deviation
        for name, function in self._errors.items():
            self._add(name, function(error, prediction, truth) * seen)
        self._add("squared units", units.square())
        self._add("absolute units", units.abs())
        self._add("bias", units)
        self._add("count", seen)
        if self._weights is not None:
            self._add("squared area", units.square() * self._weights)
            self._add("absolute area", units.abs() * self._weights)
            self._add("bias area", units * self._weights)
            self._add("count area", seen * self._weights)
        if self._climate is not None and batch.references is not None:
            past = batch.frames.shape[1]
            climate = batch.references[:, self._climate, past:].double() * self._deviation
            weights = seen if self._weights is None else seen * self._weights
            correlation = anomaly_correlation(
                prediction * self._deviation, truth * self._deviation, climate, weights
            )  # (B, H, C)
            self._increase("acc", correlation.sum(0))
        if self._unit_range:
            self._increase("psnr", psnr(prediction, truth).sum())
            if min(truth.shape[-2:]) >= _WINDOW:
                self._increase("ssim", ssim(prediction, truth, 1.0).mean(-1).sum())
                self._increase("ssim range 2", ssim(prediction, truth, 2.0).mean(-1).sum())
        self._frame_cells = truth[0, 0].numel()
        self.windows += truth.shape[0]

    def result(self) -> dict[str, object]:
        """Divide the sums.

        Returns:
            The measures of grids in `MEASURES`, `mse`, `mae`, `rmse` of scaled values per cell, and
            `mse_by_lead`; `units`, with `mse`,
            `mae`, `rmse` and `bias` of each channel; `openstl`, sums over a frame's cells, with
            `psnr` and `ssim` where scaled values lie in [0, 1]; `area`, with `rmse`, `mae`, `bias`,
            `acc` of each channel and `rmse_by_lead`, `acc_by_lead`; and the numbers of `windows`
            and observed `values`.
        """
        if not self.windows:
            nothing = with_roots("grid", dict.fromkeys(self._errors))
            return {**nothing, "windows": 0, "values": 0}
        sums, count = self._sums, self._sums["count"]  # (H, C)
        total = float(count.sum())
        means: dict[str, float | None] = {}
        for name in self._errors:
            means[name] = _quotient(MEASURES[name].factor * sums[name].sum(), count.sum())
        mse, mae = means["mse"], means["mae"]
        frames = self.windows * count.shape[0]
        openstl = {
            "mse": None if mse is None else mse * self._frame_cells,
            "mae": None if mae is None else mae * self._frame_cells,
        }
        for name in ("psnr", "ssim", "ssim range 2"):
            if name in sums:
                openstl[name.replace(" ", "_")] = float(sums[name]) / frames
        result: dict[str, object] = {
            **with_roots("grid", means),
            "windows": self.windows,
            "values": int(total),
            "mse_by_lead": _quotients(sums["mse"].sum(1), count.sum(1)),
            "openstl": openstl,
            "units": self._by_channel("units", count, "bias"),
        }
        if self._weights is not None or "acc" in sums:
            result["area"] = self._area()
        return result

    def _area(self) -> dict[str, dict[str, object]]:
        sums = self._sums
        figures: dict[str, dict[str, object]] = {name: {} for name in self._columns}
        if self._weights is not None:
            count = sums["count area"]
            figures = self._by_channel("area", count, "bias area")
            for place, name in enumerate(self._columns):
                leads = _quotients(sums["squared area"][:, place], count[:, place])
                figures[name]["rmse_by_lead"] = [
                    None if lead is None else math.sqrt(lead) for lead in leads
                ]
        if "acc" in sums:
            leads = sums["acc"] / self.windows  # (H, C)
            for place, name in enumerate(self._columns):
                figures[name]["acc"] = float(leads[:, place].mean())
                figures[name]["acc_by_lead"] = leads[:, place].tolist()
        return figures

    def _by_channel(self, kind: str, count: Tensor, bias: str) -> dict[str, dict[str, object]]:
        sums, figures = self._sums, dict[str, dict[str, object]]()
        for place, name in enumerate(self._columns):
            own = count[:, place].sum()
            mse = _quotient(sums[f"squared {kind}"][:, place].sum(), own)
            figures[name] = {
                "mse": mse,
                "mae": _quotient(sums[f"absolute {kind}"][:, place].sum(), own),
                "rmse": None if mse is None else math.sqrt(mse),
                "bias": _quotient(sums[bias][:, place].sum(), own),
            }
        return figures

    def _add(self, name: str, cells: Float[Tensor, "B H C Y X"]) -> None:
        self._increase(name, cells.sum((0, 3, 4)))

    def _increase(self, name: str, amount: Tensor) -> None:
        self._sums[name] = self._sums[name] + amount if name in self._sums else amount


def _quotient(total: Tensor, count: Tensor) -> float | None:
    return float(total / count) if count else None


def _quotients(totals: Tensor, counts: Tensor) -> list[float | None]:
    return [_quotient(total, count) for total, count in zip(totals, counts, strict=True)]
