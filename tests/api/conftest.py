from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ingest.worker import accept_file
from rag.assembly import Citewell, open_citewell
from rag.protocols import Embedder
from rag.settings import load_settings
from tests.api.live import SAMPLES, read_all, serving


@pytest.fixture(scope="session")
def indexed(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder) -> Iterator[Citewell]:
    """A Citewell whose collection ``demo`` holds some samples, read by the real worker. Tests must not change it."""
    settings = load_settings(data=tmp_path_factory.mktemp("indexed"), answers={"cache": False})
    with open_citewell(settings, embedder=embedder) as opened:
        collection = opened.store.catalog.create_collection("demo")
        opened.store.catalog.create_collection("empty")
        for name in ("2026/travel-policy.pdf", "handbook/onboarding.md", "products/price-list.csv"):
            accept_file(opened.store, collection, name, SAMPLES / name)
        read_all(opened)
        yield opened


@pytest.fixture(scope="session")
def reading(indexed: Citewell) -> Iterator[httpx.Client]:
    """A client of a server over `indexed`, for tests that change nothing."""
    with serving(indexed) as client:
        yield client


@pytest.fixture
def client(citewell: Citewell) -> Iterator[httpx.Client]:
    """A client of a server over an empty data folder."""
    with serving(citewell) as connected:
        yield connected


@pytest.fixture
def demo(client: httpx.Client) -> str:
    """The name of an empty collection."""
    assert client.post("/v1/collections", json={"name": "demo"}).status_code == 201
    return "demo"


@pytest.fixture
def travel_policy() -> bytes:
    return Path(SAMPLES / "2026" / "travel-policy.pdf").read_bytes()


@pytest.fixture
def collected() -> Iterator[None]:
    """Collects what a test leaves while its filters of warnings are in force, see `openai_clients.leaves_sockets`."""
    yield
    gc.collect()
