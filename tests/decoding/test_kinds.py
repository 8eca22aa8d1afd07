"""The records of drafters and rules: that they say what is so, and that nothing else keeps a list of names."""

from __future__ import annotations

import gc
import re
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from spear_spec.cli.options import build_parser
from spear_spec.config import SpecConfig, T2SConfig
from spear_spec.decoding import DRAFTERS, VERIFIERS, complete, make
from spear_spec.decoding.drafters import growing, make_drafter, trained, tree_of
from spear_spec.decoding.kinds import FORMS, DrafterKind
from spear_spec.decoding.verifiers import coarse, make_verifier, needs_embedding
from spear_spec.errors import ConfigError
from spear_spec.exactness.oracles import tiny_model
from spear_spec.training.drafts.trainer import draft_shapes
from spear_spec.voice.drafts import build_draft

ROOT = Path(__file__).parents[2]
TARGET = T2SConfig(20, 12, dim=32, source_depth=1, target_depth=2, heads=2, dim_head=16)


def part(kind: DrafterKind, target: Any) -> Any:
    """The untrained part of a drafter; layer_skip's is switches, which are searched for."""
    shapes = draft_shapes(target.cfg)
    shapes["medusa"] |= {"tree": [[0], [1], [0, 0]]}  # which is searched for behind the training
    if kind.trained is not None and kind.trained.shape is None:
        return build_draft(kind.name, {"attention": [1], "feed_forward": []}, target.cfg)
    need = kind.needs()
    return None if need is None else build_draft(need, shapes[need], target.cfg)


@pytest.fixture(scope="module")
def target() -> Any:
    return tiny_model(semantic=12, dtype=torch.float32)


# --- drafters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in DRAFTERS if name not in ("none", "layer_skip")])
def test_a_drafter_is_what_its_record_says(name: str, target: Any) -> None:
    kind = DRAFTERS[name]
    made = make_drafter(name, part(kind, target), num_drafts=kind.usual.get("num_drafts", 1))
    assert type(made) is kind.drafter
    assert (made.name, made.form) == (kind.name, kind.form) == (name, kind.form)
    assert getattr(kind.drafter, "needs", None) == kind.needs()
    for tree, record in kind.trees.items():
        grown = make_drafter(name, part(kind, target), tree=tree)
        assert (type(grown), grown.form, grown.name) == (record.drafter, record.form, name)
        assert record.rule in VERIFIERS
        assert record.form in VERIFIERS[record.rule].forms


@pytest.mark.parametrize("name", growing())
def test_what_grows_grows_every_tree_and_paths(name: str, target: Any) -> None:
    draft = part(DRAFTERS[name], target)
    for tree in ("dynamic", "3-2"):
        record = tree_of(name, tree)
        drafter = make_drafter(name, draft, tree=tree)
        assert type(drafter) is record.drafter
        assert record.form in (drafter.form, None)
        assert record.depth == (None if tree == "dynamic" else 2)
    for paths in (other for other, kind in DRAFTERS.items() if kind.paths):
        assert DRAFTERS[paths].needs({"of": name}) == name
        assert make_drafter(paths, draft, num_drafts=3, options={"of": name}).form == "iid"


def test_what_does_not_grow_is_refused() -> None:
    for name, kind in DRAFTERS.items():
        if not kind.grows:
            with pytest.raises(ConfigError, match="tree"):
                tree_of(name, "3-2")
            with pytest.raises(ConfigError, match="of must be small, small2, eagle"):
                make_drafter("kpath", {name: None}, num_drafts=2, options={"of": name})
    with pytest.raises(ConfigError, match="sparse is for the drafter medusa"):
        tree_of("small", "sparse")
    with pytest.raises(ConfigError, match="called sparse, not '3-2'"):
        tree_of("medusa", "3-2")
    for wrong in ([1], 3, "3--2", "bushy"):
        with pytest.raises(ConfigError):
            tree_of("small", wrong)
        with pytest.raises(ConfigError):
            complete(SpecConfig(), {"tree": wrong})


def test_what_is_trained() -> None:
    """Every part that a drafter needs is one that something is trained or searched for, of a shape that is one."""
    parts = {kind.needs() for kind in DRAFTERS.values()} - {None}
    assert parts == {*trained()}
    assert {*trained("draft"), *trained("drafters")} == {*trained()}
    shapes = draft_shapes(TARGET)
    assert parts - shapes.keys() == {name for name in trained() if DRAFTERS[name].trained.shape is None}  # type: ignore[union-attr]
    for name, shape in shapes.items():
        assert sum(p.numel() for p in build_draft(name, shape, TARGET).parameters()) > 0
    assert draft_shapes(TARGET, ff_mult=3)["small"]["ff_mult"] == 3
    assert draft_shapes(TARGET, exit_layer=1)["early_exit"]["target_layers"] == [1]


