"""Citations: each claim gets the sentence or row that supports it, word for word, whichever passage it named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.answers import Claim
from rag.citations import NAMED, OTHERS, Citer, check, short_answer
from rag.claims import ClaimParser, RawClaim
from rag.grounding import LexicalJudge
from rag.records import Delta, Kind, Passage, Quote
from tests.rag.passages import passage

POLICY = passage("Hotels cost 145 euros. Trains come first. Flights need approval.", 1, start=100, end=164)
OTHER = passage("The office opens at nine.", 2)
TABLE = passage(
    "Berlin | 145 | 30\nParis | 190 | ", 3, start=50, end=82, kind=Kind.TABLE, context="Limits\nCity | Hotel | Meals"
)
PASSAGES = [POLICY, OTHER, TABLE]


@dataclass
class Counting:
    """The judge of words, which counts what it is asked."""

    name: str = "counting"
    threshold: float = LexicalJudge.threshold
    asked: list[int] = field(default_factory=list)

    def support(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.asked.append(len(pairs))
        return LexicalJudge().support(pairs)


@dataclass
class AllWords:
    """A judge to whom a claim is supported by evidence that has all of its words."""

    name: str = "all words"
    threshold: float = 0.5

    def support(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [float({*claim.lower().strip(" .").split()} <= {*evidence.lower().replace(".", "").split()})
                for claim, evidence in pairs]  # fmt: skip


def raw_claims(*pieces: str | Delta, passages: int = 3) -> list[RawClaim]:
    parser = ClaimParser(passages)
    for piece in pieces:
        parser.feed(piece if isinstance(piece, Delta) else Delta(piece))
    parser.finish()
    return parser.claims()


def cited(text: str, passages: Sequence[Passage] = PASSAGES) -> list[Claim]:
    return Citer(passages, LexicalJudge()).cite(raw_claims(text, passages=len(passages)))


class TestNamed:
    def test_the_supporting_sentence_is_quoted_at_its_offsets_in_the_document(self):
        [claim] = cited("The limit for hotels is 145 euros. [1]")
        [citation] = claim.citations
        assert citation.quote == "Hotels cost 145 euros."
        assert (citation.source_start, citation.source_end) == (100, 122)
        assert (citation.number, citation.document, citation.chunk_id) == (1, "file1.txt", "chunk1")
        assert (citation.answer_start, citation.answer_end) == (0, 34)
        assert citation.score == round(5 / 6, 4)  # hotel, 145 (three times), euro of: limit, hotel, 145, euro
        assert (claim.supported, claim.checkable, citation.attributed, citation.cells) == (True, True, False, ())

    def test_a_wrong_figure_is_hardly_supported_and_stays_cited(self):
        """Who reads it shall see what the generator pointed at."""
        [claim] = cited("The limit for hotels is 190 euros. [1]")
        assert (claim.support, claim.supported) == (round(2 / 6, 4), False)
        assert [citation.quote for citation in claim.citations] == ["Hotels cost 145 euros."]

    def test_a_passage_without_any_word_of_the_claim_is_no_source(self):
        [claim] = cited("Dogs are welcome. [2]")
        assert (claim.citations, claim.support, claim.supported) == ((), 0.0, False)

    def test_the_better_passage_is_cited_beside_the_one_that_was_named(self):
        [claim] = cited("Trains: the office opens at nine. [1]")
        assert [(c.number, c.attributed, c.score >= 0.7) for c in claim.citations] == [
            (1, False, False), (2, True, True),
        ]  # fmt: skip
        assert claim.supported

    def test_a_passage_that_supports_is_enough(self):
        [claim] = cited("Hotels cost 145 euros. [1]", [POLICY, replace(POLICY, chunk_id="copy", document_id="other")])
        assert [citation.number for citation in claim.citations] == [1]

    def test_what_stands_under_a_heading_is_read_with_it(self):
        """ "It is 145 euros" says it of hotels where the heading does."""
        under = passage("The limit is 145 euros.", 1, context="Travel policy > Hotels", section=("Hotels",))
        [claim] = cited("The limit of hotels in the travel policy: 145 euros. [1]", [under])
        assert claim.supported
        assert claim.citations[0].quote == "The limit is 145 euros."


class TestParts:
    def test_two_passages_may_support_together_what_neither_does_alone(self):
        first, second = passage("Hotels cost 145 euros.", 1), passage("Trains are booked in second class.", 2)
        [claim] = cited("Hotels cost 145 euros and trains are booked in second class. [1][2]", [first, second])
        assert [citation.number for citation in claim.citations] == [1, 2]
        assert max(citation.score for citation in claim.citations) < 0.7
        assert (claim.together, claim.support, claim.supported) == (1.0, 1.0, True)

    @pytest.mark.parametrize("marker", ["", "[1]", "[1][2]"])
    def test_no_part_borrows_a_word_of_what_supports_another(self, marker):
        """Each of the words stands somewhere, but nothing says so."""
        passages = [passage("Hotels cost 145 euros. Trains cost 190 euros.", 1), passage("Planes cost 190 euros.", 2)]
        for said in ("Hotels cost 190 euros.", "Hotels cost 190 euros and trains cost 145 euros."):
            [claim] = Citer(passages, AllWords()).cite(raw_claims(f"{said} {marker}", passages=2))
            assert (claim.support, claim.supported) == (0.0, False)
        [claim] = Citer(passages, AllWords()).cite(raw_claims("Trains cost 190 euros and hotels cost 145 euros."))
        assert (claim.support, len(claim.citations)) == (1.0, 2)

    def test_so_may_two_sentences_of_one(self):
        """The second one is found, though the claim has but one marker."""
        both = passage("Hotels cost 145 euros. Dogs bark. Trains are booked in second class.", 1)
        [claim] = cited("Hotels cost 145 euros and trains are booked in second class. [1]", [both])
        assert {citation.quote for citation in claim.citations} == {
            "Hotels cost 145 euros.", "Trains are booked in second class.",
        }  # fmt: skip
        assert claim.supported


class TestAttributed:
    def test_a_claim_without_a_marker_is_cited_from_the_passage_that_supports_it(self):
        [claim] = cited("The office opens at nine.")
        assert [(c.number, c.attributed, c.quote) for c in claim.citations] == [(2, True, "The office opens at nine.")]
        assert claim.supported

    def test_or_stays_unsupported(self):
        [claim] = cited("The office of hotels is on the moon.")
        assert (claim.citations, claim.supported, claim.checkable) == ((), False, True)

    def test_what_says_nothing_is_not_looked_for(self):
        judge = Counting()
        [claim] = Citer(PASSAGES, judge).cite(raw_claims("Hello!"))
        assert (claim.checkable, claim.supported, claim.citations, sum(judge.asked)) == (False, False, (), 0)

    def test_the_work_is_bounded(self):
        """However long the passages are; and all claims are judged together."""
        long = [passage(" ".join(f"Hotel {n} costs {n} euros." for n in range(200)), number) for number in range(1, 9)]
        judge = Counting()
        claims = raw_claims("A hotel costs 500 euros. [1][2] " * 5 + "A hotel costs 600 euros. " * 5, passages=8)
        Citer(long, judge).cite(claims)
        assert max(judge.asked[:2]) <= 5 * max(2 * NAMED + 0, OTHERS) + 5 * OTHERS
        assert sum(judge.asked) <= len(claims) * (2 * NAMED + OTHERS + 10)


class TestTables:
    def test_a_row_is_quoted_with_the_cells_that_the_claim_speaks_of(self):
        [claim] = cited("In Berlin a hotel may cost 145. [3]")
        [citation] = claim.citations
        assert citation.quote == "Berlin | 145 | 30"
        assert [(cell.column, cell.text) for cell in citation.cells] == [("City", "Berlin"), ("Hotel", "145")]
        assert [(cell.start, cell.end) for cell in citation.cells] == [(50, 56), (59, 62)]
        assert claim.supported  # the header says "hotel"

    def test_of_a_row_that_is_quoted_all_cells_are(self):
        row = "Paris | 190 |"
        delta = Delta(row, (Quote(3, 68, 68 + len(row)),))
        [claim] = Citer(PASSAGES, LexicalJudge()).cite(raw_claims(delta))
        assert claim.supported
        assert claim.citations[0].quote == row

    def test_each_cell_is_held_against_the_stored_text(self):
        stored = "x" * 50 + TABLE.text
        [claim] = cited("In Berlin a hotel may cost 145. [3]")
        assert check([claim], lambda _: stored)[0] == [claim]
        [citation] = claim.citations
        wrong = replace(citation, cells=(replace(citation.cells[0], start=51, end=57),))
        [kept], failed = check([replace(claim, citations=(wrong,))], lambda _: stored)
        assert (kept.citations, failed, kept.supported) == ((), [wrong], False)


class TestCheck:
    def test_every_quote_is_held_against_the_stored_text(self):
        """A citation that does not stand in the document is dropped and named, its claim stays without it."""
        [good] = cited("Trains come first. [1]")
        forged = replace(good, citations=(replace(good.citations[0], quote="Planes come first."),))
        stored = "x" * 100 + POLICY.text
        kept, failed = check([good, forged], lambda _: stored)
        assert [(len(claim.citations), claim.supported) for claim in kept] == [(1, True), (0, False)]
        assert [citation.quote for citation in failed] == ["Planes come first."]
        shifted, failed = check([good], lambda _: "y" + stored)
        assert shifted[0].citations == ()
        assert len(failed) == 1

    def test_each_text_is_read_once(self):
        read: list[str] = []

        def source_text(version: str) -> str:
            read.append(version)
            return "x" * 100 + POLICY.text

        check(cited("Trains come first. [1] Hotels cost 145 euros. [1]"), source_text)
        assert read == ["version1"]


@given(st.data())
def test_a_short_answer_stands_where_it_says(data):
    """In the text as shown and in the source, whatever was quoted before it; in no other sentence than the marked."""
    spans = [(100, 122), (123, 141), (142, 164)]
    order = data.draw(st.permutations(spans))
    start, end = data.draw(st.sampled_from(spans))
    first = data.draw(st.integers(start, end - 1))
    last = data.draw(st.integers(first + 1, end))
    words = POLICY.text[first - 100 : last - 100]
    raw = raw_claims(*(
        Delta(POLICY.text[a - 100 : b - 100], (Quote(1, a, b),), Quote(1, first, last) if a == start else None)
        for a, b in order
    ))  # fmt: skip
    text = " ".join(f"{POLICY.text[a - 100 : b - 100]} [1]" for a, b in order)
    found = short_answer(raw, Citer([POLICY, OTHER], LexicalJudge()).cite(raw))
    if not words.strip():
        assert found is None
        return
    assert (found.text, found.number) == (words, 1)
    assert text[found.start : found.end] == words
    assert POLICY.text[found.source_start - 100 : found.source_end - 100] == words


def test_words_outside_of_their_quote_or_whose_citation_was_dropped_are_no_short_answer():
    text = "Hotels cost 145 euros."
    for short, kept in (
        (Quote(1, 112, 121), True), (Quote(1, 90, 121), False), (Quote(1, 112, 130), False), (Quote(2, 112, 121), False)
    ):  # fmt: skip
        raw = raw_claims(Delta(text, (Quote(1, 100, 122),), short))
        claims = Citer([POLICY, OTHER], LexicalJudge()).cite(raw)
        assert (short_answer(raw, claims) is not None) == kept
        checked, _ = check(claims, lambda _: "")
        assert short_answer(raw, checked) is None


WORDS = (
    "hotels cost 145 190 euros trains come first office opens nine berlin dogs it [1] [2] [3] [1-2] . ! ? \n - `".split(
        " "
    )
)


@pytest.mark.parametrize("passages", [[], [POLICY], PASSAGES], ids=len)
@given(words=st.lists(st.sampled_from([*WORDS, "\n"]), max_size=40))
def test_every_citation_stands_at_its_place_whatever_is_claimed(passages, words):
    stored = {"version1": "x" * 100 + POLICY.text, "version2": OTHER.text, "version3": "x" * 50 + TABLE.text}
    raw = raw_claims(" ".join(words), passages=len(passages))
    claims = Citer(passages, LexicalJudge()).cite(raw)
    assert check(claims, stored.__getitem__) == (claims, [])
    for before, claim in zip(raw, claims, strict=True):
        assert (claim.text, claim.start, claim.end) == (before.text, before.start, before.end)
        assert {citation.number for citation in claim.citations if not citation.attributed} <= {*before.passages}
        assert 0 <= claim.support <= 1
        assert claim.supported == (claim.checkable and claim.support >= LexicalJudge.threshold)
        assert claim.checkable or not claim.citations
