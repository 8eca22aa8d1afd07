"""A drafter and a rule of another package: one file each, installed beside this one, are in every table and list."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spear_spec.bench.race import contestants
from spear_spec.config import SpecConfig
from spear_spec.decoding import DRAFTERS, VERIFIERS, DrafterKind, VerifierKind, complete, is_lossless, make, register
from spear_spec.decoding.drafters import drafter_options
from spear_spec.decoding.drafters.lookup import LookupDrafter
from spear_spec.decoding.verifiers import verifier_options
from spear_spec.decoding.verifiers.block import BlockVerifier
from spear_spec.errors import ConfigError
from spear_spec.exactness.oracles import SAMPLINGS, loop_error
from spear_spec.pipeline import TTS
from spear_spec.tuning.candidates import candidates
from tests.stubs.packages import HERE, install, installable
from tests.stubs.voice import make_voice

FILES = ("repeat_drafter", "compare_rule")


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    installable(monkeypatch)


@pytest.fixture
def outside(tmp_path: Path, tables: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The two files of this folder, installed."""
    install(
        tmp_path,
        monkeypatch,
        {
            "spear_spec.drafters": {"repeat": "repeat_drafter:KIND"},
            "spear_spec.verifiers": {"compare": "compare_rule:KIND"},
        },
    )
    yield
    for name in FILES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def tts(tmp_path_factory: pytest.TempPathFactory) -> TTS:
    return TTS.load(make_voice(tmp_path_factory.mktemp("voices") / "tiny"), device="cpu")


def test_they_are_not_there_otherwise() -> None:
    assert "repeat" not in DRAFTERS
    assert "compare" not in VERIFIERS


@pytest.mark.usefixtures("outside")
def test_they_are_in_the_tables() -> None:
    assert [*DRAFTERS][-1] == "repeat"  # behind those of the package, whose order is as it was
    assert [*VERIFIERS][-1] == "compare"
    assert DRAFTERS["repeat"].form == "chain"
    assert VERIFIERS["compare"].lossless
    assert is_lossless(SpecConfig("repeat", "compare"))
    assert drafter_options("repeat") == ("most",)
    assert verifier_options("compare") == ("at_most",)


@pytest.mark.usefixtures("outside")
def test_a_name_is_enough_to_load_them() -> None:
    """Without anybody having asked for the whole table."""
    drafter, verifier = make(SpecConfig("repeat", "compare", options={"most": 3, "at_most": 5}))
    assert (type(drafter).__module__, type(verifier).__module__) == FILES
    assert (drafter.most, verifier.at_most) == (3, 5)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="takes at_most, most"):
        make(SpecConfig("repeat", "compare", options={"depth": 1}))


@pytest.mark.usefixtures("outside")
def test_what_is_left_open_is_filled_in() -> None:
    base = SpecConfig("small", "recursive", 9, tree="4-2")
    assert complete(base, {"drafter": "repeat"}) == SpecConfig("repeat", "recursive", 2)  # which takes chains too
    assert complete(base, {"verifier": "compare"}) == SpecConfig("small", "compare", 9)
    assert complete(SpecConfig("kpath", "kseq", 4, 4), {"verifier": "compare"}).drafter == "small"


@pytest.mark.usefixtures("outside")
def test_they_race_and_are_tried(tts: TTS) -> None:
    arms, left_out = contestants(tts, ["all"])
    specs = [arm.spec for arm in arms]
    assert SpecConfig("repeat", "rejection", 2) in specs
    assert SpecConfig("small", "compare", 3) in specs
    assert not {entry["drafter"] for entry in left_out} & {"repeat", "compare"}
    tried = [arm.spec for arm in candidates(tts)]
    assert SpecConfig("repeat", "block", 5) in tried
    assert SpecConfig("small", "compare", 3) in tried
    assert all(is_lossless(spec) for spec in tried)


