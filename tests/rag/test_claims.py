"""Claims: whatever a generator writes becomes sentences with the passages that they name, and never an exception."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.claims import LONGEST, ClaimParser, RawClaim, is_checkable
from rag.markers import LONGEST_MARKER
from rag.records import Delta, Quote

PASSAGES = 3


def parse(*pieces: str | Delta, passages: int = PASSAGES) -> ClaimParser:
    """What is shown piece by piece is the text, and no claim that was complete changes."""
    parser = ClaimParser(passages)
    shown = ""
    early: list[RawClaim] = []
    for piece in pieces:
        shown += parser.feed(piece if isinstance(piece, Delta) else Delta(piece))
        early += parser.claims(len(early))
        assert all(claim.until <= len(shown) for claim in early)
    shown += parser.finish()
    assert shown == parser.text
    assert parser.claims()[: len(early)] == early
    return parser


def claims(*pieces: str | Delta) -> list[tuple[str, tuple[int, ...]]]:
    return [(claim.text, claim.passages) for claim in parse(*pieces).claims()]


class TestMarkers:
    def test_before_and_after_the_full_stop(self):
        expected = [("Hotels cost 145.", (1,)), ("It opens at nine.", (2,))]
        assert claims("Hotels cost 145. [1] It opens at nine. [2]") == expected
        assert claims("Hotels cost 145 [1]. It opens at nine[2].") == expected
        assert claims("Hotels cost 145. [1]. It opens at nine. [2].") == expected

    @pytest.mark.parametrize("spaces", ["", " ", "  ", "     "])
    def test_spaces_before_a_marker_give_it_to_no_other_sentence(self, spaces):
        assert claims(f"酒店每晚145欧元{spaces}[1]。火车优先。") == [("酒店每晚145欧元。", (1,)), ("火车优先。", ())]
        assert claims(f"Hotels cost 145{spaces}[1]. Go.") == [("Hotels cost 145.", (1,)), ("Go.", ())]

    def test_split_over_pieces(self):
        assert claims("Hotels cost 145. ", "[", "1", "]", " It opens. [2", "]") == [
            ("Hotels cost 145.", (1,)), ("It opens.", (2,)),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("marker", "numbers"),
        [
            ("[1][2]", (1, 2)), ("[1, 2]", (1, 2)), ("[2;1]", (2, 1)), ("[1-3]", (1, 2, 3)),
            ("[3–1]", (1, 2, 3)), ("[2-9]", (2, 3)), ("【2】", (2,)), ("[１、２]", (1, 2)), ("［３］", (3,)),
            ("[٢]", (2,)), ("[१-२]", (1, 2)), ("[^2]", (2,)), ("[Source 2]", (2,)), ("[passages 1, 3]", (1, 3)),
            ("【2†source】", (2,)), ("[ 2 ]", (2,)), ("[02]", (2,)), ("[1, 7]", (1,)),
        ],
    )  # fmt: skip
    def test_many_ways_of_writing_one(self, marker, numbers):
        """Shown they are all alike."""
        parser = parse(f"Hotels cost much. {marker}")
        assert [claim.passages for claim in parser.claims()] == [numbers]
        assert parser.text == "Hotels cost much. " + "".join(f"[{number}]" for number in numbers)

    @pytest.mark.parametrize(
        "text",
        ["(1)", "[2024]", "[a]", "[]", "[1", "1]", "[0-9]", "{1}", "[1.5]", "[see 1]", "[1 km]", "a[i]", "¹"],
    )
    def test_what_only_looks_like_one_is_text(self, text):
        parser = parse(f"Hotels cost {text} euros")
        assert parser.text == f"Hotels cost {text} euros"
        assert [claim.passages for claim in parser.claims()] == [()]

    def test_a_bracket_that_is_too_long_is_text(self):
        """Whole or in pieces: nothing is held back for ever."""
        text = f"[{', '.join(['1'] * LONGEST_MARKER)}] words"
        assert parse(text).text == parse(*text).text == text

    def test_doubled_ones_are_shown_once(self):
        assert parse("Four. [1][1] [1, 2]").text == "Four. [1] [2]"
        assert claims("Four. [1][1]") == [("Four.", (1,))]

    def test_out_of_range_ones_are_not_shown_nor_the_space_before_them(self):
        parser = parse("Hotels cost 145 [7]. More was said. [0] The end [9] of it.")
        assert parser.text == "Hotels cost 145. More was said. The end of it."
        assert [claim.passages for claim in parser.claims()] == [(), (), ()]

    def test_none_at_all_leaves_a_claim_without_passage(self):
        assert claims("I made this up.") == [("I made this up.", ())]

    def test_at_the_beginning_of_a_line_one_belongs_to_what_follows_on_it(self):
        assert claims("[1] Hotels cost.\n[2] Planes cost.\n[3]") == [("Hotels cost.", (1,)), ("Planes cost.", (2, 3))]
        assert claims("Hotels cost.\n\n[2]\nPlanes cost.") == [("Hotels cost.", (2,)), ("Planes cost.", ())]


class TestCode:
    def test_brackets_between_backticks_are_text(self):
        parser = parse("Use `a[1]` and ``b`[2]``. [3] Done now.")
        assert [(c.text, c.passages) for c in parser.claims()] == [
            ("Use `a[1]` and ``b`[2]``.", (3,)), ("Done now.", ()),
        ]  # fmt: skip

    def test_a_backtick_that_nothing_closes_is_a_backtick(self):
        assert claims("The ` costs 145 euros. [1] Or\nmore `. [2]")[0] == ("The ` costs 145 euros.", (1,))

    def test_a_block_is_one_claim_that_a_marker_may_follow(self):
        block = "```python\nx = y[1]\n\nprint(x[2]). Then.\n```"
        parser = parse(f"Run this: [1]\n{block}\n[2]\nIt prints.")
        assert [(c.text, c.passages) for c in parser.claims()] == [
            ("Run this:", (1,)), (block, (2,)), ("It prints.", ()),
        ]  # fmt: skip

    def test_a_block_that_never_ends_is_code_to_the_end(self):
        assert claims("Run:\n```\nx[1]\n\nSome words. [2]")[1] == ("```\nx[1]\n\nSome words. [2]", ())

    def test_three_backticks_in_a_line_are_no_block(self):
        assert claims("```x[1]``` does it. [2]") == [("```x[1]``` does it.", (2,))]


class TestSentences:
    def test_a_claim_is_complete_when_the_next_sentence_has_begun(self):
        """Not before: its marker may follow; and then at once."""
        parser = ClaimParser(PASSAGES)
        seen = []
        for word in ("Hotels ", "cost ", "145. ", "[1", "] ", "It ", "opens. ", "[2]"):
            parser.feed(Delta(word))
            seen.append(len(parser.claims()))
        assert seen == [0, 0, 0, 0, 0, 1, 1, 1]
        parser.finish()
        assert len(parser.claims()) == 2

    def test_in_scripts_without_spaces_too(self):
        assert claims("酒店每晚145欧元。[1]火车优先。[2]") == [("酒店每晚145欧元。", (1,)), ("火车优先。", (2,))]
        parser = ClaimParser(PASSAGES)
        parser.feed(Delta("酒店每晚145欧元。[1]火"))
        assert [claim.text for claim in parser.claims()] == ["酒店每晚145欧元。"]

    def test_abbreviations_and_figures_end_none(self):
        text = "Dr. Smith pays 145.50 euros, e.g. in Bonn. [1]"
        assert claims(text) == [("Dr. Smith pays 145.50 euros, e.g. in Bonn.", (1,))]

    def test_bullets_numbers_and_headings_are_no_part_of_a_claim_but_go_with_it(self):
        parser = parse("## Travel\n- Hotels cost 145. [1]\n2. Trains come first. [2]\n> * Planes too [3]")
        assert [claim.text for claim in parser.claims()] == [
            "Travel", "Hotels cost 145.", "Trains come first.", "Planes too",
        ]  # fmt: skip
        assert [parser.text[claim.begin : claim.until] for claim in parser.claims()] == [
            "## Travel", "- Hotels cost 145. [1]", "2. Trains come first. [2]", "> * Planes too [3]",
        ]  # fmt: skip

    def test_a_number_alone_is_an_answer(self):
        assert claims("145. [1]") == [("145.", (1,))]
        assert claims("4.") == [("4.", ())]

    def test_an_answer_begins_with_its_first_word(self):
        assert parse(" \n", "\n Hotels.").text == "Hotels."
        assert parse(" \n\t ").text == ""

    def test_a_sentence_without_end_is_cut_at_last(self):
        """However long a model goes on, it is judged in parts."""
        parser = parse("word " * LONGEST)
        assert len(parser.claims()) > 1
        assert max(len(claim.text) for claim in parser.claims()) <= LONGEST + 10
        assert " ".join(claim.text for claim in parser.claims()) == parser.text.strip()


class TestCheckable:
    @pytest.mark.parametrize(
        ("text", "lead"),
        [
            ("Hello!", ""), ("Sure, here is the answer:", ""), ("Here is what I found:", ""),
            ("I hope this helps.", ""),
            ("Travel expenses", "## "), ("**Hotels**", ""), ("Hotels:", "- "), ("Do you have more questions?", ""),
            ("The documents do not say whether dogs are allowed.", ""), ("Guten Tag!", ""), ("Yes.", ""),
            ("However, the passages don't mention trains.", ""), ("次のとおりです：", ""),
        ],
    )  # fmt: skip
    def test_what_says_nothing_of_the_documents_is_not(self, text, lead):
        assert not is_checkable(text, lead)

    @pytest.mark.parametrize(
        ("text", "lead"),
        [
            ("Hotels cost 145 euros.", ""), ("The limit is 190 euros", "# "), ("**The limit is 190.**", ""),
            ("145", ""),
            ("The limit is 190 euros:", ""), ("Dogs are allowed.", "- "), ("The documents say that dogs bite.", ""),
            ("Nothing in it is true of cats and dogs and mice and many more animals in all of our houses:", ""),
        ],
    )  # fmt: skip
    def test_all_else_is(self, text, lead):
        assert is_checkable(text, lead)

    def test_what_names_a_passage_is(self):
        [claim] = parse("## Travel [1]").claims()
        assert claim.checkable


def test_a_generator_that_quotes_is_taken_at_its_word():
    """Brackets inside a quoted sentence are text of the document, not markers; each is complete at once."""
    text = "See note [2] in the annex."
    first = Delta(text, (Quote(1, 0, len(text)),))
    parser = parse(first, Delta("Second.", (Quote(2, 5, 12),)))
    assert parser.text == "See note [2] in the annex. [1] Second. [2]"
    assert [(c.text, c.passages) for c in parser.claims()] == [(text, (1,)), ("Second.", (2,))]
    assert [parser.text[c.start : c.end] for c in parser.claims()] == [text, "Second."]
    one = ClaimParser(PASSAGES)
    one.feed(first)
    assert len(one.claims()) == 1


ATOMS = (
    "[1] [2] [3] [1][2] [1, [9] [0-9] [1-3] [1-9] 【１】 ［２］ [१-२] [٣] [^1] [Source "
    "[passage 2] 【1†s】 (1) [ ] ]. 1 2 "
    "` `` ``` ~ ** ## - • 1. e.g. Dr. Hotels cost 145 euros . ! ? … 。 中文 \U0001f642 \x00 \u2028 \ud800 a"
).split()
TEXTS = st.lists(
    st.one_of(st.sampled_from([*ATOMS, " ", "  ", "\n", "\n```\n", "\t", ". "]), st.text(max_size=3)), max_size=25
).map("".join)


@settings(max_examples=10_000, deadline=None)
@given(st.data())
def test_nothing_a_model_writes_breaks_it(data):
    """However the text is cut: the same text and claims, at their offsets, in order, with markers in range."""
    text = data.draw(TEXTS)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    whole = parse(text)
    for pieces in ([text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)], text):
        parser = parse(*pieces)
        assert parser.text == whole.text
        assert parser.claims() == whole.claims()
    last = 0
    for claim in whole.claims():
        assert last <= claim.begin <= claim.start < claim.end <= claim.until
        last = claim.until
        assert all(1 <= number <= PASSAGES for number in claim.passages)
        assert len(set(claim.passages)) == len(claim.passages)
        assert _letters(whole.text[claim.start : claim.end], claim) == _letters(claim.text, claim)
    assert last <= len(whole.text)


def _letters(text: str, claim: RawClaim) -> str:
    """The letters of a text without markers, and without what looks like one when those in it are gone: [[2]2]."""
    for _ in range(len(text)):
        for number in claim.passages:
            text = text.replace(f"[{number}]", "")
    return "".join(c for c in text if c.isalnum())
