"""The journey of the report: questions -> answers -> scores -> causes -> a run that is kept.

Every question goes through `Citewell.stream`, as those of users do, and its answer into the log, so that it can be
explained and replayed. What came of each is kept in the catalog at once: a run whose process died goes on behind it.
It is bounded in time and tokens, and leaves the machine to others for a share of the time. Knows no page and no clock
of the night (`eval.nightly`).
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from eval.answering import hear
from eval.causes import Source as Document
from eval.causes import cause_of, holding_chunks
from eval.figures import HISTORY, changes
from eval.folders import Progress
from eval.gates import Gate, compared, judged
from eval.history import runs_before, summary_of
from eval.judges import SuiteJudge, open_judge
from eval.judging import Measured, last_agreement
from eval.questions import Gathered, Sizes, gather
from eval.runs import Agreement, Asked, Cause, Request, Run, Scores, Service, Source, Wanted, plain, record_of
from eval.scored import Sample, Scored, ScoreFiles
from eval.scoring import answer_scores, is_unsupported, is_wrong, retrieval_scores
from eval.suite import Allowance, score_all
from eval.tracing import ranking_of, sources_of, trace_of
from rag.answers import Answer, Keeping
from rag.assembly import Citewell
from rag.catalog import Catalog
from rag.errors import BadInput, CitewellError, Conflict, GeneratorFailed, Misconfigured, NotFound
from rag.records import State
from rag.reported import Reported, ReportItem, Spent

#: Scores many answers by a judge within an allowance and tells how many of them are done, see `eval.suite`.
Scorer = Callable[[Sequence[Sample], Progress, Allowance], Scored]
DAY = timedelta(days=1)
#: Seconds without a sign of life after which another process goes on with a run.
LEASE = 600.0
#: In the log, written anew each time.
LOGGED = Keeping(store=True, cached=False, reported=True)
#: Most documents in one state that are counted.
PAGE = 1000


class Stopped(Exception):
    """A run was told to stop; it was given back, and goes on where it was when it is claimed again."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a run may cost, however often it is taken up again: ``seconds`` of asking and ``judge_seconds`` behind them,
    ``tokens`` of all language models, and the ``share`` of the time that it may work.
    """

    seconds: float = 3600.0
    tokens: int | None = None
    share: float = 1.0
    judge_seconds: float = 1800.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is made with beside a Citewell: how much it asks, what scores more, and how good the judge is.

    ``gates`` are what it must reach, those of `eval.gates.DEFAULT` if none are given.
    """

    sizes: Sizes = field(default_factory=Sizes)
    scorer: Scorer | None = None
    agreement: Agreement | None = None
    bounds: Bounds = field(default_factory=Bounds)
    gates: tuple[Gate, ...] | None = None


@contextmanager
def usual_parts(citewell: Citewell, gates: tuple[Gate, ...] | None = None, *, share: float = 1.0) -> Iterator[Parts]:
    """Yield the parts of a run as the settings have them; it may work for that ``share`` of the time."""
    settings, scoring = citewell.store.settings, citewell.store.settings.scoring
    chosen = settings.report
    with open_judge(scoring, citewell.judge, citewell.embedder) as judge:
        files = ScoreFiles(citewell.store.scores_folder)
        measured = last_agreement(settings.data, asyncio.run(_fingerprint(judge)) or "")
        yield Parts(
            Sizes(chosen.golden, chosen.traffic, chosen.generated),
            lambda samples, scored, allowance: score_all(
                samples, judge, scoring, files=files, scored=scored, allowance=allowance
            ),
            _agreement(measured) if measured else None,
            Bounds(chosen.seconds, chosen.tokens, share, chosen.judge_seconds),
            gates,
        )


async def _fingerprint(judge: SuiteJudge) -> str | None:
    try:
        return await judge.fingerprint()
    except GeneratorFailed:  # then every score says so
        return None
    finally:
        await judge.aclose()


def _agreement(measured: Measured) -> Agreement:
    accuracy, counts = measured.metrics["balanced_accuracy"], measured.confusion
    interval = accuracy.value, accuracy.low, accuracy.high
    return Agreement(
        measured.judge, measured.measured_at, interval, counts.found, counts.missed, counts.passed, counts.refused
    )


