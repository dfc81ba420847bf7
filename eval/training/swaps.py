"""Edits of a claim: some leave it true of its evidence, the others make it say something else.

The false ones are small, as the mistakes of language models are: another figure, another year, another name, a "not"
more or less, the opposite word. Each returns None where it finds nothing to edit. Knows no data set and no model.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence

Edit = Callable[[str, str, random.Random], str | None]

_NUMBER = re.compile(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?![\w]|[.,]\d)")
_YEAR = re.compile(r"(?<![\w.,])(?:1[0-9]|20)\d\d(?![\w]|[.,]\d)")
_MONTHS = "January February March April May June July August September October November December".split()
_MONTH = re.compile(rf"\b({'|'.join(_MONTHS)})\b")
_UNITS = "two three four five six seven eight nine ten eleven twelve twenty thirty".split()
_UNIT = re.compile(rf"\b({'|'.join(_UNITS)})\b", re.IGNORECASE)
_FIGURES = dict(zip(_UNITS, "2 3 4 5 6 7 8 9 10 11 12 20 30".split(), strict=True))
#: A name: words with a capital inside a sentence, or two at its beginning; one there proves nothing.
NAME = re.compile(
    r"(?<=[a-z,;] )[A-Z][\w'-]*(?: (?:of |the |de |von )?[A-Z][\w'-]*)*"
    r"|^(?!(?:The|In|On|At|After|By|From|For) )[A-Z][\w'-]+(?: [A-Z][\w'-]+)+"
)
_VERB = r"(?:was|is|were|are|had|has|became|made|won|wrote|led|built|[a-z]+ed)"
#: The subject that a sentence begins with, as far as a verb that is easily seen follows it.
SUBJECT = re.compile(rf"^((?:The )?[A-Z][\w'-]+(?: [A-Z][\w'-]+)*)(?= {_VERB}\b)")
_AUXILIARY = re.compile(
    r"\b(is|are|was|were|has been|have been|can|could|will|would|must|may|should|did|does|do)\b(?! not\b|n't)"
)
_NEGATION = re.compile(
    r"\b(is|are|was|were|can|could|will|would|must|may|should|did|does|do|has|have|had) (?:not|never)\b ?"
)
_OPPOSITES = (
    ("increased", "decreased"), ("increase", "decrease"), ("rose", "fell"), ("higher", "lower"), ("more", "less"),
    ("before", "after"), ("first", "last"), ("north", "south"), ("east", "west"), ("northern", "southern"),
    ("eastern", "western"), ("won", "lost"), ("born", "died"), ("largest", "smallest"), ("oldest", "youngest"),
    ("most", "least"), ("always", "never"), ("with", "without"), ("above", "below"), ("all", "none"),
    ("son", "brother"), ("daughter", "sister"), ("father", "uncle"), ("mother", "aunt"), ("husband", "son"),
    ("wife", "daughter"),
    ("male", "female"), ("he", "she"), ("American", "British"), ("English", "French"), ("German", "Italian"),
    ("early", "late"), ("older", "younger"), ("long", "short"), ("high", "low"), ("large", "small"), ("major", "minor"),
    ("reduces", "raises"), ("reduce", "raise"), ("reduced", "raised"), ("causes", "prevents"), ("cause", "prevent"),
    ("accepted", "rejected"), ("allowed", "forbidden"), ("included", "excluded"), ("includes", "excludes"),
    ("only", "not only"), ("begins", "ends"), ("began", "ended"), ("started", "finished"), ("opened", "closed"),
    ("day", "week"), ("month", "year"), ("million", "billion"), ("minutes", "hours"), ("days", "weeks"),
    ("miles", "kilometres"), ("film", "novel"), ("actor", "singer"), ("city", "village"), ("album", "single"),
)  # fmt: skip
_OPPOSITE = {a: b for pair in _OPPOSITES for a, b in (pair, pair[::-1]) if " " not in a}
_WORD = re.compile(r"[A-Za-z]+")


def other_number(claim: str, evidence: str, rng: random.Random) -> str | None:
    """Put another figure for one of the claim: one that stands in the evidence, or one that is near."""
    match = _any(_NUMBER.finditer(claim), rng)
    if match is None:
        return None
    value = _value(match.group())
    others = [n for n in _NUMBER.findall(evidence) if _value(n) != value]
    if others and rng.random() < 0.5:
        return _put(claim, match, rng.choice(others))
    return _put(claim, match, _near_number(match.group(), rng))


def other_year(claim: str, evidence: str, rng: random.Random) -> str | None:
    """Put another year or month for one of the claim."""
    match = _any([*_YEAR.finditer(claim), *_MONTH.finditer(claim)], rng)
    if match is None:
        return None
    said = match.group()
    if not said.isdigit():
        return _put(claim, match, rng.choice([month for month in _MONTHS if month != said]))
    others = [year for year in _YEAR.findall(evidence) if year != said]
    if others and rng.random() < 0.4:
        return _put(claim, match, rng.choice(others))
    return _put(claim, match, str(int(said) + rng.choice((-40, -10, -7, -3, -2, -1, 1, 2, 3, 5, 10, 20))))


def other_count(claim: str, evidence: str, rng: random.Random) -> str | None:
    """Put another number word for one of the claim."""
    del evidence
    match = _any(_UNIT.finditer(claim), rng)
    if match is None:
        return None
    return _put(claim, match, rng.choice([word for word in _UNITS if word != match.group().lower()]))


def other_name(names: Sequence[str]) -> Edit:
    """Return an edit that puts another name for one of the claim: one of the evidence, or one of ``names``."""

    def edit(claim: str, evidence: str, rng: random.Random) -> str | None:
        match = _any(NAME.finditer(claim), rng)
        if match is None or match.group() in _MONTHS:
            return None
        near = names_in(evidence)
        fit = [name for name in near if _unlike(name, match.group()) and name not in claim]
        if not fit or rng.random() < 0.4:
            drawn = [rng.choice(names) for _ in range(4)] if names else []
            fit = [name for name in drawn if _unlike(name, match.group()) and name not in claim] or fit
        return _put(claim, match, rng.choice(fit)) if fit else None

    return edit


def names_in(text: str) -> list[str]:
    """Return the names that stand inside the sentences of ``text``, in order."""
    return [name for name in NAME.findall(text) if name not in _MONTHS and len(name) > 2]


def negated(claim: str, evidence: str, rng: random.Random) -> str | None:
    """Put a "not" behind an auxiliary verb, or take one away."""
    del evidence
    if match := _NEGATION.search(claim):
        return f"{claim[: match.start()]}{match[1]} {claim[match.end() :]}".strip()
    match = _AUXILIARY.search(claim)
    if match is None or re.search(r"\b(not|never|no)\b|n't", claim):
        return None
    first, _, rest = match[1].partition(" ")
    word = "never" if first in {"has", "have"} and rng.random() < 0.5 else "not"
    return _put(claim, match, " ".join(filter(None, (first, word, rest))))


def opposite(claim: str, evidence: str, rng: random.Random) -> str | None:
    """Put the opposite for a word, or another word of its kind."""
    match = _any([m for m in _WORD.finditer(claim) if m.group() in _OPPOSITE], rng)
    if match is None or (_OPPOSITE[match.group()] in _WORD.findall(evidence) and rng.random() < 0.5):
        return None
    return _put(claim, match, _OPPOSITE[match.group()])


def unbracketed(claim: str, evidence: str, rng: random.Random) -> str | None:
    """Leave out what stands in brackets: what is left is still true."""
    del evidence, rng
    shorter = re.sub(r"\s*\([^()]*\)", "", claim)
    return shorter if shorter != claim and len(shorter.split()) >= 4 else None


def unclaused(claim: str, evidence: str, rng: random.Random) -> str | None:
    """Leave out what follows the last ", which", ", who", ", where" or ", and then": what is left is still true."""
    del evidence, rng
    match = re.match(r"(.{25,}?), (?:which|who|where|although|while|but|whereas|including|such as)\b", claim)
    return f"{match[1]}." if match else None


def spelt_otherwise(claim: str, evidence: str, rng: random.Random) -> str | None:
    """Write a number or per cent in another way: it stays the same."""
    del evidence
    ways: list[str] = []
    if match := re.search(r"(?<![\d.])\d{1,3}(?:,\d{3})+(?![\d,])", claim):
        ways.append(_put(claim, match, match.group().replace(",", "")))
    if match := _UNIT.search(claim):
        ways.append(_put(claim, match, _FIGURES[match.group().lower()]))
    if match := re.search(r"(?<=\d) ?%", claim):
        ways.append(_put(claim, match, " percent"))
    elif match := re.search(r"(?<=\d) percent\b", claim):
        ways.append(_put(claim, match, "%"))
    return rng.choice(ways) if ways else None


def moved(claim: str, evidence: str, rng: random.Random) -> str | None:
    """Put what stands before the first comma, "In 1987", behind all else: it stays true."""
    del evidence, rng
    match = re.match(r"((?:In|On|At|After|Before|During|From|Since|Until) [^,]{3,40}), ([^;:]{12,})\.$", claim)
    if match is None or match[2].count(",") > 1:
        return None
    rest = match[2] if NAME.match(match[2]) else f"{match[2][0].upper()}{match[2][1:]}"
    return f"{rest} {match[1][0].lower()}{match[1][1:]}."


def less_exact(claim: str, evidence: str, rng: random.Random) -> str | None:
    """Leave the day out of a date: it stays true."""
    del evidence, rng
    months = "|".join(_MONTHS)
    shorter = re.sub(rf"\b[Oo]n (?:\d{{1,2}} ({months})|({months}) \d{{1,2}}),? (\d{{4}})", _month_and_year, claim)
    return shorter if shorter != claim else None


#: The edits that keep a claim true.
TRUE_EDITS: tuple[Edit, ...] = (unbracketed, unclaused, spelt_otherwise, moved, less_exact)


def false_edits(names: Sequence[str]) -> tuple[Edit, ...]:
    """Return the edits that make a true claim false; ``names`` are those of other texts."""
    return (other_number, other_year, other_count, other_name(names), negated, opposite)


def edited(claim: str, evidence: str, edits: Sequence[Edit], rng: random.Random) -> str | None:
    """Return ``claim`` after one of ``edits``, drawn by chance among those that find something; None if none does."""
    for edit in rng.sample(edits, len(edits)):
        found = edit(claim, evidence, rng)
        if found is not None and found != claim:
            return found
    return None


def _month_and_year(match: re.Match[str]) -> str:
    word = "In" if match.group().startswith("O") else "in"
    return f"{word} {match[1] or match[2]} {match[3]}"


def _any(matches: Iterable[re.Match[str]], rng: random.Random) -> re.Match[str] | None:
    found = list(matches)
    return rng.choice(found) if found else None


def _put(claim: str, match: re.Match[str], word: str) -> str:
    return claim[: match.start()] + word + claim[match.end() :]


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _near_number(number: str, rng: random.Random) -> str:
    """Return another number of the same look: a digit changed, or a factor of two to ten."""
    digits = [i for i, c in enumerate(number) if c.isdigit()]
    place = rng.choice(digits)
    choices = [c for c in "123456789" if c != number[place]]
    changed = number[:place] + rng.choice(choices) + number[place + 1 :]
    return changed if _value(changed) != _value(number) else f"{number}0"


def _unlike(name: str, other: str) -> bool:
    """Say whether two names share no word."""
    return not {*name.lower().split()} & {*other.lower().split()} - {"of", "the", "de", "von"}
