"""What is read from outside is read up to a stated size, and from regular files alone.

A compressed file of some megabytes can hold more than a machine has memory, and a pipe or a device
has no end. Whoever reads a file that somebody else wrote reads it through here.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Protocol

from forecast.errors import DataError

# Compressed data may grow to this many times their size; text and Parquet grow 3 to 30 times.
MOST_GROWTH = 200
# Small files may grow by more: to so many bytes [B].
ALWAYS_ALLOWED = 1 << 28
# A document (JSON, TOML) is read up to so many bytes [B].
MOST_DOCUMENT = 1 << 28
_BLOCK = 1 << 20


class Readable(Protocol):
    """Describe a stream that decompresses while it is read."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none at the end."""
        ...


def allowance(packed: int) -> int:
    """Return to how many bytes compressed data of `packed` bytes may grow [B]."""
    return max(ALWAYS_ALLOWED, MOST_GROWTH * packed)


def unpacked(stream: Readable, packed: int, file: str = "") -> bytes:
    """Read a decompressing stream to its end, or to the end of its allowance.

    Args:
        stream: gives the data as they are when decompressed.
        packed: their compressed size [B].
        file: the name of the file, for the message.

    Raises:
        DataError: there is more than the allowance.
    """
    most, blocks, size = allowance(packed), list[bytes](), 0
    while block := stream.read(_BLOCK):
        size += len(block)
        if size > most:
            raise DataError(
                f"{packed:,} compressed bytes hold more than {most:,}; at most {MOST_GROWTH} times "
                f"their size, or {ALWAYS_ALLOWED >> 20} MiB, is unpacked.",
                hint="If you trust the file, unpack it yourself and name the unpacked one.",
                file=file,
            )
        blocks.append(block)
    return b"".join(blocks)


def read_regular(path: Path, most: int | None = None) -> bytes:
    """Read a regular file.

    Args:
        path: the file.
        most: its largest size [B]; None takes any.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is a pipe, a device or a folder, larger than `most`, or cannot be read.
    """
    try:
        # Not blocking: opening a pipe that nobody writes to would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(
            f"The file cannot be read: {error.strerror}.", hint="Check the path.", file=str(path)
        ) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise DataError(
            "This is no regular file, but a folder, a pipe or a device.",
            hint="Copy the file itself to this place.",
            file=str(path),
        )
    with open(descriptor, "rb") as stream:
        if most is not None and status.st_size > most:
            raise DataError(
                f"The file has {status.st_size:,} bytes, and at most {most:,} are read.",
                hint="It is not what it is taken for, or damaged.",
                file=str(path),
            )
        try:
            return stream.read()
        except OSError as error:
            raise DataError(
                f"The file cannot be read: {error.strerror}.",
                hint="Check the disk.",
                file=str(path),
            ) from error
