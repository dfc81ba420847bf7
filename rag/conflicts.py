"""Passages that state different things in the same words: a limit of 145 euros in one document, of 120 in another.

Found by rule, and rather not at all than wrongly: two sentences conflict if they have the same words, of those that
carry meaning, and differ in exactly one number or date, or in a negation. Rows of tables conflict if they have the same
columns and the same words in their cells, and a number that the claim speaks of differs. What is said in other words,
or of something else, is no conflict to this module. Knows no judge and no catalog.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from rag.answers import Citation, Claim
from rag.copies import negates
from rag.evidence import Unit
from rag.records import Kind, Version
from rag.tables import cells_of
from rag.words import Analyser

NUMBER, DATE, NEGATION = "number", "date", "negation"
_MONTHS = (
    "january february march april may june july august september october november december januar februar märz mai "
    "juni juli oktober dezember jan feb mar apr jun jul aug sep sept oct okt nov dec dez"
).split()
#: Where the metadata of a document tells its date, the first that does.
DATES = ("date", "valid_from", "effective", "effective_date", "published", "updated", "modified", "created", "year")
_MONTH = rf"(?:{'|'.join(sorted(_MONTHS, key=len, reverse=True))})"
_TOKEN = re.compile(
    rf"(?P<date>\d{{4}}-\d{{2}}-\d{{2}}|\d{{1,2}}[./]\d{{1,2}}[./]\d{{2,4}}"
    rf"|\d{{1,2}}\.?(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH}\b\.?(?:,?\s+\d{{4}})?"
    rf"|{_MONTH}\.?\s+\d{{1,2}}(?:st|nd|rd|th)?\b(?:,?\s+\d{{4}})?|{_MONTH}\s+\d{{4}})"
    r"|(?P<number>[-\u2212]?\d+(?:[.,\u00a0\u202f]\d+)*(?![\w]))"
    r"|(?P<word>\w+(?:['’]\w+)?)",
    re.IGNORECASE,
)
_GROUPING = re.compile(r"(?<=\d)[,.\u00a0\u202f](?=\d{3}(?!\d))")
_SPELLED = {
    word: str(value)
    for value, word in enumerate("two three four five six seven eight nine ten eleven twelve".split(), 2)
}
#: Words that may stand in one of two sentences and not in the other.
_LIGHT = frozenset("now new current currently also still therefore however thus please note today already".split())
#: A sentence that begins so speaks of something that stands before it.
_POINTERS = frozenset("it he she they this that these those here there its his her their er sie es dies dieser".split())
#: Behind these a number is a name and no amount.
_NAMING = frozenset(
    "chapter section page figure fig table version article step part item room line level no number nr annex appendix "
    "phase grade class group type model floor gate building clause paragraph question example tier zone category route "
    "flight terminal day week unit volume issue release id".split()
)


@dataclass(frozen=True, slots=True)
class Opposed:
    """A citation of a claim, and the units of other documents that state something else; ``differs`` says in what."""

    claim: Claim
    citation: Citation
    differs: str
    units: tuple[Unit, ...]


def find_conflicts(claims: Sequence[Claim], units: Sequence[Unit]) -> list[Opposed]:
    """Return what of the supported ``claims``' citations other documents among ``units`` contradict, each pair once."""
    frames = _Frames()
    seen: set[frozenset[tuple[str, int]]] = set()
    found = []
    for claim in claims:
        for citation in claim.citations if claim.supported else ():
            own = next((unit for unit in units if _place(unit) == (citation.version_id, citation.source_start)), None)
            against = _against(own, citation, units, frames) if own else []
            places = frozenset([(citation.version_id, citation.source_start), *(_place(unit) for _, unit in against)])
            if against and places not in seen:
                seen.add(places)
                found.append(Opposed(claim, citation, against[0][0], tuple(unit for _, unit in against)))
    return found


def _against(own: Unit, citation: Citation, units: Sequence[Unit], frames: _Frames) -> list[tuple[str, Unit]]:
    """Return the first unit of each other document that states something else, and in what it differs."""
    found: dict[str, tuple[str, Unit]] = {}
    for unit in units:
        other = unit.chunk.document_id
        if other == own.chunk.document_id or other in found:
            continue
        tables = own.chunk.kind is Kind.TABLE, unit.chunk.kind is Kind.TABLE
        differs = (
            _rows_differ(own, citation, unit) if all(tables) else None if any(tables) else frames.differ(own, unit)
        )
        if differs:
            found[other] = differs, unit
    return list(found.values())


def _place(unit: Unit) -> tuple[str, int]:
    return unit.chunk.version_id, unit.chunk.start + unit.start


