"""An amount with its unit: "145" of "145 euros per night" says less than "145 euros".

Knows the units of English running text, as words and as signs, and no arithmetic.
"""

from __future__ import annotations

import re

Span = tuple[int, int]

_NUMBER = re.compile(r"\d[\d,.]*(?:\s(?:hundred|thousand|million|billion|trillion))*")
_BEFORE = re.compile(r"(?:\b(?:US|A|C|EUR|USD|GBP|CHF)\s?)?[$€£¥]\s?$|\b(?:EUR|USD|GBP|CHF)\s$")
_SCALE = r"(?:\s(?:hundred|thousand|million|billion|trillion)\b)*"
_UNIT = (
    r"\s?(?:%|°[CF]?|[$€£¥])|\s(?:(?:per\s?cent|percent|euros?|dollars?|pounds?|francs?|yen|cents?"
    r"|kilomet(?:er|re)s?|(?:centi|milli)?met(?:er|re)s?|miles?|feet|foot|inch(?:es)?|km2?|cm|mm|kg|kilograms?|grams?"
    r"|tonn?e?s?|lit(?:er|re)s?|acres?|hectares?|years?|months?|weeks?|days?|hours?|minutes?|seconds?|degrees?"
    r"|EUR|USD|GBP|CHF)\b)"
)
_BEHIND = re.compile(rf"{_SCALE}(?:{_UNIT})?")


def whole_amount(text: str, span: Span) -> Span:
    """Return ``span`` with the unit that stands directly before or behind it, if ``text`` has but a number there."""
    start, end = span
    if not _NUMBER.fullmatch(text[start:end]):
        return span
    before, behind = _BEFORE.search(text[:start]), _BEHIND.match(text, end)
    return before.start() if before else start, behind.end() if behind else end
