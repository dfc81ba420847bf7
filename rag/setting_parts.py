"""The settings of each part of Citewell: names, defaults, bounds, and what does not go together within a part.

Where values come from, and what holds between parts, is in `rag.settings`, which everybody imports them from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator


class Part(BaseModel):
    """What the settings of all parts have in common: frozen, and no name that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(Part):
    """Where the REST API listens and what it takes."""

    host: str = Field(
        "127.0.0.1", description="Address to listen on; any but loopback needs a key, see `citewell keys create`."
    )
    port: int = Field(8321, ge=0, le=65535, description="Port to listen on.")
    max_question_chars: int = Field(4000, ge=1, description="Longest question, in characters.")
    max_files_per_upload: int = Field(1_000, ge=1, description="Most files in one upload request.")
    processes: int = Field(
        0, ge=0, description="Processes that answer requests; 0: one for each core, four at most. Each holds a model."
    )
    worker: bool = Field(True, description="Whether a worker runs beside the server; others read files all the same.")
    grace_seconds: float = Field(
        30.0, ge=0, description="Seconds for which running answers may go on after the server was told to stop."
    )
    max_searches: int = Field(
        128, ge=1, description="Searches, those for answers too, that a process has in hand; one more is answered 429."
    )
    max_answers: int = Field(64, ge=1, description="Answers that a process has in hand; one more is answered 429.")
    queue_seconds: float = Field(
        30.0, gt=0, description="A search that has waited so long is answered 429 when its turn comes."
    )
    search_batch: int = Field(32, ge=1, description="Most questions that are embedded in one model call.")
    search_threads: int = Field(
        1, ge=1, description="Batches that a process works on at once; more where a search waits for other machines."
    )
    page_pixels: int = Field(
        3_000_000, ge=10_000, le=50_000_000, description="Most pixels of a page that is shown as a picture."
    )
    page_seconds: float = Field(10.0, gt=0, description="Longest time that drawing such a page may take.")


