"""Where it goes wrong: a failed question put down to the first step of the journey that lost its answer.

    document -> parsing -> retrieval -> ranking -> reading

Each step is asked whether it still had what answers: is a relevant document there, in the content that it was judged
by; do the words of the answer stand in what was read of it; was a chunk that holds them among the candidates; did one
come to the reader. The first step that says no is the cause; if none does, the reader is. Pure functions over plain
records, which `eval.tracing` makes from the catalog and the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from eval.reading import plain_words
from eval.runs import Cause

#: Share of the words of an answer that a text must have to be called one that holds it.
HOLDS = 0.75
#: Words that say nothing of what a text is about.
_EMPTY = frozenset("a an the of to in on at by for and or is are was were be it its that this with as from per".split())


@dataclass(frozen=True, slots=True)
class Source:
    """A relevant document as it is now. ``chunks`` are the texts of its chunks by their ids, none if it is not there.

    ``words`` are those of it that answer, where they were marked. ``unread``: its newest version could not be read, or
    waits for it. ``changed``: its content is not the one that was judged.
    """

    document: str
    chunks: Mapping[str, str] = field(default_factory=dict)
    words: str | None = None
    unread: bool = False
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Trace:
    """What the journey saw: ids of chunks that were candidates at any stage, and of those that went to the reader."""

    candidates: frozenset[str]
    passages: frozenset[str]


def cause_of(answers: Sequence[str], sources: Sequence[Source], trace: Trace) -> tuple[Cause, str]:
    """Return what a wrong answer, or silence, to an answerable question is put down to, and why in a sentence.

    ``answers`` are the accepted ones: without any, all chunks of the relevant documents count as such that answer.
    Raises `ValueError` where no relevant document is known: then no cause can be told.
    """
    if not sources:
        raise ValueError("Without a relevant document no cause can be told.")
    there = [source for source in sources if source.chunks]
    if not there and any(source.unread for source in sources):
        return Cause.PARSING, "A relevant document is in the catalog, but could not be read."
    if not there:
        return Cause.MISSING, "No relevant document is in the collection."
    holding = holding_of(answers, there)
    if not holding:
        return _lost_in_the_document(there, len(there) < len(sources))
    if not holding & trace.candidates:
        return Cause.RETRIEVAL, "No chunk that holds the answer was among the candidates of any stage."
    if not holding & trace.passages:
        return (
            Cause.RANKING,
            "A chunk that holds the answer was a candidate, but none came to the reader.",
        )
    return Cause.READING, "A passage that holds the answer went to the reader."


def _lost_in_the_document(there: Sequence[Source], some_missing: bool) -> tuple[Cause, str]:
    if any(source.unread for source in there):
        return Cause.PARSING, "The newest version of a relevant document could not be read; an older one is searched."
    if any(source.changed for source in there):
        return Cause.MISSING, "A relevant document has another content than the one that was judged."
    if some_missing:
        return Cause.MISSING, "The relevant document that holds the answer is not in the collection."
    return Cause.PARSING, "The words of the answer do not stand in what was read of the relevant documents."


def holding_of(answers: Sequence[str], sources: Sequence[Source]) -> frozenset[str]:
    """Return the ids of the chunks of all ``sources`` that hold their marked words, or else one of the answers."""
    return frozenset(
        key for source in sources for key in holding_chunks([source.words] if source.words else answers, source.chunks)
    )


def holding_chunks(answers: Sequence[str], chunks: Mapping[str, str]) -> frozenset[str]:
    """Return the ids of the chunks that hold one of the answers; of all chunks, if no answer is known.

    Where no chunk has all of the `HOLDS` share of an answer's words, but the chunks together have, those with the most
    of them count: a long answer may be spread over a document.
    """
    wanted = [words for words in map(words_of, answers) if words]
    if not wanted:
        return frozenset(chunks)
    found = {key: words_of(text) for key, text in chunks.items()}
    single = {key for key, words in found.items() if any(_share(answer, words) >= HOLDS for answer in wanted)}
    if single:
        return frozenset(single)
    every = frozenset().union(*found.values())
    spread = [answer for answer in wanted if _share(answer, every) >= HOLDS]
    best = max((len(answer & words) for answer in spread for words in found.values()), default=0)
    return frozenset(key for key, words in found.items() if best and any(len(a & words) == best for a in spread))


def words_of(text: str) -> frozenset[str]:
    """Return the words of a text that say what it is about, without signs and case."""
    return frozenset(plain_words(text).split()) - _EMPTY


def _share(answer: frozenset[str], words: frozenset[str]) -> float:
    return len(answer & words) / len(answer)
