"""The floors of the architecture: a room on each, which imports from those below it alone; no circles, a light
import.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import spear_spec

ROOT = Path(spear_spec.__file__).parent
# from the ground up; a room that is not of decoding stands as low as what it needs
ROOMS = (
    "errors",
    "config",
    "audio",
    "registry",
    "device",
    "text",
    "nn",
    "kernels",
    "models",
    "runtime",
    "decoding",
    "engine",
    "acoustic",
    "semantic",
    "voice",
    "meter",
    "timing",
    "saying",
    "pipeline",
    "books",
    "interop",
    "exactness",
    "evaluation",
    "bench",
    "tuning",
    "cluster",
    "training",
    "bulk",
    "serving",
    "cli",
    "__main__",
)
FLOORS = {room: number for number, room in enumerate(ROOMS)}
HEAVY = (
    "spacy",
    "misaki",
    "transformers",
    "faster_whisper",
    "torchaudio",
    "matplotlib",
    "lhotse",
    "hama",
    "spear_tts_pytorch",
    "audiolm_pytorch",
    "soxr",
)


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, module of ours) for every import in the file, those inside functions included."""
    package = ["spear_spec", *path.relative_to(ROOT).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, a.name) for a in node.names if a.name.split(".")[0] == "spear_spec"]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "spear_spec":
                found += [(node.lineno, f"spear_spec.{a.name}") for a in node.names]
            elif module.split(".")[0] == "spear_spec":
                found.append((node.lineno, module))
    return found


def violations(root: Path = ROOT) -> list[str]:
    out = []
    for path in sorted(root.rglob("*.py")):
        room = path.relative_to(root).parts[0].removesuffix(".py")
        if room in ("__init__", "voices"):
            continue
        if room not in FLOORS:
            out.append(f"{path.relative_to(root)}: {room} stands on no floor")
            continue
        for line, module in imports(path):
            other = room_of(module)
            if other != room and other in FLOORS and FLOORS[other] >= FLOORS[room]:
                out.append(
                    f"{path.relative_to(root)}:{line} (floor {FLOORS[room]}) imports {module} (floor {FLOORS[other]})"
                )
            if other == "training" and room not in ("training", "cli"):
                out.append(f"{path.relative_to(root)}:{line}: only cli and recipes import training")
    return out


def at_import(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports of a module that run when it is imported: not those in functions, nor those for the type checker."""
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from at_import(node.orelse)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for field in ("body", "orelse", "finalbody"):
                yield from at_import(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from at_import(handler.body)


def graph(root: Path = ROOT) -> dict[str, set[str]]:
    """What each module imports from the package when it is imported; a name that a package's `__init__` defines is of
    that `__init__`."""
    files = {
        ".".join(["spear_spec", *path.relative_to(root).with_suffix("").parts]).removesuffix(".__init__"): path
        for path in root.rglob("*.py")
    }
    out: dict[str, set[str]] = {}
    for module, path in files.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        out[module] = set()
        for node in at_import(ast.parse(path.read_text(encoding="utf-8")).body):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                above = package.rsplit(".", node.level - 1)[0] if node.level else ""
                base = ".".join(filter(None, (above, node.module)))
                names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in files else base for alias in node.names]
            out[module].update(name for name in names if name in files)
    return out


def circle(of: dict[str, set[str]]) -> list[str]:
    """Modules that import each other, in a ring; empty if there are none."""
    try:
        TopologicalSorter(of).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_floors() -> None:
    assert not violations()


def test_a_room_a_floor() -> None:
    rooms = {p.stem for p in ROOT.iterdir() if p.suffix == ".py" or (p.is_dir() and any(p.rglob("*.py")))}
    assert rooms - {"__init__", "voices"} == FLOORS.keys()
    assert len(ROOMS) == len(FLOORS)


def test_architecture_tells_the_same() -> None:
    text = (ROOT.parent / "ARCHITECTURE.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| (\d+) \| `([a-z_]+)(?:\.py|/)` \|", text, re.M)
    assert told == [(str(number), room) for room, number in FLOORS.items()]


def test_no_circles() -> None:
    assert not circle(graph())


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ("import spear_spec.nn.two", "from spear_spec.nn.one import x", True),
        ("from spear_spec.nn import two", "from . import one", True),
        ("try:\n    from .two import x\nexcept ImportError:\n    pass", "from ..nn.one import x", True),
        ("import spear_spec.nn.two", "def f():\n    from spear_spec.nn import one", False),
        ("import spear_spec.nn.two", "if TYPE_CHECKING:\n    from spear_spec.nn import one", False),
    ],
)
def test_a_circle_is_seen(one: str, other: str, found: bool, tmp_path: Path) -> None:
    (tmp_path / "nn").mkdir()
    (tmp_path / "nn" / "__init__.py").touch()
    (tmp_path / "nn" / "one.py").write_text(one)
    (tmp_path / "nn" / "two.py").write_text(other)
    assert bool(circle(graph(tmp_path))) == found


@pytest.mark.parametrize(("statement", "target"), [
    ("from spear_spec.pipeline import TTS", "spear_spec.pipeline"),
    ("from spear_spec import pipeline", "spear_spec.pipeline"),
    ("import spear_spec.voice.bundle as v", "spear_spec.voice.bundle"),
    ("def f():\n    from ..decoding import generate", "spear_spec.decoding"),
])  # fmt: skip
def test_the_check_sees_each_form_of_import(
    statement: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "nn").mkdir()
    (tmp_path / "nn" / "bad.py").write_text(statement)
    assert [m for _, m in imports(tmp_path / "nn" / "bad.py")] == [target]
    assert len(violations(tmp_path)) == 1


def test_importing_the_package_is_light() -> None:
    code = "import sys, spear_spec, spear_spec.pipeline, spear_spec.cli\n"
    code += f"print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
