"""The rules of the house that a machine can keep: who imports whom, who owns which library, no circles."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {"rag": {"rag"}, "ingest": {"rag", "ingest"}, "eval": {"rag", "eval"}, "api": {"rag", "ingest", "eval", "api"}}
#: The one file, or few, in which a library may be imported.
OWNERS = {
    "faiss": {"rag/sealed_vectors.py", "eval/peers/llamaindex.py"},
    "Stemmer": {"rag/words.py"},
    "pymilvus": {"rag/milvus.py"},
    "grpc": {"rag/milvus.py"},
    "sqlalchemy": {"rag/catalog/", "rag/database.py", "rag/schema.py", "rag/migrations/versions/"},
    "alembic": {"rag/database.py", "rag/migrations/"},
    "datasketch": {"rag/copies.py"},
    "torch": {"rag/encoders.py", "eval/training/", "eval/tuning/projection.py"},
    "sentence_transformers": {"rag/encoders.py", "rag/cross_encoder.py"},
    "transformers": {"rag/encoders.py", "eval/training/writer.py"},
    "openvino": {"rag/graphs.py"},
    "onnxruntime": {"rag/graphs.py"},
    "onnx": {"rag/encoders.py", "eval/training/export.py", "eval/training/exported.py"},
    "tokenizers": {"rag/tokens.py"},
    "openai": {"rag/chat_server.py"},
    "nemoguardrails": {"rag/guardrails.py"},
    "nltk": {"rag/sentences.py"},
    "llama_index": {"ingest/chunk.py", "api/llamaindex.py", "eval/peers/llamaindex.py", "rag/llama_llm.py"},
    "unstructured": {"ingest/partition.py"},
    "pypdfium2": {"ingest/pdf.py", "ingest/pdf_page.py", "ingest/hidden_pdf.py"},
    "PIL": {"ingest/image.py"},
    "pi_heif": {"ingest/image.py"},
    "rapidocr": {"ingest/ocr.py"},
    "cv2": {"ingest/ocr.py"},
    "magika": {"ingest/detect.py"},
    "py3langid": {"ingest/language.py"},
    "docutils": {"ingest/restructured.py"},
    "striprtf": {"ingest/legacy.py"},
    "ir_measures": {"eval/ranking.py"},
    "ragas": {"eval/ragas_metrics.py"},
    "chromadb": {"eval/peers/chroma.py"},
    "haystack": {"eval/peers/haystack.py"},
    "haystack_integrations": {"eval/peers/haystack.py"},
    "txtai": {"eval/peers/txtai.py"},
    "fastapi": {"api/"},
    "starlette": {"api/"},
    "uvicorn": {"api/"},
    "typer": {"api/"},
    "rich": {"api/"},
    "python_multipart": {"api/uploads.py"},
    "mcp": {"api/mcp_server.py"},
    "mcp_types": {"api/mcp_server.py"},
    "jwt": {"api/oidc.py"},
    "threadpoolctl": {"rag/assembly.py"},
    "watchfiles": {"api/commands/sync.py"},
    "prometheus_client": {"api/metrics.py", "api/shared_numbers.py"},
    "opentelemetry": {"api/traces.py"},
    "requests": {"api/traces.py"},
}
#: Inside rag: these know no other file of it but those named.
GROUND = {
    "queries": set(), "records": {"queries"}, "answers": {"queries", "records"}, "errors": set(),
    "setting_parts": set(), "settings": {"errors", "setting_parts"}, "protocols": {"records"},
}  # fmt: skip


@cache
def sources() -> tuple[Path, ...]:
    return tuple(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> frozenset[str]:
    """The full names of all modules that a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return frozenset(found)


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", sources(), ids=module)
def test_each_room_enters_only_the_rooms_it_may(path: Path) -> None:
    """rag imports none of the others, ingest and eval import rag, api may import all."""
    room = path.relative_to(ROOT).parts[0]
    entered = {name.split(".")[0] for name in imports(path)} & {*ROOMS, "tests"}
    assert entered <= ROOMS[room]


@pytest.mark.parametrize("library", sorted(OWNERS))
def test_each_library_has_one_owner(library: str) -> None:
    """A foreign type can not leak from where it is at home if nobody else can name it."""
    users = {str(p.relative_to(ROOT)) for p in sources() if any(n.split(".")[0] == library for n in imports(p))}
    strangers = {user for user in users if not any(user.startswith(owner) for owner in OWNERS[library])}
    assert users, "nobody imports it any more: take it out of the table and of pyproject.toml"
    assert not strangers


def test_the_ground_of_rag_knows_nothing_above_it() -> None:
    for name, allowed in GROUND.items():
        known = {n.removeprefix("rag.") for n in imports(ROOT / "rag" / f"{name}.py") if n.startswith("rag")}
        assert known <= allowed, name


def test_nothing_in_rag_imports_the_assembly() -> None:
    assert not [p.name for p in sorted((ROOT / "rag").rglob("*.py")) if "rag.assembly" in imports(p)]


def test_there_is_no_circle() -> None:
    """Taking away modules that import no other one must take away all of them."""
    modules = {module(path): path for path in sources()}
    graph = {name: {n for n in imports(path) if n in modules and n != name} for name, path in modules.items()}
    while leaves := {name for name, known in graph.items() if not known}:
        graph = {name: known - leaves for name, known in graph.items() if name not in leaves}
    assert not graph


def test_records_stand_on_the_standard_library_alone() -> None:
    import sys

    known = imports(ROOT / "rag" / "records.py") | imports(ROOT / "rag" / "queries.py")
    assert {name.split(".")[0] for name in known - {"rag.queries"}} <= {*sys.stdlib_module_names}


def test_only_the_settings_read_the_environment() -> None:
    """`os.environ` and `getenv` stand nowhere else; `quiet` may write to it."""
    readers = [
        module(path)
        for path in sources()
        if any(word in path.read_text() for word in ("os.environ", "getenv"))
        and path.name not in {"settings.py", "quiet.py"}
    ]
    assert not readers


def test_a_listing_of_the_folders_shows_the_house() -> None:
    """Every module says in its first docstring what it does."""
    silent = [module(path) for path in sources() if not ast.get_docstring(tree(path))]
    assert not silent
