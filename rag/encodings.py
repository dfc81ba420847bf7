"""Texts of programs that bring their own: embedded and ranked with the product's models, for many callers at once.

Callers stand in a line of their own (`rag.batching`), so that however much they bring, a question that is searched for
waits behind one of their model calls at most. Texts of several callers are embedded in one call as far as one call
should have at a time; who has left is not embedded for. What is longer than the window is refused or cut, as the caller
says. Knows no index, no catalog and no web.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar, cast

import numpy as np

from rag.batching import Rounds, Turn
from rag.errors import BadInput
from rag.protocols import Embedder, Reranker, Role, Vectors
from rag.reranking import LateInteraction
from rag.settings import ServerSettings

ResultT = TypeVar("ResultT")
_WORD = re.compile(r"\S+")


class Truncate(StrEnum):
    """What becomes of a text that is longer than the window: it is refused, or its start or its end is left out."""

    NONE = "none"
    START = "start"
    END = "end"


@dataclass(frozen=True, slots=True)
class Embedded:
    """Unit ``vectors`` (n, dimension) of n texts, and how many ``tokens`` were read for them."""

    vectors: Vectors
    tokens: int


@dataclass(frozen=True, slots=True)
class Ranked:
    """The ``scores`` of passages in their order, higher is better, and how many ``tokens`` were read for them."""

    scores: list[float]
    tokens: int


@dataclass(frozen=True, slots=True)
class _Texts:
    texts: Sequence[str]
    role: Role
    truncate: Truncate
    reply: Callable[[Embedded], Any]


@dataclass(frozen=True, slots=True)
class _Passages:
    question: str
    passages: Sequence[str]
    truncate: Truncate
    reranker: Reranker
    reply: Callable[[Ranked], Any]


@dataclass(frozen=True, slots=True)
class _Fitted:
    """The texts of a caller as they fit the window."""

    turn: Turn[_Texts | _Passages, Any]
    wanted: _Texts
    texts: Sequence[str]
    tokens: int


class Encodings:
    """Embeds with ``embedder`` and ranks with ``reranker``, or by late interaction where there is none. Thread-safe."""

    def __init__(self, embedder: Embedder, reranker: Reranker | None, settings: ServerSettings) -> None:
        self._embedder = embedder
        self.late: Reranker = LateInteraction(embedder)
        self.reranker = reranker or self.late
        self._rounds: Rounds[_Texts | _Passages, Any] = Rounds(
            self._work_off,
            name="encodings",
            threads=1,
            most=settings.search_batch,
            places=settings.max_searches,
            patience=settings.queue_seconds,
        )

    def embed(
        self, texts: Sequence[str], role: Role, truncate: Truncate, reply: Callable[[Embedded], ResultT]
    ) -> Future[ResultT]:
        """Return the future of what ``reply``, which is called in the thread that embeds, makes of the embeddings.

        Cancel it when nobody waits any more. Raises `Busy` at once if too many callers are there; the future raises
        `BadInput` for a text that is longer than the window and shall not be cut, and what ``reply`` raises.
        """
        return cast(Future[ResultT], self._rounds.submit(_Texts(texts, role, truncate, reply)))

    def rank(
        self,
        question: str,
        passages: Sequence[str],
        truncate: Truncate,
        reranker: Reranker,
        reply: Callable[[Ranked], ResultT],
    ) -> Future[ResultT]:
        """Return the future of what ``reply`` makes of the scores of ``passages`` for a question; see `embed`.

        ``reranker`` is the one of this or `late`; no reranker reads anything but the beginning of a long text.
        """
        return cast(Future[ResultT], self._rounds.submit(_Passages(question, passages, truncate, reranker, reply)))

    def close(self) -> None:
        """Finish what is in hand, and refuse who still waits."""
        self._rounds.close()

    def _work_off(self, turns: Sequence[Turn[_Texts | _Passages, Any]]) -> None:
        fitting: list[_Fitted] = []
        for turn in turns:
            if isinstance(turn.item, _Passages):
                _settle_ranking(turn, turn.item)
            elif not turn.over:
                try:
                    fitting.append(self._fitted(turn, turn.item))
                except BadInput as error:
                    turn.fail(error)
        for role in ("query", "passage"):
            for together in _packed([one for one in fitting if one.wanted.role == role], self._embedder.batch):
                self._embed([one for one in together if not one.turn.over], role)

    def _fitted(self, turn: Turn[_Texts | _Passages, Any], wanted: _Texts) -> _Fitted:
        window, lengths = self._embedder.window, self._embedder.count_tokens(wanted.texts)
        texts = wanted.texts
        if wanted.truncate is Truncate.NONE:
            require_window(lengths, window, "input")
        elif wanted.truncate is Truncate.START and max(lengths, default=0) > window:
            texts = [
                text if length <= window else end_of(text, window, self._count)
                for text, length in zip(texts, lengths, strict=True)
            ]
        return _Fitted(turn, wanted, texts, sum(min(length, window) for length in lengths))

    def _count(self, text: str) -> int:
        return self._embedder.count_tokens([text])[0]

    def _embed(self, together: Sequence[_Fitted], role: Role) -> None:
        """Embed what several callers bring, in as few calls as they should be, and give each what is theirs."""
        try:
            parts = list(self._encoded(together, role))
        except Exception as error:  # noqa: BLE001 -- the caller gets it; the others are embedded without
            if len(together) == 1:
                together[0].turn.fail(error)
            else:
                for one in together:
                    self._embed([one], role)
            return
        vectors, first = np.concatenate(parts), 0
        for one in together:
            own, first = vectors[first : first + len(one.texts)], first + len(one.texts)
            one.turn.settle(_replied(one, own))

    def _encoded(self, together: Sequence[_Fitted], role: Role) -> Iterator[Vectors]:
        """Yield the vectors of all texts, call by call; none are made any more once nobody waits for them."""
        texts = [text for one in together for text in one.texts]
        yield np.zeros((0, self._embedder.dimension), dtype=np.float32)
        for start in range(0, len(texts), self._embedder.batch):
            if all(one.turn.over for one in together):
                return
            yield self._embedder.encode(texts[start : start + self._embedder.batch], role=role).vectors


def _replied(one: _Fitted, vectors: Vectors) -> Callable[[], Any]:
    return lambda: one.wanted.reply(Embedded(vectors, one.tokens))


def _settle_ranking(turn: Turn[Any, Any], wanted: _Passages) -> None:
    def ranked() -> Any:
        reranker, window = wanted.reranker, wanted.reranker.window
        lengths = reranker.lengths(wanted.question, wanted.passages)
        if wanted.truncate is Truncate.NONE:
            require_window(reranker.lengths("", [wanted.question]), window, "query")
            require_window(lengths, window, "passages")
        scores = reranker.score(wanted.question, wanted.passages)
        return wanted.reply(Ranked(scores, sum(min(length, window) for length in lengths)))

    turn.settle(ranked)


def _packed(callers: Sequence[_Fitted], most: int) -> Iterator[list[_Fitted]]:
    """Yield callers in their order, as many at a time as have ``most`` texts together; one alone may have more."""
    together: list[_Fitted] = []
    for one in callers:
        if together and sum(len(other.texts) for other in [*together, one]) > most:
            yield together
            together = []
        together.append(one)
    if together:
        yield together


def require_window(lengths: Sequence[int], window: int, field: str) -> None:
    """Raise `BadInput`, which names the first that is too long, if one of ``lengths`` is beyond the window."""
    place = next((place for place, length in enumerate(lengths) if length > window), None)
    if place is not None:
        named = field if len(lengths) == 1 else f"{field}[{place}]"
        raise BadInput(
            f"{named} has {lengths[place]:,} tokens, and the model reads {window:,}; "
            'shorten it, or send "truncate": "END" to leave out what is beyond.',
            param=field,
            tokens=lengths[place],
            window=window,
        )


def end_of(text: str, window: int, count: Callable[[str], int]) -> str:
    """Return the end of a text that ``count`` says to have ``window`` tokens at most: as many whole words as fit.

    Where the last word alone is too long, it is the end of that word.
    """
    words = [match.start() for match in _WORD.finditer(text)]
    for starts in (words, range(words[-1] if words else 0, len(text) + 1)):
        low, high = 0, len(starts)
        while low < high:
            middle = (low + high) // 2
            if count(text[starts[middle] :]) <= window:
                high = middle
            else:
                low = middle + 1
        if low < len(starts):
            return text[starts[low] :]
    return ""
