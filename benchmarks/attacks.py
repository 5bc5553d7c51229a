"""Attacks on what `forecast` reads from outside, counted: losses and internal errors must be none.

```
python benchmarks/attacks.py mutate [--count 1000] [--seed 0]
```

`mutate` changes trained artefacts of each kind of data: bytes flipped, files cut, fields of the
description dropped or given another type, tensors of other shapes, pipes and links for files. In
half of the attacks the hashes are stated anew, as somebody would who wants the artefact believed.
Each must be refused by a `ForecastError`, or give a forecast: the same one if the hashes were left.
Anything else is an internal error; another forecast, or more than `SLOW` seconds, is a loss.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import random
import shutil
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import torch
import xarray
from safetensors.torch import load, save

import forecast
from forecast.errors import ForecastError

SLOW = 20
Forecaster = Callable[[Path], Any]
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 3, 10**12, 10**400, 1.5, float("nan"), float("inf"), 1e308, "", "x",
    "../../x", "x" * 300, "\x00", "12", [], [None], [1, "a"], {}, {"a": 1}, [[1]], "zz/Nowhere",
)  # fmt: skip


def series_table(path: Path) -> Path:
    """Write a long table of two series with covariates of each sort."""
    random_numbers = np.random.default_rng(0)
    hours = pd.date_range("2024-01-01", periods=120, freq="h")
    parts = [
        pl.DataFrame(
            {
                "unique_id": [name] * 120,
                "ds": [f"{hour:%Y-%m-%d %H:%M:%S}" for hour in hours],
                "y": np.sin(np.arange(120) / 4) + random_numbers.normal(size=120) * 0.1,
                "promo": random_numbers.integers(0, 2, 120).astype(float),
                "price": random_numbers.normal(size=120),
                "sky": [("sun", "rain")[one] for one in random_numbers.integers(0, 2, 120)],
                "size": [1.5 + number] * 120,
                "region": ["ns"[number]] * 120,
            }
        )
        for number, name in enumerate(("a", "b"))
    ]
    pl.concat(parts).write_csv(path)
    return path


def series(folder: Path) -> tuple[Path, Forecaster]:
    """Train a forecaster of series; return its artefact and what forecasts with one."""
    source = series_table(folder / "long.csv")
    settings = ("model.width=8", "model.heads=1", "model.layers=1", "train.epochs=1",
                'data.known_future=["promo"]', 'data.past_covariates=["price"]',
                'data.categorical=["sky"]', 'data.static=["size", "region"]',
                "train.threads=1")  # fmt: skip
    trained = forecast.train(source, model="itransformer", lookback=12, horizon=4,
                             settings=settings)  # fmt: skip
    table = pl.read_csv(source)
    ahead = table.group_by("unique_id", maintain_order=True).tail(4).with_columns(
        ds=pl.lit("2024-01-06 0") + pl.int_range(4).over("unique_id").cast(pl.String) + ":00:00",
        y=pl.lit(None, pl.Float64),
    )  # fmt: skip
    ready = pl.concat([table, ahead])
    return trained.artefact, lambda place: forecast.predict(place, ready, "cpu", level=[80])


def grids(folder: Path) -> tuple[Path, Forecaster]:
    """Train a forecaster of grids, as `series` does."""
    values = 280 + np.random.default_rng(0).normal(size=(120, 4, 4)).cumsum(0)
    xarray.Dataset(
        {"t2m": (("time", "lat", "lon"), values.astype(np.float32), {"units": "K"})},
        {"time": pd.date_range("2024-03-01", periods=120, freq="h"),
         "lat": [50.0, 51, 52, 53], "lon": [0.0, 1, 2, 3]},
    ).to_netcdf(folder / "grid.nc", engine="h5netcdf")  # fmt: skip
    settings = ('model.rule="time-of-day"', "train.threads=1")
    trained = forecast.train(folder / "grid.nc", model="grid-rule", lookback=6, horizon=3,
                             settings=settings)  # fmt: skip
    source = str(folder / "grid.nc")
    return trained.artefact, lambda place: forecast.predict(place, source, "cpu").to_dataframe()


def graphs(folder: Path) -> tuple[Path, Forecaster]:
    """Train a forecaster of links, as `series` does."""
    numbers = np.random.default_rng(0)
    pl.DataFrame(
        {"src": numbers.integers(0, 20, 400), "dst": numbers.integers(20, 40, 400),
         "t": np.sort(numbers.integers(0, 100_000, 400))}
    ).write_csv(folder / "events.csv")  # fmt: skip
    settings = ("model.width=8", "train.epochs=1", "train.threads=1")
    trained = forecast.train(folder / "events.csv", model="todyformer", settings=settings)
    return trained.artefact, lambda place: forecast.predict(place, None, "cpu", top=3)


KINDS = {"series": series, "grids": grids, "graphs": graphs}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List where in a document a value can be dropped or changed."""
    found = [path] if path else []
    if not isinstance(value, dict | list):
        return found
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        found += places(item, (*path, key))
    return found


