"""What becomes of a question or an answer that rails refuse, change, or can not check.

Rails are asked at two places: before anything is spent on a question, and before a word of an answer goes out. A rail
that fails is a failure of the answer, or is passed over by a setting and said so. Knows rails by their protocol, and no
catalog, no generator and no web.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

import structlog

from rag.errors import GuardrailsFailed
from rag.protocols import Rails, Verdict
from rag.settings import GuardrailsSettings
from rag.telemetry import Clock

log = structlog.get_logger(__name__)

#: What is said where a rail refuses without a word.
REFUSAL = "This is not answered here."


@dataclass(frozen=True, slots=True)
class Checked:
    """``text`` as it may go on, or what is said in its place where a rail refused it, ``refused_by`` that one.

    ``notice`` is a sentence for the reader of the answer: why it was refused, or that nobody has checked it.
    """

    text: str
    refused_by: str | None = None
    notice: str | None = None


class Checks:
    """Asks ``rails``, where there are any, and decides by the settings what their failure means."""

    def __init__(self, rails: Rails | None = None, settings: GuardrailsSettings | None = None) -> None:
        self._rails = rails
        self._passes = (settings or GuardrailsSettings()).on_failure == "pass"

    @property
    def holds_answers(self) -> bool:
        """Whether an answer may go out only as a whole, when it was checked."""
        return self._rails is not None and self._rails.holds_answers

    async def question(self, question: str, clock: Clock) -> Checked:
        """Check a question; raises `GuardrailsFailed`."""
        if self._rails is None:
            return Checked(question)
        with clock.stage("rails"):
            return await self._checked("question", question, self._rails.check_question(question))

    async def answer(self, question: str, answer: str, passages: Sequence[str], clock: Clock) -> Checked:
        """Check an answer that was written from some passages; raises `GuardrailsFailed`."""
        if self._rails is None:
            return Checked(answer)
        with clock.stage("rails"):
            return await self._checked("answer", answer, self._rails.check_answer(question, answer, passages))

    async def _checked(self, what: str, text: str, asked: Awaitable[Verdict]) -> Checked:
        try:
            verdict = await asked
        except GuardrailsFailed as error:
            if not self._passes:
                raise
            log.warning("guardrails failed, passed over", what=what, reason=error.message)
            return Checked(text, notice=f"The {what} was not checked. {error.message}")
        if verdict.refused_by is None:
            return Checked(verdict.text)
        log.info("refused", what=what, rail=verdict.refused_by)
        return Checked(
            verdict.text.strip() or REFUSAL,
            verdict.refused_by,
            f"The {what} was refused by the rail '{verdict.refused_by}'.",
        )
