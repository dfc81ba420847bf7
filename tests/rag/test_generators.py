"""The generator that asks an OpenAI-compatible server: what comes back, how it fails, and when it ends."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from contextlib import aclosing, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from rag.errors import GeneratorFailed, Misconfigured
from rag.generators import OpenAIGenerator
from rag.prompt import ABSTENTION
from rag.records import Delta
from tests.asking import KEY, MESSAGES, PROMPT, ask, collect, failure, settings_for, using
from tests.scripted_llm import (
    CHAT,
    DONE,
    MODEL,
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

# What is sent and what comes back


def test_text_comes_as_it_is_streamed(server):
    server.on(CHAT, stream("Three", " months", " [1].", " Grüße\u2028\u0085!"))
    assert ask(server) == ["Three", " months", " [1].", " Grüße\u2028\u0085!"]


def test_the_request_holds_what_trtllm_serve_takes_and_nothing_else(server):
    server.on(CHAT, stream("Yes."))
    ask(server, model="llama", max_tokens=77, temperature=0.5)
    [request] = server.chats
    assert request.method == "POST"
    assert request.json == {
        "model": "llama",
        "messages": [dict(message) for message in MESSAGES],
        "max_tokens": 77,
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_headers_tell_nothing_about_this_machine(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "env-key")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "env-admin-key")
    monkeypatch.setenv("OPENAI_ORG_ID", "env-org")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "env-project")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Custom: env")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    server.on(CHAT, stream("Yes."))
    ask(server)
    [request] = server.chats
    allowed = {"host", "accept", "accept-encoding", "connection", "content-type", "content-length", "user-agent"}
    assert set(request.headers) <= allowed
    assert request.headers["user-agent"] == "citewell"


def test_the_key_is_sent_as_a_bearer_token_and_not_logged(server, caplog):
    server.on(CHAT, stream("Yes."))
    with caplog.at_level(logging.DEBUG):
        ask(server, api_key=SecretStr(KEY))
    assert server.chats[0].headers["authorization"] == f"Bearer {KEY}"
    assert caplog.records
    assert KEY not in caplog.text


def test_proxies_of_the_environment_are_not_used(server, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    server.on(CHAT, stream("Yes."))
    assert ask(server) == ["Yes."]


def test_redirects_are_not_followed(server):
    with ScriptedLLM() as elsewhere:
        elsewhere.on(CHAT, stream("Yes."))
        server.on(CHAT, reply(307, "", headers=f"Location: {elsewhere.base_url}/chat/completions\r\n"))
        assert "answered 307, a redirect" in failure(server).message
        assert elsewhere.requests == []


def test_a_base_url_with_a_slash_at_the_end_is_the_same(server):
    server.on(CHAT, stream("Yes."))
    assert ask(server.base_url + "/") == ["Yes."]


def test_one_generator_serves_many_at_once(server):
    server.on(CHAT, stream("One", Pause(0.2), " answer."))

    async def many(generator: OpenAIGenerator) -> list[list[str]]:
        return await asyncio.gather(*(collect(generator) for _ in range(12)))

    assert using(settings_for(server), many) == [["One", " answer."]] * 12


# The model


def test_the_model_is_discovered_once(server):
    server.on(CHAT, stream("Yes."))

    async def twice(generator: OpenAIGenerator) -> list[str]:
        names = [generator.name]
        for _ in range(2):
            await collect(generator)
            names.append(generator.name)
        return names

    assert using(settings_for(server, model=None), twice) == ["openai:auto", f"openai:{MODEL}", f"openai:{MODEL}"]
    assert [request.path for request in server.requests] == ["/v1/models", CHAT, CHAT]
    assert {request.json["model"] for request in server.chats} == {MODEL}


def test_a_discovered_model_that_has_gone_is_discovered_again(server):
    server.on(CHAT, json_reply(404, {"error": {"message": "no such model"}}), stream("Yes."))

    async def twice(generator: OpenAIGenerator) -> list[str]:
        with pytest.raises(GeneratorFailed):
            await collect(generator)
        return await collect(generator)

    assert using(settings_for(server, model=None), twice) == ["Yes."]
    assert [request.path for request in server.requests] == ["/v1/models", CHAT] * 2


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (json_reply(200, {"data": []}), "has no model loaded"),
        (json_reply(200, {"models": []}), "does not list its models as expected"),
        (json_reply(200, [1]), "does not list its models as expected"),
        (reply(200, "<html>Hello</html>", "text/html"), "not a completion"),
        (reply(200, b"\xff\xfe", "application/json"), "not a completion"),
        (json_reply(500, {"error": "boom"}), "answered 500: boom"),
    ],
)
def test_a_list_of_models_that_is_none(server, models, message):
    server.on("/v1/models", models)
    assert message in failure(server, model=None).message


# Reasoning and abstention


def test_reasoning_is_kept_out(server):
    thinking = (delta(reasoning_content="Let me see."), delta(reasoning="Hm."), delta(None, reasoning_content="So."))
    server.on(CHAT, stream(*thinking, "Three months [1]."))
    assert ask(server) == ["Three months [1]."]


def test_reasoning_counts_as_a_first_token(server):
    thinking = (delta(reasoning_content="Hm."), Pause(2.5), "Yes.")
    server.on(CHAT, stream(*thinking))
    assert ask(server, first_token_timeout=1.5) == ["Yes."]


def test_inlined_reasoning_is_kept_out(server):
    server.on(CHAT, stream("\n<th", "ink>Is it </thi", "s? ", "</th", "ink>", "\n\n", "Three", " months."))
    assert "".join(ask(server)) == "Three months."


@pytest.mark.parametrize("texts", [("<think>and so on",), (delta(reasoning_content="and so on"),)])
def test_reasoning_that_uses_up_all_tokens_is_no_abstention(server, texts):
    server.on(CHAT, stream(*texts, finish="length"))
    assert "ended without an answer: generator.max_tokens went into reasoning" in failure(server).message


def test_an_answer_that_reaches_max_tokens_ends_where_it_stands(server):
    """And the last piece says so."""
    server.on(CHAT, stream("Three months [1]. And", finish="length"))
    assert ask(server) == ["Three months [1]. And", ""]


@pytest.mark.parametrize(
    "texts",
    [
        (ABSTENTION,),
        tuple(ABSTENTION),
        ("The docu", "ments do", " not say", "."),
        ('\n"', "The documents do not say", '."\n'),
        ("**the documents\ndo not say.** ", "[1", "][2]", " [1, 2]", "."),
        ("<think>They do not.</think>\n", "The documents do not say."),
    ],
)
def test_the_sentence_of_abstention_becomes_no_text(server, texts):
    server.on(CHAT, stream(*texts))
    assert ask(server) == []


@pytest.mark.parametrize(
    "texts",
    [
        ("The documents do not say", " much, but three months [1]."),
        ("The documents", " name three months [1]."),
        ("The documents do not say.", " However, three months [1]."),
        ("The",),
        ("The documents do not",),
    ],
)
def test_an_answer_that_begins_like_an_abstention_is_shown_whole(server, texts):
    server.on(CHAT, stream(*texts))
    assert "".join(ask(server)) == "".join(texts)


# Failures: each one sentence


def test_an_error_in_the_shape_of_tensorrt_llm(server):
    server.on(CHAT, json_reply(400, {"error": "The prompt length 9000 exceeds max_input_len 8192."}))
    error = failure(server)
    host = f"127.0.0.1:{server.port}"
    assert error.message == (
        f"The generator at {host} answered 400: The prompt length 9000 exceeds max_input_len 8192."
    )
    assert error.facts == {"status": 400}
    assert len(server.chats) == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (json_reply(500, {"error": {"message": "boom\non the GPU"}}), "answered 500: boom on the GPU."),
        (reply(502, "<html><body>Bad gateway</body></html>", "text/html"), "answered 502."),
        (reply(503, "", "text/plain"), "answered 503."),
        (json_reply(429, {"message": "slow down"}), "answered 429: slow down."),
        (json_reply(422, {"detail": [{"msg": "field required", "loc": ["x"]}]}), "answered 422: field required."),
        (
            json_reply(401, {"error": {"message": f"wrong key: {KEY}"}}),
            "refused generator.api_key (answered 401: wrong",
        ),
        (json_reply(404, {"detail": "Not Found"}), "generator.base_url and generator.model (answered 404: Not Found)"),
        (json_reply(400, {"error": "x" * 5000}), "xxx…."),
        (reply(200, "<!DOCTYPE html><html>Welcome</html>", "text/html"), "answered with text/html instead of an event"),
        (json_reply(200, {"choices": [{"message": {"content": "Yes."}}]}), "with application/json instead of an event"),
        (event_stream(b"data: {broken\n\n"), "sent something that is not a completion."),
        (event_stream(b"data: \xff\xfe\n\n"), "sent something that is not a completion."),
        (event_stream(event(42)), "sent something that is not a completion."),
        (event_stream(event({"choices": "yes"})), "sent something that is not a completion."),
        (event_stream(event({"choices": [{"delta": {"content": 5}}]})), "sent something that is not a completion."),
        (event_stream(event({"choices": []}), DONE), "ended before its first token;"),
        (event_stream(event({"choices": [None]}), DONE), "ended before its first token;"),
        (event_stream(b"this is\n\nno event\n\n"), "ended before its first token;"),
        (event_stream(), "ended before its first token;"),
        (event_stream(delta("Half an"), DONE), "broke off before the end of its answer."),
        (event_stream(delta("Half"), event({"error": "engine died"})), "reported an error: engine died."),
        (event_stream(event({"error": {"message": "engine died", "code": 500}})), "reported an error: engine died."),
        (stream(), "ended without an answer."),
        (stream(" ", "\n"), "ended without an answer."),
        (stream("Half", finish="content_filter"), "withheld its answer (content_filter)."),
    ],
)
def test_a_server_that_fails(server, answer, message):
    server.on(CHAT, answer)
    said = failure(server, api_key=SecretStr(KEY)).message
    assert said.startswith(f"The generator at 127.0.0.1:{server.port} ")
    assert message in said
    assert len(server.chats) == 1, "nothing but a failed connection is tried again"


@pytest.mark.parametrize("end", [Close(), Reset()])
def test_a_connection_that_ends_amid_the_answer(server, end):
    server.on(CHAT, event_stream(delta("Half an"), Pause(0.05), end))

    async def half(generator: OpenAIGenerator) -> list[str]:
        async with aclosing(generator.generate(PROMPT)) as answer:
            said = [(await anext(answer)).text]
            with pytest.raises(GeneratorFailed, match="closed the connection before the end of its answer"):
                await anext(answer)
        return said

    assert using(settings_for(server), half) == ["Half an"]
    assert len(server.chats) == 1, "an answer that has begun is not asked for again"


def test_a_server_that_is_not_there():
    sock, port = refused_port()
    with sock:
        error = failure(f"http://127.0.0.1:{port}/v1")
    assert f"The generator at 127.0.0.1:{port} can not be reached" in error.message


def test_a_host_without_a_name():
    error = failure("http://nowhere.invalid/v1", first_token_timeout=30, total_timeout=30)
    assert "The generator at nowhere.invalid:80 can not be reached" in error.message


def test_a_server_that_does_not_speak_http(server):
    server.on(CHAT, (b"SSH-2.0-OpenSSH_9.2\r\n", Close()))
    assert "closed the connection before the end of its answer" in failure(server).message


# Connections that fail before the first token are tried again


@pytest.mark.parametrize("resets", [1, 2])
def test_a_connection_that_fails_is_tried_again(server, resets):
    server.resets = resets
    server.on(CHAT, stream("Yes."))
    assert ask(server) == ["Yes."]
    assert server.connections == resets + 1


def test_it_gives_up_after_two_more_attempts(server):
    server.resets = 10
    assert re.search("closed the connection|can not be reached", failure(server).message)
    assert server.connections == 3


@pytest.mark.parametrize("end", [Close(), Reset()])
def test_an_answer_that_ends_before_its_first_token_is_asked_for_again(server, end):
    server.on(CHAT, event_stream(delta("", role="assistant"), end), (end,), stream("Yes."))
    assert ask(server) == ["Yes."]
    assert len(server.chats) == 3


def test_a_kept_connection_that_the_server_has_closed_is_replaced(server):
    server.on(CHAT, (*reply(400, "{}"), Close()), stream("Yes."))

    async def twice(generator: OpenAIGenerator) -> list[str]:
        with pytest.raises(GeneratorFailed, match="answered 400"):
            await collect(generator)
        await asyncio.sleep(0.05)
        return await collect(generator)

    assert using(settings_for(server), twice) == ["Yes."]


# Limits in time


def test_a_first_token_that_does_not_come(server):
    server.on(CHAT, event_stream(delta("", role="assistant"), Pause(30)))
    start = time.monotonic()
    message = failure(server, first_token_timeout=0.3).message
    assert message.endswith("did not send a first token within 0.3 s.")
    assert time.monotonic() - start < 2
    assert server.hung_up.wait(60)


def test_a_reply_that_does_not_begin(server):
    server.on(CHAT, (Pause(30),))
    assert "did not send a first token within 0.3 s" in failure(server, first_token_timeout=0.3).message
    assert server.hung_up.wait(60)


def test_a_list_of_models_that_does_not_come(server):
    server.on("/v1/models", (Pause(30),))
    message = failure(server, first_token_timeout=0.3, model=None).message
    assert "did not send a first token within 0.3 s" in message


def test_an_answer_that_stalls(server):
    server.on(CHAT, event_stream(delta("Half"), Pause(30)))
    message = failure(server, first_token_timeout=0.4, total_timeout=0.6).message
    assert "did not finish its answer within 0.6 s" in message
    assert server.hung_up.wait(60)


def test_an_answer_that_never_ends(server):
    server.on(CHAT, event_stream(*[step for _ in range(500) for step in (delta("more "), Pause(0.01))]))
    assert "did not finish its answer within 0.5 s" in failure(server, total_timeout=0.5).message
    assert server.hung_up.wait(60)


def test_retries_stay_within_the_time_for_a_first_token(server):
    server.resets = 10
    start = time.monotonic()
    failure(server, first_token_timeout=0.05)
    assert time.monotonic() - start < 1


# Ending early


def test_closing_the_iterator_closes_the_request(server):
    server.on(CHAT, stream("One", Pause(30), "Two"))

    async def first(generator: OpenAIGenerator) -> Delta:
        async with aclosing(generator.generate(PROMPT)) as answer:
            return await anext(answer)

    assert using(settings_for(server), first) == Delta("One")
    assert server.hung_up.wait(60)


def test_cancelling_closes_the_request(server):
    server.on(CHAT, stream("One", Pause(30), "Two"))

    async def cancelled(generator: OpenAIGenerator) -> None:
        task = asyncio.create_task(collect(generator))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.hung_up.wait, 5), "closed at once, not with the generator"

    using(settings_for(server), cancelled)


def test_cancelling_before_the_first_token_closes_the_request(server):
    server.on(CHAT, (Pause(30),))

    async def cancelled(generator: OpenAIGenerator) -> None:
        task = asyncio.create_task(collect(generator))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.hung_up.wait, 5)

    using(settings_for(server), cancelled)


# Settings


def test_a_generator_that_was_closed_opens_anew_on_another_event_loop(server):
    """A command that asks several questions uses one generator on one event loop after the other."""
    server.on(CHAT, stream("One."), stream("Two."))
    generator = OpenAIGenerator(settings_for(server))

    async def ask() -> str:
        try:
            return "".join(await collect(generator))
        finally:
            await generator.aclose()

    assert [asyncio.run(ask()) for _ in range(2)] == ["One.", "Two."]


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://host/v1", "http://", "http://host:port/v1", "http://u:p@host/v1"]
)
def test_a_url_that_can_not_be_used(url):
    with pytest.raises(Misconfigured, match=r"generator\.base_url") as caught:
        OpenAIGenerator(settings_for(url))
    assert "u:p" not in caught.value.message


@pytest.mark.parametrize("key", ["schlüssel", "two\nlines"])
def test_a_key_that_can_not_be_sent(server, key):
    with pytest.raises(Misconfigured, match=r"generator\.api_key") as caught:
        OpenAIGenerator(settings_for(server, api_key=SecretStr(key)))
    assert key not in caught.value.message


# Anything at all

RUBBISH = [
    *(b"data: ", b"\n\n", b"data: {}\n\n", b"data: null\n\n", b'data: {"choices": [{}]}\n\n', b"event: error\n", DONE),
    *(delta("text"), delta(finish="stop"), event({"choices": [{"delta": [], "finish_reason": 3}]}), event([[]])),
]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.binary(min_size=1, max_size=40) | st.sampled_from(RUBBISH), max_size=6))
def test_whatever_a_server_streams_is_text_or_one_failure(steps):
    with ScriptedLLM() as server:
        server.on(CHAT, event_stream(*steps))
        with suppress(GeneratorFailed):
            assert "".join(ask(server)).strip()


def test_the_scripted_server_tells_what_it_received(server):
    server.on(CHAT, stream("Yes."))
    ask(server)
    assert json.loads(server.chats[0].body)["messages"][1]["content"] == MESSAGES[1]["content"]
