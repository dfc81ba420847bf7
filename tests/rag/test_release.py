"""Releases: what goes out of an answer under each policy, and where its claims then stand."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.answers import Claim, Policy
from rag.claims import ClaimParser, RawClaim
from rag.records import Delta
from rag.release import Release, release


def judged(raw: RawClaim) -> Claim:
    """What is false says so."""
    supported = raw.checkable and "false" not in raw.text
    return Claim(raw.text, raw.start, raw.end, (), float(supported), supported, raw.checkable)


def released(policy: Policy, text: str) -> tuple[Release, list[str | Claim]]:
    """Write a text word by word; each sentence is judged as soon as it is complete."""
    parser, chosen = ClaimParser(3), release(policy)
    out: list[str | Claim] = []
    done = 0
    for word in [*text.split(" "), None]:
        written = parser.finish() if word is None else parser.feed(Delta(f"{word} "))
        out += chosen.write(written)
        for raw in parser.claims(done):
            out += chosen.judge(raw, judged(raw), parser.text)
        done = len(parser.claims())
    out += chosen.end()
    assert "".join(piece for piece in out if isinstance(piece, str)) == chosen.text
    assert [piece for piece in out if isinstance(piece, Claim)] == [claim for _, claim in chosen.claims]
    for raw, claim in chosen.claims:
        assert (raw.start, raw.end) == (claim.start, claim.end)
        assert re.sub(r"\[\d\]", "", chosen.text[claim.start : claim.end]).split() == claim.text.split()
    return chosen, out


TEXT = "Here you are! One is true. [1] Two is false. [2] Three is true. [3]"


def test_report_lets_all_out_as_it_comes():
    chosen, out = released(Policy.REPORT, TEXT)
    assert chosen.text.rstrip() == TEXT
    assert (len(chosen.claims), chosen.withheld) == (4, 0)
    assert out[0] == "Here"


def test_filter_withholds_what_nothing_supports():
    """The claim comes before its text; lead-ins come with what they lead to; markers and spaces stay right."""
    chosen, out = released(Policy.FILTER, TEXT)
    assert chosen.text == "Here you are! One is true. [1] Three is true. [3]"
    assert chosen.withheld == 1
    assert [piece if isinstance(piece, str) else "*" for piece in out] == [
        "*", "Here you are!", "*", " One is true. [1]", "*", " Three is true. [3]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("One is false. Two is true. [1]", "Two is true. [1]"),
        ("- One is true. [1]\n- Two is false.\n- Three is true.", "- One is true. [1]\n- Three is true."),
        ("One is true.\n\nTwo is false. Three is true.", "One is true.\n\nThree is true."),
        ("One is true. Two is false. [2]", "One is true."),
        ("## All of it\n\nOne is false.", ""),
        ("One is true.\n\n## Two is false.", "One is true."),
        ("One is false. I hope this helps.", ""),
        ("One is true. I hope this helps.", "One is true. I hope this helps."),
        ("1. One is false.\n2. Two is true.", "2. Two is true."),
        ("Run `false`.\n```\nfalse [1]\n```\nOne is true.", "One is true."),
    ],
)
def test_what_is_left_reads_well(text, kept):
    assert released(Policy.FILTER, text)[0].text == kept


def test_strict_lets_all_out_or_nothing():
    good = "Here you are! One is true. [1] Two is true. [2]"
    chosen, out = released(Policy.STRICT, good)
    assert chosen.text.rstrip() == good
    assert [isinstance(piece, str) for piece in out] == [False, False, False, True]
    chosen, out = released(Policy.STRICT, TEXT)
    assert (chosen.text, chosen.claims, chosen.withheld, out) == ("", [], 1, [])
    assert released(Policy.STRICT, "I hope this helps.")[1] == []


PARTS = st.lists(
    st.sampled_from(["True it is.", "It is false.", "Here it is:", "\n", "\n\n", "- Also true.", "[1]", "[2]", "##"])
)


@given(PARTS)
def test_nothing_false_goes_out_and_nothing_true_is_lost(parts):
    text = " ".join(parts)
    whole, _ = released(Policy.REPORT, text)
    filtered, _ = released(Policy.FILTER, text)
    strict, _ = released(Policy.STRICT, text)
    true = [claim.text for _, claim in whole.claims if claim.supported]
    false = sum(claim.checkable and not claim.supported for _, claim in whole.claims)
    assert [claim.text for _, claim in filtered.claims if claim.supported] == true
    assert "false" not in filtered.text
    assert filtered.withheld == false
    assert bool(filtered.text) == bool(true)
    assert strict.text == (whole.text if true and not false else "")
