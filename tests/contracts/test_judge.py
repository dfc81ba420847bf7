"""The contract of `rag.protocols.Judge`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.grounding import LexicalJudge
from rag.protocols import Judge

JUDGES: list[Judge] = [LexicalJudge()]
PAIRS = st.lists(st.tuples(st.text(max_size=40), st.text(max_size=40)), max_size=5)


@pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: judge.name)
class TestJudge:
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
        assert same == 1.0 > right > wrong > other == 0.0

    def test_nothing_is_claimed_by_an_empty_sentence(self, judge):
        assert judge.support([("", "x"), ("?!", "x"), ("the of", "the of it")]) == [0.0, 0.0, 0.0]
