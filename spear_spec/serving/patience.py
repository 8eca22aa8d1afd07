"""When a listener counts as gone: nothing comes of the text that he owes, or nothing is fetched of what waits."""

from __future__ import annotations

from spear_spec.errors import TextError
from spear_spec.serving.limits import Limits
from spear_spec.serving.listener import Listener
from spear_spec.serving.speech import Busy


def out_of_patience(listener: Listener, now: float, limits: Limits) -> TextError | Busy | None:
    """Why a listener is waited for no longer, None: he is. Notes when nothing waited to be fetched."""
    speech = listener.speech
    if listener.waits_for_text:
        late = now - listener.fed > limits.patience_s
        return TextError(f"no text came for {limits.patience_s:g} s: call finish") if late else None
    if not speech.unread_s and not speech.over:
        listener.fetched = now
    if now - listener.fetched <= limits.patience_s:
        return None
    if listener.over or listener.ahead_s() >= limits.buffer_s:
        return Busy(f"nothing was fetched for {limits.patience_s:g} s", 0.0)
    return None
