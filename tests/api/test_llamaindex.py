"""The adapters inside the real LlamaIndex, over a real server and over a whole in this process."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator

import pytest
from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine, RouterQueryEngine, SubQuestionQueryEngine
from llama_index.core.question_gen.types import BaseQuestionGenerator, SubQuestion
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import MetadataMode, NodeRelationship
from llama_index.core.tools import QueryEngineTool

import api.llamaindex
from api.llamaindex import CitewellQueryEngine, CitewellRetriever
from rag.assembly import open_citewell
from rag.errors import BadInput, GeneratorFailed, Misconfigured, NotFound, Unavailable
from rag.prompt import ABSTENTION
from rag.settings import GeneratorSettings
from tests.api.live import HOTEL, SAMPLES, serving
from tests.scripted_llm import CHAT, Pause, Reset, ScriptedLLM, event_stream, json_reply, stream

ROOT = SAMPLES.parents[1]


@pytest.fixture(params=["server", "process"])
def citewell(request, reading, indexed):
    """What the adapters take: the URL of a running server, or the opened whole."""
    return str(reading.base_url) if request.param == "server" else indexed


@pytest.fixture
def answered_by_llm(indexed) -> Iterator[tuple[str, ScriptedLLM]]:
    """The URL of a server whose answers a language model writes, and that model's script."""
    with ScriptedLLM() as llm:
        generator = GeneratorSettings(kind="openai", base_url=llm.base_url)
        chosen = indexed.store.settings.model_copy(update={"generator": generator})
        with open_citewell(chosen, embedder=indexed.embedder) as opened, serving(opened) as client:
            yield str(client.base_url), llm


def test_a_retriever_finds_what_a_search_finds(citewell, reading):
    """The same passages in the same order, each a node with the passage's own id, score, text, place and source."""
    asked = {"query": HOTEL, "collections": ["demo"], "top_k": 3}
    passages = reading.post("/v1/search", json=asked).json()["passages"]
    found = CitewellRetriever(citewell, ["demo"], top_k=3).retrieve(HOTEL)
    assert [node.node.node_id for node in found] == [passage["chunk_id"] for passage in passages]
    assert [node.score for node in found] == pytest.approx([passage["score"] for passage in passages])
    for node, passage in zip(found, passages, strict=True):
        assert node.node.get_content() == passage["text"]
        assert (node.node.start_char_idx, node.node.end_char_idx) == (passage["start"], passage["end"])
        assert node.node.relationships[NodeRelationship.SOURCE].node_id == passage["document_id"]
        told = node.node.metadata
        for field in ("document", "document_id", "collection", "version", "version_id", "page", "start", "end"):
            assert told[field] == passage[field]
        assert told["section"] == " > ".join(passage["section"])
        assert told["also_in"] == passage["also_in"]
        shown = node.node.get_content(MetadataMode.LLM)
        assert passage["document"] in shown
        assert passage["version_id"] not in shown


def test_a_retriever_can_be_awaited_and_used_by_many_at_once(citewell):
    """From a running event loop, synchronous and not, as from a notebook: the same nodes each time."""
    retriever = CitewellRetriever(citewell, ["demo"], top_k=2)
    usual = [node.node.node_id for node in retriever.retrieve(HOTEL)]

    async def many() -> list[list[str]]:
        inside = retriever.retrieve(HOTEL)
        found = await asyncio.gather(*(retriever.aretrieve(HOTEL) for _ in range(8)))
        return [[node.node.node_id for node in nodes] for nodes in (inside, *found)]

    assert asyncio.run(many()) == [usual] * 9


def test_filters_and_parts_reach_the_search(citewell):
    """What a request of the REST API takes, an adapter takes."""
    filters = {"document": "handbook/onboarding.md"}
    retriever = CitewellRetriever(citewell, ["demo"], filters=filters, parts={"late": False}, top_k=4)
    found = retriever.retrieve(HOTEL)
    assert found
    assert {node.node.metadata["document"] for node in found} == {"handbook/onboarding.md"}


def test_a_retriever_works_in_llamaindexs_own_query_engine(citewell):
    """Its nodes make up the prompt of another model, with the document's name beside the text."""
    engine = RetrieverQueryEngine.from_args(CitewellRetriever(citewell, ["demo"], top_k=1), llm=MockLLM())
    response = engine.query(HOTEL)  # the mock answers with its prompt
    assert "145 euros" in str(response)
    assert "2026/travel-policy.pdf" in str(response)
    assert [node.node.metadata["document"] for node in response.source_nodes] == ["2026/travel-policy.pdf"]