def run_report(
    citewell: Citewell,
    reported: Reported,
    owner: str,
    parts: Parts | None = None,
    *,
    progress: Progress | None = None,
    judging: Progress | None = None,
    stop: threading.Event | None = None,
) -> Run:
    """Do all of a run that ``owner`` has claimed, keep it, and return it; what was kept before is not done again.

    ``progress`` is told of questions, ``judging`` of answers that the judge has scored. Raises `Stopped` when ``stop``
    is set, `BadInput` if there is nothing to ask, and `Conflict` if the claim was lost; whatever else it raises is kept
    as the reason why the run has failed.
    """
    catalog, parts = citewell.store.catalog, parts or Parts()
    digest = citewell.store.settings.digest()
    try:
        run = _run(citewell, reported, owner, parts, (progress, judging), stop or threading.Event())
    except (Stopped, KeyboardInterrupt):
        catalog.release_report(reported.id, owner)
        raise
    except Exception as error:
        reason = error.message if isinstance(error, CitewellError) else "The log of the process has the reason."
        catalog.end_report(reported.id, owner, None, digest, reason)
        raise
    if not catalog.end_report(reported.id, owner, summary_of(run), run.settings_digest):
        raise _lost()
    return run


def _run(
    citewell: Citewell,
    reported: Reported,
    owner: str,
    parts: Parts,
    progress: tuple[Progress | None, Progress | None],
    stop: threading.Event,
) -> Run:
    request = record_of(Request, reported.request)
    gathered = questions_of(citewell, request, reported.due_at or reported.created_at, parts.sizes)
    wanted, left_out = gathered.questions, list(gathered.left_out)
    if not wanted:
        raise BadInput("There is no question to ask; `citewell golden add` takes golden ones.")
    asking = _Asking(citewell, reported.id, owner, parts, stop, reported.spent.seconds, reported.spent.tokens)
    asked = asyncio.run(asking.ask_all(wanted, progress[0]))
    if len(asked) < len(wanted):
        left_out.append(f"{len(wanted) - len(asked)} of {len(wanted)} questions were not asked: {asking.spent}")
    if parts.scorer:
        asked, reasons = asking.judge_all(parts.scorer, wanted, asked, progress[1])
        left_out += reasons
    run = Run(
        reported.id, reported.started_at or reported.created_at, datetime.now(UTC), request,
        citewell.store.settings.digest(), citewell.generator.name, asking.judge or citewell.judge.name, tuple(asked),
        service_of(citewell, request), parts.agreement, tuple(left_out),
    )  # fmt: skip
    before = runs_before(citewell.store.catalog, reported, HISTORY)
    moved = changes(run, before, compared(parts.gates))
    return replace(run, changes=tuple(moved), verdict=judged(parts.gates, run, moved))


# -- the questions ---------------------------------------------------------------------------------------------------


def questions_of(citewell: Citewell, request: Request, until: datetime, sizes: Sizes) -> Gathered:
    """Return what a run asks, golden questions first; raises `NotFound` for a collection that there is not."""
    catalog = citewell.store.catalog
    every = catalog.list_collections(counted=False)
    chosen = [catalog.collection(name, counted=False) for name in request.collections] or every
    if request.limit is not None:
        sizes = Sizes(*(min(request.limit, size) for size in (request.limit, sizes.traffic, sizes.generated)))
    return gather(citewell, chosen, request.since or until - DAY, until, sizes)


