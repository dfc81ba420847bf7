"""A Citewell whose questions can be held up in the embedder, to see what goes on meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rag.assembly import Citewell, open_citewell
from rag.protocols import Encoding, Generator, Role
from rag.records import Block, Chunk, Kind, ParsedDocument
from rag.settings import Settings
from rag.testing import WordEmbedder

PATIENCE = 30
PLAIN = WordEmbedder()
TEXTS = [f"animal{number} lives in house{number % 7} by the sea{number % 3}" for number in range(60)]


@dataclass
class Gate:
    """A `WordEmbedder` whose calls for questions wait until the gate is ``open``; it keeps what it embeds."""

    open: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    calls: list[list[str]] = field(default_factory=list)
    fingerprint, engine, counter = PLAIN.fingerprint, PLAIN.engine, PLAIN.counter
    batch, dimension, window = PLAIN.batch, PLAIN.dimension, PLAIN.window

    def encode(
        self, texts: Sequence[str], *, role: Role = "passage", tokens: bool = False, codes: bool = False
    ) -> Encoding:
        if role == "query":
            self.calls.append(list(texts))
            self.entered.set()
            assert self.open.wait(PATIENCE)
        return PLAIN.encode(texts, role=role, tokens=tokens, codes=codes)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return PLAIN.count_tokens(texts)


@contextmanager
def gated(settings: Settings, gate: Gate, generator: Generator | None = None) -> Iterator[Citewell]:
    """Yield a Citewell with `TEXTS` in the collection ``c``; at the end the gate is opened."""
    with open_citewell(settings, embedder=gate, generator=generator) as opened:
        catalog = opened.store.catalog
        version, _ = catalog.accept(catalog.create_collection("c").id, "animals", "a" * 64, 1)
        catalog.claim("t", 60)
        parsed = ParsedDocument.from_blocks([Block(Kind.TEXT, text, 1) for text in TEXTS], "text/plain")
        chunks = [Chunk(e.text, "", e.start, e.end, e.kind, e.page, e.section, 1) for e in parsed.elements]
        made = PLAIN.encode(TEXTS, codes=True)
        catalog.commit(version.id, "t", parsed, chunks, made.vectors, PLAIN.fingerprint, codes=made.codes)
        try:
            yield opened
        finally:
            gate.open.set()
