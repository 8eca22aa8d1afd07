"""An acoustic stage in a folder of its own, which a voice can speak through in place of the one that it ships with.

    STAGE/config.json            what it is, of which semantic tokens it makes sound, its shape, its shards
          vocoder-1.safetensors  its weights

It is read with the care that a voice is read with.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from spear_spec.audio import write_atomically
from spear_spec.config import Strict, require, shown, whole, words
from spear_spec.errors import BundleError, ConfigError
from spear_spec.voice.bundle import Bundle, read_config
from spear_spec.voice.listening import Listening, tokens_digest
from spear_spec.voice.registry import STAGES
from spear_spec.voice.save import SHARD_BYTES, config_bytes, write_parts, writing

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from spear_spec.acoustic.contract import AcousticStage

SCHEMA = "spear-stage/1"
_OWN = ("vocoder", "prompt")  # parts of a voice's own stage


@dataclass(frozen=True)
class StageConfig(Strict):
    """`config.json` of a stage's folder.

    semantic: `k` and `rate` of the tokens that it makes sound of and `centroids`, the digest that tells them from
    others (`voice.listening.tokens_digest`; null: not told). stage: its shape, with its kind. files, packages: as in a
    voice.
    """

    schema: str
    name: str
    licence: str
    origin: str
    sample_rate: int
    semantic: dict[str, Any]
    stage: dict[str, Any]
    files: dict[str, list[dict[str, Any]]]
    packages: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.schema == SCHEMA, f"schema {shown(self.schema)} is not {SCHEMA!r}: it is no acoustic stage")
        words("name", self.name, 100)
        words("licence", self.licence, 500)
        words("origin", self.origin, 4000)
        for name in ("semantic", "stage", "files", "packages"):
            require(isinstance(getattr(self, name), dict), f"{name} must be an object")
        require(set(self.files) <= {"vocoder"}, "files: a stage has one part, vocoder")
        require(set(self.semantic) == {"k", "rate", "centroids"}, "semantic must hold k, rate and centroids")
        whole("semantic: k", self.semantic["k"], 1, 2**20)
        whole("semantic: rate", self.semantic["rate"], 1, 1000)
        digest = self.semantic["centroids"]
        ok = digest is None or (isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) is not None)
        require(ok, "semantic: centroids must be 64 digits of 0-9 and a-f, or null")
        words("stage: kind", self.stage.get("kind"), 100)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The configuration of a folder.

        Raises:
            BundleError: it has none, or one that cannot be used.
        """
        values = read_config(folder)
        if not isinstance(values, Mapping) or values.get("schema") != SCHEMA:
            raise BundleError(f"{folder} is no acoustic stage: config.json has no schema {SCHEMA!r}")
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            raise BundleError(f"{folder / 'config.json'}: {error}") from None


def load_acoustic(bundle: Bundle, stage: str | os.PathLike[str], device: torch.device | str = "cpu") -> AcousticStage:
    """A voice's other acoustic stage.

    Args:
        stage: a folder that `save_stage` wrote, or the name of one within the voice's folder.

    Raises:
        BundleError: there is none, it is damaged, or it makes sound of other semantic tokens than the voice's.
    """
    from spear_spec.voice.parts import load_stage

    folder = find_stage(bundle, stage)
    cfg = StageConfig.read(folder)
    own = bundle.config.semantic
    if (cfg.semantic["k"], cfg.semantic["rate"]) != (own["k"], own["rate"]):
        raise BundleError(
            f"{folder} makes sound of {cfg.semantic['k']} semantic tokens at {cfg.semantic['rate']} a second, "
            f"voice {bundle.config.name!r} has {own['k']} at {own['rate']}"
        )
    if cfg.semantic["centroids"] not in (None, tokens_digest(bundle)):
        raise BundleError(
            f"{folder} makes sound of another kind of semantic tokens than voice {bundle.config.name!r}'s"
        )
    shape = {name: value for name, value in cfg.stage.items() if name != "kind"}
    try:
        config = replace(
            bundle.config,
            sample_rate=cfg.sample_rate,
            vocoder=shape,
            prompt=None,  # it is of the voice's own stage
            files={part: files for part, files in bundle.config.files.items() if part not in _OWN} | cfg.files,
            packages={**bundle.config.packages, **cfg.packages},
            kinds={**bundle.config.kinds, "vocoder": cfg.stage["kind"]},
        )
    except ConfigError as error:
        raise BundleError(f"{folder / 'config.json'}: {error}") from None
    made = load_stage(Bundle(folder, config), device)
    if isinstance(getattr(made, "tokenizer", None), Listening):
        made.tokenizer = Listening(bundle)  # type: ignore[attr-defined]
    return made


def find_stage(bundle: Bundle, stage: str | os.PathLike[str]) -> Path:
    """The folder of a stage.

    Raises:
        BundleError: there is none.
    """
    if not isinstance(stage, (str, os.PathLike)):
        raise BundleError(f"an acoustic stage is given by its name or its folder, not by a {type(stage).__name__}")
    name = os.fsdecode(stage)
    inner = bundle.path / name if name and Path(name).name == name and name not in (".", "..") else None
    for folder in (inner, Path(os.path.expanduser(name)) if name else None):
        if folder is not None and os.path.isfile(folder / "config.json"):
            return folder
    try:
        within = sorted(path.name for path in bundle.path.iterdir() if os.path.isfile(path / "config.json"))
    except OSError:
        within = []
    known = ", ".join(within) or "none"
    raise BundleError(
        f"voice {bundle.config.name!r} has no acoustic stage {name[:100]!r} (in its folder: {known}), and there is no "
        "such folder with a stage; recipes/audiolm makes one"
    )


def anywhere(bundle: Bundle, stage: str | os.PathLike[str]) -> str:
    """What finds the same stage from any folder: its name, within the voice's folder, or else its whole path.

    Raises:
        BundleError: there is none.
    """
    folder = find_stage(bundle, stage)
    return folder.name if folder.parent == bundle.path else str(folder.resolve())


def save_stage(
    folder: str | os.PathLike[str],
    bundle: Bundle,
    *,
    name: str,
    licence: str,
    origin: str,
    kind: str,
    sample_rate: int,
    shape: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Write a stage's folder for the semantic tokens of a voice, and open it once.

    Args:
        bundle: the voice. kind, shape: what `config.json` of a voice calls `vocoder`. weights: the state dict of the
            stage's module; stored in half precision.

    Raises:
        BundleError: a tensor is not finite in half precision, it cannot be read back, the folder cannot be written or
            holds something else.
    """
    folder = Path(folder)
    semantic = {"k": bundle.config.semantic["k"], "rate": bundle.config.semantic["rate"]}
    with writing(f"the stage {folder}"):
        package = STAGES.package(kind)
        with write_parts(folder, {"vocoder": weights}, shard_bytes, SCHEMA) as files:
            cfg = StageConfig(
                schema=SCHEMA,
                name=name,
                licence=licence,
                origin=origin,
                sample_rate=sample_rate,
                semantic={**semantic, "centroids": tokens_digest(bundle)},
                stage={"kind": kind, **shape},
                files=files,
                packages={} if package is None else {kind: package},
            )
            data = config_bytes(cfg.to_dict())
        write_atomically(folder / "config.json", data)
    load_acoustic(bundle, folder.absolute())
    return folder