# -- asking ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Asking:
    """The questions of one run being asked.

    ``seconds`` and ``tokens`` are what was spent on it so far, also by those who had it before; ``spent`` says why the
    rest of the questions was not asked, if some were not. ``judge`` is who scored the answers, once they are scored.
    """

    citewell: Citewell
    report_id: str
    owner: str
    parts: Parts
    stop: threading.Event
    seconds: float = 0.0
    tokens: int = 0
    spent: str = ""
    judge: str = ""
    _since: float = field(default_factory=time.monotonic)

    async def ask_all(self, wanted: Sequence[Wanted], progress: Progress | None) -> list[Asked]:
        catalog = self.citewell.store.catalog
        kept = {item.number: record_of(Asked, item.data) for item in catalog.report_items(self.report_id)}
        found = []
        try:
            for number, one in enumerate(wanted):
                asked = kept.get(number)
                if asked is None or asked.key != one.key:
                    if self._is_spent():
                        break
                    start = time.monotonic()
                    asked = await self._ask(one)
                    item = ReportItem(number, asked.answer_id, plain(asked))
                    spent = self._spend(asked.prompt_tokens + asked.completion_tokens)
                    if not catalog.add_report_item(self.report_id, self.owner, item, LEASE, spent):
                        raise _lost()
                    self._pause(time.monotonic() - start)
                found.append(asked)
                if progress:
                    progress(number + 1, len(wanted))
        finally:
            await self.citewell.generator.aclose()
        return found

    def judge_all(
        self, scorer: Scorer, wanted: Sequence[Wanted], asked: Sequence[Asked], judging: Progress | None
    ) -> tuple[list[Asked], list[str]]:
        """Return the questions with the scores of a judge beside the others, and why there are none, if so."""
        catalog = self.citewell.store.catalog
        pairs = enumerate(zip(wanted, asked, strict=False))  # the last questions may not have been asked
        samples = [found for number, pair in pairs if (found := _sample(catalog, number, *pair)) is not None]
        if not samples:
            return list(asked), ["The judge scored nothing: no answer is in the log."]
        allowance, since, told = self._allowance(), time.monotonic(), 0

        def go_on(done: int, total: int) -> None:
            nonlocal since, told
            if judging:
                judging(done, total)
            spent, told = self._spend(allowance.used - told), allowance.used
            if not catalog.beat_report(self.report_id, self.owner, LEASE, spent):
                raise _lost()
            self._pause(time.monotonic() - since)
            since = time.monotonic()

        try:
            scored = scorer(samples, go_on, allowance)
        except Misconfigured as error:
            return list(asked), [f"The judge scored nothing. {error.message}"]
        self.judge = scored.judge
        judged = [_with_scores(one, scored, str(number)) for number, one in enumerate(asked)]
        for number, one in enumerate(judged):
            item = ReportItem(number, one.answer_id, plain(one))
            if not catalog.add_report_item(self.report_id, self.owner, item, LEASE):
                raise _lost()
        return judged, []

    def _spend(self, tokens: int) -> Spent:
        """Return what was spent since the last time: those tokens, and the time."""
        now = time.monotonic()
        spent = Spent(now - self._since, tokens)
        self._since = now
        self.seconds, self.tokens = self.seconds + spent.seconds, self.tokens + tokens
        return spent

    def _allowance(self) -> Allowance:
        """Return what the judge may cost now: what is left of the tokens and of the time, which asking may have had."""
        bounds = self.parts.bounds
        left = bounds.seconds + bounds.judge_seconds - self.seconds
        tokens = None if bounds.tokens is None else max(0, bounds.tokens - self.tokens)
        return Allowance(min(bounds.judge_seconds, max(0.0, left)), tokens)

    def _is_spent(self) -> bool:
        bounds = self.parts.bounds
        if self.seconds + time.monotonic() - self._since > bounds.seconds:
            self.spent = f"the time of {bounds.seconds:g} seconds was over."
        elif bounds.tokens is not None and self.tokens >= bounds.tokens:
            self.spent = f"the {bounds.tokens:,} tokens that a run may cost were spent."
        return bool(self.spent)

    def _pause(self, worked: float) -> None:
        """Leave the machine to others for as long as the share of the time says; raise `Stopped` when told to."""
        if self.stop.wait(worked * (1 / self.parts.bounds.share - 1)):
            raise Stopped

    async def _ask(self, wanted: Wanted) -> Asked:
        """Return what came of a question; one that gets no answer is kept with the reason."""
        about = Asked(
            wanted.key, wanted.id, wanted.source, wanted.collection, wanted.tags, weight=wanted.weight,
            drifted=bool(wanted.drift),
        )  # fmt: skip
        try:
            if wanted.source is Source.TRAFFIC:
                return await self._looked_up(wanted, about)
            return await self._heard(wanted, about)
        except CitewellError as error:
            return replace(about, error=error.message)

    async def _heard(self, wanted: Wanted, about: Asked) -> Asked:
        citewell = self.citewell
        plan = citewell.plan(wanted.text, [wanted.collection], wanted.filters, history=wanted.history)
        heard = await hear(citewell, plan, LOGGED)
        answer = heard.answer
        about = replace(
            about,
            answer_id=answer.id if citewell.store.settings.answers.keep else None,
            abstained=answer.abstained,
            fallen_back=answer.generator != citewell.generator.name,
            seconds={"first": round(heard.first, 4), "last": round(heard.last, 4), "end": round(heard.whole, 4)},
            stages={name: round(seconds, 5) for name, seconds in answer.timings.items()},
            prompt_tokens=answer.usage.prompt_tokens if answer.usage else 0,
            completion_tokens=answer.usage.completion_tokens if answer.usage else 0,
        )
        return await self._scored(wanted, about, answer, heard.ranking.stages)

    async def _looked_up(self, wanted: Wanted, about: Asked) -> Asked:
        """Score an answer that somebody was given, without asking again."""
        logged = self.citewell.store.catalog.answer(str(wanted.answer_id))
        if logged.texts is None or logged.facts is None:
            raise NotFound("The answer has no texts in the log any more.")
        about = replace(about, answer_id=logged.id, abstained=bool(logged.abstained))
        stages = {name: tuple(key for key, _ in stage) for name, stage in logged.facts.stages.items()}
        return await self._scored(wanted, about, logged.texts.answer, stages)

    async def _scored(self, wanted: Wanted, about: Asked, answer: Answer, stages: Mapping[str, Sequence[str]]) -> Asked:
        catalog = self.citewell.store.catalog
        documents = sources_of(catalog, wanted)
        texts = {version_id: catalog.source_text(version_id) for version_id in {c.version_id for c in answer.citations}}
        ranking = ranking_of(answer.passages, stages)
        found = retrieval_scores(ranking, _gold(wanted, documents)) | answer_scores(wanted, answer, texts)
        wrong, made_up = is_wrong(found), is_unsupported(found)
        cause, why = None, ""
        if wrong:
            cause, why = blame(wanted, answer, documents, stages)
        elif made_up:
            cause, why = Cause.READING, "Half of its sentences or more are not supported by what they cite."
        checkable = [claim for claim in answer.claims if claim.checkable]
        return replace(
            about,
            scores=Scores({name: round(value, 6) for name, value in found.items()}),
            failed=True if wrong or made_up else wrong,
            cause=cause,
            why=why,
            claims=len(checkable),
            supported=sum(claim.supported for claim in checkable),
        )


