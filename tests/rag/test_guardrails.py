"""NeMo Guardrails: what its files say about questions and answers, and what is no word of theirs."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from rag.errors import GuardrailsFailed, Misconfigured
from rag.guardrails import NemoRails
from rag.protocols import Verdict
from rag.settings import GuardrailsSettings
from tests.scripted_llm import CHAT, Close, Pause, Reply, completion, json_reply, refused_port

pytest.importorskip("nemoguardrails", reason="the extra `guardrails` is not installed")
# The library warns of a field of its own configuration whenever one is read.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'nim_base_url':DeprecationWarning")

SELF_CHECKS = """
models:
  - type: main
    engine: openai
    model: scripted-model
    parameters: {{base_url: {base_url}, temperature: 0.25}}
rails:
  input: {{flows: [self check input]}}
  output: {{flows: [self check facts, self check output]}}
prompts:
  - task: self_check_input
    content: 'Block the question "{{{{ user_input }}}}"?'
  - task: self_check_output
    content: 'Block the answer "{{{{ bot_response }}}}" to "{{{{ user_input }}}}"?'
  - task: self_check_facts
    content: 'Is "{{{{ response }}}}" in "{{{{ evidence }}}}"?'
"""
PATTERNS = """
rails:
  config:
    regex_detection:
      input: {patterns: ['(?i)password']}
      output: {patterns: ['\\d{4} \\d{4}']}
  input: {flows: [regex check input]}
  output: {flows: [regex check output]}
"""
#: Flows and an action of one's own: one changes the text, one breaks, one refuses in words of its own.
OWN_YAML = """
rails:
  input: {flows: [mask names]}
  output: {flows: [mask names in answers]}
"""
OWN_FLOWS = """
define bot will not say
  "Ask the help desk."

define subflow mask names
  $user_message = execute mask(text=$user_message)

define subflow mask names in answers
  if "secret" in $bot_message
    bot will not say
    stop
  $bot_message = execute mask(text=$bot_message)
"""
OWN_ACTIONS = """
from nemoguardrails.actions import action


@action()
async def mask(text: str):
    if "break" in text:
        raise RuntimeError("broken")
    return text.replace("Ada", "N.")
"""


def folder(path: Path, config: str, flows: str = "", actions: str = "") -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.yml").write_text(config)
    if flows:
        (path / "rails.co").write_text(flows)
    if actions:
        (path / "actions.py").write_text(actions)
    return path


def opened(config: Path, **values: object) -> closing[NemoRails]:
    return closing(NemoRails(GuardrailsSettings(config=config, **values)))


def ask(rails: NemoRails, question: str) -> Verdict:
    return asyncio.run(rails.check_question(question))


def tell(rails: NemoRails, answer: str) -> Verdict:
    return asyncio.run(rails.check_answer("How much?", answer, ["It costs 5 euros.", "It is free."]))


def test_a_model_is_asked_about_question_and_answer_and_its_word_counts(tmp_path, server):
    """By the prompts of the folder, with the passages at hand; the folder's parameters go along, and nothing else."""
    with opened(folder(tmp_path, SELF_CHECKS.format(base_url=server.base_url))) as rails:
        assert rails.holds_answers
        server.on(CHAT, completion("No"), completion("yes"), completion("No"))
        assert ask(rails, "How much?") == Verdict("How much?")
        assert tell(rails, "It costs 5 euros. [1]") == Verdict("It costs 5 euros. [1]")
        server.on(CHAT, completion("Yes"))
        refused = "I'm sorry, I can't respond to that."
        assert ask(rails, "How much?") == Verdict(refused, "self check input")
        assert tell(rails, "It costs 5 euros. [1]") == Verdict(refused, "self check output")
    server_was_asked = [chat.json["messages"][0]["content"] for chat in server.chats[:3]]
    assert server_was_asked == [
        'Block the question "How much?"?',
        'Is "It costs 5 euros. [1]" in "It costs 5 euros.\nIt is free."?',
        'Block the answer "It costs 5 euros. [1]" to "How much?"?',
    ]
    first = server.chats[0]
    assert (first.json["model"], first.json["temperature"]) == ("scripted-model", 0.001)
    assert "authorization" not in first.headers
    assert first.headers["user-agent"] == "citewell"


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        pytest.param(json_reply(500, {"error": "out of memory"}), "out of memory", id="an error"),
        pytest.param(json_reply(200, {"object": "list"}), "choices", id="no completion"),
        pytest.param((Close(),), "disconnected", id="hangs up"),
        pytest.param((Pause(30),), "took longer than guardrails.timeout_seconds", id="says nothing"),
    ],
)
def test_a_model_that_fails_is_never_taken_for_a_word(tmp_path, server, reply: Reply, why):
    """Neither for leave nor for a refusal."""
    server.on(CHAT, reply)
    with opened(folder(tmp_path, SELF_CHECKS.format(base_url=server.base_url)), timeout_seconds=2) as rails:
        with pytest.raises(GuardrailsFailed, match=why) as failed:
            ask(rails, "How much?")
        assert failed.value.message.startswith("The guardrails could not check the question:")
        with pytest.raises(GuardrailsFailed, match="could not check the answer"):
            tell(rails, "It is free.")


