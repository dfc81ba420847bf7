"""Token counters: by words where that is exact, whole texts elsewhere, the same in every process and thread."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from rag.encoders import built_in_model
from rag.errors import Misconfigured
from rag.tokens import MOST_WORDS, WORDS, counter_of, open_counter

BUILT_IN = built_in_model() / "tokenizer.json"
#: Any text, and texts that are dense in what a tokenizer could stumble over.
PIECES = [*"abzÄß.,-'[]#9 \n\t\r\x0b\x0c\x1c\x1f\x85\xa0\u2003\u2028\u200b\u0301\ufeff潮の🙂\ufffd", "[SEP]", "[MASK]"]
TRICKY = st.lists(st.sampled_from(PIECES)).map("".join)
TEXTS = st.lists(st.one_of(st.text(st.characters(exclude_categories=["Cs"])), TRICKY), max_size=5)


@pytest.fixture(scope="module")
def plain() -> Tokenizer:
    """The tokenizer of the built-in model, which reads whole texts."""
    tokenizer = Tokenizer.from_file(str(BUILT_IN))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@settings(max_examples=500, deadline=None)
@given(TEXTS)
@example(["a\x0bb", "un\x85affable", "x" * 300 + " y", "a [MASK] b", "\xa0a\u2028b\u3000c", ""])
def test_words_added_up_are_the_tokens_of_the_whole(plain, texts):
    """For the built-in tokenizer, on any text: white space of every kind, marks, special tokens, endless words."""
    assert open_counter(counter_of(BUILT_IN))(texts) == [len(plain.encode(text).ids) for text in texts]


def test_more_words_than_are_remembered_are_counted_all_the_same(plain):
    """The table of words is begun anew, and what was counted before is counted again alike."""
    count = open_counter(counter_of(BUILT_IN))
    old = "An old text about 4711 moorings."
    before = count([old])
    many = " ".join(map(str, range(MOST_WORDS + 1000)))
    assert count([many, "short"]) == [len(plain.encode(text).ids) for text in (many, "short")]
    assert count([old]) == before == [len(plain.encode(old).ids)]


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    """A tokenizer whose tokens hold the space before them, so that words do not add up."""
    vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("Ġ", "t"), ("Ġt", "o")]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary | {"Ġt": 256, "Ġto": 257}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    file = tmp_path_factory.mktemp("model") / "tokenizer.json"
    tokenizer.save(str(file))
    return file


@settings(deadline=None)
@given(texts=TEXTS)
@example(texts=["to to to", "to", " to"])
def test_a_tokenizer_of_another_family_reads_whole_texts(byte_level, texts):
    tokenizer = Tokenizer.from_file(str(byte_level))
    assert open_counter(counter_of(byte_level))(texts) == [len(tokenizer.encode(text).ids) for text in texts]


def test_the_double_counts_words():
    assert open_counter(WORDS)(["", "Two words.", "Zwölf"]) == [2, 4, 3]


def test_another_process_counts_alike_without_the_model():
    """The name of the counter is all that it is given; neither torch nor transformers is loaded for it."""
    code = (
        "import sys; from rag.tokens import open_counter\n"
        "print(open_counter(sys.argv[1])(['How long is parental leave?', '']), 'torch' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, counter_of(BUILT_IN)], capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout.split("\n")[0] == "[8, 2] False"


def test_threads_count_at_once(plain):
    """Eight threads bring new words to one counter; each gets its own sums."""
    count = open_counter(counter_of(BUILT_IN))
    texts = [[f"thread{n} says{m} und{n * m} {'many ' * m}" for m in range(50)] for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        counted = list(pool.map(count, texts))
    assert counted == [[len(plain.encode(text).ids) for text in row] for row in texts]


@pytest.mark.parametrize("spec", ["", "letters", "tokenizer:/no/such/tokenizer.json"])
def test_a_counter_that_is_not_there_is_refused(spec):
    with pytest.raises(Misconfigured, match="token counter"):
        open_counter(spec)
