"""What the journey of one answer saw, and what the catalog holds of the documents that it should have seen.

Turns answers and the catalog into the plain records of `eval.causes`; decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from eval.causes import Source, Trace
from eval.runs import Wanted
from rag.catalog import Catalog
from rag.errors import NotFound
from rag.records import Passage, State

#: More rows than a version can have.
_ALL_ROWS = 1 << 30
#: The stages whose order goes on behind the passages, the last one first.
_ORDERS = ("reranked", "late", "fused")


def sources_of(catalog: Catalog, wanted: Wanted) -> list[Source]:
    """Return the relevant documents of a question as they are in its collection now; raises `NotFound`."""
    collection = catalog.collection(wanted.collection, counted=False)
    found = []
    for relevant in wanted.relevant:
        try:
            document = catalog.find_document(collection.id, relevant.document)
        except NotFound:
            found.append(Source(relevant.document, words=relevant.text))
            continue
        unread = document.newest.state in {State.FAILED, State.QUEUED, State.PROCESSING}
        if document.live_version_id is None:
            found.append(Source(relevant.document, words=relevant.text, unread=unread))
            continue
        chunks = catalog.neighbours(collection.id, document.live_version_id, 0, _ALL_ROWS)
        live = catalog.version(document.live_version_id)
        changed = relevant.sha256 is not None and relevant.sha256 != live.sha256
        texts = {chunk.chunk_id: chunk.indexed_text for chunk in chunks}
        found.append(Source(relevant.document, texts, relevant.text, unread, changed))
    return found


def trace_of(passages: Iterable[Passage], stages: Mapping[str, Sequence[str]]) -> Trace:
    """Return which chunks were candidates at any stage, and which went to the reader, copies included."""
    shown = frozenset(key for passage in passages for key in _keys(passage))
    return Trace(frozenset(key for ids in stages.values() for key in ids) | shown, shown)


def ranking_of(passages: Iterable[Passage], stages: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the ids of the chunks that were found, best first: the passages, and what stood behind them."""
    first = [key for passage in passages for key in _keys(passage)]
    behind = [key for name in _ORDERS for key in stages.get(name, ())]
    return list(dict.fromkeys([*first, *behind]))


def _keys(passage: Passage) -> list[str]:
    around = [chunk.chunk_id for chunk in passage.around]
    return [passage.chunk_id, *(copy.chunk_id for copy in passage.also_in), *around]
