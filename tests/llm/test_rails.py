"""The rails of NeMo Guardrails asked of a real model: the path holds, whatever it says; and its end is told."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from rag.errors import GuardrailsFailed
from rag.guardrails import NemoRails
from rag.settings import GuardrailsSettings
from tests.llm.conftest import LlmServer
from tests.rag.test_guardrails import SELF_CHECKS, folder

pytestmark = [pytest.mark.llm, pytest.mark.filterwarnings("ignore:Use 'nim_base_url':DeprecationWarning")]


def test_a_real_model_gives_a_verdict_on_question_and_answer(llm_server: LlmServer, tmp_path: Path):
    """Leave or a refusal, by one of the rails that were named, and no failure."""
    config = SELF_CHECKS.format(base_url=llm_server.base_url).replace("scripted-model", llm_server.model)
    with closing(NemoRails(GuardrailsSettings(config=folder(tmp_path, config), timeout_seconds=120))) as rails:
        asked = asyncio.run(rails.check_question("How long is the notice period?"))
        told = asyncio.run(rails.check_answer("How long?", "It is three months. [1]", ["Three months."]))
    assert asked.refused_by in {None, "self check input"}
    assert told.refused_by in {None, "self check facts", "self check output"}
    for verdict, text in ((asked, "How long is the notice period?"), (told, "It is three months. [1]")):
        assert verdict.text == (text if verdict.refused_by is None else "I'm sorry, I can't respond to that.")


def test_a_model_that_the_server_does_not_take_is_a_failure(llm_server: LlmServer, tmp_path: Path):
    """A question longer than its window: neither leave nor a refusal."""
    config = SELF_CHECKS.format(base_url=llm_server.base_url).replace("scripted-model", llm_server.model)
    settings = GuardrailsSettings(config=folder(tmp_path, config), timeout_seconds=120)
    too_long = "How long is it? " * llm_server.window
    with closing(NemoRails(settings)) as rails, pytest.raises(GuardrailsFailed, match="could not check the question"):
        asyncio.run(rails.check_question(too_long))
