"""Stage 1: audio to semantic tokens."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from spear_spec.audio import load_audio
from spear_spec.errors import AudioError, ConfigError
from spear_spec.semantic import (
    SemanticTokenizer,
    SpeechEncoder,
    SupervisedEncoder,
    SupervisedTokenizer,
    agreement,
    fit_kmeans,
)
from spear_spec.semantic.tokenizer import TOKEN_RATE, read_centroids
from spear_spec.training.data.corpus import Clip
from spear_spec.training.data.prepared import given_rows, save_rows
from spear_spec.training.recipe.keys import write_json
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.recipe.stage import Stage, sources

Tokenizer = SemanticTokenizer | SupervisedTokenizer


def run(plan: Plan) -> None:
    """Make semantic tokens from the audio; where tokens are given, compare."""
    cfg, at = plan.tokenize, Layout(plan.out)
    if plan.clock.token_rate != TOKEN_RATE:
        raise ConfigError(f"clock.token_rate: the tokenizer makes {TOKEN_RATE:g} tokens a second")
    for key, file in (("centroids", cfg.centroids), ("supervised", cfg.supervised)):
        if file and not Path(file).exists():
            raise ConfigError(f"tokenize.{key}: no file {file}")
    STAGE.claim(plan, [at.centroids, at.prepared.tokens, at.dev.tokens, at.check.folder])
    parts = [(folder, folder.clips()) for folder in (at.prepared, at.dev)]
    make, width = tokenizers(plan)
    source = Path(cfg.centroids) if cfg.centroids else at.centroids
    if source.exists():
        tokenizer = make(read_centroids(source)[0])
    else:
        features = features_of(make(torch.zeros(1, width)), parts[0][1], cfg.fit_hours, plan)
        tokenizer = make(fit_kmeans(features, cfg.clusters, seed=plan.seed))
    tokenizer.save(at.centroids)
    given = given_rows(cfg.given)
    made: dict[str, Tensor] = {}
    if given and cfg.check:
        known = [clip for _, clips in parts for clip in clips if clip.id in given]
        some = random.Random(plan.seed).sample(known, min(cfg.check, len(known)))
        made = at.check.tokenize(some, tokenizer.encode, progress=plan.progress)
        for folder, clips in parts:
            if not folder.tokens.exists():
                save_rows(folder.tokens, {clip.id: given[clip.id] for clip in clips if clip.id in given})
    for folder, clips in parts:
        tokens = folder.tokenize(clips, tokenizer.encode, progress=plan.progress)
        if not cfg.check:
            made |= tokens
    if given:
        report_agreement(made, given, at.agreement)


def tokenizers(plan: Plan) -> tuple[Callable[[Tensor], Tokenizer], int]:
    """What makes the settings' tokenizer with centroids [K, D], and D, the width of the features that are divided.

    Raises:
        SpearSpecError: an encoder cannot be loaded, or the supervised one does not fit the hidden states.
    """
    cfg = plan.tokenize
    if cfg.supervised is None:
        speech = SpeechEncoder(cfg.encoder, cfg.layer, plan.device)
        return lambda centroids: SemanticTokenizer(speech, cfg.layer, centroids), speech.dim
    speech = SpeechEncoder(cfg.encoder, cfg.layers, plan.device)
    supervised = SupervisedEncoder.load(cfg.supervised)
    return lambda centroids: SupervisedTokenizer(speech, supervised, centroids), supervised.cfg.dim


def report_agreement(made: dict[str, Tensor], given: dict[str, Tensor], path: Path) -> float:
    """Share of tokens made from audio that equal the given ones, printed and written."""
    pairs = [agreement(made[key], given[key]) for key in made if key in given]
    equal, total = sum(a for a, _ in pairs), sum(b for _, b in pairs)
    share = equal / max(1, total)
    write_json(path, {"clips": len(pairs), "tokens": total, "equal": equal, "share": share})
    print(
        f"tokens made from audio agree with the given ones: {equal} of {total} ({100 * share:.3f} %), "
        f"{len(pairs)} clips"
    )
    return share


def features_of(probe: Tokenizer, clips: Sequence[Clip], hours: float, plan: Plan) -> Tensor:
    """What the tokenizer divides, [N, D] at the tokens' rate, of randomly chosen clips: about `hours` of speech."""
    chosen = random.Random(plan.seed).sample(list(clips), len(clips))
    rows, seconds = [], 0.0
    total = round(min(hours * 3600, sum(c.seconds for c in clips)))
    with tqdm(total=total, desc="features", unit="s", disable=not plan.progress) as bar:
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
    return torch.cat(rows) if rows else torch.empty(0, probe.centroids.shape[1])


def reads(plan: Plan, at: Layout) -> list[Path]:
    """Clips, their audio, and what is given: centroids, tokens, encoders."""
    cfg = plan.tokenize
    named = [cfg.centroids, cfg.supervised, *(file for _, file in cfg.given)]
    encoder = [Path(cfg.encoder)] if Path(cfg.encoder).is_dir() else []
    clips = [at.prepared.utterances, at.dev.utterances]
    return [*clips, *sources(plan), *(Path(name) for name in named if name), *encoder]


STAGE = Stage(
    "tokenize",
    run,
    reads=reads,
    writes=lambda plan, at: [
        at.centroids, at.prepared.tokens, at.dev.tokens, *([at.agreement] if plan.tokenize.given else [])
    ],
)  # fmt: skip
