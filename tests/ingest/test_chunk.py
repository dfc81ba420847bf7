"""Chunks: every word once, exact offsets, within the window, within their section; tables keep their header."""

from __future__ import annotations

from itertools import zip_longest

import pytest
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
SEVEN = "Part | Number | Price | Weight | Stock | Hall | Shelf"


def crowded(texts):
    """Count as a tokenizer would of which no two parts add up: long texts have more tokens than their words."""
    return [count + (count - 2) ** 2 // 40 for count in SMALL.count_tokens(texts)]


@settings(max_examples=200, deadline=None)
@given(BLOCKS, st.sampled_from([SMALL.count_tokens, crowded]))
def test_every_visible_character_is_in_exactly_one_chunk_at_its_offsets(blocks, count_tokens):
    """Whatever the elements are: chunks stand in order, never overlap, fit the window, and leave nothing out."""
    parsed = ParsedDocument.from_blocks(blocks, "text/plain", title="A title")
    chunks = chunk(parsed, SMALL.window, count_tokens)
    covered: set[int] = set()
    for piece, following in zip_longest(chunks, chunks[1:]):
        assert parsed.text[piece.start : piece.end] == piece.text
        assert piece.tokens == count_tokens([piece.indexed_text])[0] <= SMALL.window
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


@pytest.mark.parametrize(
    ("header", "context"),
    [
        ("Part | Price", "Prices > Spare parts\nPart | Price"),
        (SEVEN, f"Spare parts\n{SEVEN}"),
        (f"{SEVEN} | Unit | Lot", f"{SEVEN} | Unit | Lot"),
        (f"{SEVEN} | Unit | The last lot", f"{SEVEN} | Unit"),
        ("one two three four five six seven eight nine ten | eleven", "one two three four five six seven eight nine"),
    ],
    ids=["all of it", "one heading", "header alone", "some cells", "some words"],
)
def test_where_room_is_short_headings_go_before_the_header_row(header, context):
    """Title, then section, then the last cells of the header; 9 words of context fit into a window of 32."""
    rows = [header, *(f"part{n} | {n} euros" for n in range(40))]
    block = Block(Kind.TABLE, "\n".join(rows), 1, ("Prices", "Spare parts"))
    chunks = chunk(
        ParsedDocument.from_blocks([block], "x", title="The whole catalogue of 2026 for our customers"),
        32,
        SMALL.count_tokens,
    )
    assert {c.context for c in chunks[1:]} == {context}


def test_a_row_far_down_a_table_is_found_with_the_names_of_its_columns(embedder):
    """In the real embedder's tokens: the chunk of row 150 of 200 says what its cells are."""
    header = "Station | Water depth in metres | Mooring line | Last service"
    rows = [header, *(f"WB-{n} | {n * 7 % 211} | L{n % 9} | 2026-0{n % 8 + 1}-{n % 27 + 1:02}" for n in range(200))]
    blocks = [Block(Kind.TITLE, "Stations", 1), Block(Kind.TABLE, "\n".join(rows), 1, ("Stations",))]
    chunks = chunk(ParsedDocument.from_blocks(blocks, "x", title="Buoys"), embedder.window, embedder.count_tokens)
    holder = next(c for c in chunks if rows[151] in c.text)
    assert holder.indexed_text.startswith(f"Buoys > Stations\n{header}\nWB-")
    assert holder.tokens <= embedder.window


@pytest.mark.parametrize("word", ["abcdefghij", "潮の高さ", "zz9+/"], ids=["letters", "characters", "encoded"])
def test_a_word_without_end_is_cut(embedder, word):
    """Many a tokenizer takes a long word for one unknown token; a chunk is no longer than a reader can use."""
    parsed = ParsedDocument.from_blocks([Block(Kind.TEXT, word * 10_000)], "x")
    chunks = chunk(parsed, embedder.window, embedder.count_tokens)
    assert "".join(c.text for c in chunks) == parsed.text
    assert max(len(c.text) for c in chunks) <= 32 * embedder.window
    assert max(c.tokens for c in chunks) <= embedder.window


def test_marks_that_are_no_tokens_are_in_one_chunk_only():
    """The double counts no punctuation: a mark at the end of a chunk does not come again in the next one."""
    text = " ".join(f"word{n} ... , ." for n in range(200))
    chunks = chunk(ParsedDocument.from_blocks([Block(Kind.TEXT, text)], "x"), 32, SMALL.count_tokens)
    assert "".join(c.text for c in chunks).replace(" ", "") == text.replace(" ", "")


def test_long_documents_are_counted_a_few_times_and_not_with_each_chunk():
    """The characters that are counted grow with the text and not with its square: a table, a list, a wall of words."""
    for kind, line in [(Kind.TABLE, "a | b | c\n"), (Kind.TEXT, "one two three "), (Kind.TEXT, "x" * 1000 + " ")]:
        counted = 0

        def count_tokens(texts):
            nonlocal counted
            counted += sum(map(len, texts))
            return SMALL.count_tokens(texts)

        parsed = ParsedDocument.from_blocks([Block(kind, line * (200_000 // len(line)))], "x")
        chunk(parsed, SMALL.window, count_tokens)
        assert counted <= 8 * len(parsed.text)


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
