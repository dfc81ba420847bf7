"""A real Milvus engine for tests: Milvus Lite, in threads of this process, behind the same protocol as a cluster.

It can be stopped and started again on the same port, with its data or without. Knows nothing of Citewell but a setting.
"""

from __future__ import annotations

import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rag.settings import IndexSettings


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(slots=True)
class Engine:
    """A Milvus Lite over the data in ``folder``, on a port of its own."""

    folder: Path
    port: int = field(default_factory=free_port)
    _running: tuple[Any, Any] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def settings(self, **values: Any) -> IndexSettings:
        """Settings that choose this engine."""
        return IndexSettings(engine="milvus", milvus_uri=self.uri, **values)

    def start(self) -> None:
        from milvus_lite.adapter.grpc.server import start_server_in_thread

        server, data, port = start_server_in_thread(str(self.folder), port=self.port)
        assert port == self.port
        self._running = server, data

    def stop(self) -> None:
        """End it, and every thread of it."""
        if self._running is not None:
            server, data = self._running
            self._running = None
            server.stop(grace=0).wait()
            data.close()

    def lose_data(self) -> None:
        """Start again with nothing, as a server does whose volume was not mounted."""
        self.stop()
        shutil.rmtree(self.folder)
        self.start()


def started_engine(folder: Path) -> Engine:
    """Return a running engine; skips the test where Milvus Lite can not be installed."""
    pytest.importorskip("milvus_lite", reason="Milvus Lite is not installed; there is none for every platform")
    engine = Engine(folder)
    engine.start()
    return engine
