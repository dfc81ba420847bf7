"""The page: its order, nothing from elsewhere, hostile texts shown as they are; the same as JSON and as metrics."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.findings import as_json, as_prometheus
from eval.page import POLICY, as_html, text
from eval.runs import Agreement, Cause, Request, Service, Source
from rag.answers import Answer, Citation, Claim
from rag.logged import Logged, Texts
from rag.records import Plan
from tests.eval.reported import START, asked, findings, run_of

HOSTILE = "<script>alert('x')</script><img src=http://evil.example/x onerror=run()>\" & \u202etxt.exe\x1b[2J"
ANSWER_ID = "f" * 32
SECTIONS = [
    "The judge", "Headline scores", "Retrieval", "Answers", "Service", "By collection and by tag",
    "Where it goes wrong",
    "The worst answers", "Cost", "What could not be scored",
]  # fmt: skip
#: Elements without an end, and what may load something.
VOID, LOADING = {"meta", "br", "line", "circle", "rect", "polyline"}, {"src", "srcset", "data", "action", "background"}


class Outline(HTMLParser):
    """The headings and texts of a page; fails on what runs, loads, or is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.words: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert tag not in {"script", "img", "link", "iframe", "object", "embed", "form", "base"}
        names = {name for name, _ in attrs}
        assert not names & LOADING
        assert not any(name.startswith("on") for name in names)
        self.links += [value for name, value in attrs if name == "href"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def logged(quote=HOSTILE, said=HOSTILE, question=HOSTILE):
    cited = Citation(0, 5, 1, "d", HOSTILE, "v", 1, "c", 3, (), 0, 5, quote, 0.1)
    claim = Claim(said, 0, len(said), (cited,))
    answer = Answer(ANSWER_ID, question, said, False, (claim,), (), "reader", START)
    return Logged(ANSWER_ID, START, False, None, "reader", False, Texts(answer, Plan(question, (), {}, 10, 5)), None)


@pytest.fixture
def found():
    """A run with everything that a page can show, every text of it hostile."""
    failed = asked(
        "1", {"correctness": 0.0, "supported": 0.0, "recall@5": 1.0, "ndcg@10": 0.5},  drifted=True, failed=True,
        cause=Cause.READING, why="A passage that holds the answer went to the reader.", answer_id=ANSWER_ID,
        tags=(HOSTILE,), collection="demo", seconds={"first": 0.1, "end": 0.4}, claims=1, supported=0,
        prompt_tokens=1000, completion_tokens=24,
    )  # fmt: skip
    right = asked("2", {"correctness": 1.0, "supported": 1.0, "recall@5": 1.0}, claims=2, supported=2)
    lost = asked("3", error=HOSTILE, failures={"faithfulness": HOSTILE})
    seen = asked("4", {"supported": 0.5}, source=Source.TRAFFIC, weight=3.0)
    agreement = Agreement("trained", datetime(2026, 11, 1, tzinfo=UTC), (0.8, 0.78, 0.82), 90, 10, 20, 80)
    run = run_of(
        [failed, right, lost, seen], service=Service(3, 50, 10_000, 1, 60.0, 2), agreement=agreement,
        request=Request(label=HOSTILE), left_out=(HOSTILE,),
    )  # fmt: skip
    before = run_of([replace(failed, scores=right.scores), right], "b" * 32)
    return findings(run, [before], answers={ANSWER_ID: logged()}, questions={"1": HOSTILE})


def test_the_page_tells_in_the_order_of_its_sections(found):
    parsed = outline(as_html(found))
    assert parsed.headings == SECTIONS
    told = " ".join(parsed.words)
    assert told.index("Passed") < told.index("The judge")
    for words in (
        "3 golden, 1 traffic", "90 of 100 supported claims", "citewell replay", "went to the reader",
        "documents that could not be read", "What it rests on", "1,000",
    ):  # fmt: skip
        assert words in told


def test_hostile_texts_are_shown_and_do_nothing(found):
    """Nothing is run or loaded; the words are there to be read, without what turns reading around or steers."""
    page = as_html(found, "/v1/answers")
    parsed = outline(page)
    assert "alert('x')" in " ".join(parsed.words)
    assert not re.search("[\u202e\x1b]", page)
    assert f'content="{POLICY}"' in page
    assert set(parsed.links) == {f"/v1/answers/{ANSWER_ID}"}


@given(st.text())
def test_any_text_is_escaped(words):
    parser = Outline()
    parser.feed(f"<p>{text(words)}</p>")
    parser.close()
    assert (parser.open, parser.headings) == ([], [])


def test_words_that_had_to_go_from_the_log_are_not_in_the_page(found):
    """After a purge the log has no texts of the answer, and a page made then has none either."""
    secret = "The vault opens at nine."
    shown = replace(found, answers={ANSWER_ID: logged(secret, secret, secret)})
    assert secret in as_html(shown)
    purged = replace(shown.answers[ANSWER_ID], texts=None, purged_at=START)
    page = as_html(replace(found, answers={ANSWER_ID: purged}))
    assert secret not in page
    assert "was purged" in page


def test_an_empty_run_has_a_page_too():
    parsed = outline(as_html(findings(run_of([]))))
    assert "There are no golden questions." in parsed.words


def test_json_says_the_same(found):
    told = json.loads(json.dumps(as_json(found)))
    assert told["verdict"]["passed"] is True
    assert told["headlines"]["correctness"]["value"] == 0.5
    assert told["causes"] == {
        "missing document": 0, "parsing": 0, "retrieval": 0, "ranking": 0, "reading": 1
    }  # fmt: skip
    assert told["failed"][0]["question"] == HOSTILE
    assert told["cost"]["prompt_tokens"] == 1000
    assert told["questions"] == {"golden": 3, "traffic": 1, "generated": 0, "folder": 0}
    assert told["unscored"] == {f"no answer: {HOSTILE}": 1, f"faithfulness: {HOSTILE}": 1}
    assert [change["metric"] for change in told["changes"]][:2] == ["correctness", "supported"]
    observed, corrected = 2 / 3, told["judge"]["corrected_supported"]["value"]
    assert corrected == pytest.approx((observed + 0.8 - 1) / (0.9 + 0.8 - 1), abs=1e-4)


LINE = re.compile(r'(?P<name>[a-z_]+)(?:\{(?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)+\})? -?[0-9.e+-]+')


def test_metrics_are_in_the_text_format_of_prometheus(found):
    """Each line is a help, a type or a number under a name that both were told of."""
    lines = as_prometheus(found).splitlines()
    helped = {line.split()[2] for line in lines if line.startswith("# HELP ")}
    typed = {line.split()[2] for line in lines if line.startswith("# TYPE ")}
    numbers = [line for line in lines if not line.startswith("#")]
    assert helped == typed == {LINE.fullmatch(line)["name"] for line in numbers}
    assert "citewell_report_passed 1" in lines
    assert 'citewell_report_score{source="golden",metric="correctness"} 0.5' in lines
    assert 'citewell_report_failures{cause="reading"} 1' in lines
