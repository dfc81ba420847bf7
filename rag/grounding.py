"""How far evidence supports a claim, judged by its words.

`LexicalJudge` is the first, plain judge: it compares words, so that it knows an invented number or name from a quoted
one, but neither negation nor paraphrase. A trained judge takes its place behind the same protocol.
"""

from __future__ import annotations

from collections.abc import Sequence

from rag.words import Analyser


class LexicalJudge:
    """Support is the share of the claim's content words that stand in the evidence.

    Words with a digit count three times, since a wrong figure is a wrong claim. A claim without content words
    gets 0. The same text as claim and evidence gets 1.
    """

    name = "lexical overlap"

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
