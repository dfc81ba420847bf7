"""The nightly report's suite: answers scored by Ragas' metrics, one score after the other.

Samples in, scores with their reasons out. A score that fails is tried again, and if it fails for good it is counted and
listed, apart from samples in which there is nothing to score; it is in no mean. What was scored before, by the same
judge from the same texts, is not scored again.

Knows a judge by `eval.judges.SuiteJudge`, and Ragas by `eval.ragas_metrics` alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from eval.folders import Progress
from eval.judges import Reading, SuiteJudge
from eval.scored import METRICS, Sample, Score, Scored, ScoreFiles, Unscored
from rag.errors import BadInput, CitewellError, Misconfigured
from rag.records import digest
from rag.settings import ScoringSettings

log = structlog.get_logger(__name__)

#: Part of the digest under which scores are kept: another number where they come about in another way.
FORMAT = "1"
#: What each metric can not do without, as (field, what is said where it is empty).
_ANSWER = ("answer", "Nothing was answered.")
_CONTEXTS = ("contexts", "No passage was found.")
_REFERENCE = ("reference", "No answer is known that should have been given.")
NEEDS = {
    "faithfulness": (_ANSWER, _CONTEXTS),
    "answer_relevancy": (_ANSWER,),
    "context_precision": (_REFERENCE, _CONTEXTS),
    "context_recall": (_REFERENCE, _CONTEXTS),
    "factual_correctness": (_REFERENCE, _ANSWER),
    "noise_sensitivity": (_REFERENCE, _ANSWER, _CONTEXTS),
}


@dataclass(slots=True)
class Allowance:
    """What scoring may cost: ``seconds`` of time and ``tokens`` of a language model, of which so many are ``used``."""

    seconds: float | None = None
    tokens: int | None = None
    used: int = 0

    @property
    def is_spent(self) -> bool:
        """Whether no token is left."""
        return self.tokens is not None and self.used >= self.tokens


def score_all(
    samples: Sequence[Sample],
    judge: SuiteJudge,
    settings: ScoringSettings,
    *,
    metrics: Sequence[str] = METRICS,
    files: ScoreFiles | None = None,
    scored: Progress | None = None,
    allowance: Allowance | None = None,
) -> Scored:
    """Score samples from code that has no event loop, in one that is closed afterwards; see `score`."""
    work = score(samples, judge, settings, metrics=metrics, files=files, scored=scored, allowance=allowance)
    return asyncio.run(work)


async def score(
    samples: Sequence[Sample],
    judge: SuiteJudge,
    settings: ScoringSettings,
    *,
    metrics: Sequence[str] = METRICS,
    files: ScoreFiles | None = None,
    scored: Progress | None = None,
    allowance: Allowance | None = None,
) -> Scored:
    """Score every sample, whose ids differ, by each of ``metrics``, and say of every one why it has no score.

    ``files`` keep scores for the next time. ``scored`` is told of samples. Once the ``allowance`` is spent nothing more
    is asked of the judge, and what is not scored by then counts as failed. Raises `BadInput` for a metric that there is
    not, and `Misconfigured` if Ragas is not installed.
    """
    if unknown := sorted({*metrics} - {*METRICS}):
        raise BadInput(f"There is no metric {unknown[0]!r}; there are {', '.join(METRICS)}.")
    ragas = import_ragas_metrics()
    if files:
        files.forget(settings.keep_days)
    fingerprint = await judge.fingerprint()  # leaves nothing open
    allowance = allowance or Allowance()
    until = None if allowance.seconds is None else time.monotonic() + allowance.seconds
    work = _Work(judge, settings, ragas, files if fingerprint else None, fingerprint or "", until, allowance)
    places, done = asyncio.Semaphore(judge.in_flight), 0

    async def one(sample: Sample) -> list[Score | Unscored]:
        nonlocal done
        async with places:
            found = await work.sample(sample, metrics)
        done += 1
        if scored:
            scored(done, len(samples))
        return found

    try:
        found = [result for results in await asyncio.gather(*map(one, samples)) for result in results]
    finally:
        await judge.aclose()
    return Scored(
        judge.name,
        fingerprint or "",
        tuple(result for result in found if isinstance(result, Score)),
        tuple(result for result in found if isinstance(result, Unscored)),
    )


def import_ragas_metrics() -> Any:
    """Return `eval.ragas_metrics`; raises `Misconfigured` with the cure if Ragas is not installed."""
    try:
        from eval import ragas_metrics
    except ImportError as error:
        raise Misconfigured(f"The suite needs the extra eval ({error}); run `pip install citewell[eval]`.") from error
    return ragas_metrics


@dataclass(frozen=True, slots=True)
class _Work:
    """What it takes to score a sample; ``until`` is when the time is up, and ``allowance`` what is counted down."""

    judge: SuiteJudge
    settings: ScoringSettings
    ragas: Any
    files: ScoreFiles | None
    fingerprint: str
    until: float | None
    allowance: Allowance

    async def sample(self, sample: Sample, metrics: Sequence[str]) -> list[Score | Unscored]:
        """Return what comes of a sample by each of the metrics, in their order."""
        sample = replace(sample, answer=sample.answer.strip(), reference=sample.reference.strip())
        reading = self.judge.read(sample)
        return [await self._kept(sample, metric, reading) for metric in metrics]

    async def _kept(self, sample: Sample, metric: str, reading: Reading) -> Score | Unscored:
        """Return the score that is kept, or make one and keep it."""
        for field, why in NEEDS[metric]:
            if not getattr(sample, field):
                return Unscored(sample.id, metric, why, failed=False)
        key = self._key(sample, metric)
        if self.files and (found := self.files.find(key, sample.id)):
            return found
        made = await self._made(sample, metric, reading)
        if self.files and isinstance(made, Score):
            self.files.keep(key, made)
        return made

    async def _made(self, sample: Sample, metric: str, reading: Reading) -> Score | Unscored:
        """Ask the judge, again where that may help."""
        start, before = time.perf_counter(), reading.tokens
        why = ""
        for attempt in range(self.settings.attempts):
            if self.until is not None and time.monotonic() >= self.until:
                return Unscored(sample.id, metric, "The time for scoring was over.", failed=True)
            if self.allowance.is_spent:
                return Unscored(sample.id, metric, "The tokens that scoring may cost were spent.", failed=True)
            asked = reading.tokens
            if attempt:
                await asyncio.sleep(self.settings.retry_seconds * 2 ** (attempt - 1))
            try:
                async with asyncio.timeout(self.settings.timeout_seconds):
                    value, findings = await self.ragas.score(
                        metric, sample, reading, self.judge.embed, again=attempt > 0
                    )
            except self.ragas.NothingClaimed as error:
                return Unscored(sample.id, metric, str(error), failed=False)
            except TimeoutError:
                why = f"The judge took longer than {self.settings.timeout_seconds:g} s (scoring.timeout_seconds)."
            except CitewellError as error:
                why = error.message
                if not error.transient:
                    break
            except Exception as error:  # what a foreign formula stumbles over costs one score and not all
                log.warning("a score failed", metric=metric, exc_info=True)
                why = f"The metric failed ({type(error).__name__}: {error})."
            else:
                seconds = time.perf_counter() - start
                return Score(sample.id, metric, value, findings, reading.tokens - before, seconds)
            finally:
                self.allowance.used += reading.tokens - asked
        return Unscored(sample.id, metric, why, failed=True)

    def _key(self, sample: Sample, metric: str) -> str:
        how = FORMAT, self.ragas.VERSION, metric, self.fingerprint, self.judge.embedder
        used = [str(getattr(sample, field)) for field, _ in NEEDS[metric]]
        return digest(*how, sample.question, *used)
