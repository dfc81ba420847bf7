"""As many passages as a benchmark of scale wants, made from the real ones that there are.

The passages of folders in BEIR layout, and windows of their sentences, are embedded by the product and kept in the
cache. Rows beyond those are mixed from two near ones with noise. Questions are real. Knows no catalog and no index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.folders import read_questions, read_rows
from rag.encoders import open_embedder
from rag.protocols import Codes, Rows, Vectors
from rag.sealed_vectors import nearest
from rag.sentences import sentence_spans
from rag.settings import Settings

#: Most questions.
QUESTIONS = 500
#: Characters of a window of sentences.
WINDOW = 400
#: How far a mixed vector is moved away from between its parents.
NOISE = 0.35
#: Texts of one file of the cache, and of one call of the embedder.
PART, BATCH = 1000, 64


@dataclass(frozen=True, slots=True)
class Step:
    """Some rows: their texts, vectors (n, dimension) and codes."""

    texts: Sequence[str]
    vectors: Vectors
    codes: Sequence[Codes]


@dataclass(frozen=True, slots=True)
class Material:
    """Real rows, which of them are near each (n, near), and real questions with their vectors ``asked``."""

    real: Step
    near: Rows
    questions: Sequence[str]
    asked: Vectors
    fingerprint: str

    @property
    def dimension(self) -> int:
        return int(self.asked.shape[1])

    def step(self, start: int, stop: int) -> Step:
        """Return the rows from ``start`` to ``stop``, from 0: real ones first, then mixed ones, always the same.

        A mixed row has the first half of one text and the second half of another that is near it, and of their codes.
        """
        real, count = self.real, len(self.real.texts)
        mixed = np.arange(max(start, count), stop)
        random = np.random.default_rng([7, start])
        first = random.integers(0, count, len(mixed))
        second = self.near[first, random.integers(0, self.near.shape[1], len(mixed))]
        share = random.uniform(0.3, 0.7, (len(mixed), 1)).astype(np.float32)
        noise = random.standard_normal((len(mixed), self.dimension)).astype(np.float32)
        noise *= NOISE / np.sqrt(self.dimension)
        vectors = share * real.vectors[first] + (1 - share) * real.vectors[second] + noise
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        texts, codes = list(real.texts[start:stop]), list(real.codes[start:stop])
        for a, b in zip(first, second, strict=True):
            texts.append(" ".join([*_first_half(real.texts[a].split()), *_second_half(real.texts[b].split())]))
            codes.append(np.concatenate([_first_half(real.codes[a]), _second_half(real.codes[b])]))
        return Step(texts, np.concatenate([real.vectors[start:stop], vectors]), codes)


def _first_half(whole: Any) -> Any:
    return whole[: len(whole) // 2]


def _second_half(whole: Any) -> Any:
    return whole[len(whole) // 2 :]


def gather(settings: Settings, folders: Sequence[Path], most: int, tell: Callable[[str], object]) -> Material:
    """Return real passages, with windows of their sentences up to ``most`` texts, and questions; embed what is new.

    ``tell`` gets a line after each part that was embedded.
    """
    passages = [str(row.get("text") or row.get("title")) for folder in folders for row in read_rows(folder, "corpus")]
    windows = (window for text in passages for window in windows_of(text))
    texts = list(dict.fromkeys([*passages, *windows]))[:most]
    every = [question.text for folder in folders for question in read_questions(folder)]
    questions = every[:: max(1, len(every) // QUESTIONS)][:QUESTIONS]
    embedder = open_embedder(settings.embedder, settings.cache)
    try:
        real = _embedded(texts, embedder, settings.cache, tell)
        asked = embedder.encode(questions, role="query").vectors
    finally:
        embedder.close()
    return Material(real, _near(real.vectors, settings.cache), questions, asked, embedder.fingerprint)


def windows_of(text: str) -> Iterator[str]:
    """Yield runs of whole sentences of about `WINDOW` characters, each beginning in the middle of the one before."""
    spans = sentence_spans(text)
    begin = 0
    for place, (_, end) in enumerate(spans):
        if end - spans[begin][0] >= WINDOW:
            if (begin, place) != (0, len(spans) - 1):
                yield text[spans[begin][0] : end]
            begin = max(begin + 1, (begin + place + 1) // 2)


def _embedded(texts: Sequence[str], embedder: Any, cache: Path, tell: Callable[[str], object]) -> Step:
    """Embed texts, and keep what comes out in files of the cache, so that an end half way loses little."""
    folder = cache / "scale"
    folder.mkdir(parents=True, exist_ok=True)
    vectors, codes = [], []
    for start in range(0, len(texts), PART):
        some = list(texts[start : start + PART])
        key = hashlib.sha256("\0".join([embedder.fingerprint, *some]).encode()).hexdigest()[:24]
        file = folder / f"{key}.npz"
        if not file.is_file():
            _keep(file, some, embedder)
            tell(f"embedded {start + len(some):,} of {len(texts):,}")
        with np.load(file) as kept:
            vectors.append(kept["vectors"].astype(np.float32))
            codes += np.split(kept["codes"], np.cumsum(kept["sizes"])[:-1])
    return Step(texts, np.concatenate(vectors), codes)


def _keep(file: Path, texts: Sequence[str], embedder: Any) -> None:
    """Write vectors in float16, the codes of all texts in one array, and how many codes each text has."""
    order = np.argsort([len(text) for text in texts])
    vectors = np.zeros((len(texts), embedder.dimension), dtype=np.float16)
    codes: dict[int, Codes] = {}
    for batch in np.array_split(order, max(1, len(order) // BATCH)):
        made = embedder.encode([texts[i] for i in batch], codes=True)
        vectors[batch] = made.vectors
        codes |= dict(zip(batch.tolist(), made.codes, strict=True))
    ordered = [codes[place] for place in range(len(texts))]
    np.savez(file, vectors=vectors, codes=np.concatenate(ordered), sizes=np.array([len(each) for each in ordered]))


def _near(vectors: Vectors, cache: Path) -> Rows:
    file = cache / "scale" / f"near-{hashlib.sha256(vectors.tobytes()).hexdigest()[:24]}.npy"
    if not file.is_file():
        halves = vectors.astype(np.float16)
        blocks = [nearest(halves, vectors[start : start + 2000])[:, 1:] for start in range(0, len(vectors), 2000)]
        np.save(file, np.concatenate(blocks))
    found: Rows = np.load(file)
    return found
