"""Speaks with a voice under settings of the process that are none of its business, each in a fresh process.

    python -m tests.stubs.process_settings VOICE

One JSON line a setting: what was said by every drafter, and which settings of the process were not as before. Forked
from a process that has imported everything and loaded nothing, so whatever is made at first use is made under the
setting.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import numpy as np
import torch

import spear_spec.voice.kinds  # noqa: F401  all that loading would import
from spear_spec.decoding.drafters.layer_skip import LayerSkipDrafter
from spear_spec.engine import Request
from spear_spec.models.drafts.layer_skip import LayerSkipConfig
from spear_spec.pipeline import TTS
from spear_spec.text import Segment

SETTINGS_OF_DRAFTS: dict[str, dict[str, Any]] = {
    "none": {"drafter": "none"},
    "small": {"drafter": "small", "verifier": "block", "gamma": 4},
    "small tree": {"drafter": "small", "tree": "2-2"},
    "eagle": {"drafter": "eagle"},
    "early_exit": {"drafter": "early_exit"},
    "prophet": {"drafter": "prophet"},
    "medusa": {"drafter": "medusa", "tree": "sparse"},
    "layer_skip": {"drafter": LayerSkipDrafter(LayerSkipConfig(attention=(1,), feed_forward=(0,)).skip(2))},
    "coarse": {"drafter": "small", "verifier": "coarse"},
}
GUIDED = ("small", "eagle", "early_exit", "prophet", "layer_skip")


class Words:
    """A front end without dictionaries: three segments, whatever the text."""

    speakers = ("af_heart", "am_michael")
    num_token_ids = 0

    def segments(self, text: str, speaker: str) -> Iterator[Segment]:
        for ids in ([2, 5, 7, 3], [9, 4], [6, 6, 1, 8, 2]):
            yield Segment(text, ids)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    yield
    torch.set_default_device(None)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@contextlib.contextmanager
def seeds(seed: int) -> Iterator[None]:
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  a user's own
    random.seed(seed)
    yield


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


Context = Callable[[], AbstractContextManager[Any]]
SETTINGS: dict[str, tuple[Context | None, Context | None]] = {  # around loading, around speaking
    "as it is": (None, None),
    **{
        f"default dtype {dtype}": (lambda dtype=dtype: default_dtype(dtype),) * 2
        for dtype in (torch.float64, torch.bfloat16, torch.float16)
    },
    "default device meta": (lambda: default_device("meta"),) * 2,
    "autocast": (lambda: torch.autocast("cpu", torch.bfloat16),) * 2,
    "inference mode": (torch.inference_mode, torch.inference_mode),
    "inference mode while loading": (torch.inference_mode, None),
    "inference mode while speaking": (None, torch.inference_mode),
    "grad": (torch.enable_grad, torch.enable_grad),
    "other seeds": (lambda: seeds(12345),) * 2,
    "two threads": (lambda: threads(2),) * 2,
    "deterministic algorithms": (deterministic,) * 2,
}


def state() -> dict[str, Any]:
    """Everything that belongs to the process."""
    init = torch.nn.init
    umask = os.umask(0)
    os.umask(umask)
    return {
        "torch's generator": torch.get_rng_state().tolist(),
        "numpy's generator": str(np.random.get_state()),  # noqa: NPY002
        "Python's generator": random.getstate(),
        "default dtype": torch.get_default_dtype(),
        "default device": str(torch.get_default_device()),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "threads": torch.get_num_threads(),
        "torch.nn.init": {name: id(getattr(init, name)) for name in dir(init)},
        "umask": umask,
    }


def speak(voice: str, load: Context | None, say: Context | None) -> dict[str, Any]:
    """Tokens and samples by drafter, and what of the process was changed."""
    changed: list[str] = []

    @contextlib.contextmanager
    def within(context: Context | None, what: str) -> Iterator[None]:
        with ExitStack() as stack:
            if context is not None:
                stack.enter_context(context())
            before = state()
            yield
            after = state()
            changed.extend(f"{what}: {name}" for name in before if before[name] != after[name])

    with within(load, "loading"):
        tts = TTS.load(voice, "cpu")
        tts.front_end = Words()  # type: ignore[assignment]
        drafted = {name: tts.using(**spec) for name, spec in SETTINGS_OF_DRAFTS.items()}
    said: dict[str, Any] = {}
    with within(say, "speaking"):
        for name, one in drafted.items():
            law = one.sampling.changed(guidance=1.5 if name in GUIDED else 1.0)
            requests = [
                Request(segment.ids, (1, 2) if at else (), seed=at, sampling=law, cap=16)
                for at, segment in enumerate(Words().segments("", ""))
            ]
            rows = [utterance.tokens for utterance in one.decoder.engine().run(requests)]
            audio = one.synthesize("Some words.", seed=7, max_tokens=16, guidance=law.guidance)
            said[name] = {
                "rows": rows,
                "tokens": audio.stats["tokens"],
                "accepted": audio.stats["accepted"],
                "samples": hashlib.sha256(audio.samples.tobytes()).hexdigest(),
            }
    return {"said": said, "changed": changed}


def main(voice: str) -> None:
    torch.set_num_threads(1)
    for name, (load, say) in SETTINGS.items():
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            try:
                found = speak(voice, load, say)
            except BaseException as error:
                found = {"error": repr(error)[:500]}
            print(json.dumps({"setting": name, **found}), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(json.dumps({"setting": name, "error": f"the process ended with {status}"}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
