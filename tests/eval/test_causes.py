"""Where it goes wrong: each cause by a journey that lost the answer at that step, and only there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.causes import Source, Trace, cause_of, holding_chunks
from eval.runs import Cause

ANSWERS = ["145 euros per night"]
CHUNKS = {"c1": "The limit is 145 euros per night.", "c2": "Meals are paid up to 40 euros."}
TRAVEL = Source("travel.pdf", CHUNKS)
NOTHING = Trace(frozenset(), frozenset())


def seen(candidates, passages=()):
    return Trace(frozenset({*candidates, *passages}), frozenset(passages))


@pytest.mark.parametrize(
    ("sources", "trace", "cause"),
    [
        pytest.param([Source("travel.pdf")], NOTHING, Cause.MISSING, id="not_there"),
        pytest.param([Source("travel.pdf", unread=True)], NOTHING, Cause.PARSING, id="never_read"),
        pytest.param([Source("travel.pdf", {"c2": CHUNKS["c2"]})], NOTHING, Cause.PARSING, id="words_not_in_it"),
        pytest.param(
            [Source("travel.pdf", {"c2": CHUNKS["c2"]}, changed=True)], seen("c2"), Cause.MISSING, id="other_content"
        ),
        pytest.param(
            [Source("travel.pdf", {"c2": CHUNKS["c2"]}, unread=True)], seen("c2"), Cause.PARSING, id="new_one_not_read"
        ),
        pytest.param(
            [Source("other.pdf", {"c9": "Nothing."}), Source("travel.pdf")], seen("c9"), Cause.MISSING, id="one_gone"
        ),
        pytest.param([TRAVEL], seen(["c2"], ["c2"]), Cause.RETRIEVAL, id="no_candidate"),
        pytest.param([TRAVEL], seen(["c1", "c2"], ["c2"]), Cause.RANKING, id="behind_the_passages"),
        pytest.param([TRAVEL], seen(["c1"], ["c1"]), Cause.READING, id="it_was_read"),
        pytest.param([Source("gone.pdf"), TRAVEL], seen([], ["c1"]), Cause.READING, id="one_gone_the_other_read"),
    ],
)
def test_the_first_step_that_lost_the_answer_is_the_cause(sources, trace, cause):
    found, why = cause_of(ANSWERS, sources, trace)
    assert found is cause
    assert why.endswith(".")


def test_without_a_relevant_document_no_cause_is_made_up():
    with pytest.raises(ValueError, match="no cause"):
        cause_of(ANSWERS, [], NOTHING)


def test_marked_words_stand_for_the_answer():
    """The answer says yes; the words that were marked in the document say where that stands."""
    source = Source("travel.pdf", CHUNKS, words="Meals are paid")
    assert cause_of(["Yes."], [source], seen(["c1"], ["c1"]))[0] is Cause.RETRIEVAL
    assert cause_of(["Yes."], [source], seen([], ["c2"]))[0] is Cause.READING


def test_without_a_known_answer_any_chunk_of_the_document_will_do():
    assert cause_of([], [TRAVEL], seen([], ["c2"]))[0] is Cause.READING
    assert cause_of([], [TRAVEL], seen(["c2"]))[0] is Cause.RANKING


def test_an_answer_that_is_spread_over_chunks_is_held_by_those_with_most_of_it():
    chunks = {"a": "Red, green and blue flags.", "b": "Yellow flags are next.", "c": "The tide is high."}
    assert holding_chunks(["red green blue yellow"], chunks) == {"a"}
    assert holding_chunks(["red green"], chunks) == {"a"}
    assert holding_chunks(["purple"], chunks) == frozenset()


words = st.lists(st.sampled_from("tide noon storm mast bread rye whale krill".split()), min_size=1, max_size=5)


@given(words, st.lists(words, min_size=1, max_size=4))
def test_a_chunk_with_all_words_of_an_answer_holds_it_and_one_without_any_never(answer, texts):
    chunks = {str(number): " ".join(text) for number, text in enumerate(texts)}
    held = holding_chunks([" ".join(answer)], chunks)
    for key, text in chunks.items():
        if {*answer} <= {*text.split()}:
            assert key in held
        if {*answer}.isdisjoint(text.split()):
            assert key not in held


@given(words, st.lists(words, min_size=1, max_size=4), st.sets(st.integers(0, 4)), st.sets(st.integers(0, 4)))
def test_more_that_came_to_the_reader_never_moves_the_cause_back(answer, texts, first, more):
    """The steps are in the order of `Cause`: who sees more, loses the answer later or never."""
    sources = [Source("d", {str(number): " ".join(text) for number, text in enumerate(texts)})]
    order = list(Cause)

    def cause(shown):
        return order.index(cause_of([" ".join(answer)], sources, seen([], map(str, shown)))[0])

    assert cause(first) <= cause(first | more)
