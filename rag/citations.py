"""Claims to citations: which words of the answer rest on which words of which document.

`Citer` looks for the sentence or row that supports a claim, in the passages that the claim names and, where these do
not support it, in all of them. `check` compares every quote with the stored text at its offsets, and `short_answer`
finds the least words that answer. Pure: knows no generator, no database and no model but a judge by its protocol.

A passage that was named but does not support its claim stays cited, with its low score: who reads the answer shall see
what the generator pointed at. A better passage is cited beside it, marked as found by the judge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from rag.answers import Cell, Citation, Claim, ShortAnswer
from rag.claims import RawClaim
from rag.conflicts import find_conflicts
from rag.evidence import Evidence, Unit
from rag.protocols import Judge
from rag.records import Passage, Quote
from rag.tables import cells_of
from rag.words import Analyser

#: Sentences that the judge reads for a claim: of each passage that it names, and of all the others together.
NAMED, OTHERS = 6, 8
#: Passages that one claim may name with effect; those named after them are left out.
MOST_NAMED = 8
#: What joins the parts of a claim, and the fewest words that one of them has.
_JOINT = re.compile(r"\s*;\s+|,?\s+(?:and|but|while|whereas|und|aber|während|sowie|et|mais|y|pero)\s+", re.IGNORECASE)
_FEWEST_WORDS = 3


@dataclass(frozen=True, slots=True)
class _Found:
    """A sentence or row with how far it supports a claim; ``attributed``: the claim did not name its passage."""

    unit: Unit
    score: float
    attributed: bool = False


class Citer:
    """Cites claims from the ``passages`` of a prompt. A claim is supported from the support ``threshold`` on.

    Thread-safe as far as its judge is. The work for a claim is bounded, however many passages there are.
    """

    def __init__(self, passages: Sequence[Passage], judge: Judge, threshold: float | None = None) -> None:
        self.threshold = judge.threshold if threshold is None else threshold
        self.passages = len(passages)
        self._evidence = Evidence(passages)
        self._judge = judge
        self._analyser = Analyser()

    def cite(self, claims: Sequence[RawClaim]) -> list[Claim]:
        """Return the claims with a citation for each passage they name, and for what else supports them.

        A quote is a sentence or row of the passage, or of a chunk around it; the citation names the chunk. All claims
        are judged together, in a few calls.
        """
        named = [self._candidates(claim) for claim in claims]
        found = self._best(claims, named)
        lacking = [n for n, claim in enumerate(claims) if claim.checkable and not self._is_enough(found[n])]
        others = [self._others(claims[n]) for n in lacking]
        for n, better in zip(lacking, self._best([claims[n] for n in lacking], others), strict=True):
            best = max(better, key=lambda one: one.score, default=None)
            if best and best.score >= max([self.threshold, *(one.score + 1e-9 for one in found[n])]):
                found[n] = [*found[n], replace(best, attributed=True)]
        found = self._under_their_headings(claims, found)
        joined = self._by_parts(claims, found)
        return [self._claim(claim, some, together) for claim, (some, together) in zip(claims, joined, strict=True)]

    def oppose(self, claims: Sequence[Claim]) -> list[tuple[str, list[Citation]]]:
        """Return what contradicts the citations of claims in other documents: in what, and all sides as citations."""
        found = []
        for opposed in find_conflicts(claims, self._evidence.units):
            claim = opposed.claim
            raw = RawClaim(claim.text, claim.start, claim.end, claim.start, claim.end, ())
            scores = self._judge.support([(claim.text, unit.stated) for unit in opposed.units])
            against = [_Found(unit, score, True) for unit, score in zip(opposed.units, scores, strict=True)]
            found.append((opposed.differs, [opposed.citation, *(self._citation(raw, one) for one in against)]))
        return found

    def _candidates(self, claim: RawClaim) -> list[list[Unit]]:
        """Return for each passage that a claim names what of it may support the claim: its quotes, if it has any."""
        if claim.quotes:
            return [[self._evidence.quoted(quote)] for quote in claim.quotes]
        return [
            self._evidence.near(claim.text, {number}, NAMED) or self._evidence.first(number, NAMED)
            for number in claim.passages[:MOST_NAMED]
        ]

    def _others(self, claim: RawClaim) -> list[list[Unit]]:
        """Return what may support a claim in passages that it does not name; what quotes needs no other support."""
        if claim.quotes:
            return []
        numbers = set(range(1, len(self._evidence.passages) + 1)) - set(claim.passages)
        return [self._evidence.near(claim.text, numbers, OTHERS)]

    def _best(self, claims: Sequence[RawClaim], groups: Sequence[Sequence[Sequence[Unit]]]) -> list[list[_Found]]:
        """Return for each group of each claim the unit that supports it most; quotes stay even if they do not."""
        pairs = [
            (claim.text, unit.text if unit.text.strip() == claim.text.strip() else unit.stated)
            for claim, some in zip(claims, groups, strict=True)
            for units in some
            for unit in units
        ]
        scores = iter(self._judge.support(pairs) if pairs else ())
        found: list[list[_Found]] = []
        for claim, some in zip(claims, groups, strict=True):
            judged = [[_Found(unit, next(scores)) for unit in units] for units in some]
            best = [max(group, key=lambda one: one.score) for group in judged if group]
            found.append([one for one in best if one.score > 0 or claim.quotes])
        return found

    def _is_enough(self, found: Sequence[_Found]) -> bool:
        return any(one.score >= self.threshold for one in found)

    def _under_their_headings(
        self, claims: Sequence[RawClaim], found: Sequence[Sequence[_Found]]
    ) -> list[list[_Found]]:
        """Return what was found with its score under title and headings, where that is more.

        "It is 145 euros" under the heading "Hotels" supports what is said of hotels.
        """
        asked = [
            (n, place)
            for n, some in enumerate(found)
            for place, one in enumerate(some)
            if one.score < self.threshold and one.unit.headed != one.unit.stated
        ]
        pairs = [(claims[n].text, found[n][place].unit.headed) for n, place in asked]
        raised = [list(some) for some in found]
        for (n, place), score in zip(asked, self._judge.support(pairs) if pairs else (), strict=True):
            one = raised[n][place]
            raised[n][place] = replace(one, score=max(one.score, score))
        return raised

    def _by_parts(
        self, claims: Sequence[RawClaim], found: Sequence[Sequence[_Found]]
    ) -> list[tuple[list[_Found], float]]:
        """Return what was found and 0, or for a claim of several parts what supports each of them, and the least of it.

        Only where nothing supports the claim as a whole. No part may borrow a word from what supports another one:
        hotels at 145 and trains at 190 euros do not support hotels at 190.
        """
        every = range(1, len(self._evidence.passages) + 1)
        asked = [
            (n, part)
            for n, claim in enumerate(claims)
            if claim.checkable and not claim.quotes and not self._is_enough(found[n])
            for part in parts_of(claim.text)
        ]
        groups = [[self._evidence.near(part, every, OTHERS)] for _, part in asked]
        best = self._best([replace(claims[n], text=part) for n, part in asked], groups)
        joined = [(list(some), 0.0) for some in found]
        for n in {n for n, _ in asked}:
            parts = [some[0] for (m, _), some in zip(asked, best, strict=True) if m == n and some]
            least = min(one.score for one in parts) if len(parts) == sum(m == n for m, _ in asked) else 0.0
            if least >= self.threshold:
                cited = [one.unit for one in found[n]]
                new = {(one.unit.number, one.unit.chunk.seq, one.unit.start): one for one in parts}
                added = [
                    replace(one, attributed=one.unit.number not in claims[n].passages)
                    for one in new.values()
                    if one.unit not in cited
                ]
                joined[n] = [*found[n], *added], round(least, 4)
        return joined

    def _claim(self, claim: RawClaim, found: Sequence[_Found], together: float) -> Claim:
        citations = tuple(self._citation(claim, one) for one in found)
        support = max([together, *(citation.score for citation in citations)])
        supported = claim.checkable and support >= self.threshold
        return Claim(claim.text, claim.start, claim.end, citations, together, supported, claim.checkable)

    def _citation(self, claim: RawClaim, found: _Found) -> Citation:
        unit = found.unit
        return Citation(
            answer_start=claim.start,
            answer_end=claim.end,
            number=unit.number,
            document_id=unit.chunk.document_id,
            document=unit.chunk.document,
            version_id=unit.chunk.version_id,
            version=unit.chunk.version,
            chunk_id=unit.chunk.chunk_id,
            page=unit.chunk.page,
            section=unit.chunk.section,
            source_start=unit.chunk.start + unit.start,
            source_end=unit.chunk.start + unit.end,
            quote=unit.text,
            score=round(found.score, 4),
            cells=self._cells(claim.text, unit),
            attributed=found.attributed,
        )

    def _cells(self, claim: str, unit: Unit) -> tuple[Cell, ...]:
        """Return the cells of a row that a claim speaks of; all of them if it speaks of none."""
        cells = cells_of(unit.chunk, unit.start, unit.end)
        said = set(self._analyser.terms(claim)) if cells else set()
        return tuple(cell for cell in cells if said.intersection(self._analyser.terms(cell.text))) or cells


def parts_of(claim: str) -> list[str]:
    """Return what a claim says, one part after the other, if it says several things; else nothing."""
    parts = _JOINT.split(claim)
    return parts if len(parts) > 1 and all(len(part.split()) >= _FEWEST_WORDS for part in parts) else []


def stands(citation: Citation, source_text: Callable[[str], str]) -> bool:
    """Say whether a quote, and each of its cells, stands in the stored parsed text at its offsets."""
    text = source_text(citation.version_id)
    cells = all(text[cell.start : cell.end] == cell.text for cell in citation.cells)
    return bool(citation.quote) and cells and text[citation.source_start : citation.source_end] == citation.quote


def check(claims: Sequence[Claim], source_text: Callable[[str], str]) -> tuple[list[Claim], list[Citation]]:
    """Return the claims with only those citations whose quote stands at its offsets, and the citations that failed.

    So must each cell of a quote. A claim that lost a citation has lost the support of it. ``source_text`` gives the
    stored parsed text of a version id.
    """
    text_of = cache(source_text)
    kept: list[Claim] = []
    failed: list[Citation] = []
    for claim in claims:
        good: list[Citation] = []
        for citation in claim.citations:
            (good if stands(citation, text_of) else failed).append(citation)
        kept.append(claim if len(good) == len(claim.citations) else _without_failed(claim, good))
    return kept, failed


def _without_failed(claim: Claim, good: Sequence[Citation]) -> Claim:
    """Return a claim with fewer citations; it stays supported if one of these supported it as much as all did."""
    left = replace(claim, citations=tuple(good), together=0.0)
    return replace(left, supported=claim.supported and left.support >= claim.support)


def short_answer(raw: Sequence[RawClaim], claims: Sequence[Claim]) -> ShortAnswer | None:
    """Return the first short answer that was marked in ``raw`` and stands in a citation that ``claims`` kept.

    The two are as long as each other; the words must stand in the text of the claim as they do in the source.
    """
    for marked, claim in zip(raw, claims, strict=True):
        for citation in claim.citations:
            place = _marked_in(marked.short, citation)
            said = citation.quote[slice(*place)] if place else ""
            shift = claim.text.find(citation.quote)
            if marked.short and place and said.strip() and shift >= 0:
                start = claim.start + shift + place[0]
                source = marked.short.start, marked.short.end
                return ShortAnswer(said, start, start + len(said), citation.number, *source)
    return None


def _marked_in(short: Quote | None, citation: Citation) -> tuple[int, int] | None:
    """Return where the short answer stands in the quote of a citation."""
    if short is None or short.passage != citation.number:
        return None
    if not citation.source_start <= short.start < short.end <= citation.source_end:
        return None
    return short.start - citation.source_start, short.end - citation.source_start
