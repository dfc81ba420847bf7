"""Reports over REST and on the command line: asked for, made in the background, read in three forms, compared."""

from __future__ import annotations

import json
import re
import threading
from datetime import UTC, datetime

import pytest

from eval.figures import HEADLINES
from eval.nightly import Nightly
from rag.assembly import open_citewell
from rag.golden import GoldenDocument, Proposed
from rag.settings import ReportSettings
from tests.api.live import HOTEL, SAMPLES, problem
from tests.cli_process import Cli

POLICY = "2026/travel-policy.pdf"
GATES = '[[gate]]\nmetric = "correctness"\nminimum = {}\n'


@pytest.fixture
def asked(indexed, reading):
    """The id of a report on two golden questions, which a worker has made; other tests see nothing of it."""
    catalog = indexed.store.catalog
    owner = catalog.collection("demo").id
    golden = [
        Proposed(HOTEL, "145 euros", True, (GoldenDocument(POLICY),), frozenset({"travel"})),
        Proposed("Which engine drives the red locomotive?", None, False),
    ]
    made = [question for _, question in catalog.add_golden(owner, golden)]
    reply = reading.post("/v1/reports", json={"collections": ["demo"], "label": "first"})
    assert reply.status_code == 202
    report_id = reply.json()["id"]
    assert (reply.json()["state"], reply.json()["report"]) == ("queued", None)
    problem(reading.get(f"/v1/reports/{report_id}?format=html"), 409)
    few = indexed.store.settings.model_copy(update={"report": ReportSettings(traffic=0, generated=2)})
    with open_citewell(few, embedder=indexed.embedder) as worker:
        assert Nightly(worker).step(datetime.now(UTC), threading.Event()).id == report_id
    yield report_id
    for question in made:
        catalog.remove_golden(question.id)
    for item in catalog.report_items(report_id):
        if item.answer_id:
            catalog.delete_answer(item.answer_id)
    catalog.delete_report(report_id)


def test_a_report_is_read_as_json_as_a_page_and_as_metrics(asked, reading):
    told = reading.get(f"/v1/reports/{asked}").json()
    assert (told["state"], told["collections"], told["label"]) == ("done", ["demo"], "first")
    report = told["report"]
    assert (report["verdict"]["passed"], report["verdict"]["reasons"]) == (True, [])
    assert [gate["metric"] for gate in report["verdict"]["gates"]] == list(HEADLINES)
    assert report["questions"]["golden"] == 2
    assert report["headlines"]["abstention"]["count"] == 2
    assert told["answered"] == sum(report["questions"].values())

    page = reading.get(f"/v1/reports/{asked}", params={"format": "html"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in page.text
    assert reading.get(f"/v1/reports/{asked}", headers={"Accept": "text/html,*/*"}).text == page.text

    metrics = reading.get(f"/v1/reports/{asked}", params={"format": "prometheus"})
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "citewell_report_passed 1" in metrics.text.splitlines()


def test_the_answers_of_a_report_can_be_explained(asked, reading, indexed):
    ids = [item.answer_id for item in indexed.store.catalog.report_items(asked)[:2]]
    assert [reading.get(f"/v1/answers/{key}").json()["plan"]["collections"] for key in ids] == [["demo"]] * 2


def test_reports_are_listed_and_removed(reading):
    made = reading.post("/v1/reports", json={}).json()["id"]
    listed = reading.get("/v1/reports", params={"limit": 1}).json()["reports"]
    assert [one["id"] for one in listed] == [made]
    assert reading.delete(f"/v1/reports/{made}").status_code == 204
    problem(reading.get(f"/v1/reports/{made}"), 404)
    problem(reading.delete(f"/v1/reports/{made}"), 404)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param({"collections": ["nowhere"]}, 404, id="no_collection"),
        pytest.param({"limit": 0}, 422, id="limit_of_none"),
        pytest.param({"since": "yesterday"}, 422, id="no_time"),
        pytest.param({"since": "2026-11-01T00:00:00"}, 422, id="time_without_a_zone"),
        pytest.param({"gates": "/etc/passwd"}, 422, id="unknown_field"),
    ],
)
def test_what_can_not_be_asked_for_is_refused(reading, body, status):
    problem(reading.post("/v1/reports", json=body), status)


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def cli(tmp_path):
    """A command in a folder whose data has one document and a golden question on it."""
    command = Cli(tmp_path / "data", tmp_path)
    command("ingest", SAMPLES / POLICY, "--collection", "policies")
    [document] = command("documents", "list", "-c", "policies", "--json").json["documents"]
    row = {"question": HOTEL, "answer": "145 euros", "documents": [document["name"]], "tags": ["travel"]}
    (tmp_path / "golden.jsonl").write_text(json.dumps(row) + "\n")
    command("golden", "add", "golden.jsonl", "--collection", "policies")
    return command


def test_the_command_runs_shows_and_compares(cli, tmp_path):
    (tmp_path / "low.toml").write_text(GATES.format(0.5))
    (tmp_path / "high.toml").write_text(GATES.format(1.01))
    options = ("report", "run", "-c", "policies", "--limit", "1")
    first = cli(*options, "--gates", "low.toml", "--json", "--html", "page.html", "--prometheus", "report.prom").json
    assert first["verdict"] == {
        "passed": True, "reasons": [], "gates": [{"metric": "correctness", "minimum": 0.5, "significance": 0.05}]
    }  # fmt: skip
    assert first["headlines"]["correctness"]["value"] == 1
    assert "<h2>Headline scores</h2>" in (tmp_path / "page.html").read_text()
    assert "citewell_report_passed 1" in (tmp_path / "report.prom").read_text()

    failed = cli(*options, "--gates", "high.toml", status=1).out
    assert "correctness is 1, below the minimum of 1.01." in failed
    second = re.search(r"Failed: report ([0-9a-f]{32})", failed)[1]

    listed = cli("report", "list").out
    assert listed.index(second) < listed.index(first["id"])
    shown = cli("report", "show", first["id"]).out
    assert shown.splitlines()[0] == f"Passed: report {first['id']}, 1 gate"
    compared = cli("report", "compare", first["id"], second, "--json").json
    found = {one["metric"]: one["difference"] for one in compared["differences"]}
    assert found["correctness"] == 0
    assert "A - B" in cli("report", "compare", first["id"], second).out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("run", "-c", "nowhere"), "no collection named 'nowhere'", id="no_collection"),
        pytest.param(("run", "--since", "yesterday"), "as ISO 8601 has it", id="no_time"),
        pytest.param(("run", "--gates", "none.toml"), "none.toml can not be read", id="no_gates"),
        pytest.param(("show", "f" * 32), "There is no report", id="no_report"),
        pytest.param(("compare", "a", "b"), "There is no report", id="nothing_to_compare"),
    ],
)
def test_what_is_wrong_is_a_sentence(tmp_path, arguments, said):
    command = Cli(tmp_path / "data", tmp_path)
    command("collections", "create", "policies")
    assert said in command("report", *arguments, status=2).err
