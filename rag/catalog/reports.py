"""Report runs in the catalog: asked for, claimed by one process at a time, kept question by question, and listed.

A time of the schedule is claimed by the row that names it, which can be there once. A run whose process died is claimed
by another one and goes on behind the last question that is kept, until too many have died over it. Knows nothing of
what is measured.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from rag.catalog.part import Part, now, packed_text, slices, unpacked_text
from rag.errors import NotFound
from rag.reported import Progress, Reported, ReportItem, Spent
from rag.schema import UtcDateTime, report_items, reports

_NO_LEASE: dict[str, Any] = {"lease_owner": None, "lease_until": None}
#: So many processes may fall silent over a run before it is called failed.
MOST_CLAIMS = 5
_DEAD = f"{MOST_CLAIMS} processes began this report and fell silent over it; the log of the last one may say why."
_THERE = reports.c.state != Progress.REMOVED.value
#: What an owner has spent since it last said so, if it does not say.
_NOTHING = Spent()


class Reports(Part):
    """The part of the catalog that knows report runs."""

    def open_report(self, request: Mapping[str, Any], due_at: datetime | None = None) -> Reported | None:
        """Ask for a run, which waits until it is claimed; None if there is one for that time of the schedule."""
        row = {
            "id": secrets.token_hex(16), "created_at": now(), "state": Progress.QUEUED.value, "request": dict(request),
            "due_at": due_at,
        }  # fmt: skip
        with self._write() as connection:
            made = connection.scalar(self._database.insert_new(reports).returning(reports.c.id), row)
            if made is not None:
                self._note(connection, "report.ask", made)
        return None if made is None else self.report(made)

    def add_report(
        self,
        request: Mapping[str, Any],
        summary: Mapping[str, Any],
        settings_digest: str,
        items: Sequence[ReportItem],
        started_at: datetime,
    ) -> Reported:
        """Keep a run that was made elsewhere and has ended now."""
        report_id = secrets.token_hex(16)
        row = {
            "id": report_id, "created_at": now(), "started_at": started_at, "ended_at": now(),
            "state": Progress.DONE.value, "request": dict(request), "settings_digest": settings_digest,
            "summary": packed_text(json.dumps(dict(summary))),
        }  # fmt: skip
        with self._write() as connection:
            connection.execute(reports.insert(), row)
            if items:
                connection.execute(report_items.insert(), [_item_row(report_id, item) for item in items])
            self._note(connection, "report.add", report_id)
        return self.report(report_id)

    def claim_report(self, owner: str, lease_seconds: float, report_id: str | None = None) -> Reported | None:
        """Take the run that waits longest, or whose owner is silent for longer than its lease; None if there is none.

        With ``report_id`` that one or none. What is to be given up is not taken, see `give_up_reports`.
        """
        with self._read() as connection:  # who looks for work must not take the write lock
            if connection.scalar(_waiting(self._database.now(connection), report_id)) is None:
                return None
        with self._write() as connection:
            at = self._database.now(connection)
            found = connection.scalar(_waiting(at, report_id).with_for_update(skip_locked=True))
            if found is None:
                return None
            lease = {"lease_owner": owner, "lease_until": at + timedelta(seconds=lease_seconds)}
            began = sa.literal(now(), UtcDateTime)
            begun = {
                "state": Progress.RUNNING.value, "started_at": sa.func.coalesce(reports.c.started_at, began),
                "claims": reports.c.claims + 1,
            }  # fmt: skip
            connection.execute(reports.update().where(reports.c.id == found).values(lease | begun))
        return self.report(found)

    def give_up_reports(self) -> tuple[Reported, ...]:
        """End the runs over which `MOST_CLAIMS` processes fell silent, as failed, and return them: each once."""
        with self._read() as connection:
            if connection.scalar(_given_up(self._database.now(connection))) is None:
                return ()
        with self._write() as connection:
            query = _given_up(self._database.now(connection)).with_for_update(skip_locked=True)
            found = tuple(connection.scalars(query))
            failed = {"state": Progress.FAILED.value, "ended_at": now(), "error": _DEAD, **_NO_LEASE}
            connection.execute(reports.update().where(reports.c.id.in_(found)).values(failed))
        return tuple(self.report(report_id) for report_id in found)

    def add_report_item(
        self, report_id: str, owner: str, item: ReportItem, lease_seconds: float, spent: Spent = _NOTHING
    ) -> bool:
        """Keep what came of a question, in place of what was kept of it, add what it took, and prolong the lease.

        False, and nothing is kept, if the lease is lost.
        """
        with self._write() as connection:
            if not self._held(connection, report_id, owner, lease_seconds, spent):
                return False
            same = (report_items.c.report_id == report_id) & (report_items.c.number == item.number)
            connection.execute(report_items.delete().where(same))
            connection.execute(report_items.insert(), _item_row(report_id, item))
        return True

    def beat_report(self, report_id: str, owner: str, lease_seconds: float, spent: Spent = _NOTHING) -> bool:
        """Prolong the lease of a run and add what was spent on it; False if the lease is lost."""
        with self._write() as connection:
            return self._held(connection, report_id, owner, lease_seconds, spent)

    def _held(self, connection: sa.Connection, report_id: str, owner: str, lease_seconds: float, spent: Spent) -> bool:
        until = self._database.now(connection) + timedelta(seconds=lease_seconds)
        more = {"seconds": reports.c.seconds + spent.seconds, "tokens": reports.c.tokens + spent.tokens}
        held = reports.update().where(_mine(report_id, owner)).values(lease_until=until, **more)
        return bool(connection.execute(held).rowcount)

    def end_report(
        self,
        report_id: str,
        owner: str,
        summary: Mapping[str, Any] | None,
        settings_digest: str,
        error: str | None = None,
    ) -> bool:
        """End a run: done, or failed with an ``error``; False if the lease is lost."""
        state = Progress.FAILED if error else Progress.DONE
        row = {
            "state": state.value, "ended_at": now(), "settings_digest": settings_digest, "error": error,
            "summary": None if summary is None else packed_text(json.dumps(dict(summary))), **_NO_LEASE,
        }  # fmt: skip
        with self._write() as connection:
            return bool(connection.execute(reports.update().where(_mine(report_id, owner)).values(row)).rowcount)

    def release_report(self, report_id: str, owner: str) -> None:
        """Give a run back that was begun, for another process to go on with; nobody has died over it then."""
        waits = {"state": Progress.QUEUED.value, "claims": reports.c.claims - 1, **_NO_LEASE}
        with self._write() as connection:
            connection.execute(reports.update().where(_mine(report_id, owner)).values(waits))

    def report(self, report_id: str) -> Reported:
        """Return a run; raises `NotFound`."""
        found = self._reports(sa.select(reports).where(_THERE & (reports.c.id == report_id)))
        if not found:
            raise NotFound(f"There is no report {report_id[:64]!r}; `citewell report list` shows what there is.")
        return found[0]

    def report_items(self, report_id: str) -> list[ReportItem]:
        """Return what came of the questions of a run so far, in their order."""
        mine = sa.select(report_items).where(report_items.c.report_id == report_id).order_by(report_items.c.number)
        with self._read() as connection:
            rows = connection.execute(mine).all()
        return [ReportItem(row.number, row.answer_id, json.loads(unpacked_text(row.data))) for row in rows]

    def list_reports(
        self, *, state: Progress | None = None, before: datetime | None = None, limit: int = 20
    ) -> list[Reported]:
        """Return the last runs, the newest first: those in a ``state``, and asked for ``before`` a moment."""
        query = sa.select(reports).where(_THERE)
        if state is not None:
            query = query.where(reports.c.state == state.value)
        if before is not None:
            query = query.where(reports.c.created_at < before)
        return self._reports(query.order_by(reports.c.created_at.desc(), reports.c.id), limit)

    def last_due(self) -> datetime | None:
        """Return the last time of the schedule for which a run was asked."""
        with self._read() as connection:
            found: datetime | None = connection.scalar(sa.select(sa.func.max(reports.c.due_at)))
        return found

    def delete_report(self, report_id: str) -> None:
        """Remove a run with its figures; raises `NotFound`."""
        self.report(report_id)
        with self._write() as connection:
            if not _remove(connection, reports.c.id == report_id):
                raise NotFound(f"There is no report {report_id[:64]!r}; `citewell report list` shows what there is.")
            self._note(connection, "report.delete", report_id)

    def forget_reports(self, before: datetime) -> int:
        """Remove the runs that ended before a moment; return how many."""
        old = reports.c.ended_at < before
        with self._read() as connection:
            if connection.scalar(sa.select(reports.c.id).where(_THERE & old).limit(1)) is None:
                return 0
        with self._write() as connection:
            return _remove(connection, old)

    def _reports(self, query: sa.Select[Any], limit: int = 1) -> list[Reported]:
        """Return the first runs that a query finds and the caller sees: those about the caller's collections alone."""
        if self._caller.collections is not None:
            bare = query.with_only_columns(reports.c.id, reports.c.request)
            with self._read() as connection:
                ids = [row.id for row in connection.execute(bare) if _is_about(row.request, self._caller.collections)]
            query = query.where(reports.c.id.in_(ids[:limit]))
        count = sa.select(report_items.c.report_id, sa.func.count()).group_by(report_items.c.report_id)
        with self._read() as connection:
            rows = connection.execute(query.limit(limit)).all()
            ids = [row.id for row in rows]
            counted = connection.execute(count.where(report_items.c.report_id.in_(ids))).all()
            answered = {row[0]: int(row[1]) for row in counted}
        return [_reported(row, answered.get(row.id, 0)) for row in rows]


