"""Golden questions over REST and on the command line: added, listed, checked, confirmed, removed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from rag.assembly import open_citewell
from rag.settings import Settings
from rag.testing import WordEmbedder
from tests.api.live import problem, read_all, serving, upload
from tests.cli_process import Cli

FERRY = b"The ferry leaves at noon. It carries cars."
QUESTION = "When does the ferry leave?"


@pytest.fixture
def words(settings: Settings) -> Iterator[httpx.Client]:
    """A client of a server over one document, `ferry.txt` of `notes`."""
    with open_citewell(settings, embedder=WordEmbedder()) as citewell, serving(citewell) as client:
        assert client.post("/v1/collections", json={"name": "notes"}).status_code == 201
        upload(client, "notes", ("ferry.txt", FERRY))
        read_all(citewell)
        yield client


def add(client: httpx.Client, *questions: dict, **more: object) -> list[dict]:
    reply = client.post("/v1/golden", json={"collection": "notes", "questions": questions, **more})
    assert reply.status_code == 201, reply.text
    return reply.json()["questions"]


def replaced(client: httpx.Client, settings: Settings, text: bytes) -> None:
    upload(client, "notes", ("ferry.txt", text))
    with open_citewell(settings, embedder=WordEmbedder()) as citewell:
        read_all(citewell)


def test_a_question_lives_from_its_addition_to_its_removal(words, settings):
    """Added and confirmed with what is searched, found to have drifted, confirmed anew, removed."""
    document = {"name": "ferry.txt", "text": "leaves at noon"}
    wanted = {"question": QUESTION, "answer": "At noon.", "documents": [document], "tags": ["ferry"]}
    [found] = add(words, wanted, tags=["all"])
    assert (found["outcome"], found["drift"], found["tags"]) == ("added", [], ["all", "ferry"])
    assert found["documents"] == [{**document, "version": 1, "standing": "confirmed"}]
    assert [one["outcome"] for one in add(words, wanted, tags=["all"])] == ["unchanged"]
    shown = words.get(f"/v1/golden/{found['id']}").json()
    assert shown == {key: value for key, value in found.items() if key != "outcome"}
    assert words.get("/v1/golden/check").json() == {"checked": 1, "drifted": []}
    replaced(words, settings, b"In summer the ferry leaves at noon.")
    checked = words.get("/v1/golden/check", params={"collection": "notes"}).json()
    [drifted] = checked["drifted"]
    assert drifted["drift"] == ["ferry.txt has another content than the one that was confirmed."]
    assert drifted["documents"][0]["standing"] == "changed"
    confirmed = words.post(f"/v1/golden/{found['id']}/confirm").json()
    assert (confirmed["drift"], confirmed["documents"][0]["version"]) == ([], 2)
    replaced(words, settings, b"The ferry does not run.")
    assert problem(words.post(f"/v1/golden/{found['id']}/confirm"), 409)["code"] == "conflict"
    assert words.delete(f"/v1/golden/{found['id']}").status_code == 204
    assert problem(words.get(f"/v1/golden/{found['id']}"), 404)["code"] == "not_found"


def test_questions_are_listed_page_by_page(words):
    ids = [one["id"] for one in add(words, *({"question": f"Question {n}?", "tags": [f"t{n % 2}"]} for n in range(5)))]
    first = words.get("/v1/golden", params={"limit": 3}).json()
    second = words.get("/v1/golden", params={"limit": 3, "after": first["next"]}).json()
    assert [one["id"] for one in [*first["questions"], *second["questions"]]] == ids
    assert second["next"] is None
    assert first["questions"][0]["drift"] is None
    tagged = words.get("/v1/golden", params={"collection": "notes", "tag": "t1"}).json()["questions"]
    assert [one["id"] for one in tagged] == ids[1::2]


def test_an_answer_of_the_log_becomes_a_golden_question(words):
    """Its sentences are the reference, the document that it cites is the one that answers."""
    answer = words.post("/v1/ask", json={"question": QUESTION, "collections": ["notes"]}).json()
    [found] = add(words, answers=[answer["id"]], tags=["log"])
    assert (found["question"], found["tags"], found["answerable"]) == (QUESTION, ["log"], not answer["abstained"])
    assert found["answer"] in " ".join(claim["text"] for claim in answer["claims"])
    assert [(one["name"], one["version"]) for one in found["documents"]] == [("ferry.txt", 1)]
    assert problem(words.post("/v1/golden", json={"collection": "notes", "answers": ["nope"]}), 404)


def test_all_are_added_or_none(words):
    """One that contradicts itself keeps the others out, and a missing document does not."""
    bad = {"question": "Who?", "answer": "x", "answerable": False}
    body = {"collection": "notes", "questions": [{"question": QUESTION}, bad]}
    assert "neither an answer nor documents" in problem(words.post("/v1/golden", json=body), 400)["message"]
    assert (
        "Neither questions nor answers"
        in problem(words.post("/v1/golden", json={"collection": "notes"}), 400)["message"]
    )
    assert words.get("/v1/golden").json()["questions"] == []
    [found] = add(words, {"question": QUESTION, "documents": [{"name": "nowhere.txt"}]})
    assert found["drift"] == ["nowhere.txt is not in the collection."]


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    folder = tmp_path_factory.mktemp("golden")
    (folder / "files").mkdir()
    (folder / "files" / "ferry.txt").write_bytes(FERRY)
    cli = Cli(folder / "data", folder)
    cli("ingest", "files", "-c", "notes")
    return cli


def test_a_golden_set_on_the_command_line(cli: Cli) -> None:
    """Added from a file and from the log, listed, found to have drifted with status 1, confirmed, removed."""
    assert cli("golden", "list").out.startswith("There are no golden questions")
    rows = [
        {"question": QUESTION, "answer": "At noon.", "documents": ["ferry.txt"], "tags": ["ferry"]},
        {"question": "Who is the captain?", "answerable": False},
    ]
    file = cli.folder / "golden.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("golden", "add", file, "-c", "notes").out == "2 questions: 2 added.\n"
    assert cli("golden", "add", file, "-c", "notes", "--tag", "x").out == "2 questions: 2 replaced.\n"
    listed = cli("golden", "list", "--tag", "ferry", "--json").json["questions"]
    assert [(one["question"], one["tags"]) for one in listed] == [(QUESTION, ["ferry", "x"])]
    assert QUESTION in cli("golden", "list", "-c", "notes").out
    assert cli("golden", "check").out == "2 questions: all of them stand as they were confirmed.\n"
    (cli.folder / "files" / "ferry.txt").write_text("The ferry leaves at nine.")
    cli("ingest", "files/ferry.txt", "-c", "notes")
    drifted = cli("golden", "check", "-c", "notes", status=1)
    assert "1 of 2 questions should be looked at again" in drifted.out
    assert "ferry.txt has another content" in drifted.out
    assert cli("golden", "check", "--json", status=1).json["drifted"][0]["id"] == listed[0]["id"]
    assert cli("golden", "confirm", listed[0]["id"]).out == "Confirmed 1 question.\n"
    cli("documents", "delete", "ferry.txt", "-c", "notes", "--yes")
    passed_over = cli("golden", "confirm", "--all", "notes", status=1).out
    assert "Confirmed 1 question.\n1 question can not be confirmed:" in passed_over
    assert cli("golden", "remove", listed[0]["id"]).out == "Removed 1 question.\n"
    assert cli("golden", "remove", "--all", "notes", "--yes").out == "Removed 1 question.\n"
    assert cli("golden", "list", "--json").json == {"questions": []}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("add", "-c", "notes"), "Give a file with questions"),
        (("add", "nowhere.jsonl", "-c", "notes"), "is not readable as JSON lines"),
        (("add", "-c", "notes", "--answer", "nope"), "no answer 'nope'"),
        (("list", "-c", "nope"), "no collection named 'nope'"),
        (("check", "-c", "nope"), "no collection named 'nope'"),
        (("confirm",), "Give the ids of questions"),
        (("confirm", "nope"), "no golden question 'nope'"),
        (("remove", "nope", "--all", "notes"), "Give the ids of questions"),
    ],
)
def test_what_can_not_be_done_is_a_sentence(cli: Cli, arguments: tuple[str, ...], sentence: str) -> None:
    assert sentence in cli("golden", *arguments, status=2).err
