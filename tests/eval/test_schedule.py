"""When a report is due: cron's fields by hand and against a plain twin, summer time, and what was missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.schedule import Cron, read_cron
from rag.errors import Misconfigured


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("fields", "moment", "due"),
    [
        pytest.param("30 2 * * *", "2026-11-22 02:30", "2026-11-23 02:30", id="later_than_the_moment"),
        pytest.param("30 2 * * *", "2026-11-22 02:29:59", "2026-11-22 02:30", id="this_minute"),
        pytest.param("*/15 * * * *", "2026-11-22 23:50", "2026-11-23 00:00", id="over_midnight"),
        pytest.param("0 4 * * mon-fri", "2026-11-20 05:00", "2026-11-23 04:00", id="over_a_weekend"),
        pytest.param("0 0 1 jan *", "2026-01-01 00:00", "2027-01-01 00:00", id="once_a_year"),
        pytest.param("0 0 29 2 *", "2026-01-01 00:00", "2028-02-29 00:00", id="leap_day"),
        pytest.param("0 0 13 * fri", "2026-11-22 00:00", "2026-11-27 00:00", id="either_day"),
        pytest.param("0 0 */2 * 1", "2026-11-22 00:00", "2026-11-23 00:00", id="a_star_restricts_no_day"),
        pytest.param("5 0 * * 7", "2026-11-23 00:00", "2026-11-29 00:05", id="sunday_is_0_and_7"),
        pytest.param("10-30/10 1,3 * * *", "2026-11-22 01:30", "2026-11-22 03:10", id="lists_ranges_steps"),
        pytest.param("@weekly", "2026-11-22 12:00", "2026-11-29 00:00", id="by_name"),
    ],
)
def test_the_next_time_by_hand(fields, moment, due):
    assert read_cron(fields).after(at(moment)) == at(due)


@pytest.mark.parametrize(
    "fields",
    ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "*/0 * * * *", "5-1 * * * *",
     "a * * * *", "1, * * * *", "* * 30 2 *", "* * 31 4,6 *", "*-5 * * * *", "mon * * * *", "1.5 * * * *"],
)  # fmt: skip
def test_what_is_no_schedule_is_refused_in_a_sentence(fields):
    with pytest.raises(Misconfigured, match=r"schedule.*\.$"):
        read_cron(fields)


def test_a_time_zone_that_is_none_is_refused():
    with pytest.raises(Misconfigured, match="time zone 'Mars/Olympus'"):
        read_cron("@daily", "Mars/Olympus")


fields = st.tuples(
    st.sets(st.integers(0, 59), min_size=1, max_size=3),
    st.sets(st.integers(0, 23), min_size=1, max_size=3),
    st.sets(st.integers(1, 28), max_size=3),
    st.sets(st.integers(1, 12), max_size=3),
    st.sets(st.integers(0, 6), max_size=3),
)
moments = st.integers(0, 2 * 365 * 86_400).map(lambda seconds: at("2026-01-01") + timedelta(seconds=seconds))


def written(parts) -> str:
    return " ".join(",".join(map(str, sorted(part))) or "*" for part in parts)


def fits(parts, moment: datetime) -> bool:
    """The rule of crontab(5), a minute at a time."""
    minutes, hours, days, months, weekdays = parts
    if moment.minute not in minutes or moment.hour not in hours or (months and moment.month not in months):
        return False
    day, weekday = moment.day in days, moment.isoweekday() % 7 in weekdays
    return (day or weekday) if days and weekdays else (not days or day) and (not weekdays or weekday)


@given(fields, moments)
def test_the_next_time_fits_and_none_before_it_does(parts, moment):
    """Every minute between the moment and the time, at most two days of them, is none of the schedule."""
    due = read_cron(written(parts)).after(moment)
    assert due > moment
    assert fits(parts, due)
    minute = moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
    while minute < min(due, moment + timedelta(days=2)):
        assert not fits(parts, minute)
        minute += timedelta(minutes=1)


@given(fields, moments, st.integers(0, 10 * 24 * 60))
def test_the_last_time_is_the_one_after_which_none_came(parts, since, minutes):
    cron, now = read_cron(written(parts)), since + timedelta(minutes=minutes)
    last = cron.last(now, since)
    if last is None:
        assert cron.after(since) > now
    else:
        assert since < last <= now
        assert cron.after(last) > now


def test_an_outage_of_a_week_is_one_time_that_was_missed():
    cron = read_cron("30 2 * * *")
    assert cron.last(at("2026-11-22 12:00"), at("2026-11-15 02:30")) == at("2026-11-22 02:30")
    assert cron.last(at("2026-11-22 12:00"), at("2026-11-22 02:30")) is None


def berlin(fields: str) -> Cron:
    return read_cron(fields, "Europe/Berlin")


def test_times_are_those_of_the_clock_on_the_wall():
    """Half past two is 01:30 UTC in winter and 00:30 UTC in summer."""
    assert berlin("30 2 * * *").after(at("2026-01-10 12:00")) == at("2026-01-11 01:30")
    assert berlin("30 2 * * *").after(at("2026-07-10 12:00")) == at("2026-07-11 00:30")


def test_a_time_that_the_clock_skips_comes_an_hour_later_and_one_that_it_repeats_once():
    """29 March 2026: 02:30 is not shown. 25 October 2026: it is shown twice, and the first one counts."""
    spring = berlin("30 2 * * *").after(at("2026-03-28 12:00"))
    assert spring.astimezone(ZoneInfo("Europe/Berlin")).strftime("%d %H:%M") == "29 03:30"
    autumn = berlin("30 2 * * *")
    first = autumn.after(at("2026-10-24 12:00"))
    assert (first, autumn.after(first)) == (at("2026-10-25 00:30"), at("2026-10-26 01:30"))