def _rows_differ(own: Unit, citation: Citation, other: Unit) -> str | None:
    """Say in what two rows of tables differ, if they are about the same."""
    left, right = (
        {cell.column.casefold(): cell.text for cell in cells_of(unit.chunk, unit.start, unit.end) if cell.column}
        for unit in (own, other)
    )
    if not left or left.keys() != right.keys():
        return None
    first = next(iter(left))
    unequal = {column for column in left if _value(left[column]) != _value(right[column])}
    said = {cell.column.casefold() for cell in citation.cells}
    if first in unequal or not unequal & said:
        return None
    return NUMBER if all(_is_amount(left[column]) and _is_amount(right[column]) for column in unequal) else None


def _value(text: str) -> str:
    return _GROUPING.sub("", " ".join(text.casefold().split()))


def _is_amount(text: str) -> bool:
    """Say whether a cell holds a number with at most a unit beside it."""
    return any(c.isdigit() for c in text) and len(text.split()) <= 3


#: A value in a sentence: its kind, the value, and the word before it.
_Value = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class _Frame:
    """A sentence without its values: its ``terms``, the values with their kind and the term before each, negations."""

    terms: Counter[str]
    values: tuple[_Value, ...]
    negations: int
    speaks_for_itself: bool


class _Frames:
    """Compares sentences; remembers what it has made of each."""

    def __init__(self) -> None:
        self._analyser = Analyser()
        self._known: dict[str, _Frame] = {}

    def differ(self, one: Unit, other: Unit) -> str | None:
        """Say in what two sentences differ, if they speak of the same in the same words."""
        left, right = self._frame(one.text), self._frame(other.text)
        alike = left.terms == right.terms and len(left.values) == len(right.values)
        alone = left.speaks_for_itself and right.speaks_for_itself
        if not (alike and alone) or len(left.terms) < self._fewest(one.chunk.section, other.chunk.section):
            return None
        unequal = [(a, b) for a, b in zip(left.values, right.values, strict=True) if a[:2] != b[:2]]
        if not unequal:
            return NEGATION if (left.negations - right.negations) % 2 else None
        if len(unequal) > 1 or left.negations != right.negations:
            return None
        return _values_differ(*unequal[0], len(left.values))

    def _fewest(self, one: Sequence[str], other: Sequence[str]) -> int:
        """Return how many different words of meaning two sentences must have, by the headings that they stand under."""
        left, right = (set(self._analyser.terms(section[-1])) if section else set() for section in (one, other))
        return 2 if left & right else 4 if left and right else 3

    def _frame(self, text: str) -> _Frame:
        if text not in self._known:
            self._known[text] = self._made(text)
        return self._known[text]

    def _made(self, text: str) -> _Frame:
        terms: list[str] = []
        values: list[_Value] = []
        words: list[str] = []
        negations = 0
        for kind, token in _tokens(text):
            before = words[-1] if words else ""
            if kind == "word" and negates(token):
                negations += 1
            elif kind == "word" and token in _LIGHT:
                continue
            elif kind == "word" and token not in _SPELLED:
                words.append(token)
                terms += self._analyser.terms(token)
            elif kind == DATE:
                values.append((DATE, token, before))
            else:
                values.append((NUMBER, _SPELLED.get(token, _GROUPING.sub("", token).replace(",", ".")), before))
        alone = not text.rstrip().endswith(("?", "？")) and not (words and words[0] in _POINTERS)
        return _Frame(Counter(terms), tuple(values), negations, alone)


def _values_differ(one: _Value, other: _Value, values: int) -> str | None:
    """Say in what two values at the same place of their sentences, with so many ``values`` each, differ."""
    years = _is_year(one[1]) and _is_year(other[1])
    if one[0] != other[0] or one[2] != other[2] or one[2] in _NAMING:
        return None
    if years and values > 1:
        return None  # "in 2019 ... 500 people" and "in 2020 ... 500 people" are two facts
    return DATE if years or one[0] == DATE else NUMBER


def date_of(version: Version) -> tuple[datetime, str, str]:
    """Return the date of a document version, as a moment and as it is told, and what tells it.

    That is one of `DATES` of its metadata that is in ISO 8601, or else ``ingested_at``.
    """
    for key in DATES:
        told = str(version.metadata.get(key, ""))
        with suppress(ValueError):
            moment = datetime.fromisoformat(f"{told}-01-01" if _is_year(told) else told)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC), told, key
    return version.created_at, version.created_at.isoformat(), "ingested_at"


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    for match in _TOKEN.finditer(text):
        yield (
            match.lastgroup or "word",
            " ".join(match.group().casefold().replace(",", " ").split())
            if (match.lastgroup == DATE)
            else match.group().casefold(),
        )


def _is_year(value: str) -> bool:
    return re.fullmatch(r"(?:1[5-9]|20)\d\d", value) is not None
