"""Claims that say what their evidence says but for a number, a name or a negation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.swapped import Swaps

EVIDENCE = (
    "The harbour bridge was opened on 12 March 1987 by Maria Santos. It is 420 metres long and carries six lanes. "
    "Lorries may not use it at night. In 2003 the city of Porto bought it from the railway company for 1,200 euros."
)
SWAPS = Swaps()


@pytest.mark.parametrize(
    "claim",
    [
        "The bridge is 870 metres long.",
        "The city of Lisbon bought the bridge.",
        "The bridge was opened in June 1987.",
        "It was bought for 1,300 euros.",
        "Lorries may use it at night.",
        "The bridge doesn't carry six lanes.",
    ],
)
def test_a_swapped_number_name_or_negation_is_found(claim):
    assert SWAPS.found(claim, EVIDENCE)


@pytest.mark.parametrize(
    "claim",
    [
        "The bridge is 420 metres long.",
        "Porto bought the bridge in 2003.",
        "It was bought for 1200 euros.",
        "Lorries may not use it at night.",
        "The bridge carries lanes.",
        "Anna likes the view of the Douro.",  # names that stand where the evidence has none
        "The ferry carries a hundred horses.",
        "",
    ],
)
def test_what_stands_there_or_is_not_spoken_of_is_no_swap(claim):
    assert not SWAPS.found(claim, EVIDENCE)
    assert not SWAPS.found(claim, "")


@given(st.text(max_size=80), st.text(max_size=80))
def test_a_text_has_no_swap_against_itself_and_nothing_raises(one, other):
    assert not SWAPS.found(one, one)
    assert SWAPS.found(one, other) in {True, False}
