"""LibriTTS over the network: a server on this machine that breaks off, lies, or knows no ranges."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from spear_spec.errors import ConfigError
from spear_spec.training.data import download as module
from spear_spec.training.data.download import CHECKSUMS, DownloadError, download
from spear_spec.training.recipe.download import main
from tests.stubs.libritts import make_libritts

ROOT = Path(__file__).parents[2]


class Server:
    """Serves `files`. break_after: bytes of an answer after which the connection is dropped, for the next answers."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.break_after: list[int] = []
        self.ranges = True
        self.slow_s = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name, span = self.path.lstrip("/"), self.headers.get("Range")
                outer.asked.append((name, span))
                data = outer.files.get(name)
                if data is None:
                    self.send_error(404)
                    return
                first = int(span.removeprefix("bytes=").rstrip("-")) if span and outer.ranges else 0
                if first >= len(data) > 0:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(data)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206 if span and outer.ranges else 200)
                if span and outer.ranges:
                    self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
                self.send_header("Content-Length", str(len(data) - first))
                self.end_headers()
                body = data[first:]
                if outer.break_after:
                    body = body[: outer.break_after.pop(0)]
                for start in range(0, len(body), 4096):
                    self.wfile.write(body[start : start + 4096])
                    time.sleep(outer.slow_s)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(corpus: Path) -> Iterator[Server]:
    made = Server()
    for part in ("dev-clean", "test-clean"):
        made.files[f"{part}.tar.gz"] = pack(corpus, part)
    yield made
    made.close()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_libritts(tmp_path_factory.mktemp("source") / "LibriTTS")


