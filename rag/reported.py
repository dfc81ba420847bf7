"""The records of report runs as the catalog keeps them: who asked for one, how far it is, what came out.

A run holds figures and ids of answers, and no text of a document or an answer: those stand in the log of answers, from
where they may have to go. Knows no metric and no page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Progress(StrEnum):
    """How far a report run is. One that is ``REMOVED`` is nowhere to be seen, but its time of the schedule is taken."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent on a run: ``seconds`` of work and pauses, ``tokens`` of language models."""

    seconds: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Reported:
    """A report run. ``request`` says what was asked for, ``summary`` what came out: both plain JSON.

    ``due_at`` is the time of the schedule that it was run for, if it was. ``error`` is a sentence if it has failed.
    ``answered`` counts the questions that were dealt with so far, ``spent`` is what all who claimed it have spent.
    """

    id: str
    created_at: datetime
    state: Progress
    request: Mapping[str, Any]
    due_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    settings_digest: str | None = None
    summary: Mapping[str, Any] | None = None
    error: str | None = None
    answered: int = 0
    spent: Spent = field(default_factory=Spent)


@dataclass(frozen=True, slots=True)
class ReportItem:
    """What came of question number ``number`` of a run, from 0: ``data`` is plain JSON, ``answer_id`` is in the log."""

    number: int
    answer_id: str | None
    data: Mapping[str, Any]
