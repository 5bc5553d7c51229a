"""Frames without coordinates: TaxiBJ's HDF5, and bare arrays in `.npy` and `.npz`.

Letters: N frames, C channels, Y X rows and columns.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forecast.errors import DataError
from forecast.grids.climatology import DAY
from forecast.grids.files import (
    BLOCK,
    Axes,
    Channel,
    GridOptions,
    Header,
    bare_mesh,
    block_rows,
    reading,
    time_range,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotFile:
    """Read HDF5 with `data` (N, C, Y, X) and `date` (N,) as YYYYMMDDSS, its complete days alone."""

    path: Path
    header: Header
    options: GridOptions
    kept: np.ndarray

    @classmethod
    def open(cls, path: Path, options: GridOptions) -> SlotFile:
        """Read the header."""
        import h5py  # noqa: PLC0415

        with reading(path), h5py.File(path) as file:
            shape = file["data"].shape  # pyright: ignore[reportAttributeAccessIssue]
            dates = np.asarray(file["date"]).astype("S10")  # pyright: ignore[reportArgumentType]
        if len(shape) != 4 or len(dates) != shape[0]:
            raise DataError(
                f"data has the shape {shape} and date {dates.shape}; expected are "
                "(frames, channels, rows, columns) and (frames,).",
                file=str(path),
            )
        times, per_day = _slot_times(dates, options.slots_per_day, path)
        days, counts = np.unique(times.astype("datetime64[D]"), return_counts=True)
        kept = np.isin(times.astype("datetime64[D]"), days[counts == per_day])
        kept = np.flatnonzero(kept)
        if not len(kept):
            raise DataError(
                f"No day of the file has all of its {per_day} slots.",
                hint="State another number with data.slots_per_day.",
                file=str(path),
            )
        kept = kept[time_range(times[kept], options)]
        names = ("inflow", "outflow") if shape[1] == 2 else tuple(map(str, range(shape[1])))
        header = Header(
            format="slots",
            times=times[kept],
            frames=len(kept),
            channels=tuple(Channel(name=name, variable=name, units="1") for name in names),
            mesh=bare_mesh(shape[2], shape[3], options, path),
            names={"time": "date", "channel": "data"},
        )
        return cls(path=path, header=header, options=options, kept=kept)

    def blocks(self) -> Iterator[np.ndarray]:
        """Read all frames in order, a block at a time."""
        import h5py  # noqa: PLC0415

        rows, columns = self.header.mesh.window
        with reading(self.path), h5py.File(self.path) as file:
            for part in _parts(self.kept, block_rows(self.header)):
                # One range, of which the frames of incomplete days are thrown away.
                span = slice(int(part[0]), int(part[-1]) + 1)
                block = np.asarray(file["data"][span, :, rows, columns], dtype=np.float32)  # pyright: ignore
                yield _valued(self.header.mesh.cut(block[part - part[0]]), self.options)


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayFile:
    """Read `.npy` and `.npz`: one array of frames, or the windows of a video benchmark.

    Windows that overlap as those of a sliding window do are put together to the frames they were
    cut from; others stay sequences of their own.
    """

    path: Path
    header: Header
    options: GridOptions
    member: str | None
    order: Axes
    rows: slice

    @classmethod
    def open(cls, path: Path, options: GridOptions) -> ArrayFile:
        """Read the header."""
        with reading(path):
            shapes = {name: _npy_header(path, name) for name in _npy_names(path)}
        if {"X_train", "Y_train", "X_test", "Y_test"} <= set(shapes):
            return cls._windows(path, options, shapes)
        member = "data" if "data" in shapes else next(iter(shapes))
        if len(shapes) > 1 and member != "data":
            raise DataError(
                f"The file holds {', '.join(sorted(shapes))}; expected is one array, `data`, or "
                "X_train, Y_train, X_test and Y_test.",
                hint="Write the frames as the array `data`.",
                file=str(path),
            )
        shape, _ = shapes[member]
        side = _sidecar(path)
        guesses: dict[int, Axes] = {
            3: ("time", "y", "x"),
            4: ("time", "channel", "y", "x"),
            5: ("sequence", "time", "channel", "y", "x"),
        }
        order = options.axes or tuple(side.get("axes", ())) or guesses.get(len(shape), ())
        if len(order) != len(shape) or {"time", "y", "x"} - set(order):
            raise DataError(
                f"An array of shape {shape} has not the axes {', '.join(order) or 'of a grid'}.",
                hint='State them: --set data.axes=["time", "channel", "y", "x"]',
                file=str(path),
            )
        sizes = dict(zip(order, shape, strict=True))
        length = sizes["time"]
        sequences = sizes.get("sequence")
        frames = length * (sequences or 1)
        times = None
        if "start" in side and sequences is None:
            step = np.timedelta64(round(float(side["step_hours"]) * 3.6e9), "us")
            times = np.datetime64(side["start"], "us") + step * np.arange(frames)
        rows = time_range(times, options) if times is not None else slice(0, frames)
        names = side.get("channels") or list(map(str, range(sizes.get("channel", 1))))
        units = side.get("units", "")
        header = Header(
            format="array",
            times=None if times is None else times[rows],
            frames=rows.stop - rows.start,
            starts=None if sequences is None else np.arange(frames) % length == 0,
            channels=tuple(Channel(name=name, variable=name, units=units) for name in names),
            mesh=bare_mesh(sizes["y"], sizes["x"], options, path),
            names={axis: axis for axis in order},
        )
        return cls(path=path, header=header, options=options, member=member, order=order, rows=rows)

    @classmethod
    def _windows(
        cls, path: Path, options: GridOptions, shapes: dict[str, tuple[tuple[int, ...], np.dtype]]
    ) -> ArrayFile:
        shape = shapes["X_train"][0]
        if any(len(found) != 5 or found[2:] != shape[2:] for found, _ in shapes.values()):
            raise DataError(
                "The windows differ in shape: "
                + ", ".join(f"{name} {found}" for name, (found, _) in shapes.items()),
                hint="All four have the axes window, time, channel, row, column.",
                file=str(path),
            )
        with reading(path):
            starts = np.concatenate([new for _, new in _sliding(path)])
        header = Header(
            format="array",
            times=None,
            frames=len(starts),
            starts=starts,
            channels=tuple(Channel(name=str(n), variable=str(n)) for n in range(shape[2])),
            mesh=bare_mesh(shape[3], shape[4], options, path),
            names={},
        )
        return cls(
            path=path, header=header, options=options, member=None, order=(),
            rows=slice(0, len(starts)),
        )  # fmt: skip

    def blocks(self) -> Iterator[np.ndarray]:
        """Read all frames in order, a block at a time."""
        rows, columns = self.header.mesh.window
        with reading(self.path):
            for block in self._raw():
                cut = self.header.mesh.cut(block[..., rows, columns].astype(np.float32))
                yield _valued(cut, self.options)

    def _raw(self) -> Iterator[np.ndarray]:
        if self.member is None:
            yield from (frames for frames, _ in _sliding(self.path))
            return
        size = block_rows(self.header)
        if self.order[0] == "time" and "sequence" not in self.order:
            place = self.rows.start
            axes = [self.order.index(axis) for axis in ("channel", "y", "x") if axis in self.order]
            for block in _npy_rows(self.path, self.member, size, self.rows):
                frames = block.transpose(0, *axes)
                yield frames if "channel" in self.order else frames[:, None]
                place += len(block)
            return
        # Frames that do not lie one behind the other: the array is mapped or, in an npz, read.
        array = _npy_mapped(self.path, self.member)
        places = {axis: place for place, axis in enumerate(self.order)}
        wanted = [axis for axis in ("sequence", "time", "channel", "y", "x") if axis in places]
        array = array.transpose([places[axis] for axis in wanted])
        if "channel" not in places:
            array = np.expand_dims(array, -3)
        length = array.shape[-4]
        for start in range(self.rows.start, self.rows.stop, size):
            number = np.arange(start, min(start + size, self.rows.stop))
            if "sequence" in places:
                yield array[number // length, number % length]
            else:
                yield array[number]


def _slot_times(dates: np.ndarray, slots_per_day: int | None, path: Path) -> tuple[np.ndarray, int]:
    """Turn YYYYMMDDSS into instants; slots count from 0 for hours and from 1 for half hours."""
    text = dates.astype("U10")
    try:
        days = np.array([f"{d[:4]}-{d[4:6]}-{d[6:8]}" for d in text], dtype="datetime64[D]")
        slots = np.array([int(d[8:]) for d in text])
    except ValueError as error:
        raise DataError(
            "The dates are not of the form YYYYMMDDSS.", hint=f"The first is {text[0]!r}.",
            file=str(path),
        ) from error  # fmt: skip
    first = 0 if slots.min() == 0 else 1
    per_day = slots_per_day or (24 if first == 0 else 48 if slots.max() > 24 else 0)
    if not per_day or slots.max() - first >= per_day:
        raise DataError(
            f"The slots run from {slots.min()} to {slots.max()}, from which their number a day "
            "cannot be told." if not per_day else
            f"The slots run up to {slots.max()}, and a day has {per_day}.",
            hint="State it with data.slots_per_day.",
            file=str(path),
        )  # fmt: skip
    slot = np.timedelta64(DAY // per_day, "us")
    return days.astype("datetime64[us]") + (slots - first) * slot, per_day


def _valued(block: np.ndarray, options: GridOptions) -> np.ndarray:
    if options.scale != 1.0 or options.offset != 0.0:
        block = block * np.float32(options.scale) + np.float32(options.offset)
    return np.maximum(np.rint(block), 0) if options.counts else block


def _parts(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _sidecar(path: Path) -> dict[str, Any]:
    beside = path.with_suffix(".json")
    return json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}


def _npy_names(path: Path) -> list[str]:
    if path.suffix == ".npy" or not zipfile.is_zipfile(path):
        return [""]
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


@contextmanager
def _npy_stream(path: Path, member: str) -> Generator[tuple[Any, tuple[int, ...], np.dtype]]:
    """Open an array of a `.npy` or `.npz` behind its header, to be read from front to back."""
    with ExitStack() as stack:
        if member:
            archive = stack.enter_context(zipfile.ZipFile(path))
            stream: Any = stack.enter_context(archive.open(f"{member}.npy"))
        else:
            stream = stack.enter_context(path.open("rb"))
        version = np.lib.format.read_magic(stream)
        old = version == (1, 0)
        read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
        if fortran or dtype.hasobject:
            raise DataError(
                "The array is stored in Fortran order or holds objects.",
                hint="Write it with numpy.save of an ascontiguousarray.",
                file=str(path),
            )
        yield stream, shape, dtype


def _npy_header(path: Path, member: str) -> tuple[tuple[int, ...], np.dtype]:
    with _npy_stream(path, member) as (_, shape, dtype):
        return shape, dtype


def _npy_rows(
    path: Path, member: str, size: int, rows: slice | None = None
) -> Iterator[np.ndarray]:
    """Read an array along its first axis, `size` rows at a time."""
    with _npy_stream(path, member) as (stream, shape, dtype):
        rows = rows or slice(0, shape[0])
        width = int(np.prod(shape[1:])) * dtype.itemsize
        stream.seek(stream.tell() + rows.start * width)
        for start in range(rows.start, rows.stop, size):
            count = min(size, rows.stop - start)
            content = stream.read(count * width)
            if len(content) < count * width:
                raise DataError("The file ends before its array does.", file=str(path))
            yield np.frombuffer(content, dtype).reshape(count, *shape[1:])


def _npy_mapped(path: Path, member: str) -> np.ndarray:
    return np.load(path)[member] if member else np.load(path, mmap_mode="r")


def _sliding(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Put windows of X_train, Y_train, X_test, Y_test together to frames.

    Yields:
        Frames (n, C, Y, X), and which of them start a sequence of their own.
    """
    last: np.ndarray | None = None
    for part in ("train", "test"):
        shape, dtype = _npy_header(path, f"X_{part}")
        size = max(1, BLOCK // max(1, int(np.prod(shape[1:])) * dtype.itemsize))
        pairs = zip(*(_npy_rows(path, f"{half}_{part}", size) for half in ("X", "Y")), strict=True)
        for block in pairs:
            frames: list[np.ndarray] = []
            starts: list[bool] = []
            for window in np.concatenate(block, axis=1):
                if last is not None and np.array_equal(window[:-1], last[1:]):
                    frames.append(window[-1:])
                    starts.append(False)
                else:
                    frames.append(window)
                    starts += [True] + [False] * (len(window) - 1)
                last = window
            yield np.concatenate(frames), np.array(starts)
