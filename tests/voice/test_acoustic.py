"""Stages of their own, and the stage of audiolm-pytorch's transformers in a voice: saved, opened, refused."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from spear_spec.acoustic.audiolm import AudioLMStage, Prompt
from spear_spec.acoustic.contract import Heard
from spear_spec.acoustic.unit.prompt import PromptConfig, PromptEncoder
from spear_spec.audio import load_audio, resample
from spear_spec.cli import main
from spear_spec.errors import BundleError, ConfigError
from spear_spec.pipeline import TTS
from spear_spec.voice.acoustic import load_acoustic, save_stage
from spear_spec.voice.bundle import open_voice
from spear_spec.voice.listening import tokens_digest
from spear_spec.voice.parts import load_stage
from spear_spec.voice.save import save_voice
from tests.stubs.audiolm import PROMPT, RATE, make_stage, parts
from tests.voice.damage import edit
from tests.voice.test_save import again


@pytest.fixture(scope="module")
def made(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_stage(tmp_path_factory.mktemp("stages") / "toy", open_voice(original))


@pytest.fixture
def stage(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "toy"))


def test_a_stage_holds_what_was_saved(original: Path, made: Path) -> None:
    shape, weights = parts()
    loaded = load_acoustic(open_voice(original), made)
    assert isinstance(loaded, AudioLMStage) and loaded.module is not None and not loaded.module.training
    held = loaded.module.state_dict()
    assert held.keys() == weights.keys() and any(name.startswith("draft.") for name in held)
    assert all(torch.equal(held[name], weights[name].half().float()) for name in held)
    assert loaded.parts.spec.drafter == "small" and loaded.parts.made[0].name == "small"
    assert (loaded.frame_samples, loaded.token_samples, loaded.sampling.temperature) == (320, 640, 1.0)
    assert loaded.prompts["am_michael"] == PROMPT
    assert len(list(made.glob("vocoder-*.safetensors"))) > 1  # it is written in shards
    assert shape["draft"] == json.loads((made / "config.json").read_text())["stage"]["draft"]


def test_a_voice_speaks_through_it(original: Path, made: Path) -> None:
    """Its own rate, its speakers with a prompt and without; drafts change no law, so greedy they change nothing."""
    tts = TTS.load(original, acoustic=made)
    audio = tts.synthesize("Hello.", seed=1, max_tokens=20)
    assert tts.sample_rate == audio.sample_rate == RATE and len(audio.samples) % 320 == 0 and len(audio.samples)
    assert TTS.load(original).sample_rate == 24000
    again = TTS.load(original, acoustic=made).synthesize("Hello.", seed=1, max_tokens=20)
    assert (audio.samples == again.samples).all()
    stage: Any = tts.stage
    assert (
        len(tts.synthesize("Hello.", speaker="am_michael", seed=1, max_tokens=20).samples)
        and "af_heart" in stage.speakers
    )
    fast = tts.synthesize("Hello.", seed=1, max_tokens=20, speed=1.5)
    assert abs(len(fast.samples) - len(audio.samples) / 1.5) < 2  # it has one speed: a time-stretch does the rest


def test_within_the_voices_folder_it_goes_by_its_name(voice: Path, made: Path) -> None:
    shutil.copytree(made, voice / "audiolm")
    assert isinstance(load_acoustic(open_voice(voice), "audiolm"), AudioLMStage)
    with pytest.raises(BundleError, match=r"no acoustic stage 'other' \(in its folder: audiolm\)"):
        load_acoustic(open_voice(voice), "other")


def test_the_voices_own_prompt_encoder_stays_out(original: Path, made: Path, tmp_path: Path) -> None:
    source = open_voice(original)
    config, shape = source.config, PromptConfig(vector=32, dim=16, blocks=1, attention=8, embedding=12)
    configs = {"t2s": config.t2s, "vocoder": config.vocoder, "draft": config.draft, **config.drafters}
    weights = {part: source.tensors(part) for part in config.files} | {"prompt": PromptEncoder(shape).state_dict()}
    bundle = again(source, tmp_path / "hearing", configs={**configs, "prompt": shape.to_dict()}, weights=weights)
    assert isinstance(load_acoustic(bundle, made), AudioLMStage)
    assert not isinstance(load_stage(bundle), AudioLMStage)


def test_a_voice_may_ship_with_it(original: Path, tmp_path: Path) -> None:
    source = open_voice(original)
    shape, weights = parts(draft=False)
    named = source.config.to_dict()
    bundle = save_voice(
        tmp_path / "whole", name="whole", licence="CC0-1.0", origin="tests", sample_rate=RATE,
        speakers=list(source.config.speakers), text=named["text"], semantic=source.config.semantic,
        sampling=source.sampling, spec=source.spec, configs={"t2s": source.config.t2s, "vocoder": shape},
        weights={"t2s": source.tensors("t2s"), "vocoder": weights, "centroids": source.tensors("centroids")},
        kinds={"vocoder": "audiolm"},
    )  # fmt: skip
    loaded = load_stage(open_voice(bundle.path))
    assert isinstance(loaded, AudioLMStage) and loaded.parts.plain
    assert len(TTS.load(bundle.path, drafter="none").synthesize("Hello.", max_tokens=10).samples)


class Ear:
    """A tokenizer that remembers what it heard."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, int]] = []

    def __call__(self, samples: Any, rate: int) -> torch.Tensor:
        self.heard.append((len(samples), rate))
        return torch.arange(len(samples) * 25 // rate) % 16


def test_a_prompt_is_heard_and_gone_on_from(original: Path, made: Path) -> None:
    stage: Any = load_acoustic(open_voice(original), made)
    stage.tokenizer = ear = Ear()
    samples = 0.3 * torch.randn(36_000, generator=torch.Generator().manual_seed(0))
    heard = stage.prompt(samples, 24000)
    assert isinstance(heard, Heard) and heard.stage == "audiolm" and isinstance(heard.value, Prompt)
    assert ear.heard == [(36_000, 24000)]
    assert len(heard.value.semantic) == 37 and len(heard.value.codes) == 74  # 1.5 s; two frames a token
    own = stage.codec.encode(torch.from_numpy(resample(samples.numpy(), 24000, RATE))[None])
    assert heard.value.codes == tuple(map(tuple, own[0, :74].tolist()))

    def speak(voice: str | Heard) -> torch.Tensor:
        stream = stage.open(voice, generator=torch.Generator().manual_seed(0))
        stream.push(torch.tensor([1, 2, 3, 4, 5, 6]))
        return stream.finish()

    assert len(speak(heard)) and not torch.equal(speak(heard), speak(""))
    assert torch.equal(speak(heard), speak(Heard(heard.value, "audiolm")))


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (Prompt((1,), ()), "unit-vocoder", "by a stage 'unit-vocoder'"),
        (torch.zeros(3), "audiolm", "hear it again"),
        (Prompt((99,), ()), "audiolm", "semantic tokens lie below 16"),
        (Prompt((1,), ((1, 2),)), "audiolm", "3 codes below 4"),
    ],
)
def test_prompts_of_others(original: Path, made: Path, value: Any, kind: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_acoustic(open_voice(original), made).open(Heard(value, kind))


@pytest.mark.parametrize("samples", [torch.zeros(2, 9000), torch.full((9000,), torch.nan), torch.zeros(500)])
def test_clips_that_are_none(original: Path, made: Path, samples: torch.Tensor) -> None:
    stage: Any = load_acoustic(open_voice(original), made)
    with pytest.raises(Exception, match=r"mono|40 ms"):
        stage.prompt(samples, 16000)


def test_a_voice_that_does_not_say_how_its_tokens_are_made(original: Path, made: Path, tmp_path: Path) -> None:
    stage: Any = load_acoustic(open_voice(original), made)
    with pytest.raises(BundleError, match="cannot load the speech encoder"):
        stage.prompt(torch.zeros(16000), 16000)  # the stub names one that there is not
    silent = Path(shutil.copytree(original, tmp_path / "silent"))
    edit(silent, lambda config: config["semantic"].pop("layer"))
    other: Any = load_acoustic(open_voice(silent), made)
    with pytest.raises(BundleError, match="does not say how"):
        other.prompt(torch.zeros(16000), 16000)


def test_say(original: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["say", "Hello.", "--voice", str(original), "--device", "cpu", "--max-tokens", "10", "--acoustic"]
    assert main([*told, str(made), "-o", str(tmp_path / "out.wav")]) == 0
    assert load_audio(tmp_path / "out.wav").sample_rate == RATE
    capsys.readouterr()
    assert main([*told, "nowhere", "-o", str(tmp_path / "none.wav")]) == 2
    assert "no acoustic stage 'nowhere'" in capsys.readouterr().err and not (tmp_path / "none.wav").exists()


def refused(voice: Path, stage: Path) -> str:
    """The complaint; a second of computing is the most that it may cost."""
    began = time.process_time()
    with pytest.raises(BundleError) as caught:
        load_acoustic(open_voice(voice), stage)
    assert time.process_time() - began < 1
    line = str(caught.value)
    assert 0 < len(line) <= 300 and line.isprintable()
    return line


def test_tokens_of_another_kind(voice: Path, stage: Path) -> None:
    tensors = load_file(voice / "centroids-1.safetensors")["centroids"]
    assert tokens_digest(open_voice(voice)) != tokens_digest_of(tensors + 1)
    edit(stage, lambda config: config["semantic"].update(centroids="0" * 64))
    assert "another kind of semantic" in refused(voice, stage)
    edit(stage, lambda config: config["semantic"].update(k=17, centroids=None))
    assert "17 semantic tokens" in refused(voice, stage)
    edit(stage, lambda config: config["semantic"].update(k=16, rate=50))
    assert "at 50 a second" in refused(voice, stage)


def tokens_digest_of(centroids: torch.Tensor) -> str:
    import hashlib

    return hashlib.sha256(centroids.half().numpy().tobytes()).hexdigest()


def test_it_is_written_whole_or_not_at_all(original: Path, stage: Path) -> None:
    before = {path.name: path.read_bytes() for path in stage.iterdir()}
    shape, weights = parts()
    bad = {**weights, "coarse.prefix_start": torch.full((8,), torch.nan)}
    told: dict[str, Any] = {"name": "toy", "licence": "", "origin": "", "kind": "audiolm", "sample_rate": RATE}
    with pytest.raises(BundleError, match="NaN"):
        save_stage(stage, open_voice(original), shape=shape, weights=bad, **told)
    with pytest.raises(BundleError, match="name must be"):
        save_stage(stage, open_voice(original), shape=shape, weights=weights, **{**told, "name": "\n"})
    assert {path.name: path.read_bytes() for path in stage.iterdir()} == before
    with pytest.raises(BundleError, match="is not of a stage"):
        save_stage(original, open_voice(original), shape=shape, weights=weights, **told)


SIZES = {
    "coarse": ["width", "depth", "heads", "dim_head", "ff_inner", "streams", "codebook", "quantizers", "relative_bias",
               "value_residual", "semantic"],
    "fine": ["width", "depth", "heads", "dim_head", "ff_inner", "streams", "codebook", "quantizers", "coarse"],
    "codec": ["sample_rate", "channels", "strides", "dim", "codebook", "quantizers", "groups", "depth", "heads",
              "dim_head", "inner", "window", "decay", "encoder_dilations", "decoder_dilations", "pad"],
    "draft": ["dim", "depth", "heads", "dim_head", "ff_mult", "target_layers"],
    "spec": ["drafter", "verifier", "gamma", "num_drafts", "tree", "options"],
    "sampling": ["temperature", "top_k", "top_p", "guidance"],
    "prompts": ["am_michael"],
}  # fmt: skip
VALUES = [10**6, 10**9, 10**400, -1, 2.5, 1e300, True, [], [10**6] * 3, {}, "x" * 10**5, None]
ALLOWED = {
    ("coarse", "relative_bias", "True"), ("coarse", "value_residual", "True"), ("draft", "target_layers", "[]"),
    ("spec", "options", "{}"), ("sampling", "top_k", "1000000"), ("sampling", "guidance", "2.5"),
    ("sampling", "temperature", "2.5"), ("spec", "tree", "None"),
}  # fmt: skip


@pytest.mark.parametrize("part", SIZES)
def test_no_field_is_believed(original: Path, stage: Path, part: str) -> None:
    load_acoustic(open_voice(original), stage)
    sound = (stage / "config.json").read_text()
    for name in SIZES[part]:
        for value in VALUES:
            if (part, name, str(value)) not in ALLOWED:
                edit(stage, lambda config: config["stage"][part].update({name: value}))  # noqa: B023  called at once
                refused(original, stage)
                (stage / "config.json").write_text(sound)
    load_acoustic(open_voice(original), stage)


LARGEST: dict[str, Callable[[dict[str, Any]], object]] = {
    "widest": lambda s: s["coarse"].update(width=2**14, heads=256, dim_head=1024, depth=64, ff_inner=2**19),
    "most quantizers": lambda s: s["codec"].update(quantizers=64, groups=4),
    "deepest codec": lambda s: s["codec"].update(depth=64, heads=256, dim_head=1024, inner=2**20),
    "widest codec": lambda s: s["codec"].update(channels=[2**14] * 4, dim=2**14),
    "longest window": lambda s: s["codec"].update(strides=[8, 8, 5]),
    "deepest draft": lambda s: s["draft"].update(depth=64, heads=256, dim_head=1024, ff_mult=64),
    "another drafter": lambda s: s["spec"].update(drafter="medusa"),
    "a drafter without draft": lambda s: s.update(draft=None),
    "a draft without drafter": lambda s: s["spec"].update(drafter="ngram"),
    "another kind of semantic": lambda s: s.update(kind="unit-vocoder"),
    "no kind": lambda s: s.pop("kind"),
    "an unknown kind": lambda s: s.update(kind="k" * 10**5),
    "more": lambda s: s.update(more=1),
    "codes of others": lambda s: s["codec"].update(codebook=5),
    "codes out of range": lambda s: s["prompts"]["am_michael"]["codes"][0].__setitem__(0, 4),
    "tokens out of range": lambda s: s["prompts"]["am_michael"]["semantic"].append(10**30),
    "frames of others": lambda s: s["prompts"]["am_michael"]["codes"].append([1]),
}


@pytest.mark.parametrize("name", LARGEST)
def test_shapes_are_compared_before_anything_is_allocated(original: Path, stage: Path, name: str) -> None:
    edit(stage, lambda config: LARGEST[name](config["stage"]))
    refused(original, stage)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(schema="spear-stage/2"), lambda c: c.update(schema=3), lambda c: c.update(name="\x1b[2J"),
        lambda c: c.update(semantic=[]), lambda c: c["semantic"].update(centroids="0" * 63),
        lambda c: c.update(files={}),
        lambda c: c["semantic"].update(k=0), lambda c: c["semantic"].update(rate="25"), lambda c: c.update(more=1),
        lambda c: c["files"].update(t2s=c["files"]["vocoder"]), lambda c: c.update(sample_rate=24000),
        lambda c: c["files"]["vocoder"].pop(), lambda c: c["files"]["vocoder"][0].update(sha256="0" * 64),
        lambda c: c.update(packages={"audiolm": 3}), lambda c: c.update(stage=[]), lambda c: c.pop("origin"),
    ],
)  # fmt: skip
def test_configurations_that_are_none(original: Path, stage: Path, change: Callable[[dict[str, Any]], object]) -> None:
    edit(stage, change)
    refused(original, stage)


@pytest.mark.parametrize("where", ["", "x/y", "a\0b", "~nobody/x", 3])
def test_places_without_a_stage(original: Path, where: Any) -> None:
    with pytest.raises(BundleError) as caught:
        load_acoustic(open_voice(original), where)
    assert len(str(caught.value)) <= 400


def test_a_voice_is_no_stage_and_a_stage_no_voice(original: Path, made: Path) -> None:
    assert "no acoustic stage" in refused(original, original)
    with pytest.raises(BundleError, match="is not a voice"):
        open_voice(made)
