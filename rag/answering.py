"""Answers that are kept: the answer journey between the cache before it and the log behind it.

    question -> passages -> an answer that was written from them before, or else the rest of the journey -> log

The log is the cache: an answer stands for a later one if question, plan, wish and settings are equal and the search,
which is made anew each time, finds the same passages. So no change of a document can be missed, and none that makes no
difference costs anything. What is written to the log holds up nobody: an answer waits for it a moment at most, and is
given without it if it can not be kept.

Knows the journey by its events. Knows no retrieval, no generator but by its name, and no web.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
import secrets
import threading
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog

from rag.answers import AS_USUAL, NO_WISH, Answer, Keeping, Policy, Wish
from rag.batching import Rounds, Turn
from rag.catalog import Catalog
from rag.errors import BadInput, CitewellError, NotFound
from rag.log_lines import note
from rag.logged import Entry, Facts, Feedback, IndexState, Logged, Redact, Texts, basis, redacted, saw
from rag.pipeline import Done, Event, Passages, Pipeline, Scored, Token
from rag.plan import MOST_MESSAGES
from rag.queries import Message
from rag.records import Plan, Prompt, Ranking, digest
from rag.settings import Settings
from rag.telemetry import SILENT, Span, Telemetry
from rag.understanding import recent

log = structlog.get_logger(__name__)

CONVERSATION = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: Seconds that an answer waits for the log, so that its id can be asked for; what takes longer goes on behind it.
PATIENCE = 1.0
#: Most answers that wait to be written, most that are written in one transaction, and seconds that one may wait.
MOST_WAITING, MOST_AT_ONCE, LONGEST_WAIT = 512, 32, 60.0
#: Seconds in which what is still to be written is written when all ends.
LAST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer while it is made: what was asked, where the indexes stood, and what was found."""

    id: str
    began: datetime
    plan: Plan
    wish: Wish
    keeping: Keeping
    indexes: tuple[IndexState, ...] = ()
    ranking: Ranking | None = None
    basis: str = ""
    cache_seconds: float = 0.0


