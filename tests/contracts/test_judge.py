"""The contract of `rag.protocols.Judge`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.grounding import LexicalJudge
from rag.judge import TrainedJudge
from rag.pair_model import TrainedPairs
from rag.protocols import Judge

JUDGES = ["lexical overlap", "built-in judge"]
PAIRS = st.lists(st.tuples(st.text(max_size=40), st.text(max_size=40)), max_size=5)


@pytest.fixture(scope="module", params=JUDGES)
def judge(request) -> Iterator[Judge]:
    if request.param == "lexical overlap":
        yield LexicalJudge()
        return
    with closing(TrainedJudge(TrainedPairs("judge"))) as opened:
        yield opened


class TestJudge:
    def test_it_has_a_name(self, judge):
        assert judge.name in JUDGES

    @given(pairs=PAIRS)
    def test_a_score_for_each_pair_in_range(self, judge, pairs):
        scores = judge.support(pairs)
        assert len(scores) == len(pairs)
        assert all(0.0 <= score <= 1.0 for score in scores)

    def test_a_sentence_supports_itself_and_a_wrong_figure_counts_less_than_a_right_one(self, judge):
        claim = "The limit is 145 euros per night."
        same, right, wrong, other = judge.support(
            [(claim, claim), (claim, "145 euros a night"), (claim, "190 euros a night"), (claim, "Dogs are welcome.")]
        )
        assert same == 1.0 > right > max(wrong, other)
        assert min(wrong, other) >= 0.0
        assert other < 0.5

    def test_nothing_is_claimed_by_an_empty_sentence(self, judge):
        assert judge.support([("", "x"), ("?!", "x")]) == [0.0, 0.0]


def test_words_that_say_nothing_claim_nothing_to_the_judge_of_words():
    assert LexicalJudge().support([("the of", "the of it")]) == [0.0]
