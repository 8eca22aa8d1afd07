"""What /metrics tells: a registry of our own, so that nothing else of the process stands in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_TTFA = (0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0, 2.0, 5.0, 15.0, 60.0)
_RTF = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0)
# the scheduler's state: field, what it is, whether it only grows
_STATE = (
    ("queued", "Requests that wait for a row.", False),
    ("waiting", "Sentences that are ready and in no row.", False),
    ("rows", "Rows of the running batch.", False),
    ("streams", "Listeners that are being served.", False),
    ("tokens", "Semantic tokens written.", True),
    ("target_calls", "Calls of the target, one a row and step.", True),
    ("drafted", "Tokens drafted.", True),
    ("accepted", "Draft tokens kept.", True),
    ("underruns", "Times that a listener ran dry.", True),
)


class Metrics:
    """Counters of the HTTP side, and the scheduler's state as it is when somebody looks.

    state: gives the fields of `_STATE`; what it lacks is left out.
    """

    def __init__(self, state: Callable[[], Mapping[str, float]]) -> None:
        self._state = state
        self.registry = registry = CollectorRegistry()
        self.answers = Counter(
            "spear_spec_http_answers", "Answers by route and status.", ("route", "status"), registry=registry
        )
        self.refused = Counter("spear_spec_refused", "Requests refused, by reason.", ("reason",), registry=registry)
        self.left = Counter("spear_spec_clients_left", "Clients that left before the end.", registry=registry)
        self.broken = Counter("spear_spec_broken", "Answers that failed after their first byte.", registry=registry)
        self.characters = Counter("spear_spec_characters", "Characters spoken to the end.", registry=registry)
        self.audio = Counter("spear_spec_audio_seconds", "Seconds of speech sent.", registry=registry)
        self.ttfa = Histogram(
            "spear_spec_ttfa_seconds", "From a request to its first sound.", buckets=_TTFA, registry=registry
        )
        self.rtf = Histogram(
            "spear_spec_rtf", "Seconds an answer took for a second of its speech.", buckets=_RTF, registry=registry
        )
        registry.register(self)  # type: ignore[arg-type]  # all it asks for is `collect`

    def collect(self) -> Iterator[Metric]:
        """The scheduler's part."""
        state = self._state()
        for name, what, grows in _STATE:
            if name in state:
                family = CounterMetricFamily if grows else GaugeMetricFamily
                yield family(f"spear_spec_{name}", what, value=state[name])
        for name, what, over, under in (
            ("tokens_per_call", "Tokens a call of the target, since the start.", "tokens", "target_calls"),
            ("acceptance", "Share of draft tokens that were kept, since the start.", "accepted", "drafted"),
        ):
            if over in state and under in state:
                yield GaugeMetricFamily(f"spear_spec_{name}", what, value=state[over] / max(1, state[under]))

    def render(self) -> bytes:
        """The page, in Prometheus' text format."""
        return generate_latest(self.registry)
