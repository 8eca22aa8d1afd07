"""Modules without memory: what a builder makes before the shapes of its weights are found right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_FILLS = {Tensor.normal_, Tensor.uniform_, Tensor.exponential_, Tensor.random_, Tensor.bernoulli_}
_DRAWS = {torch.rand, torch.randn}
_SCALES = {Tensor.mul, Tensor.__mul__, Tensor.__rmul__, Tensor.div, Tensor.__truediv__}


class Blueprint(TorchFunctionMode):
    """As `torch.device("meta")`, for the thread that enters it alone; what initialises does nothing at all.

    Even on the meta device initialising costs something: in a process's first call of `normal_`, `randn` or
    `tensor * number` torch imports its compiler, for six seconds.
    """

    def __enter__(self) -> Blueprint:
        self._device = torch.device("meta")
        self._device.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._device.__exit__(*error)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Leave out what initialises, pass on the rest."""
        kwargs = kwargs or {}
        if func in _FILLS or getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        if func in _DRAWS:
            return torch.empty(*args, **{name: value for name, value in kwargs.items() if name != "generator"})
        if func in _SCALES and len(args) == 2 and isinstance(args[1], (int, float)):
            return args[0]
        return func(*args, **kwargs)
