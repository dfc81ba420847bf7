"""The settings: the only reader of the environment and of ``citewell.toml``.

Frozen data, nested by part; vary it with ``model_copy(update=...)``. This module makes no part and opens no file
but the settings file: ``rag.assembly`` turns settings into a running whole.

Order of precedence: values given in code or on the command line, then the environment
(``CITEWELL_GENERATOR__BASE_URL=...``), then the file named by ``CITEWELL_CONFIG`` (default ``citewell.toml`` in the
working directory), then the defaults below.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal, Self

import platformdirs
from pydantic import BaseModel, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from rag.errors import Misconfigured
from rag.setting_parts import (
    BUILT_IN_READER,
    AccessSettings,
    AnswerSettings,
    EmbedderSettings,
    GeneratorSettings,
    GroundingSettings,
    GuardrailsSettings,
    IndexSettings,
    IngestSettings,
    JudgeSettings,
    ObserveSettings,
    Part,
    ReportSettings,
    RetrievalSettings,
    ScoringSettings,
    ServerSettings,
    UnderstandingSettings,
)

__all__ = [
    "BUILT_IN_READER",
    "AccessSettings",
    "AnswerSettings",
    "EmbedderSettings",
    "GeneratorSettings",
    "GroundingSettings",
    "GuardrailsSettings",
    "IndexSettings",
    "IngestSettings",
    "JudgeSettings",
    "ObserveSettings",
    "ReportSettings",
    "RetrievalSettings",
    "ScoringSettings",
    "ServerSettings",
    "Settings",
    "UnderstandingSettings",
    "bare_environment",
    "environment_for",
    "load_settings",
    "read_told",
    "secrets_of",
    "tell",
]


class Settings(BaseSettings):
    """All settings of one Citewell process."""

    model_config = SettingsConfigDict(
        env_prefix="CITEWELL_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        nested_model_default_partial_update=True,
    )

    data: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("citewell", appauthor=False)),
        description="The data folder: catalog, originals, indexes.",
    )
    database: SecretStr | None = Field(
        None,
        description="The catalog's database, postgresql://user:password@host/name; by default a SQLite file in `data`. "
        "Workers on several machines share it and a `data` folder that all of them see.",
    )
    cache: Path = Field(
        default_factory=lambda: Path(platformdirs.user_cache_dir("citewell", appauthor=False)),
        description="Where converted models are kept; may be deleted at any time.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="How log lines look. auto: text on a terminal, elsewhere JSON, one object a line."
    )
    log_texts: bool = Field(
        False, description="Let into the log what parsers say of a document, which may quote it; else only how much."
    )
    server: ServerSettings = ServerSettings()
    access: AccessSettings = AccessSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    understanding: UnderstandingSettings = UnderstandingSettings()
    generator: GeneratorSettings = GeneratorSettings()
    judge: JudgeSettings = JudgeSettings()
    grounding: GroundingSettings = GroundingSettings()
    guardrails: GuardrailsSettings = GuardrailsSettings()
    answers: AnswerSettings = AnswerSettings()
    scoring: ScoringSettings = ScoringSettings()
    report: ReportSettings = ReportSettings()
    ingest: IngestSettings = IngestSettings()
    index: IndexSettings = IndexSettings()
    observe: ObserveSettings = ObserveSettings()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.grounding.ask_reader and self.generator.reader == "words":
            raise ValueError("grounding.ask_reader needs the trained reader; set generator.reader to 'trained'")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings  # two sources are enough: the environment and one file
        file = Path(os.environ.get("CITEWELL_CONFIG", "citewell.toml"))
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)

    @property
    def traces_to(self) -> str | None:
        """Where traces are sent, by our own name for it or by the one that all programs have in common."""
        return self.observe.otlp_endpoint or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or None

    def digest(self) -> str:
        """Return a short digest of everything that can change an answer (not where data lies or who may ask)."""
        where = {
            "index": {"milvus_uri", "milvus_token", "milvus_timeout"},
            "generator": {"max_in_flight", "wait_seconds", "breaker_failures", "breaker_seconds"},
        }
        what = {"embedder", "retrieval", "understanding", "generator", "judge", "grounding", "index"}
        parts = self.model_dump_json(include=what, exclude=where)
        return hashlib.sha256(parts.encode()).hexdigest()[:16]


def secrets_of(settings: BaseModel) -> list[str]:
    """Return every secret that some settings hold, and the URL of the database: no log line may show one."""
    found: list[str] = []
    for _, value in settings:
        if isinstance(value, SecretStr):
            found.append(value.get_secret_value())
        elif isinstance(value, BaseModel):
            found += secrets_of(value)
    return found


def load_settings(**overrides: Any) -> Settings:
    """Read the settings once, at start. Raises `Misconfigured` with every wrong value in one sentence each."""
    config = os.environ.get("CITEWELL_CONFIG")
    if config and not Path(config).is_file():
        raise Misconfigured(f"CITEWELL_CONFIG names {config}, which is not a file.")
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'settings'}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        raise Misconfigured(f"The settings are not valid: {problems}.") from error
    except ValueError as error:  # a settings file that is not TOML
        raise Misconfigured(f"The settings file can not be read: {error}.") from error


def environment_for(settings: Settings) -> dict[str, str]:
    """Return an environment in which a worker process reads the same settings as this one, wherever they came from."""
    parts = {name: part for name, part in settings if isinstance(part, Part)}
    replaced = tuple(f"CITEWELL_{name}".upper() for name in parts)
    kept = {key: value for key, value in os.environ.items() if not key.upper().startswith(replaced)}
    given = {f"CITEWELL_{name}".upper(): json.dumps(part.model_dump(), default=_plain) for name, part in parts.items()}
    told = {"log_level": settings.log_level, "log_format": settings.log_format, "log_texts": settings.log_texts}
    lines = {f"CITEWELL_{name}".upper(): str(said) for name, said in told.items() if name in settings.model_fields_set}
    database = {"CITEWELL_DATABASE": settings.database.get_secret_value()} if settings.database else {}
    return kept | given | lines | database | {"CITEWELL_CACHE": str(settings.cache)}


def tell(settings: Settings, *, descriptor: int) -> bytes:
    """Return a line that tells a process started by this one its settings and what it listens on.

    It may hold passwords. What nobody has set is left out, and read in the same environment and working directory
    again.
    """
    return json.dumps([settings.model_dump(exclude_unset=True), descriptor], default=_plain).encode() + b"\n"


def read_told(line: bytes) -> tuple[Settings, int]:
    """Return what `tell` wrote."""
    values, descriptor = json.loads(line)
    return Settings(**values), int(descriptor)


def _plain(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def bare_environment(home: str, python_path: str) -> dict[str, str]:
    """Return an environment without anything secret, for a process that hostile documents may take over.

    It finds programs and shared libraries as this one does, and modules in ``python_path`` first; ``home`` is its home
    and its folder for temporary files. Libraries in it use one thread each.
    """
    known = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
    kept = {name: os.environ[name] for name in known if name in os.environ}
    paths = os.pathsep.join(filter(None, (python_path, os.environ.get("PYTHONPATH"))))
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    return kept | single | {"HOME": home, "TMPDIR": home, "PYTHONPATH": paths}
