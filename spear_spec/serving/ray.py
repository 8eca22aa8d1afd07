"""The server as a Ray Serve deployment: replicas with a scheduler each, as many as there are requests for.

    serve run spear_spec.serving.ray:app min_replicas=1 max_replicas=4
    spear-spec serve --ray --replicas 1:4

A replica is the application of `serving.app`, with its limits: a request beyond them is answered 429 in OpenAI's form.
Ray Serve sends requests to the replica that has the fewest, starts and ends replicas by the number under way, and takes
one that is not healthy out of service.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from spear_spec.acoustic.takes import check_takes
from spear_spec.cluster import load_ray
from spear_spec.config import Strict, number, require, whole
from spear_spec.errors import ConfigError
from spear_spec.serving.limits import Limits
from spear_spec.text import Pauses, Reading

if TYPE_CHECKING:
    from fastapi import FastAPI

NAME = "spear_spec"
STALLED_S = 30.0  # work and no step for so long: the replica is not healthy


@dataclass(frozen=True)
class Replicas(Strict):
    """What a deployment is told, in a configuration file under `args`, or `name=value` behind `serve run`.

    voice, device, dtype, threads: as in `TTS.load`. min_replicas, max_replicas: how many there are. target: requests
    under way that one should have; more replicas are started above it. characters, streams, queue, rows, seconds: of
    `Limits`, for each replica. drain_s: a replica that is ended goes on so long with what it is speaking. upscale_s,
    downscale_s: so long the number of requests has to ask for another number of replicas. api_key_file: API keys, one a
    line; $SPEAR_SPEC_API_KEYS works too. prompts: a folder of recordings. lexicon: a file. These are the same on every
    node. pause: as `Pauses.of` takes it. acoustic: as in `TTS.load`.
    complete, best_of, judge: as in `TTS.stream`. origins, voice_names: of `ServerSettings`.

    Raises:
        ConfigError: a value that cannot be used.
    """

    voice: str | None = None
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 1
    min_replicas: int = 1
    max_replicas: int = 1
    target: float = 8.0
    characters: int = 4096
    streams: int = 64
    queue: int = 48
    rows: int = 16
    seconds: float = 3600.0
    drain_s: float = 30.0
    upscale_s: float = 5.0
    downscale_s: float = 120.0
    api_key_file: str | None = None
    log_text: bool = False
    prompts: str | None = None
    lexicon: str | None = None
    pause: float | tuple[float, ...] | None = None
    acoustic: str | None = None
    complete: str = "off"
    best_of: int = 1
    judge: str | None = None
    origins: tuple[str, ...] = ()
    voice_names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        whole("threads", self.threads, 1, 1024)
        whole("max_replicas", self.max_replicas, 1, 10_000)
        whole("min_replicas", self.min_replicas, 1, self.max_replicas)
        number("target", self.target, 0.1, 1e6)
        for name in ("drain_s", "upscale_s", "downscale_s"):
            number(name, getattr(self, name), 0, 86400)
        for name in ("voice", "api_key_file", "prompts", "lexicon", "acoustic"):
            value = getattr(self, name)
            require(value is None or isinstance(value, str), f"{name} must be a text, not {value!r:.60}")
        require(isinstance(self.log_text, bool), f"log_text must be true or false, not {self.log_text!r:.60}")
        Pauses.of(self.pause)
        require(
            self.complete in ("off", "on", "stream"), f"complete must be off, on or stream, not {self.complete!r:.60}"
        )
        check_takes(self.best_of, self.judge, 1.0)
        names = self.voice_names
        ok = isinstance(names, dict) and all(isinstance(x, str) for pair in names.items() for x in pair)
        require(ok, "voice_names must be an object of names")
        require(all(isinstance(one, str) for one in self.origins), "origins must be a list of addresses")
        self.limits  # noqa: B018  refused here, not in a replica

    @property
    def limits(self) -> Limits:
        """Of each replica."""
        return Limits(
            characters=self.characters,
            seconds=self.seconds,
            streams=self.streams,
            queue=self.queue,
            rows=self.rows,
            takes=max(self.best_of, Limits.takes),
        )

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Replicas:
        """From the arguments of an application; `serve run` gives them as text.

        Raises:
            ConfigError: an unknown name, or a value that cannot be used.
        """
        texts = {f.name for f in fields(cls) if str(f.type) in ("str", "str | None")}
        return cls.from_dict(
            {k: v if k in texts or not isinstance(v, str) else _value(k, v) for k, v in values.items()}
        )


def _value(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ConfigError(f"{name}={text!r:.60}: that is no number") from None


class Replica:
    """One scheduler with its voice, behind the HTTP application."""

    def __init__(self, settings: dict[str, Any]) -> None:
        from spear_spec.pipeline import TTS
        from spear_spec.serving.app import create_app
        from spear_spec.serving.auth import VARIABLE, read_keys
        from spear_spec.serving.prompts import hear_prompts, prompt_files
        from spear_spec.serving.scheduler import Scheduler, for_serving
        from spear_spec.serving.settings import ServerSettings
        from spear_spec.serving.warm_up import warm_up

        given = Replicas.from_dict(settings)
        tts = TTS.load(given.voice, given.device, dtype=given.dtype, threads=given.threads, acoustic=given.acoustic)
        self.scheduler = Scheduler(
            for_serving(tts), given.limits, complete=given.complete, best_of=given.best_of, judge=given.judge
        )
        reading = Reading.of(given.pause, given.lexicon)
        warm_up(self.scheduler, reading)
        keys = read_keys(given.api_key_file, os.environ.get(VARIABLE))
        files = {} if given.prompts is None else prompt_files(given.prompts, tts.speakers)
        house = ServerSettings(
            characters=given.characters,
            drain_s=given.drain_s,
            keys=keys,
            log_text=given.log_text,
            prompts=hear_prompts(tts, files),
            reading=reading,
            origins=tuple(given.origins),
            voice_names=given.voice_names,
        )
        self.application = create_app(self.scheduler, house)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """What Ray Serve calls with requests."""
        return self.application

    def check_health(self) -> None:
        """Called by Ray Serve; raises when this replica does not get on any more, and another is started instead."""
        state = self.scheduler.state()
        if not state.alive:
            raise RuntimeError("the scheduler has stopped")
        if state.stalled_s > STALLED_S:
            raise RuntimeError(f"no step of decoding for {state.stalled_s:.0f} s")

    def __del__(self) -> None:
        """Called by Ray Serve when all answers have been given, or the time for that is over."""
        if hasattr(self, "scheduler"):
            self.scheduler.close()


def app(args: Mapping[str, Any]) -> Any:
    """The Ray Serve application; `args`: see `Replicas`.

    Raises:
        ConfigError: an argument that cannot be used. MissingExtraError: Ray is not installed.
    """
    settings = Replicas.read(args)
    load_ray(alone=False)
    from ray import serve
    from ray.serve.config import AutoscalingConfig, BackpressureConfig

    several = settings.max_replicas > settings.min_replicas
    scaling = AutoscalingConfig(
        min_replicas=settings.min_replicas,
        max_replicas=settings.max_replicas,
        target_ongoing_requests=settings.target,
        upscale_delay_s=settings.upscale_s,
        downscale_delay_s=settings.downscale_s,
    )
    deployment = serve.deployment(
        name=NAME,
        **({"autoscaling_config": scaling} if several else {"num_replicas": settings.min_replicas}),
        # a replica refuses by itself, in OpenAI's form, so it must be given more than it takes
        max_ongoing_requests=4 * settings.streams,
        max_queued_requests=16 * settings.streams,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
        health_check_period_s=5,
        health_check_timeout_s=30,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=settings.drain_s,
        ray_actor_options={"num_cpus": settings.threads, "num_gpus": 1 if settings.device.startswith("cuda") else 0},
    )
    return deployment(serve.ingress()(Replica)).bind(settings.to_dict())
