"""The command line as a program outside sees it: files, streams, JSON to the letter, exit statuses."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from spear_spec.cli import main
from tests.stubs.schemas import check
from tests.stubs.voice import make_voice

TEXT = "The quick brown fox jumps over the lazy dog."
FLAGS = [
    "--voice",
    "--speaker",
    "--drafter",
    "--verifier",
    "--gamma",
    "--num-drafts",
    "--tree",
    "--set",
    "--temperature",
    "--top-k",
    "--top-p",
    "--guidance",
    "--speed",
    "--seed",
    "--device",
    "--dtype",
    "--threads",
    "--batch",
    "--max-tokens",
    "--json",
]


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_voice(tmp_path_factory.mktemp("voices") / "tiny").path)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def last_json(text: str) -> dict:
    return json.loads(text.rstrip("\n").splitlines()[-1])


def run(*args: str, stdin: bytes | None = None, **kwargs: object) -> subprocess.CompletedProcess:
    """The installed program in a process of its own: a cold start."""
    root = Path(__file__).parent.parent
    env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "spear_spec", *args], input=stdin, capture_output=True, env=env, timeout=120, **kwargs
    )


def test_say(voice: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            [
                "say",
                TEXT,
                "-o",
                "fox.wav",
                "--voice",
                voice,
                "--device",
                "cpu",
                "--seed",
                "4",
                "--temperature",
                "0.9",
                "--json",
            ]
        )
        == 0
    )
    captured = capsys.readouterr()
    result = last_json(captured.out)
    check(result, "say/1")
    assert result["voice"] == "tiny"
    assert result["sampling"]["temperature"] == 0.9
    assert result["threads"] == 1
    assert (result["seed"], result["batch"], result["drafter"], result["verifier"], result["gamma"]) == (
        4,
        1,
        "small",
        "rejection",
        3,
    )
    [item] = result["items"]
    assert item["file"] == "fox.wav"
    samples, rate = soundfile.read("fox.wav")
    assert rate == 24000
    assert len(samples) / rate == pytest.approx(item["audio_s"], abs=1e-3)
    assert "fox.wav" in captured.err
    assert len(captured.out.splitlines()) == 1


SHAPES = {
    ("--verifier", "kseq"): ("kpath", "kseq", True, 4, None),
    ("--num-drafts", "2"): ("kpath", "kseq", True, 2, None),
    ("--tree", "3-2"): ("small", "recursive_wor", True, 1, "3-2"),
    ("--tree", "dynamic", "--set", "nodes=6"): ("small", "recursive", True, 1, "dynamic"),
    ("--verifier", "matching"): ("small", "matching", True, 1, "dynamic"),
    ("--verifier", "coarse"): ("small", "coarse", False, 1, None),
    ("--verifier", "typical", "--tree", "3-2"): ("small", "typical", False, 1, "3-2"),
    ("--verifier", "lenience", "--set", "l=.5"): ("small", "lenience", False, 1, None),
    ("--verifier", "block", "--guidance", "2", "--set", "guided=true"): ("small", "block", True, 1, None),
}


@pytest.mark.parametrize("options", SHAPES, ids=" ".join)
def test_say_with_other_drafts_and_rules(
    voice: str, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """What is left open is filled in, and the result says what was used and whether it is lossless."""
    text = f"{TEXT} {TEXT} {TEXT}"
    assert main(["say", text, "-o", "fox.wav", "--voice", voice, "--device", "cpu", *options, "--json"]) == 0
    result = last_json(capsys.readouterr().out)
    check(result, "say/1")
    assert tuple(result[key] for key in ("drafter", "verifier", "lossless", "num_drafts", "tree")) == SHAPES[options]
    [item] = result["items"]
    assert item["target_calls"] <= item["tokens"] <= item["accepted"] + item["target_calls"]
    assert item["tokens_per_call"] > 1
    assert len(item["acceptance_by_position"]) <= result["gamma"]
    assert item["drafted"] >= item["accepted"]


def test_same_seed_same_file(voice: str) -> None:
    for name, seed in (("a.wav", "7"), ("b.wav", "7"), ("c.wav", "8")):
        assert main(["say", TEXT, "-o", name, "--voice", voice, "--device", "cpu", "--seed", seed]) == 0
    a, b, c = (Path(name).read_bytes() for name in ("a.wav", "b.wav", "c.wav"))
    assert a == b
    assert a != c


def test_cold_start_wav_to_stdout_json_to_stderr(voice: str) -> None:
    """Text from standard input, audio to standard output; and the same samples as in a warm process."""
    done = run(
        "say", "-", "-o", "-", "--voice", voice, "--device", "cpu", "--threads", "1", "--json", stdin=TEXT.encode()
    )
    assert done.returncode == 0, done.stderr
    cold, rate = soundfile.read(io.BytesIO(done.stdout), dtype="int16")
    result = next(json.loads(line) for line in done.stderr.decode().splitlines() if line.startswith("{"))
    assert result["items"][0]["file"] == "-"
    assert result["items"][0]["text"] == TEXT
    assert rate == 24000
    assert main(["say", TEXT, "-o", "warm.wav", "--voice", voice, "--device", "cpu", "--threads", "1"]) == 0
    np.testing.assert_array_equal(cold, soundfile.read("warm.wav", dtype="int16")[0])


def test_json_to_a_file(voice: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["say", "Yes.", "--voice", voice, "--device", "cpu", "--json=result.json", "--drafter", "none"]) == 0
    result = json.loads(Path("result.json").read_text())
    assert (result["drafter"], result["verifier"], result["gamma"], result["lossless"]) == ("none", None, 0, True)
    assert result["items"][0]["tokens_per_call"] == 1
    assert Path("out.wav").is_file()
    assert capsys.readouterr().out == ""


def test_json_does_not_swallow_the_text(voice: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["say", "--voice", voice, "--device", "cpu", "--json", "Yes."]) == 0
    assert last_json(capsys.readouterr().out)["items"][0]["text"] == "Yes."


@pytest.mark.parametrize("cold", [False, True])
def test_file_keeps_what_is_done(voice: str, cold: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Line 2 is blank, line 4 cannot be spoken: the others are there, numbered by line, and the status is 2."""
    Path("lines.txt").write_text("One.\n\nTwo words.\n\u200b\nThree.\n")
    args = ["say", "--file", "lines.txt", "--out-dir", "d/e", "--voice", voice, "--device", "cpu", "--json=r.json"]
    if cold:
        done = run(*args)
        status, err = done.returncode, done.stderr.decode()
    else:
        status, err = main(args), capsys.readouterr().err
    assert status == 2
    assert "line 4:" in err
    assert sorted(path.name for path in Path("d/e").iterdir()) == ["000.wav", "002.wav", "004.wav"]
    items = json.loads(Path("r.json").read_text())["items"]
    assert [(item["text"], item["file"]) for item in items] == [
        ("One.", "d/e/000.wav"),
        ("Two words.", "d/e/002.wav"),
        ("Three.", "d/e/004.wav"),
    ]


