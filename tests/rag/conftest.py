"""What tests of the core may ask for: an empty catalog with a collection, on both databases, and a scripted LLM."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rag.catalog import Catalog
from tests.scripted_llm import ScriptedLLM


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    """An empty catalog, on SQLite and on PostgreSQL in turn."""
    opened = Catalog(catalog_url)
    yield opened
    opened.close()


@pytest.fixture
def collection(catalog: Catalog) -> str:
    return catalog.create_collection("c").id


@pytest.fixture
def server() -> Iterator[ScriptedLLM]:
    """An OpenAI-compatible server that says what a test has it say."""
    with ScriptedLLM() as running:
        yield running
