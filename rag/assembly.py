"""The only place that chooses implementations, opens them in order and closes them in reverse.

`open_store` gives the catalog and the originals, which is enough to list, upload and delete; `open_citewell` adds the
models and indexes that search and answer. Tests pass parts of their own; production passes none.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rag.catalog import Catalog
from rag.dense import DenseIndex
from rag.errors import Misconfigured
from rag.lexical import LexicalIndex
from rag.originals import Originals
from rag.pipeline import Pipeline
from rag.plan import Filters, make_plan
from rag.protocols import Embedder, Generator, Judge
from rag.reader import Reader
from rag.records import Answer, Collection, Plan, Ranking
from rag.retrieval import Indexes, Retriever
from rag.settings import Settings

#: Tokens of the window that are kept free between prompt and answer, since prompts are measured by an estimate.
SLACK = 64


@dataclass(frozen=True, slots=True)
class Store:
    """What lies in a data folder, without any model."""

    settings: Settings
    catalog: Catalog
    originals: Originals

    @property
    def index_folder(self) -> Path:
        return self.settings.data / "indexes"

    def delete_collection(self, name: str) -> Collection:
        """Remove a collection: its rows in one transaction, then the files that nothing needs any more."""
        collection = self.catalog.collection(name)
        for sha256 in self.catalog.delete_collection(collection.id):
            self.originals.remove(sha256)
        shutil.rmtree(self.index_folder / collection.id, ignore_errors=True)
        return collection


@dataclass(slots=True)
class Citewell:
    """A running whole: a store with models and indexes. Thread-safe."""

    store: Store
    embedder: Embedder
    generator: Generator
    judge: Judge
    retriever: Retriever = field(init=False)
    pipeline: Pipeline = field(init=False)
    _indexes: dict[str, Indexes] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        settings = self.store.settings
        self.retriever = Retriever(self.store.catalog, self.embedder, self.indexes_of, settings.retrieval.dense_weight)
        falls_back = settings.generator.fall_back and not isinstance(self.generator, Reader)
        self.pipeline = Pipeline(
            catalog=self.store.catalog,
            retriever=self.retriever,
            generator=self.generator,
            fall_back=Reader(self.embedder) if falls_back else None,
            judge=self.judge,
            prompt_tokens=settings.generator.context_tokens - settings.generator.max_tokens - SLACK,
            settings_digest=settings.digest(),
        )

    def indexes_of(self, collection: Collection) -> Indexes:
        """Return the indexes of a collection, opened at most once."""
        with self._lock:
            if collection.id not in self._indexes:
                there = {found.id for found in self.store.catalog.list_collections()}
                self._indexes = {key: indexes for key, indexes in self._indexes.items() if key in there}
                catalog, folder, settings = self.store.catalog, self.store.index_folder, self.store.settings.index
                fingerprint, dimension = self.embedder.fingerprint, self.embedder.dimension
                self._indexes[collection.id] = Indexes(
                    DenseIndex(catalog, collection.id, fingerprint, dimension, folder, settings),
                    LexicalIndex(catalog, collection.id, folder, settings),
                )
            return self._indexes[collection.id]

    def plan(
        self, question: str, collections: Sequence[str], filters: Filters | None = None, top_k: int | None = None
    ) -> Plan:
        """Return the plan for a question in the collections of these names; raises `BadInput` or `NotFound`."""
        found = [self.store.catalog.collection(name) for name in dict.fromkeys(collections)]
        return make_plan(question, found, self.store.settings, filters=filters, top_k=top_k)

    def search(self, plan: Plan) -> Ranking:
        """Return the best passages for a plan."""
        return self.retriever.retrieve(plan)

    async def ask(self, plan: Plan) -> Answer:
        """Answer a plan as a whole."""
        return await self.pipeline.answer(plan)


@contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    """Open the data folder, making it if it is not there; raises `Misconfigured` if it can not be used."""
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
        originals = Originals(settings.data / "originals")
    except OSError as error:
        raise Misconfigured(f"The data folder {settings.data} can not be used: {error.strerror}.") from error
    catalog = Catalog.in_folder(settings.data)
    try:
        yield Store(settings, catalog, originals)
    finally:
        catalog.close()


@contextmanager
def open_citewell(
    settings: Settings,
    *,
    embedder: Embedder | None = None,
    generator: Generator | None = None,
    judge: Judge | None = None,
) -> Iterator[Citewell]:
    """Open everything that the settings choose; parts given here take the place of the chosen ones.

    Raises `Misconfigured` with the cure if a part is not installed or a setting is wrong.
    """
    with open_store(settings) as store:
        from rag.grounding import LexicalJudge

        chosen = embedder or _open_embedder(settings)
        yield Citewell(store, chosen, generator or _open_generator(settings, chosen), judge or LexicalJudge())


def _open_embedder(settings: Settings) -> Embedder:
    from rag.encoders import open_embedder

    return open_embedder(settings.embedder, settings.cache)


def _open_generator(settings: Settings, embedder: Embedder) -> Generator:
    if settings.generator.kind == "reader":
        return Reader(embedder)
    from rag.generators import OpenAIGenerator

    return OpenAIGenerator(settings.generator)
