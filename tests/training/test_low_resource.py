"""Denoising, frozen sets, back-translation and its filter, against oracles by hand or by brute force."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from spear_spec.config import SamplingConfig, T2SConfig
from spear_spec.decoding.request import Request
from spear_spec.engine import Engine
from spear_spec.errors import ConfigError
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.text import PhonemeTokenizer
from spear_spec.training.data.corpus import Clip
from spear_spec.training.data.ctc import SILENT, PhonemeCTC, phones
from spear_spec.training.data.utterances import Utterance, join
from spear_spec.training.loop import Run, carry_out
from spear_spec.training.low_resource import backtranslate
from spear_spec.training.low_resource.backtranslate import MARKS, Heard, follow, hear, neighbours, read_heard, turned
from spear_spec.training.low_resource.corrupt import Source, deleted, draw, nearest, survivors, thinned
from spear_spec.training.low_resource.durations import customs, share_out
from spear_spec.training.low_resource.filter import Filter, sift, stuck
from spear_spec.training.low_resource.freeze import reading, writing
from spear_spec.training.low_resource.learner import Pupil, best_weights
from spear_spec.training.low_resource.likelihood import ctc_likelihood, likelihood
from spear_spec.training.low_resource.pairs import choose
from spear_spec.training.recipe.plan import CLOCK
from spear_spec.training.t2s.settings import T2STraining

FRONT = PhonemeTokenizer(speakers=["one", "two"])
SOURCE = Source(20)
SHAPE = T2SConfig(len(FRONT.vocab), 20, 16, 3, 2, 2, 8)
FEW = T2STraining(steps=3, batch_tokens=120, warmup=1, ema=0.5, align_layers=(0, 1), join_share=0.0)


# --- denoising


def test_so_many_are_deleted_and_the_rest_keeps_its_order() -> None:
    rng = np.random.default_rng(0)
    kept = [survivors(200, 0.6, rng) for _ in range(200)]
    share = 1 - sum(map(len, kept)) / 40_000
    assert abs(share - 0.6) < 4 * math.sqrt(0.24 / 40_000)
    assert all((np.diff(places) > 0).all() and places[0] >= 0 and places[-1] < 200 for places in kept)
    # each token by itself: neighbours are kept together as often as chance says
    together = np.mean([np.isin(places + 1, places).mean() for places in kept])
    assert abs(together - 0.4) < 0.03
    assert len(survivors(5, 0.999999, rng)) == 1
    assert list(survivors(4, 0.0, rng)) == [0, 1, 2, 3]


def test_what_the_encoder_reads_is_what_survived() -> None:
    tokens = np.random.default_rng(1).integers(0, 20, 60)
    item = deleted(Utterance([9, 9], tokens, None, "one"), SOURCE, 0.6, np.random.default_rng(5))
    kept = survivors(60, 0.6, np.random.default_rng(5))
    assert item.text == [SOURCE.begin, *(tokens[kept] + 1).tolist(), SOURCE.end]
    assert list(item.tokens) == list(tokens)
    assert len({0, *range(1, 21), SOURCE.begin, SOURCE.space, SOURCE.end}) == SOURCE.end + 1


def test_every_token_points_at_the_survivor_nearest_to_it() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        kept = survivors(30, 0.6, rng)
        oracle = [min(range(len(kept)), key=lambda n: (abs(kept[n] - t), n)) for t in range(30)]
        assert list(nearest(kept, 30)) == oracle
    item = deleted(Utterance([9], np.arange(20), None, "one"), SOURCE, 0.6, rng)
    assert item.align is not None
    for t, place in enumerate(item.align[:-1]):
        if t + 1 in item.text:  # token t survived: the target is its own encoder position
            assert item.text[place] == t + 1
    assert item.align[-1] == len(item.text) - 1
    joined = join([item, item], SOURCE.space)
    assert joined.align is not None
    assert [joined.text[p] for p in joined.align[20:40]] == [item.text[p] for p in item.align[:20]]


def test_sources_follow_from_the_seed() -> None:
    items = [Utterance([9], np.arange(20), None, "one")] * 3
    one, same, other = ([u.text for u in draw(items, SOURCE, 0.6, seed)] for seed in (3, 3, 4))
    assert one == same
    assert one != other
    assert one[0] != one[1]
    with pytest.raises(ConfigError, match="share of tokens"):
        draw(items, SOURCE, 1.0, 0)


# --- what learns


def pairs(count: int = 6, seed: int = 0) -> list[Utterance]:
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        text = [*FRONT.encode_phonemes("ɛnd ʌv ɪt", "one"), len(FRONT.vocab)]
        out.append(Utterance(text, rng.integers(0, 20, 14), np.minimum(np.arange(15), len(text) - 1), "one"))
    return out


def backwards(count: int = 6) -> list[Utterance]:
    rng = np.random.default_rng(1)
    clips = [Clip(str(i), "one", "", "", "ɛnd ʌv ɪt", [4] + [2] * 9 + [3]) for i in range(count)]
    return [turned(clip, torch.from_numpy(rng.integers(0, 20, 16)), FRONT, SOURCE, CLOCK) for clip in clips]


def changed(pupil: Pupil, steps: int = 2) -> set[str]:
    """Tensors of the trainee that are not bit for bit what they were before some steps."""
    before = {name: value.clone() for name, value in pupil.trainee.state_dict().items()}
    mean = {name: value.clone() for name, value in pupil.ema.items()}
    pupil.begin(0)
    for step in range(steps):
        pupil.learn(step, 0.0, None)
    after = pupil.trainee.state_dict()
    found = {name for name, value in after.items() if not torch.equal(value, before[name])}
    moved = {f"model.{name}" for name, value in pupil.ema.items() if not torch.equal(value, mean[name])}
    assert moved == {name for name in found if name.startswith("model.")}  # and so is the mean that is kept
    return found


def of(pupil: Pupil, pattern: str) -> set[str]:
    return {name for name in pupil.trainee.state_dict() if re.fullmatch(pattern, name)}


def pupil(shape: T2SConfig, data: list[Utterance], learn: set[str] | None, helpers: bool, space: int) -> Pupil:
    return Pupil(data, data[:2], shape, FEW, space=space, clock=CLOCK, learn=learn, helpers=helpers)


@pytest.mark.parametrize("cross", [True, False])
def test_reading_moves_the_lower_encoder_and_leaves_the_upper_and_the_decoder(cross: bool) -> None:
    one = pupil(SHAPE, pairs(), reading(TextToSemantic(SHAPE), 2, cross), False, 1)
    learns = of(one, r"model\.text_emb\.weight|model\.encoder\.[01]\..*")
    if cross:
        learns |= of(one, r"model\.decoder\.\d\.cross_attn\..*")
    assert changed(one) == learns
    stays = of(one, r"model\.(encoder\.2\.|encoder_norm|decoder\.\d\.(self_attn|ff)|decoder_norm|semantic_emb|start).*")
    assert stays
    assert not stays & learns


def test_back_translation_moves_the_decoder_alone() -> None:
    shape = T2SConfig(SOURCE.end, len(FRONT.vocab), 16, 3, 2, 2, 8)
    one = pupil(shape, backwards(), writing(TextToSemantic(shape)), True, SOURCE.space)
    learns = of(one, r"model\.(decoder\.|decoder_norm|semantic_emb|start).*|history|auxiliary.*")
    assert changed(one) == learns
    assert not {name for name in learns if name.startswith(("model.encoder", "model.text_emb"))}


def test_from_chance_all_that_is_used_learns() -> None:
    one = pupil(SHAPE, pairs(), None, True, 1)
    assert changed(one) == set(one.trainee.state_dict()) - {"model.text_start"}


def test_there_are_not_more_layers_than_there_are() -> None:
    with pytest.raises(ConfigError, match="lower must be 0 to 3"):
        reading(TextToSemantic(SHAPE), 4, True)


def denoise(folder: Path, stop: int | None = None) -> tuple[Run, Pupil]:
    """Denoising for four steps, two an epoch; stop: the step in which it is interrupted."""
    items = pairs(12)
    learner = Pupil(
        lambda rng: draw(items, SOURCE, 0.6, rng.getrandbits(63)), draw(items[:2], SOURCE, 0.6, 0),
        T2SConfig(SOURCE.end, 20, 16, 3, 2, 2, 8), FEW, space=SOURCE.space, clock=CLOCK,
    )  # fmt: skip
    learn = learner.learn

    def interrupted(step: int, progress: float, shared: None) -> Mapping[str, torch.Tensor | float]:
        if step == stop:
            raise KeyboardInterrupt
        return learn(step, progress, shared)

    learner.learn = interrupted  # type: ignore[method-assign,assignment]
    run = Run("pretrain", learner, folder, steps=4, every=2)
    carry_out([run], progress=False)
    return run, learner


def test_a_pupil_begins_with_what_it_is_given_and_keeps_its_best(tmp_path: Path) -> None:
    whole, _ = denoise(tmp_path / "p")
    kept = best_weights(tmp_path / "p")
    lines = [json.loads(line) for line in (tmp_path / "p" / "train.log").read_text().splitlines()]
    assert kept["nll"] == min(line["nll"] for line in lines)
    assert kept["step"] == min(lines, key=lambda line: line["nll"])["step"]
    reader = Pupil(pairs(), pairs()[:2], SHAPE, FEW, space=1, clock=CLOCK, begin_with=kept["trainee"])
    fresh = Pupil(pairs(), pairs()[:2], SHAPE, FEW, space=1, clock=CLOCK)
    for name, value in reader.trainee.state_dict().items():
        source = fresh.trainee.state_dict() if name == "model.text_emb.weight" else kept["trainee"]
        assert torch.equal(value, source[name]), name
        if name.startswith("model."):
            assert torch.equal(reader.ema[name.removeprefix("model.")], value)
    # a later, worse report does not replace it, in a run that goes on either
    run, again = denoise(tmp_path / "p")
    assert again.best == kept["nll"]
    again.export(run.work, {"nll": kept["nll"] + 1, "step": 99})
    assert best_weights(tmp_path / "p")["step"] == kept["step"]
    assert whole.step == 4


def test_denoising_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    _, whole = denoise(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        denoise(tmp_path / "cut", stop=3)  # in the second epoch; the checkpoint is of step 2
    _, cut = denoise(tmp_path / "cut")
    assert [item.text for group in whole.order._items for item in group] != [item.text for item in cut.held_out]
    for name, value in whole.trainee.state_dict().items():
        assert torch.equal(value, cut.trainee.state_dict()[name]), name


# --- back-translation


def test_a_phoneme_points_at_the_token_in_whose_time_its_middle_lies() -> None:
    # frames of 25 ms, tokens of 40 ms: [0, 100) silence, then phonemes of 50, 25, 75 ms, 50 ms of silence
    clip = Clip("a", "two", "", "", "ɛnd", [4, 2, 1, 3, 2])
    item = turned(clip, torch.tensor([5, 6, 7, 8, 9, 3, 4]), FRONT, SOURCE, CLOCK)
    assert item.text == [SOURCE.begin, 6, 7, 8, 9, 10, 4, 5, SOURCE.end]
    assert [FRONT.vocab[i] for i in item.tokens] == ["ɛ", "n", "d"]
    assert item.align is not None
    # middles at 125, 162.5 and 212.5 ms: tokens 3, 4 and 5, one place further behind `begin`; the end at the end
    assert list(item.align) == [4, 5, 6, 8]
    assert turned(Clip("a", "two", "", "", "ɛnd"), torch.tensor([1]), FRONT, SOURCE, CLOCK).align is None


@pytest.fixture(scope="module")
def writer() -> TextToSemantic:
    torch.manual_seed(4)
    model = TextToSemantic(T2SConfig(SOURCE.end, len(FRONT.vocab), 16, 1, 1, 2, 8)).eval().requires_grad_(False)
    model.semantic_emb.weight *= 0.2  # a flat law
    return model


@pytest.fixture(scope="module")
def audio() -> tuple[list[Clip], dict[str, torch.Tensor]]:
    rng = np.random.default_rng(3)
    clips = [Clip(f"c/{i}", "one", "", "") for i in range(7)]
    return clips, {clip.id: torch.from_numpy(rng.integers(0, 20, 40 + 3 * i)) for i, clip in enumerate(clips)}


def hearing(
    model: TextToSemantic, audio: tuple[list[Clip], dict[str, torch.Tensor]], out: Path, way: str = "sample"
) -> list[Heard]:
    law = SamplingConfig(temperature=1.0, top_p=1.0)
    return hear(
        model, *audio, out, FRONT, SOURCE, law, listener(), way=way, candidates=2, clock=CLOCK, batch=2, seed=11,
        progress=False,
    )  # fmt: skip


def listener() -> PhonemeCTC:
    torch.manual_seed(8)
    letters = phones("".join(symbol for symbol in FRONT.vocab if len(symbol) == 1))
    return PhonemeCTC(20, letters, 8, 1).eval()


def test_likelihood_is_that_of_each_symbol_and_the_end(writer: TextToSemantic) -> None:
    texts, written = [SOURCE.write([3, 4, 5])[:-1], SOURCE.write([1])[:-1]], [[5, 6, 7, 8], [20]]
    found = likelihood(writer, texts, written)
    for text, row, score in zip(texts, written, found):
        memory = writer.encode(torch.tensor([[*text, SOURCE.end]]))
        logs, prefix = [], [writer.start_id]
        for token in [*row, writer.eos_id]:
            logs.append(float(writer(torch.tensor([prefix]), memory).logits[0, -1].log_softmax(-1)[token]))
            prefix.append(token)
        assert score == pytest.approx(sum(logs) / len(logs), abs=1e-4)


@pytest.mark.parametrize("way", ["sample", "guided", "beam"])
def test_writing_pseudo_texts_goes_on_after_a_kill(
    writer: TextToSemantic, audio: tuple[list[Clip], dict[str, torch.Tensor]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, way: str,
) -> None:  # fmt: skip
    whole = hearing(writer, audio, tmp_path / "whole.jsonl", way)
    assert [item.id for item in whole] == [clip.id for clip in audio[0]]
    assert len({item.phonemes for item in whole}) > (1 if way == "beam" else 4)  # a random model has one favourite
    calls: list[int] = []

    def killed(model: TextToSemantic, texts: list[list[int]], written: list[list[int]]) -> list[float]:
        calls.append(len(texts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return likelihood(model, texts, written)

    monkeypatch.setattr(backtranslate, "likelihood", killed)
    cut = tmp_path / "cut.jsonl"
    with pytest.raises(KeyboardInterrupt):
        hearing(writer, audio, cut, way)
    assert len(read_heard(cut)) == 4
    cut.write_bytes(cut.read_bytes()[:-7])  # the last line was not written to its end
    assert len(read_heard(cut)) == 3
    calls[:] = [0, 0, 0]
    again = hearing(writer, audio, cut, way)
    assert sum(calls) == 8  # of four clips: what was written before is not written again
    assert [(i.id, i.phonemes, i.ended) for i in again] == [(i.id, i.phonemes, i.ended) for i in whole]
    assert [i.likelihood for i in again] == pytest.approx([i.likelihood for i in whole], abs=2e-4)
    assert sorted(i.id for i in read_heard(cut)) == sorted(clip.id for clip in audio[0])


def test_given_letters_stay_and_the_law_between_them_is_the_models_own(writer: TextToSemantic) -> None:
    marks = [i for i, symbol in enumerate(FRONT.vocab) if symbol in SILENT]
    stress, blank, comma = (FRONT.vocab.index(symbol) for symbol in "ˈ ,")
    vowels = [FRONT.vocab.index(c) for c in "ɛə"]
    others = [FRONT.vocab.index(c) for c in "ntlk"]
    usual = {(stress, vowel) for vowel in vowels} | {(blank, x) for x in (*vowels, *others, stress)} | {(comma, blank)}
    usual |= {(x, mark) for x in (*vowels, *others) for mark in (stress, blank, comma)}
    usual |= {(writer.start_id, stress), *itertools.product((*vowels, *others), (*vowels, *others, writer.eos_id))}
    letters = [[FRONT.vocab.index(c) for c in "nɛtəl"], [FRONT.vocab.index("k")], []]
    texts = [SOURCE.write([n, 3, 4, n + 1])[:-1] for n in range(3)]
    loose = follow(writer, texts, letters, marks, usual, SamplingConfig(temperature=1.0, top_p=1.0), [1, 2, 3])
    assert loose == follow(writer, texts, letters, marks, usual, SamplingConfig(temperature=1.0, top_p=1.0), [1, 2, 3])
    drawn = [FRONT.vocab[token] for row in loose for token in row]
    assert {"ˈ", " ", ","} <= set(drawn) <= set("ˈ ,nɛtəlk")
    for row, wanted in zip(loose, letters):
        assert [token for token in row if token not in marks] == wanted
        assert set(itertools.pairwise(row)) <= usual
    # greedy, against whole passes without a cache
    rows = follow(writer, texts, letters, marks, usual, SamplingConfig(temperature=0.0), [0, 0, 0])
    for text, row, wanted in zip(texts, rows, letters):
        memory, prefix, left, run = writer.encode(torch.tensor([[*text, SOURCE.end]])), [writer.start_id], [*wanted], 0
        for token in [*row, writer.eos_id]:
            law = writer(torch.tensor([prefix]), memory).logits[0, -1]
            ahead = left[0] if left else writer.eos_id
            may = {m for m in (stress, blank, comma) if run < MARKS and (prefix[-1], m) in usual}
            may -= {stress} if ahead not in vowels else set()
            may |= {ahead} if not may or not run or (prefix[-1], ahead) in usual else set()
            assert token == max(may, key=lambda i: float(law[i]))
            run = run + 1 if token in marks else 0
            left = left[1:] if left and token == left[0] else left
            prefix.append(token)


def test_neighbours_are_those_of_the_written_side() -> None:
    items = [
        Utterance([SOURCE.begin, 1, SOURCE.end], np.array(row), None, "one") for row in ([5, 6], [5, 6, 7], [6, 7])
    ]
    assert neighbours(items, 90, 91, least=2) == {(90, 5), (5, 6), (6, 7), (7, 91)}


def test_a_thinned_source_is_pointed_at_where_it_stayed() -> None:
    clip = Clip("a", "two", "", "", "ɛnd", [4, 2, 1, 3, 2])
    item = turned(clip, torch.tensor([5, 6, 7, 8, 9, 3, 4]), FRONT, SOURCE, CLOCK)
    for seed in range(20):
        kept = survivors(7, 0.6, np.random.default_rng(seed))
        thin = thinned(item, SOURCE, 0.6, np.random.default_rng(seed))
        assert thin.text == SOURCE.write(np.array([5, 6, 7, 8, 9, 3, 4])[kept])
        assert thin.align is not None
        # the phonemes' tokens were 3, 4 and 5, see above
        oracle = [1 + min(range(len(kept)), key=lambda n: (abs(kept[n] - t), n)) for t in (3, 4, 5)]
        assert list(thin.align) == [*oracle, len(thin.text) - 1]
        assert list(thin.tokens) == list(item.tokens)
    assert thinned(item, SOURCE, 0.0, np.random.default_rng(0)).text == item.text


def test_of_several_texts_the_likeliest_is_taken(
    writer: TextToSemantic, audio: tuple[list[Clip], dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    """Drawn one by one, with the seeds that the candidates have."""
    clips, tokens = audio
    law = SamplingConfig(temperature=1.0, top_p=1.0)
    ctc = listener()
    found = hearing(writer, audio, tmp_path / "two.jsonl")
    differ = 0
    for n, clip in enumerate(clips):
        text = SOURCE.write(tokens[clip.id].tolist())[:-1]
        cap = 16 + 2 * len(tokens[clip.id])
        scored = []
        for k in range(2):
            [drawn] = Engine(writer, frame_rate=25).run([Request(text, seed=11 + 2 * n + k, sampling=law, cap=cap)])
            phonemes = "".join(FRONT.vocab[i] for i in drawn.speech if len(FRONT.vocab[i]) == 1).strip()
            own = likelihood(writer, [text], [drawn.speech])[0]
            both = own + ctc_likelihood(ctc, tokens[clip.id], phonemes)
            scored.append((both if drawn.ended == "eos" else float("-inf"), -k, phonemes))
        assert found[n].phonemes == max(scored)[2]
        differ += max(scored) != scored[0]
    assert differ


def test_marks_get_the_share_of_time_that_they_have_in_the_parallel_part() -> None:
    # by hand: letters 2 and 4, stress 1, stop 9, end 3 frames
    known = [Clip("a", "one", "", "", "nˈɛ.", [5, 2, 1, 4, 9, 3]), Clip("b", "one", "", "", "n")]
    usual = customs(known)
    assert usual == {"letter": 3.0, "ˈ": 1.0, ".": 9.0, "": 3.0}
    # the CTC gave the marks nothing: ˈ and ɛ share 8 frames as 1 to 3, the stop and the end 16 frames as 9 to 3
    assert share_out("nˈɛ.", [7, 2, 0, 8, 0, 16], usual) == [7, 2, 2, 6, 12, 4]
    assert share_out("n", [1, 2, 3], usual) == [1, 2, 3]
    assert sum(share_out("ˈɛˈə", [0, 5, 0, 1, 7, 2], usual)) == 15


# --- the filter


class Plain(PhonemeCTC):
    """Hears token t as phone t and a blank behind it, nine times of ten."""

    def __init__(self) -> None:
        super().__init__(4, "abde", 4, 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        law = torch.full((*tokens.shape, 2, 5), 0.1 / 4)
        law[..., 0, :].scatter_(-1, tokens[..., None] + 1, 0.9)
        law[..., 1, 0] = 0.9
        return law.log().flatten(1, 2)


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(one for one, _ in itertools.groupby(path) if one)


def test_ctc_likelihood_is_the_sum_over_all_paths() -> None:
    model, tokens = Plain(), torch.tensor([1, 2])
    law = model(tokens[None])[0].exp().numpy()
    paths: Iterator[tuple[int, ...]] = itertools.product(range(5), repeat=4)
    total = sum(np.prod([law[t, s] for t, s in enumerate(path)]) for path in paths if collapsed(path) == (2, 3))
    assert ctc_likelihood(model, tokens, "bˈd") == pytest.approx(math.log(total) / 2, abs=1e-5)
    assert ctc_likelihood(model, tokens, "abdea") == float("-inf")
    assert ctc_likelihood(model, tokens, ",.") == float("-inf")


@pytest.mark.parametrize(
    "spoken, found",
    [("abababab", True), ("ababab", False), ("aaaaaaaa", True), ("abcdefgh", False), ("abcabcabcx", True),
     ("xyabcdeabcdeabcde", True), ("abcdabcd", False)],
)  # fmt: skip
def test_a_block_that_stands_three_times_in_a_row_is_no_speech(spoken: str, found: bool) -> None:
    assert stuck(spoken, 3, 8) is found


def test_planted_bad_pairs_are_thrown_out() -> None:
    rng = np.random.default_rng(0)
    tokens, good = {}, []
    for i in range(40):
        drawn = rng.integers(0, 4, 12)
        heard = [int(t if n == 0 or t != drawn[n - 1] else (t + 1) % 4) for n, t in enumerate(drawn)]
        tokens[f"good{i}"] = torch.tensor(heard)
        good.append(Heard(f"good{i}", "".join("abde"[t] for t in heard), "eos", -0.1 - 0.001 * i))
    base = "abdebadeabed"
    row = torch.tensor(["abde".index(c) for c in base])
    bad = {
        "unended": Heard("unended", base, "cap", -0.1),
        "short": Heard("short", base[:3], "eos", -0.1),
        "long": Heard("long", base + base[::-1], "eos", -0.1),
        "stuck": Heard("stuck", "abdeabdeabde", "eos", -0.1),
        "unsure": Heard("unsure", base, "eos", -3.0),
        "wrong": Heard("wrong", "debadebaedab"[:12], "eos", -0.1),
    }
    tokens |= dict.fromkeys(bad, row)
    kept, dropped = sift([*good, *bad.values()], tokens, Plain(), (0.9, 1.05), Filter(keep=0.95))
    reasons = dict(dropped)
    assert not {item.id for item in kept} & set(bad)
    assert {name: reasons[name].split(":")[0] for name in bad} == {
        "unended": "not ended", "short": "length", "long": "length", "stuck": "repeats itself", "unsure": "unlikely",
        "wrong": "unlikely",
    }  # fmt: skip
    assert reasons["wrong"].endswith("by the CTC")
    assert len(kept) >= 36
    assert {item.id for item in kept} | set(reasons) == set(tokens)


# --- the parallel part


def test_a_smaller_part_lies_within_a_larger_one() -> None:
    clips = [Clip(str(i), "one" if i % 3 else "two", "", "", seconds=6.0) for i in range(300)]
    small, large = (choose(clips, "one", minutes, 0) for minutes in (3, 12))
    assert {clip.speaker for clip in large} == {"one"}
    assert [len(small), len(large)] == [30, 120]
    assert small == large[:30]
    assert small != [clip for clip in clips if clip.speaker == "one"][:30]
    with pytest.raises(ConfigError, match=r"one has 20\.0 minutes, not 30"):
        choose(clips, "one", 30, 0)
