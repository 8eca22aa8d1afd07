"""What `verify` found, in one sentence."""

from __future__ import annotations

from typing import Any

GREEDY = "greedy identity"  # the name of that check
OF_TEXTS = "completeness"  # checks of utterances that are drawn again begin so


def conclusion(result: dict[str, Any]) -> str:
    """The outcome of a verify/1 object in one sentence."""
    pair = "the autoregressive loop" if result["verifier"] is None else f"{result['drafter']} / {result['verifier']}"
    failed = [check for check in result["checks"] if not check["pass"]]
    if result["pass"]:
        law = "the bare transformer" + (", drawn again where words are missing" if "complete" in result else "")
        return f"Exact: no check tells {pair} from {law} ({_power(result['checks'])})."
    if failed and result["lossless"]:
        who = pair if result["verifier"] is None else f"{pair}: the rule {result['verifier']}"
        why = " Either the rule is wrong, or the draft was not drawn from the law that it carries."
        why = "" if result["verifier"] is None else why
        return (
            f"BROKEN. {who} CLAIMS to be lossless and IS NOT. Do not use it: it changes what is said. "
            f"{_distance(failed)}{why}"
        )
    if failed:
        return (
            f"Lossy, as {result['verifier']} declares: with {pair} the output does not follow the transformer's law. "
            f"{_distance(failed)}"
        )
    return (
        f"Lossy by declaration: {result['verifier']} does not promise the transformer's law, "
        f"although no check tells {pair} from it here ({_power(result['checks'])})."
    )


def _distance(failed: list[dict[str, Any]]) -> str:
    """How far off: the distance less what chance adds to it in all but 1 % of correct builds (triangle inequality)."""
    alone = [
        check
        for check in failed
        if check["name"] != GREEDY
        and not check["name"].startswith(OF_TEXTS)
        and not check["name"].endswith(("neighbours", "utterances", "tries"))
    ]
    worst = max(alone or failed, key=lambda check: check["tv"] - check["null_q99"])
    by = f"{worst['tv'] - worst['null_q99']:.2g}"
    if worst["name"] == GREEDY:
        return f"At temperature 0 at least {by} of the texts come out differently ({GREEDY})."
    if worst["name"].startswith(OF_TEXTS):
        return f"What is kept of the tries is off by at least {by} ({worst['name']}: {worst['n']})."
    what = "of two tokens together" if worst not in alone else "of a token"
    measured = f"{worst['name']}: {worst['tv']:.2g} measured over {worst['n']}"
    return f"The law {what} is off by at least {by} in total variation ({measured})."


def _power(checks: list[dict[str, Any]]) -> str:
    """What would have been found."""
    first = checks[0]
    if first["name"] == GREEDY:
        return f"temperature 0: the same tokens for every text, {first['n']} in all"
    return f"{first['n']} tokens; a distance of {first['detectable_tv']:.2g} is found in nine runs of ten"
