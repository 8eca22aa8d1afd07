"""Make spear-tts-pytorch and audiolm-pytorch importable here: three small shims, each only where the import fails.

torchaudio's only wheel links CUDA and its extension does not load on a CPU torch; torchvision's operators are missing
for the same reason; fairseq 0.9 does not import on Python 3.11. None of them is used by the text-to-semantic model.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from types import ModuleType
from typing import Any

import torch

from spear_spec.errors import MissingExtraError

_HINT = 'the [lucidrains] extra is not installed; run: pip install "spear-spec[lucidrains]"'
_kept: list[Any] = []  # operator libraries vanish when they are collected


def _forget(package: str) -> None:
    """Drop a half-imported package."""
    for name in [n for n in sys.modules if n == package or n.startswith(package + ".")]:
        del sys.modules[name]


def _imports(package: str) -> bool:
    """Whether the package imports as it is.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name == package:
            raise MissingExtraError(f"{package} is missing: {_HINT}") from None
        _forget(package)
        return False
    except Exception:  # OSError, RuntimeError, AttributeError: whatever a broken binary or an old source raises
        _forget(package)
        return False
    return True


def shim_torchaudio() -> bool:
    """Stand in for torchaudio's compiled extension, its flags off. True where it was needed."""
    if _imports("torchaudio"):
        return False

    def unavailable(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError("torchaudio's compiled extension is not loaded")

    extension = ModuleType("torchaudio._extension")
    vars(extension).update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False, _IS_ALIGN_AVAILABLE=False, fail_if_no_align=lambda _: unavailable
    )
    sys.modules["torchaudio._extension"] = extension
    importlib.import_module("torchaudio")
    return True


def shim_torchvision() -> bool:
    """Declare the two operators that torchvision expects its compiled library to have declared. True where needed."""
    if _imports("torchvision"):
        return False
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
    importlib.import_module("torchvision")
    return True


def shim_fairseq() -> bool:
    """Put an empty module in fairseq's place (only its HuBERT wrapper would use it). True where needed."""
    try:
        if _imports("fairseq"):
            return False
    except MissingExtraError:
        pass
    sys.modules["fairseq"] = ModuleType("fairseq")
    return True


def import_spear_tts() -> ModuleType:
    """The real `spear_tts_pytorch` package.

    Raises:
        MissingExtraError: it or one of its dependencies is not installed.
    """
    if "spear_tts_pytorch" in sys.modules:
        return sys.modules["spear_tts_pytorch"]
    warn, showing = warnings.warn, warnings.filters[:]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shim_torchaudio()
            shim_torchvision()
            shim_fairseq()
            return importlib.import_module("spear_tts_pytorch")
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name} is missing: {_HINT}") from None
    finally:
        warnings.warn = warn  # audiolm_pytorch replaces it by a function that does nothing
        warnings.filters[:] = showing  # type: ignore[index]
