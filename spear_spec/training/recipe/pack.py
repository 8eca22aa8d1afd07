"""Exports of the trained parts into one voice bundle."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spear_spec.config import DraftConfig, SamplingConfig, SpecConfig, T2SConfig
from spear_spec.semantic.supervised import SupervisedEncoder
from spear_spec.semantic.tokenizer import read_centroids
from spear_spec.training.checkpoint import export_files, load_export
from spear_spec.voice.bundle import Bundle
from spear_spec.voice.drafts import Drafts
from spear_spec.voice.parts import load_stage, load_target
from spear_spec.voice.save import save_voice


def pack_voice(
    out: Path,
    *,
    t2s: Path,
    vocoder: Path,
    centroids: Path,
    draft: Path | None,
    drafters: Mapping[str, Path] | None = None,
    name: str,
    speakers: Sequence[str],
    licence: str,
    origin: str,
    text: Mapping[str, Any],
    semantic: Mapping[str, Any],
    sampling: SamplingConfig,
    gamma: int = 5,
    reference: Path | None = None,
    supervised: Path | None = None,
    complete: bool = False,
    rounded: bool = False,
) -> Bundle:
    """Write the bundle (half precision, shards of at most 15 MiB) and load it once, strictly.

    Args:
        t2s, vocoder, draft: export folders (the vocoder's may hold a prompt encoder); without a draft the voice decodes
            autoregressively. drafters: of further drafts, by the drafter's name.
        text: the front end's `to_dict`; semantic: encoder, layer (or layers) and rate.
        reference: speaker_reference.json, what `eval` measures speaker similarity against.
        supervised: weights of the tokenizer's supervised encoder (semantic/supervised.py), where it has one.
        complete: whether sentences that leave out words are drawn again by default (docs/completeness.md).
        rounded: see `VoiceConfig`.

    Raises:
        SpearSpecError: an export is missing or damaged, or the parts do not fit each other.
    """
    t2s_about, t2s_weights = load_export(t2s, "t2s")
    vocoder_about, vocoder_weights = load_export(vocoder, "vocoder")
    clusters, _ = read_centroids(centroids)
    configs = {
        "t2s": T2SConfig.from_dict(t2s_about["t2s"]).to_dict(),
        "vocoder": vocoder_about.get("vocoder", vocoder_about),
    }
    weights = {"t2s": t2s_weights, "vocoder": vocoder_weights, "centroids": {"centroids": clusters}}
    if export_files(vocoder, "prompt")[0].exists():
        prompt_about, weights["prompt"] = load_export(vocoder, "prompt")
        configs["prompt"] = prompt_about["prompt"]
    if supervised is not None:
        weights["supervised"] = SupervisedEncoder.load(supervised).state_dict()
    spec = SpecConfig(drafter="none")
    if draft is not None:
        draft_about, weights["draft"] = load_export(draft, "draft")
        configs["draft"] = DraftConfig.from_dict(draft_about["draft"]).to_dict()
        fed = bool(configs["draft"]["target_layers"])
        spec = SpecConfig(
            drafter="eagle" if fed else "small", verifier="block", gamma=gamma
        )  # keeps more than `rejection`, as exactly
    for drafter, folder in (drafters or {}).items():
        about, tensors = load_export(folder, drafter)
        configs[drafter] = about[drafter]
        if tensors:
            weights[drafter] = tensors
    bundle = save_voice(
        out,
        name=name,
        licence=licence,
        origin=origin,
        sample_rate=int(configs["vocoder"]["sample_rate"]),
        speakers=list(speakers),
        text=dict(text),
        semantic={**semantic, "k": len(clusters)},
        sampling=sampling,
        spec=spec,
        configs=configs,
        weights=weights,
        complete=complete,
        rounded=rounded,
    )
    load_stage(bundle)
    drafts = Drafts(bundle, load_target(bundle))
    for drafter in drafts:
        drafts[drafter]
    if reference is not None:
        shutil.copyfile(reference, out / "speaker_reference.json")
    return bundle