def _item_row(report_id: str, item: ReportItem) -> dict[str, Any]:
    data = packed_text(json.dumps(dict(item.data)))
    return {"report_id": report_id, "number": item.number, "answer_id": item.answer_id, "data": data}


def _waiting(at: datetime, report_id: str | None) -> sa.Select[Any]:
    query = sa.select(reports.c.id).where(_unheld(at), reports.c.claims < MOST_CLAIMS)
    if report_id is not None:
        query = query.where(reports.c.id == report_id)
    return query.order_by(reports.c.created_at, reports.c.id).limit(1)


def _given_up(at: datetime) -> sa.Select[Any]:
    return sa.select(reports.c.id).where(_unheld(at), reports.c.claims >= MOST_CLAIMS).order_by(reports.c.created_at)


def _unheld(at: datetime) -> sa.ColumnElement[bool]:
    """Say whether a run waits, or its owner is silent for longer than its lease."""
    silent = (reports.c.state == Progress.RUNNING.value) & (reports.c.lease_until < at)
    return (reports.c.state == Progress.QUEUED.value) | silent


def _is_about(request: Mapping[str, Any], names: frozenset[str]) -> bool:
    """Say whether a run is about some of these collections and no other one; named none, it is about all there are."""
    about = request.get("collections") or ()
    return bool(about) and names.issuperset(about)


