"""The model card of a voice: README.md as the Hugging Face hub reads it, made from the voice's configuration."""

from __future__ import annotations

import html
import json
import re

from spear_spec.voice.config import VoiceConfig

# as the hub writes them; what is not among them is `other` with a name
_HUB_LICENCES = (
    *("apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-3.0", "cc-by-2.0", "cc-by-sa-4.0", "cc-by-sa-3.0"),
    *("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0", "bsd-2-clause", "bsd-3-clause"),
    *("gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "unlicense", "openrail"),
)
_LANGUAGES = {"misaki-en-us": "en"}  # by the kind of the front end
_TAGS = ("text-to-speech", "spear-tts", "speculative-decoding")


def model_card(config: VoiceConfig, repo: str | None = None) -> str:
    """README.md; repo: the hub's name for the voice, for the commands that it shows."""
    licence, kind = config.licence.strip(), config.kinds["text"]
    named = licence.lower() if licence.lower() in _HUB_LICENCES else None
    fields: list[tuple[str, object]] = [("library_name", "spear_spec"), ("license", named or "other")]
    if named is None:
        fields.append(("license_name", re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")[:80] or "unnamed"))
    fields += [("language", [_LANGUAGES[kind]])] if kind in _LANGUAGES else []
    fields += [("pipeline_tag", "text-to-speech"), ("tags", list(_TAGS))]
    head = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields)  # JSON is YAML
    sizes = [(part, sum(shard.bytes for shard in config.shards(part))) for part in config.files]
    rows = "\n".join(f"| {_plain(part)} | {size / 2**20:.1f} MiB |" for part, size in sizes)
    return f"""---
{head}
---

# {_plain(config.name)}

A voice for spear_spec: text to speech with exact speculative sampling.

| | |
|---|---|
| licence | {_plain(licence)} |
| origin | {_plain(config.origin)} |
| speakers | {", ".join(_plain(speaker) for speaker in config.speakers)} |
| sound | {config.sample_rate} Hz |
| semantic tokens | {config.semantic["k"]}, {config.clock.token_rate} a second |

    spear-spec voices pull {repo or "FOLDER"} --as NAME
    spear-spec say "Hello." --voice NAME

| part | size |
|---|---|
{rows}

Speech made with it is synthetic: say so when you publish it.
"""


def _plain(text: str) -> str:
    """Text of a stranger's, without meaning to Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]|#!~])", r"\\\1", html.escape(text, quote=False))
