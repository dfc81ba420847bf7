"""The built-in judge: how far evidence supports a claim, by a small trained encoder that reads both together.

Long evidence is not cut: the sentences that share the rarest words with the claim are chosen from all of it and read
together, in their order. A claim of many words is judged part by part, and its log odds are the mean of theirs: people
call an answer faithful as a whole, so that the least of them agreed less with them. Beside the model stand two signs
found by rule: how many of the words are there at all, and whether a number, a name or a negation was swapped.
Knows its model as values of rows, and neither passages nor citations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag.grounding import LexicalJudge
from rag.near import Near
from rag.pair_model import TrainedPairs
from rag.sentences import Span, sentence_spans
from rag.swapped import Swaps

#: Evidence of more words is read by its nearest sentences: so many, and so many words of them.
WHOLE_WORDS, MOST_SENTENCES, MOST_WORDS = 170, 6, 200
#: A claim of more words is judged in parts of about so many.
PART_WORDS = 45


Signs = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How likely the evidence supports the claim, and the sentence [start, end) of it that decides; (0, 0) if none."""

    support: float
    start: int
    end: int


class TrainedJudge:
    """A `rag.protocols.Judge` over the model ``judge`` of the package. Thread-safe."""

    name = "built-in judge"
    threshold = 0.5

    def __init__(self, model: TrainedPairs) -> None:
        self._model = model
        self._words = LexicalJudge()
        self._swaps = Swaps()

    def support(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """See `rag.protocols.Judge`: probabilities, calibrated on training rows that were kept from training.

        A claim that is its evidence word for word is supported, and one without evidence is not; the model is not
        asked. Evidence that is too long to be read as a whole has weights of its own: there, what is not said anywhere
        counts for more.
        """
        found = [1.0 if _is_quoted(*pair) else 0.0 for pair in pairs]
        asked = [number for number, pair in enumerate(pairs) if not found[number] and _says(pair[1])]
        for number, signs in zip(asked, self.signs([pairs[number] for number in asked]), strict=True):
            fitted = self._model.facts["long" if is_long(pairs[number][1]) else "supported"]
            odds = (signs @ np.array(fitted["weights"]) + fitted["offset"]).mean() if len(signs) else -np.inf
            found[number] = float(1 / (1 + np.exp(-odds)))
        return found

    def decide(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Return for each (claim, evidence) how likely it is supported, and the sentence that speaks for it most."""
        found = []
        for (claim, evidence), support in zip(pairs, self.support(pairs), strict=True):
            spans = nearest_spans(claim, evidence, MOST_SENTENCES)
            values = self._values([(claim, evidence[start:end]) for start, end in spans])
            best = max(range(len(spans)), key=values.__getitem__, default=-1)
            found.append(Verdict(support, *(spans[best] if spans else (0, 0))))
        return found

    def signs(self, pairs: Sequence[tuple[str, str]]) -> list[Signs]:
        """Return for each (claim, evidence) an array (parts of the claim, 3): what its probability is made of.

        That is what the model says; the share of the part's words that stand anywhere in the evidence, for evidence
        that is too long to be read as a whole; and 1 if a number, a name or a negation is swapped (`rag.swapped`).
        """
        rows = [(number, part, evidence) for number, (claim, evidence) in enumerate(pairs) for part in parts(claim)]
        values = self._values([(part, chosen(part, evidence)) for _, part, evidence in rows])
        shares = self._words.support([(part, evidence) for _, part, evidence in rows])
        found: list[list[tuple[float, float, float]]] = [[] for _ in pairs]
        for (number, part, evidence), value, share in zip(rows, values, shares, strict=True):
            found[number].append((value, share, float(self._swaps.found(part, evidence))))
        return [np.array(signs, dtype=np.float64).reshape(-1, 3) for signs in found]

    def close(self) -> None:
        """Free the model."""
        self._model.close()

    def _values(self, rows: Sequence[tuple[str, str]]) -> list[float]:
        read = [self._model.tokenizer.windows(claim, [evidence])[0][0] for claim, evidence in rows]
        return [float(values.row[0]) for values in self._model.read(read)]


def _is_quoted(claim: str, evidence: str) -> bool:
    return claim.strip() == evidence.strip() and _says(claim)


def _says(text: str) -> bool:
    return any(c.isalnum() for c in text)


def parts(claim: str) -> list[str]:
    """Return a claim as it is, or a long one as runs of its sentences; nothing of one that says nothing."""
    if not _says(claim):
        return []
    if len(claim.split()) <= PART_WORDS:
        return [claim]
    found: list[str] = []
    for start, end in sentence_spans(claim):
        sentence = claim[start:end]
        if not _says(sentence):
            continue
        if found and len(found[-1].split()) + len(sentence.split()) <= PART_WORDS:
            found[-1] += f" {sentence}"
        else:
            found.append(sentence)
    return found


def is_long(evidence: str) -> bool:
    """Say whether evidence is too long to be read as a whole."""
    return len(evidence.split()) > WHOLE_WORDS


def chosen(claim: str, evidence: str) -> str:
    """Return what is read of the evidence: all of it, or the sentences nearest to the claim, in their order."""
    if not is_long(evidence):
        return evidence
    return "\n".join(evidence[start:end] for start, end in nearest_spans(claim, evidence, MOST_SENTENCES))


def nearest_spans(claim: str, evidence: str, most: int) -> list[Span]:
    """Return at most ``most`` sentences of the evidence that share words with the claim, in their order."""
    spans = sentence_spans(evidence)
    if len(spans) > most:
        near = Near([evidence[start:end] for start, end in spans]).nearest(claim, most)
        spans = [spans[number] for number in sorted(near)] or spans[:most]
    return spans
