"""Text in, speech out: sentences -> text tokens -> memory -> semantic tokens (decoded speculatively) -> waveform."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spear_spec.acoustic.unit.vocoder import UnitVocoder
from spear_spec.audio import Audio, FloatArray
from spear_spec.config import SamplingConfig, SpecConfig
from spear_spec.decoding import DecodeStats, Drafter, Parts, Session, Verdict, Verifier, check, complete
from spear_spec.decoding.drafters import needs
from spear_spec.decoding.verifiers import needs_embedding
from spear_spec.errors import BundleError, ConfigError, DeviceError, TextError
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.text import PhonemeTokenizer, split_sentences
from spear_spec.voice.bundle import Bundle, choose_speaker, open_voice
from spear_spec.voice.drafts import Drafts
from spear_spec.voice.parts import load_parts

log = logging.getLogger("spear_spec")

PAUSE_S = 0.1  # between sentences, on top of the silence that each brings along
FIRST_CHUNK = 8  # tokens (.32 s) at a time to the vocoder until something is heard; then chunks double up to
LARGEST_CHUNK = 64
AUDIBLE = 0.005  # -46 dB of full scale: quieter samples count as silence
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
_WORST = ("eos", "cap", "guard")


@dataclass(frozen=True)
class AudioChunk:
    """A piece of a stream: samples float32 [T] at `sample_rate` Hz of the sentence with this index and text.

    ended: None but for the last chunk of a sentence: "eos", or "cap" or "guard" when it was cut off.
    """

    samples: FloatArray
    sample_rate: int
    sentence: int
    text: str
    ended: str | None = None


@dataclass
class Meter:
    """What one text cost: compute time only, so a slow listener does not count."""

    sample_rate: int
    decoding: DecodeStats = field(default_factory=DecodeStats)
    ended: str = "eos"
    samples: int = 0
    front_s: float = 0.0
    t2s_s: float = 0.0
    acoustic_s: float = 0.0
    ttfa_s: float | None = None

    @property
    def compute_s(self) -> float:
        return self.front_s + self.t2s_s + self.acoustic_s

    def hear(self, samples: FloatArray) -> None:
        """Count samples that are about to be handed out."""
        self.samples += len(samples)
        if self.ttfa_s is None and len(samples) and float(np.abs(samples).max()) > AUDIBLE:
            self.ttfa_s = self.compute_s

    def item(self, text: str) -> dict[str, Any]:
        """An entry of `items` in say/1; `file` is filled in by whoever writes one."""
        seconds, stats = self.samples / self.sample_rate, self.decoding
        return {
            "text": text,
            "file": None,
            "tokens": stats.tokens,
            "target_calls": stats.target_calls,
            "tokens_per_call": round(stats.tokens_per_call, 4),
            "drafted": stats.drafted,
            "accepted": stats.accepted,
            "acceptance_by_position": [round(share, 4) for share in stats.acceptance_by_position],
            "ended": self.ended,
            "audio_s": round(seconds, 4),
            "t2s_s": round(self.t2s_s, 4),
            "acoustic_s": round(self.acoustic_s, 4),
            "rtf": round(self.compute_s / seconds, 5) if seconds else None,
            "ttfa_s": None if self.ttfa_s is None else round(self.ttfa_s, 4),
        }


@dataclass
class TTS:
    """A loaded voice. Threads may not share one; `using` makes cheap copies with other settings."""

    bundle: Bundle
    tokenizer: PhonemeTokenizer
    t2s: TextToSemantic
    vocoder: UnitVocoder
    drafts: Mapping[str, Any]  # trained parts by the name of the drafter that needs them
    spec: SpecConfig
    sampling: SamplingConfig
    load_s: float = 0.0
    front_end: Callable[[str, str], Iterator[tuple[str, list[int]]]] | None = None  # in place of `sentences`
    embedding: Tensor | None = None  # of the semantic tokens, for the verifier that groups them
    own_drafter: Drafter | None = None  # objects of the user's, in place of what `spec` names
    own_verifier: Verifier | None = None

    @classmethod
    def load(
        cls,
        voice: str | os.PathLike[str] | Bundle | None = None,
        device: str | torch.device | None = None,
        drafter: str | Drafter | None = None,
        *,
        dtype: str = "float32",
        threads: int | None = None,
        **spec: Any,
    ) -> TTS:
        """Load a voice: by name, by folder, or the one that ships with the package.

        Args:
            device: "cpu", "cuda", "cuda:1"; None takes cuda where there is one.
            drafter: "none" is plain autoregressive decoding; None is what the voice ships with; or an object of one's
                own,
                like a verifier in `spec` (protocols `Drafter` and `Verifier` of `spear_spec.decoding`).
            dtype: of the text-to-semantic transformer and its draft; the vocoder is always float32.
            threads: CPU threads of torch (process-wide); None leaves them as they are.
            spec: other fields of `SpecConfig`: verifier, gamma, num_drafts, tree, options. What is left open follows
                from
                what is given: a verifier brings the draft it is made for, a tree or several drafts a verifier for them.

        Raises:
            BundleError: the voice is missing or damaged. ConfigError: an option cannot be used. DeviceError: no such
                device.
        """
        own = {
            name: value
            for name, value in {**spec, "drafter": drafter}.items()
            if name in ("drafter", "verifier") and not isinstance(value, str | None)
        }
        if own:
            rest = {name: value for name, value in {**spec, "drafter": drafter}.items() if name not in own}
            return cls.load(voice, device, dtype=dtype, threads=threads, **rest).using(**own)
        assert drafter is None or isinstance(drafter, str)
        began = time.perf_counter()
        where = find_device(device)
        if dtype not in DTYPES:
            raise ConfigError(f"unknown dtype {dtype!r}: {', '.join(DTYPES)}")
        if threads is not None:
            set_threads(threads)
        bundle = voice if isinstance(voice, Bundle) else open_voice(voice)
        try:
            settings = choose_spec(bundle, drafter, spec)
            t2s, vocoder, tokenizer = load_parts(bundle, where, DTYPES[dtype])
            drafts = Drafts(bundle, t2s.cfg, where, DTYPES[dtype])
            embedding = embedding_for(settings, bundle)
            check(settings, drafts, embedding)
        except ConfigError as error:
            if drafter is not None or spec:
                raise
            raise BundleError(f"{bundle.path / 'config.json'}: spec: {error}") from None  # nothing else was asked for
        return cls(
            bundle,
            tokenizer,
            t2s,
            vocoder,
            drafts,
            settings,
            bundle.sampling,
            time.perf_counter() - began,
            embedding=embedding,
        )

    @property
    def name(self) -> str:
        return self.bundle.config.name

    @property
    def speakers(self) -> tuple[str, ...]:
        """The first is the default."""
        return self.bundle.config.speakers

    @property
    def sample_rate(self) -> int:
        return self.vocoder.sample_rate

    def using(self, **spec: Any) -> TTS:
        """The same weights with other fields of `SpecConfig`: `tts.using(drafter="none")`; open ones are filled in as
        in `load`.

        drafter and verifier may also be objects of one's own (see `Drafter` and `Verifier`).
        """
        own: dict[str, Any] = {"own_drafter": self.own_drafter, "own_verifier": self.own_verifier}
        for name in ("drafter", "verifier"):
            if name in spec:
                own[f"own_{name}"] = None if isinstance(spec[name], str) else spec.pop(name)
        settings = complete(self.spec, spec)
        embedding = embedding_for(settings, self.bundle)
        changed = replace(self, **own, spec=settings, embedding=embedding)
        if any(own.values()):
            changed.parts().make()
        else:
            check(settings, self.drafts, embedding)
        return changed

    def parts(self) -> Parts:
        """What decoding is done with."""
        return Parts(self.spec, self.drafts, self.embedding, self.own_drafter, self.own_verifier)

    def synthesize(self, text: str, **options: Any) -> Audio:
        """Speak a text; options as in `stream`. `Audio.stats` is the text's entry of `items` in say/1."""
        meter = Meter(self.sample_rate)
        pieces = [chunk.samples for chunk in self.stream(text, meter=meter, **options)]
        return Audio(np.concatenate(pieces), self.sample_rate, meter.item(text))

    def stream(
        self,
        text: str,
        *,
        speaker: str | None = None,
        seed: int = 0,
        max_tokens: int | None = None,
        batch: int = 1,
        meter: Meter | None = None,
        **sampling: Any,
    ) -> Iterator[AudioChunk]:
        """Speak a text of any length, piece by piece, in bounded memory; the first piece comes after a few tokens.

        The samples are those of `synthesize` with the same arguments. Same seed, settings, device and threads: same
        audio.

        Args:
            max_tokens: cap on the semantic tokens of a sentence; by default it follows from the sentence's length.
            batch: sentences decoded together.
            sampling: fields of `SamplingConfig` that differ from the voice's: temperature, top_k, top_p, guidance.

        Raises:
            TextError: there is nothing to say. ConfigError: an option cannot be used. NumericsError: NaN.
        """
        speaker = choose_speaker(self.bundle, speaker)
        law = replace(self.sampling, **sampling)
        if batch < 1:
            raise ConfigError(f"batch must be at least 1, not {batch}")
        return self._stream(text, speaker, law, seed, max_tokens, batch, meter or Meter(self.sample_rate))

    def _stream(
        self, text: str, speaker: str, law: SamplingConfig, seed: int, max_tokens: int | None, batch: int, meter: Meter
    ) -> Iterator[AudioChunk]:
        chance, noise = (torch.Generator().manual_seed(seed) for _ in range(2))
        spoken = 0
        sentences = (self.front_end or self.sentences)(text, speaker)
        while True:
            with timed(meter, "front_s"):
                group = list(islice(sentences, batch))
            if not group:
                break
            with timed(meter, "t2s_s"):
                session, verdicts = self.decode([ids for _, ids in group], law, chance, max_tokens)
            for row, (sentence, _) in enumerate(group):
                for samples, ended in self._render(session, verdicts, row, speaker, noise, meter, pause=spoken > 0):
                    meter.hear(samples)
                    yield AudioChunk(samples, self.sample_rate, spoken, sentence, ended)
                spoken += 1
        if not spoken:
            raise TextError("there is nothing to say: the text holds no word")

    def sentences(self, text: str, speaker: str) -> Iterator[tuple[str, list[int]]]:
        """Each sentence with its text token ids, speaker first; lazily, so that a long text costs no more memory
        than a short one.
        """
        for sentence in split_sentences(text):
            yield sentence, self.tokenizer.encode(sentence, speaker)

    def phonemes(self, text: str) -> str:
        """The phoneme letters that a text is spoken from."""
        return " ".join(self.tokenizer.phonemes(sentence)[0] for sentence in split_sentences(text))

    def decode(
        self, ids: list[list[int]], sampling: SamplingConfig, generator: torch.Generator, max_tokens: int | None = None
    ) -> tuple[Session, Iterator[Verdict]]:
        """Start decoding texts (text token ids with the speaker first, without end token) as one batch.

        Each step of the iterator is one target call; the session holds the tokens. Everything that speaks goes
        through here: `say`, `bench`, `verify` and `eval` alike.
        """
        device = self.t2s.device
        rows = [torch.tensor([*text, self.t2s.text_eos_id]) for text in ids]
        mask = pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in rows], batch_first=True)
        with torch.inference_mode():
            memory = self.t2s.encode(pad_sequence(rows, batch_first=True).to(device), mask.to(device))
        session = Session(self.t2s, memory, sampling, generator=generator, max_tokens=max_tokens)
        return session, self.parts().decode(session)

    def _render(
        self,
        session: Session,
        verdicts: Iterator[Verdict],
        row: int,
        speaker: str,
        noise: torch.Generator,
        meter: Meter,
        *,
        pause: bool,
    ) -> Iterator[tuple[FloatArray, str | None]]:
        """Decode until the row has ended and hand its tokens to the vocoder as they come."""
        if pause:
            yield np.zeros(int(PAUSE_S * self.sample_rate), dtype=np.float32), None
        stream = self.vocoder.open_stream(self.speakers.index(speaker), generator=noise)
        fed, chunk = 0, FIRST_CHUNK
        wanted = chunk + self.vocoder.lookahead  # nothing comes out before
        while session.ended[row] is None:
            with timed(meter, "t2s_s"):
                while session.ended[row] is None and len(session.tokens[row]) - fed < wanted:
                    next(verdicts)
            if session.ended[row] is None:
                with timed(meter, "acoustic_s"):
                    samples = stream.push(torch.tensor(session.tokens[row][fed:])).numpy()
                fed, chunk = len(session.tokens[row]), chunk if meter.ttfa_s is None else min(2 * chunk, LARGEST_CHUNK)
                wanted = chunk
                if len(samples):
                    yield samples, None
        with timed(meter, "acoustic_s"):
            rest = torch.cat(
                [stream.push(torch.tensor(session.speech(row)[fed:], dtype=torch.long)), stream.finish()]
            ).numpy()
        ended = str(session.ended[row])
        meter.decoding += session.stats[row]
        meter.ended = max(meter.ended, ended, key=_WORST.index)
        if ended != "eos":
            log.warning(
                "a sentence was cut off after %d tokens (%s): try another seed or a higher max_tokens",
                len(session.tokens[row]),
                ended,
            )
        yield rest, ended

    def describe(self, *, batch: int = 1, seed: int = 0, **sampling: Any) -> dict[str, Any]:
        """The settings that every JSON result carries (CFG in the documentation).

        Drafter "none" has no verifier and gamma 0.
        """
        spec, parts = self.spec, self.parts()
        plain = parts.plain
        drafter, verifier = parts.make()
        return {
            "drafter": drafter.name,
            "verifier": None if plain else verifier.name,
            "lossless": plain or verifier.lossless,
            "gamma": 0 if plain else spec.gamma,
            "num_drafts": spec.num_drafts,
            "tree": spec.tree,
            "options": dict(spec.options),
            "batch": batch,
            "seed": seed,
            "device": str(self.t2s.device),
            "threads": torch.get_num_threads(),
            "dtype": str(self.t2s.dtype).removeprefix("torch."),
            "sampling": replace(self.sampling, **sampling).to_dict(),
        }


