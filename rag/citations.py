"""Text to claims with citations: which words of the answer rest on which words of which document.

`ClaimParser` reads what a generator writes, piece by piece, and never raises whatever comes. `cite` looks for the
sentence of the marked passage that supports a claim, and `check` compares every quote with the stored text at its
offsets. Pure: knows no generator, no database and no model but a judge by its protocol.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from rag.answers import Citation, Claim, ShortAnswer
from rag.protocols import Judge
from rag.records import Delta, Passage, Quote
from rag.sentences import sentence_spans
from rag.windows import quoted_chunk, window

#: A marker as models write it: [1], [1, 2], [1][2] one after the other, and the wide brackets of CJK text.
MARKER = re.compile(r"[\[【]\s*(\d{1,3}(?:\s*[,;，、]\s*\d{1,3})*)\s*[\]】]")
#: The beginning of what may become a marker when more text comes.
OPENING = re.compile(r"\s*[\[【][\d\s,;，、]{0,40}\Z")


@dataclass(frozen=True, slots=True)
class RawClaim:
    """One sentence of the answer at [start, end), the passages it names, and its quotes if the generator gave them.

    ``short`` are the words of a quote that are the short answer, if the generator marked them.
    """

    text: str
    start: int
    end: int
    passages: tuple[int, ...]
    quotes: tuple[Quote, ...] = ()
    short: Quote | None = None


@dataclass(slots=True)
class ClaimParser:
    """Turns deltas into the text to show and the claims in it; ``passages`` is how many the prompt numbered.

    Markers that name no passage are left out of the text. What could still become a marker is held back until
    it is one or not.
    """

    passages: int
    text: str = ""
    _held: str = ""
    _marks: list[tuple[int, int, tuple[int, ...]]] = field(default_factory=list)
    _quoted: list[RawClaim] = field(default_factory=list)

    def feed(self, delta: Delta) -> str:
        """Take one piece and return the text that can be shown now."""
        before = len(self.text)
        if delta.quotes:
            self._release(final=True)
            self._quote(delta)
        else:
            self._held += delta.text
            self._release(final=False)
        return self.text[before:]

    def finish(self) -> str:
        """Return what was held back."""
        before = len(self.text)
        self._release(final=True)
        return self.text[before:]

    def claims(self) -> list[RawClaim]:
        """Return the claims of the text so far, in order."""
        return sorted([*self._quoted, *self._written()], key=lambda claim: claim.start)

    def _quote(self, delta: Delta) -> None:
        if self.text and not self.text[-1].isspace():
            self.text += "\n" if "\n" in delta.text or "|" in delta.text else " "
        start = len(self.text)
        numbers = tuple(dict.fromkeys(quote.passage for quote in delta.quotes))
        self.text += delta.text
        self._quoted.append(RawClaim(delta.text, start, len(self.text), numbers, delta.quotes, delta.short))
        self.text += "".join(f" [{number}]" for number in numbers)

    def _release(self, *, final: bool) -> None:
        opening = None if final else OPENING.search(self._held)
        ready = self._held[: opening.start()] if opening else self._held
        self._held = self._held[len(ready) :]
        end = 0
        for match in MARKER.finditer(ready):
            numbers = tuple(n for n in map(int, re.findall(r"\d+", match.group(1))) if 1 <= n <= self.passages)
            self.text += ready[end : match.start()]
            end = match.end()
            if numbers:
                shown = "".join(f"[{number}]" for number in dict.fromkeys(numbers))
                self._marks.append((len(self.text), len(self.text) + len(shown), numbers))
                self.text += shown
        self.text += ready[end:]

    def _written(self) -> Iterator[RawClaim]:
        """Yield the claims of a model's free text: its sentences, read as if the markers were not there."""
        covered = [(claim.start, claim.end) for claim in self._quoted]
        if covered:
            return
        plain, places = self._without_marks()
        spans = [span for span in sentence_spans(plain) if any(c.isalnum() for c in plain[span[0] : span[1]])]
        named: dict[tuple[int, int], list[int]] = {span: [] for span in spans}
        for start, _, numbers in self._marks:
            owner = _owner(spans, plain, _rank(places, start))
            if owner is not None:
                named[owner] += numbers
        for (start, end), numbers_of in named.items():
            yield RawClaim(plain[start:end], places[start], places[end - 1] + 1, tuple(dict.fromkeys(numbers_of)))

    def _without_marks(self) -> tuple[str, list[int]]:
        """Return the text without markers, and for each of its characters the place in the text."""
        hidden: set[int] = set()
        for start, end, _ in reversed(self._marks):
            hidden.update(range(start, end))
            follower = next((place for place in range(end, len(self.text)) if place not in hidden), None)
            if start and self.text[start - 1] == " " and follower is not None and self.text[follower] in ".,;:!?":
                hidden.add(start - 1)  # "145 euros [1]." reads "145 euros."
        places = [place for place in range(len(self.text)) if place not in hidden]
        return "".join(self.text[place] for place in places), places


