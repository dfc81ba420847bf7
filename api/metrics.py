"""The numbers of Citewell as Prometheus reads them: names, labels, buckets, and one page of all processes together.

Labels have few values, whatever clients send: routes by their templates, methods and statuses by their names, what is
unknown by one word. No collection is named unless the settings say so. Knows what `rag.telemetry` tells, and is the
owner of prometheus_client together with `api.shared_numbers`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Literal

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from api.guard import METHODS
from api.shared_numbers import FOLDER, SharedNumbers
from api.version import product_version
from rag.answers import Answer
from rag.assembly import Citewell
from rag.catalog import QueueFigures
from rag.errors import CitewellError, NotFound
from rag.language_model import LanguageModel, Load
from rag.meanwhile import meanwhile
from rag.protocols import Role
from rag.settings import Settings

log = structlog.get_logger(__name__)

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
#: Seconds between two looks of a process at itself: how far its indexes are, what its generator has in hand.
LOOK_SECONDS = 5.0
#: What all else falls under that no label has a value for.
OTHER = "other"
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
STAGE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
BATCH_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SUPPORT = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
Kind = Literal["server", "worker"]


class Numbers:
    """The numbers of this process, and the page of all: a `rag.telemetry.Meters`.

    With a ``folder`` they are kept together with those of other processes; raises `OSError` if that can not be.
    """

    def __init__(self, kind: Kind = "server", folder: Path | None = None, *, by_collection: bool = False) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._shared = None if folder is None else SharedNumbers(folder)
        self._registry = registry = CollectorRegistry()
        self._by_collection = by_collection
        self._requests = Counter(
            "citewell_requests", "Requests by route.", ("method", "route", "status"), registry=registry
        )
        self._request_seconds = Histogram(
            "citewell_request_seconds", "Seconds from a request to the end of its response.", ("method", "route"),
            buckets=REQUEST_SECONDS, registry=registry,
        )  # fmt: skip
        self._stage_seconds = Histogram(
            "citewell_stage_seconds", "Seconds of a stage of a journey.", ("journey", "stage"),
            buckets=STAGE_SECONDS, registry=registry,
        )  # fmt: skip
        self._answers = Counter("citewell_answers", "Answers by what became of them.", ("outcome",), registry=registry)
        self._lookups = Counter(
            "citewell_cache_lookups", "Looks for an answer of the log that can stand for a new one.", ("result",),
            registry=registry,
        )  # fmt: skip
        self._support = Histogram(
            "citewell_support_score", "Support of the sentences of answers by the documents.",
            buckets=SUPPORT, registry=registry,
        )  # fmt: skip
        self._unsupported = Counter(
            "citewell_unsupported_sentences", "Sentences of answers that the documents do not support.",
            registry=registry,
        )  # fmt: skip
        self._tokens = Counter("citewell_tokens", "Tokens of the language model.", ("kind",), registry=registry)
        self._fall_backs = Counter(
            "citewell_generator_fall_backs", "Answers by the built-in reader since the generator failed.", ("code",),
            registry=registry,
        )  # fmt: skip
        self._batches = Histogram(
            "citewell_embedder_batch_texts", "Texts in one call of the embedder.", ("role",),
            buckets=BATCH_TEXTS, registry=registry,
        )  # fmt: skip
        self._ingested = Counter(
            "citewell_ingested_files", "Files whose work has ended, by state.", ("state",), registry=registry
        )
        self._passages = Counter("citewell_ingested_passages", "Passages made searchable.", registry=registry)
        self._make_gauges(kind)
        self._begin_at_zero()

    def _make_gauges(self, kind: Kind) -> None:
        def gauge(name: str, text: str, *labels: str, mode: Literal["livesum", "livemax"] = "livesum") -> Gauge:
            return Gauge(f"citewell_{name}", text, labels, registry=self._registry, multiprocess_mode=mode)

        self._in_flight = gauge("generator_in_flight", "Generations that the language model has in hand.")
        self._most = gauge("generator_places", "Generations that it may have in hand.")
        self._waiting = gauge("generator_waiting", "Questions that wait for the language model.")
        self._breaker = gauge(
            "generator_breaker_open", "1 while a process leaves the language model alone, since it failed.",
            mode="livemax",
        )  # fmt: skip
        self._failures = gauge("generator_failures_in_row", "Failures in a row of the language model.", mode="livemax")
        self._searches = gauge("searches_in_hand", "Searches that wait or are being made.")
        self._behind = gauge(
            "index_behind_rows", "Rows of the catalog that the index of a process takes in with its next search.",
            mode="livemax",
        )  # fmt: skip
        self._behind_by = gauge(
            "collection_index_behind_rows", "The same for each collection.", "collection", mode="livemax"
        )
        gauge("processes", "Processes that run.", "kind").labels(kind).set(1)
        gauge("build_info", "Version of this Citewell.", "version", mode="livemax").labels(product_version()).set(1)

    def _begin_at_zero(self) -> None:
        """Show what has not happened yet as 0: what is not there can not grow."""
        for outcome in ("answered", "abstained", "withheld", "refused"):
            self._answers.labels(outcome)
        for result in ("hit", "miss"):
            self._lookups.labels(result)
        for kind in ("prompt", "completion"):
            self._tokens.labels(kind)
        for state in ("ready", "failed"):
            self._ingested.labels(state)
        self._fall_backs.labels("generator_failed")

    # -- what is told ------------------------------------------------------------------------------------------------

    def requested(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """See `rag.telemetry.Meters`."""
        method, route = method if method in METHODS else OTHER, route or OTHER
        self._requests.labels(method, route, str(status) if status else "left").inc()
        self._request_seconds.labels(method, route).observe(seconds)

    def staged(self, journey: str, stage: str, seconds: float) -> None:
        """See `rag.telemetry.Meters`."""
        self._stage_seconds.labels(journey, stage).observe(seconds)

    def answered(self, answer: Answer) -> None:
        """See `rag.telemetry.Meters`."""
        self._answers.labels(_outcome(answer)).inc()
        for claim in answer.claims:
            if claim.checkable:
                self._support.observe(claim.support)
                self._unsupported.inc(not claim.supported)
        if answer.usage is not None and not answer.cached:
            self._tokens.labels("prompt").inc(answer.usage.prompt_tokens)
            self._tokens.labels("completion").inc(answer.usage.completion_tokens)

    def looked_up(self, *, found: bool) -> None:
        """See `rag.telemetry.Meters`."""
        self._lookups.labels("hit" if found else "miss").inc()

    def fell_back(self, code: str) -> None:
        """See `rag.telemetry.Meters`."""
        self._fall_backs.labels(code).inc()

    def embedded(self, role: Role, texts: int) -> None:
        """See `rag.telemetry.Meters`."""
        self._batches.labels(role).observe(texts)

    def ingested(self, state: str, passages: int) -> None:
        """See `rag.telemetry.Meters`."""
        self._ingested.labels(state).inc()
        if state == "ready":
            self._passages.inc(passages)

    # -- what is looked up -------------------------------------------------------------------------------------------

    def look(self, citewell: Citewell) -> None:
        """Note what a running whole has in hand at this moment; raises `Unavailable` if its catalog does not answer."""
        self._searches.set(citewell.searches.in_hand)
        if isinstance(citewell.generator, LanguageModel):
            self._note_load(citewell.generator.load)
        behind = citewell.behind()
        self._behind.set(max(behind.values(), default=0))
        if self._by_collection:
            for collection in citewell.store.catalog.list_collections(counted=False):
                self._behind_by.labels(collection.name).set(behind.get(collection.id, 0))

    def _note_load(self, load: Load) -> None:
        self._in_flight.set(load.in_flight)
        self._most.set(load.most)
        self._waiting.set(load.waiting)
        self._breaker.set(load.breaker == "open")
        self._failures.set(load.failures)

    def page(self, citewell: Citewell) -> bytes:
        """Return the numbers of all processes, as Prometheus reads them; raises as `look` does."""
        self.look(citewell)
        together = CollectorRegistry()
        together.register(self._shared or self._registry)
        together.register(_OfCatalog(citewell.store.catalog.queue_figures()))
        return generate_latest(together)

    def looking(self, citewell: Citewell) -> AbstractContextManager[None]:
        """Look again and again while the body runs, so that other processes know how this one is."""

        def look() -> None:
            with suppress(CitewellError):  # the catalog does not answer now; who asks for the page is told
                self.look(citewell)

        return meanwhile(look, LOOK_SECONDS, "metrics")

    def close(self) -> None:
        """Count no more in the files of the folder."""
        if self._shared is not None:
            self._shared.close()


class _OfCatalog(Collector):
    """What is the same for all processes, since the catalog says it, as it was a moment ago."""

    def __init__(self, queue: QueueFigures) -> None:
        self._queue = queue

    def collect(self) -> Iterable[Metric]:
        """Return what the queue is like."""
        files = GaugeMetricFamily("citewell_queue_files", "Files that wait, or are being worked on.", labels=["state"])
        files.add_metric(["waiting"], self._queue.waiting)
        files.add_metric(["processing"], self._queue.processing)
        yield files
        oldest = "Age of the oldest file in the queue; 0 if it is empty."
        yield GaugeMetricFamily("citewell_queue_oldest_seconds", oldest, self._queue.oldest_seconds)


def open_numbers(settings: Settings, kind: Kind) -> Numbers:
    """Return the numbers of a process of this kind, with those of the others if its disk lets them."""
    by_collection = settings.observe.collection_labels
    try:
        return Numbers(kind, settings.data / FOLDER, by_collection=by_collection)
    except OSError as error:
        log.warning("numbers are not shared with other processes", reason=error.strerror)
        return Numbers(kind, by_collection=by_collection)


def numbers_of(citewell: Citewell) -> Numbers:
    """Return the numbers that a whole tells; raises `NotFound` if it tells none."""
    meters = citewell.telemetry.meters
    if not isinstance(meters, Numbers):
        raise NotFound("No numbers are collected here; the setting observe.metrics says so.")
    return meters


def _outcome(answer: Answer) -> str:
    if answer.refused_by is not None:
        return "refused"
    if not answer.abstained:
        return "answered"
    return "withheld" if answer.withheld else "abstained"
