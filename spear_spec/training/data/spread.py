"""Work on many clips in shards, by a process, several of them, or Ray Data where one machine is too small.

Each shard is a file, written whole by the worker that did it; one that is there is not done again, so a run that was
killed goes on from there. What a shard holds depends on its clips alone, never on who did it, so neither workers nor
stops change the result. On a cluster every node sees the folder, and the corpus, under the same path.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from spear_spec.audio import write_atomically
from spear_spec.cluster import start_ray
from spear_spec.errors import SpearSpecError, WorkerError
from spear_spec.training.data.corpus import Clip

SHARD = 200  # clips
STORE = 512 * 2**20  # bytes of shared memory of a Ray cluster of our own: the clips' texts pass through it
Do = Callable[[list[Clip]], bytes]


class Task(Hashable, Protocol):
    """What is done to each shard: settings alone, so that it can be compared, hashed and sent to a worker."""

    def open(self) -> Do:
        """Load what it needs, once a worker: a function from clips to the bytes of the shard's file."""
        ...


@dataclass(frozen=True)
class Hands:
    """Who does it. workers: processes, or with `ray` (an address, or "local") actors of Ray Data; threads: of torch in
    each; gpu: whether each wants one."""

    workers: int = 1
    ray: str | None = None
    threads: int = 1
    gpu: bool = False
    progress: bool = True


@lru_cache(maxsize=1)
def _opened(task: Task, threads: int) -> Do:
    import torch

    torch.set_num_threads(threads)
    return task.open()


def do_shard(task: Task, clips: list[Clip], path: Path, threads: int) -> None:
    """Do one shard, in whatever process this is."""
    write_atomically(path, _opened(task, threads)(clips))


def spread(
    task: Task, clips: Sequence[Clip], folder: Path, hands: Hands, *, name: str, shard: int = SHARD
) -> list[Path]:
    """Do the task for all clips; the shards' files, in the order of the clips.

    Args:
        folder: where they lie. Shards of other clips or another task must not be in it (`Stage.claim`).
        name: of the progress bar.

    Raises:
        WorkerError: workers died. MissingExtraError: Ray is asked for and missing. Else what the task raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = [list(clips[i : i + shard]) for i in range(0, len(clips), shard)]
    paths = [folder / f"{number:06d}" for number in range(len(shards))]
    wanted = [(each, path) for each, path in zip(shards, paths) if not path.exists()]
    done = len(clips) - sum(len(each) for each, _ in wanted)
    with tqdm(total=len(clips), initial=done, desc=name, unit="clip", disable=not hands.progress) as bar:
        if hands.ray is not None and wanted:
            _by_ray(task, wanted, hands, bar.update)
        elif hands.workers > 1 and len(wanted) > 1:
            _by_processes(task, wanted, hands, bar.update)
        else:
            for each, path in wanted:
                do_shard(task, each, path, hands.threads)
                bar.update(len(each))
    return paths


def forget(folder: Path) -> None:
    """Shards that have been put together."""
    shutil.rmtree(folder, ignore_errors=True)


def _by_processes(
    task: Task, wanted: list[tuple[list[Clip], Path]], hands: Hands, told: Callable[[int], object]
) -> None:
    with ProcessPoolExecutor(min(hands.workers, len(wanted)), get_context("spawn")) as pool:
        running = {pool.submit(do_shard, task, clips, path, hands.threads): len(clips) for clips, path in wanted}
        try:
            for future in as_completed(running):
                future.result()
                told(running[future])
        except BrokenProcessPool:
            raise WorkerError(
                "a worker process died (out of memory, or killed): what it had finished stays; run the same command "
                "again to go on, with fewer workers if memory is short"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _by_ray(task: Task, wanted: list[tuple[list[Clip], Path]], hands: Hands, told: Callable[[int], object]) -> None:
    assert hands.ray is not None
    ray = start_ray(hands.ray, hands.workers, STORE)
    try:
        import ray.data as data

        data.DataContext.get_current().enable_progress_bars = False
        items = [
            {"clips": json.dumps([asdict(clip) for clip in clips]), "path": str(path.resolve())}
            for clips, path in wanted
        ]
        actor: Any = _OnRay  # a class, of which each actor makes one
        rows = data.from_items(items, override_num_blocks=len(items)).map(
            actor,
            fn_constructor_args=(task, hands.threads),
            concurrency=min(hands.workers, len(items)),
            num_cpus=hands.threads if hands.ray != "local" else 1,
            num_gpus=1 if hands.gpu else 0,
        )
        for row in rows.iter_rows():
            if row["error"]:
                raise SpearSpecError(row["error"])
            told(int(row["clips"]))
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:200]
        raise WorkerError(f"the Ray cluster lost its workers ({reason}): run the same command again to go on") from None
    finally:
        ray.shutdown()


class _OnRay:
    """`do_shard` in an actor of Ray Data."""

    def __init__(self, task: Task, threads: int) -> None:
        self.task, self.threads = task, threads

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        clips = [Clip(**each) for each in json.loads(row["clips"])]
        try:
            do_shard(self.task, clips, Path(row["path"]), self.threads)
        except SpearSpecError as error:
            return {"clips": len(clips), "error": str(error)}
        return {"clips": len(clips), "error": ""}
