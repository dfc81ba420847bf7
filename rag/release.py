"""What of an answer goes out, and when: everything as it is written, what is supported, or all or nothing.

A release is told what is written and how each sentence was judged, and says what goes out now: pieces of text, and
claims with their places in the text that went out. Knows no generator, no judge and no web.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from rag.answers import Claim, Policy
from rag.claims import RawClaim

#: A piece of text, or a claim that was judged.
Piece = str | Claim


class Release(Protocol):
    """What goes out of one answer. ``text`` is what went out so far, ``claims`` are those in it, as written and judged.

    ``withheld`` counts the sentences that are kept back since nothing supports them.
    """

    text: str
    claims: list[tuple[RawClaim, Claim]]
    withheld: int

    def write(self, text: str) -> list[Piece]:
        """Take the next text of the answer."""
        ...

    def judge(self, raw: RawClaim, claim: Claim, written: str) -> list[Piece]:
        """Take the next sentence of ``written``, all the text so far, with its judgement."""
        ...

    def end(self) -> list[Piece]:
        """Hear that nothing more will come."""
        ...


def release(policy: Policy) -> Release:
    """Return a release for an answer that goes by ``policy``; `Held` keeps what goes out of it until the end."""
    kinds: dict[Policy, type[AsWritten | Filtered | AllOrNothing]] = {
        Policy.REPORT: AsWritten, Policy.FILTER: Filtered, Policy.STRICT: AllOrNothing,
    }  # fmt: skip
    return kinds[policy]()


class AsWritten:
    """Lets all out at once; what was judged comes behind it."""

    def __init__(self) -> None:
        self.text = ""
        self.claims: list[tuple[RawClaim, Claim]] = []
        self.withheld = 0

    def write(self, text: str) -> list[Piece]:
        """Return the text."""
        self.text += text
        return [text] if text else []

    def judge(self, raw: RawClaim, claim: Claim, written: str) -> list[Piece]:
        """Return the claim."""
        del written
        self.claims.append((raw, claim))
        return [claim]

    def end(self) -> list[Piece]:
        """Return nothing: all is out."""
        return []


class Filtered:
    """Lets sentences out when they were judged, each with its markers, and keeps back those that nothing supports.

    A sentence with nothing to check in it, such as a lead-in, waits for the next that is supported. If none is, nothing
    goes out.
    """

    def __init__(self) -> None:
        self.text = ""
        self.claims: list[tuple[RawClaim, Claim]] = []
        self.withheld = 0
        self._read = 0
        self._gaps: list[str] = []
        self._waiting: list[tuple[str, str, RawClaim, Claim]] = []

    def write(self, text: str) -> list[Piece]:
        """Return nothing: it waits to be judged."""
        del text
        return []

    def judge(self, raw: RawClaim, claim: Claim, written: str) -> list[Piece]:
        """Return the claim and its text, with those that waited for it, if it is supported."""
        self._gaps.append(written[self._read : raw.begin])
        self._read = raw.until
        if claim.checkable and not claim.supported:
            self.withheld += 1
            return []
        self._waiting.append((_widest(self._gaps), written[raw.begin : raw.until], raw, claim))
        self._gaps = []
        return self._let_out() if claim.supported else []

    def end(self) -> list[Piece]:
        """Return what waits behind a supported sentence."""
        return self._let_out() if self.claims else []

    def _let_out(self) -> list[Piece]:
        pieces: list[Piece] = []
        for gap, words, raw, claim in self._waiting:
            piece = (gap if self.text else gap.lstrip()) + words
            by = len(self.text) + len(piece) - len(words) - raw.begin
            self.text += piece
            self.claims.append((_raw_moved(raw, by), _moved(claim, by)))
            pieces += [self.claims[-1][1], piece]
        self._waiting = []
        return pieces


class AllOrNothing:
    """Lets the answer out at its end, if every sentence in it that can be checked is supported, and there is one."""

    def __init__(self) -> None:
        self.text = ""
        self.claims: list[tuple[RawClaim, Claim]] = []
        self.withheld = 0
        self._written = ""

    def write(self, text: str) -> list[Piece]:
        """Return nothing: it waits for the end."""
        self._written += text
        return []

    def judge(self, raw: RawClaim, claim: Claim, written: str) -> list[Piece]:
        """Return nothing: it waits for the end."""
        del written
        self.claims.append((raw, claim))
        return []

    def end(self) -> list[Piece]:
        """Return all claims and the text, or nothing."""
        self.withheld = sum(claim.checkable and not claim.supported for _, claim in self.claims)
        if self.withheld or not any(claim.supported for _, claim in self.claims):
            self.claims = []
            return []
        self.text = self._written
        return [*(claim for _, claim in self.claims), self.text]


class Held:
    """Keeps back all that another release lets out, until the answer as a whole may go."""

    def __init__(self, inner: Release) -> None:
        self._inner = inner
        self._kept: list[Piece] = []
        self.text = ""
        self.claims: list[tuple[RawClaim, Claim]] = []
        self.withheld = 0

    def write(self, text: str) -> list[Piece]:
        """Return nothing: it waits for the end."""
        return self._keep(self._inner.write(text))

    def judge(self, raw: RawClaim, claim: Claim, written: str) -> list[Piece]:
        """Return nothing: it waits for the end."""
        return self._keep(self._inner.judge(raw, claim, written))

    def end(self) -> list[Piece]:
        """Return nothing: it waits to be let go."""
        return self._keep(self._inner.end())

    def let_go(self) -> list[Piece]:
        """Return all that was kept back."""
        kept, self._kept = self._kept, []
        return kept

    def _keep(self, pieces: Sequence[Piece]) -> list[Piece]:
        self._kept += pieces
        self.text, self.claims, self.withheld = self._inner.text, self._inner.claims, self._inner.withheld
        return []


def _widest(gaps: Sequence[str]) -> str:
    """Return what stands between two sentences in place of what stood around those that are gone between them."""
    visible = "".join(gap for gap in gaps if gap.strip())
    return visible or max(gaps, key=lambda gap: (gap.count("\n"), len(gap)))


def _moved(claim: Claim, by: int) -> Claim:
    start, end = claim.start + by, claim.end + by
    citations = tuple(replace(citation, answer_start=start, answer_end=end) for citation in claim.citations)
    return replace(claim, start=start, end=end, citations=citations)


def _raw_moved(raw: RawClaim, by: int) -> RawClaim:
    return replace(raw, start=raw.start + by, end=raw.end + by, begin=raw.begin + by, until=raw.until + by)
