"""The driver of a bulk run: shards to workers until all are done, whatever becomes of the workers."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spear_spec.bulk.crew import Crew, Done, Event, Gone, Ready, Refused
from spear_spec.bulk.folder import Folder
from spear_spec.bulk.lines import Line
from spear_spec.bulk.settings import Settings
from spear_spec.bulk.shards import Shard, cut_shards
from spear_spec.errors import WorkerError

MOST_TRIES = 3  # of a shard, each of which ended its worker; of a worker that never gets ready


def speak_lines(
    lines: Sequence[Line],
    settings: Settings,
    folder: Path,
    *,
    workers: int = 1,
    ray: str | None = None,
    told: Callable[[Event | int], None] = lambda event: None,
) -> dict[str, Any]:
    """Speak every line into the folder, exactly once; go on with what is there. The totals of the manifest, with what
    this run did: `resumed` (lines that were there), `deaths` (of workers), `wall_s`.

    Args:
        ray: None: processes of this machine; "local": a Ray cluster of this machine; else the address of one.
        told: called with every event, and once with the number of lines that are there already.

    Raises:
        ConfigError: the folder holds other work. AudioError: it cannot be written. WorkerError: workers end again and
            again, or the cluster is lost. The finished shards stay, and the same call goes on from them.
    """
    began = time.perf_counter()
    shards, output = cut_shards(lines, settings), Folder(folder)
    with output.claim(settings, shards):
        todo = [shard for shard in shards if not output.has(shard)]
        resumed = len(lines) - sum(len(shard.lines) for shard in todo)
        told(resumed)
        deaths, bad = (0, []) if not todo else _work(_crew(settings, folder, workers, ray), workers, todo, told, output)
        if bad:
            which, why = bad[0]
            numbers = f"lines {which.lines[0].number} to {which.lines[-1].number}"
            raise WorkerError(
                f"{len(bad)} of {len(shards)} shards ended their worker {MOST_TRIES} times, the first with {numbers} "
                f"({why}); the others are done. Run the same command again to try once more"
            )
        totals = output.finish(settings, shards)
    return {**totals, "resumed": resumed, "deaths": deaths, "wall_s": round(time.perf_counter() - began, 3)}


def _crew(settings: Settings, folder: Path, workers: int, ray: str | None) -> Crew:
    if ray is None:
        from spear_spec.bulk.processes import Processes

        return Processes(settings, folder)
    from spear_spec.bulk.on_ray import RayCrew

    return RayCrew(settings, folder, ray, workers)


def _work(
    crew: Crew, workers: int, shards: Sequence[Shard], told: Callable[[Event | int], None], output: Folder
) -> tuple[int, list[tuple[Shard, str]]]:
    """Do all shards; deaths of workers, and the shards that are given up, each with the reason."""
    todo, tries, bad = deque(shards), Counter[str](), []
    at: dict[int, Shard] = {}  # what a worker is doing
    idle: set[int] = set()
    staff: set[int] = set()
    deaths = in_vain = 0
    with crew:
        while todo or at:
            while len(staff) < min(workers, len(todo) + len(at)):
                staff.add(crew.hire())
            while todo and idle:
                worker = idle.pop()
                at[worker] = todo.popleft()
                crew.give(worker, at[worker])
            for event in crew.wait():
                match event:
                    case Refused(error=error):
                        raise error
                    case Ready(worker=worker):
                        in_vain = 0
                        idle.add(worker)
                    case Done(worker=worker):
                        _check_there(output, at.pop(worker))
                        idle.add(worker)
                    case Gone(worker=worker, why=why):
                        deaths += 1
                        staff.discard(worker)
                        idle.discard(worker)
                        shard = at.pop(worker, None)
                        if shard is None:
                            in_vain += 1
                            if in_vain >= MOST_TRIES:
                                raise WorkerError(f"workers end before they are given anything: {why}")
                        else:
                            tries[shard.name] += 1
                            if tries[shard.name] < MOST_TRIES:
                                todo.appendleft(shard)
                            else:
                                bad.append((shard, why))
                told(event)
    return deaths, bad


def _check_there(output: Folder, shard: Shard) -> None:
    if not (output.path / "shards" / shard.name).is_dir():
        raise WorkerError(
            f"a worker has written shard {shard.name}, but it is not in {output.path}: every node must see that folder "
            "under the same path"
        )
