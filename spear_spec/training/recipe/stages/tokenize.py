"""Stage 1: audio to semantic tokens."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from spear_spec.errors import ConfigError, SpearSpecError
from spear_spec.semantic import agreement, fit_kmeans
from spear_spec.semantic.tokenizer import TOKEN_RATE, read_centroids
from spear_spec.training.data.corpus import Clip
from spear_spec.training.data.prepared import Prepared, given_rows, load_rows, save_rows
from spear_spec.training.data.spread import forget
from spear_spec.training.data.tokens import Listener, find_features, find_tokens
from spear_spec.training.recipe.keys import write_json
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.recipe.stage import Stage, sources
from spear_spec.training.recipe.stages.common import hands, parts
from spear_spec.voice.bundle import open_voice


def run(plan: Plan) -> None:
    """Make semantic tokens from the audio; where tokens are given, compare."""
    cfg, at = plan.tokenize, Layout(plan.out)
    if plan.clock.token_rate != TOKEN_RATE:
        raise ConfigError(f"clock.token_rate: the tokenizer makes {TOKEN_RATE:g} tokens a second")
    given_centroids(plan)
    given_supervised(plan)
    folders = parts(plan)
    STAGE.claim(plan, [at.centroids, *(each.tokens for each in folders), at.check.folder, at.shards("tokenize")])
    quantise(plan)
    given = given_rows(cfg.given)
    made: dict[str, Tensor] = {}
    if given and cfg.check:
        known = [clip for folder in folders for clip in folder.clips() if clip.id in given]
        made = tokens_of(plan, at.check, random.Random(plan.seed).sample(known, min(cfg.check, len(known))))
        for folder in folders:
            if not folder.tokens.exists():
                save_rows(folder.tokens, {clip.id: given[clip.id] for clip in folder.clips() if clip.id in given})
    for folder in folders:
        tokens = tokens_of(plan, folder, folder.clips())
        if not cfg.check:
            made |= tokens
    if given:
        report_agreement(made, given, at.agreement)


def given_centroids(plan: Plan) -> Path | None:
    """The file of the centroids that are named, or of the voice's whose name it is; None: they are to be fitted.

    Raises:
        ConfigError: there is neither such a file nor such a voice.
    """
    return _given("centroids", plan.tokenize.centroids)


def given_supervised(plan: Plan) -> Path | None:
    """The file of the supervised encoder's weights that are named, or of the voice's whose name it is; None: there is
    none.

    Raises:
        ConfigError: there is neither such a file nor such a voice.
    """
    return _given("supervised", plan.tokenize.supervised)


def _given(part: str, named: str | None) -> Path | None:
    if named is None or Path(named).is_file():
        return None if named is None else Path(named)
    try:
        bundle = open_voice(named)
        return bundle.path / bundle.config.shards(part)[0].file
    except (SpearSpecError, LookupError):
        raise ConfigError(f"tokenize.{part}: no file {named}, and no voice of this name that has any") from None


def listener(plan: Plan) -> Listener:
    """What hears the clips."""
    cfg = plan.tokenize
    return Listener(cfg.encoder, cfg.layer, tuple(cfg.layers), given_supervised(plan), plan.device)


def quantise(plan: Plan) -> None:
    """The centroids: the ones that are given, or fitted to a sample of the speech."""
    cfg, at, heard = plan.tokenize, Layout(plan.out), listener(plan)
    if (file := given_centroids(plan)) is not None:
        heard.tokenizer(read_centroids(file)[0]).save(at.centroids)
    elif not at.centroids.exists():
        place = at.shards("tokenize") / "features"
        clips = at.prepared.clips()
        features = find_features(heard, clips, cfg.fit_hours, plan.seed, place, hands(plan, device=True))
        heard.tokenizer(fit_kmeans(features, cfg.clusters, seed=plan.seed)).save(at.centroids)
        forget(place)


def tokens_of(plan: Plan, folder: Prepared, clips: Sequence[Clip]) -> dict[str, Tensor]:
    """Tokens of these clips, all in the folder's file in the end; what is in it already is not made again."""
    at = Layout(plan.out)
    tokens = load_rows(folder.tokens) if folder.tokens.exists() else {}
    wanted = [clip for clip in clips if clip.id not in tokens]
    place = at.shards("tokenize") / folder.folder.name
    made, failed = find_tokens(listener(plan), at.centroids, wanted, place, hands(plan, device=True))
    for name, reason in failed.items():
        print(f"{name} has no tokens: {reason}")
    tokens |= made
    save_rows(folder.tokens, tokens)
    return tokens


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


def reads(plan: Plan, at: Layout) -> list[Path]:
    """Clips, their audio, and what is given: centroids, tokens, encoders."""
    cfg = plan.tokenize
    named: list[str | Path | None] = [given_supervised(plan), *(file for _, file in cfg.given)]
    with suppress(ConfigError):  # what is missing is told when the stage runs
        named.append(given_centroids(plan))
    encoder = [Path(cfg.encoder)] if Path(cfg.encoder).is_dir() else []
    clips = [folder.utterances for folder in parts(plan)]
    return [*clips, *sources(plan), *(Path(name) for name in named if name), *encoder]


STAGE = Stage(
    "tokenize",
    run,
    reads=reads,
    writes=lambda plan, at: [
        at.centroids, *(folder.tokens for folder in parts(plan)), *([at.agreement] if plan.tokenize.given else [])
    ],
)  # fmt: skip