class AccessSettings(Part):
    """Who may ask, from where, and how much; keys are made by `citewell keys create`."""

    hosts: list[str] = Field(
        [], description="Names and addresses under which clients reach the server; empty, once there are keys: any."
    )
    origins: list[str] = Field(
        [], description="Origins of web pages that may ask from a browser (CORS), such as https://intranet.example."
    )
    requests_per_minute: int = Field(
        6000, ge=1, description="Requests that a key may send to this server, where it has no limit of its own."
    )
    burst: int = Field(200, ge=1, description="Requests that a key which has been quiet may send at once beyond that.")
    in_flight: int = Field(
        64, ge=1, description="Requests of a key at the same time, where it has no limit of its own."
    )
    collection_documents: int | None = Field(None, ge=1, description="Most documents that a collection may hold.")
    collection_bytes: int | None = Field(None, ge=1, description="Most bytes of originals that a collection may hold.")
    first_key_file: Path | None = Field(
        None, description="While there is no key, the secret in this file becomes that of an admin key named `first`."
    )
    audit_days: float = Field(365.0, gt=0, description="Lines of the audit log are forgotten after so many days.")
    key: SecretStr | None = Field(
        None, description="The key that `citewell mcp --url` and the adapters send to another server; never logged."
    )
    oidc_issuer: str | None = Field(
        None,
        description="Also take bearer tokens of this OpenID Connect issuer, for example https://login.example.org.",
    )
    oidc_audience: str | None = Field(None, description="What the tokens must be made for.")
    oidc_role_claim: str = Field("citewell_role", description="The claim with the role, or with a list of groups.")
    oidc_roles: dict[str, Literal["reader", "writer", "admin"]] = Field(
        {"reader": "reader", "writer": "writer", "admin": "admin"}, description="What the values of that claim mean."
    )
    oidc_collections_claim: str = Field(
        "citewell_collections",
        description="The claim with a list of collection names, '*' for all; without it, none is seen but by admins.",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for origin in self.origins:
            if not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+", origin):
                raise ValueError(f"access.origins: {origin[:100]!r} is no origin; write https://intranet.example")
        if self.oidc_issuer and not self.oidc_issuer.startswith(("https://", "http://127.0.0.1", "http://localhost")):
            raise ValueError("access.oidc_issuer must be an https URL, or one of this machine")
        if self.oidc_issuer and not self.oidc_audience:
            raise ValueError("access.oidc_issuer is set but access.oidc_audience is not, whom its tokens must be for")
        return self


class EmbedderSettings(Part):
    """The bi-encoder that gives passages and questions their vectors."""

    model: str = Field(
        "all-MiniLM-L6-v2",
        description="The built-in model, or a folder (with `allow_download` also a hub name) of another one.",
    )
    backend: Literal["auto", "openvino", "torch"] = Field(
        "auto", description="auto takes OpenVINO when it is installed and the model is the built-in one, else torch."
    )
    device: str = Field(
        "auto",
        description="Devices of the torch backend, joined by commas (cpu, cuda, cuda:0,cuda:1); auto takes every GPU.",
    )
    threads: int = Field(0, ge=0, description="CPU threads of one model call; 0 leaves the choice to the backend.")
    allow_download: bool = Field(False, description="Let the torch backend fetch a model from the hub by its name.")


#: The value of ``retrieval.reranker`` that means the reader of the package.
BUILT_IN_READER = "reader"


class RetrievalSettings(Part):
    """How passages are found."""

    candidates: int = Field(100, ge=1, le=10_000, description="How many each of the dense and lexical index gives.")
    top_k: int = Field(8, ge=1, le=1000, description="How many passages go on to the generator or the searcher.")
    dense_weight: float = Field(0.5, ge=0, le=1, description="Share of the dense score in the min-max sum.")
    late_candidates: int = Field(50, ge=0, le=1000, description="How many fused candidates late interaction looks at.")
    late_weight: float = Field(0.6, ge=0, le=1, description="Share of late interaction in the score of those.")
    parts: dict[str, bool] = Field({}, description="Parts switched on or off; `rag.queries.Parts` has their names.")
    reranker: str = Field(
        "",
        description="What reads the best passages again: `reader`, the built-in one, or the folder of a cross-encoder; "
        "empty: nothing.",
    )
    rerank_candidates: int = Field(
        30, ge=1, le=1000, description="How many passages a reranker reads, if there is one."
    )
    diversity: float = Field(0.0, ge=0, le=1, description="How much passages that say the like are kept apart.")
    around: int = Field(0, ge=0, le=10, description="Chunks added on either side of each passage, unranked.")
    section: bool = Field(False, description="Add the whole section of each passage, unranked, instead of `around`.")
    hidden: bool = Field(
        False,
        description="Search and answer from text that readers of a document do not see, too (white on white, hidden "
        "rows ...). It is always kept, marked `hidden`, and a search may ask for it.",
    )


class UnderstandingSettings(Part):
    """How a language model makes queries of a question, for those of retrieval's parts that are switched on."""

    parts: int = Field(4, ge=2, le=10, description="Most parts that a question is taken apart into (`decompose`).")
    paraphrases: int = Field(3, ge=1, le=10, description="How often it is put into other words (`multi_query`).")
    history_tokens: int = Field(800, ge=16, description="Most tokens of a conversation that are shown for `rewrite`.")
    max_tokens: int = Field(256, ge=16, description="Most tokens of the model's reply.")
    timeout_seconds: float = Field(5.0, gt=0, description="Then the question is looked for as it is.")


#: What the client of an OpenAI-compatible server sends itself.
REQUEST_FIELDS = frozenset(
    "model messages max_tokens max_completion_tokens temperature stream stream_options response_format n".split()
)


def _check_fields(part: str, fields: Mapping[str, Any]) -> None:
    if own := sorted(REQUEST_FIELDS & fields.keys()):
        raise ValueError(f"{part}.request_fields must not hold what Citewell sets itself: {', '.join(own)}")


class GeneratorSettings(Part):
    """What writes the answer."""

    kind: Literal["reader", "openai", "llama-index"] = Field(
        "reader",
        description="reader: built in, quotes sentences. openai: any OpenAI-compatible server. llama-index: any of its "
        "LLM classes.",
    )
    reader: Literal["words", "trained"] = Field(
        "trained",
        description="The built-in reader. words compares the question with each sentence word by word; trained also "
        "reads both together with a model that ships, which marks the short answer.",
    )
    base_url: str | None = Field(None, description="For example http://127.0.0.1:8000/v1 of trtllm-serve.")
    model: str | None = Field(None, description="Model name; by default the first that the server lists.")
    api_key: SecretStr | None = Field(None, description="Sent as a bearer token; never logged.")
    llm: str = Field("", description="For llama-index: the class, e.g. llama_index.llms.ollama:Ollama.")
    llm_arguments: dict[str, Any] = Field(
        {}, description="For llama-index: what the class is made with; `model` and `api_key` are added where they fit."
    )
    request_fields: dict[str, Any] = Field(
        {},
        description="Sent to an OpenAI-compatible server with every question, for example "
        "{chat_template_kwargs = {enable_thinking = false}}.",
    )
    context_tokens: int = Field(
        8192, ge=256, description="The model's window: prompt and answer together. A server that names less is heeded."
    )
    tokenizer: Path | None = Field(
        None, description="The model's tokenizer.json, or its folder: prompts are then counted instead of estimated."
    )
    max_tokens: int = Field(512, ge=1, description="Most tokens of one answer.")
    temperature: float = Field(0.0, ge=0, le=2)
    most_temperature: float = Field(1.0, ge=0, le=2, description="Highest temperature that a request may ask for.")
    guided: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether replies that are read by code are bound to a JSON schema. auto: until the server refuses.",
    )
    connect_timeout: float = Field(5.0, gt=0, description="Seconds to reach the server.")
    first_token_timeout: float = Field(60.0, gt=0, description="Seconds until the first token.")
    total_timeout: float = Field(120.0, gt=0, description="Seconds for a whole answer.")
    fall_back: bool = Field(True, description="Let the built-in reader answer, marked as such, when the server fails.")
    max_in_flight: int = Field(16, ge=1, description="Generations that a process has in hand at once; others wait.")
    wait_seconds: float = Field(10.0, gt=0, description="A question that has waited so long for one is answered 429.")
    breaker_failures: int = Field(5, ge=1, description="After so many failures in a row the model is left alone.")
    breaker_seconds: float = Field(30.0, gt=0, description="For so long; then one question tries it again.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "openai" and not self.base_url:
            raise ValueError(
                "generator.kind is 'openai' but generator.base_url is not set, e.g. http://127.0.0.1:8000/v1"
            )
        if self.kind == "llama-index" and not self.llm:
            raise ValueError(
                "generator.kind is 'llama-index' but generator.llm is not set, e.g. llama_index.llms.ollama:Ollama"
            )
        _check_fields("generator", self.request_fields)
        if self.request_fields.get("top_k", 0) == -1:
            raise ValueError("generator.request_fields: top_k -1 stops TensorRT-LLM's engine; leave it out, or take 0")
        if self.max_tokens >= self.context_tokens:
            raise ValueError("generator.max_tokens must be smaller than generator.context_tokens")
        return self


class JudgeSettings(Part):
    """What says how far a citation supports its sentence."""

    kind: Literal["words", "trained"] = Field(
        "trained",
        description="trained: a model that ships reads both. words: the share of the sentence's words that are cited.",
    )


class GroundingSettings(Part):
    """What becomes of sentences that the documents do not support, and when nothing is said at all."""

    policy: Literal["report", "filter", "strict"] = Field(
        "report",
        description="report: scores are shown. filter: unsupported sentences are withheld; text goes out sentence by "
        "sentence. strict: one unsupported sentence withholds the answer, which goes out at its end.",
    )
    threshold: float | None = Field(
        None, ge=0, le=1, description="Support from which a sentence is supported; by default that of the judge."
    )
    least_relevance: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="No answer where no passage is as near to the question as this, by the cosine of their vectors; by "
        "default 0.2 with the built-in embedder, and no such bound with others.",
    )
    ask_reader: float = Field(
        0.0,
        ge=0,
        le=1,
        description="A language model is not asked where the trained reader holds an answer for less likely; 0: the "
        "reader is not asked, which takes time.",
    )
    conflicts: bool = Field(True, description="Look for other documents that contradict what is cited.")


