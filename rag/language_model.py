"""A language model as the rest of the house uses it: bounded, spared while it is down, and measured.

Whichever client asks the model stands behind the same three: an `Admission` that lets so many questions through at
once, a `Breaker` that leaves alone what has failed several times in a row, and a counter of tokens. Saturation is
`Busy`, which no one should answer in another way; a model that is left alone is `GeneratorFailed` at once, for which
the built-in reader stands in.

Knows its client by `rag.protocols.Model`. Knows no server, no passages and no web.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass

from rag.admission import Admission
from rag.breaker import Breaker, State
from rag.budget import prompt_room
from rag.errors import GeneratorDown, GeneratorFailed
from rag.prompt import estimate_tokens
from rag.protocols import Generator, Model
from rag.records import Delta, Prompt
from rag.settings import GeneratorSettings
from rag.tokens import open_text_counter


@dataclass(frozen=True, slots=True)
class Load:
    """What a model has in hand: generations ``in_flight`` of at most ``most``, questions ``waiting``, its breaker.

    ``failures`` are those in a row, the last one included.
    """

    in_flight: int
    most: int
    waiting: int
    breaker: State
    failures: int


class LanguageModel:
    """A `rag.protocols.Generator` over any `Model`, used from one event loop at a time.

    Raises `Misconfigured` when ``generator.tokenizer`` is none. ``clock`` is that of the breaker.
    """

    quotes = False

    def __init__(self, model: Model, settings: GeneratorSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._model = model
        self._settings = settings
        self._admission = Admission(settings.max_in_flight, settings.wait_seconds)
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_seconds, clock)
        self._admitted = _Admitted(model, self._breaker)
        self._count = open_text_counter(settings.tokenizer) if settings.tokenizer else estimate_tokens

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def load(self) -> Load:
        """What it has in hand at this moment."""
        admission, breaker = self._admission, self._breaker
        return Load(admission.in_flight, admission.most, admission.waiting, breaker.state, breaker.failures)

    def count_tokens(self, text: str) -> int:
        """Return how many tokens a text has by the model's tokenizer; without one, how many it has at most, roughly."""
        return self._count(text)

    async def prompt_tokens(self) -> int:
        """Return how many tokens a prompt may have; of a model that is left alone the settings know."""
        if self._breaker.rest:
            return prompt_room(self._settings)
        return await self._model.prompt_tokens()

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[Generator]:
        """Wait for a place, hold it, and give the generator that may be used meanwhile, once.

        Raises `Busy` if none is free in time. While the model is left alone there is nothing to wait for: what is given
        then fails at once.
        """
        if self._breaker.rest:
            yield self._admitted
            return
        async with self._admission.one():
            yield self._admitted

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """See `rag.protocols.Generator`; raises `Busy`, too."""
        async with self.admitted() as writer, aclosing(writer.generate(prompt)) as deltas:
            async for delta in deltas:
                yield delta

    async def ready(self) -> bool:
        """See `rag.protocols.Model`; a model that is left alone is not ready, and is not asked."""
        if self._breaker.state == "open":
            raise _resting(self._breaker)
        return await self._model.ready()

    async def aclose(self) -> None:
        """See `rag.protocols.Generator`."""
        await self._model.aclose()


@asynccontextmanager
async def admitted(generator: Generator) -> AsyncIterator[Generator]:
    """Hold a place with ``generator`` for one answer, if it bounds them; see `LanguageModel.admitted`."""
    if not isinstance(generator, LanguageModel):
        yield generator
        return
    async with generator.admitted() as writer:
        yield writer


class _Admitted:
    """The model for who has a place with it: asked unless it is left alone."""

    quotes = False

    def __init__(self, model: Model, breaker: Breaker) -> None:
        self._model = model
        self._breaker = breaker

    @property
    def name(self) -> str:
        return self._model.name

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        with _watched(self._breaker):
            async with aclosing(self._model.generate(prompt)) as deltas:
                async for delta in deltas:
                    yield delta

    async def aclose(self) -> None:
        """What it stands for is closed by its owner."""


@contextmanager
def _watched(breaker: Breaker) -> Iterator[None]:
    """Tell the breaker how what is done inside ends; raises `GeneratorFailed` if it may not be done now."""
    if not breaker.enter():
        raise _resting(breaker)
    try:
        yield
    except GeneratorDown:
        breaker.failed()
        raise
    except GeneratorFailed as error:  # of this question alone
        if "status" in error.facts:  # who refuses is there
            breaker.succeeded()
        else:
            breaker.given_up()
        raise
    except BaseException:
        breaker.given_up()
        raise
    breaker.succeeded()


def _resting(breaker: Breaker) -> GeneratorFailed:
    seconds = max(1, math.ceil(breaker.rest))
    return GeneratorFailed(
        f"The generator failed {breaker.failures} times in a row and is not asked for another {seconds} s.",
        retry_after=seconds,
    )
