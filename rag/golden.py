"""The records of golden questions: what is asked, what people hold to be right, and the documents that say so.

Each document stands with the content that it had when somebody last confirmed the question, so that a change of it is
noticed. Knows no database and no file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rag.records import digest


class Outcome(StrEnum):
    """What became of a question that was added: an equal one that was there is replaced, or found to be the same."""

    ADDED = "added"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"


class Standing(StrEnum):
    """How a document stands to the question that it answers.

    confirmed: what was confirmed is searched. changed: other content is. reworded: the words that were named stand in
    no passage of it. gone: nothing of it is searched.
    """

    CONFIRMED = "confirmed"
    CHANGED = "changed"
    REWORDED = "reworded"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Content:
    """One content of a document: the number of its version, and the digest of its original."""

    document_id: str
    version: int
    sha256: str


@dataclass(frozen=True, slots=True)
class GoldenDocument:
    """A document that answers a question: its name, words of the passage that answers, if any are named.

    ``confirmed`` is the content that it had when the question was last confirmed; None if it was not there.
    """

    name: str
    text: str | None = None
    confirmed: Content | None = None

    def stands(self, live: Content | None, *, has_words: bool = True) -> Standing:
        """Say how it stands now that ``live`` is searched of it, in which its words stand or not."""
        if live is None:
            return Standing.GONE
        if not has_words:
            return Standing.REWORDED
        same = self.confirmed is not None and self.confirmed.sha256 == live.sha256
        return Standing.CONFIRMED if same else Standing.CHANGED


@dataclass(frozen=True, slots=True)
class Proposed:
    """A question to be added. A document whose content is known is confirmed with that, others with what is searched.

    ``quoting``: the reference is made of sentences of an answer, which rest on the documents.
    """

    question: str
    reference: str | None = None
    answerable: bool = True
    documents: tuple[GoldenDocument, ...] = ()
    tags: frozenset[str] = frozenset()
    quoting: bool = False


@dataclass(frozen=True, slots=True)
class GoldenQuestion:
    """A question of a golden set. One that is not ``answerable`` is right to be met with silence.

    ``purged_at`` says since when words of it are missing that stood in documents which were purged.
    """

    id: str
    collection_id: str
    question: str
    reference: str | None
    answerable: bool
    documents: tuple[GoldenDocument, ...]
    tags: frozenset[str]
    quoting: bool
    created_at: datetime
    confirmed_at: datetime
    purged_at: datetime | None = None

    def says(self, proposed: Proposed) -> bool:
        """Say whether a proposed question says the same; with what content its documents are confirmed is no part."""
        return (self.question, self.reference, self.answerable, self.tags, _named(self.documents)) == (
            proposed.question, proposed.reference, proposed.answerable, proposed.tags, _named(proposed.documents)
        )  # fmt: skip


def golden_id(collection_id: str, question: str) -> str:
    """Return the id of a question, which is the same for any writing of spaces and capitals."""
    return digest("golden", collection_id, " ".join(question.split()).casefold())


def _named(documents: Iterable[GoldenDocument]) -> list[tuple[str, str | None]]:
    return [(document.name, document.text) for document in documents]
