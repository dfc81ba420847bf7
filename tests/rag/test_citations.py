"""Citations: whatever a generator writes becomes claims with checked quotes, and never an exception."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from rag.citations import ClaimParser, check, cite, short_answer
from rag.grounding import LexicalJudge
from rag.records import Delta, Quote
from tests.rag.passages import passage

POLICY = passage("Hotels cost 145 euros. Trains come first. Flights need approval.", 1, start=100, end=164)
OTHER = passage("The office opens at nine.", 2)
JUDGE = LexicalJudge()


def parse(*pieces: str | Delta, passages: int = 2) -> ClaimParser:
    parser = ClaimParser(passages)
    shown = "".join(parser.feed(piece if isinstance(piece, Delta) else Delta(piece)) for piece in pieces)
    shown += parser.finish()
    assert shown == parser.text
    return parser


def claims(*pieces: str | Delta) -> list[tuple[str, tuple[int, ...]]]:
    return [(claim.text, claim.passages) for claim in parse(*pieces).claims()]


class TestMarkers:
    def test_before_and_after_the_full_stop(self):
        expected = [("Hotels cost 145.", (1,)), ("It opens at nine.", (2,))]
        assert claims("Hotels cost 145. [1] It opens at nine. [2]") == expected
        assert claims("Hotels cost 145 [1]. It opens at nine[2].") == [
            ("Hotels cost 145.", (1,)), ("It opens at nine.", (2,)),
        ]  # fmt: skip

    def test_split_over_pieces(self):
        assert claims("Hotels cost 145. ", "[", "1", "]", " It opens. [2", "]") == [
            ("Hotels cost 145.", (1,)), ("It opens.", (2,)),
        ]  # fmt: skip

    def test_several_doubled_and_in_wide_brackets(self):
        assert claims("One. [1][2] Two. [1, 2] Three. 【2】 Four. [1][1]") == [
            ("One.", (1, 2)), ("Two.", (1, 2)), ("Three.", (2,)), ("Four.", (1,)),
        ]  # fmt: skip

    def test_out_of_range_ones_are_not_shown(self):
        parser = parse("Hotels cost 145. [7] More. [0]")
        assert [claim.passages for claim in parser.claims()] == [(), ()]
        assert "[" not in parser.text

    def test_none_at_all_leaves_a_claim_without_passage(self):
        assert claims("I made this up.") == [("I made this up.", ())]

    def test_text_that_only_begins_like_one_is_kept(self):
        assert parse("An array a[", "i] and [x", "] and [1").text == "An array a[i] and [x] and [1"


def test_offsets_are_those_of_the_text_as_shown():
    parser = parse("Hotels cost 145. [1]\n\nIt opens at nine. [2]")
    for claim in parser.claims():
        assert parser.text[claim.start : claim.end] == claim.text


def test_a_generator_that_quotes_is_taken_at_its_word():
    """Brackets inside a quoted sentence are text of the document, not markers."""
    text = "See note [2] in the annex."
    parser = parse(Delta(text, (Quote(1, 0, len(text)),)), Delta("Second.", (Quote(2, 5, 12),)))
    assert parser.text == "See note [2] in the annex. [1] Second. [2]"
    assert [(c.text, c.passages) for c in parser.claims()] == [(text, (1,)), ("Second.", (2,))]
    assert [parser.text[c.start : c.end] for c in parser.claims()] == [text, "Second."]


@given(st.data())
def test_a_short_answer_stands_where_it_says(data):
    """In the text as shown and in the source, whatever was quoted before it; in no other sentence than the marked."""
    spans = [(100, 117), (118, 136), (137, 164)]
    order = data.draw(st.permutations(spans))
    start, end = data.draw(st.sampled_from(spans))
    first = data.draw(st.integers(start, end - 1))
    last = data.draw(st.integers(first + 1, end))
    words = POLICY.text[first - 100 : last - 100]
    deltas = [
        Delta(POLICY.text[a - 100 : b - 100], (Quote(1, a, b),), Quote(1, first, last) if a == start else None)
        for a, b in order
    ]
    parser = parse(*deltas)
    found = short_answer(parser.claims(), [cite(claim, [POLICY, OTHER], JUDGE) for claim in parser.claims()])
    if not words.strip():
        assert found is None
        return
    assert (found.text, found.number) == (words, 1)
    assert parser.text[found.start : found.end] == words
    assert POLICY.text[found.source_start - 100 : found.source_end - 100] == words


def test_words_outside_of_their_quote_or_whose_citation_was_dropped_are_no_short_answer():
    text = "Hotels cost 145 euros."
    for short, kept in (
        (Quote(1, 112, 121), True), (Quote(1, 90, 121), False), (Quote(1, 112, 130), False), (Quote(2, 112, 121), False)
    ):  # fmt: skip
        raw = parse(Delta(text, (Quote(1, 100, 122),), short)).claims()
        claims = [cite(claim, [POLICY, OTHER], JUDGE) for claim in raw]
        assert (short_answer(raw, claims) is not None) == kept
        checked, _ = check(claims, lambda _: "")
        assert short_answer(raw, checked) is None


@settings(max_examples=500, deadline=None)
@given(st.lists(st.text(alphabet='ab .!?[]【】123,\n`{}"中', max_size=12), max_size=12))
def test_nothing_a_model_writes_breaks_it(pieces):
    """In whatever pieces it comes: the text is the same, claims stand at their offsets, markers are in range."""
    parser = parse(*pieces)
    whole = parse("".join(pieces))
    assert parser.text == whole.text
    assert parser.claims() == whole.claims()
    for claim in parser.claims():
        assert all(1 <= number <= 2 for number in claim.passages)
        inside = parser.text[claim.start : claim.end]
        assert claim.text in inside or any(f"[{n}]" in inside for n in (1, 2))
        cite(claim, [POLICY, OTHER], JUDGE)


class TestCiting:
    def test_the_supporting_sentence_is_quoted_at_its_offsets_in_the_document(self):
        raw = parse("The limit for hotels is 145 euros. [1]").claims()[0]
        citation = cite(raw, [POLICY, OTHER], JUDGE).citations[0]
        assert citation.quote == "Hotels cost 145 euros."
        assert (citation.source_start, citation.source_end) == (100, 122)
        assert (citation.number, citation.document, citation.chunk_id) == (1, "file1.txt", "chunk1")
        assert (citation.answer_start, citation.answer_end) == (0, 34)
        assert citation.score == round(5 / 6, 4)  # hotel, 145 (three times), euro of: limit, hotel, 145, euro

    def test_a_wrong_figure_is_hardly_supported(self):
        raw = parse("The limit for hotels is 190 euros. [1]").claims()[0]
        assert cite(raw, [POLICY, OTHER], JUDGE).support == round(2 / 6, 4)

    def test_a_passage_without_any_word_of_the_claim_is_no_source(self):
        raw = parse("Dogs are welcome. [2]").claims()[0]
        assert cite(raw, [POLICY, OTHER], JUDGE).citations == ()

    def test_every_quote_is_held_against_the_stored_text(self):
        """A citation that does not stand in the document is dropped and named, its claim stays without it."""
        good = cite(parse("Trains come first. [1]").claims()[0], [POLICY, OTHER], JUDGE)
        forged = replace(good, citations=(replace(good.citations[0], quote="Planes come first."),))
        stored = "x" * 100 + POLICY.text
        kept, failed = check([good, forged], lambda _: stored)
        assert [len(claim.citations) for claim in kept] == [1, 0]
        assert [citation.quote for citation in failed] == ["Planes come first."]
        shifted, failed = check([good], lambda _: "y" + stored)
        assert shifted[0].citations == ()
        assert len(failed) == 1
