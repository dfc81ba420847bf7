"""``citewell doctor``: what is installed, which parts the settings choose, whether they work, and the cure if not.

It changes nothing that a user would miss. Each check is a function from settings to `Check`; none of them raises.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from api.commands.options import AsJson, Data, read_settings
from api.commands.terminal import counted, say, say_json, wrapped
from rag.errors import CitewellError

if TYPE_CHECKING:
    from rag.language_model import LanguageModel
    from rag.protocols import Embedder
    from rag.settings import Settings

#: The packages whose versions matter to whoever helps with a problem.
PACKAGES = (
    "torch", "sentence-transformers", "openvino", "onnx", "faiss-cpu", "faiss-gpu-cu12", "unstructured",
    "pypdfium2", "rapidocr", "llama-index-core", "SQLAlchemy", "psycopg", "fastapi", "uvicorn", "openai", "ragas",
    "ir-measures", "nemoguardrails",
)  # fmt: skip
#: Two texts, and what the built-in model gives for them: their cosine and the first numbers of the first vector.
KNOWN_TEXTS = ("The hotel limit is 145 euros per night.", "How much may a room cost?")
KNOWN_COSINE = 0.469
KNOWN_START = (0.1063, 0.0125, -0.0575, 0.0347)
#: Further apart than bfloat16 and float32 ever are.
TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. ``ok`` is None where nothing is asked for: a fact, or a part that may be missing."""

    part: str
    ok: bool | None
    found: str
    cure: str | None = None


def doctor(ctx: typer.Context, as_json: AsJson = False, data: Data = None) -> None:
    """Check this installation and say what cures it.

    Shows what is installed, which parts the settings choose and whether they work, and what is missing. The exit status
    is 0 if everything works that the settings ask for, else 1.
    """
    checks = list(_checks(ctx, data))
    healthy = all(check.ok is not False for check in checks)
    if as_json:
        say_json({"ok": healthy, "checks": [asdict(check) for check in checks]})
    else:
        say(line for check in checks for line in _lines(check))
        bad = sum(check.ok is False for check in checks)
        say(["", "Everything that the settings ask for works." if healthy else f"{counted(bad, 'problem')} found."])
    if not healthy:
        raise typer.Exit(1)


def _lines(check: Check) -> list[str]:
    mark = {True: "ok", False: "PROBLEM", None: "-"}[check.ok]
    lines = wrapped(check.found, indent=30) or [""]
    lines[0] = f"{mark:<8}{check.part:<22}{lines[0].strip()}"
    return [*lines, *(wrapped(f"cure: {check.cure}", indent=30) if check.cure else [])]


def _checks(ctx: typer.Context, data: Path | None) -> Iterator[Check]:
    yield _check_python()
    yield from _packages()
    yield _check_faiss()
    try:
        settings = read_settings(ctx, data)
    except CitewellError as error:
        yield Check("settings", False, error.message, "set the value right, then run `citewell doctor` again.")
        return
    yield from _check_data(settings)
    yield _check_writable("cache folder", settings.cache)
    yield _check_embedder(settings)
    yield _check_generator(settings)
    yield _check_reader(settings)
    yield _check_judge(settings)
    yield from _check_guardrails(settings)
    yield _check_ocr(settings)
    yield _check_legacy()
    yield from _check_report(settings)


def _check_python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check("python", sys.version_info >= (3, 11), f"{version} in {sys.prefix}")


def _packages() -> Iterator[Check]:
    yield Check("citewell", None, _version("citewell") or "runs from a checkout that is not installed")
    for name in PACKAGES:
        if version := _version(name):
            yield Check(name, None, version)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _check_faiss() -> Check:
    """Both builds of FAISS have one import name: the later one installed has overwritten files of the other."""
    found = sorted(name for name in ("faiss-cpu", "faiss-gpu-cu12", "faiss-gpu-cu11", "faiss-gpu") if _version(name))
    if not found:
        return Check("dense index", False, "FAISS is not installed.", "run `pip install citewell[cpu]`.")
    if len(found) > 1:
        cure = f"run `pip uninstall {' '.join(found)}`, then `pip install citewell[cpu]` or citewell[gpu], one of them."
        return Check("dense index", False, f"{' and '.join(found)} overwrite each other's files.", cure)
    return Check("dense index", True, f"{found[0]} {_version(found[0])}")


