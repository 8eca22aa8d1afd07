"""The floors of the architecture: a module imports only from its own floor or below, and importing the package is
light.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import spear_spec

ROOT = Path(spear_spec.__file__).parent
FLOORS = {
    "config": 0,
    "audio": 0,
    "errors": 0,
    "registry": 0,
    "text": 1,
    "nn": 1,
    "kernels": 1,
    "models": 2,
    "semantic": 2,
    "decoding": 3,
    "acoustic": 4,
    "voice": 5,
    "pipeline": 5,
    "bench": 6,
    "evaluation": 6,
    "serve": 6,
    "exactness": 6,
    "tuning": 6,
    "cli": 6,
    "__main__": 6,
    "training": 6,
    "interop": 6,
}
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


def part_of(module: str) -> str:
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
        part = path.relative_to(root).parts[0].removesuffix(".py")
        if part in ("__init__", "voices"):
            continue
        if part not in FLOORS:
            out.append(f"{path.relative_to(root)}: {part} stands on no floor")
            continue
        for line, module in imports(path):
            target = part_of(module)
            if target in FLOORS and FLOORS[target] > FLOORS[part]:
                out.append(
                    f"{path.relative_to(root)}:{line} (floor {FLOORS[part]}) imports {module} (floor {FLOORS[target]})"
                )
            if target == "training" and part not in ("training", "cli"):
                out.append(f"{path.relative_to(root)}:{line}: only cli and recipes import training")
    return out


def test_floors() -> None:
    assert not violations()


def test_every_part_is_there() -> None:
    parts = {p.stem for p in ROOT.iterdir() if p.suffix == ".py" or (p.is_dir() and any(p.glob("*.py")))}
    assert parts - {"__init__"} <= FLOORS.keys()


@pytest.mark.parametrize(
    ("statement", "target"),
    [
        ("from spear_spec.pipeline import TTS", "spear_spec.pipeline"),
        ("from spear_spec import pipeline", "spear_spec.pipeline"),
        ("import spear_spec.voice.bundle as v", "spear_spec.voice.bundle"),
        ("def f():\n    from ..decoding import generate", "spear_spec.decoding"),
    ],
)
def test_the_check_sees_each_form_of_import(
    statement: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "nn").mkdir()
    (tmp_path / "nn" / "bad.py").write_text(statement)
    assert [m for _, m in imports(tmp_path / "nn" / "bad.py")] == [target]
    assert len(violations(tmp_path)) == 1


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, spear_spec, spear_spec.pipeline, spear_spec.cli; "
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
