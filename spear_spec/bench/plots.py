"""Three pictures of a bench: acceptance by position, accepted lengths, speed-up by draft length.

A line of them a batch size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spear_spec.bench.race import label
from spear_spec.decoding import DRAFTERS
from spear_spec.errors import ConfigError, MissingExtraError

_MARKERS = "os^vDPX*<>h"


def check_plot(path: str) -> None:
    """Refuse before anything is measured what could not be drawn afterwards.

    Raises:
        MissingExtraError: matplotlib is not installed. ConfigError: the folder is missing, or the kind of file unknown.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError:
        raise MissingExtraError("--plot needs matplotlib: pip install 'spear_spec[eval]'") from None
    if not Path(path).parent.is_dir():
        raise ConfigError(f"cannot write the plot {path}: the folder is missing")
    kinds = FigureCanvasAgg.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in kinds:
        raise ConfigError(f"cannot write the plot {path}: its name must end in one of {', '.join(sorted(kinds))}")


def plot(result: dict[str, Any], path: str) -> None:
    """Draw a bench/1 object.

    Raises:
        MissingExtraError: matplotlib is not installed. ConfigError: the file cannot be written.
    """
    check_plot(path)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    batches = list(dict.fromkeys(row["batch"] for row in result["rows"]))
    figure, panels = pyplot.subplots(
        len(batches), 3, figsize=(16, 4.2 * len(batches)), squeeze=False, layout="constrained"
    )
    handles: dict[str, Any] = {}
    settings: dict[str, list[str]] = {}
    for line, batch in zip(panels, batches):
        rows = [row for row in result["rows"] if row["batch"] == batch and row["drafter"] != "none"]
        fastest = best(rows)
        for drafter, row in fastest.items():
            settings.setdefault(drafter, []).append(label(row))
        handles |= _acceptance(line[0], fastest)
        _lengths(line[1], fastest)
        _gains(line[2], rows)
        line[0].set_title(f"batch {batch}: acceptance by position, best setting of each", fontsize=10)
        line[1].set_title("accepted draft tokens of a target call, same settings", fontsize=10)
        line[2].set_title("speed-up by draft length (hollow: trees, k paths, options)", fontsize=10)
    if handles:
        names = [f"{drafter}: {' | '.join(dict.fromkeys(settings[drafter]))}" for drafter in handles]
        figure.legend(handles.values(), names, loc="outside lower center", ncols=min(4, len(names)), fontsize=9)
    figure.suptitle(f"{result['voice']}, {result['hardware']}, commit {result['commit']}", fontsize=9)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as problem:
        raise ConfigError(f"cannot write the plot {path}: {problem}") from None
    finally:
        pyplot.close(figure)


def best(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The fastest row of each drafter."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["drafter"] not in found or row["speedup"]["median"] > found[row["drafter"]]["speedup"]["median"]:
            found[row["drafter"]] = row
    return found


def _style(drafter: str) -> dict[str, Any]:
    """The same colour and marker for a drafter in every picture."""
    from matplotlib import colormaps

    names = [name for name in DRAFTERS if name != "none"]
    place = names.index(drafter) if drafter in names else len(names)
    return {
        "color": colormaps["tab20"](2 * place % 20 + (2 * place >= 20)),
        "marker": _MARKERS[place % len(_MARKERS)],
        "markersize": 5,
    }


def _acceptance(axes: Any, fastest: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the line of each drafter, for the legend."""
    lines = {}
    for drafter, row in fastest.items():
        shares = row["acceptance_by_position"]
        [lines[drafter]] = axes.plot(range(1, len(shares) + 1), shares, **_style(drafter))
    axes.set(xlabel="position in the draft", ylabel="share of target calls that accept it", ylim=(0, 1.02))
    _whole_ticks(axes)
    return lines


def _lengths(axes: Any, fastest: Mapping[str, dict[str, Any]]) -> None:
    """A histogram as a line of points: ten of bars would hide each other."""
    for drafter, row in fastest.items():
        counts = row["accepted_lengths"]
        axes.plot(range(len(counts)), [count / sum(counts) for count in counts], **_style(drafter))
    axes.set(xlabel="accepted draft tokens", ylabel="share of target calls")
    axes.set_ylim(bottom=0)
    _whole_ticks(axes)


def _gains(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    axes.axhline(1, color="0.5", linestyle="--", linewidth=1)
    for drafter in dict.fromkeys(row["drafter"] for row in rows):
        mine = [row for row in rows if row["drafter"] == drafter]
        plain = [row for row in mine if row["tree"] is None and row["num_drafts"] == 1 and not row["options"]]
        for group, extra in (
            (sorted(plain, key=lambda row: row["gamma"]), {}),
            ([row for row in mine if row not in plain], {"linestyle": "none", "markerfacecolor": "none"}),
        ):
            if group:
                middle = [row["speedup"]["median"] for row in group]
                spreads = [
                    [m - row["speedup"]["lo"] for m, row in zip(middle, group)],
                    [row["speedup"]["hi"] - m for m, row in zip(middle, group)],
                ]
                axes.errorbar(
                    [row["gamma"] for row in group], middle, yerr=spreads, capsize=2, **_style(drafter), **extra
                )
    axes.set(xlabel="gamma (depth of the draft)", ylabel="times the autoregressive loop")
    axes.set_xlim(0, max((row["gamma"] for row in rows), default=0) + 1)
    axes.set_ylim(bottom=0)
    _whole_ticks(axes)


def _whole_ticks(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
