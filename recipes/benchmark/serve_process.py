"""`spear-spec serve` in a process of its own, for the scripts beside this one; and a client on a bare socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LONGEST_START_S = 120.0


@dataclass
class Served:
    """A server that is ready. ready_s: from its start until /readyz said so; cpu_s: the processor's time of that."""

    process: subprocess.Popen[bytes]
    port: int
    ready_s: float
    cpu_s: float

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        """Whether /readyz answers 200 within a second."""
        return answers(self.port, "/readyz") == 200

    def resident_mb(self) -> float:
        """Memory of the process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def metric(self, name: str) -> float:
        """A value of /metrics; 0 where it does not stand there yet."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + " ", name + "{")))


def answers(port: int, path: str) -> int | None:
    """The status of a GET; None where nobody answers within a second."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        connection.request("GET", path)
        status = connection.getresponse().status
        connection.close()
        return status
    except (OSError, http.client.HTTPException):
        return None


def _listening(log: Path, begin: int) -> int | None:
    """The port that the process itself names: at any other a stranger's server might answer."""
    with log.open("rb") as file:
        file.seek(begin)
        found = re.search(rb" at http://[^ ]*:(\d+) after ", file.read())
    return int(found[1]) if found else None


def start(flags: Sequence[str], port: int, cwd: Path, environment: dict[str, str], log: Path) -> Served:
    """Start it and wait until it is ready. port: 0 takes a free one.

    Raises:
        RuntimeError: it ended, or is not ready in time; the log's end is in the message.
    """
    began = time.perf_counter()
    with log.open("ab") as file:
        begin = file.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "spear_spec", "serve", "--port", str(port), *flags],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    found = None
    while (found := found or _listening(log, begin)) is None or answers(found, "/readyz") != 200:
        if process.poll() is not None or time.perf_counter() - began > LONGEST_START_S:
            process.kill()
            process.wait()
            raise RuntimeError(f"the server did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)
    ready_s = time.perf_counter() - began
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return Served(process, found, ready_s, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))


@contextlib.contextmanager
def served(flags: Sequence[str], folder: Path, environment: dict[str, str] | None = None) -> Iterator[Served]:
    """A server until the block ends; then SIGTERM, and SIGKILL if that does not do."""
    one = start(flags, 0, folder, environment or {}, folder / "serve.log")
    try:
        yield one
    except BaseException:
        print((folder / "serve.log").read_text(errors="replace")[-3000:], file=sys.stderr)
        raise
    finally:
        one.process.send_signal(signal.SIGTERM)
        try:
            one.process.wait(60)
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()


@dataclass
class Heard:
    """Times in seconds from the moment the request was sent. first_sound_s: to the first byte of the body."""

    status: int
    headers: dict[str, str]
    body: bytes
    head_s: float
    first_sound_s: float
    whole_s: float
    arrivals: list[tuple[float, int]]  # when so many bytes of the body were there


def ask(port: int, body: dict[str, Any], timeout_s: float = 60.0) -> Heard:
    """POST /v1/audio/speech on a new connection.

    Raises:
        OSError: the connection broke. ValueError: the answer is not whole.
    """
    data = json.dumps(body).encode()
    head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout_s) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.perf_counter()
        raw.sendall(head.encode() + b"Content-Type: application/json\r\nConnection: close\r\n\r\n" + data)
        got, head_s, first_s, arrivals = b"", 0.0, 0.0, []
        start = -1
        while piece := raw.recv(1 << 16):
            now = time.perf_counter() - began
            got += piece
            if start < 0 and (at := got.find(b"\r\n\r\n")) >= 0:
                start, head_s = at + 4, now
            if start >= 0 and len(got) > start + 6:  # more than a chunk's length
                first_s = first_s or now
                arrivals.append((now, len(got) - start))
        whole_s = time.perf_counter() - began
    lines = got[: start - 4].decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
    body_bytes = got[start:]
    if headers.get("transfer-encoding") == "chunked":
        body_bytes = unchunked(body_bytes)
    return Heard(int(lines[0].split()[1]), headers, body_bytes, head_s, first_s, whole_s, arrivals)


def unchunked(data: bytes) -> bytes:
    """A chunked body.

    Raises:
        ValueError: its last chunk is missing.
    """
    out, at = [], 0
    while True:
        end = data.index(b"\r\n", at)
        size = int(data[at:end], 16)
        if size == 0:
            return b"".join(out)
        if end + 2 + size > len(data):
            raise ValueError("the body is cut off")
        out.append(data[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
