"""Finding and fetching known files, against a real server on loopback and real folders."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from forecast import paths
from forecast.catalogue.files import KnownFile, data_root, fetch, find, locate, sha256_of, verify
from forecast.errors import DataError, NotFoundError, UsageError

# Several chunks long, and different at every offset that a wrong seek could land on.
CONTENT = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(30_000))
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Remote:
    """What the server does, and the requests it saw as (path, Range header)."""

    content: bytes = CONTENT
    path: str = "/some/table.csv"
    ranges: bool = True
    refuse_ranges: bool = False
    cut: int | None = None
    delay: float = 0.0
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    monkeypatch.setenv("no_proxy", "*")
    state = Remote()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.requests.append((self.path, asked))
            if self.path != state.path:
                return self.send_error(404)
            if asked and state.refuse_ranges:
                return self.send_error(416)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.ranges else 0
            body = state.content[start:]
            self.send_response(206 if start else 200)
            if start:
                total = len(state.content)
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            time.sleep(state.delay)
            # A cut closes the connection before all of the promised length was sent.
            self.wfile.write(body if state.cut is None else body[: state.cut])
            return None

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def known(*urls: str) -> KnownFile:
    return KnownFile(
        path="some/table.csv", sha256=SHA256, size=len(CONTENT), urls=urls, dataset="some"
    )


def official(remote: Remote) -> KnownFile:
    return known(f"{remote.address}/some/table.csv")


def part_of(root: Path) -> Path:
    return root / "some" / "table.csv.part"


def test_fetch_puts_the_verified_file_under_the_root(remote: Remote, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = fetch(official(remote), root=tmp_path, progress=lambda *at: seen.append(at))
    assert path == tmp_path / "some" / "table.csv"
    assert path.read_bytes() == CONTENT
    assert os.listdir(path.parent) == ["table.csv"]
    assert seen == sorted(seen)
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))


@pytest.mark.parametrize("ranges", [True, False])
def test_broken_transfer_goes_on_where_it_stopped(
    remote: Remote, tmp_path: Path, ranges: bool
) -> None:
    remote.ranges = ranges
    remote.cut = 400_000
    with pytest.raises(NotFoundError, match=r"broke off after 400,000 of 960,000 bytes"):
        fetch(official(remote), root=tmp_path)
    assert part_of(tmp_path).read_bytes() == CONTENT[:400_000]
    assert find(official(remote), local=tmp_path) is None

    remote.cut = None
    assert fetch(official(remote), root=tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in remote.requests] == [None, "bytes=400000-"]
    assert not part_of(tmp_path).exists()


@pytest.mark.parametrize("there", [0, 1, len(CONTENT) - 1, len(CONTENT), len(CONTENT) + 5])
@pytest.mark.parametrize("refuse_ranges", [False, True])
def test_any_part_that_was_left_is_completed(
    remote: Remote, tmp_path: Path, there: int, refuse_ranges: bool
) -> None:
    remote.refuse_ranges = refuse_ranges
    part_of(tmp_path).parent.mkdir()
    part_of(tmp_path).write_bytes((CONTENT + b"extra")[:there])
    assert fetch(official(remote), root=tmp_path).read_bytes() == CONTENT
    # Nothing is asked of the server when every byte is there already.
    assert bool(remote.requests) == (there != len(CONTENT))


def test_interrupt_leaves_a_part_that_the_next_fetch_completes(
    remote: Remote, tmp_path: Path
) -> None:
    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(official(remote), root=tmp_path, progress=interrupt)
    left = part_of(tmp_path).read_bytes()
    assert 0 < len(left) < len(CONTENT)
    assert left == CONTENT[: len(left)]
    assert fetch(official(remote), root=tmp_path).read_bytes() == CONTENT
    assert remote.requests[-1][1] == f"bytes={len(left)}-"


@pytest.mark.parametrize(
    "content",
    [CONTENT[:-1] + b"?", CONTENT[:100], b"", CONTENT + b"more"],
    ids=["changed", "shorter", "empty", "longer"],
)
def test_wrong_content_is_refused_and_thrown_away(
    remote: Remote, tmp_path: Path, content: bytes
) -> None:
    remote.content = content
    with pytest.raises(DataError) as caught:
        fetch(official(remote), root=tmp_path)
    # Of a longer file only the first byte too many is read.
    came = hashlib.sha256(content[: len(CONTENT) + 1]).hexdigest()
    assert came in str(caught.value)
    assert SHA256 in str(caught.value)
    assert caught.value.exit_code == 3
    assert os.listdir(tmp_path / "some") == []


def test_remote_that_changed_between_two_halves_is_noticed(remote: Remote, tmp_path: Path) -> None:
    part_of(tmp_path).parent.mkdir()
    part_of(tmp_path).write_bytes(b"an older edition")
    with pytest.raises(DataError, match="thrown away"):
        fetch(official(remote), root=tmp_path)
    assert fetch(official(remote), root=tmp_path).read_bytes() == CONTENT


def test_unreachable_address_says_what_to_put_where(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/table.csv"
        with pytest.raises(NotFoundError) as caught:
            fetch(known(url), root=tmp_path)
    assert f"{url}: Connection refused" in caught.value.message
    for needed in (str(tmp_path / "some" / "table.csv"), "960,000 bytes", SHA256, "--mirror"):
        assert needed in caught.value.hint
    assert not part_of(tmp_path).exists()


def test_next_address_is_asked_when_one_fails(remote: Remote, tmp_path: Path) -> None:
    file = known(f"{remote.address}/gone.csv", f"{remote.address}/some/table.csv")
    assert fetch(file, root=tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in remote.requests] == ["/gone.csv", "/some/table.csv"]


def test_file_without_address_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no official address"):
        fetch(known(), root=tmp_path)


@pytest.mark.parametrize("path", ["some/table.csv", "table.csv"])
@pytest.mark.parametrize("as_address", [False, True])
def test_mirror_folder(tmp_path: Path, path: str, as_address: bool) -> None:
    mirror = tmp_path / "a mirror"
    (mirror / path).parent.mkdir(parents=True)
    (mirror / path).write_bytes(CONTENT)
    place = mirror.as_uri() if as_address else str(mirror)
    fetched = fetch(known(), mirror=place, root=tmp_path / "root")
    assert fetched.read_bytes() == CONTENT


def test_mirror_address_replaces_the_official_one(remote: Remote, tmp_path: Path) -> None:
    remote.path = "/deep/table.csv"
    file = known("http://never.invalid/table.csv")
    assert fetch(file, mirror=f"{remote.address}/deep/", root=tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in remote.requests] == ["/deep/some/table.csv", "/deep/table.csv"]


def test_mirror_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="No such file or directory"):
        fetch(known(), mirror=str(tmp_path), root=tmp_path / "root")
    with pytest.raises(NotFoundError, match="is not a folder"):
        fetch(known(), mirror=str(tmp_path / "nowhere"), root=tmp_path / "root")
    with pytest.raises(UsageError, match="file, http or https"):
        fetch(known(), mirror="ftp://host/data", root=tmp_path / "root")


def test_good_file_is_left_alone_and_a_different_one_replaced(
    remote: Remote, tmp_path: Path
) -> None:
    target = tmp_path / "some" / "table.csv"
    target.parent.mkdir()
    target.write_bytes(b"not the published bytes")
    fetch(official(remote), root=tmp_path)
    assert target.read_bytes() == CONTENT
    before = target.stat()
    fetch(official(remote), root=tmp_path)
    assert (target.stat().st_ino, target.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(remote.requests) == 1


def test_bad_download_leaves_the_different_file_untouched(remote: Remote, tmp_path: Path) -> None:
    target = tmp_path / "some" / "table.csv"
    target.parent.mkdir()
    target.write_bytes(b"mine")
    remote.content = b"theirs"
    with pytest.raises(DataError):
        fetch(official(remote), root=tmp_path)
    assert target.read_bytes() == b"mine"


def test_of_two_fetches_at_once_one_downloads(remote: Remote, tmp_path: Path) -> None:
    remote.delay = 0.3
    results: list[bytes] = []
    threads = [
        threading.Thread(
            target=lambda: results.append(fetch(official(remote), root=tmp_path).read_bytes())
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [CONTENT, CONTENT]
    assert len(remote.requests) == 1
    assert os.listdir(tmp_path / "some") == ["table.csv"]


def test_folder_that_cannot_be_made_is_named(remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written: Not a directory") as caught:
        fetch(official(remote), root=tmp_path / "file")
    assert str(tmp_path / "file") in caught.value.message
    assert "--to" in caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write and read everywhere")
def test_permissions_are_named(remote: Remote, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="cannot be written: Permission denied"):
        fetch(official(remote), root=tmp_path)
    tmp_path.chmod(0o700)
    path = fetch(official(remote), root=tmp_path)
    path.chmod(0o000)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        locate(official(remote), local=path)


def test_locate_never_downloads(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path))
    with pytest.raises(NotFoundError) as caught:
        locate(official(remote), local=tmp_path / "elsewhere.csv")
    assert remote.requests == []
    assert str(tmp_path / "elsewhere.csv") in caught.value.message
    assert str(tmp_path / "some" / "table.csv") in caught.value.message
    assert "forecast datasets fetch some" in caught.value.hint
    assert caught.value.exit_code == 4


def test_locate_prefers_the_local_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path))
    rooted = tmp_path / "some" / "table.csv"
    rooted.parent.mkdir()
    rooted.write_bytes(CONTENT)
    mine = tmp_path / "mine"
    mine.mkdir()
    assert locate(known(), local=mine) == rooted
    (mine / "table.csv").write_bytes(CONTENT)
    assert locate(known(), local=mine) == mine / "table.csv"
    assert locate(known(), local=mine / "table.csv") == mine / "table.csv"
    assert locate(known()) == rooted


def test_difference_is_a_warning_for_a_local_file_and_an_error_in_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path))
    path = tmp_path / "some" / "table.csv"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    mine = hashlib.sha256(b"mine").hexdigest()
    other = tmp_path / "other.csv"
    other.write_bytes(b"mine")
    with pytest.warns(UserWarning, match=f"{mine}.*{SHA256}"):
        assert locate(known(), local=other) == other
    with pytest.raises(DataError, match=f"{mine}.*{SHA256}"):
        locate(known())


def test_verify_needs_size_and_hash(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    assert not verify(path, known())
    path.write_bytes(CONTENT)
    assert verify(path, known())
    assert sha256_of(path) == SHA256
    path.write_bytes(CONTENT[:-1] + b"?")
    assert not verify(path, known())


def test_data_root_is_stated_then_checkout_then_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path / "stated"))
    assert data_root() == tmp_path / "stated"

    monkeypatch.setenv("FORECAST_DATA", "")
    checkout = tmp_path / "checkout"
    (checkout / "datasets").mkdir(parents=True)
    (checkout / "pyproject.toml").touch()
    monkeypatch.setattr(paths, "__file__", str(checkout / "forecast" / "paths.py"))
    assert data_root() == checkout / "datasets"

    # Installed, the package lies beside others, one of which may well be called datasets.
    (checkout / "pyproject.toml").unlink()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    assert data_root() == tmp_path / "share" / "forecast" / "datasets"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_root() == tmp_path / ".local" / "share" / "forecast" / "datasets"
