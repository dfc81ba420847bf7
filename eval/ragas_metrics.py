"""Ragas' metrics, with a judge of ours in the place of its language model: owns the library.

The formulas, the prompts and the steps are Ragas' own (`ragas.metrics.collections`), so that a figure means what its
users know by its name. Each metric is made for one sample: what it asks, and what it is answered, is kept as the
reasons of its score. Three things differ: a judge that ships is asked about the facts of a prompt and not by its text;
where nothing is claimed there is no score, instead of one that is not a number; and the relevance of an answer rests
on one question made of it, since a model at temperature 0 would make the same one three times.

Knows a judge as what replies to a prompt, and neither servers nor files.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel

from eval.judges import Reading, ReplyT
from eval.scored import Finding, Sample
from rag.quiet import silence_dependencies

silence_dependencies()  # it reports to its makers, and reads at import whether it may

from ragas.embeddings.base import BaseRagasEmbedding  # noqa: E402
from ragas.llms.base import InstructorBaseRagasLLM  # noqa: E402
from ragas.metrics.collections import (  # noqa: E402
    AnswerRelevancy,
    ContextPrecision,
    ContextRecall,
    FactualCorrectness,
    Faithfulness,
    NoiseSensitivity,
)
from ragas.prompt.metrics.base_prompt import BasePrompt  # noqa: E402

#: Each metric, and what it is given of a sample.
_METRICS = {
    "faithfulness": (Faithfulness, ("user_input", "response", "retrieved_contexts")),
    "answer_relevancy": (AnswerRelevancy, ("user_input", "response")),
    "context_precision": (ContextPrecision, ("user_input", "reference", "retrieved_contexts")),
    "context_recall": (ContextRecall, ("user_input", "reference", "retrieved_contexts")),
    "factual_correctness": (FactualCorrectness, ("response", "reference")),
    "noise_sensitivity": (NoiseSensitivity, ("user_input", "response", "reference", "retrieved_contexts")),
}
VERSION = version("ragas")
Embed = Callable[[Sequence[str]], list[list[float]]]


class NothingClaimed(Exception):
    """A text makes no claim, so that there is no share of claims to count."""


async def score(
    metric: str, sample: Sample, reading: Reading, embed: Embed, *, again: bool = False
) -> tuple[float, tuple[Finding, ...]]:
    """Return the score of a sample and its reasons.

    A sample has the fields that the metric needs. Raises `NothingClaimed` with a sentence, and `GeneratorFailed` as
    the judge does; `ValueError` if the formula gives no number.
    """
    kind, names = _METRICS[metric]
    given = {
        "user_input": sample.question,
        "response": sample.answer,
        "retrieved_contexts": list(sample.contexts),
        "reference": sample.reference,
    }
    asked = _Asked(reading, again=again)
    more = {"embeddings": _Embeddings(embed), "strictness": 1} if kind is AnswerRelevancy else {}
    made = kind(llm=asked, **more)
    for name, value in list(vars(made).items()):
        if isinstance(value, BasePrompt):
            setattr(made, name, _WithFacts(value))
    value = float((await made.ascore(**{name: given[name] for name in names})).value)
    if not math.isfinite(value):
        raise ValueError(f"{metric} came out as {value}.")
    found = [one for facts, reply in asked.exchanges for one in _findings(facts, reply, sample, reading)]
    # A cosine below 0 is as far from the question as one of 0; Ragas adds 1e-10 where it divides.
    return min(1.0, max(0.0, round(value, 6))), tuple(dict.fromkeys(found))


class _Text(str):
    """A prompt that knows the facts that it is about."""

    facts: BaseModel
    __slots__ = ("facts",)


class _WithFacts:
    """One of Ragas' prompts, whose text brings its facts along."""

    def __init__(self, prompt: Any) -> None:
        self._prompt = prompt

    def to_string(self, facts: BaseModel) -> str:
        text = _Text(self._prompt.to_string(facts))
        text.facts = facts
        return text


class _Asked(InstructorBaseRagasLLM):  # type: ignore[misc]  # the library is not checked
    """What Ragas takes for its language model; ``exchanges`` are the facts and the replies so far."""

    def __init__(self, reading: Reading, *, again: bool) -> None:
        self._reading = reading
        self._again = again
        self.exchanges: list[tuple[Any, Any]] = []

    def generate(self, prompt: str, response_model: type[ReplyT]) -> ReplyT:
        """Ragas' metrics are awaited, and ask by `agenerate` alone."""
        raise NotImplementedError

    async def agenerate(self, prompt: _Text, response_model: type[ReplyT]) -> ReplyT:
        """See `eval.judges.Reading.reply`; raises `NothingClaimed`."""
        reply: Any = await self._reading.reply(prompt, prompt.facts, response_model, again=self._again)
        for name in ("statements", "claims", "classifications"):
            if not getattr(reply, name, True):
                raise NothingClaimed("A text makes no claim that could be judged.")
        self.exchanges.append((prompt.facts, reply))
        return reply  # type: ignore[no-any-return]


class _Embeddings(BaseRagasEmbedding):  # type: ignore[misc]  # the library is not checked
    """What Ragas takes for its embedding model."""

    def __init__(self, embed: Embed) -> None:
        super().__init__()
        self._embed = embed

    def embed_text(self, text: str, **_: Any) -> list[float]:
        return self._embed([text])[0]

    async def aembed_text(self, text: str, **_: Any) -> list[float]:
        return (await asyncio.to_thread(self._embed, [text]))[0]


def _findings(facts: Any, reply: Any, sample: Sample, reading: Reading) -> list[Finding]:
    """Return what a reply says of claims; none of one that only takes a text apart."""
    if hasattr(facts, "statements"):
        judged = [
            (claim, one.verdict, one.reason) for claim, one in zip(facts.statements, reply.statements, strict=True)
        ]
    elif hasattr(reply, "classifications"):
        judged = [(one.statement, one.attributed, one.reason) for one in reply.classifications]
    elif hasattr(reply, "verdict"):
        judged = [(facts.answer, reply.verdict, reply.reason)]
    elif hasattr(reply, "noncommittal"):
        return [Finding(reply.question, "question", not reply.noncommittal)]
    else:
        return []
    against = _name(facts.context, sample)
    return [_finding(claim, against, bool(verdict), reason, reading.ground(claim, facts.context))
            for claim, verdict, reason in judged]  # fmt: skip


def _finding(claim: str, against: str, verdict: bool, reason: str, ground: Any) -> Finding:
    if ground is None:
        return Finding(claim, against, verdict, reason=reason)
    return Finding(claim, against, verdict, ground.evidence, round(ground.support, 4))


def _name(text: str, sample: Sample) -> str:
    """Say which text of a sample claims were held against."""
    if text == sample.reference:
        return "reference"
    if text == sample.answer:
        return "answer"
    return f"passage {sample.contexts.index(text) + 1}" if text in sample.contexts else "passages"
