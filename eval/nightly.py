"""Reports that run by themselves: those that wait, and those of the schedule, worked off beside the documents.

Any number of processes may look for work: a time of the schedule is in the catalog once, and a run is claimed by one of
them. After an outage the last time that was missed is caught up on, and no other. Knows the clock, and no page.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import structlog

from eval.findings import findings_of
from eval.gates import Gate, read_gates
from eval.notices import Notice, notice_of, notice_of_failure, notify
from eval.report import LEASE, Stopped, run_report, usual_parts
from eval.runs import Request, plain
from eval.schedule import Cron, read_cron
from rag.assembly import Citewell
from rag.errors import CitewellError, Unavailable
from rag.reported import Progress, Reported
from rag.settings import ReportSettings

log = structlog.get_logger(__name__)

#: Seconds between two looks for work, and between two while the catalog does not answer.
POLL_SECONDS, TROUBLE_SECONDS = 10.0, 60.0
#: Seconds that whoever stops this waits for the question in hand.
PATIENCE = 20.0


class Nightly:
    """Works off reports with a Citewell until told to stop. Raises `Misconfigured` for a schedule that is none."""

    def __init__(self, citewell: Citewell, began: datetime | None = None) -> None:
        self._citewell = citewell
        self._settings: ReportSettings = citewell.store.settings.report
        self._cron: Cron | None = None
        if self._settings.schedule:
            self._cron = read_cron(self._settings.schedule, self._settings.timezone)
        self._gates: tuple[Gate, ...] | None = read_gates(self._settings.gates) if self._settings.gates else None
        self._began = began or datetime.now(UTC)
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"

    def run(self, stop: threading.Event) -> None:
        """Look for reports until ``stop`` is set; what is in hand is given back then."""
        while not stop.is_set():
            pause = POLL_SECONDS
            try:
                if self.step(datetime.now(UTC), stop) is not None:
                    pause = 0.0
            except Stopped:
                return
            except Unavailable as error:
                log.error("reports wait", reason=error.message, seconds=TROUBLE_SECONDS)
                pause = TROUBLE_SECONDS
            except CitewellError as error:
                log.error("the report has failed", reason=error.message)
            except Exception:  # of a thread beside the documents, which go on
                log.exception("the report has failed")
            stop.wait(pause)

    def step(self, now: datetime, stop: threading.Event | None = None) -> Reported | None:
        """Ask for the report that is due, if one is, and work one off that waits; None if none does.

        Of a report that is given up, since process after process fell silent over it, everybody is told first.
        """
        self.ask_if_due(now)
        catalog = self._citewell.store.catalog
        for given_up in catalog.give_up_reports():
            log.error("report given up", report=given_up.id, reason=given_up.error)
            self._tell(notice_of_failure(given_up), stop)
        reported = catalog.claim_report(self.owner, LEASE)
        if reported is None:
            return None
        log.info("report begins", report=reported.id, due=str(reported.due_at or ""))
        try:
            with usual_parts(self._citewell, self._gates, share=self._settings.share) as parts:
                run_report(self._citewell, reported, self.owner, parts, stop=stop)
        except Exception:
            if (failed := catalog.report(reported.id)).state is Progress.FAILED:
                self._tell(notice_of_failure(failed), stop)
            raise
        ended = catalog.report(reported.id)
        found = findings_of(catalog, ended)
        log.info("report ended", report=reported.id, passed=found.verdict.passed, reasons=list(found.verdict.reasons))
        self._tell(notice_of(found), stop)
        return ended

    def _tell(self, notice: Notice, stop: threading.Event | None) -> None:
        for failure in notify(self._settings, notice, (stop or threading.Event()).wait):
            log.error("nobody was told of the report", report=notice.report_id, reason=failure)

    def ask_if_due(self, now: datetime) -> Reported | None:
        """Ask for the report of the last time of the schedule that has passed, unless somebody has."""
        if self._cron is None:
            return None
        catalog = self._citewell.store.catalog
        due = self._cron.last(now, catalog.last_due() or self._began)
        if due is None:
            return None
        request = Request(tuple(self._settings.collections), label="")
        return catalog.open_report(plain(request), due)


@contextmanager
def beside(citewell: Citewell, stop: threading.Event) -> Iterator[None]:
    """Work off reports in a thread while this lasts; raises `Misconfigured` for a schedule or gates that are wrong."""
    nightly = Nightly(citewell)
    thread = threading.Thread(target=nightly.run, args=(stop,), name="reports", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE)
