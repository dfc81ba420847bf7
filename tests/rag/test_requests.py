"""What a server is asked: requests that fit the model's window, usage, JSON, and what is left out where it refuses."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rag.budget import answer_room
from rag.errors import GeneratorFailed
from rag.generators import OpenAIGenerator
from rag.prompt import ABSTENTION
from rag.records import Delta, Guided, Prompt, Usage
from rag.settings import GeneratorSettings
from tests.asking import MESSAGES, PROMPT, ask, collect, failure, settings_for, using
from tests.scripted_llm import (
    CHAT,
    DONE,
    Close,
    Pause,
    Reset,
    ScriptedLLM,
    delta,
    event,
    event_stream,
    json_reply,
    refused_port,
    reply,
    stream,
)

# The window


def test_the_answer_is_made_to_fit_the_window(server):
    server.on(CHAT, stream("Yes."))
    ask(server, Prompt("q", (), MESSAGES, 900), context_tokens=1000, max_tokens=500)
    assert server.chats[0].json["max_tokens"] == 100


def test_a_prompt_over_the_window_is_not_sent(server):
    error = failure(server, Prompt("q", (), MESSAGES, 990), context_tokens=1000, max_tokens=500)
    assert error.message.startswith("The prompt takes about 990 of the 1000 tokens")
    assert server.requests == []


def listing(**models: int | None):
    """A list of models as vLLM and NIM give it, with the window of each."""
    cards = [{"id": name, "object": "model", "max_model_len": window} for name, window in models.items()]
    return json_reply(200, {"object": "list", "data": cards})


def test_a_window_that_the_server_tells_is_heeded(server):
    """The answer is made to fit it, and what does not is not sent; the model's own entry counts, not the first."""
    server.on("/v1/models", listing(other=300, m=1000))
    server.on(CHAT, stream("Yes."))
    ask(server, Prompt("q", (), MESSAGES, 900), max_tokens=500)
    assert server.chats[0].json["max_tokens"] == 100
    assert "about 990 of the 1000 tokens" in failure(server, Prompt("q", (), MESSAGES, 990)).message
    assert len(server.chats) == 1


@pytest.mark.parametrize(("told", "room"), [(1000, 1000 - 500 - 64), (100_000, 8192 - 512 - 64), (None, 7616)])
def test_a_prompt_has_the_room_that_the_smaller_window_leaves(server, told, room):
    """In a smaller window than expected an answer gets no more than half."""
    server.on("/v1/models", listing(m=told))
    assert using(settings_for(server), OpenAIGenerator.prompt_tokens) == room


def test_a_server_that_can_not_be_asked_is_taken_at_the_settings_word():
    sock, port = refused_port()
    with sock:
        room = using(settings_for(f"http://127.0.0.1:{port}/v1"), OpenAIGenerator.prompt_tokens)
    assert room == 8192 - 512 - 64


NO_LISTS = [json_reply(404, {}), json_reply(500, {}), json_reply(200, [1]), reply(200, "?"), (Pause(30),)]


@pytest.mark.parametrize("models", NO_LISTS, ids=["unknown", "broken", "other", "no_json", "silent"])
def test_a_model_that_was_named_needs_no_list_of_models(server, models):
    """It is asked for once, with the patience of a connection."""
    server.on("/v1/models", models)
    server.on(CHAT, stream("Yes."))

    async def twice(generator: OpenAIGenerator) -> list[list[str]]:
        return [await collect(generator) for _ in range(2)]

    assert using(settings_for(server, connect_timeout=2.0), twice) == [["Yes."]] * 2
    assert [request.path for request in server.requests] == ["/v1/models", CHAT, CHAT]


CLOSE = Prompt("q", (), MESSAGES, 900)  # within 1,000 tokens, but an estimate may be short
LONG_TEXT = "Rules.\nWie heißt es?\u2028"


@pytest.mark.parametrize(
    ("path", "counted", "answer"),
    [
        ("/tokenize", {"count": 700, "max_model_len": 4096, "tokens": [1] * 700}, 300),
        ("/tokenize", {"tokens": [1] * 700}, 300 - 16),
        ("/_internal/tokenize", {"count": 700, "tokens": None}, 300 - 16),
        ("/extras/tokenize/count", {"count": 700}, 300 - 16),
    ],
    ids=["vllm", "llama_cpp", "trtllm", "llama_cpp_python"],
)
def test_a_prompt_near_the_end_of_the_window_is_counted_by_the_server(server, path, counted, answer):
    """Where it lends its tokenizer; two messages of a template are added where it counts a text alone."""
    server.on(path, json_reply(200, counted))
    server.on(CHAT, stream("Yes."))

    async def twice(generator: OpenAIGenerator) -> None:
        for _ in range(2):
            await collect(generator, CLOSE)

    using(settings_for(server, context_tokens=1000, max_tokens=400), twice)
    assert [chat.json["max_tokens"] for chat in server.chats] == [answer] * 2
    asked = [request for request in server.requests if request.path == path]
    body = asked[-1].json
    assert body.get("messages", LONG_TEXT) in ([dict(message) for message in MESSAGES], LONG_TEXT)
    assert len([r for r in server.requests if "tokenize" in r.path]) <= 5, "the way that worked is remembered"