def test_flac_and_an_old_file_is_replaced_whole(voice: str) -> None:
    Path("a.flac").write_bytes(b"old")
    assert main(["say", "Yes.", "-o", "a.flac", "--voice", voice, "--device", "cpu"]) == 0
    assert soundfile.info("a.flac").format == "FLAC"
    assert [path.name for path in Path().iterdir()] == ["a.flac"]


def test_bench(voice: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.txt").write_text("One.\nTwo words.\n")
    args = [
        "bench",
        "--voice",
        voice,
        "--device",
        "cpu",
        "--text",
        "t.txt",
        "--runs",
        "2",
        "--batch",
        "1,2",
        "--drafters",
        "small,kpath",
        "--json",
        "--max-tokens",
        "24",
        "--plot",
        "p.png",
    ]
    assert main(args) == 0
    result = last_json(capsys.readouterr().out)
    check(result, "bench/1")
    for row in result["rows"]:
        assert row["tokens_per_s"]["lo"] <= row["tokens_per_s"]["median"] <= row["tokens_per_s"]["hi"]
        assert row["runs"] == 2
    assert [(row["drafter"], row["batch"]) for row in result["rows"]] == [
        (name, batch) for batch in (1, 2) for name in ("none", "small", "kpath")
    ]
    assert [row["verifier"] for row in result["rows"][:3]] == [None, "rejection", "kseq"]
    plain, fast = result["rows"][:2]
    assert plain["tokens_per_call"] == 1
    assert plain["speedup"] == {"median": 1.0, "lo": 1.0, "hi": 1.0}
    assert plain["predicted_speedup"] == 1.0
    step = fast["target_step_ms"]
    predicted = fast["tokens_per_call"] * step["1"] / (step["gamma+1"] + fast["gamma"] * fast["draft_step_ms"])
    assert fast["predicted_speedup"] == pytest.approx(predicted, rel=0.01)
    assert step["1"] == plain["target_step_ms"]["1"]
    assert Path("p.png").stat().st_size > 1000


def test_verify(voice: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 0 for the exact rule; exit 1 as soon as every draft token is kept."""
    args = ["verify", "--voice", voice, "--device", "cpu", "--samples", "1200", "--json"]
    assert main(args) == 0
    result = last_json(capsys.readouterr().out)
    check(result, "verify/1")
    assert result["pass"] is True

    from spear_spec.decoding.verifiers import rejection
    from spear_spec.exactness.oracles import in_parts

    in_parts(monkeypatch)
    monkeypatch.setattr(rejection, "judged", lambda *_: None)  # the form on lists, not C
    monkeypatch.setattr(rejection, "quotients", lambda p, q: torch.ones_like(p))
    assert main(args) == 1
    assert last_json(capsys.readouterr().out)["pass"] is False


def test_eval(voice: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without judges, which have tests of their own: both arms, every line, audio kept on request."""
    monkeypatch.setattr("spear_spec.evaluation.evaluate.make_judges", lambda names: [])
    Path("t.txt").write_text("One.\n\nTwo words.\nThree.\n")
    assert (
        main(
            [
                "eval",
                "--voice",
                voice,
                "--device",
                "cpu",
                "--text",
                "t.txt",
                "--limit",
                "2",
                "--out-dir",
                "wavs",
                "--json",
            ]
        )
        == 0
    )
    result = last_json(capsys.readouterr().out)
    check(result, "eval/1")
    assert list(result["arms"]) == ["speculative", "autoregressive"]
    assert [(item["id"], item["arm"]) for item in result["items"]] == [
        (i, arm) for i in (0, 1) for arm in ("speculative", "autoregressive")
    ]
    assert len(list(Path("wavs").glob("*.wav"))) == 4


def test_voices(voice: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEAR_SPEC_VOICES", str(Path(voice).parent))
    assert main(["voices"]) == 0
    assert "tiny: af_heart, am_michael" in capsys.readouterr().out
    assert main(["voices", "--json"]) == 0
    result = last_json(capsys.readouterr().out)
    check(result, "voices/1")
    [tiny] = [entry for entry in result["voices"] if entry["name"] == "tiny"]
    assert tiny["path"] == voice
    assert tiny["speakers"] == ["af_heart", "am_michael"]
    assert main(["say", "Yes.", "--voice", "tiny", "--device", "cpu"]) == 0


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("spear-spec 0.")
    with pytest.raises(SystemExit) as leave:
        main(["say", "--help"])
    assert leave.value.code == 0
    shown = capsys.readouterr().out
    for flag in FLAGS:
        assert flag in shown, flag


def test_import_is_light() -> None:
    """Options are refused, and voices found, before torch or spaCy is imported."""
    code = (
        "import sys, spear_spec, spear_spec.cli, spear_spec.voice.bundle\n"
        "assert spear_spec.cli.main(['say', 'x', '--gamma', '0']) == 2\n"
        "assert spear_spec.cli.main(['say', 'x', '--voice', 'no-such-voice']) == 2\n"
        "print([m for m in ('torch', 'spacy', 'transformers', 'numpy.random') if m in sys.modules])"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, timeout=60)
    assert done.stdout.strip().splitlines()[-1:] == ["[]"], done.stderr


def test_interrupt_leaves_nothing_behind(
    voice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C while the second line of a file is spoken: the first line's file stays, nothing is half-written."""
    from spear_spec.acoustic.unit.native import NativeStream

    finish, calls = NativeStream.finish, []

    def stopped(self: NativeStream) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt  # what Python makes of SIGINT; the signal itself is ignored in a background job
        return finish(self)

    monkeypatch.setattr(NativeStream, "finish", stopped)
    Path("lines.txt").write_text("One.\nTwo.\nThree.\n")
    assert main(["say", "--file", "lines.txt", "--out-dir", "d", "--voice", voice, "--device", "cpu"]) == 130
    assert capsys.readouterr().err.strip().splitlines()[-1] == "spear-spec: interrupted"
    assert [path.name for path in Path("d").iterdir()] == ["000.wav"]


CLOSED = {
    "say - <&-": "standard input is closed",
    "say --file - --out-dir d <&-": "standard input is closed",
    "say x -o - >&-": "standard output, which is closed",
    "say x --json >&-": "standard output is closed",
    "say x --gamma 0 2>&-": "",
}


@pytest.mark.parametrize("line", CLOSED)
def test_closed_streams(voice: str, line: str) -> None:
    """One clear line, exit status 2, no traceback and nothing written; with nowhere to complain to, silence."""
    command, _, redirection = line.rpartition(" ")
    done = shell(f"{command} --voice {shlex.quote(voice)} --device cpu {redirection}")
    assert done.returncode == 2, done.stderr
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert len(lines) == (1 if CLOSED[line] else 0), done.stderr
    assert all(text.startswith("spear-spec: ") and CLOSED[line] in text for text in lines)
    assert list(Path().iterdir()) == []


def test_what_is_said_to_a_closed_standard_error_spoils_nothing(voice: str) -> None:
    done = shell(f"say Yes. --voice {shlex.quote(voice)} --device cpu --max-tokens 9 --json 2>&-")
    assert done.returncode == 0
    assert json.loads(done.stdout)["schema"] == "say/1"


def test_a_file_is_written_where_all_standard_files_are_closed(voice: str) -> None:
    """No pipe of the front end's process gets the number of one of them."""
    done = shell(f"say Yes. --voice {shlex.quote(voice)} --device cpu --max-tokens 9 -o a.wav >&- 2>&-")
    assert done.returncode == 0
    assert Path("a.wav").stat().st_size > 44


def shell(line: str) -> subprocess.CompletedProcess:
    """A line for the shell in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        f"{shlex.quote(sys.executable)} -m spear_spec {line}", shell=True, capture_output=True, env=env, timeout=120
    )


@contextlib.contextmanager
def speaking_for_hours(voice: str, *args: str) -> Iterator[subprocess.Popen]:
    """`say` with a text that has no end for a test."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "spear_spec", "say", "-", "--voice", voice, "--device", "cpu", *args]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=env, **pipes) as process:
        assert process.stdin is not None
        process.stdin.write(b"It rained for the whole day. Nobody in the town minded it. " * 20_000)
        process.stdin.close()
        process.stdin = None
        try:
            yield process
        finally:
            process.kill()


def test_wav_to_stdout_while_it_is_spoken(voice: str) -> None:
    """The header and the first sound are there long before the end; SIGTERM then ends it without a word."""
    with speaking_for_hours(voice, "-o", "-") as process:
        assert process.stdout is not None
        start = process.stdout.read(44 + 2 * 4000)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        rest, err = process.communicate(timeout=120)
        assert process.returncode == 143
    assert err == b""
    assert start[:4] == b"RIFF" and start[8:16] == b"WAVEfmt "
    assert start[36:44] == b"data\xff\xff\xff\xff"  # nobody knows how long it will be
    samples, rate = soundfile.read(io.BytesIO(start + rest[: len(rest) // 2 * 2]), dtype="int16")
    assert (rate, len(samples)) == (24000, 4000 + len(rest) // 2)
    assert np.abs(samples).max() > 100


def test_sigterm_leaves_nothing_behind(voice: str) -> None:
    with speaking_for_hours(voice, "-o", "out.wav") as process:
        limit = time.monotonic() + 120
        while not any(path.stat().st_size > 44 for path in Path().iterdir()):
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.1)
        assert [path.suffix for path in Path().iterdir()] == [".part"]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 143
    assert err == b""
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("redirection", ["> out.wav", ">> out.wav"])
def test_wav_to_a_file_of_the_shell(voice: str, redirection: str) -> None:
    """Where standard output can be rewound the header says how long the sound is; what was there stays."""
    if redirection.startswith(">>"):
        Path("out.wav").write_bytes(b"before")
    done = shell(f"say Yes. -o - --voice {shlex.quote(voice)} --device cpu --max-tokens 9 {redirection}")
    assert done.returncode == 0, done.stderr
    data = Path("out.wav").read_bytes()
    if redirection.startswith(">>"):
        assert data[:6] == b"before"
        assert data[6:10] == b"RIFF" and data[46:50] == b"\xff" * 4
        data = data[6:]
    else:
        assert [struct.unpack_from("<I", data, at)[0] for at in (4, 40)] == [len(data) - 8, len(data) - 44]
    assert len(soundfile.read(io.BytesIO(data))[0]) == (len(data) - 44) // 2 > 0


def test_seeds_are_of_64_bits(voice: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them are taken, and each is another: also those that differ only above 2^32."""
    heard = {}
    for seed in (3, 3 + 2**32, 3 + 2**63, 2**64 - 1):
        assert main(["say", TEXT, "--voice", voice, "--device", "cpu", "--seed", str(seed), "--json"]) == 0
        assert last_json(capsys.readouterr().out)["seed"] == seed
        heard[seed] = Path("out.wav").read_bytes()
    assert len(set(heard.values())) == 4
    assert main(["say", TEXT, "--voice", voice, "--seed", str(2**64)]) == 2
    assert f"{2**64} does not lie in 0 to {2**64 - 1}" in capsys.readouterr().err


def test_reader_gone() -> None:
    """`spear-spec voices --json | head -c 0` ends quietly, and so would audio: the same stream, the same end."""
    source, sink = os.pipe()
    os.close(source)
    root = Path(__file__).parent.parent
    with os.fdopen(sink, "wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "spear_spec", "voices", "--json"],
            stdout=out,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(root)},
            timeout=120,
        )
    assert done.returncode == 141, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


def test_a_beam_search(voice: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same at every seed, without drafts; options that would mean nothing are refused before the voice is read."""
    say = ["say", TEXT, "-o", "fox.wav", "--voice", voice, "--device", "cpu", "--beam", "3", "--max-tokens", "30"]
    counts = set()
    for seed in ("1", "2"):
        assert main([*say, "--seed", seed, "--length-penalty", "1", "--guidance", "1.5", "--json"]) == 0
        result = last_json(capsys.readouterr().out)
        check(result, "say/1")
        assert (result["beam"], result["drafter"], result["tuned"]) == (3, "none", None)
        counts.add((result["items"][0]["tokens"], result["items"][0]["target_calls"]))
    assert len(counts) == 1
    for wrong, says in (
        (["--drafter", "small"], "a beam search drafts nothing: leave --drafter out"),
        (["--gamma", "3", "--set", "stop=none"], "a beam search drafts nothing: leave --gamma, --set out"),
        (["--temperature", "1", "--top-p", "1"], "a beam search draws nothing: leave --temperature, --top-p out"),
        (["--complete", "on"], "leave --complete off"),
        (["--runtime", "graphs"], "take runtime eager or auto"),
        (["--length-penalty", "11"], "length_penalty must lie in 0 to 10"),
    ):
        assert main([*say, *wrong]) == 2
        assert says in capsys.readouterr().err
    assert main(["say", TEXT, "--length-penalty", "1"]) == 2
    assert "--length-penalty goes with --beam" in capsys.readouterr().err
    Path("lines.txt").write_text("One.\n")
    assert main(["say", "--file", "lines.txt", "--out-dir", "d", "--workers", "1", "--beam", "2"]) == 2
    assert "bulk synthesis draws its tokens: leave --beam out" in capsys.readouterr().err