class GuardrailsSettings(Part):
    """What questions and answers have to pass, by NeMo Guardrails (the extra `guardrails`)."""

    config: Path | None = Field(
        None, description="Folder of its files: config.yml, flows (*.co), actions.py, which is run. Empty: no rails."
    )
    on_failure: Literal["refuse", "pass"] = Field(
        "refuse",
        description="Where rails can not be asked, as when their model is away. refuse: status 503. pass: it goes on "
        "unchecked, and the answer says so.",
    )
    timeout_seconds: float = Field(20.0, gt=0, description="Most seconds for all rails of a question or an answer.")
    api_key: SecretStr | None = Field(
        None, description="Sent to the models of the folder that name no key of their own; never logged."
    )


class AnswerSettings(Part):
    """What is kept of answers, for how long, and when one may stand for another."""

    keep: bool = Field(True, description="Keep answers in the log, with all that explains them.")
    redact: Literal["none", "question", "all"] = Field(
        "none",
        description="What the log leaves out: nothing; what was asked; every text, so that ids and figures remain. "
        "Conversations, resumable answers and the cache need `none`.",
    )
    retention_days: float = Field(30.0, gt=0, description="Answers that are older are removed from the log.")
    most_kept: int = Field(100_000, ge=1, description="Most answers in the log; the oldest are removed.")
    cache: bool = Field(
        True, description="Let an answer of the log stand for the same question, where the same passages are found."
    )
    cache_seconds: float = Field(86_400.0, gt=0, description="Older answers stand for no other one.")
    grace_seconds: float = Field(60.0, ge=0, description="A resumable answer goes on so long without its client.")
    resume_seconds: float = Field(300.0, gt=0, description="Its events can be read for so long after its end.")


