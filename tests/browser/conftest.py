"""Servers for the browser: one over the samples that nobody changes, and one that takes uploads and reads them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from ingest.worker import Worker, accept_file
from rag.assembly import Citewell, open_citewell
from rag.protocols import Embedder
from rag.settings import GeneratorSettings, Settings, load_settings
from tests.api.live import SAMPLES, read_all, serving
from tests.scripted_llm import ScriptedLLM

NAMES = ("2026/travel-policy.pdf", "handbook/onboarding.md", "products/price-list.csv", "handbook/leave-policy.docx")


def fill(citewell: Citewell, *names: str) -> None:
    """Read samples into the collection ``handbook``."""
    collection = citewell.store.catalog.create_collection("handbook")
    for name in names:
        accept_file(citewell.store, collection, name, SAMPLES / name)
    read_all(citewell)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder) -> Iterator[str]:
    """The address of a server over some samples. Tests must not change it."""
    settings = load_settings(data=tmp_path_factory.mktemp("library"))
    with open_citewell(settings, embedder=embedder) as opened:
        fill(opened, *NAMES)
        with serving(opened) as client:
            yield str(client.base_url)


@contextmanager
def working(citewell: Citewell) -> Iterator[None]:
    """Read what is uploaded, beside the server as a worker does."""
    stop = threading.Event()
    with Worker(citewell) as worker:
        thread = threading.Thread(target=worker.run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
def workshop(settings: Settings, embedder: Embedder) -> Iterator[str]:
    """The address of a server over an empty folder, with a worker."""
    quick = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"poll_seconds": 0.05})})
    with open_citewell(quick, embedder=embedder) as opened, serving(opened) as client, working(opened):
        yield str(client.base_url)


@pytest.fixture
def scripted(settings: Settings, embedder: Embedder) -> Iterator[Callable[..., str]]:
    """Returns the address of a server over a sample whose language model plays back the given replies."""
    with ExitStack() as stack:
        llm = stack.enter_context(ScriptedLLM())

        def served(*replies: tuple[object, ...]) -> str:
            llm.on("/v1/chat/completions", *replies)
            generator = GeneratorSettings(kind="openai", base_url=llm.base_url)
            changed = settings.model_copy(update={"generator": generator})
            opened = stack.enter_context(open_citewell(changed, embedder=embedder))
            fill(opened, "2026/travel-policy.pdf")
            return str(stack.enter_context(serving(opened)).base_url)

        yield served
