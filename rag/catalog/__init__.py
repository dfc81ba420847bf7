"""The catalog: the one truth. Collections, documents and their versions, the queue, chunks, tunings, answers,
golden questions, runs of the report, keys and the audit log.

The only folder with SQL. Every change that a search can notice is one transaction that also moves the collection's
``commits`` counter; readers compare that counter (`Catalog.pulse`) and fetch what is new. Knows no model, no index
library and no file format; what it holds is enough to rebuild every index.
"""

from __future__ import annotations

from rag.catalog.answers import Answers
from rag.catalog.collections import wrong_embedder
from rag.catalog.figures import Figures, QueueFigures
from rag.catalog.golden import Golden
from rag.catalog.keys import Keys
from rag.catalog.purge import Purge, Purged
from rag.catalog.queue import Accepted, Queue, Retry
from rag.catalog.reports import Reports
from rag.catalog.rows import Pulse, Rows, Seal, TextRow
from rag.catalog.tunings import Tunings

__all__ = ["Accepted", "Catalog", "Pulse", "Purged", "QueueFigures", "Retry", "Seal", "TextRow", "wrong_embedder"]


class Catalog(Queue, Rows, Purge, Tunings, Answers, Golden, Reports, Keys, Figures):
    """The catalog at a SQLAlchemy ``url``; creates or migrates its tables when opened.

    Thread-safe. Raises `Misconfigured` if the database was written by a newer Citewell or is no catalog, and
    `Unavailable` from any method while the database does not answer or its disk is full.
    """
