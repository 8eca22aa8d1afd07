"""Which code makes a part of a voice: `config.json` names a kind, and one registry for each part builds it.

A builder takes the part's object of `config.json` (without `kind`) and makes the part, untrained. It is called in a
`Blueprint`, where nothing is allocated and nothing is drawn; the bundle's tensors are assigned afterwards. So a tensor
that is not in the module's state dict must be made when it is first used. A builder of stages returns an
`AcousticStage`, whose `module` gets the tensors; one of targets a module that is a `Target`. Builders raise ConfigError
where the object is not one of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from spear_spec.registry import Registry

if TYPE_CHECKING:  # no torch before a voice's configuration has been checked
    from torch import nn

    from spear_spec.acoustic.contract import AcousticStage
    from spear_spec.models.contract import Geometry
    from spear_spec.text import FrontEnd
    from spear_spec.voice.config import VoiceConfig

Shape = Mapping[str, Any]

TARGETS: Registry[Callable[[Shape, VoiceConfig], nn.Module]] = Registry(
    "target",
    "spear_spec.targets",
    {"spear-tts": "spear_spec.voice.kinds:spear_tts", "whisperspeech": "spear_spec.voice.kinds:whisperspeech"},
)
STAGES: Registry[Callable[[Shape, VoiceConfig], AcousticStage]] = Registry(
    "stage",
    "spear_spec.stages",
    {"unit-vocoder": "spear_spec.voice.kinds:unit_vocoder", "audiolm": "spear_spec.voice.audiolm:audiolm"},
)
FRONT_ENDS: Registry[Callable[[Shape], FrontEnd]] = Registry(
    "front end",
    "spear_spec.front_ends",
    {
        "misaki-en-us": "spear_spec.voice.kinds:misaki_en_us",
        "whisperspeech-bytes": "spear_spec.voice.kinds:whisperspeech_bytes",
    },
)
# What a drafter draws with: a module that has weights, or another object that has none. The drafter's record names it
# (`decoding.kinds.Trained.builder`).
DRAFTS: Registry[Callable[[Shape, Geometry], Any]] = Registry(
    "draft",
    "spear_spec.drafts",
    {
        "decoder": "spear_spec.voice.kinds:draft_decoder",
        "block": "spear_spec.voice.kinds:block_decoder",
        "medusa": "spear_spec.voice.kinds:medusa_heads",
        "layer_skip": "spear_spec.voice.kinds:layer_skip",
    },
)
DEFAULT_KINDS = {"text": "misaki-en-us", "t2s": "spear-tts", "vocoder": "unit-vocoder"}
