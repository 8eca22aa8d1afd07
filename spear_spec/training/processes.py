"""One process or several that train one model together: what each of them does alone, and where they meet.

Several are started by `accelerate launch` (or torchrun), one on each GPU; the library finds its device and adds the
gradients up. One process needs nothing of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spear_spec.errors import ConfigError, MissingExtraError


class Processes:
    """This process among `count`; rank 0 (`main`) alone writes."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        """One process."""
        self.rank, self.count, self.device = 0, 1, torch.device(device)

    @property
    def main(self) -> bool:
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module as a forward pass is to be called: its gradients become the mean over the processes."""
        return module

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of each number, over the processes; without a gradient."""
        return dict(values)

    def most(self, *values: float) -> list[float]:
        """The largest of each number over all processes, the same everywhere."""
        return list(values)

    def wait(self) -> None:
        """Until all are here."""


class Several(Processes):
    """Processes that `accelerate launch` has started."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        """Raises MissingExtraError: accelerate is not installed."""
        try:
            from accelerate import Accelerator, DistributedDataParallelKwargs
        except ImportError:
            raise MissingExtraError(
                "several processes were started, and training in several needs accelerate: "
                "pip install 'spear_spec[train]', or start one"
            ) from None
        # a transformer may have weights that no loss reaches
        every = DistributedDataParallelKwargs(find_unused_parameters=True)
        self._library: Any = Accelerator(cpu=torch.device(device).type == "cpu", kwargs_handlers=[every])
        self.rank, self.count = self._library.process_index, self._library.num_processes
        self.device = self._library.device
        # numbers that the host decides by are exchanged without waiting for the GPU
        nccl = torch.distributed.get_backend() == "nccl"
        self._meeting = torch.distributed.new_group(backend="gloo") if nccl else torch.distributed.group.WORLD

    def wrap(self, module: nn.Module) -> nn.Module:
        wrapped: nn.Module = self._library.prepare_model(module)
        return wrapped

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        total = torch.stack([value.detach().float() for value in values.values()])
        torch.distributed.all_reduce(total)
        return dict(zip(values, total / self.count))

    def most(self, *values: float) -> list[float]:
        both = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(both, torch.distributed.ReduceOp.MAX, group=self._meeting)
        return [float(value) for value in both]

    def wait(self) -> None:
        self.most(0.0)


def started() -> int:
    """How many processes were started to train together.

    Raises:
        ConfigError: the environment says something that is no number.
    """
    told = os.environ.get("WORLD_SIZE", "1")
    if not told.isdigit() or int(told) < 1:
        raise ConfigError(f"WORLD_SIZE must be a number of processes, not {told!r}")
    return int(told)


def find_processes(device: str | torch.device = "cpu") -> Processes:
    """This process, and those that were started with it.

    Raises:
        MissingExtraError: there are several, and accelerate is not installed. ConfigError: see `started`.
    """
    return Several(device) if started() > 1 else Processes(device)
