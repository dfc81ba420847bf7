"""Amounts with their units: what is taken along, and that nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.amounts import whole_amount


@pytest.mark.parametrize(
    ("text", "said", "whole"),
    [
        ("The limit is 145 euros per night.", "145", "145 euros"),
        ("The limit is €145 per night.", "145", "€145"),
        ("It cost US$ 2.5 million in all.", "2.5", "US$ 2.5 million"),
        ("It cost $2.5 million in all.", "2.5 million", "$2.5 million"),
        ("EUR 40 a day", "40", "EUR 40"),
        ("about 51.6% of them", "51.6", "51.6%"),
        ("some 30 per cent", "30", "30 per cent"),
        ("260 km south", "260", "260 km"),
        ("within 28 days of it", "28", "28 days"),
        ("3 thousand people", "3", "3 thousand"),
        ("in 1932, days were long", "1932", "1932"),
        ("7 daysailers", "7", "7"),
        ("28 of them", "28", "28"),
        ("Ann 28 days", "Ann", "Ann"),
        ("145", "145", "145"),
    ],
)
def test_a_number_takes_its_unit_along(text, said, whole):
    start = text.index(said)
    assert text[slice(*whole_amount(text, (start, start + len(said))))] == whole


@given(text=st.text(alphabet="1 5$%€.,daysmilonUSEUR", max_size=30), start=st.integers(0, 30), length=st.integers(0, 9))
def test_what_was_said_stays_said(text, start, length):
    """The words that were marked are among the words that are, and a second look adds nothing."""
    start = min(start, len(text))
    span = (start, min(len(text), start + length))
    found = whole_amount(text, span)
    assert 0 <= found[0] <= span[0] <= span[1] <= found[1] <= len(text)
    assert whole_amount(text, found) == found