def test_who_leaves_ends_what_the_model_was_asked(tmp_path, server):
    """A question that nobody waits for any more costs nobody any more."""
    server.on(CHAT, (Pause(60),))
    with opened(folder(tmp_path, SELF_CHECKS.format(base_url=server.base_url)), timeout_seconds=60) as rails:

        async def leave() -> None:
            asked = asyncio.create_task(rails.check_question("How much?"))
            while not server.chats:  # noqa: ASYNC110 - the server is another thread
                await asyncio.sleep(0.01)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked

        asyncio.run(leave())
        assert server.hung_up.wait(60)


def test_a_model_that_is_away_is_a_failure(tmp_path):
    taken, port = refused_port()
    config = folder(tmp_path, SELF_CHECKS.format(base_url=f"http://127.0.0.1:{port}/v1"))
    with taken, opened(config) as rails, pytest.raises(GuardrailsFailed, match="could not check the question"):
        ask(rails, "How much?")


def test_the_key_of_the_settings_goes_to_the_models_that_name_none(tmp_path, server, monkeypatch):
    """And no key of an environment variable that nobody has named."""
    monkeypatch.setenv("OPENAI_API_KEY", "of somebody else")
    server.on(CHAT, completion("No"))
    with opened(folder(tmp_path, SELF_CHECKS.format(base_url=server.base_url)), api_key="mine") as rails:
        ask(rails, "How much?")
    assert server.chats[0].headers["authorization"] == "Bearer mine"
    with opened(folder(tmp_path, SELF_CHECKS.format(base_url=server.base_url))) as rails:
        ask(rails, "How much?")
    assert "authorization" not in server.chats[1].headers


SAFETY = """
models:
  - {{type: content_safety, engine: nim, model: guard, parameters: {{base_url: {base_url}}}}}
rails:
  input: {{flows: [content safety check input $model=content_safety]}}
prompts:
  - task: content_safety_check_input $model=content_safety
    content: 'Is "{{{{ user_input }}}}" safe?'
    output_parser: is_content_safe
"""


def test_a_rail_may_have_a_model_of_its_own(tmp_path, server):
    """Under the name of any engine, also one whose makers have a host of their own: the folder's server is asked."""
    server.on(CHAT, completion("safe"), completion("unsafe"))
    with opened(folder(tmp_path, SAFETY.format(base_url=server.base_url))) as rails:
        assert ask(rails, "How much?") == Verdict("How much?")
        assert ask(rails, "How much?").refused_by == "content safety check input $model=content_safety"
    assert [chat.json["model"] for chat in server.chats] == ["guard", "guard"]


def test_rails_without_a_model_refuse_by_patterns(tmp_path):
    with opened(folder(tmp_path, PATTERNS)) as rails:
        assert ask(rails, "How much?") == Verdict("How much?")
        assert ask(rails, "What is the Password?").refused_by == "regex check input"
        assert tell(rails, "Call 1234 5678.").refused_by == "regex check output"
        assert tell(rails, "Call us.") == Verdict("Call us.")


