"""Golden questions as they go over the wire, see ``api.schemas``.

This module knows no route and no database.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from api.schemas import Text
from eval.golden import MOST_DOCUMENTS, MOST_TAGS, NAME, QUESTION, REFERENCE, TAG, Checked, proposed
from rag.golden import GoldenDocument, GoldenQuestion, Outcome, Proposed, Standing

#: Most questions, and answers of the log, of one request.
MOST_AT_ONCE = 1_000


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True)


Tags = Annotated[list[Annotated[Text, Field(min_length=1, max_length=TAG)]], Field(max_length=MOST_TAGS)]


class GoldenDocumentRequest(_Request):
    """A document that answers a question."""

    name: Text = Field(min_length=1, max_length=NAME, examples=["2026/travel-policy.pdf"])
    text: Text | None = Field(
        None, min_length=1, max_length=REFERENCE, description="Words of the passage that answers."
    )


class GoldenRequest(_Request):
    """A question, and what people hold to be right."""

    question: Text = Field(min_length=1, max_length=QUESTION, examples=["What is the hotel limit?"])
    answer: Text | None = Field(None, min_length=1, max_length=REFERENCE, examples=["145 euros per night"])
    documents: list[GoldenDocumentRequest] = Field([], max_length=MOST_DOCUMENTS)
    tags: Tags = Field([], examples=[["travel"]])
    answerable: bool = Field(True, strict=True, description="False: nothing in the documents answers it.")

    @property
    def proposed(self) -> Proposed:
        documents = [GoldenDocument(one.name, one.text) for one in self.documents]
        return proposed(self.question, self.answer, documents, self.tags, self.answerable)


class NewGolden(_Request):
    """Questions to add to the golden set of a collection."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "collection": "handbook",
                    "questions": [
                        {
                            "question": "What is the hotel limit?",
                            "answer": "145 euros per night",
                            "documents": [{"name": "2026/travel-policy.pdf"}],
                            "tags": ["travel"],
                        }
                    ],
                }
            ]
        }
    )

    collection: Text
    questions: list[GoldenRequest] = Field([], max_length=MOST_AT_ONCE)
    answers: list[Text] = Field(
        [],
        max_length=MOST_AT_ONCE,
        description="Ids of answers of the log: their questions, with what they say and cite.",
    )
    tags: Tags = Field([], description="For all of them.")


class GoldenDocumentReply(_Reply):
    """A document that answers a question, and the version of it that was confirmed, if it was there."""

    name: str
    text: str | None
    version: int | None = Field(examples=[2])
    standing: Standing | None = Field(
        None,
        description="confirmed: what was confirmed is searched. changed: other content is. reworded: the words of "
        "`text` stand in no passage. gone: nothing of it is searched. null where it was not looked up.",
    )


class GoldenReply(_Reply):
    """A golden question. `drift` says why somebody should look at it again; null where that was not looked up."""

    id: str
    collection_id: str
    question: str
    answer: str | None
    answerable: bool
    documents: list[GoldenDocumentReply]
    tags: list[str]
    created_at: datetime
    confirmed_at: datetime = Field(description="When somebody last said that it holds.")
    purged_at: datetime | None = Field(description="Since when words of it are missing that stood in a document.")
    drift: list[str] | None = None

    @classmethod
    def of(cls, found: GoldenQuestion, checked: Checked | None = None) -> Self:
        return cls.model_validate(_facts(found, checked))


class AddedReply(GoldenReply):
    """A golden question that was added, and what became of it."""

    outcome: Outcome = Field(
        description="replaced: one with the same words was there. unchanged: it said the same, and is not confirmed by "
        "that."
    )

    @classmethod
    def added(cls, outcome: Outcome, checked: Checked) -> Self:
        return cls.model_validate({"outcome": outcome, **_facts(checked.question, checked)})


class AddedList(_Reply):
    """What became of each question, in the order of the request, the answers of the log last."""

    questions: list[AddedReply]


class GoldenList(_Reply):
    """Golden questions in the order in which they came. ``next`` is the ``after`` of the next page."""

    questions: list[GoldenReply]
    next: str | None


class CheckReply(_Reply):
    """How many questions were looked at, and those that somebody should look at again."""

    checked: int = Field(examples=[120])
    drifted: list[GoldenReply]


def _facts(found: GoldenQuestion, checked: Checked | None) -> dict[str, object]:
    standings = checked.standings if checked else (None,) * len(found.documents)
    documents = [
        GoldenDocumentReply(
            name=one.name, text=one.text, version=one.confirmed.version if one.confirmed else None, standing=standing
        )
        for one, standing in zip(found.documents, standings, strict=True)
    ]
    return {
        "id": found.id, "collection_id": found.collection_id, "question": found.question, "answer": found.reference,
        "answerable": found.answerable, "documents": documents, "tags": sorted(found.tags),
        "created_at": found.created_at, "confirmed_at": found.confirmed_at, "purged_at": found.purged_at,
        "drift": None if checked is None else list(checked.drift),
    }  # fmt: skip
