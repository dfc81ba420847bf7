"""The dashboard and the alerts that ship: what they ask for is in a real scrape, and Prometheus understands them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.cli import app as commands
from api.metrics import Numbers
from ingest.worker import Worker
from rag.assembly import open_citewell
from rag.settings import load_settings
from rag.telemetry import Telemetry
from rag.testing import WordEmbedder
from tests.api.live import serving, upload
from tests.api.scraped import PROMTOOL, Page

FOLDER = Path(str(files("api"))) / "observe"
#: Labels whose values are made by us; statuses and versions are not.
OURS = ("journey", "stage", "outcome", "kind", "state", "result")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool, of Debian's package prometheus")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """What a server says that has read a file and answered a question, its worker in the same process."""
    settings = load_settings(data=tmp_path_factory.mktemp("scraped"))
    telemetry = Telemetry(Numbers("worker"))
    with (
        open_citewell(settings, embedder=WordEmbedder(), telemetry=telemetry) as citewell,
        serving(citewell) as client,
    ):
        client.post("/v1/collections", json={"name": "c"})
        upload(client, "c", ("limit.md", b"The hotel limit is 145 euros per night."))
        Worker(citewell).drain()
        for path in ("/v1/ask", "/v1/chat/completions"):
            asked = {"question": "What is the hotel limit?", "collections": ["c"]}
            talk = {"model": "citewell/c", "messages": [{"role": "user", "content": "What is the hotel limit?"}]}
            assert client.post(path, json=talk if "chat" in path else asked).status_code == 200
        yield Page.of(client)


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
    return found


def rules() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
    return found


def expressions() -> list[str]:
    """Return what the dashboard and the alerts ask Prometheus."""
    shown = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    return shown + [rule["expr"] for rule in rules()]


def test_every_metric_that_is_named_is_there(page: Page) -> None:
    """By its whole name, in a scrape of a server that has worked."""
    named = {name for expression in expressions() for name in re.findall(r"\bcitewell_\w+", expression)}
    assert len(named) > 20
    assert named <= {name for name, _ in page.samples}


def test_every_value_of_a_label_that_is_named_is_there(page: Page) -> None:
    """Stages, outcomes and routes are those that are told; what a name has changed to is missed here."""
    missing = []
    for name, selector in re.findall(r"\b(citewell_\w+)\{([^}]*)\}", "\n".join(expressions())):
        exact = dict(re.findall(r'(\w+)="([^"]*)"', selector))
        if not page.has(name, **{label: value for label, value in exact.items() if label in (*OURS, "route")}):
            missing.append((name, selector))
    assert not missing


def test_every_metric_has_its_place_on_the_dashboard(page: Page) -> None:
    """What is measured is shown; only numbers by collection are not, since the settings leave them out."""
    shown = "\n".join(target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", []))
    told = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name, _ in page.samples}
    assert {name for name in told if name not in shown} <= {"citewell_collection_index_behind_rows"}


def test_the_dashboard_works_with_any_prometheus() -> None:
    """Its panels ask the source that is chosen, do not lie on each other, and have a title each."""
    found = dashboard()
    assert [variable["query"] for variable in found["templating"]["list"]] == ["prometheus"]
    panels = [panel for panel in found["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"])
    assert all(panel["title"] for panel in panels)
    taken: set[tuple[int, int]] = set()
    for panel in found["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_alert_says_what_to_do() -> None:
    """What is wrong, how bad it is and where to look; the commands that it names exist."""
    known = {command.name or command.callback.__name__ for command in commands.registered_commands if command.callback}
    known |= {group.name for group in commands.registered_groups}
    for rule in rules():
        assert rule["alert"].startswith("Citewell")
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"].endswith(".")
        assert set(re.findall(r"`citewell (\w+)", rule["annotations"]["action"])) <= known


def promtool(*words: str, stdin: str = "", folder: Path | None = None) -> str:
    """Run promtool, see that it finds no fault, and return what it says."""
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *words], input=stdin, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_promtool
def test_prometheus_reads_the_page_without_a_complaint(page: Page) -> None:
    """Names, help, types and units are as its conventions want them."""
    assert promtool("check", "metrics", stdin=page.text) == ""


@needs_promtool
def test_prometheus_finds_the_alerts_right_and_their_tests_pass() -> None:
    """Each alert is seen to fire, and to rest while all is well."""
    promtool("check", "rules", "alerts.yml", folder=FOLDER)
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml", folder=FOLDER)
    tested = (FOLDER / "alerts_test.yml").read_text()
    assert all(rule["alert"] in tested for rule in rules())
    assert f"value: {len(rules())}}}]" in tested


@needs_promtool
def test_prometheus_understands_the_dashboard(tmp_path: Path) -> None:
    """Every expression of its panels is one."""
    asked = sorted({expression.replace("$__rate_interval", "5m") for expression in expressions()})
    group = {"name": "dashboard", "rules": [{"record": f"x:y{n}", "expr": asked[n]} for n in range(len(asked))]}
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [group]}))
    promtool("check", "rules", "rules.yml", folder=tmp_path)