def test_flows_of_ones_own_change_what_is_asked_and_said(tmp_path):
    with opened(folder(tmp_path, OWN_YAML, OWN_FLOWS, OWN_ACTIONS)) as rails:
        assert ask(rails, "Is Ada in?") == Verdict("Is N. in?")
        assert tell(rails, "Ada is in. [1]") == Verdict("N. is in. [1]")
        assert tell(rails, "It is secret.") == Verdict("Ask the help desk.", "mask names in answers")


@pytest.mark.parametrize("parallel", [False, True])
def test_an_action_that_breaks_is_a_failure_and_no_refusal(tmp_path, parallel):
    """The library answers 'an internal error has occurred' in its place, in the shape of a refusal."""
    config = OWN_YAML.replace("input: {", "input: {parallel: true, ") if parallel else OWN_YAML
    made = folder(tmp_path, config, OWN_FLOWS, OWN_ACTIONS)
    with opened(made) as rails, pytest.raises(GuardrailsFailed, match="could not check the question"):
        ask(rails, "Will it break?")


def test_what_one_asks_is_not_kept_for_the_next(tmp_path):
    """Questions that are asked often, by many at once, neither pile up nor meet each other."""
    with opened(folder(tmp_path, OWN_YAML, OWN_FLOWS, OWN_ACTIONS)) as rails:

        async def many() -> list[Verdict]:
            return await asyncio.gather(*(rails.check_question(f"Is Ada {n} in?") for n in range(40)))

        assert asyncio.run(many()) == [Verdict(f"Is N. {n} in?") for n in range(40)]
        assert rails._rails.events_history_cache == {}


def test_only_one_side_may_have_rails(tmp_path):
    """Then the other is let by unchecked, and answers need not be held."""
    only = PATTERNS.replace("output: {flows: [regex check output]}", "")
    with opened(folder(tmp_path, only)) as rails:
        assert not rails.holds_answers
        assert tell(rails, "Call 1234 5678.") == Verdict("Call 1234 5678.")


def test_the_fingerprint_goes_by_every_file_of_the_folder(tmp_path):
    config = folder(tmp_path, OWN_YAML, OWN_FLOWS, OWN_ACTIONS)
    prints = []
    for change in ("", "# changed\n"):
        (config / "actions.py").write_text(OWN_ACTIONS + change)
        with opened(config) as rails:
            prints.append(rails.fingerprint)
        with opened(config) as rails:
            assert rails.fingerprint == prints[-1]
    assert prints[0] != prints[1]


def test_nothing_runs_on_after_it_is_closed(tmp_path):
    before = threading.active_count()
    with opened(folder(tmp_path, PATTERNS)):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_the_library_logs_no_question(tmp_path, caplog):
    """It would write the arguments of an action that breaks."""
    config = folder(tmp_path, OWN_YAML, OWN_FLOWS, OWN_ACTIONS)
    with caplog.at_level(logging.DEBUG), opened(config) as rails, pytest.raises(GuardrailsFailed):
        ask(rails, "Will Ada break?")
    assert "Ada" not in caplog.text


MODEL = "models: [{type: main, engine: openai, model: m, parameters: {base_url: 'http://127.0.0.1:9/v1'}}]\n"