def state_anew(folder: Path, described: dict[str, Any]) -> None:
    """Write a description with the hashes that its files now have."""
    named = described.get("sha256")
    if isinstance(named, dict):
        for name in named:
            if isinstance(name, str) and (folder / name).is_file() and name != "forecaster.json":
                named[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        named.pop("forecaster.json", None)
    (folder / "forecaster.json").write_text(json.dumps(described))


def drop_or_retype(folder: Path, dice: random.Random) -> str:
    """Drop a field, or give it a value of another type or beyond all bounds."""
    described = json.loads((folder / "forecaster.json").read_text())
    *parents, last = dice.choice(places(described))
    holder: Any = described
    for key in parents:
        holder = holder[key]
    if dice.random() < 0.3:
        del holder[last]
        done = "dropped"
    else:
        holder[last] = copy.deepcopy(dice.choice(ODD))
        done = f"= {str(holder[last])[:30]!r}"
    state_anew(folder, described)
    return f"{'.'.join(map(str, (*parents, last)))} {done}"


def misshape(folder: Path, dice: random.Random) -> str:
    """Give a tensor another shape, type or content."""
    file = folder / dice.choice(("weights.safetensors", "arrays.safetensors"))
    tensors = load(file.read_bytes())
    if not tensors:
        return "nothing to misshape"
    name = dice.choice(sorted(tensors))
    old = torch.atleast_1d(tensors[name])
    changes: dict[str, Callable[[], torch.Tensor | None]] = {
        "flat": lambda: old.reshape(-1), "one axis more": lambda: old[None],
        "empty": lambda: old.reshape(-1)[:0], "half": lambda: old[: len(old) // 2],
        "bool": lambda: old > 0,
        "int": lambda: torch.nan_to_num(old.float()).clamp(-9, 9).to(torch.int32),
        "nan": lambda: torch.full_like(old, torch.nan) if old.is_floating_point() else old,
        "zero": lambda: torch.zeros_like(old), "twice": lambda: torch.cat([old.reshape(-1)] * 2),
        "gone": lambda: None,
    }  # fmt: skip
    what = dice.choice(sorted(changes))
    new = changes[what]()
    tensors = {key: value for key, value in tensors.items() if key != name}
    if new is not None:
        tensors[name] = new.contiguous()
    file.write_bytes(save(tensors))
    state_anew(folder, json.loads((folder / "forecaster.json").read_text()))
    return f"{file.name}: {name} {what}"


def flip(folder: Path, dice: random.Random) -> str:
    """Flip some bits of a file, its hash left."""
    file = dice.choice(sorted(folder.iterdir()))
    content = bytearray(file.read_bytes())
    for _ in range(dice.randint(1, 8)):
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    file.write_bytes(content)
    return f"{file.name}: bits flipped"


def cut(folder: Path, dice: random.Random) -> str:
    """Cut a file off, its hash left."""
    file = dice.choice(sorted(folder.iterdir()))
    content = file.read_bytes()
    file.write_bytes(content[: dice.randrange(len(content))])
    return f"{file.name}: cut"


def replace(folder: Path, dice: random.Random) -> str:
    """Put what is no file, or no document, in a file's place."""
    file = dice.choice(sorted(folder.iterdir()))
    file.unlink()
    what = dice.choice(("pipe", "device", "folder", "loop", "deep", "digits", "nothing"))
    if what == "pipe":
        os.mkfifo(file)
    elif what in ("device", "loop"):
        file.symlink_to("/dev/zero" if what == "device" else file)
    elif what == "folder":
        file.mkdir()
    elif what == "deep":
        file.write_text('{"a":' * 50_000)
    elif what == "digits":
        file.write_text(f'{{"format": {"9" * 10_000}}}')
    return f"{file.name}: {what}"


# Mutation -> whether an artefact that passes must give the same forecast.
MUTATIONS: dict[Callable[[Path, random.Random], str], bool] = {
    drop_or_retype: False, misshape: False, flip: True, cut: True, replace: True,
}  # fmt: skip


def same(one: Any, other: Any) -> bool:
    """Compare two frames, of polars or of pandas."""
    return bool(one.equals(other))


def attack(
    whole: Path, predict: Forecaster, expected: Any, folder: Path, seed: int
) -> tuple[str, str]:
    """Make one mutated artefact and try it; return what came of it, and what was done."""
    dice = random.Random(seed)
    shutil.copytree(whole, folder)
    # Half of the attacks on fields and tensors, which reach the furthest.
    mutation = dice.choice([drop_or_retype, drop_or_retype, misshape, *MUTATIONS])
    done = mutation(folder, dice)

    def late(number: int, frame: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SLOW)
    try:
        found = predict(folder)
    except ForecastError as error:
        return ("refused" if str(error).strip() else "internal error"), done
    except TimeoutError:
        return "loss", f"{done}: too slow"
    # What this counts.
    except Exception as error:  # noqa: BLE001
        return "internal error", f"{done}: {type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        shutil.rmtree(folder, ignore_errors=True)
    if MUTATIONS[mutation] and not same(found, expected):
        return "loss", done
    return "forecast", done


def mutate(count: int, seed: int, kinds: tuple[str, ...] = tuple(KINDS)) -> Counter[str]:
    """Try mutated artefacts; print those that were lost or ended in an internal error."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        os.environ |= {"FORECAST_HOME": str(root), "MLFLOW_TRACKING_URI": f"sqlite:///{root}/m.db"}
        made = [KINDS[kind](root) for kind in kinds]
        wholes = [(place, predict, predict(place)) for place, predict in made]
        for number in range(count):
            place, predict, expected = wholes[number % len(wholes)]
            came, done = attack(place, predict, expected, root / "mutant", seed + number)
            counts[came] += 1
            if came in ("loss", "internal error"):
                print(f"{came}, seed {seed + number}, {kinds[number % len(wholes)]}: {done}")
    return counts


def main() -> None:
    """Run an attack and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attack", choices=["mutate"])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    began = time.monotonic()
    counts = mutate(given.count, given.seed)
    figures = {name: counts[name] for name in ("refused", "forecast", "loss", "internal error")}
    shown = ", ".join(f"{name} {number}" for name, number in figures.items())
    print(f"{given.count} mutated artefacts in {time.monotonic() - began:.0f} s: {shown}")


if __name__ == "__main__":
    main()
