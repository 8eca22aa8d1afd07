"""Bad input of every kind through the command line: one clear line on standard error, exit status 2, nothing half-
written.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from spear_spec.cli import main
from tests.stubs.voice import make_voice


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_voice(tmp_path_factory.mktemp("voices") / "tiny").path)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """Run, expect refusal; the one line of complaint."""
    before = sorted(Path().rglob("*"))
    assert main(list(args)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("spear-spec: ")
    assert "Traceback" not in lines[0]
    assert sorted(Path().rglob("*")) == before
    return lines[0]


OPTIONS = {
    ("--gamma", "0"): "1 to 64",
    ("--gamma", "many"): "not a whole number",
    ("--gamma", "1000"): "1 to 64",
    ("--num-drafts", "0"): "--num-drafts",
    ("--num-drafts", "65"): "1 to 64",
    ("--temperature", "-1"): "temperature must lie in 0 to 10",
    ("--temperature", "nan"): "not a finite number",
    ("--temperature", "hot"): "not a number",
    ("--top-p", "2"): "top_p must lie above 0 and at most at 1",
    ("--top-p", "0"): "top_p must lie above 0",
    ("--top-k", "-1"): "--top-k",
    ("--guidance", "-2"): "guidance must lie in 1",
    ("--guidance", "inf"): "not a finite number",
    ("--drafter", "unknown"): "no drafter 'unknown'",
    ("--drafter", "medussa"): "there is no drafter",
    ("--verifier", "unknown"): "no verifier 'unknown'",
    ("--set", "depth=3"): "unknown option depth",
    ("--set", "depth"): "not KEY=VALUE",
    ("--tree", "wide"): "unknown tree 'wide'",
    ("--tree", "3--2"): "children by depth",
    ("--tree", "99-99"): "at most 512",
    ("--speed", "5"): "does not lie in .25 to 4",
    ("--speed", "nan"): "not a finite number",
    ("--batch", "0"): "1 to 64",
    ("--threads", "0"): "1 to",
    ("--threads", "-3"): "--threads",
    ("--seed", "-1"): "--seed",
    ("--seed", "1.5"): "not a whole number",
    ("--max-tokens", "0"): "--max-tokens",
    ("--dtype", "int8"): "--dtype",
    ("--speaker", "nobody"): "no speaker 'nobody'; its speakers are af_heart, am_michael",
    ("--device", "tpu"): "unknown device 'tpu'",
    ("--device", "cuda:99"): "there is no device 'cuda:99'",
    ("--device", "cuda:x"): "unknown device",
    ("--device", "cpu:7x"): "unknown device",
    ("--nonsense", "1"): "unrecognized arguments",
    ("--gam", "3"): "unrecognized arguments",
}


@pytest.mark.parametrize(("option", "value"), OPTIONS)
def test_impossible_options(voice: str, option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert OPTIONS[option, value] in refused(capsys, "say", "Yes.", "--voice", voice, option, value)


MISFITS = {
    ("--drafter", "kpath", "--verifier", "block"): "block is not made for siblings drawn independently",
    ("--tree", "2-2", "--verifier", "rejection"): "rejection is not made for a tree",
    ("--tree", "2-2", "--verifier", "recursive", "--set", "siblings=wor"): "without replacement",
    ("--tree", "2-2", "--set", "siblings=twins"): "siblings must be iid, wor, top",
    ("--tree", "dynamic", "--set", "nodes=0"): "nodes must be a whole number",
    ("--tree", "dynamic", "--set", "siblings=top"): "unknown option siblings",
    ("--drafter", "kpath", "--tree", "2-2"): "kpath grows no tree",
    ("--drafter", "small", "--num-drafts", "3"): "num_drafts is for the drafter kpath",
    ("--drafter", "none", "--tree", "2-2"): "drafter none grows no tree; leave tree out",
    ("--verifier", "tolerance", "--set", "b=2"): "from 0 to 1",
    ("--verifier", "rejection", "--set", "b=.1"): "unknown option b",
    ("--set", "guided=perhaps"): "guided must be true or false",
}


@pytest.mark.parametrize("options", MISFITS, ids=" ".join)
def test_speculation_settings_that_do_not_fit(
    voice: str, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert MISFITS[options] in refused(capsys, "say", "Yes.", "--voice", voice, *options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_missing_cuda(voice: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "use --device cpu" in refused(capsys, "say", "Yes.", "--voice", voice, "--device", "cuda")


ARGUMENTS = {
    (): "no command",
    ("sing",): "sing",
    ("serve", "--port", "http"): "not a whole number",
    ("serve", "--port", "70000"): "0 to 65535",
    ("serve", "--host", "no.such.host.invalid"): "cannot listen at no.such.host.invalid:8880",
    ("serve", "--api-key-file", "missing"): "cannot read the API keys of missing: No such file",
    ("serve", "--voice-name", "onyx=carl"): "onyx=carl: the voice's speakers are af_heart, am_michael",
    ("serve", "--voice-name", "onyx"): "not KEY=VALUE",
    ("serve", "--max-rows", "0"): "1 to 4096",
    ("serve", "--max-seconds", "0"): "seconds must lie in",
    ("serve", "--stall-s", "0"): "stall_s must lie in",
    ("serve", "--voice", "missing"): "no voice 'missing'",
    ("serve", "--speaker", "am_michael"): "unrecognized arguments",
    ("serve", "--nonsense"): "unrecognized",
    ("tune", "--seconds", "1"): "5 to 3600",
    ("say",): "nothing to say",
    ("say", ""): "nothing to say",
    ("say", "   "): "nothing to say",
    ("say", "a", "b"): "unrecognized",
    ("say", "Yes.", "--file", "f", "--out-dir", "d"): "not both",
    ("say", "--file", "missing.txt", "--out-dir", "d"): "cannot read missing.txt",
    ("say", "--file", "missing.txt"): "--out-dir",
    ("say", "Yes.", "--out-dir", "d"): "--file",
    ("say", "--file", "f", "--out-dir", "d", "-o", "x.wav"): "give either",
    ("say", "Yes.", "-o", "x.xyz"): ".wav or .flac",
    ("say", "Yes.", "-o", "missing/x.wav"): "no folder missing",
    ("say", "Yes.", "-o", "/proc/x.wav"): "cannot write /proc/x.wav",
    ("say", "Yes.", "--json=missing/x.json"): "folder is missing",
    ("bench", "--text", "missing.txt"): "cannot read missing.txt",
    ("bench", "--batch", "1,0"): "1 to 64",
    ("bench", "--drafters", "unknown"): "no drafter 'unknown'",
    ("bench", "--runs", "0"): "--runs",
    ("verify", "--samples", "0"): "--samples",
    ("eval",): "--text",
    ("train",): "CONFIG",
    ("train", "missing.json"): "missing.json",
}


@pytest.mark.parametrize("args", ARGUMENTS, ids=" ".join)
def test_impossible_arguments(voice: str, args: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    needs_voice = args[:1] in (("say",), ("bench",), ("verify",))
    assert ARGUMENTS[args] in refused(capsys, *args, *(["--voice", voice] if needs_voice else []))


def test_folder_as_output(voice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.wav").mkdir()
    assert "it is a folder" in refused(capsys, "say", "Yes.", "-o", "x.wav", "--voice", voice)


def test_full_disk(voice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No space left" in refused(capsys, "say", "Yes.", "-o", "/dev/full", "--voice", voice, "--device", "cpu")
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert main(["say", "Yes.", "-o", "-", "--voice", voice, "--device", "cpu"]) == 2
    assert "No space left" in capsys.readouterr().err


def test_full_disk_in_a_process_of_its_own() -> None:
    root = Path(__file__).parent.parent
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "spear_spec", "voices", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(root)},
            timeout=120,
        )
    assert done.returncode == 2
    assert done.stderr.decode().strip().splitlines()[-1] == "spear-spec: No space left on device"


def test_disk_fills_up_while_writing(
    voice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old file stays, no temporary file is left."""
    Path("x.wav").write_bytes(b"precious")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert "No space left" in refused(capsys, "say", "Yes.", "-o", "x.wav", "--voice", voice, "--device", "cpu")
    assert Path("x.wav").read_bytes() == b"precious"


