"""The product speaks to no host that was not configured: every look-up and connection of a journey is recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from rag.settings import load_settings

JOURNEY = """
import asyncio, json, sys
seen = []
def listen(event, args):
    if event in {"socket.connect", "socket.sendto"} and isinstance(args[1], tuple):
        seen.append([event, str(args[1])])
    elif event in {"socket.getaddrinfo", "socket.gethostbyname"}:
        seen.append([event, str(args[0])])
sys.addaudithook(listen)

from pathlib import Path
from ingest.worker import Worker, accept_file
from rag.assembly import open_citewell
from rag.settings import load_settings

samples = Path("ingest/samples")
with open_citewell(load_settings(data=Path(sys.argv[1]))) as citewell:
    collection = citewell.store.catalog.create_collection("c")
    for path in sorted(p for p in samples.rglob("*") if p.is_file()):
        accept_file(citewell.store, collection, str(path.relative_to(samples)), path)
    done = []
    Worker(citewell).drain(done=lambda version: done.append(version.state))
    answer = asyncio.run(citewell.ask(citewell.plan("What is the hotel limit for domestic travel?", ["c"])))
    from api.app import create_app
    create_app(citewell)
    from eval.ranking import import_ir_measures
    import_ir_measures()
    from eval.judges import open_judge
    from eval.scored import Sample
    from eval.suite import score_all
    scoring = citewell.store.settings.scoring
    texts = tuple(passage.text for passage in answer.passages)
    sample = Sample("1", answer.question, answer.text, texts, "The hotel limit is 145 euros per night.")
    with open_judge(scoring, citewell.judge, citewell.embedder) as judge:
        scored = score_all([sample], judge, scoring)
print(json.dumps({"seen": seen, "states": done, "answer": answer.text, "scores": len(scored.scores)}))
"""


def test_ingest_search_and_answers_reach_no_network(tmp_path: Path) -> None:
    """Parsers, tokenizers and models included: not one name is looked up, not one connection tried."""
    root = Path(__file__).parent.parent
    switches = ("HF_", "TRANSFORMERS_", "DO_NOT_", "RAGAS_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(switches)}
    places = {
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "CITEWELL_CACHE": str(load_settings().cache),
    }
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    done = subprocess.run(
        [sys.executable, "-c", JOURNEY, str(tmp_path / "data")],
        cwd=root, env=environment | places | {"PYTHONPATH": str(root)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["states"] == ["ready"] * 10
    assert "euros per night" in found["answer"]
    assert found["scores"] == 6
    assert found["seen"] == []
    # Telemetry written in C++ is not heard above, but keeps its events in files: onnxruntime's would lie in these, and
    # Ragas keeps who it reports on.
    left = [str(path) for name in ("home", "tmp") for path in (tmp_path / name).rglob("*")]
    assert not [path for path in left if "onnxruntime" in path or "ragas" in path or path.endswith(".ses")]
