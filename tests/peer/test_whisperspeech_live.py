"""Parity with the real WhisperSpeech, side by side in one process: `make test-peer`, in an environment of its own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from whisperspeech import languages
from whisperspeech.t2s_up_wds_mlang_enclm import TSARTransformer, Tunables

from spear_spec.config import SamplingConfig
from spear_spec.decoding.loop import generate
from spear_spec.decoding.request import Request
from spear_spec.decoding.session import Session
from spear_spec.interop import load_whisperspeech
from spear_spec.models.whisperspeech import WhisperSpeechT2S
from spear_spec.text.bytes import LANGUAGES, ByteFrontEnd

pytestmark = pytest.mark.peer
# the package's own sizes micro and tiny with its usual lengths, and one with everything else
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "micro": ({"depth": 2, "n_head": 3, "ffn_mult": 1, "ttoks_len": 550, "stoks_len": 750, "stoks_codes": 513}, {}),
    "tiny": (
        {"depth": 4, "n_head": 6, "ttoks_len": 550, "stoks_len": 750, "stoks_codes": 513, "stoks_width": 64},
        {"padding_token_offset": -1},
    ),
    "other": (
        {
            "depth": 3,
            "n_head": 4,
            "head_width": 10,
            "ffn_mult": 3,
            "ttoks_len": 60,
            "stoks_len": 90,
            "stoks_codes": 33,
            "stoks_width": 7,
            "ttoks_width": 12,
        },
        {"causal_encoder": False, "query_mult": 2.0, "output_mult": 0.6, "encoder_depth_ratio": 0.5, "cps_bins": 17},
    ),
}
REQUESTS = [("Hello there, world.", "en", 15.0), ("Zażółć gęślą jaźń", "pl", 4.9), ("はい!", "ja", 40.0)]
TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def peer(name: str, seed: int = 0) -> TSARTransformer:
    """The real package's model with random weights away from its start, where queries are zero."""
    torch.manual_seed(seed)
    shape, tunables = SHAPES[name]
    model = TSARTransformer(ttoks_codes=256, **shape, tunables=Tunables(**tunables)).eval()
    for key, parameter in model.named_parameters():
        if "ln" in key:
            parameter.add_(0.2 * torch.randn_like(parameter))
        elif parameter.ndim == 1:
            parameter.normal_(0, 0.2)
        else:
            parameter.normal_(0, 0.6 if "embedding" in key else 1.2 * parameter.shape[-1] ** -0.5)
    model.ensure_tokenizer()
    return model


def loaded(theirs: TSARTransformer, folder: Path) -> tuple[WhisperSpeechT2S, ByteFrontEnd]:
    """Our model by way of a file that the package itself saves, and its front end."""
    theirs.save_model(folder / "t2s-random.model")
    ours = load_whisperspeech(folder / "t2s-random.model")
    cfg = ours.cfg
    return ours, ByteFrontEnd(text_length=cfg.text_length, languages=cfg.languages, rate_bins=cfg.rate_bins)


@pytest.mark.parametrize("name", SHAPES)
def test_equal_logits_on_random_weights(name: str, tmp_path: Path) -> None:
    theirs = peer(name)
    ours, front = loaded(theirs, tmp_path)
    tokens = torch.randint(0, ours.eos_id, (1, 80))
    start = theirs.stoks_codes + theirs.tunables.padding_token_offset
    read = torch.cat((torch.tensor([[start]]), tokens), 1)
    for text, language, rate in REQUESTS:
        data = torch.tensor(theirs.tokenizer.encode(text))
        data = torch.nn.functional.pad(data, (1, theirs.ttoks_len - len(data) - 1))[None]
        want, _ = theirs(
            data,
            None,
            torch.tensor([languages.to_id(language)]),
            torch.tensor([rate]),
            read,
            in_stoks_positions=torch.arange(read.shape[1]),
            loss=None,
        )
        memory = ours.encode(torch.tensor([front.encode(text, language, rate)]))
        ids = torch.cat((torch.tensor([[ours.start_id]]), tokens), 1)
        cache = ours.new_cache(1, capacity=8)
        chunks = torch.cat([ours(part, memory, cache).logits for part in (*ids[:, :9].split(1, 1), ids[:, 9:])], 1)
        found = [(got - want).abs().max().item() for got in (ours(ids, memory).logits, chunks)]
        print(name, language, [f"{value:.1e}" for value in found], f"of {want.abs().max():.1f}")
        assert max(found) < TOLERANCE


@pytest.mark.parametrize("prefix", [(), (3, 1, 4, 1, 5)], ids=["whole", "prompted"])
@pytest.mark.parametrize("name", SHAPES)
def test_equal_greedy_tokens_from_both_loops(name: str, prefix: tuple[int, ...], tmp_path: Path) -> None:
    """The package's cached `generate`, with and without a prompt of tokens, and our plain loop."""
    theirs = peer(name)
    ours, front = loaded(theirs, tmp_path)
    theirs.optimize(max_batch_size=1, dtype=torch.float32, torch_compile=False)
    text, language, rate = REQUESTS[1]
    room = min(60, theirs.stoks_len)
    prompt = {"stoks_prompt": torch.tensor(prefix)} if prefix else {}
    made = copy.deepcopy(theirs).generate(
        text, cps=rate, lang=language, N=room, top_k=1, show_progress_bar=False, **prompt
    )
    want = made[0].tolist()
    session = Session(ours)
    session.admit(
        [Request(front.encode(text, language, rate), prefix=prefix, sampling=SamplingConfig(0.0), cap=room - 1)]
    )
    for _ in generate(session):
        pass
    got = session.speech(0)
    assert len(got) == len(want) or session.ended[0] == "guard"  # the package has no guard against runaways
    assert len(got) > len(prefix) + 2 and got == want[: len(got)]


def test_languages_and_rates_are_counted_as_there() -> None:
    assert languages.languages == LANGUAGES
    for bins in (12, 32):
        model = TSARTransformer(depth=1, n_head=1, head_width=4, tunables=Tunables(cps_bins=bins))
        model.cps_embeddings.weight[:, 0] = torch.arange(bins, dtype=torch.float32)
        front = ByteFrontEnd(rate_bins=bins)
        for rate in (*torch.arange(0.05, 30, 0.05).tolist(), 1, 15, 20, 999):
            theirs = model._embed_cps(torch.tensor([rate]))[0, 0, 0]
            assert front.encode("a", "en", rate)[1] == 256 + 99 + int(theirs)
