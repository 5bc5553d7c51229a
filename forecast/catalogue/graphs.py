"""Known data sets of graphs: what is published about each, and where its files are looked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from forecast.catalogue.dataset import Published
from forecast.catalogue.files import KnownFile


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphDataset(Published):
    """A published graph; its files are the events, or the readings and then the edges.

    Attributes:
        kind: the kind of data.
    """

    kind: Literal["graph"] = "graph"
    lookback: int = 4096
    horizon: int = 1


COLLEGEMSG = GraphDataset(
    name="collegemsg",
    title="Messages between students of a university, by the second",
    description=(
        "Private messages in an online community at the University of California, Irvine, 1,899 "
        "people from April to October 2004; much used under the name UCI."
    ),
    files=(
        KnownFile(
            path="graph/CollegeMsg.txt",
            sha256="e00ba2415373dee52c00616065bcceaa4750e78de60d1855c76470600f10740f",
            size=1_150_439,
            dataset="collegemsg",
        ),
    ),
    options={"task": "link"},
    rows=59_835,
    variates=("link",),
    target="link",
    licence="none stated",
    citation=(
        "P. Panzarasa, T. Opsahl, K. M. Carley: Patterns and dynamics of users' behavior and "
        "interaction. JASIST 60(5), 2009. doi:10.1002/asi.21015"
    ),
    source="https://snap.stanford.edu/data/CollegeMsg.html",
)

ENRON = GraphDataset(
    name="enron",
    title="E-mails inside the company Enron, by the second",
    description=(
        "E-mails between 184 employees over three years, times counted from the first; seven of "
        "ten repeat another with equal ends and time."
    ),
    files=(
        KnownFile(
            path="graph/ml_enron.txt",
            sha256="94d1c7501be851980174b74072786aad55c4f1a69403d60935451fa8e15f72f7",
            size=2_021_117,
            dataset="enron",
        ),
    ),
    options={"task": "link"},
    rows=125_235,
    variates=("link",),
    target="link",
    licence="unknown",
    citation=(
        "F. Poursafaei, S. Huang, K. Pelrine, R. Rabbany: Towards Better Evaluation for Dynamic "
        "Link Prediction. NeurIPS 2022. arXiv 2207.10128"
    ),
    source="https://zenodo.org/records/7213796",
)

BITCOIN_OTC = GraphDataset(
    name="bitcoin-otc",
    title="Who rates whom on a market for bitcoins, by the second",
    description=(
        "Ratings from -10 to 10 that traders on Bitcoin OTC gave each other, 2010 to 2016; no pair "
        "occurs twice, so that whom one met is whom one does not meet: of the 100 candidates that "
        "a link is ranked against, up to 50 are past destinations of its source and can be ruled "
        "out by construction."
    ),
    files=(
        KnownFile(
            path="graph/soc-sign-bitcoinotc.csv",
            sha256="afa3644e6b8d5c9e14af07566532ece17a150481eebfcd8e8a3882983837b802",
            size=1_011_227,
            dataset="bitcoin-otc",
        ),
    ),
    options={"task": "link"},
    rows=35_592,
    variates=("link",),
    target="link",
    licence="none stated",
    citation=(
        "S. Kumar, F. Spezzano, V. S. Subrahmanian, C. Faloutsos: Edge Weight Prediction in "
        "Weighted Signed Networks. ICDM 2016. doi:10.1109/ICDM.2016.0033"
    ),
    source="https://snap.stanford.edu/data/soc-sign-bitcoin-otc.html",
)

METR_LA = GraphDataset(
    name="metr-la",
    title="Speeds at 207 places of Los Angeles' motorways, every 5 minutes of a week",
    description=(
        "Mean speeds [mph] at loop detectors in the first week of March 2012, gaps filled, and "
        "the distances between the detectors along the roads as weights of edges."
    ),
    files=(
        KnownFile(
            path="graph/los_speed.csv",
            sha256="7b732d86ae32b2930595becba28aff39dacbfb2197e250fc0332e1744ce2cbf4",
            size=3_402_125,
            dataset="metr-la",
        ),
        KnownFile(
            path="graph/metr_la_adj_edges.csv",
            sha256="bf61917beaa6e833965fb41a75739eb2d379902eeeb08d9958cea833c80d907c",
            size=26_261,
            dataset="metr-la",
        ),
    ),
    options={"task": "sensor", "split": (1_411, 201, 404), "season": 288, "averaged": 3},
    rows=2_016,
    variates=("speed",),
    target="speed",
    frequency="5min",
    season=288,
    lookback=12,
    horizon=12,
    licence="MIT in part",
    citation=(
        "Y. Li, R. Yu, C. Shahabi, Y. Liu: Diffusion Convolutional Recurrent Neural Network: "
        "Data-Driven Traffic Forecasting. ICLR 2018. arXiv 1707.01926"
    ),
    source="https://github.com/liyaguang/DCRNN",
)

ENGLAND_COVID = GraphDataset(
    name="england-covid",
    title="Cases of Covid-19 in 129 regions of England, every day, and who moved between them",
    description=(
        "New cases a day from March to May 2020 and, as edges with weights, how many people moved "
        "between regions on each of the 61 days."
    ),
    files=(
        KnownFile(
            path="graph/england_covid.json",
            sha256="497056cc4585b58951fd5cd17554fe0c535f68ea0c907a5b5727ae30e3913450",
            size=1_436_945,
            dataset="england-covid",
        ),
    ),
    options={"task": "node", "split": (42, 6, 13), "season": 7, "averaged": 7},
    rows=61,
    variates=("cases",),
    target="cases",
    frequency="D",
    season=7,
    lookback=14,
    horizon=1,
    licence="MIT",
    citation=(
        "G. Panagopoulos, G. Nikolentzos, M. Vazirgiannis: Transfer Graph Neural Networks for "
        "Pandemic Forecasting. AAAI 2021. arXiv 2009.08388"
    ),
    source="https://github.com/benedekrozemberczki/pytorch_geometric_temporal",
)

SETS = (COLLEGEMSG, ENRON, BITCOIN_OTC, METR_LA, ENGLAND_COVID)