def _remove(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> int:
    """Remove runs with their items and return how many. Of the last time of the schedule a mark stays.

    Without it the time would seem to be missed, and would be caught up on.
    """
    here = sa.select(reports.c.id).where(_THERE & condition).order_by(reports.c.id).with_for_update()
    ids = [*connection.scalars(here)]
    bare = {
        "state": Progress.REMOVED.value, "request": {}, "summary": None, "error": None, "settings_digest": None,
        **_NO_LEASE,
    }  # fmt: skip
    for some in slices(ids):
        connection.execute(report_items.delete().where(report_items.c.report_id.in_(some)))
        connection.execute(reports.update().where(reports.c.id.in_(some)).values(bare))
    last = sa.select(sa.func.max(reports.c.due_at)).scalar_subquery()
    past = reports.c.due_at.is_(None) | (reports.c.due_at < last)
    connection.execute(reports.delete().where((reports.c.state == Progress.REMOVED.value) & past))
    return len(ids)


def _mine(report_id: str, owner: str) -> sa.ColumnElement[bool]:
    return (reports.c.id == report_id) & (reports.c.lease_owner == owner)


def _reported(row: sa.Row[Any], answered: int) -> Reported:
    return Reported(
        row.id, row.created_at, Progress(row.state), row.request, row.due_at, row.started_at, row.ended_at,
        row.settings_digest, json.loads(unpacked_text(row.summary)) if row.summary else None, row.error, answered,
        Spent(row.seconds, row.tokens),
    )  # fmt: skip
