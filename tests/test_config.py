"""Configurations: strict, round trip, ranges."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from spear_spec.config import DraftConfig, SamplingConfig, SpecConfig, Strict, T2SConfig
from spear_spec.errors import ConfigError, SpearSpecError

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
    SpecConfig(gamma=1, options={"a": 1}),
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
    (SpecConfig, {"num_drafts": 0}, "num_drafts"),
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