def pack(corpus: Path, part: str) -> bytes:
    """As OpenSLR packs it: LibriTTS/SPEAKERS.txt, LibriTTS/PART/..."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        tar.add(corpus / "SPEAKERS.txt", "LibriTTS/SPEAKERS.txt")
        tar.add(corpus / part, f"LibriTTS/{part}")
    return out.getvalue()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def get(server: Server, data: Path, *parts: str, **more: object) -> list[str]:
    sums = {name.removesuffix(".tar.gz"): sha(body) for name, body in server.files.items()} | more.pop("sums", {})
    return download(data, parts, mirrors=[server.url], checksums=sums, progress=False, pause_s=0, **more)


def same(one: Path, other: Path) -> bool:
    def inside(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    return inside(one) == inside(other)


def test_what_is_missing_is_fetched_and_what_is_there_is_used(server: Server, corpus: Path, tmp_path: Path) -> None:
    data = tmp_path / "LibriTTS"
    (data / "test-clean/1/2").mkdir(parents=True)
    (data / "test-clean/1/2/1_2_3_4.wav").write_bytes(b"mine")
    assert get(server, data, "dev-clean", "test-clean") == ["dev-clean"]
    assert same(data / "dev-clean", corpus / "dev-clean")
    assert (data / "SPEAKERS.txt").read_bytes() == (corpus / "SPEAKERS.txt").read_bytes()
    assert (data / "test-clean/1/2/1_2_3_4.wav").read_bytes() == b"mine"
    assert sorted(p.name for p in data.iterdir()) == ["SPEAKERS.txt", "dev-clean", "test-clean"]
    assert get(server, data, "dev-clean", "test-clean") == []
    assert server.asked == [("dev-clean.tar.gz", None)]


def test_a_connection_that_breaks_is_gone_on_with(server: Server, corpus: Path, tmp_path: Path) -> None:
    server.break_after = [10_000, 5_000, 0, 0]
    get(server, tmp_path, "dev-clean", keep=True)
    assert [span for _, span in server.asked] == [None, "bytes=10000-", *3 * ["bytes=15000-"]]
    assert same(tmp_path / "dev-clean", corpus / "dev-clean")
    assert (tmp_path / "dev-clean.tar.gz").read_bytes() == server.files["dev-clean.tar.gz"]


def test_a_server_without_ranges_begins_again(server: Server, corpus: Path, tmp_path: Path) -> None:
    server.break_after, server.ranges = [10_000], False
    get(server, tmp_path, "dev-clean")
    assert [span for _, span in server.asked] == [None, "bytes=10000-"]
    assert same(tmp_path / "dev-clean", corpus / "dev-clean")


def test_a_part_that_was_whole_or_too_long(server: Server, corpus: Path, tmp_path: Path) -> None:
    body = server.files["dev-clean.tar.gz"]
    for number, part in enumerate((body, body + b"more")):
        data = tmp_path / str(number)
        data.mkdir()
        (data / "dev-clean.tar.gz.part").write_bytes(part)
        get(server, data, "dev-clean")
        assert same(data / "dev-clean", corpus / "dev-clean")


def test_no_network_is_one_line_and_loses_nothing(server: Server, corpus: Path, tmp_path: Path) -> None:
    server.break_after = [10_000] + 20 * [0]
    with pytest.raises(
        DownloadError, match=r"cannot fetch dev-clean.tar.gz: .* 10000 bytes have come and stay"
    ) as info:
        get(server, tmp_path, "dev-clean")
    assert "\n" not in str(info.value)
    assert not (tmp_path / "dev-clean").exists()
    server.break_after = []
    get(server, tmp_path, "dev-clean")
    assert server.asked[-1] == ("dev-clean.tar.gz", "bytes=10000-")
    assert same(tmp_path / "dev-clean", corpus / "dev-clean")
    with pytest.raises(DownloadError, match="Connection refused"):
        download(tmp_path, ["test-clean"], mirrors=["http://127.0.0.1:9"], progress=False, pause_s=0)


def test_the_next_mirror_is_asked(server: Server, corpus: Path, tmp_path: Path) -> None:
    other = Server()
    other.files["dev-clean.tar.gz"], other.break_after = server.files["dev-clean.tar.gz"], [7000, *9 * [0]]
    mirrors = [f"{server.url}/elsewhere", other.url, server.url]
    known = {"dev-clean": sha(server.files["dev-clean.tar.gz"])}
    download(tmp_path, ["dev-clean"], mirrors=mirrors, checksums=known, progress=False, pause_s=0)
    other.close()
    assert server.asked == [("elsewhere/dev-clean.tar.gz", None), ("dev-clean.tar.gz", "bytes=7000-")]
    assert same(tmp_path / "dev-clean", corpus / "dev-clean")


def test_a_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path) -> None:
    body = server.files["dev-clean.tar.gz"]
    for wrong in (sha(b"else"), hashlib.md5(b"else").hexdigest()):
        with pytest.raises(DownloadError, match="not the archive that it should be"):
            get(server, tmp_path, "dev-clean", sums={"dev-clean": wrong})
        assert list(tmp_path.iterdir()) == []
    get(server, tmp_path, "dev-clean", sums={"dev-clean": hashlib.md5(body).hexdigest()})
    with pytest.raises(DownloadError, match="neither"):
        get(server, tmp_path, "test-clean", sums={"test-clean": "12"})
    with pytest.raises(ConfigError, match="no subset of LibriTTS"):
        get(server, tmp_path, "dev-dirty")
    assert len(CHECKSUMS) == 7


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, 4 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize("bad", [
    member("/etc/passwd"),
    member("../evil.wav"),
    member("LibriTTS/dev-clean/../../../evil.wav"),
    member("LibriTTS/train-clean-100/1/2/1_2_3_4.wav"),
    member("LibriTTS/dev-clean/1/2/link.wav", tarfile.SYMTYPE, "/etc/passwd"),
    member("LibriTTS/dev-clean/1/2/link.wav", tarfile.LNKTYPE, "LibriTTS/SPEAKERS.txt"),
    member("LibriTTS/dev-clean/1/2/null", tarfile.CHRTYPE),
    member("LibriTTS/dev-clean/1/2/pipe", tarfile.FIFOTYPE),
    member("LibriTTS/dev-clean/1\n2"),
], ids=lambda info: info.name.replace("\n", " ") + str(info.type))  # fmt: skip
def test_a_hostile_archive_leaves_nothing(bad: tarfile.TarInfo, server: Server, corpus: Path, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        tar.add(corpus / "dev-clean", "LibriTTS/dev-clean")
        tar.addfile(bad, io.BytesIO(b"evil") if bad.size else None)
    server.files["dev-clean.tar.gz"] = out.getvalue()
    data = tmp_path / "inside" / "LibriTTS"
    with pytest.raises(DownloadError, match="nothing of it was taken"):
        get(server, data, "dev-clean")
    assert [p.name for p in tmp_path.rglob("*")] == ["inside", "LibriTTS", "dev-clean.tar.gz"]


def test_a_damaged_archive(server: Server, corpus: Path, tmp_path: Path) -> None:
    whole = server.files["dev-clean.tar.gz"]
    flipped = bytearray(whole)
    flipped[len(flipped) // 2] ^= 0xFF
    for number, body in enumerate((whole[: len(whole) // 2], b"<html>not here</html>", bytes(flipped))):
        server.files["dev-clean.tar.gz"] = body
        data = tmp_path / str(number)
        with pytest.raises(DownloadError, match="delete it and run"):
            get(server, data, "dev-clean")
        assert [p.name for p in data.iterdir()] == ["dev-clean.tar.gz"]
    with pytest.raises(DownloadError, match=r"not the archive.*delete it"):
        get(server, data, "dev-clean", sums={"dev-clean": sha(whole)})  # it lies there, and is another one
    (data / "dev-clean.tar.gz").write_bytes(whole)
    asked = len(server.asked)
    get(server, data, "dev-clean", sums={"dev-clean": sha(whole)})
    assert len(server.asked) == asked and same(data / "dev-clean", corpus / "dev-clean")


def test_a_full_disk(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("usage", (), {"free": 1000})())
    with pytest.raises(DownloadError, match="the disk has not so much room"):
        get(server, tmp_path, "dev-clean")


def test_killed_in_the_middle(server: Server, corpus: Path, tmp_path: Path) -> None:
    """kill -9 while it fetches, then again through the recipe's command."""
    data, body = tmp_path / "LibriTTS", server.files["dev-clean.tar.gz"]
    config = tmp_path / "config.json"
    about = {
        "out": "out",
        "progress": False,
        "prepare": {"corpora": ["dev-clean"], "data": str(data)},
        "download": {"mirrors": [server.url], "checksums": {"dev-clean": sha(body)}},
    }
    config.write_text(json.dumps(about))
    server.slow_s = 0.05
    command = [sys.executable, "-m", "spear_spec.training.recipe.download", str(config)]
    run = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    part = data / "dev-clean.tar.gz.part"
    while not part.exists() or part.stat().st_size == 0:
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    size = part.stat().st_size
    assert 0 < size < len(body)
    server.slow_s = 0.0
    assert main([str(config)]) == 0
    assert server.asked[-1] == ("dev-clean.tar.gz", f"bytes={size}-")
    assert same(data / "dev-clean", corpus / "dev-clean")
    del about["prepare"]["data"]
    config.write_text(json.dumps(about))
    assert main([str(config)]) == 2
