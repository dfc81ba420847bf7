"""What of a model's text the reader sees, wherever its pieces end."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rag.prompt import ABSTENTION
from rag.spoken import AbstentionGate, ThoughtFilter


def pieces(text: str, cuts: list[int]) -> list[str]:
    ends = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(ends)]


cuts = st.lists(st.integers(0, 60), max_size=12)


@given(cuts, st.sampled_from(["", " ", "a", "<b>x</b>"]) | st.text(), st.text().filter(lambda t: "</think>" not in t))
def test_the_filter_of_thoughts_does_not_mind_where_pieces_end(where, answer, thought):
    for text, left in (
        (answer, answer),
        (f"\n<think>{thought}</think>\n{answer}", answer),
        (f"<think>{thought}</think><think>{thought}</think>{answer}", answer),
        (f"<think>{thought}", ""),
    ):
        thoughts = ThoughtFilter()
        said = "".join(thoughts.feed(piece) for piece in pieces(text, where)) + thoughts.finish()
        if not left.lstrip().startswith("<think>"):
            assert said == left.lstrip()


@given(cuts, st.sampled_from(["", '"', " \n"]), st.sampled_from(["", " [1]", ".", "!", " x", " [a]", " 1", "[1] and"]))
def test_the_gate_does_not_mind_where_pieces_end(where, before, after):
    text = before + ABSTENTION + after
    gate = AbstentionGate()
    said = "".join(gate.feed(piece) for piece in pieces(text, where)) + gate.finish()
    assert said == (text if any(c.isalnum() for c in after.replace("[1]", "")) or "and" in after else "")


@given(cuts, st.text())
def test_the_gate_loses_nothing_of_other_texts(where, text):
    gate = AbstentionGate()
    assert "".join(gate.feed(piece) for piece in pieces(text, where)) + gate.finish() == text