def check(response, reading) -> None:
    """Compare a response with the answer over HTTP: text, cited passages, citations and claims."""
    answer = reading.post("/v1/ask", json={"question": HOTEL, "collections": ["demo"]}).json()
    assert str(response) == answer["text"]
    cited = list(dict.fromkeys(citation["chunk_id"] for citation in answer["citations"]))
    assert [node.node.node_id for node in response.source_nodes] == cited
    assert response.metadata["citations"] == answer["citations"]
    assert response.metadata["claims"] == answer["claims"]
    assert response.metadata["abstained"] is False
    assert "text" not in response.metadata
    assert "passages" not in response.metadata
    texts = {node.node.node_id: node.node for node in response.source_nodes}
    for citation in response.metadata["citations"]:
        node = texts[citation["chunk_id"]]
        first, last = (citation[side] - node.start_char_idx for side in ("source_start", "source_end"))
        assert node.get_content()[first:last] == citation["quote"]


def test_the_query_engine_gives_citewells_answer(citewell, reading):
    """Text, cited passages and checked citations, synchronous and awaited."""
    engine = CitewellQueryEngine(citewell, ["demo"])
    check(engine.query(HOTEL), reading)
    check(asyncio.run(engine.aquery(HOTEL)), reading)


def test_a_streamed_answer_ends_with_its_citations(citewell, reading):
    """The text comes in pieces; at its end the same sources and metadata are there as in a whole response."""
    engine = CitewellQueryEngine(citewell, ["demo"], streaming=True)
    response = engine.query(HOTEL)
    assert len(response.source_nodes) > 1  # all that was found: nothing is cited as yet
    assert response.metadata == {}
    check(response, reading)

    async def awaited():
        streamed = await engine.aquery(HOTEL)
        pieces = [text async for text in streamed.async_response_gen()]
        assert "".join(pieces) == streamed.response_txt
        return await streamed.get_response()

    check(asyncio.run(awaited()), reading)


def test_an_abstention_is_said_and_cites_nothing(citewell):
    """Where there is nothing to go by, the response says so in its text and in its metadata."""
    response = CitewellQueryEngine(citewell, ["empty"]).query(HOTEL)
    assert (str(response), response.metadata["abstained"], response.source_nodes) == (ABSTENTION, True, [])


def test_the_pieces_are_those_of_the_language_model(answered_by_llm):
    """They come as the model writes them, and what they cite stands in the metadata at the end."""
    url, llm = answered_by_llm
    llm.on(CHAT, stream("Hotels are paid up to ", "145 euros per night [1]."))
    response = CitewellQueryEngine(url, ["demo"], streaming=True).query(HOTEL)
    assert "".join(response.response_gen) == "Hotels are paid up to 145 euros per night [1]."
    assert response.metadata["generator"].startswith("openai:")
    assert [node.node.metadata["document"] for node in response.source_nodes] == ["2026/travel-policy.pdf"]


def test_a_new_beginning_is_told_in_the_stream(answered_by_llm):
    """When the model breaks off, a paragraph says so and the built-in reader's answer follows."""
    url, llm = answered_by_llm
    broken = json.dumps({"choices": [{"index": 0, "delta": {"content": "Hotels are"}}]})
    llm.on(CHAT, event_stream(f"data: {broken}\n\n".encode(), Reset()))
    response = CitewellQueryEngine(url, ["demo"], streaming=True).query(HOTEL)
    text = "".join(response.response_gen)
    notice = response.metadata["notice"]
    assert "built-in reader" in notice
    before, _, after = text.partition(f"\n\n{notice}\n\n")
    assert before in {"", "Hotels are"}
    assert "145 euros" in after
    assert response.metadata["generator"] == "reader"


def test_a_failure_on_the_way_is_raised_where_the_text_is_read(indexed):
    """Where nothing may take the model's place, what came before it is given and then the error is raised."""
    with ScriptedLLM() as llm:
        llm.on(CHAT, json_reply(400, {"error": "no such thing"}))
        generator = GeneratorSettings(kind="openai", base_url=llm.base_url, fall_back=False)
        chosen = indexed.store.settings.model_copy(update={"generator": generator})
        with open_citewell(chosen, embedder=indexed.embedder) as opened, serving(opened) as client:
            response = CitewellQueryEngine(str(client.base_url), ["demo"], streaming=True).query(HOTEL)
            with pytest.raises(GeneratorFailed, match="no such thing"):
                list(response.response_gen)


def test_a_policy_goes_with_the_question(answered_by_llm):
    """Under `strict`, an answer that the documents do not support becomes an abstention, also in a stream."""
    url, llm = answered_by_llm
    llm.on(CHAT, stream("The moon is made of green cheese and belongs to the sales department [1]."))
    for streaming in (False, True):
        response = CitewellQueryEngine(url, ["demo"], policy="strict", streaming=streaming).query(HOTEL)
        assert str(response) == ABSTENTION
        assert (response.metadata["abstained"], response.metadata["policy"]) == (True, "strict")
        assert response.source_nodes == []


class First(BaseSelector):
    """Chooses the first tool."""

    def _select(self, choices, query):  # noqa: ARG002 - fixed by the library
        return SelectorResult(selections=[SingleSelection(index=0, reason="the first")])

    async def _aselect(self, choices, query):
        return self._select(choices, query)

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts_dict):
        pass


