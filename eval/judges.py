"""What stands behind the metrics of the nightly report: the judge that ships, or a language model on some server.

A metric puts questions, each with the facts that it is about and the form of the reply that it wants. The built-in
judge answers from the facts alone: claims are sentences, verdicts are those of a `rag.protocols.Judge`. A language
model gets the metric's own prompt, and its reply counts only if it has the form and answers all that was asked: a
statement that it passes over, or a verdict that is neither 0 nor 1, is a failure and no score.

Knows replies by the names of their fields, and neither Ragas nor how a score is made of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

import rag
from eval.reading import is_said
from eval.scored import Sample
from rag.assembly import open_language_model
from rag.claims import ClaimParser, is_checkable
from rag.errors import GeneratorFailed, Misconfigured
from rag.judge import nearest_spans
from rag.language_model import LanguageModel
from rag.prompt import MESSAGE_TOKENS, estimate_tokens, plain
from rag.protocols import Embedder, Judge
from rag.records import Delta, Guided, Prompt, digest
from rag.settings import GeneratorSettings, ScoringSettings

ReplyT = TypeVar("ReplyT", bound=BaseModel)

#: A text of fewer words is no statement: it is read together with the question that it answers.
STATEMENT_WORDS = 5
#: A model that answered in the wrong form would do so again, if it did not vary.
AGAIN_TEMPERATURE = 0.4
_EVADES = re.compile(
    r"\b(?:i(?: am|['’]m) (?:not sure|unable|sorry)|i (?:do not|don['’]t|can ?not|can['’]t|could not|couldn['’]t) "
    r"(?:know|say|tell|answer|find|help|determine)|it depends\W*$)",
    re.IGNORECASE,
)


class BadReply(GeneratorFailed):
    """The judge's reply is not what it was asked for."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What the built-in judge says of a claim against a text: how far that supports it, and its nearest sentence."""

    support: float
    supported: bool
    evidence: str


class Reading(Protocol):
    """A judge at work on one sample."""

    @property
    def tokens(self) -> int:
        """How many tokens its replies took so far, where they take any."""
        ...

    async def reply(self, prompt: str, facts: Any, form: type[ReplyT], *, again: bool) -> ReplyT:
        """Return the reply to ``prompt``, which is about ``facts``, in the ``form`` wanted.

        ``again``: it was asked before and failed. Raises `GeneratorFailed`.
        """
        ...

    def ground(self, claim: str, text: str) -> Ground | None:
        """Return what it said of a claim against a text, as far as it knows more than its verdict."""
        ...


