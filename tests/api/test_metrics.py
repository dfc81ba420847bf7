"""The numbers at /metrics: what happened is counted once, in whichever process, and names nothing it must not name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from api.metrics import Numbers
from api.shared_numbers import FOLDER, SharedNumbers, forget_the_dead
from rag.access import Role
from rag.assembly import Citewell, open_citewell
from rag.settings import GeneratorSettings, ObserveSettings, Settings
from rag.telemetry import Telemetry
from rag.testing import WordEmbedder
from tests.api.live import problem, read_all, serving, upload
from tests.api.scraped import Page
from tests.api.served import ROOT, started, until
from tests.scripted_llm import CHAT, ScriptedLLM, reply

QUESTION = "What is the hotel limit?"
ASK = {"question": QUESTION, "collections": ["secretname"]}
LIMIT = b"The hotel limit is 145 euros per night.\n\nTrains are paid in second class."


@contextmanager
def observed(settings: Settings, **numbers: bool) -> Iterator[tuple[Citewell, httpx.Client]]:
    """A server in this process over one document, which counts."""
    with (
        open_citewell(settings, embedder=WordEmbedder(), telemetry=Telemetry(Numbers(**numbers))) as citewell,
        serving(citewell) as client,
    ):
        client.post("/v1/collections", json={"name": "secretname"})
        upload(client, "secretname", ("limit.md", LIMIT))
        read_all(citewell)
        yield citewell, client


@pytest.fixture
def counting(settings: Settings) -> Iterator[httpx.Client]:
    with observed(settings) as (_, client):
        yield client


def test_answers_are_counted_by_what_became_of_them_and_measured_once(counting: httpx.Client) -> None:
    """Outcomes, cache, support and stages: the histograms hold the very seconds that the answers tell."""
    before = Page.of(counting)
    answers = [counting.post("/v1/ask", json=ASK | {"cache": False}).json() for _ in range(3)]
    answers += [counting.post("/v1/ask", json=ASK).json() for _ in range(2)]
    silent = counting.post("/v1/ask", json=ASK | {"question": "Zebra xylophone quark?"}).json()
    assert silent["abstained"]
    page = Page.of(counting)
    assert before["citewell_answers_total"] == 0
    assert page.sum("citewell_answers_total", outcome="answered") == 5
    assert page.sum("citewell_answers_total", outcome="abstained") == 1
    hits = sum(answer["cached"] for answer in answers)
    assert hits >= 1
    assert page.sum("citewell_cache_lookups_total", result="hit") == hits
    assert page.sum("citewell_cache_lookups_total", result="miss") == 3 - hits
    claims = [claim for answer in answers for claim in answer["claims"]]
    assert page["citewell_support_score_count"] == len(claims)
    assert page["citewell_support_score_sum"] == pytest.approx(sum(claim["support"] for claim in claims), abs=1e-3)
    for stage, journey in (("embed", "search"), ("dense", "search"), ("generate", "answer"), ("prompt", "answer")):
        told = [answer["timings"][stage] for answer in [*answers, silent] if not answer["cached"]]
        measured = page.sum("citewell_stage_seconds_sum", journey=journey, stage=stage)
        assert measured >= sum(told) - 1e-2
        assert page.sum("citewell_stage_seconds_count", journey=journey, stage=stage) >= len(told)
    assert page.sum("citewell_stage_seconds_count", journey="answer", stage="search") == 6


def test_the_work_on_files_is_measured_by_stage_and_the_queue_by_its_length(counting: httpx.Client) -> None:
    """Each stage of a file, the passages, what the embedder had in a call, and what waits and for how long."""
    page = Page.of(counting)
    for stage in ("parse", "chunk", "keep", "embed", "commit"):
        assert page.sum("citewell_stage_seconds_count", journey="ingest", stage=stage) == 1, stage
    assert page.sum("citewell_ingested_files_total", state="ready") == 1
    passages = page["citewell_ingested_passages_total"]
    assert passages >= 1
    assert page.sum("citewell_embedder_batch_texts_sum", role="passage") == passages
    assert page["citewell_queue_files"] == page["citewell_queue_oldest_seconds"] == 0
    upload(counting, "secretname", ("a.md", b"One."), ("b.md", b"Two."))
    page = Page.of(counting)
    assert page.sum("citewell_queue_files", state="waiting") == 2
    assert page["citewell_queue_oldest_seconds"] > 0


def test_rows_that_an_index_has_not_taken_in_are_counted_until_it_is_searched(settings: Settings) -> None:
    """The last row of the catalog against the last one of the index of this process."""
    with observed(settings) as (citewell, client):
        client.post("/v1/ask", json=ASK)
        assert Page.of(client)["citewell_index_behind_rows"] == 0
        upload(client, "secretname", ("more.md", b"Buses are paid. " * 3))
        read_all(citewell)
        [collection] = citewell.store.catalog.list_collections()
        rows = citewell.store.catalog.pulse(collection.id).last_seq
        assert Page.of(client)["citewell_index_behind_rows"] == rows - 1 or rows == 1
        client.post("/v1/ask", json=ASK | {"cache": False})
        assert Page.of(client)["citewell_index_behind_rows"] == 0


def test_a_language_model_that_fails_shows(settings: Settings) -> None:
    """Fall-backs by their code, failures in a row, and the breaker that is open."""
    with ScriptedLLM() as llm:
        llm.on(CHAT, reply(500, "{}"))
        generator = GeneratorSettings(kind="openai", base_url=llm.base_url, model="m", breaker_failures=2)
        with observed(settings.model_copy(update={"generator": generator})) as (_, client):
            closed = Page.of(client)
            for _ in range(3):
                assert client.post("/v1/ask", json=ASK | {"cache": False}).status_code == 200
            page = Page.of(client)
    assert closed["citewell_generator_breaker_open"] == 0
    assert closed["citewell_generator_places"] == generator.max_in_flight
    assert page["citewell_generator_breaker_open"] == 1
    assert page["citewell_generator_failures_in_row"] == 2
    assert page["citewell_generator_fall_backs_total"] == 3
    assert page["citewell_generator_in_flight"] == page["citewell_generator_waiting"] == 0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of one server, for examples that may leave their traces."""
    settings = Settings(data=tmp_path_factory.mktemp("shared"))
    with observed(settings) as (_, client):
        yield client


METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"]) | st.from_regex(r"[A-Z]{3,12}", fullmatch=True)
SEGMENTS = st.lists(st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True), min_size=1, max_size=4)


@given(method=METHODS, segments=SEGMENTS)
@examples(max_examples=60)
def test_whatever_is_asked_labels_stay_few(shared: httpx.Client, method: str, segments: list[str]) -> None:
    """Routes stand by their templates; unknown methods and addresses fall together."""
    shared.request(method, f"/{'/'.join(segments)}")
    shared.request(method, f"/v1/documents/{segments[0]}")
    page = Page.of(shared)
    known = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"}
    assert page.labels("citewell_requests_total", "method") <= known
    assert all(
        route == "other" or route.startswith("/v1/") or route == "/metrics"
        for route in page.labels("citewell_requests_total", "route")
    )
    assert not [
        segment for segment in segments if len(segment) > 6 and f"/{segment}" in page.text and segment != "documents"
    ]


def test_collections_are_named_only_where_the_settings_say_so(settings: Settings) -> None:
    """Neither a name, nor a document, nor a question is on the page; with the setting the names of collections are."""
    for named in (False, True):
        chosen = settings.model_copy(update={"data": settings.data / str(named)})
        with observed(chosen, by_collection=named) as (_, client):
            client.post("/v1/ask", json=ASK)
            page = Page.of(client)
        assert ("secretname" in page.text) is named
        assert page.has("citewell_collection_index_behind_rows", collection="secretname") is named
        assert "limit.md" not in page.text
        assert "hotel" not in page.text


def test_where_there_are_keys_only_admins_see_the_page(settings: Settings) -> None:
    """401 without a key, 403 for a reader, the page for an admin; with the setting for everybody."""
    for is_open in (False, True):
        observe = ObserveSettings(open_metrics=is_open)
        chosen = settings.model_copy(update={"data": settings.data / str(is_open), "observe": observe})
        with observed(chosen) as (citewell, client):
            catalog = citewell.store.catalog
            secrets = {role: catalog.create_key(role.value, role)[1] for role in (Role.READER, Role.ADMIN)}
            until(lambda client=client: client.post("/v1/ask", json=ASK).status_code == 401)
            brought = [{}, *({"Authorization": f"Bearer {secret}"} for secret in secrets.values())]
            statuses = [client.get("/metrics", headers=headers).status_code for headers in brought]
        assert statuses == ([200, 200, 200] if is_open else [401, 403, 200])


def test_without_the_setting_there_is_no_page(settings: Settings) -> None:
    """404, and the sentence names the setting."""
    with open_citewell(settings, embedder=WordEmbedder()) as citewell, serving(citewell) as client:
        assert "observe.metrics" in problem(client.get("/metrics"), 404)["message"]


# -- several processes ---------------------------------------------------------------------------------------------

COUNTS = """
import sys
from pathlib import Path
from api.metrics import Numbers
numbers = Numbers("worker", Path(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    numbers.ingested("ready", 3)
    numbers.staged("ingest", "parse", 0.5)
print("counted", flush=True)
sys.stdin.read()
"""


