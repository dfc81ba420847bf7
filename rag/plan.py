"""Question to plan: what will be looked for, in which collections, and how much of it.

Checks what a person or program asks before anything is spent on it. Knows no index and no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rag.errors import BadInput
from rag.records import Collection, Plan
from rag.settings import Settings

Filters = Mapping[str, str | int | float | bool]


def make_plan(
    question: str,
    collections: Sequence[Collection],
    settings: Settings,
    *,
    filters: Filters | None = None,
    top_k: int | None = None,
) -> Plan:
    """Return the plan for a question. Raises `BadInput` if the question is empty, too long or not text."""
    question = _checked(question, settings.server.max_question_chars)
    if not collections:
        raise BadInput("Name at least one collection to look in.")
    wanted = settings.retrieval.top_k if top_k is None else top_k
    if not 1 <= wanted <= 1000:
        raise BadInput(f"top_k is {wanted}; it must be between 1 and 1000.")
    candidates = max(settings.retrieval.candidates, wanted)
    return Plan(question, tuple(collections), dict(filters or {}), candidates, wanted)


def _checked(question: str, most_chars: int) -> str:
    if len(question) > most_chars:
        raise BadInput(
            f"The question has {len(question):,} characters; the limit is {most_chars:,}. Ask a shorter one."
        )
    if any(0xD800 <= ord(character) <= 0xDFFF for character in question):
        raise BadInput("The question is not valid text: it holds half of a character pair.")
    cleaned = " ".join("".join(c if c.isprintable() else " " for c in question).split())
    if not any(character.isalnum() for character in cleaned):
        raise BadInput("The question is empty; ask something in words.")
    return cleaned
