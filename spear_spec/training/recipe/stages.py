"""The stages of a voice recipe, from corpora to a bundle. Each reads what the ones before left in the recipe's folder.

OUT/prepared, OUT/dev     utterances, tokens, speakers (see data.py)
   centroids.safetensors, ctc.safetensors
   t2s/, vocoder/, draft/, drafters/NAME/   checkpoint.pt, train.log, export/
   drafters.md
   sampling.json, voice/NAME, evaluation.json
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from spear_spec.acoustic.unit.vocoder import VocoderConfig
from spear_spec.audio import load_audio, write_atomically
from spear_spec.config import DraftConfig, SamplingConfig, T2SConfig
from spear_spec.errors import AudioError, ConfigError, MissingExtraError, SpearSpecError
from spear_spec.models.drafts.medusa import MedusaHeads
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.semantic import SemanticTokenizer, SpeechEncoder, agreement
from spear_spec.semantic.tokenizer import TOKEN_RATE, read_centroids
from spear_spec.text import PhonemeTokenizer
from spear_spec.training.checkpoint import save_export
from spear_spec.training.data import corpus as corpora
from spear_spec.training.data.align import add_frames
from spear_spec.training.data.ctc import PhonemeCTC, Spoken, train_ctc
from spear_spec.training.drafts import skip_search
from spear_spec.training.drafts.medusa_tree import give_tree
from spear_spec.training.drafts.observed import observe
from spear_spec.training.drafts.sample import sample_folder
from spear_spec.training.drafts.skip_search import Reading
from spear_spec.training.drafts.trainer import DraftTraining, draft_shapes, learnt, load_target, train_drafts
from spear_spec.training.recipe.pack import pack_voice
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.t2s.trainer import T2STraining, Utterance, read_utterances, train_t2s
from spear_spec.training.vocoder import data as vocoder_data
from spear_spec.training.vocoder.trainer import VocoderTraining, train_vocoder
from spear_spec.voice.bundle import Bundle, open_voice

HELD_OUT = 120  # utterances that trainers report on


@dataclass(frozen=True)
class Folder:
    """Where a recipe keeps what."""

    out: Path

    @property
    def prepared(self) -> Path:
        return self.out / "prepared"

    @property
    def dev(self) -> Path:
        return self.out / "dev"

    @property
    def centroids(self) -> Path:
        return self.out / "centroids.safetensors"

    @property
    def ctc(self) -> Path:
        return self.out / "ctc.safetensors"

    def front_end(self) -> PhonemeTokenizer:
        """The text front end with this recipe's speakers."""
        return PhonemeTokenizer(speakers=corpora.read_speakers(self.prepared))


