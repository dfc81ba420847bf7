"""The only place that chooses implementations, opens them in order and closes them in reverse.

`open_citewell` adds models and indexes to the store of a data folder. Tests pass parts of their own; production passes
none.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from threadpoolctl import threadpool_limits

from rag.access import Caller
from rag.answering import Answering
from rag.answers import AS_USUAL, NO_WISH, Answer, Keeping, Wish
from rag.batching import BatchingEmbedder
from rag.budget import prompt_room
from rag.catalog import Purged
from rag.dense import DenseIndex
from rag.encodings import Encodings
from rag.errors import NotFound
from rag.grounding import LexicalJudge, least_relevance
from rag.language_model import LanguageModel
from rag.lexical import LexicalIndex
from rag.pipeline import Done, Event, Pipeline
from rag.plan import Filters, make_plan
from rag.protocols import Embedder, Estimating, Generator, Judge, Rails, Reranker
from rag.queries import Message
from rag.reader import Reader
from rag.records import Collection, Plan, Ranking, digest
from rag.refusals import Checks
from rag.replay import Replayed, replay
from rag.retrieval import Indexes, Retriever
from rag.searches import Searches
from rag.settings import BUILT_IN_READER, GeneratorSettings, Settings
from rag.store import Store, open_store
from rag.telemetry import SILENT, Telemetry
from rag.understanding import Interpreter

if TYPE_CHECKING:
    from rag.span_reader import SpanReader

ResultT = TypeVar("ResultT")


@dataclass(slots=True)
class Citewell:
    """A running whole: a store with models and indexes. Thread-safe.

    ``reader`` is the built-in one: the generator itself, or what stands in for it; ``head`` ranks by the same model,
    where a tuning or the settings ask for it. ``telemetry`` is told of the work.
    """

    store: Store
    embedder: Embedder
    reader: Generator
    generator: Generator
    judge: Judge
    open_indexes: Callable[[Collection], Indexes]
    reranker: Reranker | None = None
    head: Reranker | None = None
    telemetry: Telemetry = SILENT
    rails: Rails | None = None
    retriever: Retriever = field(init=False)
    searches: Searches = field(init=False)
    encodings: Encodings = field(init=False)
    interpreter: Interpreter = field(init=False)
    pipeline: Pipeline = field(init=False)
    answering: Answering = field(init=False)
    _indexes: dict[str, Indexes] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        settings = self.store.settings
        embedder = BatchingEmbedder(self.embedder, self.telemetry)
        self.retriever = Retriever(
            self.store.catalog, embedder, self.indexes_of, settings.retrieval, self.reranker, self.head
        )
        self.searches = Searches(self.retriever, embedder, settings.server, self.telemetry)
        self.encodings = Encodings(embedder, self.reranker, settings.server)
        writes = not self.generator.quotes
        self.interpreter = Interpreter(self.generator if writes else None, settings.understanding)
        self.pipeline = Pipeline(
            catalog=self.store.catalog,
            interpreter=self.interpreter,
            searches=self.searches,
            generator=self.generator,
            fall_back=self.reader if writes and settings.generator.fall_back else None,
            judge=self.judge,
            prompt_tokens=prompt_room(settings.generator),
            settings_digest=_digest(settings, self.rails),
            grounding=settings.grounding,
            least_relevance=least_relevance(settings.grounding, self.embedder.fingerprint),
            probability=self.reader.probability if isinstance(self.reader, Estimating) else None,
            checks=Checks(self.rails, settings.guardrails),
            telemetry=self.telemetry,
        )
        self.answering = Answering(self.pipeline, self.store.catalog, settings, self.telemetry)

    def seen_by(self, caller: Caller) -> Citewell:
        """Return this whole as a caller sees it, see `Catalog.seen_by`; close nothing of it.

        Plans, answers of the log and all that its store's catalog knows are the caller's; models and indexes are these.
        """
        seen = copy.copy(self)
        seen.store = replace(self.store, catalog=self.store.catalog.seen_by(caller))
        seen.answering = self.answering.over(seen.store.catalog)
        seen.open_indexes, seen._lock = self.indexes_of, threading.Lock()  # noqa: SLF001 -- the same class
        return seen

    def indexes_of(self, collection: Collection) -> Indexes:
        """Return the indexes of a collection, opened at most once."""
        with self._lock:
            if collection.id not in self._indexes:
                there = {found.id for found in self.store.catalog.list_collections(counted=False)}
                self._indexes = {key: indexes for key, indexes in self._indexes.items() if key in there}
                self._indexes[collection.id] = self.open_indexes(collection)
            return self._indexes[collection.id]

    def behind(self) -> dict[str, int]:
        """Return how many rows of each collection the indexes that are open here have not taken in, by its id.

        A search takes them in before it looks: so many are fetched by the next one.
        """
        with self._lock:
            opened = dict(self._indexes)
        found = {}
        for collection_id, indexes in opened.items():
            with suppress(NotFound):  # it was deleted meanwhile
                last = self.store.catalog.pulse(collection_id).last_seq
                found[collection_id] = max(0, last - min(indexes.dense.last_seq, indexes.lexical.last_seq))
        return found

    def plan(
        self,
        question: str,
        collections: Sequence[str],
        filters: Filters | None = None,
        top_k: int | None = None,
        *,
        parts: Mapping[str, bool] | None = None,
        diversity: float | None = None,
        around: int | None = None,
        section: bool | None = None,
        history: Sequence[Message] = (),
        hidden: bool | None = None,
    ) -> Plan:
        """Return the plan for a question in the collections of these names, see `rag.plan.make_plan`.

        Raises `BadInput` or `NotFound`.
        """
        found = [self.store.catalog.collection(name, counted=False) for name in dict.fromkeys(collections)]
        return make_plan(
            question, found, self.store.settings, filters=filters, top_k=top_k, parts=parts,
            diversity=diversity, around=around, section=section, history=history, hidden=hidden,
        )  # fmt: skip

    def search(self, plan: Plan, *, trace: bool = False) -> Ranking:
        """Return the best passages for a plan, for code that has no event loop; for ``trace`` see `rag.retrieval`.

        A server lets ``interpreter`` understand plans and asks ``searches``, which do the same for many at once.
        """
        if self.interpreter.is_needed(plan):
            plan = self._once(self.interpreter.understand(plan))
        return self.retriever.retrieve(plan, trace=trace)

    def purge(self, collection: Collection, document_ids: Sequence[str] | None = None) -> Purged:
        """Remove for good what is deleted or replaced in a collection, of all its documents or of some of them.

        Their text, vectors and originals are gone from the disk when this returns: both indexes are sealed without
        them, and older sealed parts are removed. Raises `Unavailable` while another process seals an index, or while
        files arrive without a pause; call it again then.
        """
        purged = self.store.catalog.purge(collection.id, document_ids)
        self.store.remove_tuning(collection.id)
        self.store.remove_scores()
        files, size = self.store.remove_originals(purged.originals)
        if not self.store.catalog.queue_length():  # what a purge that died has left; work in hand may need others
            self.store.remove_originals(self.store.originals.list())
        indexes = self.indexes_of(collection)
        indexes.dense.seal_alone()
        indexes.lexical.seal_alone()
        self.store.catalog.forget_rows(collection.id)
        return replace(purged, files=files, bytes=size)

    def stream(self, plan: Plan, wish: Wish = NO_WISH, keeping: Keeping = AS_USUAL) -> AsyncGenerator[Event, None]:
        """Answer a plan, event by event; see `rag.answering.Answering`. Everything that answers goes this way."""
        return self.answering.stream(plan, wish, keeping)

    async def ask(self, plan: Plan, wish: Wish = NO_WISH, keeping: Keeping = AS_USUAL) -> Answer:
        """Answer a plan as a whole; raises as `stream` does."""
        async with aclosing(self.stream(plan, wish, keeping)) as events:
            async for event in events:
                if isinstance(event, Done):
                    return event.answer
        raise AssertionError("a stream of events ends with Done")

    def ask_once(self, plan: Plan, wish: Wish = NO_WISH, keeping: Keeping = AS_USUAL) -> Answer:
        """Answer a plan from code that has no event loop, in one that is closed afterwards."""
        return self._once(self.ask(plan, wish, keeping))

    def replay_once(self, answer_id: str) -> Replayed:
        """Make an answer of the log anew, see `rag.replay.replay`, from code that has no event loop."""
        return self._once(replay(self.answering, self.store.catalog, self.answering.answer(answer_id)))

    def _once(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Return what comes of work with the generator, in an event loop that is closed afterwards."""

        async def run() -> ResultT:
            try:
                return await work
            finally:
                await self.generator.aclose()

        return asyncio.run(run())