class SuiteJudge(Protocol):
    """What scores answers: the built-in judge or a language model."""

    @property
    def name(self) -> str: ...

    @property
    def in_flight(self) -> int:
        """How many samples it can work on at once."""
        ...

    async def fingerprint(self) -> str | None:
        """Name all that its verdicts depend on; None if that can not be known now, so that nothing may be kept."""
        ...

    @property
    def embedder(self) -> str:
        """The fingerprint of the embedder behind `embed`, empty if there is none."""
        ...

    def read(self, sample: Sample) -> Reading:
        """Return what works on one sample; what it found there is not looked for twice."""
        ...

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a unit vector for each text, of the built-in embedder. Thread-safe."""
        ...

    async def aclose(self) -> None:
        """Close what is open on the event loop that it was used on; it may be used again afterwards on another."""
        ...


@contextmanager
def open_judge(settings: ScoringSettings, judge: Judge, embedder: Embedder) -> Iterator[SuiteJudge]:
    """Yield the judge that the settings choose; ``judge`` and ``embedder`` are the parts of an opened Citewell.

    Raises `Misconfigured` if a language model can not be asked as they say.
    """
    if settings.judge == "built-in":
        yield BuiltInJudge(judge, embedder)
    else:
        yield open_model_judge(settings, embedder)


def open_model_judge(settings: ScoringSettings, embedder: Embedder | None = None) -> ModelJudge:
    """Return the language model of the settings as a judge; raises `Misconfigured` if none can be asked.

    Without an ``embedder`` it can not say how relevant an answer is.
    """
    if not settings.base_url:
        raise Misconfigured("No judge is set; set scoring.base_url, e.g. http://127.0.0.1:8000/v1.")
    asked = GeneratorSettings(
        kind="openai",
        base_url=settings.base_url,
        model=settings.model,
        api_key=settings.api_key,
        request_fields=settings.request_fields,
        context_tokens=settings.context_tokens,
        max_tokens=settings.max_tokens,
        first_token_timeout=settings.timeout_seconds,
        total_timeout=settings.timeout_seconds,
        max_in_flight=settings.in_flight,
        wait_seconds=settings.timeout_seconds,
    )
    model = open_language_model(asked)
    if model is None:
        raise AssertionError("the kind openai is a language model")
    return ModelJudge(model, settings, embedder)


# -- the judge that ships --------------------------------------------------------------------------------------------


class BuiltInJudge:
    """A `SuiteJudge` that needs no language model and no network: the product's own judge and embedder."""

    in_flight = 1

    def __init__(self, judge: Judge, embedder: Embedder) -> None:
        self._judge = judge
        self._embedding = _Embedding(embedder)

    @property
    def name(self) -> str:
        return self._judge.name

    async def fingerprint(self) -> str:
        """See `SuiteJudge` and `built_in_fingerprint`."""
        return await asyncio.to_thread(built_in_fingerprint, self._judge)

    @property
    def embedder(self) -> str:
        return self._embedding.fingerprint

    def read(self, sample: Sample) -> Reading:
        """See `SuiteJudge`."""
        return BuiltInReading(self._judge, sample)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """See `SuiteJudge`."""
        return self._embedding.of(texts)

    async def aclose(self) -> None:
        """Its parts are closed by their owner."""


