"""Late interaction: every word of a question looks for its best match among the words of a passage.

The score of a passage is MaxSim of Khattab and Zaharia, "ColBERT" (SIGIR 2020), each term of it weighted:

    s(q, p) = sum over tokens i of q of  w(i) * max over codes c of p of  <q(i), c>   /   sum of w

The token vectors of a passage come out of the very forward pass that makes its passage vector. They are kept small: the
tokens of a word are averaged, over all places where it stands; stop words and signs are left out, the mean token of the
embedder is taken away, and of each dimension the sign is kept, one bit: 48 bytes a word for 384 dimensions. The
question stays in float, so that a search needs no model but for embedding it. What the mean does to the products is the
same for all passages, and so left out.

Knows no catalog and no model: codes are arrays here, weights are numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rag.protocols import Codes, TokenVectors, Vectors
from rag.words import STOP_WORDS, UNIT

#: What an embedder reads to learn its mean token. Never change it: codes made with another mean do not compare.
SAMPLE = (
    "The harbour master opened the lock at six in the morning, an hour before the tide turned.",
    "Which form do I need to apply for parental leave, and who signs it?",
    "Net revenue rose by 4.2 % to $318.5 million in the third quarter of 2019, mostly in Asia.",
    "To reset the device, hold the power button for ten seconds until the green light blinks twice.",
    "She was born in Lisbon in 1931 and studied chemistry before she turned to painting.",
    "def mean(values): return sum(values) / len(values) if values else 0.0",
    "Patients with high blood pressure should not take more than two tablets a day.",
    "Section 12 (b): the tenant shall give notice in writing three months before the end of the term.",
    "Table 3 | Year | Tonnes | Share ; 2020 | 1,204 | 31 % ; 2021 | 1,377 | 34 %",
    "The second album was recorded in Berlin with a new drummer and sold two million copies.",
    "In a right triangle the square of the longest side equals the sum of the squares of the others.",
    "Error E07: water in the housing. Send the buoy back to the supplier, reference 55-1038/A.",
    "Das Parlament beschloss das Gesetz im Jahr 1998 mit knapper Mehrheit.",
    "La cellule transforme le sucre en énergie dans ses mitochondries.",
    "How far is the moon from the earth on average, in kilometres?",
    "Please find attached the minutes of Monday's meeting; comments are welcome until Friday noon.",
)


def word_groups(text: str, spans: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Return for each token of ``text`` by its place in ``spans`` (n, 2) the number of its word, -1 if it has no code.

    A word has one number wherever it stands, but a single character has one at each place: alone it says too little.
    Words are counted from 0, those without a token and stop words not; in a text of stop words alone each token counts.
    """
    word_at = np.full(len(text) + 1, -1, dtype=np.int64)
    numbers: dict[str | int, int] = {}
    for match in UNIT.finditer(text):
        if (word := match.group().lower()) not in STOP_WORDS:
            named = word if len(word) > 1 else match.start()
            word_at[match.start() : match.end()] = numbers.setdefault(named, len(numbers))
    words = word_at[spans[:, 0]]
    kept = words >= 0
    if not kept.any():
        return np.arange(len(spans))
    words[kept] = np.unique(words[kept], return_inverse=True)[1]
    return words


def shares(groups: Sequence[npt.NDArray[np.int64]], width: int) -> Vectors:
    """Return (texts, codes, width): the share of each token in each code of its text, to be multiplied with its states.

    ``groups`` are those of `word_groups`, one for each token of a text, with -1 for whatever is no token of its own.
    """
    counts = [int(numbers.max(initial=-1)) + 1 for numbers in groups]
    found = np.zeros((len(groups), max([1, *counts]), width), dtype=np.float32)
    for row, numbers in enumerate(groups):
        places = np.flatnonzero(numbers >= 0)
        sizes = np.bincount(numbers[places], minlength=1)
        found[row, numbers[places], places] = 1 / sizes[numbers[places]]
    return found


def codes_of(text: str, tokens: TokenVectors, mean: Vectors) -> Codes:
    """Return the codes (words, ceil(d / 8)) of a text by its token vectors (n, d): the plain twin of all others.

    ``mean`` (d,) is the mean token of the embedder. The highest bit of the first byte is the first dimension.
    """
    groups = word_groups(text, tokens.spans)
    rows = [tokens.vectors[groups == number].mean(axis=0) for number in range(int(groups.max(initial=-1)) + 1)]
    return np.packbits(np.array(rows, dtype=np.float32).reshape(-1, len(mean)) > mean, axis=1)


def max_sim(question: Vectors, passages: Sequence[Codes]) -> npt.NDArray[np.float32]:
    """Return (passages, q): how well each token of ``question`` (q, d) is matched by the best code of each passage.

    The products are divided by the root of d, the length of a code, so that they lie in [-1, 1]. A passage without
    codes gets -1.
    """
    found = np.full((len(passages), len(question)), -1.0, dtype=np.float32)
    there = [row for row, codes in enumerate(passages) if len(codes)]
    if not there or not len(question):
        return found
    dimension = question.shape[1]
    bits = np.unpackbits(np.concatenate([passages[row] for row in there]), axis=1, count=dimension)
    # A bit is 0 or 1 where the code says -1 or 1: the product with the code is twice that with the bit, less the sum.
    products = bits.astype(np.float32) @ question.T
    sizes = np.array([len(passages[row]) for row in there])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    best = np.maximum.reduceat(products, starts, axis=0)
    found[there] = (2 * best - question.sum(axis=1)) / np.float32(np.sqrt(dimension))
    return found


def weighted(matches: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the scores (n,) of passages by the ``matches`` (n, q) of the question's tokens and their ``weights``.

    Without BLAS, whose product of a small matrix and a vector may raise the flag of invalid numbers for what it reads
    beside them and does not use: seen once, under load, of numbers that were all finite.
    """
    total = float(weights.sum())
    if total <= 0:
        weights, total = np.ones_like(weights), float(len(weights))
    scores: npt.NDArray[np.float32] = np.einsum("nq,q->n", matches, weights) / np.float32(max(total, 1e-9))
    return scores
