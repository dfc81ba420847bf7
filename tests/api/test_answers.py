from __future__ import annotations

import io
import re
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import pytest
import structlog
import typer

from api.commands.ask import answer_lines
from ingest.worker import accept
from rag.answers import Policy, Wish
from rag.assembly import Citewell, open_citewell
from rag.prompt import ABSTENTION
from rag.records import Delta, Prompt, Quote
from rag.sentences import sentence_spans
from rag.settings import GeneratorSettings, Settings
from rag.testing import ScriptedGenerator
from tests.api.live import HOTEL, events, problem, read_all, serving
from tests.scripted_llm import CHAT, Pause, Reset, ScriptedLLM, stream

ASK = {"question": HOTEL, "collections": ["demo"]}


@pytest.fixture
def llm() -> Iterator[ScriptedLLM]:
    with ScriptedLLM() as server:
        yield server


@contextmanager
def answered_by(
    indexed: Citewell, llm: ScriptedLLM, settings: Settings | None = None, **values: object
) -> Iterator[httpx.Client]:
    """A client of a server over the indexed documents whose answers are written by a language model."""
    generator = GeneratorSettings(kind="openai", base_url=llm.base_url, **values)
    chosen = (settings or indexed.store.settings).model_copy(update={"generator": generator})
    with open_citewell(chosen, embedder=indexed.embedder) as opened, serving(opened) as client:
        yield client


