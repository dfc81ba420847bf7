"""One answer in the making: its sentences are judged beside the generator that goes on writing.

What is written goes to the parser, complete sentences to a thread that cites, judges and checks them, and both to the
release, which says what goes out. No text waits for a judge, but where the policy wants it to. Knows generators by what
they write, and neither catalog nor web.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import structlog

from rag.answers import Citation, Claim, Policy
from rag.citations import Citer, check, stands
from rag.claims import ClaimParser, RawClaim
from rag.records import Delta
from rag.release import Held, Piece, Release, release

log = structlog.get_logger(__name__)

#: Cites and judges sentences, in a thread.
Judged = Callable[[Sequence[RawClaim]], list[Claim]]
#: Most sentences of one call.
MOST_AT_ONCE = 16


class Grounded:
    """The text and the claims of one answer, cited by ``citer`` and checked against the stored texts of versions.

    To be used in one task; close it if it is left before its end. What is ``held`` goes out when it is let go.
    """

    def __init__(self, citer: Citer, source_text: Callable[[str], str], policy: Policy, *, held: bool = False) -> None:
        self.citer = citer
        self.policy = policy
        self.release: Release = Held(release(policy)) if held else release(policy)
        self._source_text = source_text
        self._parser = ClaimParser(citer.passages)
        self._scoring = _Scoring(self._cited)
        self._sent = 0

    def anew(self) -> Grounded:
        """Return another answer from the same passages, of which nothing is written."""
        return Grounded(self.citer, self._source_text, self.policy, held=isinstance(self.release, Held))

    async def reworded(self, text: str) -> Grounded:
        """Return a held answer of another text from the same passages, cited and checked anew."""
        other = self.anew()
        try:
            for _ in other.write(Delta(text)):
                pass
            async for _ in other.end():
                pass
        finally:
            await other.aclose()
        return other

    def let_go(self) -> list[Piece]:
        """Return what was held."""
        return self.release.let_go() if isinstance(self.release, Held) else []

    def conflicts(self) -> list[tuple[str, list[Citation]]]:
        """Return what other documents say against what went out, see `rag.citations.Citer.oppose`; checked as well."""
        opposed = self.citer.oppose([claim for _, claim in self.release.claims])
        return [
            (differs, sides) for differs, sides in opposed if all(stands(side, self._source_text) for side in sides)
        ]

    def write(self, delta: Delta) -> Iterator[Piece]:
        """Take what the generator wrote and yield what goes out now, the sentences judged by now among it."""
        yield from self.release.write(self._parser.feed(delta))
        self._send()
        yield from self._judged()

    async def end(self) -> AsyncIterator[Piece]:
        """Yield the rest: what was held back, and what is still being judged. Raises what judging raised."""
        for piece in self.release.write(self._parser.finish()):
            yield piece
        self._send()
        while await self._scoring.more():
            for piece in self._judged():
                yield piece
        for piece in self.release.end():
            yield piece

    async def aclose(self) -> None:
        """Let no more be judged."""
        await self._scoring.aclose()

    def _cited(self, raw: Sequence[RawClaim]) -> list[Claim]:
        claims, failed = check(self.citer.cite(raw), self._source_text)
        for citation in failed:
            log.error("citation dropped: its quote does not stand at its offsets", chunk=citation.chunk_id)
        return claims

    def _send(self) -> None:
        claims = self._parser.claims(self._sent)
        self._sent += len(claims)
        self._scoring.add(claims)

    def _judged(self) -> Iterator[Piece]:
        for raw, claim in self._scoring.ready():
            yield from self.release.judge(raw, claim, self._parser.text)


class _Scoring:
    """A queue of sentences that a thread works off, in their order; those that wait are judged together."""

    def __init__(self, judged: Judged) -> None:
        self._judged = judged
        self._waiting: list[RawClaim] = []
        self._ready: list[tuple[RawClaim, Claim]] = []
        self._work: asyncio.Task[None] | None = None

    def add(self, claims: Sequence[RawClaim]) -> None:
        self._waiting += claims
        if self._waiting and self._work is None:
            self._work = asyncio.create_task(self._work_off())

    def ready(self) -> list[tuple[RawClaim, Claim]]:
        """Return what has been judged since the last call; raises what judging raised."""
        if self._work is not None and self._work.done():
            work, self._work = self._work, None
            work.result()
            self.add(())
        ready, self._ready = self._ready, []
        return ready

    async def more(self) -> bool:
        """Wait until all is judged; say whether anything is ready."""
        if self._work is not None:
            await asyncio.wait({self._work})
        return bool(self._work or self._ready)

    async def aclose(self) -> None:
        """Take nothing more out of the queue; what a thread has in hand, it finishes for nobody."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
            self._work = None

    async def _work_off(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
            claims = await asyncio.to_thread(self._judged, batch)
            self._ready += zip(batch, claims, strict=True)
