"""Whether a claim says what its evidence says but for a number, a name or a negation: found by rule, without a model.

A small encoder that has read "Porto" and "bought" is easily content with "Lisbon" and "bought". Here a number or name
of the claim that the evidence nowhere holds is *swapped* if it stands beside the same word as one of the evidence does
that the claim does not hold. Knows no grammar: swapped roles ("A sold it to B") and other words for it escape it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rag.copies import negates
from rag.sentences import sentence_spans
from rag.words import STOP_WORDS, Analyser

_WORD = re.compile(r"[^\W_]+(?:[.,'’-][^\W_]+)*")
_POSSESSIVE = re.compile(r"['’]s$")
#: How far a word that carries meaning is looked for on either side of a number or name.
_REACH = 3
#: The share of a claim's terms that a sentence must hold to say the same but for a negation.
_SAME = 0.7


@dataclass(frozen=True, slots=True)
class _Token:
    """A word in small letters; ``kind`` is "number", "name" or, for any other, empty."""

    word: str
    kind: str


class Swaps:
    """Compares claims with their evidence."""

    def __init__(self) -> None:
        self._analyser = Analyser()

    def found(self, claim: str, evidence: str) -> bool:
        """Say whether a number, name or negation of ``claim`` stands where ``evidence`` has another one, or none."""
        return self._value_swapped(claim, evidence) or self._negation_swapped(claim, evidence)

    def _value_swapped(self, claim: str, evidence: str) -> bool:
        mine = [*_tokens(claim)]
        if not any(token.kind for token in mine):
            return False
        theirs = [*_tokens(evidence)]
        said, there = {token.word for token in mine}, {token.word for token in theirs}
        missing = [place for place, token in enumerate(mine) if token.kind and token.word not in there]
        others = [place for place, token in enumerate(theirs) if missing and token.kind and token.word not in said]
        replacing = [(theirs[place].kind, self._beside(theirs, place)) for place in others]
        swapped = [(mine[place].kind, self._beside(mine, place)) for place in missing]
        return any(
            kind == other and _meet(beside, there_beside)
            for kind, beside in swapped
            for other, there_beside in replacing
        )

    def _beside(self, tokens: Sequence[_Token], place: int) -> tuple[str, str]:
        """Return the terms before and behind a place; empty where there is none near."""
        before = reversed(tokens[max(0, place - _REACH) : place])
        behind = tokens[place + 1 : place + 1 + _REACH]
        return self._first_term(before), self._first_term(behind)

    def _first_term(self, tokens: Sequence[_Token] | Iterator[_Token]) -> str:
        word = next((token.word for token in tokens if token.word not in STOP_WORDS), "")
        return next(iter(self._analyser.terms(word)), word)

    def _negation_swapped(self, claim: str, evidence: str) -> bool:
        """Say whether the sentence that holds most of the claim's terms, and holds nearly all, is negated otherwise."""
        terms = self._terms(claim)
        if not terms:
            return False
        sentences = [evidence[start:end] for start, end in sentence_spans(evidence)]
        shares = [len(terms & self._terms(sentence)) / len(terms) for sentence in sentences]
        best = max(range(len(shares)), key=shares.__getitem__, default=-1)
        return best >= 0 and shares[best] >= _SAME and _negated(claim) != _negated(sentences[best])

    def _terms(self, text: str) -> set[str]:
        return {*self._analyser.terms(" ".join(word for word in _words(text) if not negates(word)))}


def _tokens(text: str) -> Iterator[_Token]:
    first = {start for start, _ in sentence_spans(text)}
    for match in _WORD.finditer(text):
        written = match.group()
        word = _POSSESSIVE.sub("", written.casefold())
        if any(c.isdigit() for c in written):
            yield _Token(word.replace(",", ""), "number")
        elif written == "May" or (written[0].isupper() and match.start() not in first and word not in STOP_WORDS):
            yield _Token(word, "name")
        else:
            yield _Token(word, "")


def _meet(one: tuple[str, str], other: tuple[str, str]) -> bool:
    return any(mine and mine == theirs for mine, theirs in zip(one, other, strict=True))


def _words(text: str) -> list[str]:
    return [match.group().casefold() for match in _WORD.finditer(text)]


def _negated(text: str) -> bool:
    return any(map(negates, _words(text)))