class Answering:
    """Answers plans by ``pipeline``, logs the answers in ``catalog`` and finds them there again. Thread-safe.

    Raises `BadInput` from any use for what the settings do not allow.
    """

    def __init__(self, pipeline: Pipeline, catalog: Catalog, settings: Settings, telemetry: Telemetry = SILENT) -> None:
        self._pipeline = pipeline
        self._telemetry = telemetry
        self._catalog = catalog
        self._settings = settings.answers
        self._usual_temperature = settings.generator.temperature
        self._history_tokens = settings.understanding.history_tokens
        self._redact = Redact(settings.answers.redact)
        self._pending: set[Future[None]] = set()
        self._lock = threading.Lock()
        self._writes: Rounds[Entry, None] = Rounds(
            self._write, name="answers", threads=1, most=MOST_AT_ONCE, places=MOST_WAITING, patience=LONGEST_WAIT
        )

    def over(self, catalog: Catalog) -> Answering:
        """Return this with the log as another view of the same catalog shows it; close only the first one."""
        seen = copy.copy(self)
        seen._catalog = catalog  # noqa: SLF001 -- the same class
        return seen

    async def stream(
        self, plan: Plan, wish: Wish = NO_WISH, keeping: Keeping = AS_USUAL
    ) -> AsyncGenerator[Event, None]:
        """Answer a plan, event by event, as `rag.pipeline.Pipeline.stream` does; the first one has the answer's id.

        An answer of the log that can stand for this one comes as one piece of text.
        """
        draft = await self._begun(plan, wish, keeping)
        note(answer_id=draft.id)
        with self._telemetry.span("answer", answer_id=draft.id, collections=len(plan.collections)) as span:
            async with aclosing(self._made(draft)) as events:
                async for event in events:
                    if isinstance(event, Done):
                        self._tell(draft, event.answer, span)
                    yield event

    async def _made(self, draft: Draft) -> AsyncGenerator[Event, None]:
        known: Texts | None = None
        async with aclosing(self._pipeline.stream(draft.plan, draft.wish)) as events:
            async for event in events:
                if isinstance(event, Passages):
                    draft = await self._found(draft, event.ranking)
                    yield replace(event, answer_id=draft.id)
                    draft, known = await self._known(draft)
                    if known is not None:
                        break
                elif isinstance(event, Done):
                    messages = event.prompt.messages if event.prompt else ()
                    yield replace(event, answer=await self._logged(draft, event.answer, messages, event.prompt))
                else:
                    yield event
        if known is not None and draft.ranking is not None:
            answer = _again(draft, draft.ranking, known.answer)
            told: list[Event] = [Token(answer.text), *map(Scored, answer.claims)]
            for event in told if answer.policy is Policy.REPORT else [*told[1:], told[0]]:
                yield event
            yield Done(await self._logged(draft, answer, known.messages))

    def _tell(self, draft: Draft, answer: Answer, span: Span) -> None:
        if not draft.keeping.reported:  # what people ask is counted
            self._telemetry.meters.answered(answer)
        span.tell(
            abstained=answer.abstained,
            cached=answer.cached,
            generator=answer.generator,
            passages=len(answer.passages),
            claims=len(answer.claims),
        )

    def said(self, conversation: str) -> list[Message]:
        """Return what was said in a conversation, oldest first: its end, as much as a question is understood with."""
        if not self._keeps_texts:
            raise _no_texts("A conversation")
        if not CONVERSATION.fullmatch(conversation):
            raise BadInput("conversation is no id; use 1 to 64 letters, digits, dots, dashes and underscores.")
        return recent(self._catalog.turns(conversation, MOST_MESSAGES // 2), self._history_tokens)

    def answer(self, answer_id: str) -> Logged:
        """Return an answer of the log, also one that is about to be written; raises `NotFound`."""
        try:
            return self._catalog.answer(answer_id)
        except NotFound:
            self._settle()
            return self._catalog.answer(answer_id)

    def rate(self, answer_id: str, rating: float, claim: int | None = None, comment: str | None = None) -> Feedback:
        """Note what somebody thinks of an answer, without the comment where the settings keep no texts.

        Raises `NotFound`, and `BadInput` for a claim that the answer has not.
        """
        found = self.answer(answer_id)
        if claim is not None and (found.texts is None or claim >= len(found.texts.answer.claims)):
            raise BadInput(f"The answer has no claim {claim} in the log.")
        keeps = self._redact is not Redact.ALL and found.purged_at is None
        return self._catalog.add_feedback(answer_id, rating, claim, comment if keeps else None)

    def index_states(self, plan: Plan) -> tuple[IndexState, ...]:
        """Return where the collections of a plan stand; raises `NotFound` if one is gone."""
        states = [(found, self._catalog.pulse(found.id)) for found in plan.collections]
        return tuple(
            IndexState(found.id, found.name, pulse.commits, pulse.last_seq, found.tuning, found.embedder)
            for found, pulse in states
        )

    def close(self) -> None:
        """Write what is still to be written."""
        self._settle()
        self._writes.close()

    @property
    def caches(self) -> bool:
        """Whether an answer of the log may stand for a later one."""
        return self._settings.cache and self._keeps_texts

    @property
    def _keeps_texts(self) -> bool:
        return self._settings.keep and self._redact is Redact.NONE

    # -- the journey -------------------------------------------------------------------------------------------------

    async def _begun(self, plan: Plan, wish: Wish, keeping: Keeping) -> Draft:
        """Check what is wanted before anything is spent, and note where the indexes stand."""
        for name, wanted in (("A conversation", keeping.conversation), ("A resumable answer", keeping.resumable)):
            if wanted and not (self._keeps_texts and keeping.store):
                raise _no_texts(name)
        draft = Draft(secrets.token_hex(16), datetime.now(UTC), plan, wish, keeping)
        if not self._keeps(keeping):
            return draft
        return replace(draft, indexes=await asyncio.to_thread(self.index_states, plan))

    async def _found(self, draft: Draft, ranking: Ranking) -> Draft:
        draft = replace(draft, ranking=ranking, basis=basis(ranking))
        if draft.keeping.resumable:
            logged = Logged(draft.id, draft.began, False, draft.keeping.conversation, None, None, None, None)
            await asyncio.to_thread(self._catalog.open_answer, _entry(draft, logged, saw(ranking)))
        return draft

    async def _known(self, draft: Draft) -> tuple[Draft, Texts | None]:
        """Return the draft, and the texts of an answer of the log that can stand for it, if there is one."""
        if not (draft.keeping.cached and self._is_sure(draft.wish)):
            return draft, None
        oldest = datetime.now(UTC) - timedelta(seconds=self._settings.cache_seconds)
        name = self._pipeline.generator.name
        start = time.perf_counter()
        try:
            found = await asyncio.to_thread(self._catalog.known_answer, self._key(draft), draft.basis, name, oldest)
        except CitewellError as error:  # then it is written anew
            log.warning("cache not read", answer=draft.id, reason=error.message)
            return draft, None
        self._telemetry.meters.looked_up(found=found is not None)
        return replace(draft, cache_seconds=time.perf_counter() - start), None if found is None else found.texts

    def _is_sure(self, wish: Wish) -> bool:
        """Say whether the answer to a wish could be another one's: what is drawn by lot is new each time."""
        chosen = self._usual_temperature if wish.temperature is None else wish.temperature
        return self.caches and (self._pipeline.generator.quotes or chosen == 0)

    def _key(self, draft: Draft) -> str:
        """Return a digest of all that was asked, and of the settings it is answered by."""
        plan, wish = draft.plan, draft.wish
        history = [(message.role, message.content) for message in plan.history]
        asked = [
            plan.question, [found.id for found in plan.collections], plan.filters, plan.candidates, plan.top_k,
            asdict(plan.parts), plan.diversity, plan.around, plan.section, history, asdict(wish),
            self._pipeline.settings_digest, self._pipeline.judge.name,
        ]  # fmt: skip
        return digest(json.dumps(asked, sort_keys=True))

    # -- the log -----------------------------------------------------------------------------------------------------

    async def _logged(
        self, draft: Draft, answer: Answer, messages: Sequence[Mapping[str, str]], prompt: Prompt | None = None
    ) -> Answer:
        """Return the answer under its id, with a notice if it can not be logged."""
        answer = replace(answer, id=draft.id, conversation=draft.keeping.conversation)
        if not self._keeps(draft.keeping) or draft.ranking is None:
            return answer
        try:
            writing = self._writes.submit(self._entry_of(draft, draft.ranking, answer, messages, prompt))
            with self._lock:
                self._pending.add(writing)
            writing.add_done_callback(self._written)
            await _wait_for(writing, PATIENCE)
            if writing.done():
                writing.result()
        except Exception as error:  # whatever it is: the answer is there and shall be given
            reason = error.message if isinstance(error, CitewellError) else "The log of the server has the reason."
            log.error("answer not logged", answer=draft.id, exc_info=error)
            notice = f"This answer could not be kept. {reason}"
            return replace(answer, notice=f"{answer.notice} {notice}" if answer.notice else notice)
        return answer

    def _entry_of(
        self, draft: Draft, ranking: Ranking, answer: Answer, messages: Sequence[Mapping[str, str]],
        prompt: Prompt | None,
    ) -> Entry:  # fmt: skip
        """Return what is logged of an answer; it can stand for others if nothing went other than it should."""
        stages = {
            name: tuple(zip(ids, ranking.stage_scores[name], strict=True)) for name, ids in ranking.stages.items()
        }
        facts = Facts(
            stages, answer.timings, draft.indexes, answer.settings_digest, 0 if prompt is None else prompt.tokens
        )
        texts = Texts(replace(answer, stages={}), draft.plan, draft.wish, tuple(messages))
        logged = Logged(
            draft.id, draft.began, answer.cached, draft.keeping.conversation, answer.generator, answer.abstained,
            redacted(texts, self._redact), facts,
        )  # fmt: skip
        entry = _entry(draft, logged, saw(ranking, answer))
        if answer.cached or answer.notice != ranking.notice or not self._is_sure(draft.wish):
            return entry
        return replace(entry, cache_key=self._key(draft), basis=draft.basis)

    def _keeps(self, keeping: Keeping) -> bool:
        return self._settings.keep and keeping.store

    def _write(self, turns: Sequence[Turn[Entry, None]]) -> None:
        """Log the answers of a round together, or each by itself if one of them may be at fault."""
        try:
            self._catalog.add_answers([turn.item for turn in turns])
        except Exception:
            if len(turns) == 1:
                raise
            for turn in turns:
                turn.settle(partial(self._catalog.add_answers, [turn.item]))
        for turn in turns:
            turn.settle(lambda: None)

    def _written(self, writing: Future[None]) -> None:
        with self._lock:
            self._pending.discard(writing)
        if not writing.cancelled() and (error := writing.exception()) is not None:
            log.error("answer not written to the log", exc_info=error)

    def _settle(self) -> None:
        """Wait for what is still to be written."""
        with self._lock:
            pending = list(self._pending)
        wait(pending, timeout=LAST_SECONDS)


async def _wait_for(writing: Future[None], seconds: float) -> None:
    """Wait so long for a future at most; it is not cancelled, whoever leaves."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def tell(_: Future[None]) -> None:
        with suppress(RuntimeError):  # the loop has ended before
            loop.call_soon_threadsafe(ended.set)

    writing.add_done_callback(tell)
    with suppress(TimeoutError):
        await asyncio.wait_for(ended.wait(), seconds)


def _entry(draft: Draft, logged: Logged, seen: frozenset[tuple[str, int]]) -> Entry:
    quoting = bool(draft.plan.history) and draft.keeping.conversation is None
    looked_in = tuple(found.id for found in draft.plan.collections)
    return Entry(logged, looked_in, seen, quoting, reported=draft.keeping.reported)


def _again(draft: Draft, ranking: Ranking, known: Answer) -> Answer:
    """Return an earlier answer as that to another question: with today's scores and times."""
    found = {passage.chunk_id: passage for passage in ranking.passages}
    return replace(
        known,
        created_at=datetime.now(UTC),
        passages=tuple(
            replace(passage, score=found[passage.chunk_id].score, scores=found[passage.chunk_id].scores)
            for passage in known.passages
        ),
        stages=dict(ranking.stages),
        timings=dict(ranking.timings) | {"cache": draft.cache_seconds},
        cached=True,
    )


def _no_texts(what: str) -> BadInput:
    return BadInput(
        f"{what} needs the log of answers: leave `store` on, and set answers.keep and answers.redact = none."
    )
