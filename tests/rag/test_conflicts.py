"""Conflicts: documents that state different things in the same words are found, and ordinary differences are none."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.citations import Citer
from rag.claims import RawClaim
from rag.conflicts import date_of
from rag.grounding import LexicalJudge
from rag.records import Kind, Passage
from tests.rag.passages import passage


def conflicts(*passages: Passage, claim: str | None = None) -> list[tuple[str, list[str]]]:
    """What contradicts a claim (the first passage, word for word), as the judge of words cites it."""
    said = claim or passages[0].text
    citer = Citer(passages, LexicalJudge())
    claims = citer.cite([RawClaim(said, 0, len(said), 0, len(said), (1,))])
    return [(differs, [side.quote for side in sides]) for differs, sides in citer.oppose(claims)]


def differs(one: str, other: str) -> str | None:
    found = conflicts(passage(one, 1), passage(other, 2))
    assert not found or found[0][1] == [one, other]
    return found[0][0] if found else None


@pytest.mark.parametrize(
    ("one", "other", "what"),
    [
        ("The hotel limit is 145 euros per night.", "The hotel limit is 120 euros per night.", "number"),
        ("The hotel limit is now 1,450 euros a night.", "The hotel limit is 1200 euros a night.", "number"),
        ("Hotels cost -5 euros.", "Hotels cost 5 euros.", "number"),
        ("Employees have two days of leave.", "Employees have 3 days of leave.", "number"),
        ("The policy is valid from 1 May 2025.", "The policy is valid from 1 June 2025.", "date"),
        ("The policy is valid from 2025-05-01.", "The policy is valid from 2026-05-01.", "date"),
        ("The old tower was built in 1869.", "The old tower was built in 1889.", "date"),
        ("Dogs are allowed in the office.", "Dogs are not allowed in the office.", "negation"),
        ("Hunde sind im Büro erlaubt.", "Hunde sind im Büro nicht erlaubt.", "negation"),
    ],
)
def test_the_same_words_with_another_value_conflict(one, other, what):
    assert differs(one, other) == what
    assert differs(other, one) == what


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The hotel limit is 145 euros per night.", "The hotel limit is 145 euros per night."),
        ("The hotel limit is 1,450 euros.", "The hotel limit is 1450 euros."),
        ("The hotel limit in Germany is 145 euros.", "The hotel limit in France is 120 euros."),
        ("The hotel limit is 145 euros per night.", "The meal limit is 30 euros per day."),
        ("The hotel limit is 145 euros.", "The hotel limit is 120 dollars."),
        ("In 2019 the company had 500 employees.", "In 2020 the company had 500 employees."),
        ("In 2019 the company had 500 employees.", "In 2020 the company had 600 employees."),
        ("Chapter 3 covers train travel rules.", "Chapter 4 covers train travel rules."),
        ("Use form A4 for travel expenses.", "Use form B7 for travel expenses."),
        ("It costs 145 euros per night.", "It costs 120 euros per night."),
        ("This limit is 145 euros per night.", "This limit is 120 euros per night."),
        ("It is 145.", "It is 120."),
        ("Is the hotel limit 145 euros?", "Is the hotel limit 120 euros?"),
        ("Dogs are not allowed in the office.", "Cats are allowed in the office."),
        ("The minimum stay is 5 nights here.", "The maximum stay is 9 nights here."),
        ("Hotels cost 145 or 190 euros.", "Hotels cost 120 or 170 euros."),
        ("Hotels cost 10 percent more.", "Hotels cost no more."),
    ],
)
def test_what_says_something_else_does_not(one, other):
    assert differs(one, other) is None
    assert differs(other, one) is None


def test_sentences_of_one_document_do_not():
    one = passage("The hotel limit is 145 euros.", 1)
    other = replace(passage("The hotel limit is 120 euros.", 2), document_id=one.document_id)
    assert conflicts(one, other) == []


def test_under_different_headings_short_sentences_do_not():
    one, other = passage("The limit is 145 euros.", 1), passage("The limit is 120 euros.", 2)
    assert conflicts(replace(one, section=("Hotels",)), replace(other, section=("Meals",))) == []
    assert len(conflicts(replace(one, section=("Hotels",)), replace(other, section=("2. Hotel limits",)))) == 1


def test_only_what_is_cited_is_looked_at():
    """The rest of a passage may conflict with what it likes."""
    one = passage("Trains come first of all. The hotel limit is 145 euros.", 1)
    other = passage("The hotel limit is 120 euros.", 2)
    assert conflicts(one, other, claim="Trains come first of all.") == []
    assert len(conflicts(one, other, claim="The hotel limit is 145 euros.")) == 1


def test_each_document_has_one_say():
    found = conflicts(*(passage(f"The hotel limit is {limit} euros.", n) for n, limit in enumerate((145, 120, 130), 1)))
    assert [sides for _, sides in found] == [[f"The hotel limit is {limit} euros." for limit in (145, 120, 130)]]


class TestRows:
    def rows(
        self, one: str, other: str, claim: str, header: str = "City | Hotel | Meals"
    ) -> list[tuple[str, list[str]]]:
        facts = {"kind": Kind.TABLE, "context": f"Limits\n{header}"}
        return conflicts(passage(one, 1, **facts), passage(other, 2, **facts), claim=claim)

    def test_rows_of_the_same_name_with_another_figure_conflict(self):
        found = self.rows("Berlin | 145 | 30", "Berlin | 120 | 30", "The hotel limit in Berlin is 145.")
        assert found == [("number", ["Berlin | 145 | 30", "Berlin | 120 | 30"])]

    @pytest.mark.parametrize(
        "other", ["Paris | 120 | 30", "Berlin | 145 | 40", "Berlin | 145 | 30", "Berlin | cheap | 30"]
    )
    def test_other_rows_and_other_cells_do_not(self, other):
        assert self.rows("Berlin | 145 | 30", other, "The hotel limit in Berlin is 145.") == []


WORDS = st.lists(st.sampled_from("hotel train limit office opens costs leave euros Berlin dogs".split()), max_size=6)


@given(WORDS, WORDS, st.integers(2, 99), st.integers(2, 99))
def test_other_words_never_conflict(left, right, one, other):
    """No false alarm: sentences conflict only if they have the same words."""
    first, second = f"{' '.join(left)} {one} parts of it", f"{' '.join(right)} {other} parts of it"
    if differs(f"The {first}", f"The {second}"):
        assert sorted(left) == sorted(right)
        assert one != other


@pytest.mark.parametrize(
    ("metadata", "date", "by"),
    [
        ({"date": "2026-02-01", "created": "2020-01-01"}, "2026-02-01", "date"),
        ({"created": "2020-01-01T10:00:00+02:00"}, "2020-01-01T10:00:00+02:00", "created"),
        ({"year": 2025}, "2025", "year"),
        ({"date": "last spring", "year": "2024"}, "2024", "year"),
        ({"date": ["x"]}, "2026-11-22T00:00:00+00:00", "ingested_at"),
        ({}, "2026-11-22T00:00:00+00:00", "ingested_at"),
    ],
)
def test_the_date_of_a_document_is_what_it_says_or_when_it_came(metadata, date, by):
    version = SimpleNamespace(metadata=metadata, created_at=datetime(2026, 11, 22, tzinfo=UTC))
    moment, told, dated = date_of(version)
    assert (told, dated) == (date, by)
    assert moment.tzinfo