@contextmanager
def open_citewell(
    settings: Settings,
    *,
    embedder: Embedder | None = None,
    generator: Generator | None = None,
    judge: Judge | None = None,
    reranker: Reranker | None = None,
    rails: Rails | None = None,
    telemetry: Telemetry = SILENT,
) -> Iterator[Citewell]:
    """Open everything that the settings choose; parts given here take the place of the chosen ones.

    While it is open a search computes in the thread that it has: threads of a BLAS wait for each other by turning in
    circles, which costs the model, and searches beside it, twice the time.

    Raises `Misconfigured` with the cure if a part is not installed or a setting is wrong.
    """
    with (
        threadpool_limits(limits=1, user_api="blas"),
        open_store(settings) as store,
        _opened_embedder(settings, embedder) as chosen,
        _opened_spans(settings) as spans,
        _opened_judge(settings, judge) as chosen_judge,
        _opened_rails(settings, rails) as chosen_rails,
        _opened_engine(store, chosen) as open_indexes,
    ):
        reader, head = _reader(settings, chosen, spans), _head(spans)
        opened = Citewell(
            store,
            chosen,
            reader,
            generator or _open_generator(settings, reader),
            chosen_judge,
            open_indexes,
            reranker or _open_reranker(settings, head),
            head,
            telemetry,
            rails=chosen_rails,
        )
        with closing(opened.searches), closing(opened.encodings), closing(opened.answering):
            yield opened


