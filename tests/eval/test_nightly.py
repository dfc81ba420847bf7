"""Reports by themselves: once for each time of the schedule whoever looks, caught up on once, and given back."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

from eval.nightly import Nightly, beside
from eval.runs import Request, plain
from rag.assembly import open_citewell
from rag.catalog.reports import MOST_CLAIMS
from rag.errors import BadInput, Misconfigured
from rag.golden import Proposed
from rag.reported import Progress
from rag.settings import ReportSettings
from rag.testing import WordEmbedder
from tests.eval.test_notices import SECRET, webhook

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NIGHT = {"schedule": "30 2 * * *", "generated": 0, "traffic": 0}


@pytest.fixture
def opened(settings):
    """What opens a Citewell over the same data with settings for its reports."""

    def open_with(**values):
        changed = settings.model_copy(update={"report": ReportSettings(**{**NIGHT, **values})})
        return open_citewell(changed, embedder=WordEmbedder())

    return open_with


def prepared(citewell):
    """A collection with one golden question that nothing answers."""
    catalog = citewell.store.catalog
    owner = catalog.ensure_collection("demo")
    catalog.add_golden(owner.id, [Proposed("Which engine drives the red locomotive?", answerable=False)])
    return catalog


def dues(catalog):
    return sorted(one.due_at for one in catalog.list_reports() if one.due_at)


def test_a_report_is_made_once_for_each_time_whoever_looks(opened):
    with opened() as citewell:
        catalog = prepared(citewell)
        workers = [Nightly(citewell, START) for _ in range(3)]
        ended = [worker.step(START + timedelta(hours=hour)) for hour in range(0, 60, 4) for worker in workers]
        made = [one for one in ended if one is not None]
        assert dues(catalog) == [datetime(2026, 11, day, 2, 30, tzinfo=UTC) for day in (23, 24)]
        assert [one.state for one in made] == [Progress.DONE] * 2
        assert [one.answered for one in made] == [1, 1]


def test_many_that_look_at_the_same_time_make_one(opened):
    with opened() as citewell:
        catalog = prepared(citewell)
        at = START + timedelta(days=1)
        threads = [threading.Thread(target=Nightly(citewell, START).ask_if_due, args=(at,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(catalog.list_reports()) == 1


def test_after_an_outage_only_the_last_time_is_caught_up_on(opened):
    with opened() as citewell:
        catalog = prepared(citewell)
        assert Nightly(citewell, START).step(START + timedelta(days=1)) is not None
        later = Nightly(citewell, START + timedelta(days=9))
        assert later.step(START + timedelta(days=9)) is not None
        assert later.step(START + timedelta(days=9)) is None
        assert dues(catalog) == [datetime(2026, 11, 23, 2, 30, tzinfo=UTC), datetime(2026, 12, 1, 2, 30, tzinfo=UTC)]


def test_a_schedule_that_is_new_begins_with_its_next_time(opened):
    with opened() as citewell:
        prepared(citewell)
        assert Nightly(citewell, START).step(START) is None


def test_what_was_asked_for_is_made_without_a_schedule(opened):
    """And told to who wants to know."""
    with webhook(200) as (url, calls), opened(schedule="", webhook_url=url, webhook_secret=SECRET) as citewell:
        asked = prepared(citewell).open_report(plain(Request(("demo",))))
        ended = Nightly(citewell).step(START)
    assert (ended.id, ended.state) == (asked.id, Progress.DONE)
    assert asked.id in calls[0][1].decode()


def test_of_a_report_that_can_not_be_made_people_are_told(opened):
    """There is nothing to ask: the run has failed, and whoever is told of reports is told why."""
    with webhook(200) as (url, calls), opened(schedule="", webhook_url=url, webhook_secret=SECRET) as citewell:
        citewell.store.catalog.create_collection("empty")
        failed = citewell.store.catalog.open_report(plain(Request(("empty",))))
        with pytest.raises(BadInput):
            Nightly(citewell).step(START)
    told = json.loads(calls[0][1])
    assert (told["report_id"], told["passed"], told["headlines"]) == (failed.id, False, {})
    assert told["reasons"][0].startswith("The report could not be made. There is no question to ask")


def test_a_time_whose_report_was_removed_is_not_caught_up_on(opened):
    with opened() as citewell:
        catalog = prepared(citewell)
        at = START + timedelta(days=1)
        catalog.delete_report(Nightly(citewell, START).step(at).id)
        assert Nightly(citewell, START).step(at + timedelta(hours=1)) is None
        assert Nightly(citewell, START).step(at + timedelta(days=1)) is not None


def test_a_worker_that_dies_over_a_report_leaves_it_to_another(opened):
    """Its lease runs out; the next one to look goes on with it."""
    with opened() as citewell:
        catalog = prepared(citewell)
        asked = catalog.open_report(plain(Request(("demo",))))
        assert catalog.claim_report("dead", -1.0).id == asked.id
        assert Nightly(citewell, START).step(START).id == asked.id


def test_of_a_report_over_which_worker_after_worker_died_people_are_told(opened):
    """Once, by the next one that looks, which then works off what waits behind it."""
    with webhook(200, 200) as (url, calls), opened(schedule="", webhook_url=url, webhook_secret=SECRET) as citewell:
        catalog = prepared(citewell)
        asked, behind = (catalog.open_report(plain(Request(("demo",)))) for _ in range(2))
        for number in range(MOST_CLAIMS):
            assert catalog.claim_report(f"dead {number}", -1.0, asked.id).id == asked.id
        assert Nightly(citewell).step(START).id == behind.id
        assert Nightly(citewell).step(START) is None
    told = [json.loads(body) for _, body in calls]
    assert [one["report_id"] for one in told] == [asked.id, behind.id]
    assert "5 processes began this report and fell silent over it" in told[0]["reasons"][0]


def test_reports_are_made_beside_other_work_and_failures_end_nothing(opened):
    """The first has nothing to ask and fails, which is kept; the second is made by whoever looks next."""
    with opened(schedule="") as citewell:
        catalog = citewell.store.catalog
        catalog.create_collection("empty")
        first = catalog.open_report(plain(Request(("empty",))))
        prepared(citewell)
        second = catalog.open_report(plain(Request(("demo",))))
        stop = threading.Event()
        with beside(citewell, stop):
            for _ in range(600):
                if catalog.report(first.id).state is Progress.FAILED:
                    break
                stop.wait(0.05)
        assert catalog.report(first.id).state is Progress.FAILED
        assert Nightly(citewell, START).step(START).id == second.id


@pytest.mark.parametrize(
    "values",
    [{"schedule": "at night"}, {"timezone": "Mars/Olympus"}],
    ids=["no_schedule", "no_time_zone"],
)
def test_a_schedule_that_is_none_is_refused_at_the_start(opened, values):
    with opened(**values) as citewell, pytest.raises(Misconfigured):
        Nightly(citewell)
