"""The stage of audiolm-pytorch's transformers: its contract, its prompts, and that drafts change nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "golden"))
from audiolm_cases import Case

from spear_spec.acoustic.audiolm import AudioLMStage, Prompt
from spear_spec.acoustic.contract import AcousticStage
from spear_spec.config import SamplingConfig, SpecConfig
from spear_spec.decoding import Parts
from spear_spec.errors import AudioError, ConfigError, NumericsError

FRAME = 4  # samples of the toy codec below
PROMPT = Prompt((3, 1), ((0, 1, 2, 3, 4), (5, 6, 7, 8, 0)))


class Telling:
    """A codec whose samples are the codes: four samples tell all five codes of a frame."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale, self.heard = scale, list[Tensor]()

    def decode(self, codes: Tensor) -> Tensor:
        assert codes.dtype == torch.int64 and codes.ndim == 3 and int(codes.min()) >= 0 and int(codes.max()) < 9
        self.heard.append(codes)
        a, b, c, d, e = codes.unbind(-1)
        return self.scale * torch.stack((a, b, c, 10 * d + e), -1).flatten(1)[:, None].float()


def decoded(samples: Tensor) -> list[list[int]]:
    return [[int(a), int(b), int(c), int(d) // 10, int(d) % 10] for a, b, c, d in samples.view(-1, FRAME).tolist()]


def stage(**change: Any) -> AudioLMStage:
    return AudioLMStage(
        **{
            "coarse": Case.read("coarse").coarse(),
            "fine": Case.read("fine").fine(),
            "codec": Telling(),
            "sample_rate": 400,
            "frame_samples": FRAME,
            "token_samples": 2 * FRAME,
            "prompts": {"one": PROMPT},
            **change,
        }
    )


def speak(made: AudioLMStage, tokens: list[int], voice: str = "", seed: int = 0, cuts: tuple[int, ...] = ()) -> Tensor:
    stream = made.open(voice, 1.0, torch.Generator().manual_seed(seed))
    for part in torch.tensor(tokens).tensor_split(list(cuts)):
        assert not len(stream.push(part))
    return stream.finish()


def test_it_is_a_stage() -> None:
    made = stage()
    assert isinstance(made, AcousticStage) and made.lookahead is None and made.module is None


def test_same_chance_same_sound_however_tokens_come() -> None:
    made, tokens = stage(), [3, 1, 4, 1, 5, 9, 2, 6]
    once = speak(made, tokens)
    assert once.dtype == torch.float32 and once.ndim == 1 and len(once) % FRAME == 0 and len(once)
    assert torch.equal(speak(made, tokens, cuts=(0, 3, 3, 7)), once)
    assert torch.equal(speak(stage(), tokens), once)
    assert not torch.equal(speak(made, tokens, seed=1), once)
    assert not len(speak(made, []))


def test_codes_are_what_the_transformers_write_greedily() -> None:
    """Coarse codes are the package's own `generate`'s (the golden file), fine ones follow from them."""
    case = Case.read("coarse")
    length = int(case.found["lengths"][0])
    made = stage(sampling=SamplingConfig(0.0), sample_rate=100000)
    frames = decoded(speak(made, case.found["repeated"][0, : 2 * length].tolist()))
    greedy = case.found["greedy"][0].view(-1, 3)
    count = min(len(frames), len(greedy))
    assert count >= 10 and [frame[:3] for frame in frames[:count]] == greedy[:count].tolist()


def test_an_end_token_ends_the_sound() -> None:
    """Row 2 of the golden file ends after a frame; the package would have said on."""
    case = Case.read("coarse")
    row = next(row for row, said in enumerate(case.found["greedy"]) if (said < 0).any())
    prefix = case.found["repeated"][row, : 2 * int(case.found["lengths"][row])].tolist()
    frames = decoded(speak(stage(sampling=SamplingConfig(0.0)), prefix))
    assert len(frames) == int((case.found["greedy"][row] >= 0).sum()) // 3


def test_drafts_change_no_sample() -> None:
    """The n-gram drafter and the rule that draws as the plain loop does; and greedy with any rule."""
    tokens = [3, 1, 4, 1, 5, 9, 2, 6]
    for rule, sampling in (("matching", SamplingConfig(1.0, top_p=1.0)), ("rejection", SamplingConfig(0.0))):
        ahead = stage(parts=Parts(SpecConfig(drafter="ngram", verifier=rule, gamma=4)), sampling=sampling)
        assert torch.equal(speak(ahead, tokens), speak(stage(sampling=sampling), tokens))


def test_a_prompt_is_gone_on_from_and_not_heard() -> None:
    codec = Telling()
    made, heard = stage(codec=codec), codec.heard
    tokens = [4, 1, 5, 9]
    samples = speak(made, tokens, "one")
    assert heard[0][0, :2].tolist() == [list(frame) for frame in PROMPT.codes]
    assert len(samples) == FRAME * (heard[0].shape[1] - 2) > 0
    assert decoded(samples) == heard[0][0, 2:].tolist()
    assert not torch.equal(samples, speak(made, tokens))


@pytest.mark.parametrize(("rate", "frames"), [(400, 26), (20, 13)], ids=["cap", "guard"])
def test_it_is_cut_where_it_does_not_end(rate: int, frames: int) -> None:
    """Ties go to the first code, so the end token never comes. The guard cuts behind 40 tokens, inside of a frame."""
    made = stage(sampling=SamplingConfig(0.0), sample_rate=rate)
    with torch.no_grad():
        made.coarse.to_logits.weight[:] = 0
    assert len(decoded(speak(made, [1, 2, 3, 4, 5, 6, 7, 8]))) == frames


@pytest.mark.parametrize(
    ("voice", "rate", "message"), [("two", 1.0, "no prompt 'two'; available: one"), ("one", 1.5, "one speed")]
)
def test_what_it_cannot_do(voice: str, rate: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stage().open(voice, rate)


def test_bad_tokens_streams_and_numbers() -> None:
    made = stage()
    stream = made.open("")
    for bad in ([11], [-1]):
        with pytest.raises(AudioError, match="0 to 10"):
            stream.push(torch.tensor(bad))
    stream.finish()
    for again in (lambda: stream.push(torch.tensor([1])), stream.finish):
        with pytest.raises(AudioError, match="finished"):
            again()
    with pytest.raises(NumericsError):
        speak(stage(codec=Telling(float("nan"))), [1, 2])


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt((1,), ((1, 2, 3, 4),)), "5 codes below 9"),
        (Prompt((1,), ((1, 2, 3, 4, 9),)), "5 codes below 9"),
        (Prompt((11,), ()), "below 11"),
    ],
)
def test_prompts_that_are_not_its_own(prompt: Prompt, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stage(prompts={"bad": prompt})


def test_transformers_that_do_not_belong_together() -> None:
    case = Case.read("coarse")
    narrow = dict(case.weights)
    narrow["coarse_logit_weights"] = narrow["coarse_logit_weights"][:2]
    narrow["coarse_quantize_embedding.weight"] = narrow["coarse_quantize_embedding.weight"][:2]
    narrow["coarse_embedding.weight"] = narrow["coarse_embedding.weight"][:20]
    other = Case(narrow, case.options, {}).coarse()
    with pytest.raises(ConfigError, match="2 quantizers"):
        stage(coarse=other)
