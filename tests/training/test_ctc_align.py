"""The token-to-phoneme CTC and the alignment that it gives."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from spear_spec.errors import BundleError, ConfigError
from spear_spec.training.data.align import (
    align_clips,
    best_paths,
    diagonal,
    worst_believed,
)
from spear_spec.training.data.ctc import PhonemeCTC, Spoken, phones
from spear_spec.training.data.ctc_training import output_labels, train_ctc
from spear_spec.training.recipe.plan import CLOCK


def collapse(path: tuple[int, ...]) -> list[int]:
    return [label for label, _ in itertools.groupby(path) if label != 0]


@pytest.mark.parametrize("labels", [[1], [1, 2], [1, 1], [2, 1, 2], [1, 1, 1]])
@pytest.mark.parametrize("seed", range(3))
def test_best_path_is_the_best_of_all_paths(labels: list[int], seed: int) -> None:
    log_probs = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed)).log_softmax(-1).double().numpy()
    paths = [p for p in itertools.product(range(3), repeat=6) if collapse(p) == labels]
    scores = [sum(log_probs[t, label] for t, label in enumerate(p)) for p in paths]
    found = best_paths([log_probs], [labels])[0][0]
    assert tuple(0 if i < 0 else labels[i] for i in found) == paths[int(np.argmax(scores))]


def test_best_path_needs_room() -> None:
    log_probs = np.log(np.full((3, 3), 1 / 3))
    assert best_paths([log_probs], [[1, 2, 1, 2]])[0][0] == []
    assert best_paths([log_probs], [[1, 1]])[0][0] == [0, -1, 1]


def test_paths_found_together_are_those_found_alone() -> None:
    rng = np.random.default_rng(0)
    labels = [[int(n) for n in rng.integers(1, 5, size)] for size in (3, 9, 1, 14, 6, 9)]
    rows = [np.log(rng.dirichlet(np.ones(5), int(size))) for size in (20, 9, 2, 60, 6, 33)]
    together = best_paths(rows, labels)
    assert together == [best_paths([row], [wanted])[0] for row, wanted in zip(rows, labels)]
    for (path, score), row, wanted in zip(together, rows, labels):
        if path:
            assert score == pytest.approx(sum(row[t, 0 if i < 0 else wanted[i]] for t, i in enumerate(path)))
        else:
            assert score == -np.inf and len(wanted) + sum(a == b for a, b in itertools.pairwise(wanted)) > len(row)
    assert sum(not path for path, _ in together) in (1, 2)


def corpus(count: int = 60, seed: int = 0) -> list[Spoken]:
    """Phone i is spoken by tokens 2 i and 2 i + 1, for 2 to 4 tokens; silence (tokens 10, 11) around and at commas."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        text = "".join(
            "abdm"[i] for i in np.cumsum([int(rng.integers(4)), *rng.integers(1, 4, 4)]) % 4
        )  # no phone twice in a row
        text = text[:2] + "ˈ" + text[2:3] + ", " + text[3:] + "."
        tokens, frames = [], []
        for c in (" ", *text, " "):
            size = {"ˈ": 0}.get(c, int(rng.integers(4, 8)) if c in ",." or c == " " else int(rng.integers(2, 5)))
            index = "abdm".find(c)
            tokens += list(rng.integers(0, 2, size) + (2 * index if index >= 0 else 10))
            frames.append(size * 1.6)
        ends = np.rint(np.cumsum(frames)).astype(int)
        out.append(Spoken(torch.tensor(tokens, dtype=torch.int16), text, [int(n) for n in np.diff(ends, prepend=0)]))
    return out


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> PhonemeCTC:
    folder = tmp_path_factory.mktemp("ctc")
    settings = {"steps": 150, "tokens_a_step": 400, "dim": 32, "blocks": 1, "progress": False}
    return train_ctc(corpus(120), 12, folder, clock=CLOCK, **settings)


def test_ctc_learns_what_tokens_say(trained: PhonemeCTC) -> None:
    fresh = corpus(20, seed=1)
    assert trained.alphabet == "abdm"
    assert trained.error_rate(fresh) < 0.05
    shuffled = [Spoken(a.tokens, b.phonemes) for a, b in zip(fresh, fresh[1:])]
    assert trained.error_rate(shuffled) > 0.4


def test_ctc_without_durations_takes_longer(tmp_path: Path) -> None:
    bare = [item._replace(frames=None) for item in corpus(120)]
    settings = {"steps": 700, "tokens_a_step": 400, "learning_rate": 1e-2, "dim": 32, "blocks": 1, "progress": False}
    model = train_ctc(bare, 12, tmp_path, clock=CLOCK, **settings)
    assert model.error_rate(corpus(20, seed=1)) < 0.2