class ScoringSettings(Part):
    """What scores answers in evaluations and reports."""

    judge: Literal["built-in", "openai"] = Field(
        "built-in", description="built-in: the judge of the answers. openai: any OpenAI-compatible server."
    )
    base_url: str | None = Field(None, description="For example http://127.0.0.1:8000/v1.")
    model: str | None = Field(None, description="Model name; by default the first that the server lists.")
    api_key: SecretStr | None = Field(None, description="Sent as a bearer token; never logged.")
    request_fields: dict[str, Any] = Field({}, description="As for the generator.")
    context_tokens: int = Field(16_384, ge=256, description="The model's window: prompt and reply together.")
    max_tokens: int = Field(2048, ge=16, description="Most tokens of one reply.")
    timeout_seconds: float = Field(120.0, gt=0, description="Seconds for one score, whatever the judge.")
    attempts: int = Field(3, ge=1, description="How often a score is tried before it counts as failed.")
    retry_seconds: float = Field(1.0, ge=0, description="Pause before the second try, doubled for each one after it.")
    in_flight: int = Field(4, ge=1, description="Answers that a language model judges at once.")
    keep_days: float = Field(30.0, gt=0, description="Scores that nothing needed for so long are forgotten.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.judge == "openai" and not self.base_url:
            raise ValueError("scoring.judge is 'openai' but scoring.base_url is not set, e.g. http://127.0.0.1:8000/v1")
        _check_fields("scoring", self.request_fields)
        if self.max_tokens >= self.context_tokens:
            raise ValueError("scoring.max_tokens must be smaller than scoring.context_tokens")
        return self


class ReportSettings(Part):
    """What the quality report asks, what it may cost, when it runs by itself, and who is told of it."""

    schedule: str = Field("", description="Five fields of cron, for example '30 2 * * *'; empty: it runs when asked.")
    timezone: str = Field("UTC", description="Where the times of the schedule are, for example Europe/Berlin.")
    collections: list[str] = Field([], description="What a scheduled report is about; empty: every collection.")
    golden: int | None = Field(None, ge=1, description="Most golden questions; by default all.")
    traffic: int = Field(50, ge=0, description="Most answers of the last day that are judged again.")
    generated: int = Field(20, ge=0, description="Most questions that are made of passages.")
    gates: Path | None = Field(None, description="TOML file of what a report must reach; see `citewell report run`.")
    seconds: float = Field(3600.0, gt=0, description="Then a report asks no more questions.")
    judge_seconds: float = Field(1800.0, gt=0, description="Then it judges no more answers.")
    tokens: int | None = Field(None, ge=0, description="Tokens of language models after which it asks nothing more.")
    keep_days: float = Field(730.0, gt=0, description="Reports that ended earlier are forgotten.")
    share: float = Field(
        0.5, gt=0, le=1, description="Share of the time in which a scheduled report works; live traffic has the rest."
    )
    webhook_url: str | None = Field(None, description="Told of every report by a signed POST of JSON.")
    webhook_secret: SecretStr | None = Field(None, description="Key of the signature; never logged.")
    mail_to: list[str] = Field([], description="Addresses that get a mail about a report that has not passed.")
    mail_from: str = Field("citewell@localhost", description="The sender of these mails.")
    smtp_host: str | None = Field(None, description="The mail server.")
    smtp_port: int = Field(587, ge=1, le=65535, description="Its port.")
    smtp_security: Literal["starttls", "tls", "none"] = Field("starttls", description="How the connection is secured.")
    smtp_user: str | None = Field(None, description="The user there, if it wants one.")
    smtp_password: SecretStr | None = Field(None, description="The password of that user; never logged.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.webhook_url and not self.webhook_secret:
            raise ValueError("report.webhook_url is set but report.webhook_secret is not, by which calls are signed")
        if self.mail_to and not self.smtp_host:
            raise ValueError("report.mail_to is set but report.smtp_host is not, e.g. mail.example.org")
        return self


class ObserveSettings(Part):
    """What a monitoring system learns of the work."""

    metrics: bool = Field(True, description="Collect numbers, and show those of all processes at /metrics.")
    open_metrics: bool = Field(False, description="Show them without a key; else, where keys exist, admins see them.")
    collection_labels: bool = Field(False, description="Show numbers by collection too, with the names of all of them.")
    otlp_endpoint: str | None = Field(
        None,
        description="Send traces there by OTLP over HTTP, for example http://127.0.0.1:4318; by default where "
        "OTEL_EXPORTER_OTLP_ENDPOINT says, and nowhere without it. Needs the extra `observe`.",
    )
    trace_share: float = Field(1.0, ge=0, le=1, description="Share of the traces that begin here which is sent.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.otlp_endpoint and not self.otlp_endpoint.startswith(("http://", "https://")):
            raise ValueError("observe.otlp_endpoint must be an http or https URL such as http://127.0.0.1:4318")
        return self


class IngestSettings(Part):
    """Limits and pace of the ingest journey."""

    max_file_bytes: int = Field(200_000_000, ge=1, description="Largest file that is accepted.")
    max_pages: int = Field(5_000, ge=1, description="Most pages of one document.")
    max_text_chars: int = Field(50_000_000, ge=1, description="Most characters of parsed text of one document.")
    max_pixels: int = Field(100_000_000, ge=1, description="Most pixels of one picture, or of one page made a picture.")
    archive_members: int = Field(10_000, ge=1, description="Most files in one archive or message, and inside those.")
    archive_bytes: int = Field(2_000_000_000, ge=1, description="Most bytes that the files of an archive unpack to.")
    archive_ratio: int = Field(200, ge=1, description="Most bytes that one byte of an archive unpacks to.")
    archive_depth: int = Field(3, ge=0, description="How deep archives in archives (or messages) are opened.")
    ocr: Literal["auto", "tesseract", "rapidocr", "off"] = Field(
        "auto", description="What reads pictures: auto takes Debian's tesseract, else rapidocr (the extra `ocr`)."
    )
    ocr_languages: str = Field(
        "", description="Languages for tesseract, joined by + (deu+eng); empty: all that are installed, at most four."
    )
    ocr_dpi: int = Field(200, ge=50, le=600, description="Resolution in which a page is made a picture for OCR.")
    ocr_seconds: float = Field(3600.0, gt=0, description="Longest time that reading one document with OCR may take.")
    parsers: int = Field(0, ge=0, description="Parsing processes beside the embedder; 0: one for each core, 2 to 8.")
    attempts: int = Field(3, ge=1, description="How often a file is tried before it is called failed.")
    deaths: int = Field(10, ge=1, description="How often a file's worker may die over it before it is called failed.")
    retry_seconds: float = Field(5.0, gt=0, description="Pause before the second try, doubled for each one after it.")
    retry_most_seconds: float = Field(600.0, gt=0, description="Longest pause between two tries.")
    stall_seconds: float = Field(600.0, gt=0, description="A worker that gets no step further for so long ends itself.")
    lease_seconds: float = Field(60.0, gt=0, description="A worker silent for so long loses its file to another.")
    poll_seconds: float = Field(0.5, gt=0, description="How often an idle worker looks for work.")
    embed_batch: int = Field(0, ge=0, description="Most passages in one model call; 0: as suits the embedder.")
    parse_seconds: float = Field(300.0, gt=0, description="Longest time that reading one document may take.")
    parse_memory_bytes: int = Field(
        4 << 30, ge=1 << 28, description="Largest address space of the parsing process, and of what it starts."
    )
    parse_output_bytes: int = Field(
        300_000_000, ge=1000, description="Most bytes that are taken of one parsed document."
    )
    parse_write_bytes: int = Field(1_000_000_000, ge=1, description="Largest file that the parsing process may write.")
    parse_open_files: int = Field(256, ge=32, description="Most files that the parsing process may hold open.")
    parse_documents: int = Field(
        5_000, ge=1, description="After so many documents, or when it has grown large, the parsing process is replaced."
    )


class IndexSettings(Part):
    """When the derived indexes are sealed, of what kind the dense one is, and how exact."""

    engine: Literal["faiss", "milvus"] = Field(
        "faiss", description="Where sealed rows are searched: in files of the data folder, or in a Milvus server."
    )
    milvus_uri: str | None = Field(
        None, description="For example http://milvus:19530; a file ending in .db is Milvus Lite, for one process alone."
    )
    milvus_token: SecretStr | None = Field(None, description="user:password or an API key of Milvus; never logged.")
    milvus_timeout: float = Field(5.0, gt=0, description="Seconds until Milvus must have answered a search.")
    seal_rows: int = Field(2_000, ge=1, description="Seal when the tail has this many rows and seal_share of all rows.")
    seal_share: float = Field(0.05, ge=0, le=1)
    seal_threads: int = Field(1, ge=1, description="CPU threads of sealing; the others stay free for searches.")
    kind: Literal["auto", "flat", "ivf", "hnsw"] = Field(
        "auto", description="The sealed dense part; auto: flat up to flat_rows, then ivf."
    )
    codes: Literal["auto", "sq8", "sq4", "rabitq"] = Field(
        "auto", description="What ivf keeps of a vector: 8, 4 or 1 bit a dimension; auto: 1 bit, rabitq."
    )
    flat_rows: int = Field(10_000, ge=1, description="Up to so many rows the sealed dense part is exact.")
    memory_bytes: int = Field(
        1 << 30, ge=0, description="Most bytes of a sealed dense index; where kind and codes need more, ivf and rabitq."
    )
    min_recall: float = Field(0.99, gt=0, le=1, description="Least measured recall@10 of an approximate sealed part.")
    device: Literal["cpu", "cuda"] = Field("cpu", description="Where the sealed dense part is searched.")
    gpu_kind: Literal["flat", "ivf", "cagra"] = Field(
        "flat", description="The index on the GPU: flat is exact in float16; cagra needs a FAISS with cuVS."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.engine == "milvus" and not self.milvus_uri:
            raise ValueError("index.engine is 'milvus' but index.milvus_uri is not set, e.g. http://milvus:19530")
        if self.milvus_uri and "@" in self.milvus_uri:
            raise ValueError("index.milvus_uri holds a password; put user:password into index.milvus_token")
        return self
