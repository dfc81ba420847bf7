"""Asking a scripted server through the OpenAI-compatible generator, for tests of what goes over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from rag.errors import GeneratorFailed
from rag.generators import OpenAIGenerator
from rag.protocols import Generator
from rag.records import Prompt
from rag.settings import GeneratorSettings
from tests.scripted_llm import ScriptedLLM

T = TypeVar("T")
MESSAGES = ({"role": "system", "content": "Rules."}, {"role": "user", "content": "Wie heißt es?\u2028"})
PROMPT = Prompt("Wie heißt es?", (), MESSAGES, 100)
KEY = "sk-very-secret-0123456789"


def settings_for(server: ScriptedLLM | str, **values: Any) -> GeneratorSettings:
    base_url = server if isinstance(server, str) else server.base_url
    defaults = {"model": "m", "connect_timeout": 10, "first_token_timeout": 30, "total_timeout": 60}
    return GeneratorSettings(kind="openai", base_url=base_url, **{**defaults, **values})


def using(config: GeneratorSettings, act: Callable[[OpenAIGenerator], Awaitable[T]]) -> T:
    """Run ``act`` with a generator that is closed afterwards, in an event loop of its own."""

    async def run() -> T:
        generator = OpenAIGenerator(config)
        try:
            return await act(generator)
        finally:
            await generator.aclose()

    return asyncio.run(run())


async def collect(generator: Generator, prompt: Prompt = PROMPT) -> list[str]:
    return [item.text async for item in generator.generate(prompt)]


def ask(server: ScriptedLLM | str, prompt: Prompt = PROMPT, **values: Any) -> list[str]:
    return using(settings_for(server, **values), lambda generator: collect(generator, prompt))


def failure(server: ScriptedLLM | str, prompt: Prompt = PROMPT, **values: Any) -> GeneratorFailed:
    with pytest.raises(GeneratorFailed) as caught:
        ask(server, prompt, **values)
    message = caught.value.message
    assert KEY not in message
    assert message.endswith(".")
    assert "\n" not in message
    return caught.value