def stream_of(client: httpx.Client, **more: object) -> list[tuple[str, str, object]]:
    with client.stream("POST", "/v1/ask", json={**ASK, "stream": True, **more}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-request-id"]
        return list(events(response.iter_lines()))


def check_answer(answer: dict, client: httpx.Client, indexed: Citewell) -> None:
    """Every citation stands where it says: in the answer, in the source, in an existing document."""
    assert answer["claims"]
    for claim in answer["claims"]:
        shown = answer["text"][claim["start"] : claim["end"]]
        assert "".join(re.sub(r"\[\d+\]", "", shown).split()) == "".join(claim["text"].split())
        assert claim["citations"]
        for place in claim["citations"]:
            citation = answer["citations"][place]
            assert (citation["answer_start"], citation["answer_end"]) == (claim["start"], claim["end"])
            source = indexed.store.catalog.source_text(citation["version_id"])
            assert source[citation["source_start"] : citation["source_end"]] == citation["quote"]
            assert citation["chunk_id"] == answer["passages"][citation["number"] - 1]["chunk_id"]
            assert f"[{citation['number']}]" in answer["text"]
            shown = client.get(f"/v1/documents/{citation['document_id']}").json()
            assert (shown["name"], shown["live_version"]) == (citation["document"], citation["version_id"])


def test_an_answer_carries_citations_that_stand_in_the_source(reading, indexed):
    """Text, claims, citations, passages, generator, timings and id; every quote is word for word at its offsets."""
    answer = reading.post("/v1/ask", json=ASK).json()
    assert "145 euros" in answer["text"]
    assert (answer["question"], answer["abstained"], answer["generator"], answer["notice"]) == (
        HOTEL,
        False,
        "reader",
        None,
    )
    assert len(answer["id"]) == 32
    assert {"embed", "dense", "lexical", "generate", "cite"} <= set(answer["timings"])
    citation = answer["citations"][0]
    assert (citation["document"], citation["page"], citation["section"][-1]) == (
        "2026/travel-policy.pdf", 2, "3. Accommodation"
    )  # fmt: skip
    check_answer(answer, reading, indexed)


def test_an_answer_that_the_documents_do_not_hold_is_an_honest_one(reading):
    """The documents do not say: no claim, no citation, and the program can tell."""
    answer = reading.post("/v1/ask", json={**ASK, "question": "Who won the chess championship of 1972?"}).json()
    assert (answer["text"], answer["abstained"], answer["claims"], answer["citations"]) == (ABSTENTION, True, [], [])


def test_an_empty_collection_is_an_honest_answer_too(reading):
    """A collection without documents is no error."""
    answer = reading.post("/v1/ask", json={**ASK, "collections": ["empty"]}).json()
    assert (answer["abstained"], answer["passages"]) == (True, [])
    assert reading.post("/v1/search", json={"query": "hotel", "collections": ["empty"]}).json()["passages"] == []


def test_a_search_returns_passages_with_place_and_scores(reading, indexed):
    """Best first, at most top_k, with the scores of each stage and the place in the parsed text."""
    found = reading.post(
        "/v1/search", json={"query": HOTEL, "collections": ["demo", "empty", "demo"], "top_k": 5}
    ).json()
    passages = found["passages"]
    assert len(passages) == 5
    assert [p["score"] for p in passages] == sorted((p["score"] for p in passages), reverse=True)
    assert set(found["timings"]) >= {"embed", "dense", "lexical", "fuse", "late", "hop", "read"}
    for passage in passages:
        text = indexed.store.catalog.source_text(passage["version_id"])
        assert text[passage["start"] : passage["end"]] == passage["text"]
        assert passage["collection"] == "demo"
        assert set(passage["scores"]) <= {"dense", "lexical", "late"}
    assert (passages[0]["document"], passages[0]["page"]) == ("2026/travel-policy.pdf", 2)


def test_filters_keep_other_documents_out(reading):
    """A filter on the document's name reaches search and answer alike; a bad key gets a sentence."""
    only = {"filters": {"document": "handbook/onboarding.md"}}
    found = reading.post("/v1/search", json={"query": HOTEL, "collections": ["demo"], **only}).json()["passages"]
    assert {p["document"] for p in found} == {"handbook/onboarding.md"}
    answer = reading.post("/v1/ask", json={**ASK, **only}).json()
    assert {p["document"] for p in answer["passages"]} == {"handbook/onboarding.md"}
    for stream_it in (False, True):
        reply = reading.post("/v1/ask", json={**ASK, "filters": {"no good": 1}, "stream": stream_it})
        assert "metadata key" in problem(reply, 400)["message"]


def test_a_stream_tells_the_journey_and_ends_with_the_whole_answer(reading, indexed):
    """passages, then tokens and claims, then done; ids count up; the tokens are the text of the answer."""
    told = stream_of(reading)
    names = [name for _, name, _ in told]
    assert (names[0], names[-1], set(names[1:-1])) == ("passages", "done", {"token", "citation", "claim"})
    assert [number for number, _, _ in told] == [str(i) for i in range(1, len(told) + 1)]
    answer = told[-1][2]
    assert "".join(data["text"] for _, name, data in told if name == "token") == answer["text"]
    assert [p["chunk_id"] for p in told[0][2]["passages"]][: len(answer["passages"])] == [
        p["chunk_id"] for p in answer["passages"]
    ]
    check_answer(answer, reading, indexed)


def check_told(told: list[tuple[str, str, dict]]) -> None:
    """The claims and citations that were told are those of the whole answer, each claim behind its citations."""
    answer = told[-1][2]
    citations: list[dict] = []
    claims: list[dict] = []
    for _, name, data in told:
        if name == "citation":
            citations.append(data)
        elif name == "claim":
            claims.append(data)
            assert all(place < len(citations) for place in data["citations"])
    assert (claims, citations) == (answer["claims"], answer["citations"])


def test_each_sentence_is_told_with_its_citations_and_its_support(reading):
    """As soon as it is judged, and as it stands in the answer."""
    told = stream_of(reading)
    check_told(told)
    [claim] = [data for _, name, data in told if name == "claim"][:1]
    assert (claim["support"], claim["supported"], claim["checkable"]) == (1.0, True, True)
    answer = told[-1][2]
    assert (answer["policy"], answer["withheld"], answer["conflicts"]) == ("report", 0, [])
    assert (answer["judge"], answer["threshold"]) == ("built-in judge", 0.5)


HALF = ("The hotel limit for domestic travel is 145 euros per night [1]. ", "Dogs sleep for free [1].")


@pytest.mark.parametrize("policy", ["report", "filter", "strict"])
def test_a_request_chooses_what_becomes_of_unsupported_sentences(indexed, llm, policy):
    """Scored, withheld and counted, or the whole answer withheld; streamed and whole alike."""
    llm.on(CHAT, stream(*HALF))
    with answered_by(indexed, llm) as client:
        told = stream_of(client, policy=policy)
        check_told(told)
        whole = client.post("/v1/ask", json={**ASK, "policy": policy}).json()
        for answer in (told[-1][2], whole):
            text = {"report": "".join(HALF), "filter": HALF[0].rstrip(), "strict": ABSTENTION}[policy]
            assert (answer["text"], answer["policy"]) == (text, policy)
            assert answer["abstained"] == (policy == "strict")
            assert answer["withheld"] == (policy != "report")
            assert [claim["supported"] for claim in answer["claims"]] == [True, False][: 2 - answer["withheld"]] * (
                policy != "strict"
            )
        assert "".join(data["text"] for _, name, data in told if name == "token") == told[-1][2]["text"]


def test_an_unknown_policy_is_refused(reading):
    assert "policy" in str(problem(reading.post("/v1/ask", json={**ASK, "policy": "hope"}), 422))


def test_the_row_of_a_table_comes_with_its_cells(reading, indexed):
    question = {"question": "What does the TW-Buoy 400 cost?", "collections": ["demo"]}
    answer = reading.post("/v1/ask", json=question).json()
    [citation] = [c for c in answer["citations"] if c["document"] == "products/price-list.csv"][:1]
    source = indexed.store.catalog.source_text(citation["version_id"])
    assert len(citation["cells"]) > 1
    for cell in citation["cells"]:
        assert cell["column"]
        assert source[cell["start"] : cell["end"]] == cell["text"]
        assert citation["source_start"] <= cell["start"] < cell["end"] <= citation["source_end"]


LIMITS = {"2025/hotels.md": (b"# Hotels\n\nThe hotel limit is 120 euros per night.\n", "2025-01-01"),
          "2026/hotels.md": (b"# Hotels\n\nThe hotel limit is 145 euros per night.\n", "2026-01-01")}  # fmt: skip


def test_documents_that_contradict_each_other_are_shown_with_dates(citewell, client, demo):
    """Over the wire and on the terminal, the newer document first."""
    collection = citewell.store.catalog.collection(demo)
    for name, (content, date) in LIMITS.items():
        accept(citewell.store, collection, name, io.BytesIO(content), metadata={"date": date})
    read_all(citewell)
    answer = client.post("/v1/ask", json={"question": "What is the hotel limit?", "collections": [demo]}).json()
    [conflict] = answer["conflicts"]
    assert conflict["differs"] == "number"
    assert [(s["date"], s["dated"], s["citation"]["document"]) for s in conflict["statements"]] == [
        ("2026-01-01", "date", "2026/hotels.md"), ("2025-01-01", "date", "2025/hotels.md"),
    ]  # fmt: skip
    lines = answer_lines(citewell.ask_once(citewell.plan("What is the hotel limit?", [demo])))
    shown = lines[lines.index("These documents differ in a number, the newest first") + 1 :]
    assert [line.strip() for line in shown] == [
        "2026-01-01: 2026/hotels.md, version 1, Hotels", '"The hotel limit is 145 euros per night."',
        "2025-01-01: 2025/hotels.md, version 1, Hotels", '"The hotel limit is 120 euros per night."',
    ]  # fmt: skip


def test_the_terminal_shows_what_is_not_supported(indexed):
    """Each sentence with its support, or how many were withheld."""
    generator = ScriptedGenerator(HALF)
    with open_citewell(indexed.store.settings, embedder=indexed.embedder, generator=generator) as opened:
        plan = opened.plan(HOTEL, ["demo"])
        lines = "\n".join(answer_lines(opened.ask_once(plan)))
        assert re.search(r'"Dogs sleep for free\." \(support 0\.[01]\d\)', lines)
        lines = "\n".join(answer_lines(opened.ask_once(plan, Wish(policy=Policy.FILTER))))
        assert "1 sentence was withheld" in lines
        assert "Dogs" not in lines


@dataclass
class Marking:
    """A generator that quotes the sentence of the first passage with ``words`` in it and marks them."""

    words: str
    name: str = "marking"
    quotes: bool = True

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        passage = prompt.passages[0]
        start = passage.text.index(self.words)
        [around] = [span for span in sentence_spans(passage.text) if span[0] <= start < span[1]]
        quote, short = (Quote(1, passage.start + a, passage.start + b) for a, b in (around, (start, start + 9)))
        yield Delta(passage.text[slice(*around)], (quote,), short)

    async def aclose(self) -> None:
        """Nothing is open."""


def check_short(answer: dict, indexed: Citewell) -> None:
    """The short answer stands where it says, in the text and in the source that its citation names."""
    short = answer["short_answer"]
    assert answer["text"][short["start"] : short["end"]] == short["text"]
    [citation] = [
        c for c in answer["citations"]
        if c["number"] == short["number"] and c["source_start"] <= short["source_start"] < c["source_end"]
    ]  # fmt: skip
    source = indexed.store.catalog.source_text(citation["version_id"])
    assert source[short["source_start"] : short["source_end"]] == short["text"]


def test_the_words_that_answer_come_as_data_where_the_generator_marks_them(indexed):
    """Whole and streamed alike, beside the sentence that holds them and its citation."""
    generator = Marking("145 euros")
    with (
        open_citewell(indexed.store.settings, embedder=indexed.embedder, generator=generator) as opened,
        serving(opened) as client,
    ):
        for answer in (client.post("/v1/ask", json=ASK).json(), stream_of(client)[-1][2]):
            assert answer["short_answer"]["text"] == "145 euros"
            check_answer(answer, client, indexed)
            check_short(answer, indexed)
        lines = answer_lines(opened.ask_once(opened.plan(HOTEL, ["demo"])))
    assert lines[0].split(typer.style("145 euros", bold=True))[0] == "The hotel limit for domestic travel is "
    assert sum("\x1b[1m" in line for line in lines) == 1


def test_without_marked_words_there_is_no_short_answer(indexed):
    """The reader that compares words has none, and an answer that abstains neither."""
    chosen = indexed.store.settings.model_copy(update={"generator": GeneratorSettings(reader="words")})
    with open_citewell(chosen, embedder=indexed.embedder) as opened, serving(opened) as client:
        assert client.post("/v1/ask", json=ASK).json()["short_answer"] is None
        other = client.post("/v1/ask", json={**ASK, "question": "Who won the chess championship of 1972?"}).json()
        assert (other["abstained"], other["short_answer"]) == (True, None)


def test_the_trained_reader_marks_the_words_that_answer(indexed):
    """Chosen by settings alone: the same door, the same citations, and the amount as the short answer."""
    trained = {"generator": GeneratorSettings(reader="trained")}
    chosen = indexed.store.settings.model_copy(update=trained)
    with open_citewell(chosen, embedder=indexed.embedder) as opened, serving(opened) as client:
        for answer in (client.post("/v1/ask", json=ASK).json(), stream_of(client)[-1][2]):
            assert answer["generator"] == "reader"
            assert "145" in answer["short_answer"]["text"]
            assert {citation["score"] for citation in answer["citations"]} == {1.0}
            check_answer(answer, client, indexed)
            check_short(answer, indexed)
        other = client.post("/v1/ask", json={**ASK, "question": "Who won the chess championship of 1972?"}).json()
        assert (other["abstained"], other["short_answer"]) == (True, None)


def test_what_is_wrong_before_the_stream_begins_has_a_status(reading):
    """An unknown collection or a bad question is no event but an error like any other."""
    problem(reading.post("/v1/ask", json={**ASK, "collections": ["nope"], "stream": True}), 404)
    problem(reading.post("/v1/ask", json={**ASK, "question": "?!", "stream": True}), 400)


def test_a_language_model_writes_and_every_sentence_is_cited(indexed, llm):
    """The OpenAI-compatible path, streamed through: what it marks is looked up and quoted."""
    llm.on(CHAT, stream("The hotel limit for domestic travel", " is 145 euros per night [1]."))
    with answered_by(indexed, llm) as client:
        told = stream_of(client)
        assert [name for _, name, _ in told].count("token") >= 2
        assert told[-1][2]["generator"] == "openai:scripted-model"
        check_answer(told[-1][2], client, indexed)
        check_answer(client.post("/v1/ask", json=ASK).json(), client, indexed)


def test_when_the_model_dies_half_way_the_reader_begins_anew(indexed, llm):
    """restart says why; the tokens after it are the text; the answer is marked. Not streamed, the same answer."""
    llm.on(CHAT, stream("The hotel limit was once ", Reset()))
    with answered_by(indexed, llm) as client:
        told = stream_of(client)
        names = [name for _, name, _ in told]
        assert (names[1], names[-1], names.count("restart")) == ("token", "done", 1)
        after = told[names.index("restart") + 1 : -1]
        answer = told[-1][2]
        assert "".join(data["text"] for _, name, data in after if name == "token") == answer["text"]
        check_told([*after, told[-1]])
        assert "built-in reader" in told[names.index("restart")][2]["notice"]
        whole = client.post("/v1/ask", json=ASK).json()
        for given in (answer, whole):
            assert given["generator"] == "reader"
            assert "built-in reader" in given["notice"]
            assert "once" not in given["text"]
            check_answer(given, client, indexed)


def test_without_a_stand_in_the_failure_is_an_error_event_or_a_503(indexed, llm):
    """After the headers the stream ends with one error event in the shape of all errors."""
    llm.on(CHAT, stream("The hotel limit was once ", Reset()))
    with answered_by(indexed, llm, fall_back=False) as client:
        assert problem(client.post("/v1/ask", json=ASK), 503)["code"] == "generator_failed"
        told = stream_of(client)
        assert [name for _, name, _ in told] == ["passages", "token", "error"]
        error = told[-1][2]["error"]
        assert error["code"] == "generator_failed"
        assert error["message"].endswith(".")


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_leaves_ends_the_work_for_it(indexed, llm, streamed):
    """The model's server sees its connection close, long before it would have finished."""
    llm.on(CHAT, stream("The hotel limit is 145 euros. ", Pause(300), "Never sent."))
    with answered_by(indexed, llm, total_timeout=200) as client:
        if streamed:
            with client.stream("POST", "/v1/ask", json={**ASK, "stream": True}) as response:
                told = events(response.iter_lines())
                assert [next(told)[1], next(told)[1]] == ["passages", "token"]
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/ask", json=ASK, timeout=httpx.Timeout(10, read=3))
        assert llm.hung_up.wait(60)
        assert client.get("/health/live").status_code == 200


@dataclass
class Breaking:
    """A generator with a fault: it writes a little and then raises an exception that quotes the question."""

    name: str = "breaking"
    quotes: bool = False
    closed: threading.Event = field(default_factory=threading.Event)

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        try:
            yield Delta("The hotel limit is ")
            raise RuntimeError(prompt.question)
        finally:
            self.closed.set()


def test_a_fault_of_our_own_is_told_by_an_id_and_quotes_nothing(indexed):
    """500 or an error event with an id that is in the log; neither the reply nor the log holds the question."""
    generator = Breaking()
    with (
        open_citewell(indexed.store.settings, embedder=indexed.embedder, generator=generator) as opened,
        serving(opened) as client,
        structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logged,
    ):
        reply = client.post("/v1/ask", json=ASK, headers={"X-Request-Id": "mine-1"})
        whole = problem(reply, 500)
        told = stream_of(client)
    assert [name for _, name, _ in told] == ["passages", "token", "error"]
    assert generator.closed.is_set()
    faults = [line for line in logged if line["event"] == "unexpected error"]
    for error, line in zip((whole, told[-1][2]["error"]), faults, strict=True):
        assert error["code"] == "internal"
        assert error["details"]["error_id"] == line["error_id"]
        assert line["log_level"] == "error"
        assert "RuntimeError" in line["exception"]
        assert "in generate" in line["exception"]
    assert faults[0]["request_id"] == reply.headers["x-request-id"] == "mine-1"
    assert HOTEL not in str(logged)
    assert HOTEL not in reply.text


def test_the_log_knows_requests_and_answers_but_no_text(reading):
    """Ids, routes, counts and seconds are logged; questions, names and passages are not."""
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logged:
        answer = reading.post("/v1/ask", json=ASK).json()
        reading.post("/v1/search", json={"query": "secretquery", "collections": ["demo"]})
        reading.post("/v1/search", json={"query": "secretquery", "collections": ["secretname"]})
        reading.get("/v1/documents/secretid")
        reading.get("/secretpath?q=secretvalue")
        reading.post("/v1/ask", content=b"secretbody")
        reading.get("/health/live")  # its line shows that those before it are complete
    assert [line["answer"] for line in logged if line["event"] == "answered"] == [answer["id"]]
    requests = [line for line in logged if line["event"] == "request"]
    assert requests[0]["route"] == "/v1/ask"
    assert all(line["request_id"] for line in requests)
    text = str(logged)
    assert "secret" not in text
    assert HOTEL not in text
    assert answer["citations"][0]["quote"] not in text
