"""The shipped voice is an ordinary Spear-TTS model: its weights give the logits that the real package gives with
them.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open

from spear_spec.config import T2SConfig
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.voice.bundle import open_voice

GOLDEN = Path(__file__).parents[1] / "golden" / "voice.safetensors"


def test_the_shipped_voice_equals_the_peer() -> None:
    bundle = open_voice()
    with safe_open(GOLDEN, "pt") as file:
        found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        shards = json.loads(file.metadata()["shards"])
    now = [shard["sha256"] for shard in bundle.config.files["t2s"]]
    assert now == shards, "the voice has new weights: make test-peer, then tests/golden/make_golden.py --voice"
    model = TextToSemantic(T2SConfig.from_dict(bundle.config.t2s))
    bundle.load_into(model, "t2s")
    text, tokens = found["text"], found["tokens"]
    ended = torch.nn.functional.pad(text, (0, 1))
    ended[torch.arange(len(text)), (text != 0).sum(-1)] = model.text_eos_id
    ids = torch.cat((torch.full((len(text), 1), model.start_id), tokens), 1)
    for dtype, limit in ((torch.float32, 1e-4), (torch.float64, 1e-9)):
        model.to(dtype)
        with torch.inference_mode():
            memory, cache = model.encode(ended), model.new_cache(len(text))
            whole = model(ids, memory).logits
            steps = torch.cat([model(part, memory, cache).logits for part in ids.split([1] * 31 + [6] * 5, 1)], 1)
        for logits in (whole, steps):
            assert (logits[:, :, found["columns"]].double() - found["logits"]).abs().max() < limit
