"""The token budget of a language model: what of its window is for the prompt, and what is left for the answer.

A request over the window can stop trtllm-serve's engine for everyone, and so can one for no token at all: neither is
sent. Pure arithmetic over the settings; knows no tokenizer and no server.
"""

from __future__ import annotations

from rag.errors import GeneratorFailed
from rag.settings import GeneratorSettings

#: Tokens of the window that are kept free between prompt and answer: an estimate, or a chat template, may be short.
SLACK = 64
_LEAST_ANSWER_TOKENS = 16


def window_of(settings: GeneratorSettings, told: int | None) -> int:
    """Return the window to keep to: that of the settings, or the smaller one that the model's server told."""
    return min(settings.context_tokens, told or settings.context_tokens)


def prompt_room(settings: GeneratorSettings, told: int | None = None) -> int:
    """Return how many tokens a prompt may have so that an answer of ``max_tokens`` fits behind it.

    In a window smaller than that of the settings an answer gets no more than half.
    """
    window = window_of(settings, told)
    answer = settings.max_tokens if window == settings.context_tokens else min(settings.max_tokens, window // 2)
    return window - answer - SLACK


def answer_room(
    settings: GeneratorSettings, prompt_tokens: int, wanted: int | None = None, told: int | None = None
) -> int:
    """Return how many tokens the answer to a prompt may have: ``wanted`` of them or fewer, never 0.

    Raises `GeneratorFailed` when the prompt leaves no room for one.
    """
    window = window_of(settings, told)
    most = max(1, min(settings.max_tokens, wanted or settings.max_tokens))
    room = min(most, window - prompt_tokens)
    if room < min(most, _LEAST_ANSWER_TOKENS):
        raise GeneratorFailed(
            f"The prompt takes about {prompt_tokens} of the {window} tokens of the generator's window "
            "(generator.context_tokens) and leaves no room for an answer."
        )
    return room


def temperature_of(settings: GeneratorSettings, wanted: float | None) -> float:
    """Return the temperature for a request that asks for ``wanted``, which the settings bound."""
    if wanted is None:
        return settings.temperature
    return max(0.0, min(wanted, max(settings.temperature, settings.most_temperature)))
