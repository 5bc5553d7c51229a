"""ETT: load and oil temperature of two electricity transformers, two years, four files.

Source: Zhou et al., Informer, AAAI 2021, section 5.1. The borders are those of the public code that
every later paper follows: twelve, four and four months of thirty days; the last rows stay unused.
"""

from __future__ import annotations

from forecast.catalogue.dataset import Dataset, Split
from forecast.catalogue.files import KnownFile

_ADDRESS = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small"
_MONTH = 30 * 24


def _transformer(
    name: str, *, station: int, rows_per_hour: int, rows: int, sha256: str, size: int
) -> Dataset:
    file_name = f"ETT{name[3:]}.csv"
    step = "every hour" if rows_per_hour == 1 else "every 15 minutes"
    month = _MONTH * rows_per_hour
    return Dataset(
        name=name,
        title=f"Electricity transformer temperature, station {station}, {step}",
        description=(
            f"Six load measurements and the oil temperature of electricity transformer {station} "
            f"in a province of China, {step}, July 2016 to June 2018."
        ),
        files=(
            KnownFile(
                path=f"ett/{file_name}",
                sha256=sha256,
                size=size,
                urls=(f"{_ADDRESS}/{file_name}",),
                dataset=name,
            ),
        ),
        options={"time": "date", "date_format": "%Y-%m-%d %H:%M:%S"},
        rows=rows,
        variates=("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"),
        target="OT",
        frequency="h" if rows_per_hour == 1 else "15min",
        season=24 * rows_per_hour,
        split=Split(train=12 * month, val=4 * month, test=4 * month),
        licence="CC BY-ND 4.0: name the authors, pass on unmodified copies only",
        citation=(
            "H. Zhou, S. Zhang, J. Peng, S. Zhang, J. Li, H. Xiong, W. Zhang: Informer: Beyond "
            "Efficient Transformer for Long Sequence Time-Series Forecasting. AAAI 2021. "
            "doi:10.1609/aaai.v35i12.17325"
        ),
        source="https://github.com/zhouhaoyi/ETDataset",
    )


ETTH1 = _transformer(
    "etth1",
    station=1,
    rows_per_hour=1,
    rows=17_420,
    sha256="f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
    size=2_589_657,
)
ETTH2 = _transformer(
    "etth2",
    station=2,
    rows_per_hour=1,
    rows=17_420,
    sha256="a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b",
    size=2_417_960,
)
ETTM1 = _transformer(
    "ettm1",
    station=1,
    rows_per_hour=4,
    rows=69_680,
    sha256="6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e",
    size=10_360_719,
)
ETTM2 = _transformer(
    "ettm2",
    station=2,
    rows_per_hour=4,
    rows=69_680,
    sha256="db973ca252c6410a30d0469b13d696cf919648d0f3fd588c60f03fdbdbadd1fd",
    size=9_677_236,
)
