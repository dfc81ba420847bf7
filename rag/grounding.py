"""How far evidence supports a claim, judged by its words; and when nothing that was found can answer.

`LexicalJudge` is the first, plain judge: it compares words, so that it knows an invented number or name from a quoted
one, but neither negation nor paraphrase. A trained judge takes its place behind the same protocol.
"""

from __future__ import annotations

from collections.abc import Sequence

from rag.records import Passage
from rag.settings import GroundingSettings
from rag.words import Analyser

#: An embedder by the beginning of its fingerprint, and the cosine below which nothing it finds answers: of 1,549
#: questions that a collection answers (training questions, and dev ones without such) none is below .24, of those from
#: another field up to 10 % are below .2.
CALIBRATED = ("all-MiniLM-L6-v2-", 0.2)


class LexicalJudge:
    """Support is the share of the claim's content words that stand in the evidence.

    Words with a digit count three times, since a wrong figure is a wrong claim. A claim without content words
    gets 0. The same text as claim and evidence gets 1.
    """

    name = "lexical overlap"
    #: Where it agrees best with people on the training rows of FEVER and BEGIN (balanced accuracy .64 and .87); what
    #: is above is supported in .67 and .79 of cases.
    threshold = 0.7

    def __init__(self) -> None:
        self._analyser = Analyser()

    def support(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """See `rag.protocols.Judge`."""
        return [self._share(claim, evidence) for claim, evidence in pairs]

    def _share(self, claim: str, evidence: str) -> float:
        if claim.strip() and claim.strip() == evidence.strip():
            return 1.0
        weights = {term: 3.0 if any(c.isdigit() for c in term) else 1.0 for term in self._analyser.terms(claim)}
        there = set(self._analyser.terms(evidence))
        total = sum(weights.values())
        return sum(weight for term, weight in weights.items() if term in there) / total if total else 0.0


def least_relevance(settings: GroundingSettings, embedder: str) -> float:
    """Return how near the nearest passage must be for an answer, by the settings or as suits the embedder named."""
    if settings.least_relevance is not None:
        return settings.least_relevance
    name, least = CALIBRATED
    return least if embedder.startswith(name) else -1.0


def relevance(passages: Sequence[Passage]) -> float:
    """Return how near the nearest passage is to the question, by the cosine of their vectors; 0 without passages.

    Where no passage was found by its vector nothing is known of that, and 1 is returned.
    """
    cosines = [passage.scores["dense"] for passage in passages if "dense" in passage.scores]
    return max(cosines, default=float(bool(passages)))
