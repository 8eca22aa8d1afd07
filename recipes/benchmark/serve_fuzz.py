"""A live server under requests that nobody means: no status of 500 and above, no hang, and the same audio afterwards.

    python recipes/benchmark/serve_fuzz.py [--cases 5000] [--bodies 20000] [--seed 1] [--json FILE]

Cases: schemathesis draws requests from the served /openapi.json, as it allows and as it does not, and checks status,
headers, media type and form of each answer. That a text can be spoken no schema can say ("?!" cannot), so it is not
asked whether every allowed request is accepted. Bodies: good ones that are bent, cut, doubled and filled with what
breaks parsers, and streams of bytes that are no HTTP. Exit status 1 when something was found.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import http.client
import json
import random
import re
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from serve_process import Served, ask, served

HANG_S = 20.0
FLAGS = ["--max-characters", "40"]
KNOWN = {"input": "Still here, and unharmed.", "response_format": "pcm", "seed": 1}
GOOD = [
    {"input": "Yes.", "model": "tts-1", "voice": "alloy"},
    {"input": "No.", "voice": {"id": "af_heart"}, "response_format": "pcm", "speed": 1.0, "seed": 12},
    {"input": "Perhaps.", "stream_format": "sse", "temperature": 0.5, "top_k": 5, "top_p": 0.9, "instructions": "x"},
]
NASTY = [
    *(b"NaN", b"-Infinity", b"1e999", b"\\ud800", b"\\u0000", b"\x00", b"\xff\xfe", b"[" * 400, b'{"a":' * 400),
    *(b"9" * 5000, b"null", b"true", b'"input":1,', b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"-0.0", b"{}", b"[]", b'""'),
    *(b"\\", b'"', b"/*x*/", b"\xef\xbb\xbf", b"1_000", b"0x10", b"'", b"\r\n\r\n", b"%s%n", b"\xe2\x80\xae"),
]
TYPES = ["application/json"] * 12 + ["application/json; charset=utf-16", "text/plain", "", "multipart/form-data", "*/*"]
POST, HOST = b"POST /v1/audio/speech HTTP/1.1\r\n", b"Host: x\r\n"
NOISE = [
    *(b"\x16\x03\x01\x02\x00\x01", b"GET", POST + b"\r\n", b"\r\n\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    POST + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    POST + HOST + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\nhello",
    POST + HOST + b"Content-Length: -1\r\n\r\n",
    POST + HOST + b"Content-Type: application/json\r\nContent-Length: 3\r\n\r\n{}\n",
    b"GET /%00%ff/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 70000 + b"\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/audio/speech/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
]


class Found:
    """What came of it."""

    def __init__(self) -> None:
        self.statuses: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []

    def status(self, status: int, what: str) -> None:
        self.statuses[str(status)] += 1
        if status >= 500:
            self.wrong.append(f"{status}: {what[:400]}")


def schemathesis_cases(server: Served, count: int, seed: int, found: Found) -> int:
    import requests
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from schemathesis.core.failures import FailureGroup
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    schema.config.update(base_url=server.url)
    operations = {one.ok().path: one.ok() for one in schema.get_all_operations()}
    speech = operations.pop("/v1/audio/speech")
    modes = schemathesis.GenerationMode
    plan = [
        (speech, modes.POSITIVE, 0.4),
        (speech, modes.NEGATIVE, 0.4),
        (operations["/v1/models/{model}"], modes.POSITIVE, 0.2),
    ]
    asked = 0

    def one(case: Any) -> None:
        nonlocal asked
        asked += 1
        try:
            answer = case.call(session=None, timeout=HANG_S)
            found.status(answer.status_code, str(case.as_curl_command()))
            case.validate_response(answer, excluded_checks=[positive_data_acceptance])
        except FailureGroup as error:
            found.wrong += [
                f"{type(failure).__name__}: {failure} {case.as_curl_command()}"[:600] for failure in error.exceptions
            ]
        except requests.Timeout:
            found.wrong.append(f"hang: {case.as_curl_command()}"[:600])
        except requests.RequestException as error:
            found.wrong.append(f"{type(error).__name__}: {case.as_curl_command()}"[:600])

    for operation in operations.values():
        if "{" not in operation.path:
            one(operation.Case())
    for operation, mode, share in plan:
        wanted, turn = asked + round(share * count), 0
        while asked < wanted:
            part = min(250, wanted - asked)
            strategy = operation.as_strategy(generation_mode=mode)
            test = given(case=strategy)(one)
            test = settings(
                max_examples=part,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )(test)
            seeded(seed * 1000 + turn)(test)()
            turn += 1
    return asked


def bent(chance: random.Random) -> bytes:
    """A body that was good once."""
    data = bytearray(json.dumps(chance.choice(GOOD)).encode())
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at, turn = chance.randrange(len(data) + 1), chance.randrange(7)
        if turn == 0:
            data[at:at] = chance.choice(NASTY)
        elif turn == 1:
            del data[at : at + chance.randrange(1, 12)]
        elif turn == 2 and data:
            data[at % len(data)] = chance.randrange(256)
        elif turn == 3:
            data[at:at] = data[: chance.randrange(len(data) + 1)]
        elif turn == 4:
            data = data[:at]
        elif turn == 5:
            data[at:at] = chance.randbytes(chance.randrange(1, 20))
        else:
            data = bytearray(data.replace(b'"', chance.choice((b"'", b'"', b'\\"', b"")), 1))
    return bytes(data[:60_000])


def bodies(server: Served, count: int, seed: int, found: Found) -> None:
    chance = random.Random(seed)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=HANG_S)
    for turn in range(count):
        if turn % 20 == 19:
            noise(server, chance, found)
            continue
        body, kind = bent(chance), chance.choice(TYPES)
        chunked = chance.random() < 0.2
        try:
            connection.request(
                "POST", "/v1/audio/speech", body=iter([body]) if chunked else body,
                headers={"Content-Type": kind, **({"Transfer-Encoding": "chunked"} if chunked else {})},
                encode_chunked=chunked,
            )  # fmt: skip
            answer = connection.getresponse()
            answer.read()
            found.status(answer.status, repr(body))
        except TimeoutError:
            found.wrong.append(f"hang: {body!r}"[:600])
            connection.close()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            found.statuses[type(error).__name__] += 1
            if not isinstance(error, http.client.RemoteDisconnected | ConnectionError):
                found.wrong.append(f"{error!r}: {body!r}"[:600])
    connection.close()


def noise(server: Served, chance: random.Random, found: Found) -> None:
    """Bytes that are no HTTP, or nearly: answered, or the connection is closed."""
    data = bytearray(chance.choice(NOISE))
    for _ in range(chance.randrange(3)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    got = b""
    with socket.create_connection(("127.0.0.1", server.port), HANG_S) as raw:
        try:
            raw.sendall(data)
            raw.shutdown(socket.SHUT_WR)
            while piece := raw.recv(1 << 16):
                got += piece
        except TimeoutError:
            found.wrong.append(f"hang: {bytes(data[:200])!r}")
        except OSError:
            pass
    if got.startswith(b"HTTP/1.1 "):
        found.status(int(got[9:12]), repr(bytes(data[:200])))
    else:
        found.statuses["closed"] += 1


def checksum(server: Served) -> str:
    heard = ask(server.port, KNOWN)
    assert heard.status == 200, heard.body
    return hashlib.sha256(heard.body).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--bodies", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cases, bent_ones = Found(), Found()
    with tempfile.TemporaryDirectory() as name, served(FLAGS, Path(name)) as server:
        before, memory = checksum(server), server.resident_mb()
        began = time.perf_counter()
        asked = schemathesis_cases(server, args.cases, args.seed, cases)
        print(f"schemathesis: {asked} cases in {time.perf_counter() - began:.0f} s, {dict(cases.statuses)}", flush=True)
        began = time.perf_counter()
        bodies(server, args.bodies, args.seed, bent_ones)
        print(f"bodies: {args.bodies} in {time.perf_counter() - began:.0f} s, {dict(bent_ones.statuses)}", flush=True)
        same, ready = checksum(server) == before, server.ready()
        log = (Path(name) / "serve.log").read_text(errors="replace")
        failures = re.findall(r"^.* ERROR .*(?:\n(?!\d{4}-).*)*", log, re.M)  # with the lines that belong to it
        result = {
            "schema": "serve_fuzz/1",
            "cases": asked,
            "case_statuses": cases.statuses,
            "bodies": args.bodies,
            "body_statuses": bent_ones.statuses,
            "wrong": (cases.wrong + bent_ones.wrong)[:50],
            "wrong_count": len(cases.wrong) + len(bent_ones.wrong),
            "errors_logged": len(failures),
            "log": failures[:10],
            "same_audio_afterwards": same,
            "ready_afterwards": ready,
            "memory_mb": [round(memory, 1), round(server.resident_mb(), 1)],
        }
    for line in [*result["wrong"], *result["log"]]:
        print(line)
    print(json.dumps({key: value for key, value in result.items() if key not in ("wrong", "log")}))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if same and ready and not result["wrong_count"] and not failures else 1


if __name__ == "__main__":
    sys.exit(main())
