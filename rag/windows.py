"""The window of a passage: the chunks around it and itself, as a prompt shows them and as they are read and cited.

A window has the number of its passage, and each of its chunks is a passage of its own to whoever quotes it. Knows the
records alone: neither how passages are found nor how long a text is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rag.records import Neighbour, Passage, Quote


def window(passage: Passage) -> tuple[Passage, ...]:
    """Return a passage and the chunks around it in the order of the document.

    Each of these is a passage as far as its text and its place go; it has neither scores nor copies.
    """
    return tuple(sorted((passage, *(_alone(passage, chunk) for chunk in passage.around)), key=lambda chunk: chunk.seq))


def quoted_chunk(passage: Passage, quote: Quote) -> Passage:
    """Return the chunk of a passage's window in which all of a quote stands; if none has it, the passage itself."""
    holding = (chunk for chunk in window(passage) if chunk.start <= quote.start and quote.end <= chunk.end)
    return next(holding, passage)


def each_once(passages: Sequence[Passage]) -> list[Passage]:
    """Return the passages, best first, with the chunks around them shared out among them, so that none comes twice.

    What is a passage itself stands around no other one, and any other chunk around the nearest passage that has it,
    the better one of two. Where windows reach equally far on both sides, each is then free of gaps.
    """
    ranked = {passage.chunk_id for passage in passages}
    nearest: dict[str, tuple[int, int]] = {}
    for rank, passage in enumerate(passages):
        for chunk in passage.around:
            place = _distance(passage, chunk), rank
            nearest[chunk.chunk_id] = min(place, nearest.get(chunk.chunk_id, place))
    return [
        replace(
            passage,
            around=tuple(
                chunk
                for chunk in passage.around
                if chunk.chunk_id not in ranked and nearest[chunk.chunk_id] == (_distance(passage, chunk), rank)
            ),
        )
        for rank, passage in enumerate(passages)
    ]


def nearest_first(passages: Sequence[Passage]) -> list[tuple[int, Neighbour]]:
    """Return what stands around passages, each chunk with the position of its passage.

    The nearest come first; of those that are equally near, those of the best passage.
    """
    found = [(rank, chunk) for rank, passage in enumerate(passages) for chunk in passage.around]
    return sorted(found, key=lambda item: (_distance(passages[item[0]], item[1]), item[0], item[1].seq))


def _distance(passage: Passage, chunk: Neighbour) -> int:
    return abs(chunk.seq - passage.seq)


def _alone(passage: Passage, chunk: Neighbour) -> Passage:
    return replace(
        passage, chunk_id=chunk.chunk_id, seq=chunk.seq, text=chunk.text, context=chunk.context, start=chunk.start,
        end=chunk.end, kind=chunk.kind, page=chunk.page, section=chunk.section,
        score=0.0, scores={}, like_id=None, also_in=(), around=(),
    )  # fmt: skip
