"""Text to sentences: owns nltk's Punkt tokenizer.

Used where text is cut into chunks, where the reader picks sentences, and where a claim looks for the sentence that
supports it. A line break that the parser kept (between table rows, list items, paragraphs) always ends a sentence.
Punkt (Kiss and Strunk, Computational Linguistics 32(4), 2006) decides what a full stop is; its abbreviations are given
here, so that no trained data file is needed. Knows no document and no language but by these abbreviations.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.abc import MetaPathFinder
from itertools import pairwise
from typing import Any

ABBREVIATIONS = frozenset(
    "a.m approx apr art aug ave bldg ca capt cf ch co col corp cp dec dept dr e.g ed eds eq est etc feb fig figs fr "
    "gen gov hon i.e inc incl jan jr jul jun lt ltd mar max messrs min mr mrs ms mt no nos nov oct op p p.m par para "
    "ph.d pp prof rd rep rev sec sen sep sept sgt sr st tel u.k u.n u.s u.s.a viz vol vols vs abs bzw d.h evtl ggf "
    "inkl nr s.o s.u u.a usw vgl z.b zzgl env m mme".split()
)
#: Sentence ends of scripts that put no space behind them.
WIDE_STOP = re.compile(r"(?<=[。！？｡])(?=[^\s」』）】])")

Span = tuple[int, int]


def sentence_spans(text: str) -> list[Span]:
    """Return the sentences of ``text`` as (start, end), in order, without surrounding white space.

    Every character that is not white space is in exactly one span.
    """
    spans = []
    for line in re.finditer(r"[^\n]+", text):
        for start, end in _punkt().span_tokenize(line.group()):
            for piece_start, piece_end in _wide(line.group(), start, end):
                spans.append(_stripped(text, line.start() + piece_start, line.start() + piece_end))
    return [span for span in spans if span[0] < span[1]]


@cache
def _punkt() -> Any:
    with _without("scipy", "sklearn"):
        from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    parameters = PunktParameters()
    parameters.abbrev_types = set(ABBREVIATIONS)
    return PunktSentenceTokenizer(parameters)


@contextmanager
def _without(*libraries: str) -> Iterator[None]:
    """Keep libraries that are not loaded yet from the imports of this thread, as if they were not installed.

    nltk imports all of its parts, and with them, where they are there, libraries of statistics that no sentence needs:
    more than a second of work, and 150 megabytes, in each process that asks or reads.
    """
    absent = _Absent(frozenset(libraries), threading.get_ident())
    sys.meta_path.insert(0, absent)
    try:
        yield
    finally:
        sys.meta_path.remove(absent)


class _Absent(MetaPathFinder):
    """Finds no library of some names for one thread, and leaves the search to others for the rest."""

    def __init__(self, libraries: frozenset[str], thread: int) -> None:
        self.libraries, self.thread = libraries, thread

    def find_spec(self, name: str, *_: object) -> None:
        """Raise ModuleNotFoundError where a library is kept away."""
        if name.partition(".")[0] in self.libraries and threading.get_ident() == self.thread:
            raise ModuleNotFoundError(f"{name} is not looked for here", name=name)


def _wide(line: str, start: int, end: int) -> list[Span]:
    cuts = [start, *(m.start() for m in WIDE_STOP.finditer(line, start, end)), end]
    return list(pairwise(cuts))


def _stripped(text: str, start: int, end: int) -> Span:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end
