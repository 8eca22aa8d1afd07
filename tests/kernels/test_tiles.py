"""Products of 8-bit weights: by tiles, by tiles written out in C, by the machine's vectors and as any machine can,
against whole numbers. All are the same to the last bit.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spear_spec.kernels import native, structures
from spear_spec.kernels.matrix import Matrix
from spear_spec.kernels.rounded import RoundedLinear
from spear_spec.kernels.structures import TILE_IN

ROOT = Path(__file__).parents[2]
SHAPES = [(1, 1), (33, 64), (300, 65), (8, 2000)]
ROWS = (1, 2, 3, 5, 7, 12, 13, 16, 17, 33)
Product = Callable[[int, Tensor, Tensor | None, Tensor], None]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ctypes.CDLL]:
    """The products alone, compiled without vectors and with tiles written out; a copy of the library, without tiles."""
    flags = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"][0]
    sources = [ROOT / "spear_spec/kernels" / f"{name}.c" for name in ("product", "bytes", "team", "tiles")]
    folder, found = tmp_path_factory.mktemp("tiles"), {}
    shutil.copy(native.library()._name, folder / "vectors.so")
    found["vectors"] = ctypes.CDLL(str(folder / "vectors.so"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPEAR_SPEC_TILES", "0")
        assert found["vectors"].spear_tiles() == 0  # asks once
    for name, more in (("plain", ["-DWIDER=0"]), ("written", ["-DTILES=2"])):
        path = folder / f"{name}.so"
        command = ["gcc", "-shared", "-fPIC", *flags["extra-compile-args"], *more, *map(str, sources), "-o", str(path)]
        done = subprocess.run([*command, "-lm", "-lpthread"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found[name] = ctypes.CDLL(str(path))
    return {"machine": ctypes.CDLL(native.library()._name), **found}


def product_of(library: ctypes.CDLL, matrix: Matrix) -> Product:
    call = library.spear_product
    call.restype, call.argtypes = structures._SIGNATURES["spear_product"]

    def run(rows: int, x: Tensor, add: Tensor | None, y: Tensor) -> None:
        step = 0 if add is None else matrix.shape[0]
        call(matrix.struct, rows, x.data_ptr(), None if add is None else add.data_ptr(), step, y.data_ptr())

    return run


def bytes_of(library: ctypes.CDLL, linear: RoundedLinear) -> Product:
    struct, held = linear.packed()
    call, wide = library.spear_bytes, -(-linear.shape[1] // TILE_IN) * TILE_IN
    call.restype = None
    call.argtypes = [ctypes.c_void_p, ctypes.c_int64, *[ctypes.c_void_p] * 2, ctypes.c_int64, *[ctypes.c_void_p] * 2]

    def run(rows: int, x: Tensor, add: Tensor | None, y: Tensor) -> None:
        assert held
        room = torch.empty(rows * (wide + 8) + 64, dtype=torch.uint8)
        at = None if add is None else add.data_ptr()
        step = 0 if add is None else linear.shape[0]
        call(ctypes.addressof(struct), rows, x.data_ptr(), at, step, y.data_ptr(), room.data_ptr())

    return run


def numbers(rows: int, inputs: int) -> Tensor:
    """Rows of all sizes: the largest codes, one of zeros, one as good as zero, an infinity in the last of many."""
    x = torch.randn(rows, inputs)
    x[0] = x[0].sign()
    if rows > 2:
        x[1], x[2] = 0, 1e-38
    if rows > 20:
        x[-1, -1] = float("inf")
    return x


@pytest.mark.parametrize("kind", ["product", "bytes"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_way_gives_the_same_bits(kind: str, shape: tuple[int, int], built: dict[str, ctypes.CDLL]) -> None:
    torch.manual_seed(3)
    out, inputs = shape
    weight = torch.randn(shape)
    codes = (weight / (scale := weight.abs().amax(1) / 127)[:, None]).round()
    codes[0] = 127
    matrix, linear = Matrix.of_codes(codes.to(torch.int8), scale), RoundedLinear(codes * scale[:, None])
    most = 127 if kind == "bytes" else min(32767, (2**31 - 1) // (127 * inputs))
    ways = {
        name: product_of(library, matrix) if kind == "product" else bytes_of(library, linear)
        for name, library in built.items()
    }
    for rows in ROWS:
        x = numbers(rows, inputs)
        top = x.abs().amax(1, keepdim=True)
        by = torch.where((top >= 1e-30) & (top < float("inf")), torch.tensor(float(most)) / top, 0)
        rounded = torch.where(by > 0, x * by, 0).round().double()
        for add in (None, torch.randn(rows, out)):
            found = {}
            for name, run in ways.items():
                y = torch.full((rows, out), 7.0) if add is None else add.clone()
                run(rows, x, None if add is None else y, y)
                found[name] = y
            expected = rounded @ codes.double().T * (top.double() / most) * scale.double()
            expected = expected if add is None else expected + add.double()
            fine = expected.isfinite() & ~(top == float("inf"))
            torch.testing.assert_close(found["machine"].double()[fine], expected[fine], atol=1e-4, rtol=1e-5)
            assert not found["machine"][~fine].isfinite().any()
            for name in ("vectors", "written"):
                assert torch.equal(found["machine"].nan_to_num(9), found[name].nan_to_num(9)), (name, rows)
            # no fused multiplication and addition there
            torch.testing.assert_close(found["machine"], found["plain"], atol=1e-5, rtol=1e-5, equal_nan=True)


def test_tiles_can_be_kept_out() -> None:
    """The same library in processes of their own: it asks once."""
    ask = f"import ctypes; print(ctypes.CDLL({native.library()._name!r}).spear_tiles())"
    for value in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", ask], env={**os.environ, "SPEAR_SPEC_TILES": value}, capture_output=True, text=True
        )
        flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
        assert done.stdout.strip() == ("1" if value == "1" and "amx_int8" in flags else "0"), done.stderr