@contextmanager
def _opened_embedder(settings: Settings, given: Embedder | None) -> Iterator[Embedder]:
    if given is not None:
        yield given
        return
    from rag.encoders import open_embedder

    opened = open_embedder(settings.embedder, settings.cache)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def _opened_engine(store: Store, embedder: Embedder) -> Iterator[Callable[[Collection], Indexes]]:
    """Yield what opens the indexes of a collection, in files of the data folder or in Milvus."""
    catalog, folder, settings = store.catalog, store.index_folder, store.settings.index
    fingerprint, dimension = embedder.fingerprint, embedder.dimension
    if settings.engine == "faiss":
        yield lambda collection: Indexes(
            DenseIndex(catalog, collection.id, fingerprint, dimension, folder, settings),
            LexicalIndex(catalog, collection.id, folder, settings),
        )
        return
    from rag.milvus import Milvus
    from rag.milvus_indexes import MilvusDense, MilvusLexical

    with closing(Milvus(settings)) as milvus:
        yield lambda collection: Indexes(
            MilvusDense(catalog, collection.id, fingerprint, dimension, folder, settings, milvus),
            MilvusLexical(catalog, collection.id, folder, settings, milvus),
        )


def _head(spans: SpanReader | None) -> Reranker | None:
    if spans is None:
        return None
    from rag.reader_head import ReaderHead

    return ReaderHead(spans)


def _open_reranker(settings: Settings, head: Reranker | None) -> Reranker | None:
    if not settings.retrieval.reranker:
        return None
    if settings.retrieval.reranker == BUILT_IN_READER:
        return head
    from rag.cross_encoder import CrossEncoder

    return CrossEncoder(settings.retrieval.reranker, settings.embedder)


@contextmanager
def _opened_spans(settings: Settings) -> Iterator[SpanReader | None]:
    """Yield the trained reader where answers or searches are to be read by it: one model for both."""
    if settings.generator.reader == "words" and settings.retrieval.reranker != BUILT_IN_READER:
        yield None
        return
    from rag.pair_model import TrainedPairs
    from rag.span_reader import SpanReader

    with closing(SpanReader(TrainedPairs("reader"))) as spans:
        yield spans


def _reader(settings: Settings, embedder: Embedder, spans: SpanReader | None) -> Generator:
    words = Reader(embedder)
    if settings.generator.reader == "words" or spans is None:
        return words
    from rag.trained_reader import TrainedReader

    return TrainedReader(spans, words)


@contextmanager
def _opened_judge(settings: Settings, given: Judge | None) -> Iterator[Judge]:
    if given is not None or settings.judge.kind == "words":
        yield given or LexicalJudge()
        return
    from rag.judge import TrainedJudge
    from rag.pair_model import TrainedPairs

    with closing(TrainedJudge(TrainedPairs("judge"))) as judge:
        yield judge


@contextmanager
def _opened_rails(settings: Settings, given: Rails | None) -> Iterator[Rails | None]:
    if given is not None or settings.guardrails.config is None:
        yield given
        return
    from rag.guardrails import NemoRails

    with closing(NemoRails(settings.guardrails)) as rails:
        yield rails


def _digest(settings: Settings, rails: Rails | None) -> str:
    """Return a digest of all that can change an answer: of the settings, and of the rails that it has to pass."""
    return settings.digest() if rails is None else digest(settings.digest(), rails.fingerprint)[:16]


def _open_generator(settings: Settings, reader: Generator) -> Generator:
    return open_language_model(settings.generator) or reader


def open_language_model(settings: GeneratorSettings) -> LanguageModel | None:
    """Return the language model that the settings choose, or None where the built-in reader answers.

    Raises `Misconfigured` with the cure if it can not be asked as they say.
    """
    if settings.kind == "reader":
        return None
    if settings.kind == "llama-index":
        from rag.llama_llm import LlamaIndexGenerator

        return LanguageModel(LlamaIndexGenerator(settings), settings)
    from rag.generators import OpenAIGenerator

    return LanguageModel(OpenAIGenerator(settings), settings)
