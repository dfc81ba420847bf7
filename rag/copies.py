"""Which texts say the same: near-copies. Owns datasketch.

Two texts are near-copies if they share most of their runs of three words (Jaccard similarity, Broder 1997) and agree in
every number and every negation, with the words beside them: a rule of this year that differs from that of last year in
one amount is no copy, nor is one in which two amounts have changed places.
`bands_of` gives each text a few numbers, so that near-copies are found by one equal number (MinHash with banding,
Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4); `alike` then decides. Knows no catalog.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import Counter
from functools import lru_cache
from typing import Any

import numpy as np

#: Least share of common runs of words.
SIMILARITY = 0.8
#: Texts at `SIMILARITY` meet with probability 1 - (1 - s^ROWS)^BANDS = .93, at .9 with .995, at .3 with .04.
BANDS, ROWS = 5, 4
RUN = 3

_POWERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)
# A letter of a script without spaces between words counts as a word, and so do the signs that say what a number means.
_WORD = re.compile(
    r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\u0e00-\u0eff]|[^\W_]+"
    r"|(?<![^\s(])[-\u2212+±](?=[.,]?\d)|[<>≤≥≠%‰$€£¥]"
)
_NUMBER = re.compile(r"\d")
_NEGATIONS = frozenset(
    "no not never none nor neither without nobody nothing nowhere cannot t nicht kein keine keiner keinen keinem nie "
    "ohne ne pas jamais sans aucun aucune non sin nunca ningún ninguna não sem geen niet zonder nooit mai senza 不 没 "
    "無 无 非 未".split()
)  # fmt: skip


def words_of(text: str) -> list[str]:
    """Return the words of ``text``, case-folded, in order."""
    return _WORD.findall(text.casefold())


def bands_of(text: str) -> list[int]:
    """Return `BANDS` numbers in [-2^63, 2^63); near-copies are likely to have one of them in common."""
    sketch = _empty_sketch().copy()
    sketch.update_batch(_hashes(words_of(text)))
    signature = np.asarray(sketch.hashvalues, dtype="<u8").reshape(BANDS, ROWS)
    return [
        int.from_bytes(hashlib.blake2b(part.tobytes(), digest_size=8, person=b"%d" % band).digest(), "big", signed=True)
        for band, part in enumerate(signature)
    ]


def alike(a: str, b: str) -> bool:
    """Say whether two texts are near-copies."""
    left, right = words_of(a), words_of(b)
    if left == right:
        return True
    if _weighty(left) != _weighty(right):
        return False
    one, other = set(_runs(left)), set(_runs(right))
    return len(one & other) >= SIMILARITY * len(one | other)


def _runs(words: list[str]) -> list[str]:
    """Return all runs of `RUN` words; a shorter text is one run."""
    return [" ".join(words[i : i + RUN]) for i in range(max(1, len(words) - RUN + 1))]


def negates(word: str) -> bool:
    """Say whether a word in small letters negates, such as "not", "kein" or "doesn't"."""
    return word in _NEGATIONS or word.endswith(("n't", "n’t"))


def _weighty(words: list[str]) -> Counter[str]:
    """Return the runs in which a number or a negation stands."""
    return Counter(
        run for run in _runs(words) if any(word in _NEGATIONS or _NUMBER.search(word) for word in run.split(" "))
    )


def _hashes(words: list[str]) -> list[int]:
    """Return a number of 32 bits for each different run of words: a polynomial in those of its words."""
    found = [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words] or [0]
    numbers = np.array(found + [0] * (RUN - len(found)), dtype=np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(numbers, RUN)
    return [int(n) for n in np.unique((windows @ _POWERS) >> np.uint64(32))]


@lru_cache(maxsize=1)
def _empty_sketch() -> Any:
    """Return the sketch of no text, whose permutations all sketches share: making them takes longer than using."""
    from datasketch import MinHash

    return MinHash(num_perm=BANDS * ROWS, seed=1, scheme="affine32", hashfunc=int)
