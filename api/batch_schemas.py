"""Batches as they go over the wire, see ``api.schemas``. Made from the plain values that every door shows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from api.batch_progress import Look, Pace, batch_facts, in_hand_facts
from api.batch_report import file_facts
from api.schemas import Problem
from rag.records import Batch, BatchFile, Stage, State


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True)


class BatchReply(_Reply):
    """Files that came together, and how far they are."""

    id: str = Field(examples=["3f1d0c9e8b7a46529c3d2e1f0a9b8c7d"])
    collection: str = Field(examples=["handbook"])
    created_at: datetime
    ended_at: datetime | None = Field(
        None, description="When the last file ended; null while one waits or is being read, and while there is none."
    )
    files: int = Field(description="Files of the batch; those inside archives are added when these are read.")
    ended: int = Field(description="Files that have an outcome.", examples=[97])
    states: dict[str, int] = Field(
        description="Files by state, `refused` for those that were not taken.",
        examples=[{"ready": 95, "failed": 1, "refused": 1, "processing": 2, "queued": 1}],
    )
    bytes: int = Field(description="Size of all files.", examples=[73400320])
    bytes_ended: int = Field(examples=[71303168])
    passages: int = Field(description="Passages that became searchable through it.", examples=[4812])
    files_per_second: float = Field(description="Over the last minute; over all its time once it has ended.")
    bytes_per_second: float
    seconds_left: float | None = Field(None, description="If it goes on like that; null while nothing has ended yet.")

    @classmethod
    def of(cls, batch: Batch, collection: str, pace: Pace) -> Self:
        return cls.model_validate({**batch_facts(batch, pace), "collection": collection})


class BatchList(_Reply):
    """The last batches of a collection, the newest first."""

    batches: list[BatchReply]


class InHand(_Reply):
    """A document that is being read."""

    name: str = Field(examples=["2026/travel-policy.pdf"])
    stage: Stage
    progress: float = Field(description="From 0 to 1 over all stages.", examples=[0.42])


class BatchProgress(BatchReply):
    """How far a batch is, with the documents that are being read."""

    in_hand: list[InHand]

    @classmethod
    def seen(cls, look: Look, collection: str) -> Self:
        facts = {**batch_facts(look.batch, look.pace), "in_hand": in_hand_facts(look), "collection": collection}
        return cls.model_validate(facts)


class BatchFileReply(_Reply):
    """One file of a batch."""

    number: int = Field(description="Its place in the batch, from 0.", examples=[17])
    name: str = Field(examples=["2026/travel-policy.pdf"])
    outcome: str = Field(
        description="added, replaced, unchanged, retried, resumed (waiting since an earlier batch), failed or purged.",
        examples=["added"],
    )
    document_id: str | None = None
    version: int | None = Field(None, description="Number of the content of the document, from 1.", examples=[1])
    state: State | None = None
    stage: Stage | None = None
    progress: float | None = Field(None, examples=[1.0])
    error: Problem | None = Field(None, description="Why it was refused, failed, or waits for another try.")
    attempts: int | None = Field(None, examples=[1])
    not_before: datetime | None = Field(None, description="When it is tried again, if it waits for another try.")
    size: int | None = Field(None, examples=[13395])
    passages: int | None = Field(None, examples=[12])
    ended_at: datetime | None = None

    @classmethod
    def of(cls, file: BatchFile, batch: Batch) -> Self:
        facts: Mapping[str, Any] = file_facts(file, batch)
        error = None
        if facts["error"] is not None:
            error = Problem(code=facts["error_code"] or "retired", message=facts["error"])
        return cls.model_validate({**facts, "error": error})


class BatchFilePage(_Reply):
    """Some files of a batch, in the order in which they came."""

    files: list[BatchFileReply]
    next: int | None = Field(None, description="Give it as `after` to get the next page; null on the last one.")
