"""The log of answers as it goes over the wire, see ``api.schemas``.

This module knows no route and no database.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt

from api.answer_schemas import AnswerReply, MessageRequest
from api.schemas import Text
from rag.answers import Policy
from rag.logged import Feedback, Headline, IndexState, Logged
from rag.records import Plan

#: What a thumb says, in figures.
THUMBS = {"up": 1.0, "down": -1.0}


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True)


class CandidateReply(_Reply):
    """A chunk that a stage found, and what it thought of it (higher is better)."""

    chunk_id: str
    score: float = Field(examples=[0.83])


class IndexReply(_Reply):
    """Where a collection stood when it was searched."""

    collection: str = Field(examples=["handbook"])
    collection_id: str
    commits: int = Field(description="Grows with every change that a search can notice.", examples=[17])
    last_seq: int = Field(description="Grows with every chunk.", examples=[2045])
    tuning: str | None = Field(None, description="What its searches went by, if anything was learnt.")
    embedder: str | None = Field(None, description="The fingerprint of its vectors.")
    digest: str = Field(description="Equal as long as nothing has changed that a search could notice.")

    @classmethod
    def of(cls, state: IndexState) -> Self:
        return cls(
            collection=state.name,
            collection_id=state.collection_id,
            commits=state.commits,
            last_seq=state.last_seq,
            tuning=state.tuning,
            embedder=state.embedder,
            digest=state.digest,
        )


class PlanReply(_Reply):
    """What was asked for, with what the settings added to the request."""

    collections: list[str] = Field(examples=[["handbook"]])
    filters: dict[str, Any]
    candidates: int = Field(description="How many each of the dense and lexical index gave.", examples=[100])
    top_k: int = Field(examples=[8])
    parts: dict[str, bool] = Field(examples=[{"dense": True, "lexical": True, "late": True}])
    diversity: float
    around: int
    section: bool
    history: list[MessageRequest]
    policy: Policy | None = Field(None, description="As the request had it.")
    max_tokens: int | None = None
    temperature: float | None = None


class FeedbackRequest(BaseModel):
    """What somebody thinks of an answer."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"rating": "down", "comment": "That is outdated."}]},
    )

    rating: Literal["up", "down"] | Annotated[StrictFloat | StrictInt, Field(ge=-1, le=1)] = Field(
        description="up, down, or a number from -1 to 1."
    )
    comment: Text | None = Field(None, max_length=4000)
    claim: StrictInt | None = Field(
        None, ge=0, le=10_000, description="The place among the answer's `claims` that is meant, from 0."
    )

    @property
    def score(self) -> float:
        return THUMBS[self.rating] if isinstance(self.rating, str) else float(self.rating)


class FeedbackReply(_Reply):
    """What somebody thinks of an answer."""

    created_at: datetime
    rating: float = Field(description="From -1 to 1.", examples=[-1.0])
    comment: str | None = None
    claim: int | None = None

    @classmethod
    def of(cls, said: Feedback) -> Self:
        return cls(created_at=said.created_at, rating=said.rating, comment=said.comment, claim=said.claim)


class LoggedReply(_Reply):
    """An answer with all that explains it.

    `answer`, `plan` and `messages` are missing where the settings keep no texts, and where the answer rested on a
    document that was purged: then `purged_at` says since when.
    """

    id: str
    created_at: datetime = Field(description="When it was begun.")
    state: Literal["done", "unfinished"] = Field(
        description="unfinished: it is being written, or was broken off before its end."
    )
    cached: bool
    conversation: str | None
    generator: str | None = Field(examples=["reader"])
    abstained: bool | None
    purged_at: datetime | None
    answer: AnswerReply | None
    plan: PlanReply | None
    messages: list[dict[str, str]] = Field(description="The prompt: what a language model was, or would be, given.")
    prompt_tokens: int | None = Field(description="The size of the prompt, as it was counted or estimated.")
    stages: dict[str, list[CandidateReply]] = Field(description="The candidates of each stage, best first.")
    timings: dict[str, float] = Field(description="Seconds of each stage.")
    indexes: list[IndexReply]
    settings_digest: str | None = Field(description="Equal for settings that answer alike.")
    feedback: list[FeedbackReply] = Field(description="In the order in which it came.")

    @classmethod
    def of(cls, logged: Logged) -> Self:
        texts, facts = logged.texts, logged.facts
        states = facts.indexes if facts else ()
        names = {state.collection_id: state.name for state in states}
        stages = facts.stages if facts else {}
        return cls(
            id=logged.id,
            created_at=logged.created_at,
            state="done" if facts else "unfinished",
            cached=logged.cached,
            conversation=logged.conversation,
            generator=logged.generator,
            abstained=logged.abstained,
            purged_at=logged.purged_at,
            answer=AnswerReply.of(texts.answer, names) if texts else None,
            plan=_plan(logged, texts.plan) if texts and texts.plan else None,
            messages=[dict(message) for message in texts.messages] if texts else [],
            prompt_tokens=facts.prompt_tokens if facts else None,
            stages={
                name: [CandidateReply(chunk_id=chunk_id, score=score) for chunk_id, score in stage]
                for name, stage in stages.items()
            },
            timings=dict(facts.timings) if facts else {},
            indexes=[IndexReply.of(state) for state in states],
            settings_digest=facts.settings_digest if facts else None,
            feedback=[FeedbackReply.of(said) for said in logged.feedback],
        )


class HeadlineReply(_Reply):
    """An answer in a list; question and text are missing where the log has none."""

    id: str
    created_at: datetime
    cached: bool
    conversation: str | None
    generator: str | None
    abstained: bool | None
    question: str | None
    text: str | None

    @classmethod
    def of(cls, headline: Headline) -> Self:
        return cls.model_validate(asdict(headline))


class HeadlineList(_Reply):
    """Answers, the newest first. ``next`` is the ``before`` of the next page; null on the last one."""

    answers: list[HeadlineReply]
    next: str | None


def _plan(logged: Logged, plan: Plan) -> PlanReply:
    wish = logged.texts.wish if logged.texts else None
    return PlanReply(
        collections=[found.name for found in plan.collections],
        filters=dict(plan.filters),
        candidates=plan.candidates,
        top_k=plan.top_k,
        parts={name: getattr(plan.parts, name) for name in plan.parts.__slots__},
        diversity=plan.diversity,
        around=plan.around,
        section=plan.section,
        history=[MessageRequest(role=message.role, content=message.content) for message in plan.history],
        policy=wish.policy if wish else None,
        max_tokens=wish.max_tokens if wish else None,
        temperature=wish.temperature if wish else None,
    )
