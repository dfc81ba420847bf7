"""When the nightly report is due: the five fields of cron, and which time of the schedule is the last one past.

    minute hour day-of-month month day-of-week        as in crontab(5): * , - / and names of months and days

Where both days are restricted, one of them has to fit, as cron has it. Times are those of a clock on the wall in a time
zone: one that the clock skips in spring comes as much later, one that it shows twice in autumn counts once, the first
time. Knows no report.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from rag.errors import Misconfigured

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_DAYS = "sun mon tue wed thu fri sat".split()
_ITEM = re.compile(r"(?P<first>\*|[0-9a-z]+)(?:-(?P<last>[0-9a-z]+))?(?:/(?P<step>[0-9]+))?")
_SHORT = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}
#: Days that are looked through for a time: 29 February falls on each day of the week within 40 years.
_DAYS_AHEAD = 366 * 41


@dataclass(frozen=True, slots=True)
class Cron:
    """A schedule: the numbers that each field allows; ``either`` if both days are restricted, so that one is enough."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool
    zone: tzinfo = UTC

    def after(self, moment: datetime) -> datetime:
        """Return the first time of the schedule that is later than an aware ``moment``, in UTC."""
        day = moment.astimezone(self.zone).date()
        start = datetime(day.year, day.month, day.day) - timedelta(days=1)  # noqa: DTZ001 -- a clock on the wall
        for number in range(_DAYS_AHEAD):
            later = [at for at in self._times(start + timedelta(days=number)) if at > moment]
            if later:
                return min(later)
        raise AssertionError("a schedule that was read has a time within 41 years")

    def last(self, moment: datetime, since: datetime) -> datetime | None:
        """Return the last time of the schedule in (since, moment], in UTC; None if there is none."""
        day = moment.astimezone(self.zone).date()
        start = datetime(day.year, day.month, day.day) + timedelta(days=1)  # noqa: DTZ001 -- a clock on the wall
        begin = since.astimezone(self.zone).replace(tzinfo=None) - timedelta(days=1)
        for number in range(_DAYS_AHEAD):
            midnight = start - timedelta(days=number)
            past = [at for at in self._times(midnight) if at <= moment]
            if past or midnight < begin:
                found = max(past, default=since)
                return found if found > since else None
        return None

    def _times(self, day: datetime) -> Iterator[datetime]:
        """Yield the times of a day, given by its midnight on the wall, in UTC."""
        if not self._is_day(day):
            return
        for hour in sorted(self.hours):
            for minute in sorted(self.minutes):
                yield day.replace(hour=hour, minute=minute, tzinfo=self.zone).astimezone(UTC)

    def _is_day(self, day: datetime) -> bool:
        if day.month not in self.months:
            return False
        fits = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return any(fits) if self.either else all(fits)


def read_cron(text: str, zone: str = "UTC") -> Cron:
    """Return the schedule that five fields say; raises `Misconfigured` with the field that is wrong."""
    fields = _SHORT.get(text.strip().lower(), text).lower().split()
    if len(fields) != 5:
        raise Misconfigured(f"The schedule {text[:60]!r} has not the five fields of cron, for example '30 2 * * *'.")
    minutes, hours = _numbers(fields[0], "minute", 0, 59), _numbers(fields[1], "hour", 0, 23)
    days, months = _numbers(fields[2], "day", 1, 31), _numbers(fields[3], "month", 1, 12, _MONTHS)
    weekdays = frozenset(day % 7 for day in _numbers(fields[4], "weekday", 0, 7, _DAYS))
    either = not fields[2].startswith("*") and not fields[4].startswith("*")
    longest = {2: 29} | dict.fromkeys((4, 6, 9, 11), 30)
    if not either and not any(day <= longest.get(month, 31) for day in days for month in months):
        raise Misconfigured(f"The schedule {text[:60]!r} names a date that no year has.")
    try:
        return Cron(minutes, hours, days, months, weekdays, either, UTC if zone == "UTC" else ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise Misconfigured(f"There is no time zone {zone[:60]!r}; an example is Europe/Berlin.") from error


def _numbers(field: str, name: str, least: int, most: int, names: list[str] | None = None) -> frozenset[int]:
    """Return the numbers that a field allows, for example ``1-5,10`` or ``*/15``."""
    found: set[int] = set()
    for item in field.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise _wrong(name, field)
        step = int(match["step"] or 1)
        if match["first"] == "*":
            first, last = least, most
        else:
            first = _number(match["first"], name, field, least, names)
            open_end = most if match["step"] else first
            last = _number(match["last"], name, field, least, names) if match["last"] else open_end
        if not (least <= first <= last <= most) or step < 1 or (match["first"] == "*" and match["last"]):
            raise _wrong(name, field)
        found |= set(range(first, last + 1, step))
    return frozenset(found)


def _number(word: str, name: str, field: str, least: int, names: list[str] | None) -> int:
    if word.isdecimal():
        return int(word)
    if names is None or word not in names:
        raise _wrong(name, field)
    return names.index(word) + (1 if least else 0)


def _wrong(name: str, field: str) -> Misconfigured:
    return Misconfigured(f"The schedule has the {name} {field[:40]!r}, which is none as crontab(5) has it.")
