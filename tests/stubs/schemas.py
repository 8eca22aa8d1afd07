"""Results against the JSON Schemas of docs/schemas: unknown and missing fields are errors."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

FOLDER = Path(__file__).parent.parent.parent / "docs" / "schemas"


@cache
def validator(name: str) -> Draft202012Validator:
    """Of a form by its name: say/1."""
    schemas = {path.name: json.loads(path.read_text("utf-8")) for path in FOLDER.glob("*.json")}
    registry = Registry().with_resources((s["$id"], Resource.from_contents(s)) for s in schemas.values())
    return Draft202012Validator(schemas[f"{name.replace('/', '-')}.json"], registry=registry)


def check(result: dict[str, Any], name: str) -> None:
    """Fail with every deviation, each with its place."""
    assert result["schema"] == name
    errors = [f"{error.json_path}: {error.message[:300]}" for error in validator(name).iter_errors(result)]
    assert not errors, "\n".join(errors)
