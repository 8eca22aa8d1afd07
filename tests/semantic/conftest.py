"""A speech encoder for all tests of semantic tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stubs.whisper import make_whisper


@pytest.fixture(scope="session")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whisper(tmp_path_factory.mktemp("whisper"))
