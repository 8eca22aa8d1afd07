"""The picture in the README: a spectrogram, and under it every semantic token by how it came about.

python recipes/benchmark/picture.py docs/speculation.png --text "..."
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from spear_spec import TTS
from spear_spec.decoding import Request
from spear_spec.decoding.chance import SENTENCE, derive

KINDS = {"accepted": "#2a9d4a", "recovered": "#d1495b", "bonus": "#edae49"}


def token_kinds(tts: TTS, text: str, speaker: str | None, seed: int) -> tuple[list[str], list[int], torch.Tensor]:
    """How each token of the text came about, the tokens kept at each target call, and the tokens."""
    [ids] = tts.texts([text], speaker)
    engine = tts.decoder.engine()
    [utterance] = engine.admit([Request(ids, seed=derive(seed, 0, SENTENCE), sampling=tts.sampling)])
    kinds: list[str] = []
    calls = []
    while engine.running:
        verdict = engine.step()
        kept, accepted = len(verdict.tokens[0]), verdict.num_accepted[0]
        last = "bonus" if accepted == verdict.num_drafted[0] else "recovered"
        kinds += ["accepted"] * accepted + [last] * (kept - accepted)
        calls.append(kept)
    return kinds, calls, torch.tensor(utterance.speech)


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch, Rectangle

    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out")
    ap.add_argument("--text", default="The quick brown fox jumps over the lazy dog.")
    ap.add_argument("--voice")
    ap.add_argument("--speaker")
    ap.add_argument("--seed", type=int, default=0)
    a = ap.parse_args()
    tts = TTS.load(a.voice, threads=1)
    kinds, calls, tokens = token_kinds(tts, a.text, a.speaker, a.seed)
    stream = tts.stage.open(a.speaker or tts.speakers[0], 1.0, torch.Generator().manual_seed(a.seed))
    samples = torch.cat([stream.push(tokens), stream.finish()]).numpy()
    seconds = len(tokens) / tts.decoder.frame_rate
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(11, 4), sharex=True, height_ratios=[5, 1], layout="constrained")
    top.specgram(
        samples + 1e-7 * np.random.default_rng(0).standard_normal(len(samples)),
        NFFT=768,
        noverlap=640,
        Fs=tts.sample_rate,
        cmap="magma",
        vmin=-130,
        vmax=-30,
    )
    top.set_ylim(0, 10000)
    top.set_ylabel("Hz")
    top.set_title(
        f"“{a.text}”  {len(kinds)} tokens in {len(calls)} target calls: {len(kinds) / len(calls):.2f} a call",
        fontsize=10,
    )
    for i, kind in enumerate(kinds):
        bottom.add_patch(Rectangle((i / 25, 0), 1 / 25, 1, facecolor=KINDS[kind], edgecolor="white", linewidth=0.4))
    for edge in np.cumsum([0, *calls]):
        bottom.axvline(edge / 25, color="black", linewidth=0.9)
    bottom.set_xlim(0, seconds + 0.04)
    bottom.set_yticks([])
    bottom.set_xlabel("seconds; a black line is a call of the target")
    labels = {
        "accepted": "drafted and accepted",
        "recovered": "draft rejected, token recovered",
        "bonus": "bonus token",
    }
    bottom.legend(
        handles=[Patch(color=c, label=labels[k]) for k, c in KINDS.items()],
        ncols=3,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.7),
        frameon=False,
        fontsize=9,
    )
    figure.savefig(a.out, dpi=110)


if __name__ == "__main__":
    main()
