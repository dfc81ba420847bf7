"""What every test may ask for: settings over a folder of its own, the real embedder, a whole Citewell, sample files.

The environment is cleared of Citewell's variables first, so that no test depends on who runs it; only the cache of
converted models is shared, since converting takes longer than most tests.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as examples

from rag.assembly import Citewell, open_citewell
from rag.encoders import open_embedder
from rag.protocols import Embedder
from rag.settings import Settings, load_settings
from tests.chromium import chromium, open_page  # noqa: F401
from tests.postgres import (  # noqa: F401
    catalog_url,
    empty_database,
    migrated,
    migrated_file,
    open_another,
    postgresql,
    postgresql_url,
)

for _name in [name for name in os.environ if name.startswith("CITEWELL_") and name != "CITEWELL_CACHE"]:
    del os.environ[_name]

# Machines are busy at times, and no test judges by the clock.
examples.register_profile("citewell", deadline=None, suppress_health_check=[HealthCheck.too_slow])
examples.load_profile("citewell")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests: what is left at the end is then short, and no processor waits for another."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


SAMPLES = Path(__file__).parent.parent / "ingest" / "samples"


@pytest.fixture
def settings(tmp_path: Path, migrated_file: Path) -> Settings:  # noqa: F811
    """The defaults, over a data folder with an empty catalog: its tables are not made anew for each test."""
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(migrated_file, folder)
    return load_settings(data=folder)


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    """The real embedder, loaded once."""
    chosen = load_settings()
    return open_embedder(chosen.embedder, chosen.cache)


@pytest.fixture
def citewell(settings: Settings, embedder: Embedder) -> Iterator[Citewell]:
    """A whole Citewell with the built-in reader, over an empty data folder."""
    with open_citewell(settings, embedder=embedder) as opened:
        yield opened


@pytest.fixture(scope="session")
def sample_files() -> list[Path]:
    """The documents that the product carries for its demonstration."""
    return sorted(path for path in SAMPLES.rglob("*") if path.is_file())
