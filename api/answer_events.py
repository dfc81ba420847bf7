"""The events of an answer as they go over the wire: each becomes one or more named pieces of JSON.

Knows no route and no connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.answer_schemas import AnswerReply, CitationReply, ClaimReply, SearchReply
from rag.answers import Claim
from rag.pipeline import Done, Event, Passages, Restart, Scored, Token
from rag.records import Copy

#: The name of an event and its data.
Told = tuple[str, dict[str, Any]]


class AnswerEvents:
    """Tells the events of one answer, which counts its citations; ``names`` maps collection ids to names."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._copies: dict[str, tuple[Copy, ...]] = {}
        self._cited = 0

    def tell(self, event: Event) -> list[Told]:
        """Return what an event says: ``passages``, ``token``, ``restart`` or ``done``; or a ``claim`` behind its
        ``citation`` events, which it names by their places among all of the answer.
        """
        match event:
            case Passages(ranking):
                self._copies = {passage.chunk_id: passage.also_in for passage in ranking.passages}
                return [("passages", SearchReply.of(ranking, self._names).model_dump(mode="json"))]
            case Token(text):
                return [("token", {"text": text})]
            case Scored(claim):
                return self._scored(claim)
            case Restart(notice):
                self._cited = 0
                return [("restart", {"notice": notice})]
            case Done(answer):
                return [("done", AnswerReply.of(answer, self._names).model_dump(mode="json"))]

    def _scored(self, claim: Claim) -> list[Told]:
        replies = [CitationReply.of(c, self._copies.get(c.chunk_id, ())) for c in claim.citations]
        told: list[Told] = [("citation", reply.model_dump(mode="json")) for reply in replies]
        told.append(("claim", ClaimReply.of(claim, self._cited).model_dump(mode="json")))
        self._cited += len(replies)
        return told
