"""The answer journey: question -> plan -> passages -> prompt -> text -> claims -> citations that were checked.

Calls each step in order and does nothing else. Knows every part by its protocol only.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache

import structlog

from rag.answers import NO_WISH, Answer, Citation, Claim, Conflict, Policy, Statement, Wish
from rag.catalog import Catalog
from rag.citations import Citer, short_answer
from rag.conflicts import date_of
from rag.errors import GeneratorFailed
from rag.grounded import Grounded
from rag.grounding import relevance
from rag.language_model import LanguageModel, admitted
from rag.prompt import ABSTENTION, build_prompt, estimate_tokens
from rag.protocols import Generator, Judge
from rag.records import Passage, Plan, Prompt, Ranking, Usage
from rag.refusals import Checked, Checks
from rag.release import Piece
from rag.searches import Searches
from rag.sentences import sentence_spans
from rag.settings import GroundingSettings
from rag.telemetry import SILENT, Clock, Telemetry
from rag.understanding import Interpreter
from rag.windows import window

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Passages:
    """The first event: what was found and goes to the generator. ``answer_id`` is the id that the answer will have."""

    ranking: Ranking
    answer_id: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """The next piece of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class Scored:
    """A sentence of the answer that is complete, with its citations, checked, and its support.

    It comes behind the tokens of its sentence; before them where what is not supported shall not go out.
    """

    claim: Claim


@dataclass(frozen=True, slots=True)
class Restart:
    """Forget the text so far: the generator failed and the built-in reader begins anew. ``notice`` says why."""

    notice: str


@dataclass(frozen=True, slots=True)
class Done:
    """The last event: the whole answer, its citations checked. ``prompt`` is what the generator was given."""

    answer: Answer
    prompt: Prompt | None = None


Event = Passages | Token | Scored | Restart | Done

TRUNCATED = "The answer is not at its end: the model reached the most tokens that it may write."


