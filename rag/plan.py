"""Question to plan: what will be looked for, in which collections, and how much of it.

Checks what a person or program asks before anything is spent on it. Knows no index and no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from rag.errors import BadInput
from rag.filters import parse_filter
from rag.queries import Message, Parts
from rag.records import Collection, Plan
from rag.settings import Settings

#: Most chunks that are added on either side of a passage.
MOST_AROUND = 10
#: Most messages of the conversation before a question.
MOST_MESSAGES = 100
#: A filter as it is written, in JSON; `rag.filters` has the language.
Filters = Mapping[str, Any]


def make_plan(
    question: str,
    collections: Sequence[Collection],
    settings: Settings,
    *,
    filters: Filters | None = None,
    top_k: int | None = None,
    parts: Mapping[str, bool] | None = None,
    diversity: float | None = None,
    around: int | None = None,
    section: bool | None = None,
    history: Sequence[Message] = (),
    hidden: bool | None = None,
) -> Plan:
    """Return the plan for a question; it keeps the filters as they were written.

    ``parts`` switches some of `rag.queries.Parts`; the others are as in the settings. ``top_k`` and the last five are
    those of `rag.records.Plan`, None what the settings say; ``around`` stands against a ``section`` of the settings.
    Raises `BadInput` if the question is empty, too long or not text, for filters that are none, for parts that there
    are not, and for a conversation that has too many messages or is not text.
    """
    question = _checked(question, settings.server.max_question_chars)
    if not collections:
        raise BadInput("Name at least one collection to look in.")
    wanted = settings.retrieval.top_k if top_k is None else top_k
    if not 1 <= wanted <= 1000:
        raise BadInput(f"top_k is {wanted}; it must be between 1 and 1000.")
    parse_filter(filters or {})
    candidates = max(settings.retrieval.candidates, wanted)
    chosen = choose_parts(settings, parts or {})
    usual = settings.retrieval
    section = usual.section and around is None if section is None else section
    diversity = usual.diversity if diversity is None else diversity
    around = usual.around if around is None else around
    if not 0 <= diversity <= 1:
        raise BadInput(f"diversity is {diversity}; it must be between 0 and 1.")
    if not 0 <= around <= MOST_AROUND:
        raise BadInput(f"around is {around}; it must be between 0 and {MOST_AROUND}.")
    return Plan(
        question, tuple(collections), dict(filters or {}), candidates, wanted, chosen, diversity, around, section,
        _said(history), hidden=usual.hidden if hidden is None else hidden,
    )  # fmt: skip


def choose_parts(settings: Settings, switched: Mapping[str, bool]) -> Parts:
    """Return the parts of the settings with those ``switched`` for one question; raises `BadInput`."""
    usual = settings.retrieval.parts
    known = [field.name for field in fields(Parts)]
    for name, value in {**usual, **switched}.items():
        if name not in known or not isinstance(value, bool):
            raise BadInput(f"{name[:50]!r} is no part that can be switched on or off; there are {', '.join(known)}.")
    chosen = Parts(**{**usual, **switched})
    if not chosen.dense and not chosen.lexical:
        raise BadInput("Without dense and lexical there are no candidates; leave one of them on.")
    return chosen


def _said(history: Sequence[Message]) -> tuple[Message, ...]:
    """Return the messages that hold a text."""
    if len(history) > MOST_MESSAGES:
        raise BadInput(f"The conversation has {len(history)} messages; give the last {MOST_MESSAGES} at most.")
    if any(0xD800 <= ord(character) <= 0xDFFF for message in history for character in message.content):
        raise BadInput("The conversation is not valid text: it holds half of a character pair.")
    return tuple(message for message in history if message.content.strip())


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
