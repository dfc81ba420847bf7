"""A cache of its own for tests that load corpora: empty but for the converted model, which takes long to make."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag.settings import load_settings


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    if (models := load_settings().cache / "models").is_dir():
        (folder / "models").symlink_to(models)
    return folder
