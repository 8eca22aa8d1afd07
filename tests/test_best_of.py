"""Several takes of a sentence, of which the best is kept."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import spear_spec.acoustic.takes
import spear_spec.saying
from spear_spec import TTS
from spear_spec.acoustic.takes import JUDGES, MOST_TAKES, best, take_seed
from spear_spec.audio import FloatArray
from spear_spec.decoding import Request
from spear_spec.decoding.likelihood import mean_log_probability
from spear_spec.decoding.request import encode
from spear_spec.errors import ConfigError, ContractError, SpearSpecError
from tests.stubs.schemas import check
from tests.stubs.voice import make_voice

TEXT = "It rained for the whole day. Nobody in the town minded it, and nobody stayed at home. So it was."
SENTENCES = 3


@pytest.fixture(scope="module")
def tts(tmp_path_factory: pytest.TempPathFactory) -> TTS:
    return TTS.load(make_voice(tmp_path_factory.mktemp("voices") / "tiny").path, device="cpu")


def sentences(tts: TTS, **options: Any) -> list[FloatArray]:
    """Samples of each sentence, the silence before it included."""
    found: dict[int, list[FloatArray]] = {}
    for chunk in tts.stream(TEXT, **options):
        found.setdefault(chunk.sentence, []).append(chunk.samples)
    return [np.concatenate(pieces) for _, pieces in sorted(found.items())]


class Longest:
    """Likes what is long; remembers what it heard."""

    name = "longest 1"

    def __init__(self) -> None:
        self.heard: list[FloatArray] = []

    def score(self, samples: FloatArray, sample_rate: int) -> float:
        assert sample_rate == 24_000
        self.heard.append(samples)
        return len(samples)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("spec", [
    {"drafter": "none"},
    {"drafter": "small", "verifier": "rejection", "gamma": 4, "gammas": {"2": 3, "4": 1}},
    {"drafter": "small", "verifier": "block", "gamma": 5, "gammas": {"3": 2}},
    {"drafter": "medusa", "verifier": "typical"},
])  # fmt: skip
def test_what_is_kept_is_what_its_seed_says_alone(tts: TTS, spec: dict[str, Any], batch: int) -> None:
    """Bit for bit, whatever stands beside it."""
    tts = tts.using(**spec)
    audio = tts.synthesize(TEXT, seed=5, best_of=4, judge="likelihood", batch=batch)
    told = audio.stats["best_of"]
    assert told["takes"] == 4 and [s["sentence"] for s in told["sentences"]] == list(range(SENTENCES))
    kept = sentences(tts, seed=5, best_of=4, judge="likelihood", batch=batch)
    assert np.array_equal(np.concatenate(kept), audio.samples)
    for sentence in told["sentences"]:
        assert sentence["seed"] == take_seed(5, sentence["chosen"])
        alone = sentences(tts, seed=sentence["seed"])[sentence["sentence"]]
        assert np.array_equal(kept[sentence["sentence"]], alone)


def test_the_judge_hears_every_take_and_its_best_is_kept(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spear_spec.acoustic.takes, "JUDGED_S", 0.0)
    judge = Longest()
    audio = tts.synthesize(TEXT, seed=5, best_of=3, judge=judge, pause=0.25)
    alone = [sentences(tts, seed=take_seed(5, take), pause=0.25) for take in range(3)]
    silence = [0, *[6000] * (SENTENCES - 1)]  # which the judge does not hear
    at = 0
    for index, told in enumerate(audio.stats["best_of"]["sentences"]):
        takes = [alone[take][index][silence[index] :] for take in range(3)]
        assert all(np.array_equal(x, y) for x, y in zip(judge.heard[3 * index : 3 * index + 3], takes))
        lengths = [len(take) for take in takes]
        assert told["scores"] == lengths and told["judge"] == "longest 1"
        assert told["chosen"] == lengths.index(max(lengths))
        kept = audio.samples[at : at + silence[index] + max(lengths)]
        assert np.array_equal(kept[silence[index] :], takes[told["chosen"]]) and not kept[: silence[index]].any()
        at += len(kept)
    assert at == len(audio.samples) and len(judge.heard) == 3 * SENTENCES
    assert len({told["chosen"] for told in audio.stats["best_of"]["sentences"]}) > 1  # each sentence has its own


def test_all_takes_are_counted(tts: TTS) -> None:
    item = tts.synthesize(TEXT, seed=5, best_of=3, judge="likelihood").stats
    alone = [tts.synthesize(TEXT, seed=take_seed(5, take)).stats for take in range(3)]
    for name in ("tokens", "target_calls", "drafted", "accepted"):
        assert item[name] == sum(one[name] for one in alone)
    assert item["audio_s"] < sum(one["audio_s"] for one in alone)
    rest = {"voice": tts.name, "speed": 1.0, "beam": None, "tuned": None, "load_s": 0.0, "items": [item]}
    check({"schema": "say/1", **tts.describe(), **rest}, "say/1")
    assert "best_of" not in tts.synthesize(TEXT, best_of=1).stats


def test_likelihood_is_that_of_the_cached_loop(tts: TTS) -> None:
    """Token by token, in another way than it is computed."""
    [ids, *_] = tts.texts([TEXT])
    [utterance] = tts.decoder.engine().run([Request(ids, seed=3, cap=40)])
    target, logs = tts.target, []
    with torch.inference_mode():
        cache, memory = target.new_cache(1), encode(target, [ids])
        before = target.start_id
        for token in utterance.tokens:
            law = torch.softmax(target(torch.tensor([[before]]), memory, cache).logits[0, -1].double(), -1)
            logs.append(math.log(float(law[token])))
            before = token
    assert len(logs) > 5
    assert mean_log_probability(target, ids, utterance.tokens) == pytest.approx(sum(logs) / len(logs), abs=1e-5)
    assert mean_log_probability(target, ids, []) == -math.inf


def test_it_does_not_depend_on_who_drafts(tts: TTS) -> None:
    """The rule `coupled` writes the same tokens as nobody does: same scores, same choice, same sound."""
    options: dict[str, Any] = {"seed": 7, "best_of": 3, "judge": "likelihood"}
    plain = tts.using(drafter="none").synthesize(TEXT, **options)
    ahead = tts.using(drafter="small", verifier="coupled", gamma=4).synthesize(TEXT, **options)
    assert plain.stats["best_of"] == ahead.stats["best_of"]
    assert np.array_equal(plain.samples, ahead.samples)
    assert ahead.stats["drafted"] > 0
    # sampling shapes what is drawn, not how it is judged
    [ids, *_] = tts.texts([TEXT])
    kept = plain.stats["best_of"]["sentences"][0]
    law = replace(tts.sampling, top_p=0.95)
    scores = []
    for take in range(3):
        seed = spear_spec.saying.sentence_seed(take_seed(7, take), 0)
        [utterance] = tts.using(drafter="none").decoder.engine().run([Request(ids, seed=seed, sampling=law)])
        scores.append(round(mean_log_probability(tts.target, ids, utterance.tokens), 4))
    assert kept["scores"] == scores and kept["chosen"] == scores.index(max(scores))


def test_short_takes_are_judged_by_their_likelihood(tts: TTS) -> None:
    judge = Longest()
    told = tts.synthesize("So.", best_of=2, judge=judge, max_tokens=20).stats["best_of"]["sentences"]
    assert [one["judge"] for one in told] == ["likelihood"] and not judge.heard


def test_takes_that_were_cut_off_lose(tts: TTS, caplog: pytest.LogCaptureFixture) -> None:
    assert best([1.0, 3.0, 2.0], ["eos", "cap", "eos"]) == 2
    assert best([1.0, 3.0, 3.0], ["guard", "cap", "cap"]) == 1
    assert best([math.nan, -math.inf, -5.0], ["eos"] * 3) == 2
    assert best([2.0, 2.0], ["eos", "eos"]) == 0
    with caplog.at_level(logging.WARNING, "spear_spec"):
        item = tts.synthesize(TEXT, best_of=2, judge="likelihood", max_tokens=3).stats
    assert item["ended"] == "cap" and "cut off after 3 tokens (cap)" in caplog.text


def test_words_and_whole_sentences(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    """Word times are those of the take that is kept."""
    shipped = TTS.load(device="cpu")
    options: dict[str, Any] = {"timestamps": True, "complete": True}
    text = "It rained all day. Nobody minded."
    ours = shipped.synthesize(text, seed=2, best_of=2, judge="likelihood", **options)
    for told in ours.stats["best_of"]["sentences"]:
        alone = shipped.synthesize(text, seed=told["seed"], **options)
        [mine, theirs] = [[w for w in a.words or () if w.sentence == told["sentence"]] for a in (ours, alone)]
        assert [w.text for w in mine] == [w.text for w in theirs] and mine
        lengths = [[round(w.end_s - w.start_s, 3) for w in words] for words in (mine, theirs)]
        assert lengths[0] == pytest.approx(lengths[1], abs=2e-3)


def test_a_stream_settles_a_sentence_first(tts: TTS) -> None:
    chunks = list(tts.stream(TEXT, best_of=2, judge="likelihood"))
    assert [chunk.sentence for chunk in chunks] == list(range(SENTENCES))
    assert all(chunk.ended is not None for chunk in chunks)


def test_the_predictor_of_opinion_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """On real speech: it tells speech from the same speech with noise."""
    judge = JUDGES.get("mos")()
    assert judge.name.startswith("distillmos ") and JUDGES.get("mos")() is judge
    from tests.stubs.speech import RATE, speech

    clean = speech()[: 3 * RATE]
    noisy = clean + 0.05 * np.random.default_rng(0).standard_normal(len(clean)).astype(np.float32)
    assert 5 >= judge.score(clean, RATE) > judge.score(noisy, RATE) + 0.5


@pytest.mark.parametrize(("installed", "name"), [(True, "mos"), (False, "likelihood")])
def test_who_judges_by_default(tts: TTS, installed: bool, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spear_spec.acoustic.takes.find_spec", lambda _: object() if installed else None)
    monkeypatch.setattr(spear_spec.acoustic.takes, "JUDGED_S", 0.0)
    judge = Longest()
    monkeypatch.setitem(JUDGES._known, "mos", lambda: judge)
    told = tts.synthesize(TEXT, best_of=2, max_tokens=20).stats["best_of"]["sentences"]
    assert {one["judge"] for one in told} == {"longest 1" if installed else name}
    if not installed:
        with pytest.raises(SpearSpecError, match="needs distillmos"):
            tts.stream(TEXT, best_of=2, judge="mos")


def test_what_cannot_be_asked_for(tts: TTS, tmp_path: Path) -> None:
    for wrong, what in (
        ({"best_of": 0}, f"from 1 to {MOST_TAKES}"),
        ({"best_of": True}, f"from 1 to {MOST_TAKES}"),
        ({"best_of": "2"}, f"from 1 to {MOST_TAKES}"),
        ({"best_of": 2, "judge": "mother"}, "available: mos, likelihood"),
        ({"judge": "mother"}, "available: mos, likelihood"),
        ({"best_of": 2, "judge": 7}, "a name or an object"),
        ({"best_of": 2, "temperature": 0}, "above 0"),
    ):
        with pytest.raises(ConfigError, match=what):
            tts.stream(TEXT, **wrong)  # type: ignore[arg-type]


def test_a_judge_that_breaks_its_word(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spear_spec.acoustic.takes, "JUDGED_S", 0.0)

    class Silent(Longest):
        def score(self, samples: FloatArray, sample_rate: int) -> Any:
            return None

    with pytest.raises(ContractError, match="judge longest 1: a score must be a number"):
        tts.synthesize(TEXT, best_of=2, judge=Silent(), max_tokens=20)