def test_a_prompt_that_the_server_counts_longer_than_its_window_is_not_sent(server):
    """The estimate was too low: what would stop trtllm-serve's engine stays here."""
    server.on("/tokenize", json_reply(200, {"count": 1400}))
    assert "about 1400 of the 1000 tokens" in failure(server, CLOSE, context_tokens=1000, max_tokens=50).message
    assert server.chats == []


@pytest.mark.parametrize("counted", [{"count": 0}, {"count": "many"}, {"tokens": []}, [3], None])
def test_a_count_that_is_none_leaves_the_estimate(server, counted):
    server.on("/tokenize", json_reply(200, counted))
    server.on(CHAT, stream("Yes."))
    assert ask(server, CLOSE, context_tokens=1000, max_tokens=400) == ["Yes."]
    assert server.chats[0].json["max_tokens"] == 100


def test_a_prompt_far_from_the_end_of_the_window_is_not_counted(server):
    server.on(CHAT, stream("Yes."))
    ask(server)
    assert [request.path for request in server.requests] == ["/v1/models", CHAT]


@given(st.integers(0, 9000), st.integers(0, 1200) | st.none(), st.integers(256, 9000) | st.none())
def test_an_answer_has_at_least_one_token_and_fits(tokens, wanted, told):
    """Neither of the two requests that can stop trtllm-serve's engine is ever made."""
    config = GeneratorSettings(kind="openai", base_url="http://127.0.0.1:1/v1", context_tokens=4096, max_tokens=512)
    with suppress(GeneratorFailed):
        room = answer_room(config, tokens, wanted, told)
        assert 1 <= room <= min(512, wanted or 512)
        assert tokens + room <= min(4096, told or 4096)


# What a request may wish


@pytest.mark.parametrize(
    ("wished", "sent"),
    [((None, None), (77, 0.5)), ((20, 0.0), (20, 0.0)), ((500, 2.0), (77, 1.0)), ((1, 0.7), (1, 0.7))],
)
def test_a_request_is_bounded_by_the_settings(server, wished, sent):
    """How long and how freely the model may write."""
    server.on(CHAT, stream("Yes."))
    prompt = Prompt("q", (), MESSAGES, 100, max_tokens=wished[0], temperature=wished[1])
    ask(server, prompt, max_tokens=77, temperature=0.5)
    [chat] = server.chats
    assert (chat.json["max_tokens"], chat.json["temperature"]) == sent


def test_fields_of_the_settings_are_sent_along(server):
    server.on(CHAT, stream("Yes."))
    fields = {"chat_template_kwargs": {"enable_thinking": False}, "top_p": 0.9}
    ask(server, request_fields=fields)
    assert server.chats[0].json.items() >= fields.items()


@pytest.mark.parametrize("fields", [{"top_k": -1}, {"max_tokens": 0}, {"stream": False}, {"messages": []}])
def test_fields_that_would_break_a_server_or_the_client_are_refused(fields):
    with pytest.raises(ValidationError, match=r"generator\.request_fields"):
        settings_for("http://127.0.0.1:1/v1", request_fields=fields)


# The usage