def _with_scores(asked: Asked, scored: Scored, sample: str) -> Asked:
    """Return what came of a question with what a judge found of it under the name ``sample``.

    Its own verdicts on the claims take the place of those of the judge that checked the answer, since it is its errors
    that are known.
    """
    mine = [score for score in scored.scores if score.sample == sample]
    failed = {one.metric: _unquoted(one.why) for one in scored.unscored if one.failed and one.sample == sample}
    found = {score.metric: round(score.value, 6) for score in mine}
    judged = [finding.verdict for score in mine if score.metric == "faithfulness" for finding in score.findings]
    scores = Scores({**asked.scores.values, **found}, {**asked.scores.failures, **failed})
    claims, supported = (len(judged), sum(judged)) if judged else (asked.claims, asked.supported)
    tokens = sum(score.tokens for score in mine)
    return replace(asked, scores=scores, claims=claims, supported=supported, judge_tokens=tokens)


def _unquoted(sentence: str) -> str:
    """Return a sentence without what it quotes, which may be words of a document."""
    return re.sub(r"\((\w+): .*\)", r"(\1)", re.sub(r"(['\"]).*\1", "…", sentence, flags=re.DOTALL), flags=re.DOTALL)


def _sample(catalog: Catalog, number: int, wanted: Wanted, asked: Asked) -> Sample | None:
    """Return an answer as the suite reads it; None if the log has not its words."""
    if asked.answer_id is None:
        return None
    try:
        texts = catalog.answer(asked.answer_id).texts
    except NotFound:
        return None
    if texts is None:
        return None
    said = " ".join(claim.text for claim in texts.answer.claims) or texts.answer.text
    contexts = tuple(passage.indexed_text for passage in texts.answer.passages)
    reference = wanted.answers[0] if wanted.answers else ""
    return Sample(str(number), wanted.text, "" if asked.abstained else said, contexts, reference)


def _gold(wanted: Wanted, documents: Sequence[Document]) -> dict[str, frozenset[str]]:
    """Return for each relevant document the chunks in which it counts as found: those that hold the answer, if any."""
    return {
        found.document: holding_chunks([found.words] if found.words else wanted.answers, found.chunks)
        or frozenset(found.chunks)
        for found in documents
    }


def blame(
    wanted: Wanted, answer: Answer, documents: Sequence[Document], stages: Mapping[str, Sequence[str]]
) -> tuple[Cause | None, str]:
    """Return what a wrong answer is put down to, and why; no cause where no relevant document is known."""
    if not wanted.answerable:
        return Cause.READING, "Nothing answers the question, and yet something was said."
    if not documents:
        return None, "No relevant document is known, so that no cause can be told."
    return cause_of(wanted.answers, documents, trace_of(answer.passages, stages))


def _lost() -> Conflict:
    return Conflict("Another process has taken this report over, since this one was silent for too long.")


# -- the service ------------------------------------------------------------------------------------------------------


def service_of(citewell: Citewell, request: Request) -> Service:
    """Return the state of the collections that a run is about."""
    catalog = citewell.store.catalog
    found = [one for one in catalog.list_collections() if not request.collections or one.name in request.collections]
    waiting = [document for one in found for document in catalog.list_documents(one.id, state=State.QUEUED, limit=PAGE)]
    failed = [document for one in found for document in catalog.list_documents(one.id, state=State.FAILED, limit=PAGE)]
    oldest = min((document.newest.created_at for document in waiting), default=None)
    return Service(
        sum(one.documents for one in found),
        sum(one.passages for one in found),
        sum(_size(citewell.store.index_folder / one.id) for one in found),
        len(waiting),
        (datetime.now(UTC) - oldest).total_seconds() if oldest else 0.0,
        len(failed),
    )


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
