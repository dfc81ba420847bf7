"""Near-copies: what says the same is found and marked, and what differs in a number or a negation never is."""

from __future__ import annotations

import random
import string

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rag.catalog import Catalog
from rag.copies import BANDS, SIMILARITY, alike, bands_of, words_of
from tests.contracts.strategies import put

LETTERS = string.ascii_lowercase
TEXTS = st.lists(
    st.sampled_from("the tide storm buoy anchor must be checked by pilot 7 19 not no".split()), max_size=30
)
PUNCTUATION = st.sampled_from([" ", ", ", ". ", " (", ") ", "; ", ": ", "\n", "! ", "? ", " – ", ' "'])


def random_words(chance: random.Random, count: int) -> list[str]:
    return ["".join(chance.choices(LETTERS, k=chance.randint(3, 8))) for _ in range(count)]


def similarity(a: str, b: str) -> float:
    """The plain twin: the share of common runs of three words."""
    one, other = ({*zip(w, w[1:], w[2:], strict=False)} for w in (words_of(a), words_of(b)))
    return len(one & other) / len(one | other)


def near_copy(chance: random.Random, words: list[str], least: float) -> tuple[str, str]:
    """A text and a copy of it with as many words replaced as keep the similarity at ``least``."""
    copy, text = list(words), " ".join(words)
    while True:
        before = list(copy)
        copy[chance.randrange(len(copy))] = random_words(chance, 1)[0]
        if similarity(text, " ".join(copy)) < least:
            return text, " ".join(before)


@given(TEXTS, TEXTS)
def test_it_does_not_matter_which_one_is_asked_first(a, b):
    assert alike(" ".join(a), " ".join(b)) == alike(" ".join(b), " ".join(a))


@settings(deadline=None)  # the first text loads datasketch
@given(TEXTS, st.data())
def test_case_and_punctuation_make_no_difference(words, data):
    """Such texts are alike, and they meet in every band."""
    plain = " ".join(words)
    other = "".join(
        word.upper() * loud + word * (not loud) + mark
        for word in words
        for loud, mark in [(data.draw(st.booleans()), data.draw(PUNCTUATION))]
    )
    assert alike(plain, other)
    assert bands_of(plain) == bands_of(other)


@given(TEXTS, st.integers(0, 30), st.sampled_from(["8", "2024", "not", "never", "3rd", "kein", "不"]))
def test_one_number_or_one_negation_more_is_never_alike(words, at, word):
    longer = [*words[:at], word, *words[at:]]
    assert not alike(" ".join(words), " ".join(longer))


@given(st.lists(st.sampled_from("tide storm buoy anchor".split()), max_size=60), st.integers(), st.integers())
def test_another_number_is_never_alike_however_long_the_text_is(words, a, b):
    assume(a != b)
    text = " ".join(words)
    assert not alike(f"{text} the limit is {a} units {text}", f"{text} the limit is {b} units {text}")


LONG = " ".join(random_words(random.Random(5), 200))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Adults pay 10 and children pay 20.", "Adults pay 20 and children pay 10."),
        ("Dogs are not allowed and cats are allowed.", "Dogs are allowed and cats are not allowed."),
        ("It must stay above 5 degrees.", "It must stay above -5 degrees."),
        ("Call the pilot at a depth < 5 m.", "Call the pilot at a depth > 5 m."),
        ("The share is 5 %.", "The share is 5 ‰."),
        ("The fee is 1.5 pounds.", "The fee is 15 pounds."),
        ("Pay $50 at once.", "Pay €50 at once."),
    ],
    ids=["swapped", "moved", "sign", "relation", "share", "point", "currency"],
)
def test_what_a_number_or_a_negation_belongs_to_counts(one, other):
    """Two rules that agree in all their words, and say something else with them, are both listed."""
    assert not alike(f"{LONG} {one} {LONG}", f"{LONG} {other} {LONG}")


def test_near_copies_meet_and_strangers_do_not():
    """Of 300 pairs at a similarity of .9 or a little more at least 97 % have a band in common, of 300 others 2 %."""
    chance = random.Random(7)
    met = strangers = 0
    for _ in range(300):
        text, copy = near_copy(chance, random_words(chance, chance.randint(80, 150)), 0.9)
        assert 0.9 <= similarity(text, copy) < 0.97
        assert alike(text, copy)
        met += bool(set(bands_of(text)) & set(bands_of(copy)))
        other = " ".join(random_words(chance, chance.randint(80, 150)))
        strangers += bool(set(bands_of(text)) & set(bands_of(other)))
    assert met >= 0.97 * 300
    assert strangers <= 0.02 * 300


def test_the_decision_is_that_of_the_plain_twin():
    chance = random.Random(11)
    for _ in range(100):
        text, copy = near_copy(chance, random_words(chance, 60), chance.uniform(0.6, 0.95))
        assert alike(text, copy) == (similarity(text, copy) >= SIMILARITY)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_has_its_bands(text):
    """Also an empty one; each is a number that every database can keep."""
    numbers = bands_of(text)
    assert len(numbers) == BANDS
    assert all(-(2**63) <= number < 2**63 for number in numbers)
    assert alike(text, text)


@pytest.fixture
def catalog(catalog_url):
    opened = Catalog(catalog_url)
    yield opened
    opened.close()


def marks(catalog: Catalog, collection: str) -> dict[str, int]:
    """The `like_id` of every text in the collection, by the text's first word."""
    seqs = [row.seq for row in catalog.text_rows(collection, 0, 10**6)]
    passages = catalog.passages(collection, seqs).values()
    return {passage.text.split()[0]: int(passage.like_id or 0) for passage in passages}


def test_marks_point_to_the_first_text(catalog):
    """A copy of a copy, and one that comes when the first is gone, has the mark of the first."""
    collection = catalog.create_collection("c").id
    chance = random.Random(3)
    words = random_words(chance, 120)

    def text(name: str, *changed: int) -> str:
        return " ".join([name, *(f"new{'x' * n}" if n in changed else word for n, word in enumerate(words))])

    first = put(catalog, collection, "1", [text("a")])
    put(catalog, collection, "2", [text("b", 10), " ".join(["z", *random_words(chance, 100)])])
    put(catalog, collection, "3", [text("c", 10, 20)])
    put(catalog, collection, "4", [text("n", 10) + " 17"])
    found = marks(catalog, collection)
    assert found["a"] == found["b"] == found["c"]
    assert len({found["a"], found["z"], found["n"]}) == 3
    catalog.delete_document(first)
    catalog.purge(collection)
    put(catalog, collection, "5", [text("d", 20)])
    after = marks(catalog, collection)
    assert after["d"] == after["b"] == after["c"] == found["a"]


def test_copies_in_another_collection_do_not_count(catalog):
    one, other = catalog.create_collection("c").id, catalog.create_collection("d").id
    put(catalog, one, "1", ["tide and storm at the buoy"])
    put(catalog, other, "1", ["Tide and storm at the buoy!", "tide and storm at the buoy"])
    assert not set(marks(catalog, one).values()) & set(marks(catalog, other).values())
    assert len(set(marks(catalog, other).values())) == 1
