"""Sentences: the usual traps of full stops, other scripts, and nothing ever lost."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.sentences import sentence_spans


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Smith came at 9 a.m. sharp. He left.", ["Dr. Smith came at 9 a.m. sharp.", "He left."]),
        ("It costs 1.5 euros. See fig. 3 for more!", ["It costs 1.5 euros.", "See fig. 3 for more!"]),
        ("Is it? Yes.", ["Is it?", "Yes."]),
        ("a | b\nc | d", ["a | b", "c | d"]),
        ("潮位は三米です。風は北です。", ["潮位は三米です。", "風は北です。"]),
        ("Das gilt z.B. für Züge. Und so.", ["Das gilt z.B. für Züge.", "Und so."]),
        ("", []),
        (" \n\t ", []),
    ],
    ids=["titles", "figures", "questions", "rows", "cjk", "german", "empty", "blank"],
)
def test_known_texts(text, expected):
    assert sentences(text) == expected


@given(st.text(max_size=300))
def test_every_visible_character_is_in_exactly_one_sentence(text):
    spans = sentence_spans(text)
    inside = [place for start, end in spans for place in range(start, end)]
    assert len(inside) == len(set(inside))
    assert {place for place, c in enumerate(text) if not c.isspace()} <= set(inside)
    assert all(text[start:end] == text[start:end].strip() for start, end in spans)


def test_cutting_sentences_loads_no_library_of_statistics():
    """nltk would take them along, a second of each process; whoever needs them afterwards finds them."""
    program = (
        "import sys; from rag.sentences import sentence_spans; sentence_spans('One. Two.');"
        "assert 'nltk' in sys.modules; assert not {'scipy', 'sklearn'} & {*sys.modules}; import scipy.stats"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
