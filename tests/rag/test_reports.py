"""Report runs in the catalog: kept whole, claimed by one, taken over from the dead, once for each due time."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from rag.catalog.reports import MOST_CLAIMS
from rag.errors import NotFound
from rag.reported import Progress, ReportItem, Spent

DUE = datetime(2026, 11, 23, 2, 30, tzinfo=UTC)
REQUEST = {"collections": ["c"], "label": "a"}


def test_a_run_comes_back_as_it_was_kept(catalog):
    asked = catalog.open_report(REQUEST, DUE)
    assert (asked.state, asked.request, asked.due_at, asked.answered) == (Progress.QUEUED, REQUEST, DUE, 0)
    claimed = catalog.claim_report("me", 60)
    assert (claimed.id, claimed.state, claimed.started_at is not None) == (asked.id, Progress.RUNNING, True)
    items = [ReportItem(n, f"{n:032x}", {"scores": {"values": {"x": n / 7}}, "words": "é\u2028"}) for n in range(3)]
    for item in reversed(items):
        assert catalog.add_report_item(asked.id, "me", item, 60)
    assert catalog.report_items(asked.id) == items
    assert catalog.report(asked.id).answered == 3
    assert catalog.end_report(asked.id, "me", {"service": {"documents": 3}}, "digest")
    ended = catalog.report(asked.id)
    assert (ended.state, ended.summary, ended.settings_digest) == (
        Progress.DONE, {"service": {"documents": 3}}, "digest"
    )  # fmt: skip
    assert ended.started_at <= ended.ended_at
    assert catalog.list_reports() == [ended]


def test_what_is_kept_of_a_question_again_takes_the_place_of_what_was(catalog):
    asked = catalog.open_report(REQUEST)
    catalog.claim_report("me", 60)
    for value in (1, 2):
        assert catalog.add_report_item(asked.id, "me", ReportItem(0, None, {"value": value}), 60)
    assert catalog.report_items(asked.id) == [ReportItem(0, None, {"value": 2})]


def test_a_time_of_the_schedule_is_there_once(catalog):
    assert catalog.last_due() is None
    assert catalog.open_report(REQUEST, DUE) is not None
    assert catalog.open_report(REQUEST, DUE) is None
    assert catalog.open_report(REQUEST) is not None
    assert catalog.open_report(REQUEST, DUE + timedelta(days=1)) is not None
    assert catalog.last_due() == DUE + timedelta(days=1)


def test_of_many_that_claim_at_the_same_time_one_gets_it(catalog, open_another):
    asked = catalog.open_report(REQUEST)
    got: list[object] = []

    def claim(number: int) -> None:
        got.append(open_another().claim_report(f"worker {number}", 60))

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [claimed.id for claimed in got if claimed is not None] == [asked.id]


def test_the_oldest_waits_first_and_one_can_be_named(catalog):
    first, second, third = (catalog.open_report(REQUEST) for _ in range(3))
    assert catalog.claim_report("me", 60, second.id).id == second.id
    assert catalog.claim_report("me", 60, second.id) is None
    assert catalog.claim_report("me", 60).id == first.id
    assert catalog.claim_report("me", 60).id == third.id
    assert catalog.claim_report("me", 60) is None


def test_a_run_of_a_silent_owner_goes_to_another_and_the_first_can_write_no_more(catalog):
    asked = catalog.open_report(REQUEST)
    begun = catalog.claim_report("dead", -1)
    taken = catalog.claim_report("heir", 60)
    assert (taken.id, taken.started_at) == (asked.id, begun.started_at)
    assert not catalog.add_report_item(asked.id, "dead", ReportItem(0, None, {}), 60)
    assert not catalog.end_report(asked.id, "dead", {}, "")
    assert not catalog.beat_report(asked.id, "dead", 60)
    assert catalog.beat_report(asked.id, "heir", 60)
    assert catalog.report_items(asked.id) == []
    assert catalog.add_report_item(asked.id, "heir", ReportItem(0, None, {}), 60)


def test_a_run_that_is_given_back_waits_again(catalog):
    asked = catalog.open_report(REQUEST)
    catalog.claim_report("me", 60)
    catalog.release_report(asked.id, "somebody else")
    assert catalog.claim_report("other", 60) is None
    catalog.release_report(asked.id, "me")
    assert catalog.claim_report("other", 60).id == asked.id


def test_a_run_over_which_five_died_is_called_failed(catalog):
    """Who gives it back has not died over it; the sixth gets the next run that waits, and one calls it failed."""
    asked, behind = catalog.open_report(REQUEST), catalog.open_report(REQUEST)
    for _ in range(3):
        assert catalog.claim_report("stopped", 60, asked.id).id == asked.id
        catalog.release_report(asked.id, "stopped")
    for number in range(MOST_CLAIMS):
        assert catalog.give_up_reports() == ()
        assert catalog.claim_report(f"dead {number}", -1, asked.id).id == asked.id
    assert catalog.claim_report("heir", 60).id == behind.id
    [failed] = catalog.give_up_reports()
    assert (failed, ()) == (catalog.report(asked.id), catalog.give_up_reports())
    assert failed.state is Progress.FAILED
    assert failed.error.startswith("5 processes began this report and fell silent over it")
    assert catalog.claim_report("heir", 60, asked.id) is None
    assert not catalog.end_report(asked.id, "dead 4", {}, "")


def test_what_is_spent_adds_up_over_owners(catalog):
    asked = catalog.open_report(REQUEST)
    catalog.claim_report("dead", -1)
    assert catalog.beat_report(asked.id, "dead", -1, Spent(1.5, 10))
    assert catalog.claim_report("heir", 60).spent == Spent(1.5, 10)
    assert catalog.add_report_item(asked.id, "heir", ReportItem(0, None, {}), 60, Spent(0.5, 3_000_000_000))
    assert catalog.report(asked.id).spent == Spent(2.0, 3_000_000_010)


def test_a_run_made_elsewhere_is_kept_as_it_is(catalog):
    items = [ReportItem(0, None, {"x": 1}), ReportItem(1, None, {"x": 2})]
    made = catalog.add_report({"label": "folder"}, {"generator": "g"}, "digest", items, DUE)
    found = catalog.report(made.id)
    assert (found.state, found.started_at, found.summary) == (Progress.DONE, DUE, {"generator": "g"})
    assert catalog.report_items(made.id) == items
    assert catalog.claim_report("me", 60) is None


def test_runs_age_out_and_the_last_time_of_the_schedule_stays_taken(catalog):
    """Those that ended before go; the last due time is not caught up on though its run is nowhere to be seen."""
    names = [catalog.open_report(REQUEST, due).id for due in (None, DUE, DUE + timedelta(days=1))]
    waits = catalog.open_report(REQUEST)
    for name in names:
        catalog.claim_report("me", 60, name)
        catalog.add_report_item(name, "me", ReportItem(0, None, {}), 60)
        catalog.end_report(name, "me", {}, "")
    assert catalog.forget_reports(datetime.now(UTC) - timedelta(days=1)) == 0
    assert catalog.forget_reports(datetime.now(UTC) + timedelta(days=1)) == 3
    assert catalog.forget_reports(datetime.now(UTC) + timedelta(days=1)) == 0
    assert [one.id for one in catalog.list_reports()] == [waits.id]
    assert all(catalog.report_items(name) == [] for name in names)
    assert catalog.last_due() == DUE + timedelta(days=1)
    assert catalog.open_report(REQUEST, DUE + timedelta(days=1)) is None
    with pytest.raises(NotFound):
        catalog.report(names[2])
    with pytest.raises(NotFound):
        catalog.delete_report(names[2])
    later = catalog.open_report(REQUEST, DUE + timedelta(days=2))
    catalog.delete_report(later.id)
    assert catalog.last_due() == DUE + timedelta(days=2)
    with catalog._read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM reports").scalar() == 2


def test_a_run_that_failed_says_why_and_is_listed_by_its_state(catalog):
    asked = catalog.open_report(REQUEST)
    catalog.claim_report("me", 60)
    assert catalog.end_report(asked.id, "me", None, "digest", "Nothing to ask.")
    found = catalog.report(asked.id)
    assert (found.state, found.error, found.summary) == (Progress.FAILED, "Nothing to ask.", None)
    assert catalog.list_reports(state=Progress.DONE) == []
    assert catalog.list_reports(state=Progress.FAILED) == [found]
    assert catalog.list_reports(before=found.created_at) == []
    assert catalog.claim_report("other", 60) is None


def test_a_run_that_is_removed_is_gone_with_its_items(catalog):
    asked = catalog.open_report(REQUEST)
    catalog.claim_report("me", 60)
    catalog.add_report_item(asked.id, "me", ReportItem(0, None, {}), 60)
    catalog.delete_report(asked.id)
    assert catalog.report_items(asked.id) == []
    for call in (catalog.report, catalog.delete_report):
        with pytest.raises(NotFound, match="citewell report list"):
            call(asked.id)