def _check_data(settings: Settings) -> Iterator[Check]:
    yield _check_writable("data folder", settings.data)
    if settings.database is None and not (settings.data / "catalog.sqlite3").is_file():
        yield Check("catalog", None, "not there yet; the first ingest makes it")
        return
    from rag.database import SCHEMA
    from rag.store import open_store

    try:
        with open_store(settings) as store:
            found = store.catalog.list_collections()
            waiting = store.catalog.queue_length()
            answered, cached = store.catalog.answer_counts(datetime.now(UTC) - timedelta(days=1))
    except CitewellError as error:
        yield Check("catalog", False, error.message, "see above; --data names another data folder.")
        return
    held = f"{counted(len(found), 'collection')}, {counted(sum(c.passages for c in found), 'passage')}"
    where = "SQLite" if settings.database is None else "PostgreSQL"
    yield Check("catalog", True, f"{where}, version {SCHEMA}, {held}, {waiting:,} in the queue")
    share = f", {cached / answered:.0%} of them from the cache" if answered else ""
    yield Check("answers", None, f"{answered:,} logged in the last day{share}")
    sizes = {name: _size(settings.data / name) for name in ("originals", "indexes")}
    sizes["catalog"] = sum(_size(file) for file in settings.data.glob("catalog.sqlite3*"))
    yield Check("sizes", None, ", ".join(f"{name} {size / 1e6:,.1f} MB" for name, size in sorted(sizes.items())))


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _check_writable(part: str, folder: Path) -> Check:
    """Look at the folder, or at the nearest one above that is there, without making anything."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        return Check(part, False, f"{folder}: {nearest} is not a folder", "name another one.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        return Check(
            part, False, f"{folder}: {nearest} can not be written to", "change its permissions or name another."
        )
    free = shutil.disk_usage(nearest).free / 1e9
    return Check(part, True, f"{folder}{'' if folder.exists() else ' (not there yet)'}, {free:,.1f} GB free")


def _check_embedder(settings: Settings) -> Check:
    from rag.encoders import BUILT_IN, open_embedder

    chosen = settings.embedder.model
    try:
        embedder = open_embedder(settings.embedder, settings.cache)
    except CitewellError as error:
        return Check("embedder", False, error.message, "set embedder.model and embedder.backend to what is there.")
    except (ImportError, OSError) as error:
        return Check("embedder", False, f"{chosen} can not be opened: {error}", "run `pip install citewell[cpu]` anew.")
    found = f"{chosen} on {embedder.engine}, {embedder.dimension} dimensions"
    if wrong := _wrong_vectors(embedder, known=chosen == BUILT_IN):
        return Check("embedder", False, f"{found}, {wrong}", f"remove {settings.cache / 'models'} and try again.")
    return Check("embedder", True, f"{found}, vectors as they should be")


def _wrong_vectors(embedder: Embedder, *, known: bool) -> str | None:
    """Say what is wrong with the vectors of two texts; of a model that is not ``known`` they only must be unit long."""
    import numpy as np

    vectors = embedder.encode(KNOWN_TEXTS).vectors
    lengths = np.linalg.norm(vectors, axis=1)
    if not np.allclose(lengths, 1, atol=1e-3):
        return f"gives vectors of length {lengths[0]:.3f} instead of 1"
    cosine = float(vectors[0] @ vectors[1])
    start = vectors[0, : len(KNOWN_START)]
    if known and not (abs(cosine - KNOWN_COSINE) < TOLERANCE and np.allclose(start, KNOWN_START, atol=TOLERANCE)):
        return f"gives wrong vectors (cosine {cosine:.3f} instead of {KNOWN_COSINE})"
    return None


def _check_reader(settings: Settings) -> Check:
    if settings.generator.reader == "words":
        return Check("reader", True, "compares the question with each sentence word by word")
    return _check_weights("reader", "generator.reader")


def _check_judge(settings: Settings) -> Check:
    if settings.judge.kind == "words":
        return Check("judge", True, "compares the words of a sentence with what it cites")
    return _check_weights("judge", "judge.kind")


def _check_guardrails(settings: Settings) -> Iterator[Check]:
    """Open the rails, where the settings ask for some; their models are not asked."""
    from rag.guardrails import NemoRails

    if settings.guardrails.config is None:
        return
    try:
        with closing(NemoRails(settings.guardrails)) as rails:
            yield Check("guardrails", True, f"{settings.guardrails.config}: {rails.told}")
    except CitewellError as error:
        yield Check("guardrails", False, error.message, "set guardrails.config right, or leave it out.")


def _check_weights(part: str, setting: str) -> Check:
    """Load a trained model of the package and let it read a pair of texts."""
    from rag.pair_model import TrainedPairs

    question, passage = reversed(KNOWN_TEXTS)
    try:
        with closing(TrainedPairs(part)) as model:
            model.read(model.tokenizer.windows(question, [passage])[0])
            return Check(part, True, f"the trained one on {model.engine}")
    except CitewellError as error:
        return Check(part, False, error.message, f"set {setting} to words, or put the file there.")


def _check_generator(settings: Settings) -> Check:
    from rag.assembly import open_language_model

    async def found(model: LanguageModel) -> tuple[bool, str]:
        try:
            return await model.ready(), f"{model.name}, prompts of up to {await model.prompt_tokens():,} tokens"
        finally:
            await model.aclose()

    chosen = settings.generator
    where = chosen.base_url or chosen.llm
    cures = {
        "openai": "start that server, set generator.base_url right, or set generator.kind to reader.",
        "llama-index": "install that class, and set generator.llm and generator.llm_arguments right.",
    }
    try:
        model = open_language_model(chosen)
        if model is None:
            return Check("generator", True, "the built-in reader: quotes sentences, needs no server")
        is_ready, told = asyncio.run(found(model))
    except CitewellError as error:
        return Check("generator", False, error.message, cures[chosen.kind])
    if not is_ready:
        return Check("generator", False, f"{where} says that it is not ready yet.", "wait until its model is loaded.")
    bounds = f"{chosen.max_in_flight} at once, left alone for {chosen.breaker_seconds:g} s after "
    return Check("generator", True, f"{where} is ready: {told}; {bounds}{counted(chosen.breaker_failures, 'failure')}")


def _check_ocr(settings: Settings) -> Check:
    """What reads scans and pictures: a problem only where the settings name an engine that is not there."""
    from ingest import ocr

    found = ocr.engine(settings.ingest)
    if found is not None:
        where = f" at {shutil.which(found)}" if shutil.which(found) else ""
        return Check("ocr", True, f"{found}{where}")
    asked = settings.ingest.ocr in {"tesseract", "rapidocr"}
    why = ocr.cure(settings.ingest)
    return Check("ocr", False if asked else None, "scanned pages and pictures can not be read", why)


def _check_report(settings: Settings) -> Iterator[Check]:
    """When the report runs by itself, by whose work, and what it must reach."""
    from eval.gates import DEFAULT, read_gates
    from eval.schedule import read_cron

    chosen = settings.report
    if not chosen.schedule:
        yield Check("report", None, "runs when it is asked for; report.schedule, e.g. '30 2 * * *', makes it nightly")
    else:
        try:
            due = read_cron(chosen.schedule, chosen.timezone).after(datetime.now(UTC))
        except CitewellError as error:
            yield Check("report", False, error.message, "set report.schedule and report.timezone right.")
        else:
            told = f"'{chosen.schedule}' in {chosen.timezone}, next at {due:%Y-%m-%d %H:%M} UTC, by a worker"
            yield Check("report", True, told)
    if chosen.gates is None:
        yield Check("gates", None, f"none set: a sure drop of one of the {len(DEFAULT)} headline scores fails a report")
        return
    try:
        found = read_gates(chosen.gates)
    except CitewellError as error:
        yield Check("gates", False, error.message, "set the file right, or report.gates.")
    else:
        yield Check("gates", True, f"{counted(len(found), 'gate')} in {chosen.gates}")


def _check_legacy() -> Check:
    """DOC and PPT are read through LibreOffice: a fact, never a problem."""
    if found := shutil.which("soffice"):
        return Check("libreoffice", None, f"{found}, for DOC, PPT and RTF")
    cure = "for DOC and PPT install Debian's libreoffice-writer-nogui and libreoffice-impress-nogui."
    return Check("libreoffice", None, "not on this machine; DOC and PPT files can not be read", cure)
