"""The answer journey: question -> plan -> passages -> prompt -> text -> claims -> citations that were checked.

Calls each step in order and does nothing else. Knows every part by its protocol only.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from rag.answers import Answer, Claim, ShortAnswer
from rag.catalog import Catalog
from rag.citations import ClaimParser, check, cite, short_answer
from rag.errors import GeneratorFailed
from rag.prompt import ABSTENTION, build_prompt, estimate_tokens
from rag.protocols import Generator, Judge
from rag.records import Plan, Prompt, Ranking
from rag.retrieval import Clock
from rag.searches import Searches
from rag.understanding import Interpreter
from rag.windows import window

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Passages:
    """The first event: what was found and goes to the generator."""

    ranking: Ranking


@dataclass(frozen=True, slots=True)
class Token:
    """The next piece of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class Restart:
    """Forget the text so far: the generator failed and the built-in reader begins anew. ``notice`` says why."""

    notice: str


@dataclass(frozen=True, slots=True)
class Done:
    """The last event: the whole answer, its citations checked."""

    answer: Answer


Event = Passages | Token | Restart | Done


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The parts of the journey. ``fall_back`` answers when ``generator`` fails; None lets the failure through."""

    catalog: Catalog
    interpreter: Interpreter
    searches: Searches
    generator: Generator
    fall_back: Generator | None
    judge: Judge
    prompt_tokens: int
    settings_digest: str

    async def stream(self, plan: Plan) -> AsyncGenerator[Event, None]:
        """Answer a plan, event by event: `Passages`, then `Token` and `Restart`, then `Done`.

        Raises `GeneratorFailed` if the generator fails and nothing may take its place, and `Busy` before anything is
        done if too many searches are in hand.
        """
        clock = Clock()
        plan = await self.interpreter.understand(plan)
        ranking = await asyncio.wrap_future(self.searches.submit(lambda: plan, lambda _, ranking: ranking, trace=True))
        yield Passages(ranking)
        prompt = build_prompt(
            plan.queries[0].text, ranking.passages, budget_tokens=self.prompt_tokens, count_tokens=estimate_tokens
        )
        parser, writer, notice = ClaimParser(len(prompt.passages)), self.generator, ranking.notice
        with clock.stage("generate"):
            try:
                async with aclosing(self._write(writer, prompt, parser)) as tokens:
                    async for token in tokens:
                        yield token
            except GeneratorFailed as error:
                if self.fall_back is None:
                    raise
                log.warning(
                    "generator failed, the built-in reader answers", generator=self.generator.name, code=error.code
                )
                failed = f"The generator failed, so the built-in reader answered. {error.message}"
                notice = f"{notice} {failed}" if notice else failed
                parser, writer = ClaimParser(len(prompt.passages)), self.fall_back
                yield Restart(failed)
                async with aclosing(self._write(writer, prompt, parser)) as tokens:
                    async for token in tokens:
                        yield token
        with clock.stage("cite"):
            claims, short = await asyncio.to_thread(self._cited, parser, prompt)
        yield Done(self._answer(plan, ranking, prompt, parser.text, claims, short, writer.name, notice, clock))

    async def answer(self, plan: Plan) -> Answer:
        """Answer a plan as a whole; raises as `stream` does."""
        async with aclosing(self.stream(plan)) as events:
            async for event in events:
                if isinstance(event, Done):
                    return event.answer
        raise AssertionError("a stream of events ends with Done")

    async def _write(self, writer: Generator, prompt: Prompt, parser: ClaimParser) -> AsyncGenerator[Token, None]:
        """Let a generator write and yield its text as it can be shown; no passage, no text."""
        if prompt.passages:
            async with aclosing(writer.generate(prompt)) as deltas:
                async for delta in deltas:
                    if text := parser.feed(delta):
                        yield Token(text)
        if text := parser.finish():
            yield Token(text)
        if not parser.text.strip():
            yield Token(ABSTENTION)

    def _cited(self, parser: ClaimParser, prompt: Prompt) -> tuple[list[Claim], ShortAnswer | None]:
        raw = parser.claims()
        claims = [cite(claim, prompt.passages, self.judge) for claim in raw]
        kept, failed = check(claims, self.catalog.source_text)
        for citation in failed:
            log.error("citation dropped: its quote does not stand at its offsets", chunk=citation.chunk_id)
        return kept, short_answer(raw, kept)

    def _answer(
        self,
        plan: Plan,
        ranking: Ranking,
        prompt: Prompt,
        text: str,
        claims: list[Claim],
        short: ShortAnswer | None,
        generator: str,
        notice: str | None,
        clock: Clock,
    ) -> Answer:
        abstained = not text.strip()
        return Answer(
            id=secrets.token_hex(16),
            question=plan.question,
            text=ABSTENTION if abstained else text,
            abstained=abstained,
            claims=tuple(claims),
            passages=prompt.passages,
            generator=generator,
            created_at=datetime.now(UTC),
            notice=notice,
            stages=dict(ranking.stages) | {"prompt": tuple(c.chunk_id for p in prompt.passages for c in window(p))},
            timings=dict(ranking.timings) | clock.seconds,
            settings_digest=self.settings_digest,
            queries=ranking.queries,
            short=short,
        )
