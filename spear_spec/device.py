"""Where models run, in which dtype, on how many threads."""

from __future__ import annotations

import torch

from spear_spec.config import shown
from spear_spec.errors import ConfigError, DeviceError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def find_device(device: str | torch.device | None) -> torch.device:
    """The device of that name; None takes CUDA where there is one.

    Raises:
        DeviceError: it is unknown or not there.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not isinstance(device, str | torch.device):
        raise DeviceError(f"a device is a name, cpu, cuda or cuda:N, not {shown(device)}")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise DeviceError(f"unknown device {device!r}: cpu, cuda or cuda:N") from None
    if found.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {device!r} is not supported: cpu, cuda or cuda:N")
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (found.index or 0) >= count:
            raise DeviceError(
                f"there is no device {device!r}: torch {torch.__version__} sees {count} CUDA devices; use --device cpu"
            )
    return found


def find_dtype(dtype: str) -> torch.dtype:
    """The dtype of that name.

    Raises:
        ConfigError: there is none.
    """
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {shown(dtype)}: {', '.join(DTYPES)}")
    return DTYPES[dtype]


def set_threads(threads: int) -> None:
    """CPU threads of torch, process-wide.

    Raises:
        ConfigError: no whole number above 0.
    """
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ConfigError(f"threads must be a whole number above 0, not {shown(threads)}")
    torch.set_num_threads(threads)
