"""Known data sets, those of packages too: `DATASETS` is the table, `dataset` looks a name up.

A package adds a data set by an entry point of the group `forecast.datasets` that names a `Dataset`,
`GridDataset` or `GraphDataset`: docs/extending.md.

Importing this package reads no file and imports none of the heavy libraries, so that commands which
only list or fetch start at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from forecast import plugins
from forecast.catalogue import graphs, taxibj, weatherbench
from forecast.catalogue.dataset import Dataset, Split
from forecast.catalogue.ett import ETTH1, ETTH2, ETTM1, ETTM2
from forecast.catalogue.files import KnownFile
from forecast.catalogue.graphs import GraphDataset
from forecast.catalogue.grids import GRID_SUFFIXES, GridDataset
from forecast.errors import NotFoundError, nearest

EXCHANGE = Dataset(
    name="exchange",
    title="Exchange rates of eight currencies, every day",
    description=(
        "Exchange rates of the currencies of Australia, Britain, Canada, Switzerland, China, "
        "Japan, New Zealand and Singapore. A random walk in all but name: the last value is a "
        "forecast that nothing honest beats by much."
    ),
    files=(
        KnownFile(
            path="exchange_rate.csv",
            sha256="48b4d9d3d508f5104162e85b9a6042e3557fde11aa9f2944eba8c0d0efc89842",
            size=637_800,
            dataset="exchange",
        ),
    ),
    options={"time": "date", "date_format": "%Y/%m/%d %H:%M"},
    rows=7_588,
    variates=("0", "1", "2", "3", "4", "5", "6", "OT"),
    target="OT",
    frequency="D",
    season=7,
    split=Split(train=0.7, val=0.1, test=0.2),
    licence="unknown: published without one",
    citation=(
        "G. Lai, W.-C. Chang, Y. Yang, H. Liu: Modeling Long- and Short-Term Temporal Patterns "
        "with Deep Neural Networks. SIGIR 2018. doi:10.1145/3209978.3210006"
    ),
    source="https://github.com/laiguokun/multivariate-time-series-data",
)

METRO_TRAFFIC = Dataset(
    name="metro-traffic",
    title="Traffic on Interstate 94 and the weather, every hour (ships with this package)",
    description=(
        "Westbound vehicles an hour on Interstate 94 between Minneapolis and St Paul, with air "
        "temperature and cloud cover, October 2016 to September 2018; 104 hours are missing."
    ),
    files=(
        KnownFile(
            path="metro_traffic.csv.gz",
            sha256="e5c7eef6b9e5aeeb0938f107e2e1e35f64bc8224a5898e07d17aafed3b2cd3e5",
            size=146_930,
            dataset="metro-traffic",
            packaged=True,
        ),
    ),
    # Not snow_1h, which is always 0, nor rain_1h, which is 0 in all but 12 training rows: scaled by
    # those, the rain of the test part would be all that a score shows.
    options={
        "time": "datetime",
        "date_format": "%Y-%m-%d %H:%M:%S",
        "target": ("clouds_all", "temp", "traffic_volume"),
    },
    rows=17_520,
    variates=("clouds_all", "temp", "traffic_volume"),
    target="traffic_volume",
    frequency="h",
    season=24,
    lookback=168,
    horizon=24,
    split=Split(train=0.7, val=0.1, test=0.2),
    licence="CC BY 4.0: name the author; the two-year cut is MIT, Colin Catlin",
    citation=(
        "J. Hogue: Metro Interstate Traffic Volume. UCI Machine Learning Repository, 2019. "
        "doi:10.24432/C5X60B"
    ),
    source="https://archive.ics.uci.edu/dataset/492/metro+interstate+traffic+volume",
)

Known = Dataset | GridDataset | GraphDataset
Kind = Literal["series", "grid", "graph"]

_OWN: dict[str, Known] = {
    "etth1": ETTH1,
    "etth2": ETTH2,
    "ettm1": ETTM1,
    "ettm2": ETTM2,
    "exchange": EXCHANGE,
    "metro-traffic": METRO_TRAFFIC,
    **{known.name: known for known in (*taxibj.SETS, *weatherbench.SETS, *graphs.SETS)},
}


def _fault(name: str, row: object) -> str:
    """Check a row that a package adds: what is wrong with it, empty for nothing."""
    if not isinstance(row, Dataset | GridDataset | GraphDataset):
        return "is no Dataset, GridDataset or GraphDataset of forecast.catalogue"
    return "" if row.name == name else f"calls itself {row.name!r}"


DATASETS: plugins.Registry[Known] = plugins.Registry(
    _OWN, group="forecast.datasets", called="data set", fault=_fault
)


def dataset(name: str) -> Known:
    """Return the known data set of that name, in any case.

    Raises:
        NotFoundError: there is none, or its package cannot be imported.
        UsageError: the row that a package adds cannot be used.
    """
    if name.lower() not in DATASETS:
        raise NotFoundError(f"No data set is called {name!r}.", hint=nearest(name, DATASETS))
    return DATASETS[name.lower()]


def kinds_of(source: str | Sequence[str]) -> tuple[Kind, ...]:
    """Return which kinds of data a name or a path may hold, the likeliest first, opening nothing.

    Args:
        source: the name of a known data set, a file, a folder or a pattern; or several.
    """
    if not isinstance(source, str):
        first = source[0] if source else ""
        # Two tables are the readings of sensors and the edges between them.
        return ("grid",) if kinds_of(first)[0] == "grid" else ("graph",)
    if source in DATASETS:
        return (DATASETS[source].kind,)
    path = Path(source)
    if path.suffix == ".zip":
        # A zipped table, or a whole Zarr store in one file.
        return ("grid",) if path.stem.endswith(".zarr") else ("series",)
    if path.is_dir() and path.suffix != ".zarr":
        grids = any(one.suffix in GRID_SUFFIXES for one in path.iterdir())
        return ("grid",) if grids else ("series",)
    if path.suffix == ".npz":
        return "grid", "graph"
    if path.suffix in GRID_SUFFIXES:
        return ("grid",)
    return ("graph",) if path.suffix == ".json" else ("series", "graph")
