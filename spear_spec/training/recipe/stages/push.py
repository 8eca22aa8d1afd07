"""Stage 11: the voice to where others find it."""

from __future__ import annotations

from spear_spec.training.recipe.keys import digest, read_json, write_json
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.recipe.stage import Stage


def run(plan: Plan) -> None:
    """As `spear-spec voices push`: into a folder, or to the hub. An earlier state of this voice gives way."""
    from spear_spec.voice.bundle import open_voice
    from spear_spec.voice.hub import Place, push

    cfg, at = plan.push, Layout(plan.out)
    folder = at.voice(plan.pack.name)
    about = {"voice": plan.pack.name, "to": cfg.to, "config": digest(folder / "config.json")}
    if cfg.to is None:
        print(f"push.to names no place: the voice stays in {folder}")
        write_json(at.pushed, about)
        return
    place = Place.of(cfg.to)
    there = None if place.folder is None else digest(place.folder / "config.json")
    if there != about["config"]:  # else it was brought there by a run that was cut off behind that
        known = read_json(at.pushed) or {}
        ours = known.get("to") == cfg.to and known.get("config") == there
        push(open_voice(folder.absolute()), place, force=cfg.force or ours, public=cfg.public, message=cfg.message)
    write_json(at.pushed, about)
    print(f"{plan.pack.name} is in {place}")


STAGE = Stage(
    "push",
    run,
    reads=lambda plan, at: [at.voice(plan.pack.name)],
    writes=lambda plan, at: [at.pushed],
    more=lambda plan: {"name": plan.pack.name},
)