class BuiltInReading:
    """A `Reading` by the judge that ships.

    A reference answer is often a few words, which are no statement: as a claim and as evidence they stand behind their
    question. A text in which they are said word for word supports them, and they support a sentence that says them.
    """

    tokens = 0

    def __init__(self, judge: Judge, sample: Sample) -> None:
        self._judge = judge
        self._sample = sample
        self._bare: dict[str, str] = {}
        self._grounds: dict[tuple[str, str], Ground] = {}
        self._replies: dict[str, Callable[[Any], Mapping[str, Any]]] = {
            "statements": self._statements,
            "claims": lambda facts: {"claims": self.claims(facts.response)},
            "classifications": self._classifications,
            "verdict": self._usefulness,
            "noncommittal": self._relevance,
        }

    async def reply(self, prompt: str, facts: Any, form: type[ReplyT], *, again: bool) -> ReplyT:
        """See `Reading`; it reads the facts alone, and says the same again."""
        del prompt, again
        wanted = next(name for name in self._replies if name in form.model_fields)
        return form.model_validate(await asyncio.to_thread(self._replies[wanted], facts))

    def ground(self, claim: str, text: str) -> Ground | None:
        """See `Reading`."""
        return self._grounds.get((claim, text))

    def claims(self, text: str) -> list[str]:
        """Return the sentences of a text that say something that another one could support."""
        text = text.strip()
        if not any(c.isalnum() for c in text):
            return []
        if (whole := self._whole(text)) != text:
            self._bare[whole] = text
            return [] if _EVADES.search(text) else [whole]
        parser = ClaimParser(len(self._sample.contexts))
        parser.feed(Delta(text))
        parser.finish()
        return [claim.text for claim in parser.claims() if is_checkable(claim.text) and not _EVADES.search(claim.text)]

    def judged(self, claims: Sequence[str], text: str) -> list[Ground]:
        """Return for each claim what supports it in a text."""
        new = [claim for claim in dict.fromkeys(claims) if (claim, text) not in self._grounds]
        whole = self._whole(text)
        said = [claim for claim in new if self._is_said(claim, text, whole)]
        asked = [claim for claim in new if claim not in said]
        supports = self._judge.support([(claim, whole) for claim in asked])
        for claim, support in [*zip(asked, supports, strict=True), *((claim, 1.0) for claim in said)]:
            evidence = " ".join(whole[start:end] for start, end in nearest_spans(claim, whole, 1))
            self._grounds[claim, text] = Ground(support, support >= self._judge.threshold, evidence)
        return [self._grounds[claim, text] for claim in claims]

    def _is_said(self, claim: str, text: str, whole: str) -> bool:
        """Say whether a few words that are a claim stand in a text, or those that are the text in a claim."""
        if whole != text and is_said(claim, [text]):
            return True
        return claim in self._bare and is_said(text, [self._bare[claim]])

    def _whole(self, text: str) -> str:
        is_short = len(text.split()) < STATEMENT_WORDS and text in {self._sample.answer, self._sample.reference}
        return f"{self._sample.question} {text}" if is_short else text

    def _statements(self, facts: Any) -> Mapping[str, Any]:
        """Answer both that ask for statements: to make some of a text, and to judge those that are given."""
        if not hasattr(facts, "statements"):
            return {"statements": self.claims(getattr(facts, "answer", None) or facts.text)}
        grounds = self.judged(facts.statements, facts.context)
        verdicts = [
            {"statement": claim, "reason": ground.evidence, "verdict": int(ground.supported)}
            for claim, ground in zip(facts.statements, grounds, strict=True)
        ]
        return {"statements": verdicts}

    def _classifications(self, facts: Any) -> Mapping[str, Any]:
        claims = self.claims(facts.answer)
        found = [
            {"statement": claim, "reason": ground.evidence, "attributed": int(ground.supported)}
            for claim, ground in zip(claims, self.judged(claims, facts.context), strict=True)
        ]
        return {"classifications": found}

    def _usefulness(self, facts: Any) -> Mapping[str, Any]:
        """Call a passage useful that supports at least one claim of the answer."""
        grounds = self.judged(self.claims(facts.answer), facts.context)
        best = max(grounds, key=lambda ground: ground.support, default=Ground(0.0, supported=False, evidence=""))
        return {"reason": best.evidence, "verdict": int(best.supported)}

    def _relevance(self, facts: Any) -> Mapping[str, Any]:
        """Let the answer stand for the question that it answers: what is compared is then how near the two are."""
        return {"question": facts.response, "noncommittal": int(not self.claims(facts.response))}


def built_in_fingerprint(judge: Judge) -> str:
    """Return the fingerprint of a judge that ships: its name and threshold, the code and the weights behind it."""
    return f"{judge.name}-{digest(judge.name, str(judge.threshold), _code())[:16]}"


@cache
def _code() -> str:
    """Return a digest of the core of the product, its models included, and of this module."""
    hasher = hashlib.sha256()
    root = Path(rag.__file__).parent
    for file in (*sorted(root.glob("*.py")), *sorted((root / "weights").glob("judge.*")), Path(__file__)):
        hasher.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return hasher.hexdigest()


class _Embedding:
    """The vectors of an embedder, one call at a time."""

    def __init__(self, embedder: Embedder | None) -> None:
        self._embedder = embedder
        self._lock = threading.Lock()

    @property
    def fingerprint(self) -> str:
        return self._embedder.fingerprint if self._embedder else ""

    def of(self, texts: Sequence[str]) -> list[list[float]]:
        if self._embedder is None:
            raise Misconfigured("This judge was opened without an embedder; it can not say how relevant an answer is.")
        with self._lock:
            found: list[list[float]] = self._embedder.encode(texts, role="query").vectors.astype(float).tolist()
        return found


# -- a language model ------------------------------------------------------------------------------------------------


