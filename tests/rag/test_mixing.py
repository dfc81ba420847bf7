"""One ranking out of several: by hand, and against a plain twin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.mixing import BACKING, mixed
from rag.queries import Query, QueryRole

SCORES = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 1.5, width=32), max_size=8)
LISTS = st.lists(st.tuples(st.sampled_from(QueryRole), SCORES), min_size=1, max_size=6)


def queries(*roles: QueryRole) -> list[Query]:
    return [Query(role, role) for role in roles]


def twin(roles: list[QueryRole], scores: list[dict[str, float]]) -> dict[str, float]:
    """The formula of `rag.mixing`, passage by passage."""
    found = {}
    for key in {key for own in scores for key in own}:
        asking, backing = [0.0], [0.0]
        for role, own in zip(roles, scores, strict=True):
            if role in {"hypothetical", "conversation"}:
                best = max(own.values(), default=0.0)
                backing.append(own.get(key, 0.0) / best if best else 0.0)
            else:
                asking.append(own.get(key, 0.0))
        found[key] = max(asking) + BACKING * sum(backing)
    return found


def test_by_hand():
    """Of those who ask the best counts; who backs up adds half of its share."""
    roles = QueryRole.QUESTION, QueryRole.PART, QueryRole.HYPOTHETICAL
    found = mixed(queries(*roles), [{"a": 1.0, "b": 0.2}, {"b": 0.9, "c": 0.5}, {"c": 0.4, "d": 0.2}])
    assert found == pytest.approx({"a": 1.0, "b": 0.9, "c": 1.0, "d": 0.25})


@given(LISTS)
def test_it_is_the_formula(lists):
    roles, scores = [role for role, _ in lists], [own for _, own in lists]
    expected = twin(roles, scores)
    silent = {key for key, score in expected.items() if not score}
    found = mixed(queries(*roles), scores)
    assert {**dict.fromkeys(silent, 0.0), **found} == pytest.approx(expected)


@given(SCORES)
def test_one_question_alone_is_left_as_it_is(scores):
    assert mixed(queries(QueryRole.QUESTION), [scores]) == scores
