"""How long a prompt is by the server's own tokenizer, where the server lends it.

vLLM and NIM count a whole conversation with its chat template, llama.cpp and TensorRT-LLM a text. Which of the ways a
server knows is found out once. Knows the server by `rag.chat_server`, and neither budgets nor passages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rag.chat_server import ChatServer, ConnectionLost
from rag.errors import GeneratorFailed
from rag.prompt import MESSAGE_TOKENS

Messages = Sequence[Mapping[str, str]]


class ServedTokens:
    """The tokenizer of a server, if it has one."""

    def __init__(self, server: ChatServer) -> None:
        self._server = server
        self._ways: list[str] = [*_WAYS]

    async def count(self, model: str, messages: Messages) -> int | None:
        """Return how many tokens ``messages`` have, chat template included, or None where the server does not say.

        Raises `ConnectionLost` if the server can not be asked.
        """
        text = "\n".join(message["content"] for message in messages)
        bodies: dict[str, dict[str, Any]] = {
            "conversation": {"model": model, "messages": [*map(dict, messages)], "add_generation_prompt": True},
            "content": {"content": text, "add_special": True},
            "prompt": {"model": model, "prompt": text},
            "input": {"input": text},
        }
        for way in list(self._ways):
            counted = _counted(await self._asked(_WAYS[way], bodies[way]), way)
            if counted is not None:
                self._ways = [way]
                return counted if way == "conversation" else counted + MESSAGE_TOKENS * len(messages)
            self._ways.remove(way)
        return None

    async def _asked(self, path: str, body: Mapping[str, Any]) -> object:
        try:
            return (await self._server.post(f"{self._server.root}{path}", body)).json()
        except ConnectionLost:
            raise
        except (GeneratorFailed, ValueError):  # no such path, another kind of body, or a page
            return None


def _counted(reply: object, way: str) -> int | None:
    """Return the count in a reply: llama.cpp lists the tokens themselves, the others say how many they are."""
    if not isinstance(reply, dict):
        return None
    tokens = reply.get("tokens")
    counted = (len(tokens) if isinstance(tokens, list) else 0) if way == "content" else reply.get("count")
    return counted if isinstance(counted, int) and counted > 0 else None


#: Paths and how the text is given: vLLM and NIM; llama.cpp; TensorRT-LLM; llama.cpp's server in Python.
_WAYS = {
    "conversation": "/tokenize",
    "content": "/tokenize",
    "prompt": "/_internal/tokenize",
    "input": "/extras/tokenize/count",
}