class timed:
    """Add the time spent inside to one field of a meter."""

    def __init__(self, meter: Meter, name: str) -> None:
        self.meter, self.name = meter, name

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        setattr(self.meter, self.name, getattr(self.meter, self.name) + time.perf_counter() - self.began)


def find_device(device: str | torch.device | None) -> torch.device:
    """Raises DeviceError when the device is unknown or not there."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise DeviceError(f"unknown device {device!r}: cpu, cuda or cuda:N") from None
    if found.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {device!r} is not supported: cpu, cuda or cuda:N")
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (found.index or 0) >= count:
            raise DeviceError(
                f"there is no device {device!r}: torch {torch.__version__} sees {count} CUDA devices; use --device cpu"
            )
    return found


def set_threads(threads: int) -> None:
    """CPU threads of torch, process-wide."""
    if not isinstance(threads, int) or threads < 1:
        raise ConfigError(f"threads must be a whole number above 0, not {threads!r}")
    torch.set_num_threads(threads)


def choose_spec(bundle: Bundle, drafter: str | None, given: dict[str, Any]) -> SpecConfig:
    """The voice's speculation settings with those that were asked for; without a draft decoder a default falls back
    to none.
    """
    default = bundle.spec
    if (
        drafter is None
        and (part := needs(default.drafter, default.options)) is not None
        and part not in bundle.config.drafts
    ):
        log.warning(
            "voice %r has nothing to draft with as %s does: decoding autoregressively",
            bundle.config.name,
            default.drafter,
        )
        drafter = "none"
    return complete(default, given if drafter is None else {**given, "drafter": drafter})


def embedding_for(spec: SpecConfig, bundle: Bundle) -> Tensor | None:
    """Vectors of the semantic tokens, where the verifier groups them by sound: the voice's k-means centroids."""
    return bundle.centroids() if needs_embedding(spec.verifier) else None