@pytest.mark.usefixtures("outside")
def test_they_speak(tts: TTS) -> None:
    text = "Hello there, and again."
    spoken = tts.using(drafter="repeat", verifier="compare").synthesize(text, max_tokens=40)
    assert spoken.stats["tokens"] > 0
    assert spoken.stats["drafted"] > 0


def test_registering_is_the_same(tables: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    import compare_rule
    import repeat_drafter

    for kind in (repeat_drafter.KIND, compare_rule.KIND):
        register(kind)
        register(kind)  # again changes nothing
    assert DRAFTERS["repeat"] is repeat_drafter.KIND
    assert VERIFIERS["compare"] is compare_rule.KIND
    assert type(make(SpecConfig("repeat", "compare"))[0]) is repeat_drafter.RepeatDrafter


def test_what_cannot_be_loaded_is_one_warning(
    tmp_path: Path, tables: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No module, a module that fails, no record, a name that is taken: the others are there all the same."""
    (tmp_path / "broken_drafter.py").write_text("raise RuntimeError('no such luck\\nand more of it')\n")
    (tmp_path / "taken_drafter.py").write_text(
        "from spear_spec.decoding import DrafterKind\n"
        "from spear_spec.decoding.drafters.ngram import NgramDrafter\n"
        "KIND = DrafterKind(NgramDrafter, 'another n-gram')\n"
    )
    points = {
        "broken": "broken_drafter:KIND", "missing": "nowhere_at_all:KIND", "class": "repeat_drafter:RepeatDrafter",
        "taken": "taken_drafter:KIND", "repeat": "repeat_drafter:KIND",
    }  # fmt: skip
    install(tmp_path, monkeypatch, {"spear_spec.drafters": points})
    before = DRAFTERS["ngram"]
    assert {*DRAFTERS} & {"repeat", "broken", "missing", "class", "taken"} == {"repeat"}
    assert DRAFTERS["ngram"] is before
    said = [record.getMessage() for record in caplog.records if record.name == "spear_spec"]
    assert len(said) == 4
    for name, words in (
        ("broken", "no such luck"), ("missing", "nowhere_at_all"), ("class", "is no DrafterKind"), ("taken", "already"),
    ):  # fmt: skip
        [line] = [line for line in said if f"drafter {name} " in line]
        assert words in line
        assert "\n" not in line
    list(DRAFTERS)
    assert len([record for record in caplog.records if record.name == "spear_spec"]) == 4, "said once"


class Formless:
    name = "formless"


class Odd(LookupDrafter):
    name, form = "odd", "circle"


class OddRule(BlockVerifier):
    name, forms = "odd", frozenset({"circle"})


@pytest.mark.parametrize(
    ("make_record", "words"),
    [
        (lambda: DrafterKind(Formless, "x"), "Formless must have form"),
        (lambda: DrafterKind(Odd, "x"), "form must be chain, iid, wor, points"),
        (lambda: DrafterKind(LookupDrafter(), "x"), "must be a class"),
        (lambda: DrafterKind(LookupDrafter, "two\nlines"), "one line"),
        (lambda: VerifierKind(Formless, "x"), "Formless must have lossless"),
        (lambda: VerifierKind(OddRule, "x"), "forms must be some of"),
        (lambda: VerifierKind(BlockVerifier, "x", needs="the moon"), "needs must be embedding or None"),
        (lambda: register(DrafterKind(LookupDrafter, "another")), "there is a drafter 'lookup' already"),
        (lambda: register("lookup"), "is no DrafterKind"),
    ],
)
def test_what_is_no_record_is_refused(make_record: Any, words: str, tables: None) -> None:
    with pytest.raises(ConfigError, match=words):
        make_record()


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("sampling", ["plain", "top_p"])
def test_their_law_is_the_targets(sampling: str) -> None:
    """The rule of the example is exact, and the drafter can be verified: the loop's law by enumeration."""
    made = make(SpecConfig("repeat", "compare"))
    assert loop_error(lambda targets: made[0], made[1], SAMPLINGS[sampling], cap=4, gamma=2) < 1e-9
