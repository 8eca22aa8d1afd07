"""Where the tokens of a target call come from."""

from __future__ import annotations


def token_kinds(tokens: int, accepted: int, drafted: int) -> list[str]:
    """Where each token of a verdict comes from; it may have been cut behind an accepted one."""
    if tokens == accepted:
        return ["accepted"] * tokens
    last = "sampled" if not drafted else "bonus" if accepted == drafted else "recovered"
    return ["accepted"] * accepted + [last]
