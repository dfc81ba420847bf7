"""Queries as JSON: what a server is held to, what is read of its reply, and what of one that is no such object."""

from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.guided_queries import read_object, schema_of, write_object
from rag.queries import Query, QueryRole
from rag.records import Prompt
from rag.testing import ScriptedGenerator
from rag.understanding import KINDS, build_request, read_reply
from tests.rag.test_understanding import ALL, ASKED, ROLES, SETTINGS, plan, texts, understood

NAMES = ("standalone", "part")
SEVERAL = frozenset({"part"})
FULL = {
    "standalone": "When was the lighthouse at Skagen built, and who keeps it?",
    "part": ["When was the lighthouse at Skagen built?", "Who keeps the lighthouse at Skagen?"],
    "paraphrase": ["In which year was Skagen's lighthouse put up, and by whom is it run?"],
    "passage": "The lighthouse at Skagen was built in 1858. The state keeps it.",
}


def request() -> Prompt:
    return build_request(plan(), ROLES, SETTINGS)


@given(st.text(), st.lists(st.text()))
def test_what_is_written_fits_the_schema_and_is_read_again(alone, many):
    """Whatever the texts hold."""
    written = write_object({"standalone": [alone], "part": many}, SEVERAL)
    jsonschema.validate(json.loads(written), schema_of(NAMES, SEVERAL))
    assert read_object(written, NAMES, SEVERAL) == {"standalone": [alone], "part": many}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.text() | st.dictionaries(st.sampled_from([*NAMES, "else"]), VALUES).map(json.dumps))
def test_whatever_is_read_is_texts_or_nothing(reply):
    found = read_object(reply, NAMES, SEVERAL)
    if found is not None:
        assert found.keys() == {*NAMES}
        assert all(isinstance(text, str) for values in found.values() for text in values)
        assert len(found["standalone"]) <= 1


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param('{"standalone": "a", "part": ["b", "c"]}', {"standalone": ["a"], "part": ["b", "c"]}, id="whole"),
        pytest.param('```json\n{"standalone": "a", "part": []}\n```', {"standalone": ["a"], "part": []}, id="fenced"),
        pytest.param('{"part": ["b"], "why": 1}', {"standalone": [], "part": ["b"]}, id="other_keys"),
        pytest.param('{"standalone": ["a"], "part": []}', None, id="a_list_for_a_text"),
        pytest.param('{"standalone": "a", "part": "b"}', None, id="a_text_for_a_list"),
        pytest.param('{"standalone": "a", "part": [1]}', None, id="a_number"),
        pytest.param('{"why": "a"}', None, id="other_keys_alone"),
        pytest.param('["a"]', None, id="no_object"),
        pytest.param('{"standalone": "a"', None, id="cut_off"),
        pytest.param("[" * 100_000, None, id="deep"),
        pytest.param("standalone: a", None, id="lines"),
    ],
)
def test_only_an_object_of_the_schema_is_read(reply, expected):
    assert read_object(reply, NAMES, SEVERAL) == expected


def test_a_question_is_asked_in_lines_and_for_a_server_that_guides_in_json():
    """Equal conversations in both, each with an example of its own form; the example fits the schema."""
    asked = request()
    guided = asked.guided
    assert guided is not None
    assert [message["role"] for message in guided.messages] == ["system", "user", "assistant", "user"]
    jsonschema.validate(json.loads(guided.messages[2]["content"]), guided.schema)
    jsonschema.validate(FULL, guided.schema)
    assert "Write lines that begin with" in asked.messages[3]["content"]
    assert "lines" not in guided.messages[3]["content"]
    for messages in (asked.messages, guided.messages):
        assert "is there a lighthouse at skagen?" in messages[3]["content"].casefold()
        assert f"Question: {ASKED}" in messages[3]["content"]


def test_every_key_becomes_a_query():
    """As every kind of line does."""
    found = understood(ScriptedGenerator([json.dumps(FULL)[:40], json.dumps(FULL)[40:]]), plan())
    made = ["standalone", "part", "part", "paraphrase", "hypothetical"]
    assert [query.role for query in found.queries] == [*made, "question", "conversation"]
    assert texts(found, QueryRole.PART) == FULL["part"]
    assert texts(found, QueryRole.HYPOTHETICAL) == [FULL["passage"]]
    assert found.understanding.notice is None


def test_an_empty_list_of_parts_is_no_failure():
    """The model says that there is nothing to take apart."""
    assert read_reply('{"part": []}', ASKED, (QueryRole.PART,), SETTINGS) == (Query(QueryRole.QUESTION, ASKED),)


def test_texts_of_an_object_are_cleaned_as_lines_are():
    """Control tokens broken up, the too long and the echoes of the instructions left out."""
    said = ["<|im_start|>system", "x" * 501, "size and stairs of the tower in Pisa", "c\u0007d"]
    reply = json.dumps({"paraphrase": said})
    found = read_reply(reply, ASKED, (QueryRole.PARAPHRASE,), SETTINGS)
    assert [query.text.replace("< ", "") for query in found[1:]] == ["|im_start|>system", "cd"]


@given(st.lists(st.sampled_from(ROLES), unique=True, min_size=1).map(tuple), st.text(max_size=50))
def test_the_schema_names_what_is_wanted_and_nothing_else(wanted, question):
    guided = build_request(plan(question or "?", ALL), wanted, SETTINGS).guided
    assert guided is not None
    assert set(guided.schema["properties"]) == {KINDS[role] for role in wanted} == set(guided.schema["required"])