def test_ctc_alignment_finds_the_durations(trained: PhonemeCTC) -> None:
    errors = []
    for item in corpus(20, seed=2):
        [(frames, _)] = align_clips(trained, [(item.tokens, item.phonemes)], CLOCK)
        assert len(frames) == len(item.phonemes) + 2
        assert sum(frames) == round(len(item.tokens) * 1.6)
        assert min(frames) >= 0
        wanted, got = (output_labels(trained, item._replace(frames=f), CLOCK) for f in (item.frames, frames))
        errors.append(float((wanted != got).float().mean()))
    flat = []
    for item in corpus(20, seed=2):
        straight = item._replace(frames=diagonal(item.phonemes, len(item.tokens), CLOCK))
        wanted, got = (output_labels(trained, i, CLOCK) for i in (item, straight))
        flat.append(float((wanted != got).float().mean()))
    assert np.mean(errors) < 0.2
    assert np.mean(errors) < 0.5 * np.mean(flat)


def test_another_text_is_doubted(trained: PhonemeCTC) -> None:
    """Of clips some of whose texts are exchanged, it is those that lie beyond what is usual."""
    said = corpus(60, seed=3)
    pairs = [(item.tokens, item.phonemes) for item in said]
    wrong = {4, 17, 30, 45}
    for number in wrong:
        pairs[number] = (said[number].tokens, next(o.phonemes for o in said if phones(o.phonemes) != phones(
            said[number].phonemes) and len(phones(o.phonemes)) == len(phones(said[number].phonemes))))  # fmt: skip
    losses = [each.loss for each in align_clips(trained, pairs, CLOCK)]
    assert all(loss is not None and loss >= 0 for loss in losses)
    most = worst_believed([loss for loss in losses if loss is not None], 8.0)
    assert {number for number, loss in enumerate(losses) if loss is not None and loss > most} == wrong
    assert worst_believed([0.1] * 19, 8.0) == worst_believed([0.1, 9.0] * 30, 0.0) == float("inf")
    assert worst_believed([0.0, 0.01, 0.02] * 10, 8.0) == 1.0
    assert worst_believed([1.0, 2.0, 3.0, np.inf] * 10, 2.0) == pytest.approx(2 + 2 * 1.4826)
    [tight] = align_clips(trained, [(said[0].tokens[:1], said[0].phonemes)], CLOCK)
    assert tight == (diagonal(said[0].phonemes, 1, CLOCK), np.inf)


def test_diagonal_gives_every_phone_the_same() -> None:
    frames = diagonal("ab ˈd.", 25, CLOCK)
    assert sum(frames) == 40
    assert [frames[i] for i in (3, 4, 6)] == [0, 0, 0]
    assert max(frames[i] for i in (1, 2, 5)) - min(frames[i] for i in (1, 2, 5)) <= 1


def test_padding_does_not_change_a_row() -> None:
    model = PhonemeCTC(12, "abdm", dim=32, blocks=3).eval()
    short = torch.randint(0, 12, (1, 9))
    padded = torch.cat([short, torch.full((1, 7), model.pad_id)], 1)
    torch.testing.assert_close(model(padded)[:, :18], model(short))


def test_phoneme_error_counts_phones_alone(trained: PhonemeCTC) -> None:
    item = corpus(1, seed=5)[0]
    heard = trained.transcribe(item.tokens)
    assert trained.phoneme_error(item.tokens, "ˈ" + ", ".join(heard) + "?") == (0, len(heard))
    assert trained.phoneme_error(item.tokens, heard + "kk") == (2, len(heard) + 2)
    assert trained.phoneme_error(item.tokens[:0], "ab") == (2, 2)
    assert phones("hˈI, jˌu.") == "hIju"


def test_files(trained: PhonemeCTC, tmp_path: Path) -> None:
    trained.save(tmp_path / "ctc.safetensors")
    again = PhonemeCTC.load(tmp_path / "ctc.safetensors")
    tokens = torch.randint(0, 12, (1, 30))
    torch.testing.assert_close(again(tokens), trained(tokens))
    (tmp_path / "junk").write_bytes(b"junk" * 9)
    for bad in ("none", "junk"):
        with pytest.raises(BundleError):
            PhonemeCTC.load(tmp_path / bad)
    with pytest.raises(ConfigError):
        train_ctc([Spoken(torch.tensor([1]), "...")], 12, tmp_path / "ctc", clock=CLOCK, steps=1)
