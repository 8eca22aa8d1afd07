"""A stage of a recipe: what it does, what it reads and writes, and which settings its result depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spear_spec.training.recipe.keys import claim, key_of, without
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import Plan

Paths = Callable[[Plan, Layout], Sequence[Path]]


def no_more(plan: Plan) -> Mapping[str, Any]:
    """No settings of other sections."""
    return {}


@dataclass(frozen=True)
class Stage:
    """run: does it. reads, writes: files (or folders of a corpus) that it takes from others, and that it leaves for
    them. more: settings of other sections that its result depends on, besides its own, the seed and the clock.
    together: whether several processes may do it (see `training/processes.py`).
    """

    name: str
    run: Callable[[Plan], None]
    reads: Paths
    writes: Paths
    more: Callable[[Plan], Mapping[str, Any]] = no_more
    together: bool = False

    def settings(self, plan: Plan) -> dict[str, Any]:
        """Everything of the plan that the result depends on."""
        common = {"seed": plan.seed, "clock": asdict(plan.clock)}
        return {**asdict(getattr(plan, self.name)), **common, **self.more(plan)}

    def key(self, plan: Plan) -> dict[str, Any]:
        """What its result depends on, as it is now."""
        at = Layout(plan.out)
        return key_of(self.settings(plan), self.reads(plan, at), plan.out)

    def written(self, plan: Plan) -> bool:
        """Whether all that it leaves is there."""
        return all(path.exists() for path in self.writes(plan, Layout(plan.out)))

    def claim(
        self,
        plan: Plan,
        work: Sequence[Path],
        *,
        name: str = "",
        length: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        reads: Sequence[Path] | None = None,
        adopt: bool = True,
    ) -> None:
        """Set `work` aside if it is of other settings or inputs than now.

        Args:
            name: of the work, if the stage has several. length: settings that only say how long it goes on.
            settings, reads: what the work depends on, if that is less than what the stage does.
        """
        at = Layout(plan.out)
        own = self.settings(plan) if settings is None else {"seed": plan.seed, "clock": asdict(plan.clock), **settings}
        key = key_of(without(own, length), self.reads(plan, at) if reads is None else reads, plan.out)
        claim(at.owner(name or self.name), key, work, adopt=adopt)


def sources(plan: Plan) -> list[Path]:
    """The corpora, whose audio several stages read."""
    cfg = plan.prepare
    return cfg.folders((*cfg.corpora, *cfg.dev, *cfg.test))


def folder_of(voice: str | None) -> list[Path]:
    """The folder of a voice that is gone on from; none where it is named and comes with the package."""
    return [Path(voice)] if voice is not None and Path(voice).is_dir() else []
