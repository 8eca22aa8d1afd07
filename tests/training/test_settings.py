"""Settings of a recipe that cannot be are refused when its file is read, not hours later."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from spear_spec.errors import ConfigError
from spear_spec.training.drafts.settings import DraftTraining
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.t2s.settings import T2STraining
from spear_spec.training.vocoder.settings import VocoderTraining


def plan(path: str, value: Any) -> Plan:
    values: dict[str, Any] = {"out": "x", "prepare": {"corpora": ["c"]}}
    *sections, key = path.split(".")
    at = values
    for section in sections:
        at = at.setdefault(section, {})
    at[key] = value
    return Plan.from_dict(values)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("t2s.training", T2STraining),
        ("vocoder.training", VocoderTraining),
        ("draft.training", DraftTraining),
        ("drafters.training", DraftTraining),
        ("drafters.own.medusa", DraftTraining),
    ],
)
def test_a_misspelt_key_of_a_training_is_named_with_those_that_are_known(path: str, kind: type) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(f"{path}.stepz", 3)
    message = str(caught.value)
    assert path.split(".")[0] in message and path.split(".")[-1] in message
    assert "unknown key stepz" in message
    for field in fields(kind):
        assert field.name in message


def test_a_misspelt_key_of_a_shape() -> None:
    for key in ("dims", "num_speakers", "hop"):  # the last two follow from the corpus and the clock
        with pytest.raises(ConfigError, match=f"shape: unknown key {key}; known are dim, expansion"):
            plan(f"vocoder.shape.{key}", 3)
    for section in ("prepare", "tokenize", "align", "t2s", "sampling", "draft", "drafters", "pack", "evaluate"):
        with pytest.raises(ConfigError, match=f"^{section}: unknown key colour; known are "):
            plan(f"{section}.colour", 1)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("t2s.training.steps", "many", "t2s.training.steps must be a whole number, not 'many'"),
        ("t2s.training.steps", 2.5, "t2s.training.steps must be a whole number"),
        ("t2s.training.lr", True, "t2s.training.lr must be a number"),
        ("t2s.training.align_layers", 3, "t2s.training.align_layers must be a list"),
        ("t2s.training", [], "t2s.training must be a section"),
        ("t2s.training.joint", "eagle", "t2s.training: joint must be none, medusa or prophet"),
        ("t2s.training.steps", 0, "t2s.training: steps"),
        ("t2s.dim_head", 7, "t2s: dim_head must be even"),
        ("t2s.start", 3, "t2s.start must be a text or null"),
        ("vocoder.shape.kernel", 0, "vocoder: shape: "),
        ("vocoder.training.batch", 0, "vocoder.training: "),
        ("draft.training.loss", "mse", "draft.training: loss must be"),
        ("draft.layers", [2, 9], "draft.layers: the target has layers 1 to 6"),
        ("drafters.own.eagle", {}, "drafters: own: nothing is trained for eagle"),
        ("drafters.names", ["eagle"], "drafters: names: nothing is trained for eagle"),
        ("drafters.own.small.loss", "mse", "drafters: "),
        ("sampling.candidates", [[0.8]], "sampling.candidates must be a list"),
        ("clock.token_rate", 26, "clock: a sample rate of 24000 Hz is no whole number of frames"),
        ("stages", "t2s", "stages must be a list"),
        ("threads", 0, "threads must be above 0"),
        ("seed", "one", "seed must be a whole number"),
    ],
)
def test_values_that_cannot_be(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}".replace("[", r"\[")):
        plan(path, value)


def test_values_that_can_be() -> None:
    found = plan("t2s.training", {"steps": 3, "lr": 1, "align_layers": [0, 1]}).t2s.training
    assert (found.steps, found.lr, found.align_layers) == (3, 1, (0, 1))
    assert plan("drafters.own.medusa", {"lr": 2e-3}).drafters.settings("medusa") == DraftTraining(lr=2e-3)
    both = plan("drafters", {"training": {"steps": 9}, "own": {"medusa": {"lr": 2e-3}}}).drafters
    assert both.settings("medusa") == DraftTraining(steps=9, lr=2e-3)
    assert both.settings("small") == DraftTraining(steps=9)


@pytest.mark.parametrize("kind", [T2STraining, DraftTraining, VocoderTraining])
def test_settings_are_frozen_and_refuse_what_they_do_not_know(kind: Any) -> None:
    with pytest.raises(FrozenInstanceError):
        kind().steps = 3
    with pytest.raises(ConfigError, match="unknown key"):
        kind.from_dict({"stepz": 3})
    assert kind.from_dict(kind().to_dict()) == kind()
