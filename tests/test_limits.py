"""What is read from outside is read up to a stated size."""

from __future__ import annotations

import gzip
import io

import pytest

from forecast import limits
from forecast.errors import DataError


def test_a_bomb_is_stopped_where_its_allowance_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ALWAYS_ALLOWED", 1 << 20)
    # 64 MiB of zeros in 65 kB: a thousand times their size.
    packed = gzip.compress(bytes(1 << 26))
    with gzip.open(io.BytesIO(packed)) as stream:
        with pytest.raises(DataError, match="at most 200 times"):
            limits.unpacked(stream, len(packed))
        # Nothing beyond the allowance was unpacked but for one block.
        assert stream.tell() <= limits.allowance(len(packed)) + (1 << 21)


def test_what_is_within_its_allowance_is_whole() -> None:
    content = bytes(range(256)) * 10_000
    packed = gzip.compress(content)
    with gzip.open(io.BytesIO(packed)) as stream:
        assert limits.unpacked(stream, len(packed)) == content
