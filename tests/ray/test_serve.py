"""The server on a local Ray cluster: two replicas, one of which is killed. See `test_bulk.py` for when this runs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import soundfile

from spear_spec.audio import to_int16
from spear_spec.pipeline import TTS
from spear_spec.serving.scheduler import for_serving
from tests.stubs.prompting import prompting_voice
from tests.stubs.speech import RATE, speech
from tests.stubs.voice import make_voice

LIMIT = 3  # streams of a replica


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    return prompting_voice(make_voice(folder / "tiny"), folder / "prompting")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts, and a lexicon."""
    folder = tmp_path_factory.mktemp("house")
    (folder / "prompts").mkdir()
    soundfile.write(folder / "prompts/anna.wav", speech()[: 3 * RATE], RATE)
    (folder / "own.tsv").write_text("nguyen\t/nwɪn/\n")
    return folder


@pytest.fixture(scope="module")
def address(voice: Path, house: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="s", dir=os.environ.get("RAY_TMPDIR", "/tmp"))
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "RAY_TMPDIR": folder}
    command = [sys.executable, "-m", "spear_spec", "serve", "--ray", "--replicas", "2", "--port", str(port),
               "--voice", str(voice), "--max-streams", str(LIMIT),
               "--prompts", str(house / "prompts"), "--lexicon", str(house / "own.tsv"), "--pause", ".3"]  # fmt: skip
    run = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    line = ""
    for line in run.stderr:
        if "replicas at" in line:
            break
    else:
        pytest.fail(f"it ended with {run.wait()}: {line}")
    threading.Thread(target=run.stderr.read, daemon=True).start()
    yield f"http://127.0.0.1:{port}"
    run.terminate()
    assert run.wait(120) == 0
    left = subprocess.run(["pgrep", "-f", folder], capture_output=True, text=True).stdout.split()
    assert not left, "something of the cluster is left"


def replicas() -> list[int]:
    """Their process ids."""
    return [int(pid) for pid in subprocess.run(
        ["pgrep", "-f", "ray::ServeReplica:spear_spec"], capture_output=True, text=True
    ).stdout.split()]  # fmt: skip


def speak(address: str, text: str, seed: int, **more: object) -> httpx.Response:
    body = {"model": "tts-1", "voice": "alloy", "input": text, "response_format": "pcm", "seed": seed, **more}
    return httpx.post(f"{address}/v1/audio/speech", json=body, timeout=120)


def test_the_sound_is_that_of_the_pipeline(address: str, voice: Path) -> None:
    tts = for_serving(TTS.load(voice, "cpu"))
    for seed in range(4):
        answer = speak(address, "Hello there. It was late.", seed)
        assert answer.status_code == 200
        samples = tts.synthesize("Hello there. It was late.", seed=seed, pause=0.3).samples
        assert answer.content == to_int16(samples).tobytes()


def test_prompts_and_a_lexicon(address: str, voice: Path, house: Path) -> None:
    tts, text = for_serving(TTS.load(voice, "cpu")), "Mr. Nguyen came. He left."
    prompt = house / "prompts/anna.wav"
    samples = tts.synthesize(text, seed=2, voice=prompt, pause=0.3, lexicon=house / "own.tsv").samples
    answer = speak(address, text, 2, voice="anna")
    assert answer.status_code == 200 and "prompt-sha256=" in answer.headers["x-spear-spec-provenance"]
    assert answer.content == to_int16(samples).tobytes()


def test_it_streams(address: str) -> None:
    body = {"model": "tts-1", "voice": "alloy", "input": "It was late. " * 40, "response_format": "pcm", "seed": 1}
    with httpx.stream("POST", f"{address}/v1/audio/speech", json=body, timeout=120) as answer:
        pieces = list(answer.iter_raw())
    assert len(pieces) > 5


def test_beyond_the_limits_it_is_429(address: str) -> None:
    """More at a time than both replicas take: each is answered, or refused in OpenAI's form with Retry-After."""
    answers: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(speak(address, "It was late. " * 60, n))) for n in range(24)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    codes = [answer.status_code for answer in answers]
    assert set(codes) == {200, 429}, codes
    assert codes.count(200) >= LIMIT
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.json()["error"]["type"] == "rate_limit_error"


def test_a_replica_is_killed(address: str) -> None:
    """What it was speaking breaks off; whoever asks again is answered, and there are two again."""
    before = replicas()
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        answer = speak(address, "Yes.", 5)
        if answer.status_code == 200:
            break
        time.sleep(0.2)
    assert answer.status_code == 200
    while (len(replicas()) < 2 or before[0] in replicas()) and time.monotonic() < until + 60:
        time.sleep(0.5)
    assert len(replicas()) == 2 and before[1] in replicas()
    assert speak(address, "Yes.", 5).content == answer.content


def test_the_configuration_file_and_serve_run() -> None:
    """The file of the recipes fits Ray's own schema, and what it and `serve run` name becomes an application."""
    import yaml
    from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
    from ray.serve.schema import ServeDeploySchema

    from spear_spec.serving.ray import app

    path = Path(__file__).parents[2] / "recipes" / "serve" / "ray.yaml"
    config = ServeDeploySchema.model_validate(yaml.safe_load(path.read_text()))
    assert config.applications[0].import_path == "spear_spec.serving.ray:app"
    for args in (config.applications[0].args, {"min_replicas": "1", "max_replicas": "4"}):
        built = call_user_app_builder_with_args_if_necessary(app, args)
        deployment = built._bound_deployment
        assert deployment.name == "spear_spec"
        assert deployment._deployment_config.autoscaling_config.max_replicas == 4