def usage(prompt: int = 12, completion: int = 5, **more: object) -> bytes:
    """The last event, as TensorRT-LLM sends it."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return event({"id": "x", "object": "chat.completion.chunk", "choices": [], "usage": counts | more})


def deltas(server: ScriptedLLM, prompt: Prompt = PROMPT, **values: Any) -> list[Delta]:
    async def all_of(generator: OpenAIGenerator) -> list[Delta]:
        return [item async for item in generator.generate(prompt)]

    return using(settings_for(server, **values), all_of)


def ended(*texts: str, behind: tuple[Any, ...]) -> Any:
    return event_stream(*map(delta, texts), delta(finish="stop"), *behind)


def test_the_usage_comes_with_the_last_piece(server):
    thoughts = {"completion_tokens_details": {"reasoning_tokens": 3}}
    server.on(CHAT, ended("Three", " months.", behind=(usage(12, 5, **thoughts), DONE)))
    assert deltas(server) == [Delta("Three"), Delta(" months."), Delta("", usage=Usage(12, 5, 3))]


def test_an_abstention_has_a_usage_and_no_text(server):
    server.on(CHAT, ended(ABSTENTION, behind=(usage(), DONE)))
    assert deltas(server) == [Delta("", usage=Usage(12, 5))]


def test_a_usage_in_the_last_chunk_counts_too(server):
    """Some servers put it beside the reason to finish, and nothing behind it is waited for."""
    choice = {"index": 0, "delta": {"content": "Yes."}, "finish_reason": "stop"}
    last = {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    server.on(CHAT, event_stream(event(last), Pause(30)))
    assert deltas(server) == [Delta("Yes."), Delta("", usage=Usage(1, 2))]


@pytest.mark.parametrize("behind", [(), (DONE,), (Close(),), (Reset(),), (Pause(30),), (b"data: {broken\n\n",)])
def test_an_answer_that_is_whole_needs_no_usage(server, behind):
    server.on(CHAT, ended("Yes.", behind=behind))
    assert deltas(server) == [Delta("Yes.")]


@pytest.mark.parametrize("counts", [("12", 5), (None, 5), (-1, 5), (True, 5), ({}, [])])
def test_a_usage_that_is_none_is_left_out(server, counts):
    odd = event({"choices": [], "usage": dict(zip(("prompt_tokens", "completion_tokens"), counts, strict=True))})
    server.on(CHAT, ended("Yes.", behind=(odd, DONE)))
    assert deltas(server) == [Delta("Yes.")]


def test_a_server_that_does_not_know_stream_options_is_asked_without_from_then_on(server):
    server.on(
        CHAT, json_reply(400, {"error": "[{'loc': ('body', 'stream_options'), 'type': 'extra'}]"}), stream("Yes.")
    )

    async def twice(generator: OpenAIGenerator) -> list[list[str]]:
        return [await collect(generator) for _ in range(2)]

    assert using(settings_for(server), twice) == [["Yes."]] * 2
    assert ["stream_options" in chat.json for chat in server.chats] == [True, False, False]


def test_usage_belongs_to_its_own_answer(server):
    """Many at once, each with the count of its own."""
    server.on(CHAT, *(ended("Yes.", behind=(usage(number, 1), DONE)) for number in range(12)))

    async def many(generator: OpenAIGenerator) -> list[int]:
        async def one() -> int:
            found = [item.usage async for item in generator.generate(PROMPT)]
            return found[-1].prompt_tokens

        return await asyncio.gather(*(one() for _ in range(12)))

    assert sorted(using(settings_for(server), many)) == list(range(12))


# Replies in JSON

SCHEMA = {"type": "object", "properties": {"part": {"type": "string"}}, "required": ["part"]}
IN_JSON = ({"role": "user", "content": "Write JSON."},)
GUIDED = Prompt("q", (), MESSAGES, 100, guided=Guided("parts", SCHEMA, IN_JSON))
REFUSED = json_reply(400, {"error": "response_format is not supported"})


def forms(server: ScriptedLLM) -> list[str | None]:
    return [chat.json.get("response_format", {}).get("type") for chat in server.chats]


def test_a_schema_goes_with_the_messages_that_ask_for_json(server):
    server.on(CHAT, stream('{"part": "x"}'))
    ask(server, GUIDED)
    [chat] = server.chats
    assert chat.json["messages"] == [dict(message) for message in IN_JSON]
    assert chat.json["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "parts", "schema": SCHEMA, "strict": True},
    }


def test_a_prompt_without_a_schema_sends_none(server):
    server.on(CHAT, stream("Yes."))
    ask(server, guided="on")
    assert forms(server) == [None]


def test_guiding_that_is_off_sends_the_plain_messages(server):
    server.on(CHAT, stream("part: x"))
    ask(server, GUIDED, guided="off")
    assert forms(server) == [None]
    assert server.chats[0].json["messages"] == [dict(message) for message in MESSAGES]


@pytest.mark.parametrize("status", [400, 422, 500, 501])
def test_a_server_that_refuses_one_form_is_asked_in_the_next_and_remembered(server, status):
    """llama.cpp's server in Python answers 500 to json_schema and knows json_object with a schema."""
    server.on(CHAT, json_reply(status, {"error": {"message": "literal_error: response_format"}}), stream("{}"))

    async def twice(generator: OpenAIGenerator) -> None:
        for _ in range(2):
            await collect(generator, GUIDED)

    using(settings_for(server), twice)
    assert forms(server) == ["json_schema", "json_object", "json_object"]
    assert server.chats[1].json["response_format"]["schema"] == SCHEMA


def test_a_server_that_refuses_all_forms_gets_the_plain_messages(server):
    server.on(CHAT, REFUSED, REFUSED, stream("part: x"))
    assert ask(server, GUIDED) == ["part: x"]
    assert forms(server) == ["json_schema", "json_object", None]
    assert server.chats[2].json["messages"] == [dict(message) for message in MESSAGES]


def test_a_failure_that_is_not_about_the_schema_is_not_remembered(server):
    """A prompt that is refused in every form says nothing about the forms."""
    refused = json_reply(400, {"error": "too long"})
    server.on(CHAT, refused, refused, refused, stream("{}"))

    async def twice(generator: OpenAIGenerator) -> None:
        with pytest.raises(GeneratorFailed, match="answered 400: too long"):
            await collect(generator, GUIDED)
        await collect(generator, GUIDED)

    using(settings_for(server), twice)
    assert forms(server) == ["json_schema", "json_object", None, "json_schema"]


def test_guiding_that_is_on_is_not_given_up(server):
    server.on(CHAT, REFUSED)
    assert "response_format is not supported" in failure(server, GUIDED, guided="on").message
    assert forms(server) == ["json_schema", "json_object"]
