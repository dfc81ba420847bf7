"""What is asked: the records of how a question is looked for, of the conversation before it, and of its queries.

Standard library only; `rag.records` builds on these. Knows nothing of who writes queries (`rag.understanding`) or of
how their results become one ranking (`rag.mixing`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Parts:
    """Which parts of retrieval take part in a search.

    ``dense`` and ``lexical`` find candidates; ``late`` is late interaction over the token codes of the best of them;
    ``rerank`` the cross-encoder, where one is configured; ``hop`` lifts what the best passages name (`rag.hop`), and
    needs ``late``.

    The others make queries of the question before that, where a language model is configured: ``rewrite`` completes it
    from the conversation, ``decompose`` takes it apart, ``multi_query`` puts it into other words, ``hyde`` writes what
    a document may say that answers it (`rag.understanding`).
    """

    dense: bool = True
    lexical: bool = True
    late: bool = True
    rerank: bool = True
    hop: bool = True
    rewrite: bool = True
    decompose: bool = True
    multi_query: bool = False
    hyde: bool = False


class Speaker(StrEnum):
    """Who says something in a conversation."""

    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation before a question."""

    role: Speaker
    content: str


class QueryRole(StrEnum):
    """What a query is to the question.

    The question itself, or completed from the conversation; one of its parts; the same in other words; a passage that
    might answer it; the question behind what was asked before it.
    """

    QUESTION = "question"
    STANDALONE = "standalone"
    PART = "part"
    PARAPHRASE = "paraphrase"
    HYPOTHETICAL = "hypothetical"
    CONVERSATION = "conversation"


@dataclass(frozen=True, slots=True)
class Query:
    """A text that is looked for. A hypothetical passage is embedded as a passage, and its words are not looked for."""

    role: QueryRole
    text: str


@dataclass(frozen=True, slots=True)
class Understanding:
    """What a question was taken to mean.

    ``queries`` begins with the question, completed where it was; it is empty where the question is all there is.
    ``notice`` says what did not go as wanted, ``seconds`` how long it took.
    """

    queries: tuple[Query, ...] = ()
    notice: str | None = None
    seconds: float = 0.0
