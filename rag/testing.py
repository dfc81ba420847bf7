"""Deterministic doubles of the models, shipped with the product: for its tests and for those of its users.

They stand behind the same protocols, and one can predict what they do. Knows no model library.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import numpy as np

from rag.errors import GeneratorFailed
from rag.late import codes_of
from rag.protocols import Encoding, Role, TokenVectors, Vectors
from rag.records import Delta, Prompt
from rag.tokens import WORD, WORDS, count_words


@dataclass(frozen=True, slots=True)
class WordEmbedder:
    """An embedder whose tokens are words: each has a fixed random unit vector, and a text the mean of its words.

    Texts with the same words in any order get the same vector; texts without a word in common nearly orthogonal ones.
    """

    dimension: int = 64
    window: int = 32

    @property
    def fingerprint(self) -> str:
        return f"words-{self.dimension}-{self.window}"

    @property
    def engine(self) -> str:
        return "numpy"

    @property
    def batch(self) -> int:
        return 64

    @property
    def counter(self) -> str:
        return WORDS

    def encode(
        self, texts: Sequence[str], *, role: Role = "passage", tokens: bool = False, codes: bool = False
    ) -> Encoding:
        """See `rag.protocols.Embedder`."""
        del role
        found = [self._tokens(text) for text in texts]
        sums = [t.vectors[np.argsort(t.ids)].sum(axis=0) if len(t.ids) else np.zeros(self.dimension) for t in found]
        vectors = _unit(np.array(sums, dtype=np.float32).reshape(len(texts), self.dimension))
        none = np.zeros(self.dimension, dtype=np.float32)
        packed = tuple(codes_of(text, t, none) for text, t in zip(texts, found, strict=True)) if codes else ()
        return Encoding(vectors, tuple(found) if tokens else (), packed)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return count_words(texts)

    def _tokens(self, text: str) -> TokenVectors:
        matches = list(WORD.finditer(text))[: self.window - 2]
        ids = np.array([zlib.crc32(m.group().casefold().encode()) & 0x7FFFFFFF for m in matches], dtype=np.int32)
        rows = [np.random.default_rng(int(i)).standard_normal(self.dimension) for i in ids]
        spans = np.array([m.span() for m in matches], dtype=np.int32).reshape(-1, 2)
        return TokenVectors(_unit(np.array(rows, dtype=np.float32).reshape(-1, self.dimension)), spans, ids)


@dataclass(slots=True)
class ScriptedGenerator:
    """A generator that says what it was told to: ``pieces`` in order, then fails with ``failure`` if there is one.

    ``prompts`` records what it was asked. ``closed`` counts the answers that were broken off before their end.
    """

    pieces: Sequence[str | Delta]
    failure: str | None = None
    name: str = "scripted"
    quotes: bool = False
    prompts: list[Prompt] = field(default_factory=list)
    closed: int = 0

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """See `rag.protocols.Generator`."""
        self.prompts.append(prompt)
        try:
            for piece in self.pieces:
                await asyncio.sleep(0)
                yield piece if isinstance(piece, Delta) else Delta(piece)
        except GeneratorExit:
            self.closed += 1
            raise
        if self.failure:
            raise GeneratorFailed(self.failure)

    async def aclose(self) -> None:
        """Nothing is open."""


def _unit(rows: Vectors) -> Vectors:
    unit: Vectors = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return unit