@pytest.mark.parametrize("name", [name for name in DRAFTERS if name != "none"])
@pytest.mark.parametrize("base", [SpecConfig("small", "rejection", 9), SpecConfig("eagle", "kseq", 5, tree="2-1")])
def test_a_drafter_alone_is_enough(name: str, base: SpecConfig) -> None:
    """What is filled in goes together, and is as the record says; that far and no further."""
    kind, spec = DRAFTERS[name], complete(base, {"drafter": name})
    form = kind.form if spec.tree is None else tree_of(name, spec.tree).form
    assert form in VERIFIERS[spec.verifier].forms
    assert spec.tree == kind.usual.get("tree")
    assert spec.num_drafts == kind.usual.get("num_drafts", 1)
    if name != base.drafter:
        assert spec.gamma == min(base.gamma, kind.usual.get("gamma", base.gamma))


@pytest.mark.parametrize("name", DRAFTERS)
def test_every_entry_of_the_race_goes_together(name: str, target: Any) -> None:
    for settings in DRAFTERS[name].races:
        spec = complete(SpecConfig(), settings)
        need = DRAFTERS[name].needs(spec.options)
        if need != "layer_skip":
            make(spec, None if need is None else {need: part(DRAFTERS[need], target)})
        assert VERIFIERS[spec.verifier].lossless


# --- rules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VERIFIERS)
@pytest.mark.parametrize("base", ["small", "kpath", "prophet", "eagle", "ngram"])
def test_a_rule_alone_is_enough(name: str, base: str) -> None:
    """It brings a draft that it is stated for, from the decoder in use where that grows it."""
    kind, spec = VERIFIERS[name], complete(SpecConfig(base), {"verifier": name})
    assert spec.verifier == name
    for key, value in kind.usual.items():
        assert getattr(spec, key) == value
    drafter = DRAFTERS[spec.drafter]
    if spec.tree is None:
        assert drafter.form in kind.forms
    else:
        form = tree_of(spec.drafter, spec.tree).form
        assert (kind.siblings.replace("top", "points") if form is None else form) in kind.forms
    if "drafter" not in kind.usual and (drafter.grows if "tree" in kind.usual else drafter.form in kind.forms):
        assert spec.drafter == (
            base if DRAFTERS[base].grows or ("tree" not in kind.usual and base != "kpath") else "small"
        )


def test_forms_have_a_name() -> None:
    assert {kind.form for kind in DRAFTERS.values()} <= FORMS.keys()
    assert {form for kind in VERIFIERS.values() for form in kind.forms} == FORMS.keys()
    assert [name for name in VERIFIERS if needs_embedding(name)] == ["coarse"]
    assert not needs_embedding("nobody")


# --- coarse: the groups of vectors are made once --------------------------------------------------------------------


def test_groups_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for each sentence; once for each theta and each tensor, and no longer kept than that."""
    made: list[float] = []
    right = coarse._make_groups

    def counted(embedding: torch.Tensor, theta: float) -> coarse.Groups:
        made.append(theta)
        return right(embedding, theta)

    monkeypatch.setattr(coarse, "_make_groups", counted)
    vectors, others = torch.randn(9, 4), torch.randn(9, 4)
    rules: list[Any] = [make_verifier("coarse", embedding=vectors) for _ in range(5)]
    assert made == [0.9]
    assert all(rule._groups is rules[0]._groups for rule in rules)
    make_verifier("coarse", {"theta": 0.5}, embedding=vectors)
    other: Any = make_verifier("coarse", embedding=others)
    assert made == [0.9, 0.5, 0.9]
    assert other._groups is not rules[0]._groups
    kept = weakref.ref(rules[0]._groups)
    del rules, vectors
    gc.collect()
    assert kept() is None
    with torch.inference_mode():
        make_verifier("coarse", embedding=others)
    assert len(made) == 3


# --- what is described ----------------------------------------------------------------------------------------------


def test_every_name_is_described() -> None:
    """In the README's tables, in the page of its kind and in the help; the record's own line is one."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {"drafter": ROOT / "docs" / "drafting.md", "verifier": ROOT / "docs" / "verification.md"}
    parser: Any = build_parser()
    help_ = parser._subparsers._group_actions[0].choices["say"].format_help()
    for table in (DRAFTERS, VERIFIERS):
        page = pages[table.what].read_text(encoding="utf-8")
        for name, kind in table.items():
            assert re.search(rf"`{name}`|--drafter none|drafter=\"none\"", readme), name
            assert name == "none" or re.search(rf"\b{name}\b", page), name
            assert re.search(rf"\b{name}\b", help_), name
            assert 5 < len(kind.about) < 80
            assert kind.about[-1] != "."


LISTS = re.compile(r"""(["'])(kpath|medusa|prophet|lookup|kseq|recursive_wor|lenience)\1""")
# ssml: an element of SSML is called so
OWN = ("decoding/drafters/", "decoding/verifiers/", "voice/", "training/", "models/", "cli/train.py", "text/ssml.py")


def test_no_other_list_of_names() -> None:
    """Names stand in the files of drafters and rules, and where the parts of these are built and trained."""
    package = ROOT / "spear_spec"
    found = [
        f"{path.relative_to(package)}: {match.group()}"
        for path in sorted(package.rglob("*.py"))
        if not str(path.relative_to(package)).startswith(OWN)
        for match in LISTS.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []
