"""What a CUDA graph can hold, checked without CUDA: a mode in which anything else fails, and a device that stands in.

A graph replays the same operations on the same memory. So nothing in it may be read by the host, no shape may depend on
a value, nothing may be brought from the host, and two calls must do the same operations on tensors of the same shapes.
The first things are seen on the device `meta`, which has no values to read and refuses to mix with the host's tensors;
the last by comparing `trace` of two calls on real values.
"""

from __future__ import annotations

import copy
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")

HOST = {
    "aten._local_scalar_dense", "aten.item", "aten.nonzero", "aten.nonzero_static", "aten.masked_select",
    "aten.is_nonzero", "aten.equal", "aten.allclose", "aten.unique_dim", "aten._unique2", "aten.unique_consecutive",
    "aten.repeat_interleave", "aten.bincount", "aten.lift_fresh",
    # chance that is nobody's
    "aten.multinomial", "aten.bernoulli", "aten.bernoulli_", "aten.rand", "aten.randn", "aten.randint", "aten.uniform_",
    "aten.native_dropout",
}  # fmt: skip


class Capturable(TorchDispatchMode):
    """Fails at what a graph cannot capture, and writes down what is done.

    device: where all tensors must be. trace: of each operation its name, and shapes and dtypes of what comes out.

    Raises:
        AssertionError: values that are read, shapes that depend on them, tensors that come from the host.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.device = torch.device(device)
        self.trace: list[tuple[str, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).rsplit(".", 1)[0]
        assert name not in HOST, f"{func} reads a value, or brings one from the host"
        if name in ("aten.index", "aten.index_put", "aten.index_put_"):
            assert all(index is None or index.dtype != torch.bool for index in args[1]), f"{func} by a mask"
        wanted = (kwargs or {}).get("device")
        assert wanted is None or torch.device(wanted) == self.device, f"{func} goes to {wanted}"
        self._here(func, (args, kwargs))
        out = func(*args, **(kwargs or {}))
        self._here(func, out)
        self.trace.append((name, tuple((x.shape, x.dtype) for x in tree_leaves(out) if isinstance(x, Tensor))))
        return out

    def _here(self, func: Any, values: Any) -> None:
        for value in tree_leaves(values):
            if isinstance(value, Tensor):
                assert value.device == self.device, f"{func} meets a tensor on {value.device}"


def without_values(thing: T) -> T:
    """A copy of an object all of whose tensors are on the device `meta`: what its own attributes and theirs hold."""
    made = copy.deepcopy(thing)
    return _moved(made, {})


def _moved(thing: Any, known: dict[int, Any]) -> Any:
    if id(thing) in known:
        return known[id(thing)]
    if isinstance(thing, Tensor):
        known[id(thing)] = moved = thing.to("meta")
        return moved
    if isinstance(thing, list | tuple):
        items = [_moved(item, known) for item in thing]
        return type(thing)(*items) if hasattr(thing, "_fields") else type(thing)(items)
    if isinstance(thing, dict):
        return {key: _moved(value, known) for key, value in thing.items()}
    known[id(thing)] = thing
    if isinstance(thing, MethodType):
        _moved(thing.__self__, known)
        return thing
    if isinstance(thing, nn.Module):
        thing.to("meta")
    for name, value in list(getattr(thing, "__dict__", {}).items()):
        if not name.startswith(("_parameters", "_buffers")) and not isinstance(value, type):
            object.__setattr__(thing, name, _moved(value, known))
    return thing