@dataclass(slots=True)
class _Making:
    """An answer in the making: who writes it now, what has been written, and what its reader must know of it.

    Where a rail refused it, ``refused`` has what is said instead.
    """

    writer: Generator
    grounded: Grounded
    notice: str | None
    usage: Usage | None = None
    truncated: bool = False
    refused: Checked | None = None

    def note(self, sentence: str | None) -> None:
        """Add a sentence to the notice."""
        self.notice = " ".join(filter(None, (self.notice, sentence))) or None


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The parts of the journey. ``fall_back`` answers when ``generator`` fails; None lets the failure through.

    Where no passage is as near to the question as ``least_relevance``, none is asked. ``probability`` says how likely
    passages answer a question, where the built-in reader is one that can. ``checks`` are what question and answer have
    to pass.
    """

    catalog: Catalog
    interpreter: Interpreter
    searches: Searches
    generator: Generator
    fall_back: Generator | None
    judge: Judge
    prompt_tokens: int
    settings_digest: str
    grounding: GroundingSettings
    least_relevance: float
    probability: Callable[[str, Sequence[Passage]], float] | None = None
    checks: Checks = field(default_factory=Checks)
    telemetry: Telemetry = SILENT

    async def stream(self, plan: Plan, wish: Wish = NO_WISH) -> AsyncGenerator[Event, None]:
        """Answer a plan, event by event: `Passages`, then `Token`, `Scored` and `Restart`, then `Done`.

        Raises `GeneratorFailed` if the generator fails and nothing may take its place, `GuardrailsFailed` if question
        or answer can not be checked, and `Busy` before the first event if too many searches are in hand or too many
        questions wait for the language model.
        """
        clock = Clock("answer", self.telemetry)
        with clock.stage("plan", kept=False):
            plan, checked = await self._allowed(plan, clock)
        if checked.refused_by is not None:
            async for event in self._refusal(plan, checked, wish, clock):
                yield event
            return
        with clock.stage("search", kept=False):
            found = self.searches.submit(lambda: plan, lambda _, ranking: ranking, trace=True)
            # The first sentence of a process loads what tells sentences apart: meanwhile, and not in the event loop.
            ranking, _ = await asyncio.gather(asyncio.wrap_future(found), asyncio.to_thread(sentence_spans, "One."))
        with clock.stage("prompt"):
            prompt = await self._prompt(plan, ranking, wish)
        policy = wish.policy or Policy(self.grounding.policy)
        is_asked = await self._is_asked(prompt, clock)
        making = _Making(self.generator, self._grounded(prompt, policy), ranking.notice)
        making.note(checked.notice)
        try:
            async with AsyncExitStack() as held:
                if is_asked:
                    making.writer = await held.enter_async_context(admitted(self.generator))
                yield Passages(ranking)
                with clock.stage("generate"):
                    async with aclosing(self._write(prompt if is_asked else None, making, held)) as events:
                        async for event in events:
                            yield event
            with clock.stage("cite"):
                async for piece in making.grounded.end():
                    yield _event(piece)
            await self._check(prompt, making, clock)
            for piece in () if making.refused else making.grounded.let_go():
                yield _event(piece)
            with clock.stage("cite"):
                conflicts = () if making.refused else await asyncio.to_thread(self._conflicts, making.grounded)
        finally:
            await making.grounded.aclose()
        answer = self._answer(plan, ranking, prompt, making, conflicts, clock)
        if answer.abstained:
            yield Token(answer.text)
        yield Done(answer, prompt)

    async def _allowed(self, plan: Plan, clock: Clock) -> tuple[Plan, Checked]:
        """Understand a question that its rails let by, and check it as it was understood, if that is another one.

        The first query of the plan returned, or its question, has what the rails made of it.
        """
        checked = await self.checks.question(plan.question, clock)
        if checked.refused_by is not None:
            return plan, checked
        plan = await self.interpreter.understand(replace(plan, question=checked.text))
        first, *others = plan.queries
        if first.text == plan.question:
            return plan, checked
        whole = await self.checks.question(first.text, clock)
        queries = (replace(first, text=whole.text), *others)
        notice = checked.notice or whole.notice
        return replace(plan, understanding=replace(plan.understanding, queries=queries)), replace(whole, notice=notice)

    async def _refusal(self, plan: Plan, checked: Checked, wish: Wish, clock: Clock) -> AsyncGenerator[Event, None]:
        """Yield the events of a question that was refused: nothing is looked for."""
        ranking, prompt = Ranking((), {}, {}), Prompt(plan.question, (), (), 0)
        policy = wish.policy or Policy(self.grounding.policy)
        making = _Making(self.generator, self._grounded(prompt, policy), checked.notice, refused=checked)
        yield Passages(ranking)
        yield Token(checked.text)
        yield Done(self._answer(plan, ranking, prompt, making, (), clock), prompt)

    async def _check(self, prompt: Prompt, making: _Making, clock: Clock) -> None:
        """Let an answer that was written pass its rails, before a word of it goes out."""
        text = making.grounded.release.text
        if not (self.checks.holds_answers and text.strip()):
            return
        passages = [passage.text for passage in prompt.passages]
        checked = await self.checks.answer(prompt.question, text, passages, clock)
        making.note(checked.notice)
        if checked.refused_by is not None:
            making.refused = checked
        elif checked.text != text:
            making.grounded = await making.grounded.reworded(checked.text)

    async def _prompt(self, plan: Plan, ranking: Ranking, wish: Wish) -> Prompt:
        """Return the prompt, measured as the generator measures."""
        budget, count = self.prompt_tokens, estimate_tokens
        if isinstance(self.generator, LanguageModel):
            budget, count = await self.generator.prompt_tokens(), self.generator.count_tokens
        prompt = build_prompt(plan.queries[0].text, ranking.passages, budget_tokens=budget, count_tokens=count)
        return replace(prompt, max_tokens=wish.max_tokens, temperature=wish.temperature)

    async def _is_asked(self, prompt: Prompt, clock: Clock) -> bool:
        """Say whether the generator is asked: not without a passage that may answer."""
        doubt = self.grounding.ask_reader
        if not prompt.passages or relevance(prompt.passages) < self.least_relevance:
            return False
        if not doubt or self.probability is None or self.generator.quotes:
            return True
        with clock.stage("doubt"):
            likely = await asyncio.to_thread(self.probability, prompt.question, prompt.passages)
        return likely >= doubt

    async def _write(
        self, prompt: Prompt | None, making: _Making, held: AsyncExitStack
    ) -> AsyncGenerator[Event, None]:  # fmt: skip
        """Let a generator write, and another one anew where it fails; without a prompt none. ``held`` is left then."""
        if prompt is None:
            return
        try:
            async with aclosing(self._written(prompt, making)) as events:
                async for event in events:
                    yield event
        except GeneratorFailed as error:
            if self.fall_back is None:
                raise
            await held.aclose()
            self.telemetry.meters.fell_back(error.code)
            log.warning("generator failed, the built-in reader answers", generator=making.writer.name, code=error.code)
            failed = f"The generator failed, so the built-in reader answered. {error.message}"
            await making.grounded.aclose()
            making.note(failed)
            making.writer, making.grounded = self.fall_back, making.grounded.anew()
            making.usage, making.truncated = None, False
            yield Restart(failed)
            async with aclosing(self._written(prompt, making)) as events:
                async for event in events:
                    yield event

    async def _written(self, prompt: Prompt, making: _Making) -> AsyncGenerator[Event, None]:
        async with aclosing(making.writer.generate(prompt)) as deltas:
            async for delta in deltas:
                making.usage = delta.usage or making.usage
                making.truncated |= delta.truncated
                for piece in making.grounded.write(delta):
                    yield _event(piece)

    def _grounded(self, prompt: Prompt, policy: Policy) -> Grounded:
        """Return an answer in the making, whose sentences are cited from a prompt and checked against the documents."""
        citer = Citer(prompt.passages, self.judge, self.grounding.threshold)
        return Grounded(citer, cache(self.catalog.source_text), policy, held=self.checks.holds_answers)

    def _conflicts(self, grounded: Grounded) -> tuple[Conflict, ...]:
        """Return what other documents say against what is cited, newest first."""
        if not self.grounding.conflicts:
            return ()
        return tuple(self._dated(differs, sides) for differs, sides in grounded.conflicts())

    def _dated(self, differs: str, sides: Sequence[Citation]) -> Conflict:
        versions = {version.id: version for version in self.catalog.versions([side.version_id for side in sides])}
        dated = [(date_of(versions[side.version_id]), side) for side in sides if side.version_id in versions]
        dated.sort(key=lambda pair: pair[0][0], reverse=True)
        return Conflict(differs, tuple(Statement(side, told, by) for (_, told, by), side in dated))

    def _answer(
        self,
        plan: Plan,
        ranking: Ranking,
        prompt: Prompt,
        making: _Making,
        conflicts: tuple[Conflict, ...],
        clock: Clock,
    ) -> Answer:
        grounded, refused = making.grounded, making.refused
        text = grounded.release.text
        abstained = refused is not None or not text.strip()
        if refused is None and abstained and grounded.release.withheld:
            making.note(f"The answer was withheld: the documents do not support it (policy {grounded.policy}).")
        if making.truncated and not abstained:
            making.note(TRUNCATED)
        claims = () if refused else tuple(grounded.release.claims)
        return Answer(
            id=secrets.token_hex(16),
            question=plan.question,
            text=refused.text if refused else ABSTENTION if abstained else text,
            abstained=abstained,
            claims=tuple(claim for _, claim in claims),
            passages=prompt.passages,
            generator=making.writer.name,
            created_at=datetime.now(UTC),
            notice=making.notice,
            stages=dict(ranking.stages) | {"prompt": tuple(c.chunk_id for p in prompt.passages for c in window(p))},
            timings=dict(ranking.timings) | clock.seconds,
            settings_digest=self.settings_digest,
            queries=ranking.queries,
            short=short_answer(*zip(*claims, strict=True)) if claims else None,
            policy=grounded.policy,
            withheld=grounded.release.withheld,
            conflicts=conflicts,
            judge=self.judge.name,
            threshold=grounded.citer.threshold,
            usage=making.usage,
            refused_by=refused.refused_by if refused else None,
            truncated=making.truncated and not abstained,
        )


def _event(piece: Piece) -> Token | Scored:
    return Token(piece) if isinstance(piece, str) else Scored(piece)
