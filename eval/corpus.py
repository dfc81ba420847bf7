"""A corpus of invented office files for benchmarks and fault tests: any number of them, the same for the same seed.

Maintenance reports, policies, minutes, incidents and supplier letters in every format of `eval.formats`, mostly one to
six passages long, one in a hundred much longer. Each file holds one mark, a word that stands in no other file, so that
a search for it has one right answer; some files are copies, nearly copies, or broken, and the manifest says which.
Knows no collection, no parser and no real document.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Literal

from eval.formats import WRITERS, Row, Section, Writing
from rag.errors import DamagedDocument, EmptyDocument, EncryptedDocument, UnsupportedDocument

Kind = Literal["plain", "copy", "near_copy", "broken"]

#: How often each format is chosen, in percent.
SHARES: Mapping[str, int] = {
    "txt": 13, "md": 16, "html": 13, "rst": 3, "eml": 4, "csv": 6, "json": 5, "jsonl": 3, "xml": 5,
    "docx": 12, "xlsx": 5, "pptx": 2, "odt": 2, "epub": 1, "pdf": 10,
}  # fmt: skip
FORMATS = tuple(SHARES)
#: One file in so many is a copy, and one nearly a copy, of the file before; one in so many is broken, up to `MOST`.
COPIES, NEAR_COPIES, BROKEN, MOST_BROKEN = 50, 50, 60, 40
#: One file in so many is long.
LONG = 100
WORDS, MEAN_MORE_WORDS, MOST_WORDS, LONG_WORDS = 130, 130, 900, (3000, 6000)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a corpus. ``name`` is its relative path with ``/`` between parts.

    ``mark`` is the word that no other file holds, but for a copy, which has that of the file ``copy_of``. ``error`` is
    the code of the error with which a broken file has to be refused, and None for a file that can be read; a broken
    file has no mark.
    """

    name: str
    format: str
    kind: Kind
    mark: str
    sha256: str
    copy_of: str | None = None
    error: str | None = None


def generate(
    folder: Path, count: int, seed: int, formats: Sequence[str] = FORMATS, *, oddities: bool = True
) -> list[Entry]:
    """Write ``count`` files into ``folder``, which may be missing, and return what they are, in the order of writing.

    Each of ``formats`` comes once before any comes twice. Without ``oddities`` there are no copies and nothing broken.
    Takes about a millisecond a file. Raises `KeyError` for a format that is not in `FORMATS`.
    """
    found: list[Entry] = []
    for entry, data in _files(random.Random(seed), count, formats, oddities):
        path = folder / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        found.append(entry)
    return found


def write_manifest(entries: Sequence[Entry], file: Path) -> None:
    """Write one JSON object a line and entry; the file should lie outside the corpus."""
    file.write_text("".join(json.dumps(asdict(entry)) + "\n" for entry in entries), encoding="utf-8")


def mark_of(number: int) -> str:
    """Return the mark of a file by its number: one word, for search engines too."""
    return f"kestrel{number:07d}"


def mark_sentence(mark: str) -> str:
    """Return the sentence in which a file holds its mark."""
    return f"The reference mark of this file is {mark}."


def invent(rng: random.Random, mark: str, *, least_words: int | None = None) -> Writing:
    """Return an invented piece of writing that holds ``mark`` in one sentence; its length is drawn if not given."""
    genre = rng.choice(list(GENRES))
    slots = _Slots(rng)
    more = int(min(MOST_WORDS - WORDS, rng.expovariate(1 / MEAN_MORE_WORDS)))
    wanted = WORDS + more if least_words is None else least_words
    sections: list[Section] = []
    words = 0
    while words < wanted:
        heading = GENRES[genre][1][len(sections) % len(GENRES[genre][1])]
        sentences = tuple(slots.sentence(genre) for _ in range(rng.randint(5, 12)))
        words += sum(len(sentence.split()) for sentence in sentences)
        again = len(sections) // len(GENRES[genre][1])
        sections.append(Section(f"{heading}, part {again + 1}" if again else heading, sentences))
    place = rng.randrange(len(sections))
    marked = list(sections[place].sentences)
    marked.insert(rng.randrange(len(marked) + 1), mark_sentence(mark))
    sections[place] = replace(sections[place], sentences=tuple(marked))
    written = datetime(2019, 1, 1, 8, tzinfo=UTC) + timedelta(minutes=rng.randrange(7 * 365 * 24 * 60))
    title = GENRES[genre][0].format_map(slots)
    return Writing(title, slots["person"], written, tuple(sections), _table(rng, slots))


