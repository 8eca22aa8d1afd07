"""Checks of the options that a verifier's constructor takes."""

from __future__ import annotations

from spear_spec.errors import ConfigError


def checked(verifier: str, option: str, value: float, low: float, high: float, *, above_low: bool = False) -> float:
    """The value as a float, if it lies in [low, high], or in (low, high] with `above_low`.

    Raises:
        ConfigError: no number, or out of range (NaN is).
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high or (above_low and value == low):
        span = f"above {low:g} and at most {high:g}" if above_low else f"from {low:g} to {high:g}"
        raise ConfigError(f"option {option} of verifier {verifier} must be a number {span}, not {value!r}")
    return float(value)
