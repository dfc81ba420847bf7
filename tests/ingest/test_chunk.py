"""Chunks: every word once, exact offsets, within the window, within their section; tables keep their header."""

from __future__ import annotations

from itertools import zip_longest

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.chunk import FURNITURE, chunk
from rag.records import Block, Kind, ParsedDocument
from rag.testing import WordEmbedder

WORDS = st.text("abcdefgh ÄÖ.!?\n中文", min_size=1, max_size=400)
BLOCKS = st.lists(
    st.builds(
        Block,
        st.sampled_from(list(Kind)),
        WORDS,
        st.one_of(st.none(), st.integers(1, 3)),
        st.sampled_from([(), ("One",), ("One", "Two"), ("x " * 40,)]),
    ),
    max_size=12,
)
SMALL = WordEmbedder(window=32)


@settings(max_examples=200, deadline=None)
@given(BLOCKS)
def test_every_visible_character_is_in_exactly_one_chunk_at_its_offsets(blocks):
    """Whatever the elements are: chunks stand in order, never overlap, fit the window, and leave nothing out."""
    parsed = ParsedDocument.from_blocks(blocks, "text/plain", title="A title")
    chunks = chunk(parsed, SMALL.window, SMALL.count_tokens)
    covered: set[int] = set()
    for piece, following in zip_longest(chunks, chunks[1:]):
        assert parsed.text[piece.start : piece.end] == piece.text
        assert piece.tokens == SMALL.count_tokens([piece.indexed_text])[0] <= SMALL.window
        assert following is None or piece.end <= following.start
        covered |= set(range(piece.start, piece.end))
    wanted = {
        place
        for element in parsed.elements
        if element.kind not in FURNITURE
        for place in range(element.start, element.end)
        if not parsed.text[place].isspace()
    }
    assert wanted <= covered


def test_sections_are_never_mixed_and_give_their_context():
    blocks = [
        Block(Kind.TITLE, "Travel", 1),
        Block(Kind.TEXT, "Trains first.", 1, ("Travel",)),
        Block(Kind.TITLE, "Hotels", 1, ("Travel",)),
        Block(Kind.LIST_ITEM, "One night.", 2, ("Travel", "Hotels")),
        Block(Kind.LIST_ITEM, "Two nights.", 2, ("Travel", "Hotels")),
    ]
    chunks = chunk(ParsedDocument.from_blocks(blocks, "x", title="Policy"), 64, SMALL.count_tokens)
    assert [(c.text, c.context, c.page, c.section) for c in chunks] == [
        ("Travel\n\nTrains first.", "Policy", 1, ("Travel",)),
        ("Hotels\n\nOne night.\n\nTwo nights.", "Policy > Travel", 1, ("Travel", "Hotels")),
    ]


def test_a_long_table_is_cut_between_rows_and_keeps_its_header():
    """Each chunk holds whole rows; the header row is context of all but the first, which begins with it."""
    rows = ["Part | Price", *(f"part{n} | {n} euros" for n in range(40))]
    parsed = ParsedDocument.from_blocks([Block(Kind.TABLE, "\n".join(rows), 1, ("Prices",))], "x")
    chunks = chunk(parsed, 32, SMALL.count_tokens)
    assert "\n".join(c.text for c in chunks).split("\n") == rows
    assert chunks[0].context == "Prices" or chunks[0].context == ""
    assert all(c.context.split("\n")[-1] == "Part | Price" for c in chunks[1:])
    assert {c.kind for c in chunks} == {Kind.TABLE}


def test_prose_is_cut_between_sentences():
    text = " ".join(f"Sentence number {n} of Dr. Smith has nine words here." for n in range(20))
    chunks = chunk(ParsedDocument.from_blocks([Block(Kind.TEXT, text)], "x"), 32, SMALL.count_tokens)
    assert len(chunks) > 5
    assert all(c.text.endswith("here.") for c in chunks)


def test_page_headers_and_footers_are_not_searched():
    blocks = [Block(Kind.HEADER, "Page 1 of 9"), Block(Kind.TEXT, "Storm."), Block(Kind.FOOTER, "Confidential")]
    chunks = chunk(ParsedDocument.from_blocks(blocks, "x"), 32, SMALL.count_tokens)
    assert [c.text for c in chunks] == ["Storm."]


def test_the_page_is_that_of_the_first_element():
    blocks = [Block(Kind.TEXT, "word " * 20, page) for page in (1, 2, 3)]
    chunks = chunk(ParsedDocument.from_blocks(blocks, "x"), 32, SMALL.count_tokens)
    assert [c.page for c in chunks] == [1, 2, 3]
