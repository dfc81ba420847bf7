"""Hypothesis strategies that build objects of our domain, and the small steps that tests share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from rag.catalog import Catalog
from rag.protocols import Vectors
from rag.records import Block, Chunk, Kind, ParsedDocument

EMBEDDER = "test-embedder"
DIMENSION = 8
WORDS = "harbour tide buoy sensor anchor mooring battery cable winter storm north south chart pilot".split()

words = st.sampled_from(WORDS)
sentences = st.lists(words, min_size=1, max_size=12).map(" ".join)


def unit(rows: Vectors) -> Vectors:
    """Rows of length one."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def vectors_for(texts: Sequence[str]) -> Vectors:
    """A vector for each text that one can predict: it depends on the text alone, and is the same in half precision."""
    rows = [np.random.default_rng(abs(hash_of(text))).standard_normal(DIMENSION) for text in texts]
    return unit(np.array(rows).reshape(-1, DIMENSION)).astype(np.float16).astype(np.float32)


def hash_of(text: str) -> int:
    return int.from_bytes(text.encode()[:8].ljust(8, b"\1"), "little") + sum(text.encode())


def parsed_of(texts: Sequence[str]) -> ParsedDocument:
    return ParsedDocument.from_blocks([Block(Kind.TEXT, text) for text in texts], "text/plain")


def chunks_of(parsed: ParsedDocument) -> list[Chunk]:
    """One chunk an element."""
    return [Chunk(e.text, "", e.start, e.end, e.kind, e.page, e.section, 1) for e in parsed.elements]


def put(catalog: Catalog, collection_id: str, name: str, texts: Sequence[str], embedder: str = EMBEDDER) -> str:
    """Take a document through accept, claim and commit; return its id."""
    content = "\n".join(texts)
    batch = catalog.open_batch(collection_id)
    version, _ = catalog.accept(collection_id, name, f"{hash_of(content):064x}"[-64:], len(content), batch=batch)
    claimed = catalog.claim("test", 60.0, batch=batch)
    if claimed is not None:
        parsed = parsed_of(texts)
        chunks = chunks_of(parsed)
        assert catalog.commit(claimed.id, "test", parsed, chunks, vectors_for(texts), embedder)
    return version.document_id
