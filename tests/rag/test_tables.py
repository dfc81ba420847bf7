"""Tables: which lines are rows, and which header stands above each cell."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rag.records import CELL, Kind
from rag.tables import cells_of, evidence_spans, header_of
from tests.rag.passages import passage

ROWS = "City | Hotel\nBerlin | 145. No more.\n\nParis | "


def table(text: str, context: str = ""):
    return passage(text, kind=Kind.TABLE, context=context, start=7, end=7 + len(text))


def test_a_row_is_quoted_as_a_whole_a_sentence_elsewhere():
    assert [ROWS[a:b] for a, b in evidence_spans(table(ROWS))] == ["City | Hotel", "Berlin | 145. No more.", "Paris |"]
    prose = passage("It is 145. No more.")
    assert [prose.text[a:b] for a, b in evidence_spans(prose)] == ["It is 145.", "No more."]


def test_the_header_is_the_first_row_or_that_of_the_context():
    assert header_of(table(ROWS)) == "City | Hotel"
    assert header_of(table("Berlin | 145", "Limits\nCity | Hotel")) == "City | Hotel"
    assert header_of(table("A line", "Limits")) == ""
    assert header_of(passage("a | b")) == ""


def test_a_cell_has_its_column_and_its_place():
    chunk = table("Berlin |  145 ", "City | Hotel")
    assert [(c.column, c.text, c.start, c.end) for c in cells_of(chunk, 0, 14)] == [
        ("City", "Berlin", 7, 13), ("Hotel", "145", 17, 20),
    ]  # fmt: skip


def test_part_of_a_row_says_nothing_of_columns():
    assert [c.column for c in cells_of(table("145 | 30", "City | Hotel | Meals"), 0, 8)] == ["", ""]


def test_the_header_itself_and_prose_have_no_cells():
    assert cells_of(table(ROWS), 0, 12) == ()
    assert cells_of(passage("a | b"), 0, 5) == ()


VISIBLE = st.characters(exclude_characters="|\n\r", exclude_categories=["Cs", "Cc", "Zl", "Zp"])
CELLS = st.lists(st.text(VISIBLE), min_size=2, max_size=5)


@given(CELLS, CELLS)
def test_each_cell_stands_at_its_place(header, row):
    chunk = table(CELL.join(row), f"Title\nx{CELL.join(header)}")
    for cell in cells_of(chunk, 0, len(chunk.text)):
        assert ("x" * 7 + chunk.text)[cell.start : cell.end] == cell.text
        assert cell.text