class ModelJudge:
    """A `SuiteJudge` over a language model, used from one event loop at a time."""

    def __init__(self, model: LanguageModel, settings: ScoringSettings, embedder: Embedder | None = None) -> None:
        self._model = model
        self._settings = settings
        self._embedding = _Embedding(embedder)

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def in_flight(self) -> int:
        return self._settings.in_flight

    async def fingerprint(self) -> str | None:
        """See `SuiteJudge`: the model by the name that its server gives, and how it is asked. Leaves nothing open."""
        settings = self._settings
        try:
            await self._model.prompt_tokens()  # asks the server for its model, if the settings name none
        finally:
            await self.aclose()
        if self._model.name.endswith(":auto"):
            return None
        asked = repr(sorted(settings.request_fields.items())), str(settings.max_tokens), settings.base_url or ""
        return f"{self._model.name}-{digest(self._model.name, *asked)[:16]}"

    @property
    def embedder(self) -> str:
        return self._embedding.fingerprint

    def read(self, sample: Sample) -> Reading:
        """See `SuiteJudge`."""
        return ModelReading(self._model, self._settings, sample)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """See `SuiteJudge`."""
        return self._embedding.of(texts)

    async def aclose(self) -> None:
        """See `SuiteJudge`."""
        await self._model.aclose()


class ModelReading:
    """A `Reading` by a language model: each question is one completion, at temperature 0 the first time."""

    def __init__(self, model: LanguageModel, settings: ScoringSettings, sample: Sample) -> None:
        self._model = model
        self._settings = settings
        self._sample = sample
        self.tokens = 0

    async def reply(self, prompt: str, facts: Any, form: type[ReplyT], *, again: bool) -> ReplyT:
        """See `Reading`; raises `BadReply` for one that has not the form or passes over a statement."""
        asked = {"role": "user", "content": plain(prompt)}
        request = Prompt(
            self._sample.question,
            (),
            (asked,),
            estimate_tokens(prompt) + MESSAGE_TOKENS,
            self._settings.max_tokens,
            AGAIN_TEMPERATURE if again else 0.0,
            Guided("reply", _closed(form.model_json_schema()), (asked,)),
        )
        async with self._named():
            text = await self._text(request)
        found = _parsed(text, form)
        _check(facts, found)
        return found

    def ground(self, claim: str, text: str) -> None:
        """See `Reading`; a language model gives its verdict and its reason."""

    async def _text(self, request: Prompt) -> str:
        pieces = []
        async with aclosing(self._model.generate(request)) as deltas:
            async for delta in deltas:
                pieces.append(delta.text)
                if delta.usage:
                    self.tokens += delta.usage.prompt_tokens + delta.usage.completion_tokens
        return "".join(pieces)

    @asynccontextmanager
    async def _named(self) -> AsyncIterator[None]:
        """Name the judge in what goes wrong: its server is asked as a generator's is, by other settings."""
        try:
            yield
        except GeneratorFailed as error:
            sentence = error.message.replace("The generator", "The judge").replace("generator.", "scoring.")
            raise type(error)(sentence, **error.facts) from error


def _parsed(text: str, form: type[ReplyT]) -> ReplyT:
    """Return the object in a reply, around which a model may have written more."""
    try:
        return form.model_validate_json(text[text.find("{") : text.rfind("}") + 1])
    except ValidationError as error:
        shown = " ".join(text.split())[:120]
        raise BadReply(f"The judge's reply is not the JSON that it was asked for; it begins with {shown!r}.") from error


def _check(facts: Any, found: Any) -> None:
    """Raise `BadReply` unless a reply judges each statement, all of them with 0 or 1."""
    judged = [found, *getattr(found, "classifications", ())]
    if hasattr(facts, "statements"):
        judged += found.statements
        if len(found.statements) != len(facts.statements):
            raise BadReply(f"The judge gave {len(found.statements)} verdicts for {len(facts.statements)} statements.")
    for one in judged:
        for name in ("verdict", "attributed", "noncommittal"):
            if getattr(one, name, 0) not in {0, 1}:
                raise BadReply(f"The judge gave the verdict {getattr(one, name)}, which is neither 0 nor 1.")


def _closed(schema: Any) -> Any:
    """Return a JSON schema whose objects have no other keys than it names, as strict servers want it."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if schema.get("type") == "object" else {}
    return {key: _closed(value) for key, value in schema.items()} | closed
