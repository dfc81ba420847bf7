"""Whether a model server is ready, as it says itself."""

from __future__ import annotations

import pytest

from rag.errors import GeneratorFailed
from rag.generators import OpenAIGenerator
from tests.asking import settings_for, using
from tests.scripted_llm import (
    Pause,
    Reset,
    json_reply,
    refused_port,
    reply,
)

MODELS = json_reply(200, {"data": []})


@pytest.mark.parametrize(
    ("replies", "ready", "asked"),
    [
        ({"/v1/health/ready": reply(200, "")}, True, ["/v1/health/ready", "/v1/models"]),
        ({"/v1/health/ready": reply(503, "")}, False, ["/v1/health/ready"]),
        ({"/health": reply(200, "")}, True, ["/v1/health/ready", "/health", "/v1/models"]),
        ({"/health": reply(503, "")}, False, ["/v1/health/ready", "/health"]),
        ({"/v1/models": MODELS}, True, ["/v1/health/ready", "/health", "/v1/models", "/v1/models"]),
    ],
)
def test_ready(server, replies, ready, asked):
    """The first probe that is known counts; who is ready also tells its models, once."""
    for path, answer in replies.items():
        server.on(path, answer)
    assert using(settings_for(server), OpenAIGenerator.ready) is ready
    assert [request.path for request in server.requests] == asked


def test_a_server_without_a_model_is_not_ready(server):
    server.on("/health", reply(200, ""))
    server.on("/v1/models", MODELS)
    with pytest.raises(GeneratorFailed, match="has no model loaded"):
        using(settings_for(server, model=None), OpenAIGenerator.ready)


@pytest.mark.parametrize(
    ("health", "message"),
    [
        (json_reply(500, {"error": "boom"}), "answered 500: boom"),
        (json_reply(401, {"error": "who are you?"}), "refused generator.api_key"),
        ((Pause(30),), "did not answer a readiness probe within 0.3 s"),
        ((Reset(),), "closed the connection"),
    ],
)
def test_not_ready_and_why(server, health, message):
    server.on("/health", health)
    with pytest.raises(GeneratorFailed, match=message):
        using(settings_for(server, connect_timeout=0.3), OpenAIGenerator.ready)


def test_a_server_of_another_kind_is_not_ready(server):
    server.on("/v1/models", json_reply(404, {}))
    with pytest.raises(GeneratorFailed, match=r"has none of /v1/health/ready, /health and /v1/models"):
        using(settings_for(server), OpenAIGenerator.ready)


def test_a_server_that_is_not_there_is_not_ready():
    sock, port = refused_port()
    with sock, pytest.raises(GeneratorFailed, match="can not be reached"):
        using(settings_for(f"http://127.0.0.1:{port}/v1"), OpenAIGenerator.ready)