VOICES = {
    "no-such-voice": "no voice 'no-such-voice'",
    "/nonexistent/folder": "no voice",
    ".": "not a voice",
    "/etc/passwd": "is a file",
}


@pytest.mark.parametrize("name", VOICES)
def test_no_such_voice(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert VOICES[name] in refused(capsys, "say", "Yes.", "--voice", name)


def test_truncated_voice(voice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    shutil.copytree(voice, "cut")
    shard = Path("cut/t2s-1.safetensors")
    shard.write_bytes(shard.read_bytes()[:100])
    assert "t2s-1.safetensors is damaged" in refused(capsys, "say", "Yes.", "--voice", str(Path("cut").absolute()))


TEXTS = {
    "emoji": "I like it 🙂👍🏽 a lot.",
    "emoji alone": "🙂",
    "flag": "🇨🇭",
    "chinese": "你好，世界",
    "arabic": "مرحبا بالعالم",
    "hindi": "नमस्ते दुनिया",
    "russian": "Привет, мир!",
    "mixed": "He said привет and 你好, then left.",
    "symbols": "∑ ∞ ≠ § ¶ © ™ ♥ → ☃",
    "control": "Hello\x00\x01\x1b[31m world\x7f.",
    "combining": "Z̸̛͓a̵̢l̶͖g̷̝o̶̗",
    "zero width": "Hel\u200blo wo\u200drld.",
    "right to left": "\u202eabc\u202c",
    "private use": "\ue000\uf8ff hello",
    "shouting": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "nonsense": "xkqzvb wqrtpz",
    "one letter": "a",
    "numbers": "1234567890123456789012345678901234567890",
    "punctuation inside": 'Well...?!?! -- (yes); "no": maybe/never & co. #1 @home',
    "markup": "<speak>Hello <break time='1s'/></speak> & <af_heart>",
    "newlines": "One.\n\n\nTwo.\r\nThree.\tFour.",
    "one long word": "antidisestablishmentarianism" * 10,
}


@pytest.mark.parametrize("name", TEXTS)
def test_any_text_is_spoken(voice: str, name: str) -> None:
    """Odd text is spoken one way or another: it neither crashes nor vanishes."""
    assert main(["say", TEXTS[name], "-o", "x.wav", "--voice", voice, "--device", "cpu", "--max-tokens", "30"]) == 0
    samples, _ = soundfile.read("x.wav")
    assert len(samples)
    assert np.isfinite(samples).all()


@pytest.mark.parametrize("text", ["\u200b", "\u200b\u200d\ufeff", "\x00"])
def test_text_without_anything_to_say(voice: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing" in refused(capsys, "say", text, "--voice", voice, "--device", "cpu")


def test_text_that_is_not_utf8(voice: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("latin.txt").write_bytes("Café\n".encode("latin-1"))
    assert main(["say", "--file", "latin.txt", "--out-dir", "d", "--voice", voice]) == 2
    assert "latin.txt is not UTF-8 text (byte 3)" in capsys.readouterr().err
    assert "not UTF-8" in refused(capsys, "say", "Caf\udce9", "--voice", voice)


def test_huge_unbroken_text(voice: str) -> None:
    """Five thousand letters without a full stop are cut into pieces that the models can take."""
    assert main(["say", "word " * 1000, "-o", "x.wav", "--voice", voice, "--device", "cpu", "--max-tokens", "3"]) == 0
    assert soundfile.info("x.wav").duration > 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminated_command_leaves_nothing_behind(voice: str, number: int, tmp_path: Path) -> None:
    """Stopped while it writes: the old file stays, and no half of a new one."""
    (tmp_path / "x.wav").write_bytes(b"old")
    (tmp_path / "long.txt").write_text("A word. " * 5000)
    command = [sys.executable, "-m", "spear_spec", "say", "-", "-o", "x.wav", "--voice", voice, "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with (tmp_path / "long.txt").open("rb") as text:
        process = subprocess.Popen(
            command,
            stdin=text,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=environment,
            preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # under nohup it would be inherited as ignored
        )
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in tmp_path.glob(".*.part")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    process.send_signal(number)
    _, complaints = process.communicate(timeout=120)
    assert process.returncode == 128 + number, complaints
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.txt", "x.wav"]
    assert (tmp_path / "x.wav").read_bytes() == b"old"
    assert b"Traceback" not in complaints
