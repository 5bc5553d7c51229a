"""Crowd flows on city grids: TaxiBJ, BikeNYC in the same layout, and Moving MNIST beside them.

The layout is HDF5 with `data` (frames, inflow and outflow, 32, 32) and `date` as YYYYMMDDSS, where
SS counts half hours from 01 or hours from 00. Days that lack a slot are left out; a window lies
within a run of complete days. OpenSTL's `.npz` holds the same frames as windows that overlap; they
are put together again, for kept as windows they take eight times the memory.

Source: Zhang et al., "Deep Spatio-Temporal Residual Networks for Citywide Crowd Flows Prediction",
AAAI 2017, section 5.1; the window counts are those of SimVP and OpenSTL.
"""

from __future__ import annotations

from forecast.catalogue.files import KnownFile
from forecast.catalogue.grids import GridDataset

_HALF_HOURS = 48
# The last four weeks are the test part in every paper since SimVP.
_FOUR_WEEKS = 28 * _HALF_HOURS

_CITATION = (
    "J. Zhang, Y. Zheng, D. Qi: Deep Spatio-Temporal Residual Networks for Citywide Crowd Flows "
    "Prediction. AAAI 2017. doi:10.1609/aaai.v31i1.10735"
)
_DEAD = (
    "TaxiBJ has no official address any more, and its makers allow no copies: the links in its "
    "repository, github.com/lucktroy/DeepST, are dead. Bring BJ13 to BJ16_M32x32_T30_InOut.h5 or "
    "OpenSTL's dataset.npz of your own."
)

TAXIBJ = GridDataset(
    name="taxibj",
    title="Taxis entering and leaving 32 x 32 cells of Beijing, every half hour",
    description=(
        "Inflow and outflow of taxis in the cells of a grid over Beijing, 445 complete days of "
        "four periods between July 2013 and April 2016."
    ),
    patterns=("taxibj/BJ*_M32x32_T30_InOut.h5",),
    missing=_DEAD,
    options={
        "counts": True,
        "gaps": "split",
        "slots_per_day": _HALF_HOURS,
        "split": (0, _FOUR_WEEKS, _FOUR_WEEKS),
    },
    rows=445 * _HALF_HOURS,
    variates=("inflow", "outflow"),
    target="inflow",
    frequency="30min",
    season=_HALF_HOURS,
    lookback=4,
    horizon=4,
    licence="none: not to be passed on",
    citation=_CITATION,
    source="https://github.com/lucktroy/DeepST",
)

TAXIBJ_NPZ = GridDataset(
    name="taxibj-npz",
    title="TaxiBJ as OpenSTL's windows, without dates",
    description="The frames of taxibj, put together from the overlapping windows of OpenSTL's npz.",
    patterns=("taxibj/dataset.npz",),
    missing=_DEAD,
    options={
        "counts": True,
        # The file holds 2 x / 1292 - 1, of x vehicles.
        "scale": 646.0,
        "offset": 646.0,
        "protocol": "openstl",
        "split": (20_461, 0, 500),
    },
    rows=21_360,
    variates=("0", "1"),
    target="0",
    frequency="",
    season=1,
    lookback=4,
    horizon=4,
    licence="none: not to be passed on",
    citation=_CITATION,
    source="https://github.com/chengtan9907/OpenSTL",
)

BIKENYC = GridDataset(
    name="bikenyc",
    title="Bikes entering and leaving 16 x 8 cells of New York, every hour, the last 57 days",
    description=(
        "Inflow and outflow of hired bikes in the cells of a grid over New York, 5 August to 30 "
        "September 2014, in TaxiBJ's layout."
    ),
    files=(
        KnownFile(
            path="grid/NYC14_M16x8_T60_tail1369h.h5",
            sha256="1dc5b92771c993b7a929926eb6634af67bdc8bfe8d0498af7578d2e482b9be26",
            size=284_775,
            dataset="bikenyc",
        ),
    ),
    options={"counts": True, "gaps": "split", "split": (888, 240, 240)},
    rows=1_368,
    variates=("inflow", "outflow"),
    target="inflow",
    frequency="h",
    season=24,
    lookback=4,
    horizon=4,
    licence="none: not to be passed on",
    citation=_CITATION,
    source="https://github.com/lucktroy/DeepST",
)

MOVING_MNIST = GridDataset(
    name="moving-mnist",
    title="Two digits that move and bounce, 10,000 sequences of 20 frames",
    description="The published test sequences of Moving MNIST, 64 x 64 pixels of 8 bits.",
    patterns=("moving-mnist/mnist_test_seq.npy",),
    missing=(
        "Moving MNIST is made from MNIST digits, and the published test sequences are "
        "mnist_test_seq.npy of www.cs.toronto.edu/~nitish/unsupervised_video."
    ),
    options={
        "axes": ("time", "sequence", "y", "x"),
        "scaling": "maximum",
        "split": (0.8, 0.1, 0.1),
    },
    rows=200_000,
    variates=("0",),
    target="0",
    frequency="",
    season=1,
    lookback=10,
    horizon=10,
    licence="unknown",
    citation=(
        "N. Srivastava, E. Mansimov, R. Salakhutdinov: Unsupervised Learning of Video "
        "Representations using LSTMs. ICML 2015. arXiv 1502.04681"
    ),
    source="https://www.cs.toronto.edu/~nitish/unsupervised_video/",
)

SETS = (TAXIBJ, TAXIBJ_NPZ, BIKENYC, MOVING_MNIST)
