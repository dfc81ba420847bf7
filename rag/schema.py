"""The tables of the catalog, as SQLAlchemy describes them; ``rag/migrations`` makes them, ``rag/catalog.py`` uses them.

Knows no query and no connection. A test compares these tables with what the migrations build.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(column_0_N_label)s",
    }
)


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """A point in time: aware and in UTC on the Python side, naive UTC in the database."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.replace(tzinfo=UTC)


#: Names are sorted by code point in every database, since pages of a listing go on after a name.
NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
#: A number that the database gives; SQLite counts only in its own kind of integer.
NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")

# `commits` grows with every change that a search can notice, `last_seq` with every chunk. Both are taken inside the
# writing transaction with this row locked, so that a reader who has seen n has seen everything up to n.
collections = sa.Table(
    "collections",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(200), nullable=False, unique=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("embedder", sa.String(200)),
    sa.Column("commits", sa.Integer, nullable=False, default=0),
    sa.Column("last_seq", sa.Integer, nullable=False, default=0),
    sa.Column("tuning_id", sa.String(32)),
)

# `parent_id` is the archive or message that the document was taken out of; `source` is what a synchronised folder said
# of the file when it was last looked at (its place, size and time), so that an unchanged file need not be read.
documents = sa.Table(
    "documents",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("collection_id", sa.ForeignKey("collections.id"), nullable=False),
    sa.Column("name", NAME, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("deleted_at", UtcDateTime),
    sa.Column("live_version_id", sa.String(32)),
    sa.Column("parent_id", sa.String(32), index=True),
    sa.Column("source", sa.Text),
    sa.UniqueConstraint("collection_id", "name", name="uq_documents_collection_id_name"),
)

# The queue is in here: `state` and the lease, `not_before` for the pause before another try, and `turn`, the place in
# line. `attempts` counts tries, `deaths` the workers that fell silent over it since it last got a stage further.
versions = sa.Table(
    "versions",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("document_id", sa.ForeignKey("documents.id"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False, index=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("stage", sa.String(20), nullable=False),
    sa.Column("progress", sa.Float, nullable=False, default=0.0),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("deaths", sa.Integer, nullable=False, default=0),
    sa.Column("not_before", UtcDateTime),
    sa.Column("turn", sa.BigInteger, nullable=False, default=0),
    sa.Column("batch_id", sa.String(32), index=True),
    sa.Column("parse_id", sa.String(32), index=True),
    sa.Column("error", sa.Text),
    sa.Column("error_code", sa.String(50)),
    sa.Column("lease_owner", sa.String(100)),
    sa.Column("lease_until", UtcDateTime),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("media_type", sa.String(200)),
    sa.Column("language", sa.String(10)),
    sa.Column("title", sa.Text),
    sa.Column("pages", sa.Integer),
    sa.Column("elements", sa.Integer, nullable=False, default=0),
    sa.Column("passages", sa.Integer, nullable=False, default=0),
    sa.UniqueConstraint("document_id", "number", name="uq_versions_document_id_number"),
    sa.Index("ix_versions_queue", "state", "turn", "created_at"),
)

# What the parser made of some content, whole: `id` is a digest of the content and of all that decides how it is read,
# so that equal files are parsed once. Text and the places of the elements are zlib-compressed.
parses = sa.Table(
    "parses",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("text", sa.LargeBinary, nullable=False),
    sa.Column("elements", sa.LargeBinary, nullable=False),
    sa.Column("media_type", sa.String(200), nullable=False),
    sa.Column("title", sa.Text),
    sa.Column("pages", sa.Integer),
    sa.Column("language", sa.String(10)),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("members", sa.JSON, nullable=False),
)

# The texts of chunks, each once in a collection however many documents hold it. `like_id` is the text that this one is
# a near-copy of, or its own id. A text may stand here before the first chunk that needs it: its vector was paid for.
texts = sa.Table(
    "texts",
    metadata,
    sa.Column("id", NUMBER, primary_key=True, autoincrement=True),
    sa.Column("collection_id", sa.ForeignKey("collections.id"), nullable=False),
    sa.Column("digest", sa.String(32), nullable=False),
    sa.Column("context", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("tokens", sa.Integer, nullable=False),
    sa.Column("like_id", NUMBER),
    sa.UniqueConstraint("collection_id", "digest", name="uq_texts_collection_id_digest"),
    sqlite_autoincrement=True,
)

# Where near-copies meet: each text stands under the few numbers that `rag.copies` gives it.
bands = sa.Table(
    "bands",
    metadata,
    sa.Column("collection_id", sa.ForeignKey("collections.id"), primary_key=True),
    sa.Column("band", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("text_id", sa.ForeignKey("texts.id"), primary_key=True, index=True),
)

# A purged row keeps its number and nothing else until no index can hold it any more.
chunks = sa.Table(
    "chunks",
    metadata,
    sa.Column("collection_id", sa.ForeignKey("collections.id"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("id", sa.String(32), nullable=False, index=True),
    sa.Column("version_id", sa.ForeignKey("versions.id"), index=True),
    sa.Column("text_id", sa.ForeignKey("texts.id"), index=True),
    sa.Column("start", sa.Integer, nullable=False),
    sa.Column("end", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("page", sa.Integer),
    sa.Column("section", sa.JSON, nullable=False),
    sa.Column("retired_commit", sa.Integer),
    # Of retired rows alone: as an index of all rows it would tempt the planner away from the primary key.
    sa.Index(
        "ix_chunks_retired",
        "collection_id",
        "retired_commit",
        sqlite_where=sa.text("retired_commit IS NOT NULL"),
        postgresql_where=sa.text("retired_commit IS NOT NULL"),
    ),
)

# What an embedder made of a text: its vector in float16, and the one-bit codes of its tokens (`rag.late`), which a text
# of an older catalog has not. Two embedders can stand side by side while one replaces the other.
vectors = sa.Table(
    "vectors",
    metadata,
    sa.Column("text_id", sa.ForeignKey("texts.id"), primary_key=True, autoincrement=False),
    sa.Column("embedder", sa.String(200), primary_key=True),
    sa.Column("vector", sa.LargeBinary, nullable=False),
    sa.Column("codes", sa.LargeBinary),
)

# Files that came together. `last_turn` is the place in line of the last of them.
batches = sa.Table(
    "batches",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("collection_id", sa.ForeignKey("collections.id"), nullable=False, index=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("files", sa.Integer, nullable=False, default=0),
    sa.Column("last_turn", sa.BigInteger, nullable=False, default=-1),
)

# Every file of a batch in the order in which it came, also one that was refused and has no version.
batch_files = sa.Table(
    "batch_files",
    metadata,
    sa.Column("batch_id", sa.ForeignKey("batches.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("outcome", sa.String(20), nullable=False),
    sa.Column("version_id", sa.ForeignKey("versions.id"), index=True),
    sa.Column("error_code", sa.String(50)),
    sa.Column("error", sa.Text),
)

# The sealed parts in force: one for each collection, kind of index and space (embedder or analyser).
seals = sa.Table(
    "seals",
    metadata,
    sa.Column("collection_id", sa.ForeignKey("collections.id"), primary_key=True),
    sa.Column("kind", sa.String(20), primary_key=True),
    sa.Column("space", sa.String(200), primary_key=True),
    sa.Column("folder", sa.String(200), nullable=False),
    sa.Column("last_seq", sa.Integer, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

# What was learnt of a collection for its searches (`rag.tuning`); the maps are (dimension, dimension) in float32.
tunings = sa.Table(
    "tunings",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("collection_id", sa.ForeignKey("collections.id"), nullable=False, index=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("embedder", sa.String(200), nullable=False),
    sa.Column("dense_weight", sa.Float, nullable=False),
    sa.Column("late_weight", sa.Float, nullable=False),
    sa.Column("adapter", sa.LargeBinary),
    sa.Column("projection", sa.LargeBinary),
    sa.Column("report", sa.JSON, nullable=False),
    sa.Column("reader_weight", sa.Float),
)

# Which tunings were put in force, one on another: taking the last one back puts the one before it in force again.
promotions = sa.Table(
    "promotions",
    metadata,
    sa.Column("collection_id", sa.ForeignKey("collections.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("tuning_id", sa.ForeignKey("tunings.id"), nullable=False),
    sa.Column("promoted_at", UtcDateTime, nullable=False),
)

# The log of answers. ``texts`` holds all that quotes documents or says what was asked, ``facts`` the rest: both JSON,
# zlib-compressed. `question` and `text` stand beside them for listings and conversations. An answer without texts was
# redacted, or rests on a document that was purged (`purged_at`); one without facts has not ended. `quoting` says that
# its client gave it a conversation, whose words may come from anywhere. `support` is that of its least supported
# sentence; what a report asked is `reported`. `cache_key` and `basis` say what an answer can stand for again: an equal
# question over equal passages.
answers = sa.Table(
    "answers",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("created_at", UtcDateTime, nullable=False, index=True),
    sa.Column("conversation", sa.String(64)),
    sa.Column("cache_key", sa.String(32), index=True),
    sa.Column("basis", sa.String(32)),
    sa.Column("cached", sa.Boolean, nullable=False),
    sa.Column("generator", sa.Text),
    sa.Column("abstained", sa.Boolean),
    sa.Column("support", sa.Float),
    sa.Column("reported", sa.Boolean),
    sa.Column("quoting", sa.Boolean, nullable=False),
    sa.Column("question", sa.Text),
    sa.Column("text", sa.Text),
    sa.Column("texts", sa.LargeBinary),
    sa.Column("facts", sa.LargeBinary),
    sa.Column("purged_at", UtcDateTime),
    sa.Column("seen_at", UtcDateTime),
    sa.Index("ix_answers_conversation_created_at", "conversation", "created_at"),
)

# Where an answer looked, and the documents that it saw or that an earlier answer of its conversation saw.
answer_collections = sa.Table(
    "answer_collections",
    metadata,
    sa.Column("answer_id", sa.ForeignKey("answers.id"), primary_key=True),
    sa.Column("collection_id", sa.String(32), primary_key=True, index=True),
)
answer_documents = sa.Table(
    "answer_documents",
    metadata,
    sa.Column("answer_id", sa.ForeignKey("answers.id"), primary_key=True),
    sa.Column("document_id", sa.String(32), primary_key=True, index=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
)

# What people think of an answer, all of it in the order in which it came.
answer_feedback = sa.Table(
    "answer_feedback",
    metadata,
    sa.Column("answer_id", sa.ForeignKey("answers.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("rating", sa.Float, nullable=False),
    sa.Column("claim", sa.Integer),
    sa.Column("comment", sa.Text),
)

# The events of resumable answers, kept for some minutes after their end.
answer_events = sa.Table(
    "answer_events",
    metadata,
    sa.Column("answer_id", sa.ForeignKey("answers.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("created_at", UtcDateTime, nullable=False, index=True),
    sa.Column("name", sa.String(20), nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

# What people ask and hold to be right, in the order of `number` within a collection. ``quoting`` says that the
# reference is made of sentences of an answer, which rest on documents: it goes when these are purged (`purged_at`).
golden_questions = sa.Table(
    "golden_questions",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("collection_id", sa.ForeignKey("collections.id"), nullable=False, index=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("confirmed_at", UtcDateTime, nullable=False),
    sa.Column("question", sa.Text, nullable=False),
    sa.Column("reference", sa.Text),
    sa.Column("answerable", sa.Boolean, nullable=False),
    sa.Column("quoting", sa.Boolean, nullable=False),
    sa.Column("purged_at", UtcDateTime),
)
golden_tags = sa.Table(
    "golden_tags",
    metadata,
    sa.Column("question_id", sa.ForeignKey("golden_questions.id"), primary_key=True),
    sa.Column("tag", sa.String(100), primary_key=True),
)

# The documents that answer a golden question, with the content that they had when somebody last confirmed it: none, if
# they were not there. ``text`` are words of the passage that answers.
golden_documents = sa.Table(
    "golden_documents",
    metadata,
    sa.Column("question_id", sa.ForeignKey("golden_questions.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("text", sa.Text),
    sa.Column("document_id", sa.String(32), index=True),
    sa.Column("version", sa.Integer),
    sa.Column("sha256", sa.String(64)),
)

# Runs of the report. Rows hold figures and ids of answers, no text of a document. A time of the schedule stands in
# `due_at` once, and the last one stays when its run is removed; `summary` is JSON, zlib-compressed. A run that is
# running has a lease. `claims` counts those who took it and neither ended it nor gave it back, `seconds` and `tokens`
# what all of them have spent.
reports = sa.Table(
    "reports",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("created_at", UtcDateTime, nullable=False, index=True),
    sa.Column("started_at", UtcDateTime),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("due_at", UtcDateTime),
    sa.Column("request", sa.JSON, nullable=False),
    sa.Column("settings_digest", sa.String(32)),
    sa.Column("lease_owner", sa.String(100)),
    sa.Column("lease_until", UtcDateTime),
    sa.Column("claims", sa.Integer, nullable=False, default=0),
    sa.Column("seconds", sa.Float, nullable=False, default=0.0),
    sa.Column("tokens", sa.BigInteger, nullable=False, default=0),
    sa.Column("summary", sa.LargeBinary),
    sa.Column("error", sa.Text),
    sa.UniqueConstraint("due_at", name="uq_reports_due_at"),
)

# What came of each question of a run: `data` is JSON, zlib-compressed; the answer stands in the log.
report_items = sa.Table(
    "report_items",
    metadata,
    sa.Column("report_id", sa.ForeignKey("reports.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("answer_id", sa.String(32)),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

# Keys of the API. Of secrets only SHA-256 hashes are kept; that of the secret before the last rotation holds until
# `earlier_until`. Revoked keys stay: a catalog that has had a key is never open again. `documents` and `bytes` count
# what was uploaded with a key, against `most_documents` and `most_bytes`. `collections` are names, or null for all.
keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", sa.String(12), primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("role", sa.String(10), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("collections", sa.JSON(none_as_null=True)),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("used_at", UtcDateTime),
    sa.Column("earlier_digest", sa.String(64)),
    sa.Column("earlier_until", UtcDateTime),
    sa.Column("requests_per_minute", sa.Integer),
    sa.Column("in_flight", sa.Integer),
    sa.Column("most_documents", sa.BigInteger),
    sa.Column("most_bytes", sa.BigInteger),
    sa.Column("documents", sa.BigInteger, nullable=False, default=0),
    sa.Column("bytes", sa.BigInteger, nullable=False, default=0),
)

# Who wrote or deleted what: ids of documents, answers and the like in `subject`, and no name of a document, so that
# nothing in here has to be purged.
audit = sa.Table(
    "audit",
    metadata,
    sa.Column("number", NUMBER, primary_key=True),
    sa.Column("at", UtcDateTime, nullable=False, index=True),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("key_id", sa.String(12)),
    sa.Column("action", sa.String(50), nullable=False),
    sa.Column("collection", sa.String(200)),
    sa.Column("subject", sa.String(200)),
    sa.Column("request_id", sa.String(64)),
)