def counting_process(folder: Path, files: int) -> subprocess.Popen[str]:
    """Start a process that counts so many files and then waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", COUNTS, str(folder), str(files)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=dict(os.environ) | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "counted\n"
    return process


def samples(shared: SharedNumbers) -> dict[str, float]:
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for metric in shared.collect()
        for sample in metric.samples
        if not sample.name.endswith("_bucket")
    }


def test_what_was_counted_outlives_a_process_and_what_it_is_does_not(tmp_path: Path) -> None:
    """Counters and histograms of all processes are added, killed ones too; gauges only of those that live."""
    folder = tmp_path / FOLDER
    first, second = counting_process(folder, 2), counting_process(folder, 5)
    mine = Numbers("server", folder)
    try:
        mine.ingested("ready", 1)
        assert mine._shared is not None
        found = samples(mine._shared)
        assert found["citewell_ingested_files_total['ready']"] == 8
        assert found["citewell_ingested_passages_total[]"] == 22
        assert found["citewell_stage_seconds_sum['ingest', 'parse']"] == 3.5
        assert found["citewell_processes['worker']"] == 2
        first.send_signal(signal.SIGKILL)
        first.communicate()
        found = samples(mine._shared)
        assert found["citewell_ingested_files_total['ready']"] == 8
        assert found["citewell_processes['worker']"] == 1
        third = counting_process(folder, 4)  # folds what the dead one has counted
        third.communicate()
        assert not [file.name for file in folder.iterdir() if f"-{first.pid}-" in file.name]
        found = samples(mine._shared)
        assert found["citewell_ingested_files_total['ready']"] == 12
        assert found["citewell_stage_seconds_sum['ingest', 'parse']"] == 5.5
        forget_the_dead(tmp_path)
        found = samples(mine._shared)
        assert found["citewell_ingested_files_total['ready']"] == 6
        assert found["citewell_processes['worker']"] == found["citewell_processes['server']"] == 1
        assert len(list(folder.glob("*.lock"))) == 2
    finally:
        mine.close()
        second.communicate()
    mine.ingested("ready", 1)  # what is told after the end is not kept, and harms nobody


def test_a_file_that_is_not_whole_costs_its_numbers_and_nothing_else(tmp_path: Path) -> None:
    """An empty one, and one that a loss of power has left in disorder, of processes that have ended."""
    for name, content in (("counter_a-1-0", b""), ("histogram_b-2-0", b"\xff\xff\xff\x7f" + b"\x01" * 100)):
        (tmp_path / f"{name}.db").write_bytes(content)
    numbers = Numbers("server", tmp_path)
    (tmp_path / "counter_c-3-0.db").touch()  # one that is being made
    numbers.ingested("ready", 1)
    assert numbers._shared is not None
    assert samples(numbers._shared)["citewell_ingested_files_total['ready']"] == 1
    numbers.close()
    left = {file.name.split("_")[-1] for file in tmp_path.glob("*.db")}
    assert "a-1-0.db" not in left
    assert "b-2-0.db" not in left


def test_a_disk_that_takes_no_files_costs_the_sharing_and_nothing_else(settings: Settings) -> None:
    """Where the folder can not be made, a process counts for itself."""
    from api.metrics import open_numbers

    (settings.data / FOLDER).write_text("in the way")
    numbers = open_numbers(settings, "server")
    with open_citewell(settings, embedder=WordEmbedder(), telemetry=Telemetry(numbers)) as citewell:
        assert b'citewell_processes{kind="server"} 1.0' in numbers.page(citewell)


def test_settings_say_who_may_see_the_page_and_what_is_on_it() -> None:
    """Numbers are collected and hidden by default, without the names of collections."""
    chosen = ObserveSettings()
    assert (chosen.metrics, chosen.open_metrics, chosen.collection_labels) == (True, False, False)


@pytest.mark.long
def test_a_server_of_several_processes_has_one_page(tmp_path: Path) -> None:
    """Requests that any process answered, files that the worker read, and who lives, whichever process is asked."""
    variables = {"CITEWELL_SERVER__PROCESSES": "2", "CITEWELL_GENERATOR__READER": "words"}
    with started(tmp_path / "data", tmp_path / "log", **variables) as served:
        client = served.client
        assert client.post("/v1/collections", json={"name": "secretname"}).status_code == 201
        upload(client, "secretname", ("limit.md", LIMIT))
        until(lambda: client.get("/v1/collections/secretname").json().get("passages"))
        for _ in range(12):  # each on a connection of its own, so that both processes get some
            with httpx.Client(base_url=served.url, timeout=120, trust_env=False) as other:
                assert other.post("/v1/ask", json=ASK).status_code == 200
        pages = []
        for _ in range(4):
            with httpx.Client(base_url=served.url, timeout=120, trust_env=False) as other:
                pages.append(Page.of(other))
        for page in pages:
            assert page.sum("citewell_requests_total", route="/v1/ask", status="200") == 12
            assert page.sum("citewell_request_seconds_count", route="/v1/ask") == 12
            assert page["citewell_answers_total"] == 12
            assert page.sum("citewell_ingested_files_total", state="ready") == 1
            assert page.sum("citewell_processes", kind="server") == 2
            assert page.sum("citewell_processes", kind="worker") == 1
            assert "secretname" not in page.text
        os.kill(served.answering()[0], signal.SIGKILL)
        until(lambda: len(served.answering()) == 2 and _alive(served.url) == 2)
        with httpx.Client(base_url=served.url, timeout=120, trust_env=False) as other:
            assert Page.of(other)["citewell_answers_total"] == 12
        assert served.stop() == 0


def _alive(url: str) -> float:
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        return Page.of(client).sum("citewell_processes", kind="server")