# -- which files -----------------------------------------------------------------------------------------------------


def _files(rng: random.Random, count: int, formats: Sequence[str], oddities: bool) -> Iterator[tuple[Entry, bytes]]:
    """Yield each file with its content; a copy comes right after its original."""
    broken = min(count // BROKEN, MOST_BROKEN) if oddities else 0
    for number in range(broken):
        fault, (make, error) = list(BROKEN_FILES.items())[number % len(BROKEN_FILES)]
        ending, data = fault.partition("-")[0], make(rng)
        yield Entry(f"incoming/{fault}-{number:07d}.{ending}", ending, "broken", "", _digest(data), error=error), data
    number, first = broken, list(formats)
    while number < count:
        form = first.pop(0) if first else rng.choices(formats, [SHARES[name] for name in formats])[0]
        long = rng.randint(*LONG_WORDS) if rng.randrange(LONG) == 0 else None
        writing = invent(rng, mark_of(number), least_words=long)
        folder, data = f"{writing.written:%Y/%m}", WRITERS[form](writing)
        original = Entry(_name(folder, writing, number, form), form, "plain", mark_of(number), _digest(data))
        yield original, data
        number += 1
        if oddities and number < count and rng.randrange(COPIES) == 0:
            yield (
                replace(original, name=_name("copies", writing, number, form), kind="copy", copy_of=original.name),
                data,
            )
            number += 1
        elif oddities and number < count and rng.randrange(NEAR_COPIES) == 0:
            data = WRITERS[form](_marked_anew(writing, original.mark, mark_of(number)))
            name = _name(folder, writing, number, form)
            yield Entry(name, form, "near_copy", mark_of(number), _digest(data), original.name), data
            number += 1


def _name(folder: str, writing: Writing, number: int, form: str) -> str:
    words = re.sub(r"[^a-z0-9 ]", "", writing.title.lower()).split()
    return f"{folder}/{'-'.join(words[:5])}-{number:07d}.{form}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _marked_anew(writing: Writing, old: str, new: str) -> Writing:
    """Return the same writing with one word changed, which is the mark."""
    sections = tuple(
        replace(section, sentences=tuple(sentence.replace(old, new) for sentence in section.sentences))
        for section in writing.sections
    )
    return replace(writing, sections=sections)


# -- what is broken --------------------------------------------------------------------------------------------------


def _cut_off(form: str) -> Callable[[random.Random], bytes]:
    def make(rng: random.Random) -> bytes:
        whole = WRITERS[form](invent(rng, "lost"))
        return whole[: len(whole) // 4]

    return make


def _cut_off_pdf(rng: random.Random) -> bytes:
    """Return the head of a PDF, up to the middle of its first page: nothing of what it says is left."""
    whole = WRITERS["pdf"](invent(rng, "lost"))
    return whole[: whole.index(b"/Type/Page/") + rng.randrange(11)]


def _encrypted_archive(rng: random.Random) -> bytes:
    """Return an archive whose one member is marked as encrypted; its bytes are noise, as those of such a member are."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("accounts.txt", (2001, 1, 1, 0, 0, 0)), rng.randbytes(900))
    data = bytearray(file.getvalue())
    data[6] |= 1  # the general purpose flags of the member's own header, and of its entry in the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def _binary(rng: random.Random) -> bytes:
    return b"\x7fELF\x02\x01\x01" + bytes(9) + rng.randbytes(4000)


#: How each broken file is made, and the code of the error that it has to give.
BROKEN_FILES: Mapping[str, tuple[Callable[[random.Random], bytes], str]] = {
    "pdf-cut-off": (_cut_off_pdf, DamagedDocument.code),
    "docx-cut-off": (_cut_off("docx"), DamagedDocument.code),
    "txt-empty": (lambda _: b"", EmptyDocument.code),
    "zip-encrypted": (_encrypted_archive, EncryptedDocument.code),
    "bin-program": (_binary, UnsupportedDocument.code),
}


# -- what they say ---------------------------------------------------------------------------------------------------


class _Slots(dict[str, str]):
    """Fills the slots of a template, each time anew: a word of the list of that name, a number, or a date.

    What a file is about (a machine, a topic ...) is mostly the same one in all of its sentences.
    """

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self._subject = {slot: rng.choice(LISTS[slot]) for slot in ("machine", "topic", "goods", "place")}

    def __missing__(self, slot: str) -> str:
        if draw := DRAWN.get(slot):
            return draw(self._rng)
        if slot in self._subject and self._rng.random() < 0.8:
            return self._subject[slot]
        return self._rng.choice(LISTS[slot])

    def sentence(self, genre: str) -> str:
        text = self._rng.choice([*GENRES[genre][2], *ANYWHERE]).format_map(self)
        return text[0].upper() + text[1:]


def _table(rng: random.Random, slots: _Slots) -> tuple[Row, ...]:
    if rng.randrange(3):
        return ()
    rows = [(slots["part"], slots["code"], slots["n"], slots["big"]) for _ in range(rng.randint(2, 7))]
    return (("Item", "Code", "Quantity", "Cost in euros"), *rows)


MONTHS = "January February March April May June July August September October November December".split()
FIRST_NAMES = "Anja Bela Carla Dario Edda Finn Greta Hugo Ines Jonas Karin Lukas Mira Nils Olga Pavel Rosa Sven".split()
LAST_NAMES = "Albers Brandt Costa Dvořák Ekström Fuchs Gruber Haas Ivanov Jansen Krüger Lindqvist Moreau Novak".split()
PLACES = ["Harrow", "Eastfield", "Old Quay", "Millbrook", "Norden", "Saint Clair", "Ridgeway", "Tarn", "Westerbek"]
LETTERS = "ABCDEFGHKLMNPRSTUVWX"
#: Slots that are made up of numbers and parts.
DRAWN: Mapping[str, Callable[[random.Random], str]] = {
    "n": lambda rng: str(rng.randint(2, 60)),
    "big": lambda rng: f"{rng.randint(1_000, 99_000):,}",
    "decimal": lambda rng: f"{rng.uniform(0.1, 40):.1f}",
    "code": lambda rng: f"{rng.choice(LETTERS)}{rng.choice(LETTERS)}-{rng.randint(100, 9999)}",
    "day": lambda rng: f"{rng.randint(1, 28)} {rng.choice(MONTHS)} {rng.randint(2019, 2026)}",
    "month": lambda rng: f"{rng.choice(MONTHS)} {rng.randint(2019, 2026)}",
    "person": lambda rng: f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}",
}
LISTS: Mapping[str, Sequence[str]] = {
    "place": PLACES,
    "machine": ["feed pump", "conveyor", "rotary kiln", "packing line", "air compressor", "chiller", "forklift",
                "boiler", "dust filter", "crane", "mixing drum", "labelling robot", "water softener", "generator"],
    "part": ["bearing", "drive belt", "gasket", "pressure valve", "coupling", "control board", "fan blade", "oil seal",
             "gear wheel", "inlet strainer", "limit switch", "hydraulic hose", "brake disc", "temperature probe"],
    "cause": ["a worn seal", "metal fatigue", "wrong lubrication", "a loose earth wire", "condensation", "overload",
              "a delivery of the wrong grade", "scale in the pipe", "a software update", "vibration", "corrosion"],
    "action": ["replaced", "cleaned", "adjusted", "welded", "tightened", "recalibrated", "inspected", "photographed"],
    "sign": ["an unusual noise", "a drop in pressure", "a smell of burning", "a rising temperature", "a slow leak",
             "an error on the display", "uneven wear", "a higher power draw than the week before"],
    "department": ["the works council", "purchasing", "the finance office", "plant safety", "quality control",
                   "human resources", "the maintenance crew", "customer service", "the legal team", "logistics"],
    "topic": ["overtime", "business travel", "visitor badges", "spare parts", "remote work", "waste sorting",
              "company cars", "data retention", "fire drills", "parental leave", "night shifts", "key cards"],
    "duty": ["keep the receipts", "ask the line manager", "inform the control room", "fill in the green form",
             "wear hearing protection", "hand in the old key", "note the meter reading", "lock the cabinet"],
    "goods": ["stainless pipe", "cardboard boxes", "machine oil", "pallets", "safety gloves", "copper cable",
              "floor paint", "filter cartridges", "steel plate", "printer toner", "nitrogen bottles"],
    "reason": ["the budget of the year is spent", "the supplier can not deliver", "the law has changed",
               "two complaints came in", "the contract ends soon", "the audit asked for it", "staff are short"],
}  # fmt: skip
#: Each genre: its title, its headings, its sentences.
GENRES: Mapping[str, tuple[str, Sequence[str], Sequence[str]]] = {
    "maintenance": (
        "Maintenance report: {machine} {code} at {place}, {month}",
        ["Summary", "Findings", "Work done", "Measurements", "Parts used", "Outlook", "Safety", "Cost"],
        [
            "the {machine} showed {sign} after {n} hours of service.",
            "the {part} of the {machine} was {action} by {person} on {day}.",
            "the cause was {cause}, which had gone unseen since {month}.",
            "after the work the {machine} ran for {n} minutes at {decimal} bar without {sign}.",
            "the {part} with the number {code} is worn by {decimal} percent and should be changed before {month}.",
            "the next inspection is due after {big} hours, or on {day} at the latest.",
            "vibration at the {part} was {decimal} millimetres a second, against a limit of {decimal}.",
            "{person} {action} the {part} and found {cause}.",
            "stock of the {part} is down to {n} pieces at {place}.",
            "when {sign} was noticed, the {machine} was stopped, and the {part} was {action} within {n} hours.",
        ],
    ),
    "policy": (
        "Policy {code} on {topic} at {place}",
        ["Purpose", "Who it is for", "Rules", "Exceptions", "Limits", "Records", "Questions", "Changes"],
        [
            "anyone who deals with {topic} has to {duty} within {n} days.",
            "requests about {topic} go to {department}, which answers within {n} working days.",
            "the limit is {big} euros for each case, and {big} euros in one year.",
            "an exception needs the consent of {person} and of {department}.",
            "employees at {place} must {duty} before they {duty}.",
            "if {reason}, {department} may shorten the period to {n} days.",
            "records about {topic} are kept for {n} months and then destroyed.",
            "this rule replaces the one of {day}, because {reason}.",
            "whoever does not {duty} loses the claim after {n} weeks.",
            "questions on {topic} are answered by {person}, room {n}, in {place}.",
        ],
    ),
    "minutes": (
        "Minutes of {department}, meeting of {day}",
        ["Present", "Agenda", "Reports", "Decisions", "Open points", "Any other business", "Next meeting"],
        [
            "{person} reported on {topic}: {n} cases are open, {n} more than in {month}.",
            "the motion to buy {n} units of {goods} for {place} was debated for {n} minutes and then voted on.",
            "{department} asked to look at {topic} again, because {reason}.",
            "the proposal on {topic} was put to the vote; {n} were for it and {n} against.",
            "{person} will {duty} and report back by {day}.",
            "the budget for {goods} was raised to {big} euros.",
            "{person} and {person} could not agree on {topic}; it comes back on {day}.",
            "the meeting at {place} lasted {n} minutes longer than planned, since {reason}.",
            "{department} thanked {person} for the work on the {machine}.",
        ],
    ),
    "incident": (
        "Incident {code}: {machine} at {place} on {day}",
        ["What happened", "Time line", "Causes", "Harm", "Measures", "Lessons", "Witnesses"],
        [
            "at {n} minutes past the hour {person} noticed {sign} at the {machine}.",
            "the {machine} was shut down and {department} was told at once.",
            "nobody was hurt; the damage is put at {big} euros.",
            "the inquiry found {cause} at the {part}.",
            "production at {place} stood still for {n} hours.",
            "{person} said that the {part} had been {action} on {day}.",
            "from {month} on, everyone at the {machine} has to {duty}.",
            "a similar case with a {machine} is known from {place}, where {cause} was the reason.",
            "{n} litres of coolant ran out and were taken up with {goods}.",
        ],
    ),
    "letter": (
        "Offer {code} for {goods}, {place}",
        ["Our offer", "Prices", "Delivery", "Terms", "Warranty", "Samples", "Contact"],
        [
            "we offer {n} pallets of {goods} at {decimal} euros for each piece.",
            "delivery to {place} takes {n} days from the order, unless {reason}.",
            "the price holds until {day}, for orders above {big} euros.",
            "we grant a discount of {decimal} percent on {goods} if payment is made within {n} days.",
            "the warranty on the {part} is {n} months and does not cover {cause}.",
            "please send the order to {person} and name the number {code}.",
            "our driver has to {duty} at the gate of {place}.",
            "samples of {goods} were sent to {department} on {day}.",
            "should there be {sign}, we take the {machine} back at our own cost.",
        ],
    ),
}
ANYWHERE: Sequence[str] = [
    "{department} has been told, and {person} follows it up.",
    "the figures of {place} for {month} are {decimal} percent above those of the year before.",
    "see also file {code}, which {person} wrote on {day}.",
    "it is not yet clear whether {reason}.",
    "the cost so far is {big} euros, of which {place} bears {n} percent.",
]
