"""What one process takes upon itself."""

from __future__ import annotations

from dataclasses import dataclass

from spear_spec.acoustic.takes import MOST_TAKES
from spear_spec.config import number, whole


@dataclass(frozen=True)
class Limits:
    """Beyond them a request is refused, or waits where that hurts nobody.

    characters: of a text. seconds: of speech that one request may bring; it ends there. streams: requests under way,
    those included whose sound was not fetched yet. queue: requests of which nothing has been heard. wait_s: nobody is
    taken in while somebody has waited this long for his first sound. rows: sentences decoded together; more join only
    where a listener would otherwise hear nothing. buffer_s: sound that waits for a listener to fetch it; then his next
    sentences wait. patience_s: so long nothing is fetched of what waits, and the listener counts as gone. takes:
    of each sentence, of which the best is heard.

    Raises:
        ConfigError: a value out of range.
    """

    characters: int = 4096
    seconds: float = 3600.0
    streams: int = 64
    queue: int = 32
    wait_s: float = 2.0
    rows: int = 16
    buffer_s: float = 30.0
    patience_s: float = 60.0
    takes: int = 8

    def __post_init__(self) -> None:
        whole("characters", self.characters, 1, 10**9)
        number("seconds", self.seconds, 0.1, 1e9)
        whole("streams", self.streams, 1, 4096)
        whole("queue", self.queue, 1, 4096)
        number("wait_s", self.wait_s, 0.01, 1e6)
        whole("rows", self.rows, 1, 4096)
        number("buffer_s", self.buffer_s, 1, 1e6)
        number("patience_s", self.patience_s, 0.01, 1e6)
        whole("takes", self.takes, 1, MOST_TAKES)
