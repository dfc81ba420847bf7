"""Languages: known by two sentences, and not made up for what is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.language import detect_language
from ingest.parse import parse
from rag.settings import IngestSettings

TEXTS = [line.split("\t") for line in (Path(__file__).parent / "languages.tsv").read_text().splitlines()]
GERMAN = " ".join(text for language, text in TEXTS if language == "de")
KOREAN = " ".join(text for language, text in TEXTS if language == "ko")


@pytest.mark.parametrize(("language", "text"), TEXTS)
def test_two_sentences_are_enough(language, text):
    assert detect_language(text) == language


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(" \n\t", id="blank"),
        pytest.param("ok", id="one word"),
        pytest.param("12 | 34 | 5.6\n78 | 9.0 | 11\n" * 40, id="table of numbers"),
        pytest.param("2026-01-02 14:33:01 0x7ffe 192.0.2.4 a1b2c3d4e5f6", id="log"),
        pytest.param("SKU-4411 ZX81 EUR 14,80", id="codes"),
        pytest.param("asdf qwer zxcv hjkl", id="keyboard"),
        pytest.param("def f(x):\n    return [y for y in x if y]\n\n\nclass A(object):\n    pass\n" * 20, id="Python"),
        pytest.param("for (int i = 0; i < count; i++) { sum += values[i]; }\nreturn sum;\n" * 20, id="C"),
        pytest.param("\ud800\udfff", id="lone surrogates"),
    ],
)
def test_what_is_no_language_is_given_none(text):
    assert detect_language(text) is None


def test_a_table_has_the_language_of_its_words():
    """Figures between the words are no hindrance, nor is writing them large."""
    rows = "\n".join(f"{number} | {number * 3.5} | {word}" for number, word in enumerate(GERMAN.split()))
    assert detect_language(rows) == "de"
    assert detect_language(GERMAN.upper()) == "de"


def test_most_of_a_long_text_decides():
    """A foreign page at the start, as of a publisher, does not; only samples of the text are looked at."""
    front = " ".join(text for language, text in TEXTS if language == "en")
    assert detect_language(front + "\n" + GERMAN * 200) == "de"
    assert detect_language(KOREAN * 20_000) == "ko"


@settings(deadline=None)  # the first text waits for the model
@given(st.text(st.characters(), max_size=200))
def test_any_text_has_one_answer(text):
    """A code of two letters or none, and the same when asked again."""
    answer = detect_language(text)
    assert answer is None or (len(answer) == 2 and answer.isalpha() and answer.islower())
    assert detect_language(text) == answer


def test_a_parsed_document_has_its_language(tmp_path):
    """Code in it is not looked at."""
    path = tmp_path / "document"
    code = "\n".join(f"    for (int i = {n}; i < count; i++) {{ sum += values[i]; }}" for n in range(50))
    path.write_text(f"# Hafen\n\n{GERMAN}\n\n```\n{code}\n```\n")
    assert parse(path, "hafen.md", IngestSettings()).language == "de"
    path.write_text("1,2,3\n4,5,6\n7,8,9\n")
    assert parse(path, "figures.csv", IngestSettings()).language is None
