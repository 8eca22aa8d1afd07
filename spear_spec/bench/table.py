"""A bench as markdown: a table with one line a row, in the order in which they raced, and the roofline."""

from __future__ import annotations

from typing import Any

from spear_spec.bench.race import label
from spear_spec.evaluation.report import markdown

POSITIONS = (1, 4, 8)  # draft tokens whose acceptance is shown
METRICS = {
    "wer": ("WER change", 100.0, 2, " %"),
    "cer": ("CER change", 100.0, 2, " %"),
    "mos": ("MOS change", 1.0, 3, ""),
    "per": ("PER change", 100.0, 2, " %"),
    "speaker_similarity": ("similarity change", 1.0, 3, ""),
}


def table(result: dict[str, Any]) -> str:
    """Markdown of a bench/1 object. Columns that no row has anything for are left out."""
    rows = result["rows"]
    peer = any(row["vs_peer"] is not None for row in rows)
    metrics = [name for name in METRICS if any(row["quality"] and name in row["quality"] for row in rows)]
    lines = [
        [
            "drafter",
            "settings",
            "verifier",
            "law",
            "runtime",
            "batch",
            "tokens / call",
            f"accepted at {' / '.join(map(str, POSITIONS))}",
            "draft step / target step",
            "predicted",
            "tokens / s",
            "speed-up",
            *(["over the peer"] if peer else []),
            *(METRICS[name][0] for name in metrics),
            "RTF",
            "TTFA, s",
        ]
    ]
    for row in rows:
        gain = row["speedup"]
        lines.append(
            [
                row["drafter"],
                label(row),
                row["verifier"] or "",
                "lossless" if row["lossless"] else "LOSSY",
                row["runtime"],
                str(row["batch"]),
                f"{row['tokens_per_call']:.2f}",
                _acceptance(row["acceptance_by_position"]),
                _number(row["draft_step_share"], 3),
                _number(row["predicted_speedup"], 2),
                f"{row['tokens_per_s']['median']:.0f}",
                f"{gain['median']:.2f} [{gain['lo']:.2f}, {gain['hi']:.2f}]",
                *([_number(row["vs_peer"], 1)] if peer else []),
                *(_change(row["quality"], name) for name in metrics),
                _number(row["rtf"], 3),
                _number(row["ttfa_s"], 3),
            ]
        )
    return "\n\n".join([markdown(lines), *_roofline(result)])


def _roofline(result: dict[str, Any]) -> list[str]:
    """How far the target's steps are from the bound."""
    roof = result.get("roofline")
    if roof is None:
        return []
    head = (
        f"Roofline: {roof['weight_bytes'] / 1e6:.1f} MB of weights at {roof['bandwidth_gb_s']:.1f} GB/s, "
        f"{roof['peak_gflop_s']:.0f} GFLOP/s."
    )
    lines = [["drafter", "batch", "tokens in a call", "ms", "bound, ms", "times the bound"]]
    for row in result["rows"]:
        sizes = {"1": row["batch"], "gamma+1": row["batch"] * (row["gamma"] + 1)}
        for name, tokens in sizes.items():
            took, bound = row["target_step_ms"][name], row["bound_ms"][name]
            if took is None or bound is None or (name == "1") != (row["drafter"] == "none"):
                continue
            ratio = f"{took / bound:.2f}"
            lines.append([row["drafter"], str(row["batch"]), str(tokens), f"{took:.3f}", f"{bound:.3f}", ratio])
    return [head, markdown(lines)]


def _acceptance(shares: list[float]) -> str:
    return " / ".join(f"{shares[at - 1]:.2f}" if at <= len(shares) else "-" for at in POSITIONS) if shares else ""


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _change(found: dict[str, Any] | None, metric: str) -> str:
    """The change against the autoregressive loop, whose own row shows its value."""
    _, scale, digits, unit = METRICS[metric]
    if found is None or metric not in found:
        return ""
    change = found[f"{metric}_change"]
    interval = change or found[metric]
    if interval is None or None in interval.values():
        return "not judged"
    value, lo, hi = (f"{interval[end] * scale:{'+' if change else ''}.{digits}f}" for end in ("value", "lo", "hi"))
    return f"{value}{unit} [{lo}, {hi}]" if change else f"({value}{unit})"
