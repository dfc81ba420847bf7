"""Texts that callers bring: each gets what the model gives for theirs, in few calls, cut or refused as they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.encodings import Embedded, Encodings, Ranked, Truncate, end_of, require_window
from rag.errors import BadInput, Busy, Unavailable
from rag.protocols import Encoding, Role
from rag.settings import ServerSettings
from rag.testing import WordEmbedder
from rag.tokens import count_words
from tests.gate import PATIENCE, Gate

PLAIN = WordEmbedder()
FIRST = "wait"


@dataclass
class Recording(Gate):
    """A gate that records the role of each call, and can not read one word."""

    roles: list[Role] = field(default_factory=list)
    unreadable: str = "unreadable"
    batch = 8

    def encode(
        self, texts: Sequence[str], *, role: Role = "passage", tokens: bool = False, codes: bool = False
    ) -> Encoding:
        self.roles.append(role)
        if any(self.unreadable in text for text in texts):
            raise ValueError(self.unreadable)
        return super().encode(texts, role=role, tokens=tokens, codes=codes)


@pytest.fixture
def gate() -> Recording:
    return Recording()


@pytest.fixture
def encodings(gate: Recording) -> Iterator[Encodings]:
    with closing(Encodings(gate, None, ServerSettings(max_searches=12, search_batch=16))) as opened:
        try:
            yield opened
        finally:
            gate.open.set()


def embed(encodings: Encodings, *texts: str, role: Role = "query", truncate: Truncate = Truncate.NONE):
    return encodings.embed(texts, role, truncate, lambda embedded: embedded)


def test_vectors_and_tokens_are_those_of_the_embedder(encodings, gate):
    """In the order of the texts, under the role that was named."""
    gate.open.set()
    for role in ("query", "passage"):
        found: Embedded = embed(encodings, "the tide", "harbour", role=role).result(PATIENCE)
        np.testing.assert_array_equal(found.vectors, PLAIN.encode(["the tide", "harbour"]).vectors)
        assert found.tokens == 4 + 3
    assert gate.roles == ["query", "passage"]
    assert embed(encodings).result(PATIENCE).vectors.shape == (0, 64)


def test_callers_that_gather_are_embedded_together(encodings, gate):
    """Ten callers of two texts behind one that is held up: eight texts a call, and each gets its own."""
    first = embed(encodings, FIRST)
    assert gate.entered.wait(PATIENCE)
    waiting = [embed(encodings, f"animal{number}", f"house{number}") for number in range(10)]
    gate.open.set()
    assert first.result(PATIENCE).tokens == 3
    for number, future in enumerate(waiting):
        expected = PLAIN.encode([f"animal{number}", f"house{number}"]).vectors
        np.testing.assert_array_equal(future.result(PATIENCE).vectors, expected)
    assert [len(call) for call in gate.calls] == [1, 8, 8, 4]


def test_one_caller_with_many_texts_is_embedded_in_several_calls(encodings, gate):
    """As many texts a call as the embedder wants."""
    gate.open.set()
    texts = [f"animal{number}" for number in range(20)]
    np.testing.assert_array_equal(embed(encodings, *texts).result(PATIENCE).vectors, PLAIN.encode(texts).vectors)
    assert [len(call) for call in gate.calls] == [8, 8, 4]


def test_who_leaves_is_not_embedded_for(encodings, gate):
    """A future that was cancelled before its turn costs no call."""
    first = embed(encodings, FIRST)
    assert gate.entered.wait(PATIENCE)
    left, stays = embed(encodings, "animal1"), embed(encodings, "animal2")
    assert left.cancel()
    gate.open.set()
    assert stays.result(PATIENCE).tokens == 3
    assert first.result(PATIENCE)
    assert gate.calls == [[FIRST], ["animal2"]]
    with pytest.raises(CancelledError):
        left.result(PATIENCE)


def test_a_text_that_can_not_be_embedded_fails_its_own_caller_alone(encodings, gate):
    """The call that fails is made again for each caller."""
    first = embed(encodings, FIRST)
    assert gate.entered.wait(PATIENCE)
    bad, good = embed(encodings, "unreadable"), embed(encodings, "harbour")
    gate.open.set()
    assert first.result(PATIENCE)
    with pytest.raises(ValueError, match="unreadable"):
        bad.result(PATIENCE)
    np.testing.assert_array_equal(good.result(PATIENCE).vectors, PLAIN.encode(["harbour"]).vectors)


def test_too_many_callers_are_refused_at_once(encodings, gate):
    """`Busy` while all places are taken, and `Unavailable` after the end."""
    first = embed(encodings, FIRST)
    assert gate.entered.wait(PATIENCE)
    others = [embed(encodings, "x") for _ in range(11)]
    with pytest.raises(Busy):
        embed(encodings, "one too many")
    gate.open.set()
    assert all(future.result(PATIENCE) for future in [first, *others])
    encodings.close()
    with pytest.raises(Unavailable):
        embed(encodings, "late")


def test_a_text_beyond_the_window_is_refused_or_cut(encodings, gate):
    """The sentence names the text and both numbers; START keeps the end, END the beginning."""
    gate.open.set()
    words = [f"word{number}" for number in range(40)]
    text = " ".join(words)
    with pytest.raises(BadInput, match=r"input\[1\] has 42 tokens, and the model reads 32;") as refused:
        embed(encodings, "short", text).result(PATIENCE)
    assert refused.value.facts == {"param": "input", "tokens": 42, "window": 32}
    for truncate, kept in ((Truncate.END, words[:30]), (Truncate.START, words[-30:])):
        found = embed(encodings, "short", text, truncate=truncate).result(PATIENCE)
        np.testing.assert_array_equal(found.vectors, PLAIN.encode(["short", " ".join(kept)]).vectors)
        assert found.tokens == 3 + 32


@given(st.lists(st.sampled_from(["tide", "the", "a-b-c-d-e-f", "x.y"]), max_size=12), st.integers(3, 12))
def test_the_end_of_a_text_is_as_many_whole_words_as_fit(words, window):
    """It is an end of the text that fits, and one more word would not."""

    def count(text: str) -> int:
        return count_words([text])[0]

    text = "  ".join(words)
    kept = end_of(text, window, count)
    assert text.endswith(kept)
    assert count(kept) <= window
    if count(text) <= window:
        assert kept == text
    elif words and count(words[-1]) <= window:
        left = text[: len(text) - len(kept)].split()
        assert count(f"{left[-1]} {kept}") > window
        assert kept.split() == words[len(left) :]
    else:
        assert kept


def test_a_word_beyond_the_window_keeps_its_end(embedder):
    """As it may happen to a link or to text without spaces: characters of its end that fit."""
    text = "see " + "".join(f"x{number}-" for number in range(400))
    kept = end_of(text, 50, lambda part: embedder.count_tokens([part])[0])
    assert text.endswith(kept)
    assert 40 <= embedder.count_tokens([kept])[0] <= 50


class Lengths:
    """A reranker whose scores are the lengths of passages, with a window of its own."""

    name, window = "lengths", 20

    def lengths(self, question: str, passages: Sequence[str]) -> list[int]:
        return [len(question) + len(passage) for passage in passages]

    def score(self, _: str, passages: Sequence[str]) -> list[float]:
        return [float(len(passage)) for passage in passages]


def test_passages_are_ranked_by_the_reranker_that_is_there(gate):
    """The one that was given, or late interaction; scores in the order of the passages."""
    gate.open.set()
    with closing(Encodings(gate, Lengths(), ServerSettings())) as encodings:
        passages = ["the tide", "noon", "a harbour"]
        found: Ranked = encodings.rank(
            "tide", passages, Truncate.NONE, encodings.reranker, lambda ranked: ranked
        ).result(PATIENCE)
        assert found == Ranked([8.0, 4.0, 9.0], 12 + 8 + 13)
        late = encodings.rank("tide", passages, Truncate.NONE, encodings.late, lambda ranked: ranked).result(PATIENCE)
        assert late.scores == encodings.late.score("tide", passages)
        assert late.scores[0] == max(late.scores)


def test_long_passages_are_refused_or_cut_off(gate):
    """By the window and the count of the reranker itself."""
    gate.open.set()
    with closing(Encodings(gate, Lengths(), ServerSettings())) as encodings:

        def rank(question: str, passage: str, truncate: Truncate) -> Ranked:
            return encodings.rank(question, ["short", passage], truncate, encodings.reranker, lambda r: r).result(
                PATIENCE
            )

        with pytest.raises(BadInput, match=r"passages\[1\] has 34 tokens, and the model reads 20;"):
            rank("tide", "x" * 30, Truncate.NONE)
        with pytest.raises(BadInput, match=r"query has 30 tokens, and the model reads 20;"):
            rank("x" * 30, "y", Truncate.NONE)
        assert rank("tide", "x" * 30, Truncate.END) == Ranked([5.0, 30.0], 9 + 20)


def test_the_first_text_that_is_too_long_is_named():
    """Alone, it needs no number."""
    require_window([1, 2, 3], 3, "input")
    with pytest.raises(BadInput, match=r"^input has 1,004 tokens, and the model reads 256;"):
        require_window([1004], 256, "input")
    with pytest.raises(BadInput, match=r"^input\[1\] has 4 tokens"):
        require_window([3, 4, 5], 3, "input")
