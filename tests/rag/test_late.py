"""Late interaction: codes and MaxSim against plain loops, weights by hand, and a search that is decided by it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.assembly import open_citewell
from rag.interaction import Interaction
from rag.late import SAMPLE, codes_of, max_sim, shares, weighted, word_groups
from rag.protocols import TokenVectors
from rag.records import Block, Chunk, Kind, ParsedDocument
from rag.testing import WordEmbedder

EMBEDDER = WordEmbedder()
SHAPES = st.tuples(st.integers(1, 5), st.lists(st.integers(0, 7), max_size=5), st.integers(0, 2**32 - 1))


def random_rows(rng: np.random.Generator, rows: int, dimension: int = 16) -> np.ndarray:
    return rng.standard_normal((rows, dimension)).astype(np.float32)


def exact(question: np.ndarray, codes: np.ndarray) -> list[float]:
    """The best product of each question token with the signs of the codes, one by one; -1 without codes."""
    signs = [[1 if byte >> (7 - bit) & 1 else -1 for byte in code for bit in range(8)] for code in codes.tolist()]
    root = len(question[0]) ** 0.5
    return [
        max((sum(x * s for x, s in zip(token, sign, strict=True)) / root for sign in signs), default=-1.0)
        for token in question.tolist()
    ]


@given(SHAPES)
def test_the_fast_products_are_those_of_plain_loops(shape):
    asked, sizes, seed = shape
    rng = np.random.default_rng(seed)
    question, mean = random_rows(rng, asked), random_rows(rng, 1)[0] / 4
    passages = [np.packbits(random_rows(rng, size) > mean, axis=1) for size in sizes]
    found = max_sim(question, passages)
    assert found.shape == (len(sizes), asked)
    for row, codes in zip(found, passages, strict=True):
        np.testing.assert_allclose(row, exact(question, codes), atol=1e-4)


WRITTEN = st.lists(st.sampled_from(["tide", "the", "of", "storm-surge", "Größe", "潮の高さ", "?", "x_1"]), max_size=8)


@given(WRITTEN, st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_a_code_is_the_signs_of_the_mean_of_the_tokens_of_a_word(written, size, seed):
    """Tokens of up to three characters; words by hand: runs of letters and digits, or one kanji or kana.

    A word that comes again adds to its code, a single character has a code at each place.
    """
    text = " ".join(written)
    places = [(i, min(i + size, len(text))) for i in range(0, len(text), size) if text[i] != " "]
    spans = np.array(places, dtype=np.int32).reshape(-1, 2)
    vectors, mean = random_rows(np.random.default_rng(seed), len(spans)), random_rows(np.random.default_rng(1), 1)[0]
    tokens = TokenVectors(vectors, spans, np.zeros(len(spans), dtype=np.int32))
    codes = codes_of(text, tokens, mean)
    members: dict[object, list[np.ndarray]] = {}
    for (start, _), vector in zip(places, vectors, strict=True):
        if (place := word_at(text, start)) and (word := text[place[0] : place[1]].lower()) not in {"the", "of"}:
            members.setdefault(word if len(word) > 1 else place, []).append(vector)
    groups = list(members.values()) or [[vector] for vector in vectors]
    assert len(codes) == len(groups)
    for code, group in zip(codes, groups, strict=True):
        average = [sum(column) / len(group) for column in zip(*group, strict=True)]
        assert np.unpackbits(code).tolist() == [int(a > m) for a, m in zip(average, mean, strict=True)]
    parts = shares([word_groups(text, spans)], len(spans))[0]
    np.testing.assert_allclose(parts[: len(groups)].sum(axis=1), 1.0, rtol=1e-5)


def word_at(text: str, place: int) -> tuple[int, int] | None:
    """The run of letters and digits around a place, or the one character of a script without spaces."""
    if not text[place].isalnum():
        return None
    if ord(text[place]) > 0x3000:
        return place, place + 1
    start = end = place
    while start and text[start - 1].isalnum():
        start -= 1
    while end < len(text) and text[end].isalnum():
        end += 1
    return start, end


def test_weights_decide_which_token_counts():
    matches = np.array([[1.0, 0.0], [0.2, 0.9]], dtype=np.float32)
    np.testing.assert_allclose(weighted(matches, np.array([1, 0], dtype=np.float32)), [1.0, 0.2])
    np.testing.assert_allclose(weighted(matches, np.array([1, 3], dtype=np.float32)), [0.25, 0.725])
    np.testing.assert_allclose(weighted(matches, np.zeros(2, dtype=np.float32)), [0.5, 0.55])


def test_the_codes_of_the_fast_backend_are_those_of_the_plain_model(embedder):
    """OpenVINO makes them inside its graph, in bfloat16: at least 98 of 100 bits are those of the twin."""
    found = embedder.encode(SAMPLE, tokens=True, codes=True)
    mean = np.concatenate([tokens.vectors for tokens in found.tokens]).mean(axis=0)
    for text, codes, tokens in zip(SAMPLE, found.codes, found.tokens, strict=True):
        twin = codes_of(text, tokens, mean)
        assert codes.shape == twin.shape
        assert (np.unpackbits(codes) == np.unpackbits(twin)).mean() >= 0.98
    assert [len(code) for code in embedder.encode(["", "word " * 400, "7 " * 400], codes=True).codes] == [0, 1, 254]


@pytest.fixture
def words(settings):
    with open_citewell(settings, embedder=EMBEDDER) as opened:
        catalog = opened.store.catalog
        collection = catalog.ensure_collection("tides")
        texts = [
            "the tide is high the tide is low the tide is high", "spring tide of the year", "storm and rain",
            "a quiet harbour", "neap tide and harbour wall", "the harbour master sleeps",
        ]  # fmt: skip
        version, _ = catalog.accept(collection.id, "a.txt", "0" * 64, 1)
        catalog.claim("t", 60)
        parsed = ParsedDocument.from_blocks([Block(Kind.TEXT, text, 1) for text in texts], "text/plain")
        chunks = [Chunk(e.text, "", e.start, e.end, e.kind, e.page, e.section, 1) for e in parsed.elements]
        made = EMBEDDER.encode(texts, codes=True)
        catalog.commit(version.id, "t", parsed, chunks, made.vectors, EMBEDDER.fingerprint, codes=made.codes)
        yield opened


def test_what_is_kept_comes_back(words):
    """Codes by row, and none for a row that is not there."""
    catalog, collection = words.store.catalog, words.store.catalog.collection("tides")
    found = catalog.codes(collection.id, EMBEDDER.fingerprint, EMBEDDER.dimension, [2, 3, 99])
    expected = EMBEDDER.encode(["spring tide of the year", "storm and rain"], codes=True).codes
    assert sorted(found) == [2, 3]
    np.testing.assert_array_equal(found[2], expected[0])
    np.testing.assert_array_equal(found[3], expected[1])
    assert catalog.codes(collection.id, "another", EMBEDDER.dimension, [2]) == {}


def test_rare_words_weigh_more_and_stop_words_nothing(words):
    """Of six rows, three hold "tide" (idf ln 2 = 0.693) and one "spring" (idf ln(1 + 5.5 / 1.5) = 1.540)."""
    collection = words.store.catalog.collection("tides")
    interaction = Interaction(words.store.catalog, EMBEDDER.fingerprint, EMBEDDER.dimension)
    question = "the spring tide?"
    tokens = EMBEDDER.encode([question], tokens=True).tokens[0]
    weights = interaction.weights(question, tokens.spans, [words.indexes_of(collection).lexical])
    np.testing.assert_allclose(weights, [0.0, 1.540, 0.693], atol=1e-3)
    np.testing.assert_allclose(
        words.indexes_of(collection).lexical.rarity(["spring", "tide", "nowhere"]), [1.540, 0.693, 2.639], atol=1e-3
    )


def test_a_search_shows_what_late_interaction_said(words):
    """It is a stage of its own with scores of its own, and can be switched off."""
    ranking = words.search(words.plan("spring tide", ["tides"]), trace=True)
    assert ranking.passages[0].text == "spring tide of the year"
    assert {"dense", "late"} <= ranking.passages[0].scores.keys()
    assert ranking.stages["late"][0] == ranking.passages[0].chunk_id
    without = words.search(words.plan("spring tide", ["tides"], parts={"late": False}), trace=True)
    assert "late" not in without.stages
    assert "late" not in without.passages[0].scores


def test_a_part_number_is_found_by_itself_among_its_like(settings, embedder):
    """Of two hundred passages that differ in the number alone, the right one comes first; so does that of a code."""
    texts = [f"The reference mark of this file is kestrel{n:07d}." for n in range(100)]
    texts += [f"Error E{n:02d} stops the pump until it is acknowledged." for n in range(100)]
    with open_citewell(settings, embedder=embedder) as citewell:
        catalog = citewell.store.catalog
        collection = catalog.ensure_collection("parts")
        version, _ = catalog.accept(collection.id, "a.txt", "0" * 64, 1)
        catalog.claim("t", 60)
        parsed = ParsedDocument.from_blocks([Block(Kind.TEXT, text, 1) for text in texts], "text/plain")
        chunks = [Chunk(e.text, "", e.start, e.end, e.kind, e.page, e.section, 1) for e in parsed.elements]
        made = embedder.encode(texts, codes=True)
        catalog.commit(version.id, "t", parsed, chunks, made.vectors, embedder.fingerprint, codes=made.codes)
        for number in range(0, 100, 9):
            for question, text in (
                (f"kestrel{number:07d}", texts[number]), (f"what does error E{number:02d} do", texts[100 + number]),
            ):  # fmt: skip
                assert citewell.search(citewell.plan(question, ["parts"])).passages[0].text == text
