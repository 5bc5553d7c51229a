"""WeatherBench 1 and 2, and three small sets of weather on grids: names, files, splits.

WeatherBench 1 is NetCDF, a folder for each variable and a file for each year, with the ECMWF's
short names inside. WeatherBench 2 is Zarr with long names, longitude before latitude.

Source: Rasp et al., "WeatherBench", JAMES 2020, section 2; Rasp et al., "WeatherBench 2", JAMES
2024, section 2; OpenSTL for the years and windows of its T2m task.
"""

from __future__ import annotations

from forecast.catalogue.files import KnownFile
from forecast.catalogue.grids import GridDataset

# Short names of the ECMWF, and the long ones of the same variables.
LONG_NAMES = {
    "t2m": "2m_temperature",
    "u10": "10m_u_component_of_wind",
    "v10": "10m_v_component_of_wind",
    "z": "geopotential",
    "t": "temperature",
    "q": "specific_humidity",
    "r": "relative_humidity",
    "u": "u_component_of_wind",
    "v": "v_component_of_wind",
    "w": "vertical_velocity",
    "vo": "vorticity",
    "pv": "potential_vorticity",
    "tp": "total_precipitation",
    "tcc": "total_cloud_cover",
    "tisr": "toa_incident_solar_radiation",
    "msl": "mean_sea_level_pressure",
    "sst": "sea_surface_temperature",
}
_SHORT_NAMES = {long: short for short, long in LONG_NAMES.items()}

_ERA5 = "CC BY 4.0: contains modified Copernicus Climate Change Service information"
_CITATION = (
    "S. Rasp, P. D. Dueben, S. Scher, J. A. Weyn, S. Mouatadid, N. Thuerey: WeatherBench: A "
    "Benchmark Data Set for Data-Driven Weather Forecasting. JAMES 2020. doi:10.1029/2020MS002203"
)
_DEAD = (
    "The server of WeatherBench 1 (mediatum.ub.tum.de/1524895, dataserv.ub.tum.de) is switched "
    "off. Bring the files of the variable for each year, 2m_temperature_1979_5.625deg.nc and so "
    "on, or make them from WeatherBench 2."
)


def other_name(name: str) -> str:
    """Return the long name for a short one and the short one for a long one, levels kept."""
    variable, _, level = name.rpartition("_")
    if variable and level.replace(".", "").isdigit():
        return f"{other_name(variable)}_{level}"
    return LONG_NAMES.get(name) or _SHORT_NAMES.get(name, name)


WEATHERBENCH_T2M = GridDataset(
    name="weatherbench-t2m",
    title="Temperature at 2 m of the globe, 5.625 degrees, every hour (WeatherBench 1)",
    description="ERA5 temperature at 2 m on 32 x 64 cells, 1979 to 2018.",
    patterns=("weatherbench/5.625deg/2m_temperature/2m_temperature_*_5.625deg.nc",),
    missing=_DEAD,
    options={"variables": ("t2m",), "first": "2010", "last": "2018", "split": ("2016", "2017")},
    rows=78_888,
    variates=("t2m",),
    target="t2m",
    frequency="h",
    season=24,
    lookback=12,
    horizon=12,
    licence=_ERA5,
    citation=_CITATION,
    source="https://github.com/pangeo-data/WeatherBench",
)

WEATHERBENCH2 = GridDataset(
    name="weatherbench2",
    title="Weather of the globe, 64 x 32 cells, every 6 hours (WeatherBench 2)",
    description=(
        "ERA5 geopotential at 500 hPa, temperature at 850 hPa and 2 m and more, 1959 to 2021, the "
        "test year being 2020."
    ),
    patterns=("weatherbench2/1959-*-6h-64x32_equiangular_conservative.zarr",),
    missing=(
        "WeatherBench 2 lies in Google's public bucket gs://weatherbench2/datasets/era5, from "
        "which gsutil cp -r copies 1959-2022-6h-64x32_equiangular_conservative.zarr."
    ),
    options={
        "variables": ("2m_temperature",),
        "first": "1979",
        "last": "2020",
        "split": ("2019", "2020"),
    },
    rows=61_364,
    variates=("2m_temperature",),
    target="2m_temperature",
    frequency="6h",
    season=4,
    lookback=4,
    horizon=20,
    licence=_ERA5,
    citation=(
        "S. Rasp et al.: WeatherBench 2: A Benchmark for the Next Generation of Data-Driven Global "
        "Weather Models. JAMES 2024. doi:10.1029/2023MS004019"
    ),
    source="https://weatherbench2.readthedocs.io",
)

UK_T2M = GridDataset(
    name="uk-t2m",
    title="Temperature at 2 m over Great Britain, a quarter degree, every hour of March 2019",
    description="ERA5 temperature at 2 m, 50 to 57.75 N and 10 W to 1.75 E.",
    files=(
        KnownFile(
            path="grid/2m_temperature_2019-03_uk_0.25deg.nc",
            sha256="54ad7240d72a67645a7342e04fde7cf1d952317723d78c43e6494e553afb47e1",
            size=1_885_763,
            dataset="uk-t2m",
        ),
    ),
    options={"rows": (0, 32), "columns": (0, 48), "split": (504, 72, 168), "inside": True},
    rows=744,
    variates=("t2m",),
    target="t2m",
    frequency="h",
    season=24,
    lookback=12,
    horizon=12,
    licence=_ERA5,
    citation=(
        "H. Hersbach et al.: The ERA5 global reanalysis. Quarterly Journal of the Royal "
        "Meteorological Society, 2020. doi:10.1002/qj.3803"
    ),
    source="https://github.com/pydata/xarray-data",
)

FNOC_WIND = GridDataset(
    name="fnoc-wind",
    title="Zonal wind at the surface of the globe, 2.5 degrees, monthly means 1982 to 1992",
    description="Monthly means of the zonal wind of the US Navy's analyses, poles included.",
    files=(
        KnownFile(
            path="grid/fnoc_uwnd_monthly_1982-1992_2.5deg.nc",
            sha256="cf6148fa4e6dedda4b5d97cdd13753a167c961531698b8a092bc42cb5e7252dc",
            size=4_346_767,
            dataset="fnoc-wind",
        ),
    ),
    options={"split": (96, 12, 24)},
    rows=132,
    variates=("uwnd",),
    target="uwnd",
    frequency="MS",
    season=12,
    lookback=12,
    horizon=1,
    licence="public domain; the Ferret notice is to be kept",
    citation="NOAA Pacific Marine Environmental Laboratory: Ferret data set monthly_navy_winds.",
    source="https://ferret.pmel.noaa.gov/Ferret",
)

SETS = (WEATHERBENCH_T2M, WEATHERBENCH2, UK_T2M, FNOC_WIND)
