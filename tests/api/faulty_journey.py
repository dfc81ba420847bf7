"""A process in which everything fails with marked texts in its hands: what it writes to its log is looked at outside.

    python -m tests.api.faulty_journey DATA MARK SECRET

Document and question hold the mark; the embedder, the generator, a thread and a library fail with it in the messages of
their errors, one caused by the other, and in the variables around them. The settings hold the secret.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from api.logs import configure_logging, log_ends_of_threads
from ingest.worker import Worker
from rag.assembly import open_citewell
from rag.protocols import Encoding, Role
from rag.records import Delta, Prompt
from rag.settings import GeneratorSettings, Settings, load_settings
from rag.testing import WordEmbedder
from tests.api.live import serving, upload
from tests.scripted_llm import CHAT, ScriptedLLM, json_reply


class FaultyEmbedder(WordEmbedder):
    """Fails over texts that hold ``faulty``, and repeats them."""

    def encode(
        self, texts: Sequence[str], *, role: Role = "passage", tokens: bool = False, codes: bool = False
    ) -> Encoding:
        if any("faulty" in text for text in texts):
            try:
                raise ValueError(f"can not encode {list(texts)}")
            except ValueError as error:
                raise ExceptionGroup(f"in a batch of {texts}", [error, RuntimeError(*texts)]) from error
        return super().encode(texts, role=role, tokens=tokens, codes=codes)


@dataclass
class FaultyGenerator:
    """Repeats its prompt in its error."""

    name: str = "faulty"
    quotes: bool = False

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        yield Delta("The ")
        raise RuntimeError(f"{prompt.question} {prompt.messages}")

    async def aclose(self) -> None:
        """Nothing is open."""


def main(data: str, mark: str, secret: str) -> None:
    settings = load_settings(
        data=Path(data),
        log_level="debug",
        generator={"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": secret},
        ingest={"attempts": 1, "parsers": 1},
        answers={"cache": False},
    )
    configure_logging(settings, default="info")
    log_ends_of_threads()
    with (
        open_citewell(settings, embedder=FaultyEmbedder(), generator=FaultyGenerator()) as citewell,
        serving(citewell) as client,
    ):
        client.post("/v1/collections", json={"name": "c"})
        files = {
            "good.md": f"The {mark} limit is 145 euros.",
            "faulty.md": f"This faulty text has {mark} in it.",
            "broken.pdf": f"%PDF-1.4 {mark}",
            "broken.docx": f"PK\x03\x04 {mark}",
            "broken.json": f'{{"{mark}": ',
            "broken.html": f"<p>{mark}<table><tr><{mark}",
        }
        upload(client, "c", *[(name, text.encode()) for name, text in files.items()])
        Worker(citewell).drain()
        for question in (f"What is the {mark} limit?", f"Is the {mark} faulty?"):
            asked = {"question": question, "collections": ["c"]}
            client.post("/v1/ask", json=asked)
            client.post("/v1/ask", json=asked | {"stream": True})
            client.post("/v1/search", json={"query": question, "collections": ["c"]})
            client.post("/v1/search", json={"query": "x", "collections": ["c"], "filters": {mark: {"$nor": mark}}})
            client.post("/v1/chat/completions", json={"model": "citewell/c", "messages": [{"content": mark}]})
        _refused(settings, mark)
        client.post("/v1/ask", content=mark.encode())
        client.get(f"/v1/{mark}?q={mark}", headers={"Authorization": f"Bearer {secret}"})
    _elsewhere(settings, mark, secret)


def _refused(settings: Settings, mark: str) -> None:
    """A language model whose server repeats the question when it refuses it, asked to understand and to answer."""
    with ScriptedLLM() as llm:
        llm.on(CHAT, json_reply(400, {"error": {"message": f"I do not answer {mark}"}}))
        generator = GeneratorSettings(kind="openai", base_url=llm.base_url, model="m")
        chosen = settings.model_copy(update={"generator": generator})
        with open_citewell(chosen, embedder=WordEmbedder()) as citewell, serving(citewell) as client:
            asked = {"question": f"What is the {mark} limit?", "collections": ["c"], "parts": {"multi_query": True}}
            reply = client.post("/v1/ask", json=asked)
            assert mark in reply.text
            assert llm.chats


def _elsewhere(settings: Settings, mark: str, secret: str) -> None:
    """What our own code might do by mistake, and other libraries do."""
    log = structlog.get_logger("rag.anything")
    log.info("the parser says", text=f"warning: {mark}")
    log.error("the key is wrong", reason=f"refused {secret}", url=f"http://user:{secret}@host")
    try:
        raise KeyError(mark)
    except KeyError:
        log.exception("failed", answer="1")
        logging.getLogger("somebody.else").exception("failed")
    logging.getLogger("openai").setLevel(logging.DEBUG)
    logging.getLogger("openai").debug("Request options: %s", {"messages": mark})
    warnings.warn("a warning of somebody", stacklevel=1)

    def fail() -> None:
        raise ValueError(mark)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    log.info("the end", data=str(settings.data))


if __name__ == "__main__":
    main(*sys.argv[1:])
