"""Counting tokens without the model that reads them: owns the tokenizers library.

A counter is named by a short text that travels to any process, which then counts exactly as the embedder does:
``tokenizer:FILE`` for a model's ``tokenizer.json``, ``words`` for the double in `rag.testing`.

Tokenizers of the BERT family cut at white space before anything else, so that the tokens of a text are those of its
words added up. Words come again and again, and each is tokenized once and remembered: that is ten times faster than
tokenizing, and as exact. All other tokenizers read the whole text each time. Knows no model and no document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rag.errors import Misconfigured

CountTokens = Callable[[Sequence[str]], list[int]]
#: The counter of the double in `rag.testing`: its tokens are words.
WORDS = "words"
WORD = re.compile(r"\w+")
_TOKENIZER = "tokenizer:"
#: Most words that are remembered, and the longest.
MOST_WORDS = 100_000
LONGEST_WORD = 100
#: Python takes these for white space; BERT leaves them out and joins what stands around them.
_JOINING = re.compile(r"[\x0b\x0c\x1c-\x1f\x85]")


def counter_of(file: Path) -> str:
    """Return the name of the counter that reads ``file``, a ``tokenizer.json``."""
    return f"{_TOKENIZER}{file}"


@cache
def open_counter(spec: str) -> CountTokens:
    """Return what counts the tokens of texts, special tokens included and not cut at any window. Thread-safe.

    Raises `Misconfigured` if there is no such counter or its file is gone.
    """
    if spec == WORDS:
        return count_words
    file = Path(spec.removeprefix(_TOKENIZER))
    if not spec.startswith(_TOKENIZER) or not file.is_file():
        raise Misconfigured(f"There is no token counter {spec!r}; open the embedder again to have it written.")
    whole = open_tokenizer(file)
    return _WordCounter(whole) if _adds_up(whole) else _TextCounter(whole)


def open_text_counter(path: Path) -> Callable[[str], int]:
    """Return what counts the tokens of one text by the ``tokenizer.json`` at ``path`` or in that folder. Thread-safe.

    Raises `Misconfigured` if there is none that can be read.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise Misconfigured(f"generator.tokenizer names {path}, where no tokenizer.json is.")
    try:
        count = open_counter(counter_of(file))
    except Exception as error:  # the library raises nothing narrower
        raise Misconfigured(f"generator.tokenizer: {file} can not be read as a tokenizer ({error}).") from error
    return lambda text: count([text])[0]


def count_words(texts: Sequence[str]) -> list[int]:
    """Count words as tokens, and two special ones."""
    return [2 + len(WORD.findall(text)) for text in texts]


def open_tokenizer(file: Path, window: int | None = None) -> Any:
    """Return the tokenizer in ``file`` without padding, which cuts at ``window`` tokens or nowhere."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    if window is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(window)
    return tokenizer


class _TextCounter:
    """Reads each text as a whole."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(list(texts))]


class _WordCounter:
    """Adds up the words of each text, of which it remembers the sizes."""

    def __init__(self, tokenizer: Any) -> None:
        self._count = _TextCounter(tokenizer)
        self._special = self._count([""])[0]
        self._sizes: dict[str, int] = {}

    def __call__(self, texts: Sequence[str]) -> list[int]:
        try:
            return [self._sum(text, self._sizes) for text in texts]
        except KeyError:
            return self._learned(texts)

    def _sum(self, text: str, sizes: dict[str, int]) -> int:
        """Add up the words of ``text``; raises `KeyError` if one of them is not in ``sizes``."""
        if _JOINING.search(text):
            return self._count([text])[0]
        return self._special + sum(map(sizes.__getitem__, text.split()))

    def _learned(self, texts: Sequence[str]) -> list[int]:
        """Count ``texts`` after their new words, and remember these but for very long ones."""
        sizes, words = self._sizes, {word for text in texts for word in text.split()}
        new = [word for word in words if word not in sizes]
        if len(sizes) + len(new) > MOST_WORDS:
            sizes, new = {}, [*words]  # the old table is left whole: another thread may be reading it
        counts = [count - self._special for count in self._count(new)]
        sizes.update((word, count) for word, count in zip(new, counts, strict=True) if len(word) <= LONGEST_WORD)
        self._sizes = sizes
        long = {word: count for word, count in zip(new, counts, strict=True) if len(word) > LONGEST_WORD}
        return [self._sum(text, sizes | long if long else sizes) for text in texts]


def _adds_up(tokenizer: Any) -> bool:
    """Say whether the tokens of a text are those of its words: BERT's normalizer and pre-tokenizer see to that."""
    parts = json.loads(tokenizer.to_str())
    kinds = [(parts.get(name) or {}).get("type") for name in ("normalizer", "pre_tokenizer")]
    one_word = all(len(token["content"].split()) == 1 for token in parts["added_tokens"])
    return kinds == ["BertNormalizer", "BertPreTokenizer"] and one_word
