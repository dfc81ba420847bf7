"""Log lines: they say which request and which answer, and hold no text of a document or a question, and no secret."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rag.log_lines import describe, without_secrets
from rag.settings import environment_for, load_settings, secrets_of
from tests.api.served import ROOT, environment

MARK, SECRET = "Quetzalcoatlus", "sk-very-secret-0123456789"
FAULTY = [sys.executable, "-m", "tests.api.faulty_journey"]


@pytest.fixture(scope="module", params=["json", "text"])
def journey(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The format of the log, and what a process wrote that meets every fault; see `tests.api.faulty_journey`."""
    data = tmp_path_factory.mktemp("faulty")
    chosen = {"CITEWELL_LOG_FORMAT": request.param, "OPENAI_LOG": "debug"}
    words = [*FAULTY, str(data), MARK, SECRET]
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=ROOT, env=environment() | chosen, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == ""
    return request.param, done.stderr


def test_whatever_fails_no_text_and_no_secret_is_in_the_log(journey: tuple[str, str]) -> None:
    """At the level debug, with errors that repeat what they were given, in both formats."""
    _, written = journey
    for event in (
        "ingest failed",
        "unexpected error",
        "question taken as it is",
        "a thread ended",
        "request",
        "the end",
    ):
        assert event in written
    assert MARK not in written
    assert SECRET not in written
    assert "faulty text" not in written


def test_a_fault_is_told_by_its_kind_and_its_place(journey: tuple[str, str]) -> None:
    """Error, cause and what a group holds, with the frames; without the values of variables."""
    _, written = journey
    assert "ExceptionGroup" in written
    assert "faulty_journey.py" in written
    assert "in encode" in written
    assert "locals" not in written


def test_every_line_of_a_request_has_its_ids(journey: tuple[str, str]) -> None:
    """The request's on all lines, the answer's on those from the moment on at which it is known."""
    form, written = journey
    if form != "json":
        pytest.skip("the lines are the same in another form")
    lines: list[dict[str, Any]] = [json.loads(line) for line in written.splitlines()]
    asked = {line["request_id"] for line in lines if line["event"] == "request" and line.get("route") == "/v1/ask"}
    for request_id in asked:
        own = [line for line in lines if line.get("request_id") == request_id]
        assert own[-1]["event"] == "request"
        answers = {line["answer_id"] for line in own if "answer_id" in line}
        if own[-1]["status"] == 200:
            assert len(answers) == 1
            assert "answer_id" in own[-1]
    assert len(asked) == 6
    faults = [line for line in lines if line["event"] == "unexpected error"]
    assert faults
    assert all("request_id" in line for line in faults)
    told = next(line for line in lines if line["event"] == "the parser says")
    assert told["text"] == f"({len(f'warning: {MARK}')} characters)"
    assert not [line for line in lines if line["event"].startswith("Request options")]


@pytest.mark.parametrize("wanted", [False, True], ids=["hidden", "shown"])
def test_what_parsers_say_is_in_the_log_where_somebody_wants_it(tmp_path: Path, wanted: bool) -> None:
    """By a setting of its own; the secrets stay hidden."""
    words = [sys.executable, "-c", SAYS, str(tmp_path), MARK, SECRET]
    chosen = {"CITEWELL_LOG_TEXTS": str(wanted), "CITEWELL_GENERATOR__API_KEY": SECRET}
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment() | chosen, check=True)
    line = json.loads(done.stderr)
    assert line["text"] == (f"{MARK} ***" if wanted else f"({len(MARK) + len(SECRET) + 1} characters)")


SAYS = """
import sys, structlog
from api.logs import configure_logging
from rag.settings import load_settings
configure_logging(load_settings(data=sys.argv[1]), default="info")
structlog.get_logger("ingest.sandbox").info("the parser says", text=" ".join(sys.argv[2:]))
"""
LIBRARY = """
import sys, structlog
from rag.settings import load_settings
from rag.store import open_store
with open_store(load_settings(data=sys.argv[1])):
    batch = sys.argv[2]
    try:
        raise ValueError(batch)
    except ValueError:
        structlog.get_logger("rag.anything").exception("failed", document="d.md")
"""


def test_used_as_a_library_nothing_is_printed_with_variables(tmp_path: Path) -> None:
    """Lines go to the loggers of the standard library, where the program that uses it has them or not."""
    words = [sys.executable, "-c", LIBRARY, str(tmp_path / "data"), MARK]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment(), check=True)
    assert done.stdout == ""
    assert "ValueError" in done.stderr
    assert MARK not in done.stderr


def test_secrets_of_the_settings_are_known_and_hidden() -> None:
    """Every secret that any part has, wherever it stands in a value."""
    settings = load_settings(
        generator={"api_key": SECRET},
        report={"smtp_password": "smtp-password"},
        database="postgresql://u:pass-word@h/d",
    )
    found = secrets_of(settings)
    assert {SECRET, "smtp-password", "postgresql://u:pass-word@h/d"} <= set(found)
    hide = without_secrets(found)
    assert hide(None, "", {"a": f"x{SECRET}y", "b": 1}) == {"a": "x***y", "b": 1}


def test_a_worker_has_the_form_of_the_log_that_its_server_has() -> None:
    """The environment for a worker names it where it was chosen."""
    assert environment_for(load_settings(log_format="json"))["CITEWELL_LOG_FORMAT"] == "json"
    assert "CITEWELL_LOG_FORMAT" not in environment_for(load_settings())


def test_causes_come_first_and_messages_never() -> None:
    """An error in an error is described from the inside out."""
    try:
        try:
            raise KeyError(MARK)
        except KeyError as error:
            raise ValueError(MARK) from error
    except ValueError as error:
        told = describe(error)
    assert told.index("KeyError") < told.index("ValueError")
    assert "test_log_safety.py" in told
    assert f"'{MARK}'" not in told