class Twice(BaseQuestionGenerator):
    """Asks the first tool the question itself and another one."""

    def generate(self, tools, query):
        asked = (query.query_str, "What does the onboarding say?")
        return [SubQuestion(sub_question=question, tool_name=tools[0].name) for question in asked]

    async def agenerate(self, tools, query):
        return self.generate(tools, query)

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts_dict):
        pass


def test_the_query_engine_is_a_tool_among_others(citewell):
    """A router hands its answer on; sub-questions, asked side by side, bring the sources of each."""
    engine = CitewellQueryEngine(citewell, ["demo"])
    tool = QueryEngineTool.from_defaults(engine, name="policies", description="the company's policies")
    response = RouterQueryEngine(selector=First(), query_engine_tools=[tool], llm=MockLLM()).query(HOTEL)
    assert "145 euros" in str(response)
    assert response.metadata["citations"]
    together = SubQuestionQueryEngine.from_defaults(
        [tool],
        llm=MockLLM(),
        question_gen=Twice(),
        response_synthesizer=get_response_synthesizer(llm=MockLLM(), use_async=True),
        verbose=False,
    )
    both = together.query(HOTEL)
    assert "145 euros" in str(both)
    assert len(both.source_nodes) > 2


def test_errors_are_those_of_citewell(citewell, reading):
    """One clear sentence and a kind of `rag.errors`, by whichever door; values are checked before anything is asked."""
    with pytest.raises(NotFound, match="no collection named 'nowhere'"):
        CitewellRetriever(citewell, ["nowhere"]).retrieve(HOTEL)
    with pytest.raises(NotFound, match="no collection named 'nowhere'"):
        CitewellQueryEngine(citewell, ["nowhere"]).query(HOTEL)
    with pytest.raises(NotFound, match="no collection named 'nowhere'"):
        CitewellQueryEngine(citewell, ["nowhere"], streaming=True).query(HOTEL)
    with pytest.raises(NotFound, match="no collection named 'nowhere'"):
        asyncio.run(CitewellQueryEngine(citewell, ["nowhere"], streaming=True).aquery(HOTEL))
    with pytest.raises(BadInput, match="empty"):
        CitewellRetriever(citewell, ["demo"]).retrieve("?!")
    with pytest.raises(BadInput, match=r"^top_k: Input should be less than or equal to 1000\.$"):
        CitewellRetriever(citewell, ["demo"], top_k=10_000)
    with pytest.raises(BadInput, match=r"write \['demo'\]"):
        CitewellQueryEngine(citewell, "demo")


def test_a_server_that_is_not_there_is_named_without_its_password():
    """Not reachable, not a URL, and something else than Citewell: each has its sentence."""
    with pytest.raises(Unavailable, match=r"http://127.0.0.1:9 can not be reached; does `citewell serve` run"):
        CitewellRetriever("http://127.0.0.1:9", ["demo"]).retrieve(HOTEL)
    with pytest.raises(Unavailable) as raised:
        CitewellQueryEngine("http://user:secret@127.0.0.1:9", ["demo"], streaming=True).query(HOTEL)
    assert "secret" not in str(raised.value)
    with pytest.raises(Misconfigured, match="is not the URL of a server"):
        CitewellRetriever("handbook", ["demo"])
    with ScriptedLLM() as other, pytest.raises(Misconfigured, match="is no Citewell server"):
        CitewellRetriever(other.base_url, ["demo"]).retrieve(HOTEL)


def test_a_stream_that_nobody_reads_to_its_end_is_ended(answered_by_llm):
    """Leaving the text closes the connection to the server, and the server's to the language model."""
    url, llm = answered_by_llm
    llm.on(CHAT, stream("One [1]. ", Pause(60), "Two [1]."))
    pieces = CitewellQueryEngine(url, ["demo"], streaming=True).query(HOTEL).response_gen
    assert next(pieces)
    pieces.close()
    assert llm.hung_up.wait(60)


def examples() -> list[str]:
    """The programs that the module and the README show."""
    lines = (api.llamaindex.__doc__ or "").splitlines()
    shown = "\n".join(line[4:] for line in lines if line.startswith("    "))
    pages = "".join((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/clients.md"))
    blocks = re.findall(r"```python\n(.*?)```", pages, re.DOTALL)
    return [shown, *(block for block in blocks if "api.llamaindex" in block)]


@pytest.mark.parametrize("example", examples(), ids=["docstring", *(["readme"] * (len(examples()) - 1))])
def test_the_example_runs(example, reading, capsys):
    """As it is written, but for where the server is and what its collection is called."""
    assert "http://127.0.0.1:8321" in example
    program = example.replace("http://127.0.0.1:8321", str(reading.base_url)).replace("handbook", "demo")
    exec(compile(program, "example", "exec"), {})  # noqa: S102 - our own
    assert "145 euros" in capsys.readouterr().out
