"""Text in, speech out: front end -> engine -> acoustic stage, each of which can be replaced.

text -> segments of text ids -> [requests in one batch, decoded speculatively] -> semantic tokens -> samples
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spear_spec.acoustic.contract import AcousticStage, Heard
from spear_spec.acoustic.prompt import MOST_S, Source, check_hears, hear, open_prompt, warn
from spear_spec.acoustic.provenance import provenance
from spear_spec.acoustic.speed import check_speed
from spear_spec.acoustic.takes import (
    SoundJudge,
    check_best_of,
)
from spear_spec.audio import Audio
from spear_spec.config import SamplingConfig, SpecConfig, shown
from spear_spec.decoding import Drafter, Parts, Verifier, check
from spear_spec.decoding import complete as completed
from spear_spec.decoding.beam import LENGTH_PENALTY
from spear_spec.decoding.chance import check_seed
from spear_spec.decoding.contract import checked_drafter, checked_verifier
from spear_spec.decoding.request import STREAMED, Whole, check_cap
from spear_spec.device import find_device, find_dtype, set_threads
from spear_spec.engine import Beams, Decoder, check_runtime
from spear_spec.errors import BundleError, ConfigError, TextError
from spear_spec.meter import Meter
from spear_spec.models.alignment import check_aligned
from spear_spec.models.contract import Target
from spear_spec.saying import Asked, AudioChunk, WholeBy, say
from spear_spec.text import FrontEnd, Reading, read
from spear_spec.timing.timeline import Timeline
from spear_spec.voice.bundle import Bundle, choose_speaker, open_voice
from spear_spec.voice.drafts import Drafts
from spear_spec.voice.parts import choose_spec, embedding_for, load_parts

MOST_TOGETHER = 4096
COMPLETE: dict[bool | str, int | None] = {  # `Whole.first` by how it is asked for
    **dict.fromkeys((False, "off"), None),
    **dict.fromkeys((True, "on"), 0),
    "stream": STREAMED,
}


@dataclass
class TTS:
    """A voice: a front end, a transformer with what drafts for it, and an acoustic stage.

    Threads may not share one; `using` makes cheap copies with other settings.
    """

    bundle: Bundle
    front_end: FrontEnd
    target: Target
    stage: AcousticStage
    drafts: Mapping[str, Any]  # trained parts by the name of the drafter that needs them
    spec: SpecConfig
    sampling: SamplingConfig
    load_s: float = 0.0
    embedding: Tensor | None = None  # of the semantic tokens, for the verifier that groups them
    own_drafter: Drafter | None = None  # objects of the user's, in place of what `spec` names
    own_verifier: Verifier | None = None
    runtime: str = "eager"  # see `Decoder`
    acoustic: Path | None = None  # the folder of the stage, where it is not the voice's own

    @classmethod
    def load(
        cls,
        voice: str | os.PathLike[str] | Bundle | None = None,
        device: str | torch.device | None = None,
        drafter: str | Drafter | None = None,
        *,
        dtype: str = "float32",
        threads: int | None = None,
        runtime: str = "eager",
        acoustic: str | os.PathLike[str] | None = None,
        **spec: Any,
    ) -> TTS:
        """Load a voice: by name, by folder, or the one that ships with the package.

        Args:
            device: "cpu", "cuda", "cuda:1"; None takes cuda where there is one.
            drafter: "none" is plain autoregressive decoding; None is what the voice ships with; or an object of one's
                own, like a verifier in `spec` (protocols `Drafter` and `Verifier` of `spear_spec.decoding`).
            dtype: of the text-to-semantic transformer and its draft; the acoustic stage is always float32.
            threads: CPU threads of torch (process-wide); None leaves them as they are.
            runtime: who runs the transformer: "eager"; "graphs", CUDA graphs of whole rounds, for chains of a draft
                decoder (on a CPU the same without graphs, slower than "eager"); "auto": graphs on CUDA where they can.
            acoustic: another acoustic stage than the voice's own: a folder that `voice.acoustic.save_stage` wrote, or
                the name of one within the voice's folder (docs/audiolm.md).
            spec: other fields of `SpecConfig`: verifier, gamma, num_drafts, tree, options. What is left open follows
                from what is given: a verifier brings the draft it is made for, a tree or several drafts a verifier.

        Raises:
            BundleError: the voice is missing or damaged. ConfigError: an option cannot be used. DeviceError: no such
                device. ContractError: an object that is no drafter or verifier.
        """
        began = time.perf_counter()
        given = {**spec, "drafter": drafter}
        own = {n: v for n, v in given.items() if n in ("drafter", "verifier") and not isinstance(v, str | None)}
        named = {n: v for n, v in spec.items() if n not in own}
        where, kind = find_device(device), find_dtype(dtype)
        if threads is not None:
            set_threads(threads)
        check_runtime(runtime)
        bundle = voice if isinstance(voice, Bundle) else open_voice(voice)
        try:
            settings = choose_spec(bundle, None if "drafter" in own else drafter, named)  # type: ignore[arg-type]
            folder = None if acoustic is None else _stage_folder(bundle, acoustic)
            front_end, target, stage = load_parts(bundle, where, kind, folder)
            drafts = Drafts(bundle, target, where, kind)
            embedding = embedding_for(settings, bundle)
            check(settings, drafts, embedding)
        except ConfigError as error:
            if drafter is not None or spec:
                raise
            raise BundleError(f"{bundle.path / 'config.json'}: spec: {error}") from None  # nothing else was asked for
        tts = cls(
            bundle, front_end, target, stage, drafts, settings, bundle.sampling, embedding=embedding, runtime=runtime,
            acoustic=folder,
        )  # fmt: skip
        tts = tts.using(**own) if own else tts
        tts.load_s = time.perf_counter() - began
        return tts

    @property
    def name(self) -> str:
        return self.bundle.config.name

    @property
    def speakers(self) -> tuple[str, ...]:
        """The first is the default."""
        return self.bundle.config.speakers

    @property
    def sample_rate(self) -> int:
        return self.stage.sample_rate

    def using(self, **spec: Any) -> TTS:
        """The same weights with other fields of `SpecConfig`: `tts.using(drafter="none")`; open ones are filled in as
        in `load`.

        drafter and verifier may also be objects of one's own (see `Drafter` and `Verifier`).

        Raises:
            ConfigError: a setting that cannot be used. ContractError: an object that is no drafter or verifier.
        """
        own: dict[str, Any] = {"own_drafter": self.own_drafter, "own_verifier": self.own_verifier}
        for name, checked in (("drafter", checked_drafter), ("verifier", checked_verifier)):
            if name in spec:
                own[f"own_{name}"] = None if isinstance(spec[name], str) else checked(spec.pop(name))
        settings = completed(self.spec, spec)
        embedding = embedding_for(settings, self.bundle)
        changed = replace(self, **own, spec=settings, embedding=embedding)
        if any(own.values()):
            changed.decoder.parts.make()
        else:
            check(settings, self.drafts, embedding)
        return changed

    @cached_property
    def decoder(self) -> Decoder:
        """What decoding is done with: the transformer, what drafts for it, the rule, the sampling."""
        parts = Parts(self.spec, self.drafts, self.embedding, self.own_drafter, self.own_verifier)
        return Decoder(self.target, parts, self.sampling, self.bundle.config.clock.token_rate, self.runtime)

    def hear(self, prompt: Source) -> Heard:
        """The voice in a recording of somebody's speech; `voice=` takes it, for any number of texts.

        Args:
            prompt: a file (wav, flac, ogg, opus, mp3, aiff and what else libsndfile reads), its bytes, an `Audio`, or
                (samples [T] or [T, channels], rate in Hz): a second of speech or more, 3 s are good. What is wrong
                with it is logged as a warning.

        Raises:
            ConfigError: this voice has named speakers only. AudioError: it cannot be read, is no speech (silence,
            noise, music), or has less than a second of it.
        """
        check_hears(self.stage, self.speakers)
        read = open_prompt(prompt, getattr(self.stage, "prompt_s", MOST_S))
        warn(read)
        return hear(self.stage, read)

    def sound_of(self, voice: str | Heard | Source | None, who: str) -> str | Heard:
        """Whose sound is meant by a `voice` of `stream` for this reader: a speaker's, or one that was heard.

        Raises:
            As `hear`.
        """
        if voice is None:
            return who
        if isinstance(voice, str) and voice in self.speakers:
            return voice
        if isinstance(voice, Heard):
            check_hears(self.stage, self.speakers)
            return voice
        return self.hear(voice)

    def tags(
        self, speaker: str | None = None, sound: str | Heard | None = None, wanted: bool | None = None
    ) -> dict[str, str]:
        """What a file of this voice's speech says of itself (`acoustic/provenance.py`).

        wanted: None: where a prompt was used, and nothing elsewhere.
        """
        who = choose_speaker(self.bundle, speaker)
        if wanted is None:
            wanted = isinstance(sound, Heard)
        return provenance(self.name, who, who if sound is None else sound) if wanted else {}

    def synthesize(self, text: str, *, provenance: bool | None = None, **options: Any) -> Audio:
        """Speak a text; options as in `stream`. `Audio.stats` is the text's entry of `items` in say/1.

        provenance: whether a file of it says in its metadata that it is synthetic speech, by which software and voice,
            and after which prompt (its SHA-256); None: where a prompt was used.
        """
        options = self.unheard(options)
        meter = options.pop("meter", None) or Meter(self.sample_rate)
        who = choose_speaker(self.bundle, options.get("speaker"))
        options["voice"] = sound = self.sound_of(options.get("voice"), who)
        chunks = list(self.stream(text, meter=meter, **options))
        words = tuple(word for chunk in chunks for word in chunk.words) if options.get("timestamps") else None
        samples = np.concatenate([chunk.samples for chunk in chunks])
        tags = self.tags(who, sound, provenance)
        return Audio(samples, self.sample_rate, meter.item(text), words, tags)

    def stream(
        self,
        text: str,
        *,
        speaker: str | None = None,
        voice: str | Heard | Source | None = None,
        seed: int = 0,
        max_tokens: int | None = None,
        batch: int = 1,
        meter: Meter | None = None,
        pause: Any = None,
        lexicon: Any = None,
        ssml: bool = False,
        speed: float = 1.0,
        timestamps: bool = False,
        complete: bool | str | None = None,
        best_of: int = 1,
        judge: str | SoundJudge | None = None,
        beam: int | None = None,
        length_penalty: float = LENGTH_PENALTY,
        **sampling: Any,
    ) -> Iterator[AudioChunk]:
        """Speak a text of any length, piece by piece, in bounded memory; the first piece comes after a few tokens.

        The samples are those of `synthesize` with the same arguments and the same `complete`. Same seed, settings,
        device and threads: same audio.

        Args:
            speaker: who reads. voice: whose sound it is: that of a speaker by name, of a prompt as `hear` takes it, or
                what `hear` gave; by default the reader's own.
            seed: a whole number from 0 to 2^64 - 1.
            max_tokens: cap on the semantic tokens of a sentence; by default it follows from the sentence's length.
            batch: most sentences decoded together; the next one joins as soon as one has been spoken.
            pause: seconds of silence between sentences, or (between sentences, between paragraphs), or a `Pauses`.
            lexicon: how words are spoken: a file, a mapping of words to `"/ipa/"` or a respelling, or a `Lexicon`.
            ssml: the text is a document of SSML (docs/reading.md).
            speed: .25 to 4, 1 is the voice's own; the pitch stays. What the voice's stage cannot do (below .5 and above
                2 with the shipped voice) takes PyAV (`[speed]`). It multiplies the rate of a segment.
            timestamps: the last chunk of each sentence tells when its words are heard.
            complete: True or "on": a sentence that leaves out words is drawn again; each is heard when it is settled,
                so the first sound comes later. "stream": it is looked at on its way, what is well is heard at once, and
                decoding goes back to there where words are missing behind it (`decoding/completeness.py`). False or
                "off": the bare law. Left out: "stream" here and "on" in `synthesize`, where the voice says that it
                helps (`VoiceConfig.complete`; the shipped one does), else "off".
            best_of: so many takes of each sentence, decoded together, of which the judge's best is kept and heard. It
                is what its seed (`stats["best_of"]`) says alone, one sentence at a time.
            judge: "mos" (DistillMOS, the default where it is installed), "likelihood" (mean log-probability of the
                tokens), or an object with a `name` and a `score(samples, rate)`. Takes of less than a second are judged
                by their likelihood.
            beam: the likeliest tokens that a beam search of this width finds, in place of drawn ones: no sample of the
                voice's law, the same for every seed (the sound's noise is not), without drafts; a sentence is heard
                when it is settled. Temperature, top_k, top_p and complete do not go with it; guidance does.
            length_penalty: of that search, 0 to 10; higher favours longer sentences (`decoding/beam.py`).
            sampling: fields of `SamplingConfig` that differ from the voice's: temperature, top_k, top_p, guidance.

        Raises:
            TextError: there is nothing to say, or wrong SSML. ConfigError: a wrong option. NumericsError: NaN.
            MissingExtraError: a speed that needs PyAV, which is not installed.
        """
        if not isinstance(text, str):
            raise TextError(f"a text must be a string, not {type(text).__name__}")
        law, who = self.sampling.changed(**sampling), choose_speaker(self.bundle, speaker)
        wanted = check_best_of(best_of, judge, law.temperature)
        if not isinstance(batch, int) or isinstance(batch, bool) or not 1 <= batch <= MOST_TOGETHER:
            raise ConfigError(f"batch must be a whole number from 1 to {MOST_TOGETHER}, not {shown(batch)}")
        if not isinstance(meter, Meter | None):
            raise ConfigError(f"meter must be a Meter, not {type(meter).__name__}")
        check_seed(seed)
        check_cap(max_tokens)
        again = complete not in (None, False, "off") or best_of != 1
        if complete is None:
            complete = self._completeness("stream") if beam is None else "off"
        search = None if beam is None else self._beams(beam, length_penalty, again, sampling)
        segments = read(self.front_end, text, who, Reading.of(pause, lexicon, ssml))
        speed = check_speed(speed, self.stage)
        timeline = Timeline(self.target, self.front_end, self.sample_rate, speed) if timestamps else None
        meter = meter or Meter(self.sample_rate)
        whole = whole_by(self.front_end, self.target, complete)
        sound = self.sound_of(voice, who)
        asked = Asked(segments, sound, law, seed, max_tokens, batch, speed, whole, wanted, search)
        return say(asked, self if wanted is None else self._steady(), meter, timeline)

    def unheard(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of `stream` for speech that nobody hears before it is all there: `complete`, left out, means "on"."""
        given = options.get("complete") is not None or options.get("beam") is not None
        return {**options, **({} if given else {"complete": self._completeness("on")})}

    def _completeness(self, way: str) -> str:
        """What requests that say nothing of it get: `way`, or "off"."""
        if not self.bundle.config.complete:
            return "off"
        try:
            whole_by(self.front_end, self.target, way)
        except ConfigError:  # another front end or transformer than the voice's own
            return "off"
        return way

    def _steady(self) -> TTS:
        """With the draft length of one row for any number of them: takes that stand beside each other are then what
        each is alone.
        """
        if not self.spec.gammas:
            return self
        return replace(self, spec=replace(self.spec, gamma=self.spec.gamma_at(1), gammas={}))

    def _beams(self, width: int, length_penalty: float, again: bool, sampling: Mapping[str, Any]) -> Beams:
        if given := [name for name in sampling if name != "guidance"]:
            raise ConfigError(f"a beam search draws nothing: leave {', '.join(given)} out")
        if again:
            raise ConfigError("a beam search draws nothing, so nothing can be drawn again: leave complete, best_of out")
        return self.decoder.beams(width, length_penalty)

    def texts(self, sentences: Sequence[str], speaker: str | None = None) -> list[list[int]]:
        """Text ids of every segment of these sentences, in order.

        Raises:
            TextError: one of them holds nothing to say. ConfigError: no such speaker.
        """
        who = choose_speaker(self.bundle, speaker)
        return [list(segment.ids) for text in sentences for segment in self.front_end.segments(text, who)]

    def describe(self, *, batch: int = 1, seed: int = 0, **sampling: Any) -> dict[str, Any]:
        """The settings that every JSON result carries (CFG in the documentation).

        Drafter "none" has no verifier and gamma 0.
        """
        return replace(self.decoder, sampling=self.sampling.changed(**sampling)).describe(batch=batch, seed=seed)


def _stage_folder(bundle: Bundle, acoustic: str | os.PathLike[str]) -> Path:
    from spear_spec.voice.acoustic import find_stage  # most voices speak through their own

    return find_stage(bundle, acoustic)


def whole_by(front_end: FrontEnd, target: Target, complete: bool | str) -> WholeBy | None:
    """What a request wants of its words, where the front end and the target tell where these are; complete: as
    `TTS.stream` has it.

    Raises:
        ConfigError: one of them does not, or there is no such way.
    """
    if not isinstance(complete, bool | str) or complete not in COMPLETE:
        raise ConfigError(f"complete must be True, False, on, stream or off, not {shown(complete)}")
    first = COMPLETE[complete]
    if first is None:
        return None
    places = getattr(front_end, "places", None)
    if places is None:
        raise ConfigError("the front end of this voice does not tell where its words are: leave complete off")
    check_aligned(target)
    return lambda ids: Whole(places(ids), first=first)