@pytest.mark.parametrize(
    ("config", "why"),
    [
        pytest.param("rails: {input: {flows: [jailbreak detection heuristics]}}", "speaks to other hosts", id="hub"),
        pytest.param("rails: {input: {flows: [autoalign check input]}}", "speaks to other hosts", id="foreign host"),
        pytest.param("rails: {input: {flows: [no such flow]}}", "no such rail", id="unknown"),
        pytest.param("models: []", "names no flow", id="no rails"),
        pytest.param(PATTERNS + "models: [{type: main, engine: openai, model: m}]", "base_url", id="no server"),
        pytest.param(PATTERNS + MODEL.replace("http", "ftp"), "base_url", id="no HTTP"),
        pytest.param(PATTERNS + MODEL.replace("127", "me:word@127"), "password", id="password"),
        pytest.param(PATTERNS + MODEL.replace("main", "embeddings"), "embeddings", id="embeddings"),
        pytest.param("colang_version: 2.x", "Colang", id="Colang 2"),
        pytest.param("rails: [", "can not be read", id="no YAML"),
        pytest.param("rails: {input: {flows: [self check input]}}", "can not be used|can not be read", id="no prompt"),
    ],
)
def test_what_can_not_be_used_is_refused_at_the_start(tmp_path, config, why):
    with pytest.raises(Misconfigured, match=why):
        NemoRails(GuardrailsSettings(config=folder(tmp_path, config)))


def shown() -> list[str]:
    """The files that the page shows."""
    page = Path(__file__).parents[2] / "docs" / "guardrails.md"
    return re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("config", shown(), ids=["model", "patterns"])
def test_the_files_of_the_page_can_be_used(tmp_path, config):
    with opened(folder(tmp_path, config)) as rails:
        assert rails.holds_answers
        assert "input" in rails.told


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Misconfigured, match="which is no folder"):
        NemoRails(GuardrailsSettings(config=tmp_path / "none"))


def test_documents_of_the_library_are_refused(tmp_path):
    """It would embed them by a model of the hub."""
    config = folder(tmp_path, PATTERNS)
    (config / "kb").mkdir()
    (config / "kb" / "facts.md").write_text("# Facts\n\nIt is free.\n")
    with pytest.raises(Misconfigured, match=r"remove .*kb"):
        NemoRails(GuardrailsSettings(config=config))


ONE_CHECK = """
import asyncio, json, sys
seen, written = [], []
def listen(event, args):
    if event in {"socket.connect", "socket.sendto"} and isinstance(args[1], tuple):
        seen.append(f"{args[1][0]}:{args[1][1]}")
    elif event in {"socket.getaddrinfo", "socket.gethostbyname"} and args[0] != "127.0.0.1":
        seen.append(str(args[0]))
sys.addaudithook(listen)

from pathlib import Path
from rag.guardrails import NemoRails
from rag.settings import GuardrailsSettings

rails = NemoRails(GuardrailsSettings(config=Path(sys.argv[1])))
verdict = asyncio.run(rails.check_question("How much?"))
rails.close()
there = [name for name in ("pytest", "fastembed", "torch") if name in sys.modules]
print(json.dumps({"seen": seen, "refused_by": verdict.refused_by, "there": there}))
"""


def test_no_host_but_the_model_s_is_spoken_to_and_nothing_is_reported(tmp_path, server):
    """Nor is anything left in the home of who runs it: the library keeps there what it reports.

    It reports nothing where it finds itself under test, so that this runs in a process without pytest.
    """
    root, home = Path(__file__).parents[2], tmp_path / "home"
    home.mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "DO_NOT_", "NEMO", "CI", "PYTEST"))}
    server.on(CHAT, completion("Yes"))
    config = folder(tmp_path / "rails", SELF_CHECKS.format(base_url=server.base_url))
    done = subprocess.run(
        [sys.executable, "-c", ONE_CHECK, str(config)],
        cwd=root, env=kept | {"HOME": str(home), "PYTHONPATH": str(root)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found["seen"]) == {f"127.0.0.1:{server.port}"}
    assert (found["refused_by"], found["there"]) == ("self check input", [])
    assert list(home.rglob("*")) == []


def test_without_the_library_its_extra_is_named(tmp_path):
    """Before anything is opened, with the command that cures it."""
    config = folder(tmp_path, PATTERNS)
    script = (
        "import sys; sys.modules['nemoguardrails'] = None\n"
        "from pathlib import Path\nfrom rag.guardrails import NemoRails\nfrom rag.settings import GuardrailsSettings\n"
        "NemoRails(GuardrailsSettings(config=Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(config)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "`pip install citewell[guardrails]`" in done.stderr.splitlines()[-1]
