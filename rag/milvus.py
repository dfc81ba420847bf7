"""The way to a Milvus engine: owns pymilvus. Collections of vectors, dense or sparse, under the numbers of their rows.

What goes wrong there comes out as our own errors: `Unavailable` with the cure while the engine does not answer, and
`NotHeld` when it answers but does not have what was asked of it. Nothing is read from the environment, no proxy is
used, and no other host is spoken to than the one in the settings.

Knows no catalog, no file, no text and no model; what a collection is for is the business of `rag.milvus_indexes`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np

from rag.errors import IndexDamaged, Misconfigured, Unavailable
from rag.hits import no_hits
from rag.protocols import Hits, Rows, Vectors
from rag.quiet import silence_dependencies
from rag.settings import IndexSettings

#: The two fields of every collection.
SEQ, VECTOR = "seq", "vector"
#: Most hits of one search; a larger number is refused by every Milvus in its default settings.
MOST_HITS = 16_384
#: Rows in one request of those that write, that read rows, and numbers in one filter.
PUT, GET, LISTED = 1_000, 1_000, 16_000
#: Seconds for what no search waits for: flushing, building an index, writing a thousand rows.
LONG = 300.0
#: Seconds for which a Milvus that could not be reached is not tried again.
PAUSE = 1.0
#: Links of a row in the graph, and how thoroughly they are looked for.
GRAPH = {"M": 32, "efConstruction": 200}
#: What Milvus answers for a collection that it does not have, or that is not in its memory.
_NOT_FOUND, _NOT_LOADED = 100, 101

Kind = Literal["flat", "hnsw", "sparse"]
#: Dense: the rows of a matrix. Sparse: the weights of each row by the number of the term.
Values = Vectors | Sequence[Mapping[int, float]]


class NotHeld(IndexDamaged):
    """Milvus does not hold the rows that were written to it."""


class Milvus:
    """One Milvus engine, reached when it is first needed and again after it was lost. Thread-safe.

    Raises `Misconfigured` at once if pymilvus is not installed, and `Unavailable` from each call that gets no answer.
    """

    def __init__(self, settings: IndexSettings) -> None:
        self._uri = str(settings.milvus_uri)
        self._token = settings.milvus_token.get_secret_value() if settings.milvus_token else ""
        self._seconds = settings.milvus_timeout
        self._library, self._failures = import_pymilvus()
        self._lock = threading.Lock()
        self._client: Any = None
        self._refused: tuple[float, Unavailable] | None = None

    @property
    def address(self) -> str:
        """Where the engine is, without anything secret."""
        split = urlsplit(self._uri)
        return f"{split.hostname}:{split.port}" if split.port else split.hostname or self._uri

    def close(self) -> None:
        """Close the connection; it is opened again if it is needed again."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    # -- collections -------------------------------------------------------------------------------------------------

    def create(self, name: str, kind: Kind, dimension: int = 0) -> None:
        """Make an empty collection, searchable at once; scores are inner products, exact unless ``kind`` is a graph."""
        types = self._library.DataType
        schema = self._library.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(SEQ, types.INT64, is_primary=True)
        if kind == "sparse":
            schema.add_field(VECTOR, types.SPARSE_FLOAT_VECTOR)
        else:
            schema.add_field(VECTOR, types.FLOAT_VECTOR, dim=dimension)
        index = {"flat": "FLAT", "hnsw": "HNSW", "sparse": "SPARSE_INVERTED_INDEX"}[kind]
        with self._asking(LONG) as client:
            indexes = client.prepare_index_params()
            indexes.add_index(VECTOR, index, VECTOR, metric_type="IP", params=GRAPH if kind == "hnsw" else {})
            client.create_collection(name, schema=schema, timeout=LONG)
            client.create_index(name, indexes, timeout=LONG, sync=False)  # `settle` waits for what is in it
            client.load_collection(name, timeout=LONG)

    def names(self, prefix: str) -> list[str]:
        """Return the names of all collections that begin so."""
        with self._asking() as client:
            return sorted(str(n) for n in client.list_collections(timeout=self._seconds) if n.startswith(prefix))

    def drop(self, name: str) -> None:
        """Remove a collection and all that is in it; one that is not there is no error."""
        with self._asking(LONG) as client:
            client.drop_collection(name, timeout=LONG)

    def load(self, name: str) -> None:
        """Have a collection in the engine's memory; raises `NotHeld` if there is none of that name."""
        with self._asking() as client:
            client.load_collection(name, timeout=self._seconds)

    # -- rows --------------------------------------------------------------------------------------------------------

    def put(self, name: str, seqs: Rows, values: Values) -> None:
        """Write rows; those that are there already are replaced."""
        for start in range(0, len(seqs), PUT):
            some = zip(seqs[start : start + PUT].tolist(), values[start : start + PUT], strict=True)
            with self._asking(LONG) as client:
                client.upsert(name, [{SEQ: seq, VECTOR: value} for seq, value in some], timeout=LONG)

    def settle(self, name: str, probe: Any) -> int:
        """Wait until all that was written is searchable in full speed, and return the engine's time of that moment.

        ``probe`` is any query. A search that is given this time sees all of it, whichever node of the engine answers;
        0 if the engine knows no such time.
        """
        with self._asking(LONG) as client:
            client.flush(name, timeout=LONG)
            until = time.monotonic() + LONG
            while (client.describe_index(name, VECTOR, timeout=LONG) or {}).get("pending_index_rows", 0):
                if time.monotonic() > until:
                    raise Unavailable(f"Milvus at {self.address} is slow to index what was written to it.")
                time.sleep(0.2)
            found = client.search(name, [probe], limit=1, anns_field=VECTOR, consistency_level="Strong", timeout=LONG)
            return int(found.get_session_ts() or 0)

    def search(self, name: str, query: Any, limit: int, *, where: str = "", since: int = 0, effort: int = 0) -> Hits:
        """Return at most ``limit`` rows, best first, of those that meet ``where``.

        ``since`` is a time that `settle` returned; ``effort`` is how many neighbours a graph search keeps.
        """
        seen = {"consistency_level": "Customized", "guarantee_timestamp": since} if since else {}
        parameters = {"params": {"ef": max(effort, limit)}} if effort else {}
        with self._asking() as client:
            found = client.search(
                name, [query], filter=where, limit=limit, anns_field=VECTOR, search_params=parameters,
                timeout=self._seconds, **(seen or {"consistency_level": "Strong"}),
            )  # fmt: skip
        if not found or not len(found[0]):
            return no_hits()
        return Hits(np.array(found[0].ids, dtype=np.int64), np.array(found[0].distances, dtype=np.float32))

    def terms(self, name: str, seqs: Rows) -> dict[int, list[int]]:
        """Return the numbers of the terms of sparse rows, by row; a row that is not there is missing."""
        held: dict[int, list[int]] = {}
        for start in range(0, len(seqs), GET):
            ids = seqs[start : start + GET].tolist()
            with self._asking() as client:
                rows = client.get(name, ids, [VECTOR], self._seconds, consistency_level="Strong")
            held |= {int(row[SEQ]): [int(number) for number in row[VECTOR]] for row in rows}
        return held

    def count(self, name: str, last: int) -> int:
        """Return how many rows with numbers up to ``last`` there are."""
        with self._asking() as client:
            where = f"{SEQ} <= {last}"
            rows = client.query(name, where, ["count(*)"], self._seconds, consistency_level="Strong")
        return int(rows[0]["count(*)"])

    def delete(self, name: str, seqs: Rows) -> None:
        """Remove rows; those that are not there are no error."""
        for start in range(0, len(seqs), LISTED):
            with self._asking(LONG) as client:
                client.delete(name, filter=among(seqs[start : start + LISTED]), timeout=LONG)

    def delete_after(self, name: str, last: int) -> None:
        """Remove all rows with numbers above ``last``."""
        with self._asking(LONG) as client:
            client.delete(name, filter=f"{SEQ} > {last}", timeout=LONG)

    # -- the connection ----------------------------------------------------------------------------------------------

    @contextmanager
    def _asking(self, seconds: float | None = None) -> Iterator[Any]:
        """Yield the client, and turn what goes wrong with it into our errors."""
        client = self._opened()
        try:
            yield client
        except self._failures as error:
            if getattr(error, "code", None) in {_NOT_FOUND, _NOT_LOADED}:
                raise NotHeld(f"Milvus at {self.address} does not hold it.") from error
            raise self._trouble(error, seconds or self._seconds) from error

    def _opened(self) -> Any:
        with self._lock:
            if self._client is not None:
                return self._client
            if self._refused and time.monotonic() - self._refused[0] < PAUSE:
                raise Unavailable(self._refused[1].message)
            try:
                self._client = self._library.MilvusClient(
                    self._uri, token=self._token, timeout=self._seconds, dedicated=True,
                    grpc_options={"grpc.enable_http_proxy": 0},
                )  # fmt: skip
            except self._failures as error:
                trouble = self._trouble(error, self._seconds)
                self._refused = (time.monotonic(), trouble)
                raise trouble from error
            return self._client

    def _trouble(self, error: Exception, seconds: float) -> Unavailable:
        """Say in one sentence what Milvus or the way to it did not do."""
        said = " ".join(str(getattr(error, "message", "") or error).split())
        if any(word in said.lower() for word in ("unauthenticated", "auth check", "permission denied")):
            return Unavailable(f"Milvus at {self.address} does not take the token; set index.milvus_token.")
        return Unavailable(
            f"Milvus at {self.address} gave no answer within {seconds:g} s, or none that helps; start it, or see "
            f"whether index.milvus_uri is right. It said: {said[:200]}"
        )


def among(seqs: Rows) -> str:
    """Return the filter that lets only these rows through."""
    return f"{SEQ} in {_listed(seqs)}"


def but(last: int, seqs: Rows) -> str:
    """Return the filter that lets all rows up to ``last`` through but these."""
    return f"{SEQ} <= {last} and {SEQ} not in {_listed(seqs)}" if len(seqs) else f"{SEQ} <= {last}"


def _listed(seqs: Iterable[np.int64]) -> str:
    return f"[{','.join(map(str, seqs))}]"


def import_pymilvus() -> tuple[Any, tuple[type[Exception], ...]]:
    """Return the pymilvus module and all that its calls raise; raise `Misconfigured` if it is not installed."""
    silence_dependencies()  # at its import it would read an .env file into our environment
    try:
        import grpc
        import pymilvus
    except ImportError as error:
        raise Misconfigured("pymilvus is not installed; run `pip install citewell[milvus]`.") from error
    for name in ("pymilvus", "pymilvus.milvus_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # each failure is logged with its traceback, and raised too
    return pymilvus, (pymilvus.MilvusException, grpc.RpcError, grpc.FutureTimeoutError)
