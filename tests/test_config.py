"""Configurations: strict, round trip, ranges."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from spear_spec.acoustic.unit.vocoder import VocoderConfig
from spear_spec.config import Clock, DraftConfig, SamplingConfig, SpecConfig, Strict, T2SConfig, shown
from spear_spec.errors import BundleError, ConfigError, SpearSpecError
from spear_spec.models.drafts.layer_skip import LayerSkipConfig
from spear_spec.models.drafts.medusa import MedusaConfig

SHAPE: dict[str, Any] = {
    "num_text_token_ids": 9,
    "num_semantic_token_ids": 5,
    "dim": 16,
    "source_depth": 1,
    "target_depth": 3,
    "heads": 4,
}
GOOD: list[Strict] = [
    T2SConfig(**SHAPE),
    T2SConfig(**SHAPE, kv_heads=2, early_exit_layer=3),
    DraftConfig(dim=8, target_layers=(1, 3)),
    SamplingConfig(),
    SamplingConfig(temperature=0, top_k=50, top_p=0.9, guidance=3),
    SpecConfig(),
    SpecConfig(gamma=1, options={"a": 1, "b": "words", "c": True, "d": -0.5}),
    VocoderConfig(),
    MedusaConfig(dim=8, heads=3, tree=((0,), (1,), (0, 2), (0, 2, 0))),
    LayerSkipConfig(attention=(0, 2)),
]


@pytest.mark.parametrize("config", GOOD, ids=lambda c: type(c).__name__)
def test_round_trip_through_json(config: Strict) -> None:
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("config", GOOD, ids=lambda c: type(c).__name__)
def test_unknown_keys_are_refused_by_name(config: Strict) -> None:
    with pytest.raises(ConfigError, match="unknown key colour; known are"):
        type(config).from_dict({**config.to_dict(), "colour": 1})


def test_missing_keys_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="heads"):
        T2SConfig.from_dict({key: value for key, value in SHAPE.items() if key != "heads"})


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_anything_but_an_object_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="object"):
        SamplingConfig.from_dict(value)


BAD: list[tuple[type[Strict], dict[str, Any], str]] = [
    *((T2SConfig, {**SHAPE, key: value}, key) for key in SHAPE for value in (0, -1, 1.5, "4", True, None)),
    (T2SConfig, {**SHAPE, "dim_head": 7}, "dim_head"),
    (T2SConfig, {**SHAPE, "kv_heads": 3}, "kv_heads"),
    (T2SConfig, {**SHAPE, "kv_heads": 0}, "kv_heads"),
    (T2SConfig, {**SHAPE, "early_exit_layer": 4}, "early_exit_layer"),
    (T2SConfig, {**SHAPE, "early_exit_layer": 0}, "early_exit_layer"),
    (DraftConfig, {"dim": 0}, "dim"),
    (DraftConfig, {"dim": 8, "target_layers": [0]}, "target_layers"),
    *(
        (SamplingConfig, {"temperature": v}, "temperature")
        for v in (-0.1, 11, float("nan"), float("inf"), "1", True, None)
    ),
    *((SamplingConfig, {"top_p": v}, "top_p") for v in (0, -1, 1.01, float("nan"), "x")),
    *((SamplingConfig, {"top_k": v}, "top_k") for v in (-1, 1.5, "5", True)),
    *((SamplingConfig, {"guidance": v}, "guidance") for v in (0.5, 21, float("nan"), None)),
    *((SpecConfig, {"gamma": v}, "gamma") for v in (0, -3, 65, 2.0, True)),
    *((SpecConfig, {"num_drafts": v}, "num_drafts") for v in (0, 65, 20_000, 1.0, True)),
    *((T2SConfig, {**SHAPE, key: 10**6}, key) for key in ("dim", "source_depth", "target_depth", "heads", "dim_head")),
    (T2SConfig, {**SHAPE, "ff_mult": 65}, "ff_mult"),
    (T2SConfig, {**SHAPE, "num_text_token_ids": 2**20 + 1}, "num_text_token_ids"),
    *((DraftConfig, {"dim": 8, key: 10**6}, key) for key in ("depth", "heads", "dim_head", "ff_mult")),
    *((DraftConfig, {"dim": 8, "target_layers": v}, "target_layers") for v in (3, "12", [1.0], [[1]], [65], [1] * 65)),
    (DraftConfig, {"dim": 8, "feed": []}, "feed"),
    (DraftConfig, {"dim": 8, "target_layers": [1], "window": 1}, "window"),
    (SamplingConfig, {"top_k": 2**20 + 1}, "top_k"),
    *(
        (SpecConfig, {"options": v}, "options")
        for v in ({"a": []}, {"a": None}, {"a": {}}, {1: 2}, {"a": float("nan")})
    ),
    (SpecConfig, {"options": {str(i): i for i in range(33)}}, "options"),
    *((SpecConfig, {"tree": v}, "tree") for v in (3, "a\nb", "4-" * 101)),
    (SpecConfig, {"verifier": "v" * 81}, "verifier"),
    *(
        (VocoderConfig, {key: v}, key)
        for key in (
            "hop",
            "n_fft",
            "dim",
            "kernel",
            "sample_rate",
            "expansion",
            "prosody_dim",
            "num_speakers",
            "frames_per_token",
            "num_semantic_token_ids",
        )
        for v in (0, 10**8, 2.0, True, "4", None)
    ),
    *((VocoderConfig, {"frame_right": v}, "frame_right") for v in ([7], [-1], [1.0], 3, [0] * 65, "12")),
    *((VocoderConfig, {"f0_floor": v}, "f0_floor") for v in (0, -1, 600, float("nan"), "50", 10**400)),
    (VocoderConfig, {"hop": 250}, "n_fft"),
    *((MedusaConfig, {"dim": 8, key: v}, key) for key in ("dim", "heads", "inner") for v in (0, 10**6, 1.0, True)),
    *(
        (MedusaConfig, {"dim": 8, "tree": v}, "tree")
        for v in (3, [3], [[]], [[1.0]], [[-1]], [[0, 0]], [[0], [0]], [[0]] * 4097, ["a"], [[0] * 9])
    ),
    *((LayerSkipConfig, {"attention": v}, "attention") for v in (3, [-1], [1, 1], [64], [True], [0.0])),
    (SpecConfig, {"drafter": 3}, "drafter"),
    (SpecConfig, {"options": "a"}, "options"),
]


@pytest.mark.parametrize(("kind", "values", "named"), BAD)
def test_values_out_of_range_are_refused_and_named(kind: type[Strict], values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        kind.from_dict(values)


@pytest.mark.parametrize("config", GOOD, ids=lambda c: type(c).__name__)
def test_configurations_cannot_be_changed(config: Strict) -> None:
    name = dataclasses.fields(config)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, name, 1)


def test_configuration_errors_are_the_users_errors() -> None:
    assert issubclass(ConfigError, SpearSpecError)


def test_feed_forward_width_is_the_peers() -> None:
    assert T2SConfig(**{**SHAPE, "dim": 512}).ff_inner == 1365
    assert T2SConfig(**SHAPE, ff_mult=2).ff_inner == 21


def test_sampling_that_is_changed() -> None:
    law = SamplingConfig(temperature=0.5, top_k=7)
    assert law.changed() == law
    assert law.changed(top_p=0.5, top_k=0) == SamplingConfig(temperature=0.5, top_k=0, top_p=0.5)
    with pytest.raises(ConfigError, match="temprature; known are temperature, top_k, top_p, guidance"):
        law.changed(temprature=1.0)
    with pytest.raises(ConfigError, match="temperature"):
        law.changed(temperature=-1)


@pytest.mark.parametrize(("kind", "values", "named"), BAD)
def test_complaints_are_short(kind: type[Strict], values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        kind.from_dict({**values, "x" * 10**5: 1} if named == "dim" else values)
    assert len(str(caught.value)) < 500


def test_values_are_shown_short() -> None:
    deep: list[Any] = []
    for _ in range(10**5):
        deep = [deep]
    assert shown(3) == "3" and shown("a") == "'a'"
    assert len(shown("x" * 10**5)) < 70
    assert shown(10**5000) == "a int"
    assert shown(deep) == "a list"
    while deep:  # a list this deep would overflow the stack of the collector
        deep = deep[0]


def test_a_bundles_complaint_is_one_printable_line() -> None:
    for message in ("\x1b[2J" * 10**5, "a\nb\x00", "\ud800", "short", "x" * 301, "x" * 300):
        line = str(BundleError(message))
        assert line.isprintable() and len(line) <= 300
    assert str(BundleError("one line\nand another")) == "one line and another"
    assert str(BundleError("begin" + "x" * 1000 + "end")).startswith("begin")
    assert str(BundleError("begin" + "x" * 1000 + "end")).endswith("end")


def test_a_clock() -> None:
    clock = Clock(token_rate=25, hop=240, sample_rate=24000)
    assert (clock.token_samples, clock.frames_per_token, clock.frame_rate) == (960, 4, 100)
    assert clock.seconds(50) == 2.0


@pytest.mark.parametrize("rates", [
    (25, 250, 24000), (25, 240, 16000), (7, 240, 24000), (0, 240, 24000), (25, 0, 24000), (25, 240, 999),
    (25.0, 240, 24000), (25, 240, True), (None, 240, 24000),
])  # fmt: skip
def test_a_clock_that_does_not_fit(rates: tuple[Any, Any, Any]) -> None:
    with pytest.raises(ConfigError):
        Clock(*rates)