def _rank(places: Sequence[int], place: int) -> int:
    """Return how many visible characters stand before ``place``."""
    from bisect import bisect_left

    return bisect_left(places, place)


def _owner(spans: Sequence[tuple[int, int]], plain: str, position: int) -> tuple[int, int] | None:
    """Return the sentence that a marker at ``position`` ends or stands in; at the very beginning, the first one."""
    while position > 0 and plain[position - 1].isspace():
        position -= 1
    before = [span for span in spans if span[0] < position]
    return before[-1] if before else (spans[0] if spans else None)


def cite(claim: RawClaim, passages: Sequence[Passage], judge: Judge) -> Claim:
    """Return the claim with a citation for each passage it names: its quotes, or the sentence that supports it best.

    The sentence is one of the passage or of a chunk around it, and the citation names the chunk.
    """
    quotes = claim.quotes or tuple(
        quote for number in claim.passages if (quote := _best_sentence(claim.text, number, passages[number - 1], judge))
    )
    quoted = [(quote, quoted_chunk(passages[quote.passage - 1], quote)) for quote in quotes]
    scores = judge.support([(claim.text, _words(quote, chunk)) for quote, chunk in quoted])
    citations = tuple(
        _citation(claim, quote, chunk, score) for (quote, chunk), score in zip(quoted, scores, strict=True)
    )
    return Claim(claim.text, claim.start, claim.end, citations)


def _best_sentence(claim: str, number: int, passage: Passage, judge: Judge) -> Quote | None:
    chunks = sorted(window(passage), key=lambda chunk: chunk.chunk_id != passage.chunk_id)  # of equals, the passage's
    spans = [(chunk, start, end) for chunk in chunks for start, end in sentence_spans(chunk.text)]
    scores = judge.support([(claim, chunk.text[start:end]) for chunk, start, end in spans])
    if not spans or max(scores) <= 0:
        return None
    chunk, start, end = spans[scores.index(max(scores))]
    return Quote(number, chunk.start + start, chunk.start + end)


def _words(quote: Quote, chunk: Passage) -> str:
    return chunk.text[quote.start - chunk.start : quote.end - chunk.start]


def _citation(claim: RawClaim, quote: Quote, chunk: Passage, score: float) -> Citation:
    return Citation(
        answer_start=claim.start,
        answer_end=claim.end,
        number=quote.passage,
        document_id=chunk.document_id,
        document=chunk.document,
        version_id=chunk.version_id,
        version=chunk.version,
        chunk_id=chunk.chunk_id,
        page=chunk.page,
        section=chunk.section,
        source_start=quote.start,
        source_end=quote.end,
        quote=_words(quote, chunk),
        score=round(score, 4),
    )


def check(claims: Sequence[Claim], source_text: Callable[[str], str]) -> tuple[list[Claim], list[Citation]]:
    """Return the claims with only those citations whose quote stands at its offsets, and the citations that failed.

    ``source_text`` gives the stored parsed text of a version id.
    """
    texts: dict[str, str] = {}
    kept: list[Claim] = []
    failed: list[Citation] = []
    for claim in claims:
        good: list[Citation] = []
        for citation in claim.citations:
            if citation.version_id not in texts:
                texts[citation.version_id] = source_text(citation.version_id)
            there = texts[citation.version_id][citation.source_start : citation.source_end]
            (good if citation.quote and there == citation.quote else failed).append(citation)
        kept.append(Claim(claim.text, claim.start, claim.end, tuple(good)))
    return kept, failed


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
