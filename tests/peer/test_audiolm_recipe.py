"""The recipe's trainings with the real audiolm-pytorch, tiny: from a folder of clips to a stage that speaks."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from spear_spec.acoustic.audiolm import AudioLMModule, AudioLMStage
from spear_spec.audio import Audio
from spear_spec.interop import load_audiolm_coarse, load_audiolm_fine, load_soundstream
from spear_spec.voice.acoustic import load_acoustic, save_stage
from spear_spec.voice.bundle import open_voice

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "recipes" / "audiolm"))
import train as recipe
from clips import Clips, Crops

pytestmark = pytest.mark.peer
TINY = Path(__file__).resolve().parents[2] / "recipes" / "audiolm" / "conf" / "tiny.toml"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dozen clips of some seconds, as `prepare.py` leaves them."""
    folder, chance = tmp_path_factory.mktemp("audiolm"), np.random.default_rng(0)
    tokens, lines = {}, []
    for at in range(24):
        count = 26 + at % 9
        tone = np.sin(np.arange(count * 640 - 100) * (0.02 + 0.005 * (at % 5))) + 0.3 * chance.standard_normal(
            count * 640 - 100
        )
        Audio((0.2 * tone).astype(np.float32), 16000).save(folder / f"{at}.wav")
        tokens[f"a/{at}"] = torch.arange(count, dtype=torch.int32) * 7 % 1024
        lines.append(f"a/{at}\t{folder / f'{at}.wav'}\n")
    save_file(tokens, folder / "tokens.safetensors")
    (folder / "clips.tsv").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def conf() -> dict[str, Any]:
    """`tiny`, and smaller."""
    conf = tomllib.loads(TINY.read_text())
    conf["codec"] |= {"channels": 2, "codebook_dim": 8, "codebook_size": 16, "attn_dim_head": 8}
    conf["soundstream"] |= {"warm_steps": 2, "steps": 1, "batch": 2, "fitted_on": 8}
    for name in ("coarse", "fine"):
        conf[name] |= {"steps": 3, "batch": 2, "tokens": [8, 12]}
        conf[name]["shape"] = {"dim": 16, "depth": 1, "heads": 2, "dim_head": 8}
    return conf


def test_crops_of_a_batch_have_one_length_and_their_own_tokens(out: Path) -> None:
    clips = Clips(out, 16000, 640)
    crops, seen = Crops(clips, list(clips.paths), 3, (8, 20), with_tokens=True), set()
    for first in range(0, 24, 3):
        batch: Any = [crops[at] for at in range(first, first + 3)]
        (length,) = {len(tokens) for tokens, _ in batch}
        seen.add(length)
        for at, (tokens, samples) in zip(range(first, first + 3), batch):
            assert len(samples) == 640 * length and 8 <= length <= 20
            start = next(s for s in range(35) if torch.equal(clips.tokens[f"a/{at}"][s : s + length], tokens))
            assert torch.equal(clips.samples(f"a/{at}")[640 * start :][: len(samples)], samples)
    assert len(seen) > 2
    assert clips.samples("a/0").shape == (26 * 640,)  # the file ends a little earlier


def test_from_clips_to_a_stage(out: Path, conf: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    peer = recipe.package()
    ends = []
    inner = peer.audiolm_pytorch.append_eos_id
    monkeypatch.setattr(peer.audiolm_pytorch, "append_eos_id", lambda ids, end: ends.append(end) or inner(ids, end))
    for name in recipe.PARTS:
        peer.trainer.ONE_TRAINER_INSTANTIATED = False
        if name == "soundstream":
            recipe.train_soundstream(peer, out, conf)
        else:
            recipe.train_writer(peer, out, conf, name)
        if (
            name == "coarse"
        ):  # of both kinds of tokens, in every step; left alone, the trainer appends them in its first
            assert len(ends) == 2 * conf["coarse"]["steps"]
    codec = load_soundstream(out / "soundstream.pt", window=conf["codec"]["attn_window_size"])
    samples = Clips(out, 16000, 640).samples("a/3")[None]
    theirs = recipe.trained_codec(peer, out, conf)
    with torch.inference_mode():
        codes = theirs(samples, return_encoded=True)[1]
        assert torch.equal(codec.encode(samples), codes)
        assert (codec.decode(codes) - theirs.decode_from_codebook_indices(codes)[:, 0]).abs().max() < 1e-5
    assert min(len(codes[..., q].unique()) for q in range(4)) > 1
    coarse, fine = load_audiolm_coarse(out / "coarse.pt", unique=False), load_audiolm_fine(out / "fine.pt")
    shape = {"coarse": coarse.cfg.to_dict(), "fine": fine.cfg.to_dict(), "codec": codec.cfg.to_dict()}
    voice = open_voice()
    folder = save_stage(
        out / "stage", voice, name="toy", licence="CC0-1.0", origin="tests", kind="audiolm", sample_rate=16000,
        shape=shape, weights=AudioLMModule(coarse, fine, codec).state_dict(),
    )  # fmt: skip
    stage = load_acoustic(voice, folder)
    assert isinstance(stage, AudioLMStage)
    stream = stage.open("af_heart", generator=torch.Generator().manual_seed(0))
    stream.push(torch.tensor([5, 12, 19, 26, 33, 40]))
    assert len(stream.finish()) % 320 == 0
