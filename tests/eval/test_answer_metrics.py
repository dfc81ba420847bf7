"""The figures of answers, counted by hand: words, citations, silence, sentences, and where nothing is to count."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.answer_metrics import REASONS, Answered, Cited, Known, Said, as_json, metrics, stands

MAIN = [
    "f1", "exact_match", "answer_in_text", "gold_cited_precision", "gold_cited_recall", "quotes_verbatim",
    "abstention_precision", "abstention_recall",
]  # fmt: skip


def cited(*passages, quote="words"):
    return Cited(passages, "version", 0, len(quote), quote)


def said(text="", *citations, short=None, supports=(), verbatim=None):
    """What was said and whether its quotes stand; nothing said is an abstention. From .7 on it is supported."""
    supported = sum(support >= 0.7 for support in supports)
    words = Said("q", text, short, not text, supports, supported, citations, (), 0, "reader", 0.1, 0.2, 0.3)
    return words, tuple(verbatim or [True] * len(citations))


def answered(known, one):
    return Answered(known, *one)


def values(*rows):
    return {name: round(figure.value, 4) for name, figure in metrics(rows).items() if not math.isnan(figure.value)}


def test_every_figure_of_four_questions():
    """One answered with half of what it cites relevant, one kept silent on wrongly, one rightly, one that must not be
    answered and was.
    """
    ferry = Known("1", "Where?", True, ("the North Sea",), relevant=frozenset({"a", "b"}))
    built = Known("2", "When?", True, ("in 1901",), relevant=frozenset({"c"}))
    nothing = Known("3", "Who?", False)
    found = values(
        answered(
            ferry,
            said(
                "The ferry crosses the North Sea.", cited("a"), cited("x"),
                short="North Sea", supports=(1.0, 0.5), verbatim=(True, False),
            ),
        ),
        answered(built, said()),
        answered(nothing, said()),
        answered(nothing, said("It was red.", cited("y"), supports=(0.75,))),
    )  # fmt: skip
    assert found == {
        "f1": 0.5,
        "exact_match": 0.5,
        "f1_answerable": 0.5,
        "exact_match_answerable": 0.5,
        "answer_in_text": 0.5,
        "gold_cited_precision": 0.5,
        "gold_cited_recall": 0.25,
        "quotes_verbatim": 0.6667,
        "abstention_precision": 0.5,
        "abstention_recall": 0.5,
        "support": 0.75,
        "supported": 0.6667,
    }


def test_without_a_short_answer_all_words_count():
    """Five words are left without articles, two of them right: 2 * 2 / (5 + 2); the answer itself stands there."""
    known = Known("1", "Where?", True, ("North Sea",))
    found = values(answered(known, said("The ferry crosses the North Sea quickly.")))
    assert (found["f1"], found["exact_match"], found["answer_in_text"]) == (round(4 / 7, 4), 0, 1)


def test_an_answer_of_several_parts_is_there_when_all_of_them_are():
    known = Known("1", "Which?", True, ("2019; 2018",), ("2019", "2018"))
    assert values(answered(known, said("In 2019 and 2018.")))["answer_in_text"] == 1
    assert values(answered(known, said("In 2019.")))["answer_in_text"] == 0


def test_a_long_answer_is_measured_by_its_sentences():
    """Two of three gold sentences are cited, one of them cut otherwise, beside two that nobody chose; the short answer
    does not stand for a long one.
    """
    gold = ("Storms come in autumn .", "They last for days .", "Masts break .")
    known = Known("1", "What of storms?", True, ("storms come in autumn and last",), sentences=gold)
    citations = [cited("a", quote=quote) for quote in ("Storms come in autumn.", "days", "Bread is sold.", "Rye.")]
    quotes = [*citations[:1], cited("a", quote="They last for days, it says."), *citations[2:]]
    found = values(answered(known, said("Storms come in autumn and last.", *quotes, short="autumn")))
    assert found["f1"] == found["exact_match"] == 1
    assert found["sentence_precision"] == 0.5
    assert found["sentence_recall"] == round(2 / 3, 4)
    assert found["sentence_f1"] == round(2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3), 4)
    silent = values(answered(known, said()))
    assert (silent["sentence_recall"], silent["sentence_f1"], "sentence_precision" in silent) == (0, 0, False)
    assert values(answered(known, said("It says: storms come in autumn!")))["answer_in_text"] == 1


def test_a_near_copy_of_a_relevant_passage_is_as_good():
    """The passage that is cited says the same as the one that was judged; cited twice, it counts once."""
    known = Known("1", "Where?", True, ("x",), relevant=frozenset({"copy"}))
    found = values(answered(known, said("x", cited("a", "copy"), cited("a"), cited("a", "copy"), cited("b"))))
    assert (found["gold_cited_precision"], found["gold_cited_recall"]) == (0.5, 1)


def test_an_answer_that_cites_nothing_has_no_precision():
    known = Known("1", "Where?", True, ("x",), relevant=frozenset({"a"}))
    found = values(answered(known, said("x")))
    assert (found["gold_cited_precision"], found["gold_cited_recall"], "quotes_verbatim" in found) == (0, 0, False)


def test_what_can_not_be_counted_is_null_with_a_reason():
    """Nothing is unanswerable, nothing was judged and nothing said: never a number that JSON does not have."""
    found = as_json(metrics([answered(Known("1", "Where?", True, ("x",)), said())]))
    assert set(found) == set(REASONS)
    assert set(MAIN) < set(found)
    assert found["f1"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    for name in MAIN[3:]:
        assert found[name] == {"value": None, "low": None, "high": None, "reason": REASONS[name]}
    json.dumps(found, allow_nan=False)


def test_a_question_without_known_answers_counts_for_its_passages_alone():
    """As in sets where the passage is the answer; so an interval there has no question to draw at times."""
    known = Known("1", "Where?", True, relevant=frozenset({"a"}))
    found = values(answered(known, said("x", cited("a"))))
    assert found == {"gold_cited_precision": 1, "gold_cited_recall": 1, "quotes_verbatim": 1}


@pytest.mark.parametrize(
    ("quote", "start", "verbatim"),
    [("tide", 4, True), ("tide", 3, False), ("Tide", 4, False), ("", 4, False), (" ", 3, False)],
)
def test_a_quote_stands_word_for_word_at_its_place(quote, start, verbatim):
    assert stands(Cited(("a",), "v", start, start + len(quote), quote), "The tide.") == verbatim


def test_a_row_of_a_table_stands_with_its_cells():
    cited = Cited(("a",), "v", 0, 10, "Sales | 12", ((8, 10, "12"),))
    assert stands(cited, "Sales | 12")
    assert not stands(Cited(("a",), "v", 0, 10, "Sales | 12", ((7, 9, "12"),)), "Sales | 12")


WORDS = st.sampled_from(["tide", "storm", "tide storm", "the bread"])
IDS = st.sampled_from("abc")


@st.composite
def rows(draw):
    answers = tuple(draw(st.lists(WORDS, max_size=2)))
    known = Known(
        "q", "?", draw(st.booleans()), answers, answers, tuple(draw(st.lists(WORDS, max_size=2))),
        frozenset(draw(st.sets(IDS))),
    )  # fmt: skip
    quotes = draw(st.lists(st.tuples(IDS, WORDS), max_size=3))
    text = draw(st.one_of(st.just(""), WORDS))
    citations = [cited(key, quote=quote) for key, quote in quotes] if text else []
    return answered(known, said(text, *citations, supports=(0.5,) * len(citations)))


@given(st.lists(rows(), min_size=1, max_size=6))
@settings(max_examples=25)
def test_every_figure_is_a_share_whatever_was_said(every):
    """Between 0 and 1 with its interval, in any order of the questions."""
    found, turned = metrics(every), metrics(every[::-1])
    for name, figure in found.items():
        if math.isnan(figure.value):
            assert math.isnan(turned[name].value)
            continue
        assert 0 <= figure.low <= figure.high <= 1
        assert 0 <= figure.value <= 1
        assert turned[name].value == pytest.approx(figure.value)