def write_json(path: Path, values: Any) -> None:
    """Write an object so that it is either whole or not there."""
    write_atomically(path, (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode())


def prepare(plan: Plan) -> None:
    """Read the corpora, phonemize with the package's own front end, leave out what does not fit, hold some out."""
    cfg, at = plan.prepare, Folder(plan.out)
    front = PhonemeTokenizer()

    def read(folders: Sequence[str], keep: Sequence[str]) -> tuple[list[corpora.Clip], list[tuple[str, str]]]:
        clips = list(
            chain.from_iterable(corpora.read_corpus(folder, cfg.form, scratch=plan.out / "cuts") for folder in folders)
        )
        speakers = set(keep or corpora.speakers_of(clips)[: cfg.most_speakers])
        dropped = [(clip.id, f"speaker {clip.speaker}") for clip in clips if clip.speaker not in speakers]
        clips = [clip for clip in clips if clip.speaker in speakers][: cfg.limit]
        clips, silent = corpora.add_phonemes(clips, lambda text: front.phonemes(text)[0], progress=plan.progress)
        clips, odd = corpora.measure(clips, cfg.shortest, cfg.longest, progress=plan.progress)
        return clips, dropped + silent + odd

    clips, dropped = read(cfg.corpora, cfg.speakers)
    if not clips:
        raise ConfigError(
            f"no clip of {', '.join(cfg.corpora)} can be used; the first reason is: {dropped[0][1] if dropped else 'none'}"
        )
    speakers = list(cfg.speakers) or corpora.speakers_of(clips)
    if cfg.dev:
        held, missing = read(cfg.dev, speakers)
    else:
        held, missing = clips[:: cfg.held_out_every], []
        clips = [clip for i, clip in enumerate(clips) if i % cfg.held_out_every]
    if not clips or not held:
        raise ConfigError(
            f"{'nothing is left to train on' if not clips else 'no held-out clip of these speakers'}: "
            "name other dev folders, or lower prepare.held_out_every"
        )
    corpora.write_utterances(at.prepared, clips, speakers, dropped)
    corpora.write_utterances(at.dev, held, speakers, missing)
    hours = sum(clip.seconds for clip in clips) / 3600
    print(
        f"{len(clips)} clips, {hours:.2f} h, {len(speakers)} speakers; {len(dropped)} left out ({at.prepared / 'dropped.tsv'}); held out {len(held)}"
    )


def tokenize(plan: Plan) -> None:
    """Make semantic tokens from the audio; where tokens are given, compare."""
    cfg, at = plan.tokenize, Folder(plan.out)
    clips, held = corpora.read_utterances(at.prepared), corpora.read_utterances(at.dev)
    encoder = SpeechEncoder(cfg.encoder, cfg.layer, plan.device)
    source = Path(cfg.centroids) if cfg.centroids else at.centroids
    if source.exists():
        tokenizer = SemanticTokenizer(encoder, cfg.layer, read_centroids(source)[0])
    elif cfg.centroids:
        raise ConfigError(f"tokenize.centroids: no file {source}")
    else:
        features = _features(encoder, clips, cfg.fit_hours, plan)
        tokenizer = SemanticTokenizer.fit(encoder, features, cfg.clusters, seed=plan.seed)
    tokenizer.save(at.centroids)
    given = corpora.given_tensors(cfg.given)
    if given and cfg.check:
        known = [clip for clip in (*clips, *held) if clip.id in given]
        some = random.Random(plan.seed).sample(known, min(cfg.check, len(known)))
        made = corpora.tokenize(some, tokenizer.encode, at.out / "check.safetensors", progress=plan.progress)
        for folder, part in ((at.prepared, clips), (at.dev, held)):
            path = folder / "tokens.safetensors"
            if not path.exists():
                corpora.save_tokens(path, {clip.id: given[clip.id] for clip in part if clip.id in given})
    else:
        made = {}
    for folder, part in ((at.prepared, clips), (at.dev, held)):
        tokens = corpora.tokenize(part, tokenizer.encode, folder / "tokens.safetensors", progress=plan.progress)
        if not cfg.check:
            made |= tokens
    if given:
        report_agreement(made, given, at.out / "agreement.json")


def report_agreement(made: dict[str, Tensor], given: dict[str, Tensor], path: Path) -> float:
    """Share of tokens made from audio that equal the given ones, printed and written."""
    pairs = [agreement(made[key], given[key]) for key in made if key in given]
    equal, total = sum(a for a, _ in pairs), sum(b for _, b in pairs)
    share = equal / max(1, total)
    write_json(path, {"clips": len(pairs), "tokens": total, "equal": equal, "share": share})
    print(
        f"tokens made from audio agree with the given ones: {equal} of {total} ({100 * share:.3f} %), {len(pairs)} clips"
    )
    return share


def _features(encoder: SpeechEncoder, clips: Sequence[corpora.Clip], hours: float, plan: Plan) -> Tensor:
    """25 Hz features of randomly chosen clips, about `hours` of speech."""
    chosen = random.Random(plan.seed).sample(list(clips), len(clips))
    rows, seconds = [], 0.0
    probe = SemanticTokenizer(encoder, encoder.layer, torch.zeros(1, encoder.dim))
    bar = tqdm(
        total=round(min(hours * 3600, sum(c.seconds for c in clips))),
        desc="features",
        unit="s",
        disable=not plan.progress,
    )
    for clip in chosen:
        if seconds >= hours * 3600:
            break
        try:
            audio = load_audio(clip.audio)
            rows.append(probe.features(audio.samples, audio.sample_rate).cpu())
        except AudioError as error:
            tqdm.write(f"{clip.id}: {error}")
            continue
        seconds += audio.seconds
        bar.update(round(seconds) - bar.n)
    bar.close()
    return torch.cat(rows) if rows else torch.empty(0, encoder.dim)


def spoken(folder: Path) -> list[Spoken]:
    """What the CTC reads of a prepared folder."""
    tokens = corpora.load_tokens(folder / "tokens.safetensors")
    return [Spoken(tokens[c.id], c.phonemes or "", c.frames) for c in corpora.read_utterances(folder) if c.id in tokens]


def align(plan: Plan) -> None:
    """Train the token-to-phoneme CTC; give durations to clips that have none."""
    cfg, at = plan.align, Folder(plan.out)
    clusters, _ = read_centroids(at.centroids)
    if at.ctc.exists():
        model = PhonemeCTC.load(at.ctc)
    else:
        model = train_ctc(
            spoken(at.prepared),
            len(clusters),
            minutes=cfg.minutes,
            steps=cfg.steps,
            dim=cfg.dim,
            blocks=cfg.blocks,
            centroids=clusters,
            seed=plan.seed,
            progress=plan.progress,
        )
        model.save(at.ctc)
    print(f"phoneme error of the CTC on held-out true tokens: {100 * model.error_rate(spoken(at.dev)):.1f} %")
    for folder in (at.prepared, at.dev):
        clips = corpora.read_utterances(folder)
        missing = sum(clip.frames is None for clip in clips)
        if missing:
            tokens = corpora.load_tokens(folder / "tokens.safetensors")
            clips = add_frames(clips, tokens, model if cfg.method == "ctc" else None, progress=plan.progress)
            dropped = [
                tuple(line.split("\t", 1)) for line in (folder / "dropped.tsv").read_text(encoding="utf-8").splitlines()
            ]
            corpora.write_utterances(folder, clips, corpora.read_speakers(folder), dropped)  # type: ignore[arg-type]
            print(f"{folder}: durations by {cfg.method} for {missing} clips")


def learned(at: Folder) -> tuple[list[Utterance], list[Utterance]]:
    """Training and held-out utterances, as the T2S trainer reads them."""
    front = at.front_end()
    held = read_utterances(at.dev, front.encode_phonemes, len(front.vocab), set())
    return read_utterances(at.prepared, front.encode_phonemes, len(front.vocab), set()), held[
        :: max(1, len(held) // HELD_OUT)
    ]


def t2s(plan: Plan) -> None:
    """Train the text-to-semantic transformer."""
    cfg, at = plan.t2s, Folder(plan.out)
    front = at.front_end()
    data, held = learned(at)
    clusters = len(read_centroids(at.centroids)[0])
    shape = T2SConfig(
        len(front.vocab), clusters, cfg.dim, cfg.encoder_layers, cfg.decoder_layers, cfg.heads, cfg.dim_head
    )
    space = front.encode_phonemes(" ", corpora.read_speakers(at.prepared)[0])[1]
    train_t2s(
        data,
        held,
        shape,
        _settings(T2STraining, cfg.training, "t2s"),
        plan.out / "t2s",
        space=space,
        device=plan.device,
        every=cfg.every,
        progress_bar=plan.progress,
        start=_start(cfg.start, front),
    )


def _start(voice: str | None, front: PhonemeTokenizer | None = None) -> Bundle | None:
    """The voice to go on from; its text must be written as this recipe's is."""
    if voice is None:
        return None
    bundle = open_voice(voice)
    if front is not None and bundle.config.text != front.to_dict():
        raise ConfigError(
            f"voice {voice!r} has another alphabet or other speakers than this recipe: it cannot be gone on from"
        )
    return bundle


def _settings(kind: type[Any], values: dict[str, Any], section: str) -> Any:
    try:
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except TypeError as error:
        raise ConfigError(f"{section}.training: {error}") from None


def vocoder(plan: Plan) -> None:
    """Decode and analyse the audio once, then train the vocoder."""
    cfg, at = plan.vocoder, Folder(plan.out)
    speakers = corpora.read_speakers(at.prepared)
    clips = plan.out / "vocoder" / "clips"
    source = [(at.prepared, at.prepared / "tokens.safetensors")]
    missing = [part for part in range(cfg.workers) if not (clips / f"frames.{part}.npz").exists()]
    more: dict[str, Any] = {}
    if cfg.pitch and missing:
        curves = plan.out / "vocoder" / "pitch.safetensors"
        curves.parent.mkdir(parents=True, exist_ok=True)
        save_file(corpora.given_tensors(cfg.pitch), curves)
        more["pitch"] = [curves]
    if cfg.workers == 1 and missing:
        vocoder_data.prepare(source, clips, speakers, **more)
    elif missing:
        with ProcessPoolExecutor(cfg.workers, get_context("spawn")) as pool:
            list(pool.map(partial(vocoder_data.prepare, source, clips, speakers, parts=cfg.workers, **more), missing))
    shape = {"num_semantic_token_ids": len(read_centroids(at.centroids)[0]), "num_speakers": len(speakers), **cfg.shape}
    train_vocoder(
        clips,
        plan.out / "vocoder",
        VocoderTraining.from_dict(cfg.training),
        VocoderConfig.from_dict(shape),
        device=plan.device,
        start=_start(cfg.start),
    )


def _pack(
    plan: Plan, out: Path, sampling: SamplingConfig, draft: Path | None, drafters: Mapping[str, Path] | None = None
) -> Path:
    at = Folder(plan.out)
    pack_voice(
        out,
        t2s=plan.out / "t2s" / "export",
        vocoder=plan.out / "vocoder" / "export_latest",
        centroids=at.centroids,
        draft=draft,
        drafters=drafters or {},
        name=plan.pack.name,
        speakers=corpora.read_speakers(at.prepared),
        licence=plan.pack.licence,
        origin=plan.pack.origin,
        text=at.front_end().to_dict(),
        semantic={"encoder": plan.tokenize.encoder, "layer": plan.tokenize.layer, "rate": TOKEN_RATE},
        sampling=sampling,
        gamma=plan.pack.gamma,
        reference=Path(plan.pack.reference) if plan.pack.reference else None,
    )
    return out


def _dev_texts(plan: Plan, limit: int) -> list[str]:
    texts = list(dict.fromkeys(clip.text for clip in corpora.read_utterances(Folder(plan.out).dev)))
    return texts[:: max(1, len(texts) // limit)][:limit]


def sampling(plan: Plan) -> None:
    """Choose temperature and top-p by what listeners make of the held-out texts, before the draft is trained.

    The lowest word error wins; candidates whose interval reaches below the winner's value count as equal, and among
    those the highest predicted MOS wins. Without these judges: the phoneme error of the sampled tokens by the CTC.
    """
    from spear_spec.evaluation.evaluate import evaluate as judge
    from spear_spec.pipeline import TTS

    cfg = plan.sampling
    texts = _dev_texts(plan, cfg.sentences)
    rows = []
    for number, (temperature, top_p) in enumerate(cfg.candidates):
        law = SamplingConfig(temperature=temperature, top_p=top_p)
        row: dict[str, Any] = {
            "temperature": temperature,
            "top_p": top_p,
            "ctc_phoneme_error": ctc_error(plan, law, f"sampling/{number}"),
        }
        if cfg.judges:
            voice = TTS.load(_pack(plan, plan.out / "sampling" / "voice", law, None))
            found = judge(voice, texts, judges=cfg.judges, seed=plan.seed, max_tokens=cfg.max_tokens).to_dict()
            row |= found["arms"]["autoregressive"]["metrics"]
        rows.append(row)
        print(json.dumps(row))
    chosen = choose(rows)
    write_json(
        plan.out / "sampling.json",
        {"chosen": {"temperature": chosen["temperature"], "top_p": chosen["top_p"]}, "candidates": rows},
    )
    print(f"sampling: temperature {chosen['temperature']}, top-p {chosen['top_p']}")


def choose(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The best of judged candidates (see `sampling`)."""
    if "wer" not in rows[0]:
        return min(rows, key=lambda row: row["ctc_phoneme_error"])
    best = min(row["wer"]["value"] for row in rows)
    equal = [row for row in rows if row["wer"]["lo"] <= best]
    return max(equal, key=lambda row: row["mos"]["value"] if "mos" in row else -row["wer"]["value"])


def ctc_error(plan: Plan, law: SamplingConfig, name: str, limit: int = 60) -> float:
    """Phoneme error of tokens that the target samples for held-out phonemes, heard by the CTC."""
    at = Folder(plan.out)
    model = load_target(plan.out / "t2s" / "export")
    clips = corpora.read_utterances(at.dev)
    items = [asdict(clip) for clip in clips[:: max(1, len(clips) // limit)][:limit]]
    folder = plan.out / name
    shutil.rmtree(folder, ignore_errors=True)
    sample_folder(model, items, folder, [law], at.front_end().encode_phonemes, seed=plan.seed, progress=plan.progress)
    return PhonemeCTC.load(at.ctc).error_rate(spoken_samples(folder))


def spoken_samples(folder: Path) -> list[Spoken]:
    """Tokens and phonemes of a folder that `sample_folder` wrote."""
    tokens = corpora.load_tokens(folder / "tokens.safetensors")
    items = {
        item["id"]: item
        for item in map(json.loads, (folder / "utterances.jsonl").read_text(encoding="utf-8").splitlines())
    }
    return [Spoken(tokens[key], item["phonemes"]) for key, item in items.items() if key in tokens]


def chosen_sampling(plan: Plan) -> SamplingConfig:
    """What the sampling stage chose.

    Raises:
        ConfigError: it has not run.
    """
    try:
        values = json.loads((plan.out / "sampling.json").read_text())["chosen"]
        return SamplingConfig(**values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{plan.out / 'sampling.json'} is not there or damaged ({error}); run the sampling stage"
        ) from None


def forget_other_target(samples: Path, description: Path) -> None:
    """Remove samples that another target (or an earlier state of this one) spoke; what this one spoke is gone on
    with.
    """
    about, marker = description.read_text(encoding="utf-8"), samples / "target.json"
    if samples.exists() and not (marker.exists() and marker.read_text(encoding="utf-8") == about):
        shutil.rmtree(samples)
    samples.mkdir(parents=True, exist_ok=True)
    marker.write_text(about, encoding="utf-8")


def laws_of_drafts(chosen: SamplingConfig) -> list[SamplingConfig]:
    """What the target speaks by for its drafts, and what they are reported on: the voice's own sampling, and a freer
    one.
    """
    return list(dict.fromkeys([chosen, SamplingConfig(temperature=1.0, top_p=0.95)]))


def draft(plan: Plan) -> None:
    """Let the finished target speak, then train the draft on that."""
    cfg, at, law = plan.draft, Folder(plan.out), chosen_sampling(plan)
    model = load_target(plan.out / "t2s" / "export")
    laws = laws_of_drafts(law)
    front = at.front_end()
    clips = random.Random(plan.seed).sample(
        corpora.read_utterances(at.prepared), len(corpora.read_utterances(at.prepared))
    )
    samples, held_out = plan.out / "draft" / "samples", plan.out / "draft" / "held_out"
    for folder in (samples, held_out):
        forget_other_target(folder, plan.out / "t2s" / "export" / "t2s.json")
    sample_folder(
        model,
        [asdict(clip) for clip in clips[: cfg.samples]],
        samples,
        laws,
        front.encode_phonemes,
        batch=cfg.batch,
        minutes=cfg.minutes,
        seed=plan.seed,
        progress=plan.progress,
    )
    held_items = [asdict(clip) for clip in corpora.read_utterances(at.dev)[:HELD_OUT]]
    sample_folder(
        model,
        held_items,
        held_out,
        laws,
        front.encode_phonemes,
        batch=cfg.batch,
        seed=plan.seed,
        progress=plan.progress,
    )
    shape = DraftConfig(
        model.cfg.dim, cfg.depth, model.cfg.heads, model.cfg.dim_head, cfg.ff_mult, target_layers=cfg.layers
    ).to_dict()
    seen, held = (
        observe(model, read_utterances(folder, front.encode_phonemes, len(front.vocab), set()), cfg.layers)
        for folder in (samples, held_out)
    )
    train_drafts(
        model,
        seen,
        held,
        {"draft": shape},
        _settings(DraftTraining, cfg.training, "draft"),
        {"draft": plan.out / "draft"},
        laws=laws,
        every=cfg.every,
        progress_bar=plan.progress,
        start=_start(cfg.start),
    )


def drafters(plan: Plan) -> None:
    """Train every other way to draft on the samples of the stage before; leaves OUT/drafters.md, a table of what
    each learnt.
    """
    cfg, law = plan.drafters, chosen_sampling(plan)
    names = [name for name in cfg.names if name != "layer_skip"]
    model, front = load_target(plan.out / "t2s" / "export"), Folder(plan.out).front_end()
    known = draft_shapes(model.cfg, ff_mult=cfg.ff_mult, exit_layer=cfg.exit_layer)
    shapes = {name: known[name] for name in names}
    settings = {name: _settings(DraftTraining, {**cfg.training, **cfg.own.get(name, {})}, "drafters") for name in names}
    layers = tuple(sorted({layer for shape in shapes.values() for layer in shape.get("target_layers", ())}))
    folders = (plan.out / "draft" / "samples", plan.out / "draft" / "held_out")
    if not all((folder / "tokens.safetensors").exists() for folder in folders):
        raise ConfigError(f"{folders[0]} holds no samples of the target; run the draft stage first")
    seen, held = (
        observe(model, read_utterances(folder, front.encode_phonemes, len(front.vocab), set()), layers)
        for folder in folders
    )
    out = plan.out / "drafters"
    trained = train_drafts(
        model,
        seen,
        held,
        shapes,
        settings,
        out,
        laws=laws_of_drafts(law),
        every=cfg.every,
        progress_bar=plan.progress,
        start=_start(cfg.start),
    )
    if "medusa" in trained:
        give_tree(out / "medusa" / "export", cast(MedusaHeads, trained["medusa"]), model, seen, cfg.tree_nodes)
    if "layer_skip" in cfg.names:
        search_switches(
            plan,
            model,
            read_utterances(folders[1], front.encode_phonemes, len(front.vocab), set()),
            out / "layer_skip",
            law,
        )
    (plan.out / "drafters.md").write_text(learnt(out, names), encoding="utf-8")


def search_switches(
    plan: Plan, model: TextToSemantic, held_out: list[Utterance], out: Path, law: SamplingConfig
) -> None:
    """Which sublayers layer_skip leaves out; a search that was stopped goes on from its readings."""
    path = out / "readings.json"
    known = [Reading.from_dict(values) for values in json.loads(path.read_text())] if path.exists() else []
    texts = [u.text for u in held_out[:: max(1, len(held_out) // 8)]][:8]
    out.mkdir(parents=True, exist_ok=True)
    config, readings = skip_search.search(
        model,
        texts,
        law,
        trials=plan.drafters.skip_trials,
        minutes=plan.drafters.skip_minutes,
        seed=plan.seed,
        progress=plan.progress,
        known=known,
        record=lambda history: write_json(path, [reading.to_dict() for reading in history]),
    )
    save_export(out / "export", "layer_skip", {"layer_skip": config.to_dict(), "readings": len(readings)}, {})


def pack(plan: Plan) -> None:
    """Write the voice bundle."""
    folder = _pack(
        plan,
        plan.out / "voice" / plan.pack.name,
        chosen_sampling(plan),
        plan.out / "draft" / "export",
        trained_drafters(plan),
    )
    if not plan.pack.reference:
        add_reference(plan, folder)
    print(f'the voice is in {folder}: spear-spec say --voice {folder} "Hello."')


def trained_drafters(plan: Plan) -> dict[str, Path]:
    """The exports of the drafters stage, as far as it has run."""
    folders = {name: plan.out / "drafters" / name / "export" for name in plan.drafters.names}
    return {name: folder for name, folder in folders.items() if (folder / f"{name}.json").exists()}


def add_reference(plan: Plan, voice: Path, clips_each: int = 40, shortest: float = 3.0) -> None:
    """The speakers' mean embeddings over training clips, for `eval`; short clips give unsteady ones and are passed
    over.
    """
    from spear_spec.evaluation.reference import save_reference
    from spear_spec.evaluation.speaker import SpeakerJudge

    judge, found = SpeakerJudge(), {}
    try:
        version = judge.version
    except MissingExtraError as error:
        print(f"no speaker reference in the voice: {error}")
        return
    clips = [clip for clip in corpora.read_utterances(Folder(plan.out).prepared) if clip.seconds >= shortest]
    for speaker in corpora.read_speakers(Folder(plan.out).prepared):
        own = [clip for clip in clips if clip.speaker == speaker]
        if some := own[:: max(1, len(own) // clips_each)][:clips_each]:
            found[speaker] = judge.embed_voice([load_audio(clip.audio, 24_000).samples for clip in some])
    if found:
        save_reference(voice, found, f"{judge.name} {version}")


def evaluate(plan: Plan) -> None:
    """Judge the bundle on the held-out texts, speculation on and off."""
    from spear_spec.evaluation.evaluate import evaluate as judge
    from spear_spec.pipeline import TTS

    cfg = plan.evaluate
    voice = TTS.load(plan.out / "voice" / plan.pack.name)
    if cfg.text:
        try:
            texts = [line.strip() for line in Path(cfg.text).read_text(encoding="utf-8").splitlines() if line.strip()][
                : cfg.sentences
            ]
        except OSError as error:
            raise SpearSpecError(f"cannot read {cfg.text}: {error.strerror or error}") from None
    else:
        texts = _dev_texts(plan, cfg.sentences)
    with tqdm(total=0, unit="utterance", disable=not plan.progress) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = judge(voice, texts, judges=cfg.judges, seed=plan.seed, max_tokens=cfg.max_tokens, progress=progress)
    per = ctc_error(plan, chosen_sampling(plan), "evaluation")
    write_json(plan.out / "evaluation.json", {**found.to_dict(), "ctc_phoneme_error": per})
    print(found.table())
    print(f"phoneme error of freely sampled tokens by the CTC: {100 * per:.1f} %")
