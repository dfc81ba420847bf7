"""Reports: asked for, listed, read as JSON, as a page or as metrics, removed.

A report is made by the worker beside the server, which takes up what waits here. Knows no metric.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from api.report_schemas import ReportList, ReportReply, ReportRequest
from api.routes.parts import Whole, problems
from eval.findings import as_json, as_prometheus, findings_of
from eval.page import POLICY, as_html
from eval.runs import Request, plain
from rag.errors import NotFound
from rag.reported import Progress

router = APIRouter(prefix="/v1/reports", tags=["reports"])

ReportId = Annotated[str, Path(description="Id of the report.", examples=["3f1d0c9e8b7a46529c3d2e1f0a9b8c7d"])]
METRICS_TYPE = "text/plain; version=0.0.4"


class Form(StrEnum):
    """How a report is read."""

    JSON = "json"
    HTML = "html"
    PROMETHEUS = "prometheus"


@router.post("", status_code=202, summary="Ask for a report", responses=problems(400, 404, 422, 503))
def ask_for_report(body: ReportRequest, citewell: Whole) -> ReportReply:
    """Puts a report into the queue; the worker makes it in the background. Read it by its id until it is `done`."""
    catalog = citewell.store.catalog
    about = body.collections
    if not about and not catalog.caller.sees_all:  # none named means all, which are not the caller's
        about = [collection.name for collection in catalog.list_collections(counted=False)]
        if not about:
            raise NotFound("There is no collection to report on.")
    for name in about:
        catalog.collection(name, counted=False)
    request = Request(tuple(about), body.since, body.limit, body.label or "")
    reported = catalog.open_report(plain(request))
    if reported is None:
        raise AssertionError("only a time of the schedule can be taken")
    return ReportReply.of(reported)


@router.get("", summary="List the last reports", responses=problems(422, 503))
def list_reports(
    citewell: Whole, limit: Annotated[int, Query(ge=1, le=100, description="Most reports.")] = 20
) -> ReportList:
    """Lists reports without their figures, the newest first."""
    return ReportList(reports=[ReportReply.of(one) for one in citewell.store.catalog.list_reports(limit=limit)])


@router.get(
    "/{report_id}",
    summary="Read a report",
    response_model=ReportReply,
    responses=problems(404, 409, 422, 503)
    | {200: {"description": "The report.", "model": ReportReply, "content": {"text/html": {}, "text/plain": {}}}},
)
def read_report(
    report_id: ReportId,
    citewell: Whole,
    form: Annotated[
        Form | None, Query(alias="format", description="By default JSON, or a page for who accepts HTML before all.")
    ] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Shows a report: as JSON, as one self-contained page, or as metrics in Prometheus' text format.

    One that is not done has no figures yet; as a page or as metrics it is refused then.
    """
    catalog = citewell.store.catalog
    reported = catalog.report(report_id)
    chosen = form or (Form.HTML if accept.startswith("text/html") else Form.JSON)
    if chosen is Form.HTML:
        headers = {"Content-Security-Policy": POLICY}
        return HTMLResponse(as_html(findings_of(catalog, reported), "/v1/answers"), headers=headers)
    if chosen is Form.PROMETHEUS:
        return PlainTextResponse(as_prometheus(findings_of(catalog, reported)), media_type=METRICS_TYPE)
    figures = as_json(findings_of(catalog, reported)) if reported.state is Progress.DONE else None
    return Response(ReportReply.of(reported, figures).model_dump_json(), media_type="application/json")


@router.delete("/{report_id}", status_code=204, summary="Remove a report", responses=problems(404, 422, 503))
def remove_report(report_id: ReportId, citewell: Whole) -> None:
    """Removes a report with its figures; the answers that it asked for stay in the log."""
    citewell.store.catalog.delete_report(report_id)
