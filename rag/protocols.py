"""The seams of the house: what each part must do, as narrow as its callers need.

Each protocol has a contract test in ``tests/contracts`` that every implementation passes. Implementations are chosen
in ``rag.assembly`` alone. Scores mean one thing everywhere: higher is better.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from rag.records import Delta, Passage, Prompt

Vectors = npt.NDArray[np.float32]
Role = Literal["query", "passage"]
Rows = npt.NDArray[np.int64]
#: One-bit codes of the token vectors of a text, see `rag.late`: shape (codes, dimension / 8).
Codes = npt.NDArray[np.uint8]
Query_contra = TypeVar("Query_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """The tokens of one text: unit ``vectors`` (tokens, dimension) and their character ``spans`` (tokens, 2).

    Special tokens ([CLS], [SEP], padding) are left out; ``ids`` (tokens,) are the tokenizer's ids.
    """

    vectors: Vectors
    spans: npt.NDArray[np.int32]
    ids: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Encoding:
    """What one forward pass gives: unit ``vectors`` (n, dimension); if asked for, ``tokens`` and ``codes`` of each."""

    vectors: Vectors
    tokens: tuple[TokenVectors, ...] = ()
    codes: tuple[Codes, ...] = ()


class Embedder(Protocol):
    """Text to unit vectors. List in, equal length out; text beyond ``window`` tokens is cut off."""

    @property
    def fingerprint(self) -> str:
        """Names weights, pooling and window: vectors of equal fingerprints may be compared."""
        ...

    @property
    def engine(self) -> str:
        """What computes it, for instance ``openvino bf16``: recorded, but no part of the fingerprint."""
        ...

    @property
    def batch(self) -> int:
        """How many passages one call of `encode` should have at a time to keep the processor or the GPUs busy."""
        ...

    @property
    def counter(self) -> str:
        """Names what `rag.tokens.open_counter` opens in any process to count exactly as ``count_tokens`` does."""
        ...

    @property
    def dimension(self) -> int: ...

    @property
    def window(self) -> int: ...

    def encode(
        self, texts: Sequence[str], *, role: Role = "passage", tokens: bool = False, codes: bool = False
    ) -> Encoding:
        """Encode ``texts`` in one or more forward passes; token vectors or their codes come along where asked for.

        ``role`` matters to models that were trained with different prompts for questions and passages.
        """
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the length of each text in tokens, special tokens included, not cut at the window."""
        ...


@dataclass(frozen=True, slots=True)
class Hits:
    """Rows found, best first: ``seqs`` (k,) int64 and their ``scores`` (k,) float32."""

    seqs: Rows
    scores: npt.NDArray[np.float32]


class Index(Protocol[Query_contra]):
    """A derived index over the rows of one collection. The query is a unit vector for dense, text for lexical.

    ``search`` sees every commit made before it was called, in any process, and never returns a retired row.
    """

    def search(self, query: Query_contra, k: int, allowed: Rows | None = None) -> Hits:
        """Return at most ``k`` rows; with ``allowed`` (sorted sequence numbers) only among these. Ties: lower seq."""
        ...

    @property
    def last_seq(self) -> int:
        """The last row that it has taken in; the next search begins with those after it."""
        ...

    def wants_seal(self) -> bool:
        """Say whether enough changed since the last sealing to make it worth its cost."""
        ...

    def seal(self) -> int:
        """Write all rows seen into a new sealed part, name it in the catalog, and return its last sequence number."""
        ...

    def seal_alone(self) -> None:
        """Seal, and remove every older part at once; raises `Unavailable` while another process is at it."""
        ...


class LexicalIndex(Index[str], Protocol):
    """An index of words, which also knows how rare they are."""

    def rarity(self, terms: Sequence[str]) -> list[float]:
        """Return the idf of each of ``terms`` (of `rag.words`) over the rows that are live now, 0 or more."""
        ...


class Reranker(Protocol):
    """How well passages answer a question, by a model that reads both together."""

    @property
    def name(self) -> str: ...

    @property
    def window(self) -> int:
        """How many tokens `lengths` may be; text beyond is cut off."""
        ...

    def lengths(self, question: str, passages: Sequence[str]) -> list[int]:
        """Return for each passage how many tokens are read for it, not cut at the window."""
        ...

    def score(self, question: str, passages: Sequence[str]) -> list[float]:
        """Return a score for each passage; scores of one question may be compared, and nothing else."""
        ...


class Generator(Protocol):
    """Prompt to text. Raises `rag.errors.GeneratorFailed`; yields no text when the passages do not answer."""

    @property
    def name(self) -> str: ...

    @property
    def quotes(self) -> bool:
        """Whether it only quotes passages: then no message reaches it, and it may stand in for a model that fails."""
        ...

    def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]: ...

    async def aclose(self) -> None:
        """Close what is open on the event loop that it was used on; it may be used again afterwards on another."""
        ...


class Model(Generator, Protocol):
    """A generator that is a language model somewhere: it has a window, and may not be ready."""

    async def prompt_tokens(self) -> int:
        """Return how many tokens a prompt may have."""
        ...

    async def ready(self) -> bool:
        """Return whether it is ready to answer; raises `rag.errors.GeneratorFailed` with the reason if it is broken."""
        ...


@runtime_checkable
class Estimating(Protocol):
    """A reader that can say how likely passages answer a question."""

    def probability(self, question: str, passages: Sequence[Passage]) -> float:
        """Return a probability in [0, 1], calibrated."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """``text`` as it may go on, changed or not; where ``refused_by`` names a rail, what is to be said instead."""

    text: str
    refused_by: str | None = None


class Rails(Protocol):
    """What questions and answers have to pass besides all else. Raises `rag.errors.GuardrailsFailed`, never lets by."""

    @property
    def fingerprint(self) -> str:
        """Names the rails: what passed rails of the same fingerprint need not be checked again."""
        ...

    @property
    def holds_answers(self) -> bool:
        """Whether `check_answer` may refuse or change anything."""
        ...

    async def check_question(self, question: str) -> Verdict: ...

    async def check_answer(self, question: str, answer: str, passages: Sequence[str]) -> Verdict:
        """Check a whole answer that was written from some passages."""
        ...


class Judge(Protocol):
    """How far evidence supports a claim."""

    @property
    def name(self) -> str: ...

    @property
    def threshold(self) -> float:
        """Support from which a claim is called supported, unless the settings say otherwise."""
        ...

    def support(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return for each (claim, evidence) a support score in [0, 1]."""
        ...
