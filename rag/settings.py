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
from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from rag.errors import Misconfigured
from rag.setting_parts import (
    AnswerSettings,
    EmbedderSettings,
    GeneratorSettings,
    GroundingSettings,
    IndexSettings,
    IngestSettings,
    JudgeSettings,
    Part,
    ReportSettings,
    RetrievalSettings,
    ScoringSettings,
    ServerSettings,
    UnderstandingSettings,
)

__all__ = [
    "AnswerSettings",
    "EmbedderSettings",
    "GeneratorSettings",
    "GroundingSettings",
    "IndexSettings",
    "IngestSettings",
    "JudgeSettings",
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
    server: ServerSettings = ServerSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    understanding: UnderstandingSettings = UnderstandingSettings()
    generator: GeneratorSettings = GeneratorSettings()
    judge: JudgeSettings = JudgeSettings()
    grounding: GroundingSettings = GroundingSettings()
    answers: AnswerSettings = AnswerSettings()
    scoring: ScoringSettings = ScoringSettings()
    report: ReportSettings = ReportSettings()
    ingest: IngestSettings = IngestSettings()
    index: IndexSettings = IndexSettings()

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

    def digest(self) -> str:
        """Return a short digest of everything that can change an answer (not where data lies or who may ask)."""
        where = {
            "index": {"milvus_uri", "milvus_token", "milvus_timeout"},
            "generator": {"max_in_flight", "wait_seconds", "breaker_failures", "breaker_seconds"},
        }
        what = {"embedder", "retrieval", "understanding", "generator", "judge", "grounding", "index"}
        parts = self.model_dump_json(include=what, exclude=where)
        return hashlib.sha256(parts.encode()).hexdigest()[:16]


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
    level = {"CITEWELL_LOG_LEVEL": settings.log_level} if "log_level" in settings.model_fields_set else {}
    database = {"CITEWELL_DATABASE": settings.database.get_secret_value()} if settings.database else {}
    return kept | given | level | database | {"CITEWELL_CACHE": str(settings.cache)}


def tell(settings: Settings, *, port: int) -> bytes:
    """Return a line that tells a process started by this one its settings and a port; it may hold passwords.

    What nobody has set is left out, and read in the same environment and working directory again.
    """
    return json.dumps([settings.model_dump(exclude_unset=True), port], default=_plain).encode() + b"\n"


def read_told(line: bytes) -> tuple[Settings, int]:
    """Return what `tell` wrote."""
    values, port = json.loads(line)
    return Settings(**values), int(port)


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
