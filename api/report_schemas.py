"""Reports as they go over the wire, see ``api.schemas``.

This module knows no route and no database.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StrictInt
from pydantic_core import PydanticCustomError

from api.schemas import Text
from rag.reported import Reported


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True)


def _written(moment: object) -> object:
    """Refuse a number, which would count seconds or milliseconds since 1970, by its size."""
    if isinstance(moment, bool | int | float):
        raise PydanticCustomError("moment", "Must be written as a date with its time and zone")
    return moment


Moment = Annotated[AwareDatetime, BeforeValidator(_written)]


class ReportRequest(BaseModel):
    """What a report shall be about."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"examples": [{"collections": ["handbook"], "limit": 100}]}
    )

    collections: list[Text] = Field([], max_length=100, description="Names of collections; empty: all of them.")
    since: Moment | None = Field(None, description="Judge answers that were given since then; else of a day.")
    limit: StrictInt | None = Field(None, ge=1, le=100_000, description="Most questions of each source.")
    label: Text | None = Field(None, max_length=200, description="What is tried: only equal ones are compared.")


class ReportReply(_Reply):
    """A report. ``report`` has its figures once it is done: verdict, scores with intervals, changes, causes, cost."""

    id: str
    created_at: datetime
    state: Literal["queued", "running", "done", "failed"]
    due_at: datetime | None = Field(description="The time of the schedule that it was made for.")
    started_at: datetime | None
    ended_at: datetime | None
    collections: list[str]
    label: str
    answered: int = Field(description="Questions that were dealt with so far.")
    error: str | None = Field(description="Why it has failed, if it has.")
    report: dict[str, Any] | None = None

    @classmethod
    def of(cls, reported: Reported, report: dict[str, Any] | None = None) -> Self:
        return cls(
            id=reported.id,
            created_at=reported.created_at,
            state=reported.state.value,
            due_at=reported.due_at,
            started_at=reported.started_at,
            ended_at=reported.ended_at,
            collections=list(reported.request.get("collections") or ()),
            label=reported.request.get("label") or "",
            answered=reported.answered,
            error=reported.error,
            report=report,
        )


class ReportList(_Reply):
    """Reports, the newest first."""

    reports: list[ReportReply]
