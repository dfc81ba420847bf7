from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from api.answer_schemas import AnswerReply, CitationReply, ClaimReply, ShortAnswerReply
from tests.api.live import HOTEL, SAMPLES

PAGES = SAMPLES.parents[1] / "api" / "pages"


class Links(HTMLParser):
    """Collects what a page loads and links to, and any script or style inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.links += [given[name] for name in ("src", "href", "action") if given.get(name)]
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_is_self_contained_and_has_a_strict_policy(reading, path):
    """Nothing is loaded from elsewhere, no script stands in the page, and the policy would refuse both."""
    page = reading.get(path)
    assert page.headers["content-type"].startswith("text/html")
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in page.headers["content-security-policy"]
    found = Links()
    found.feed(page.text)
    assert found.inline == []
    assert found.links
    for link in found.links:
        assert link.startswith(("/", "#"))
        assert reading.get(link.partition("#")[0] or path).status_code == 200, link


@pytest.mark.parametrize("file", sorted(path.name for path in PAGES.iterdir()))
def test_no_file_of_the_pages_names_another_host_or_writes_html(reading, file):
    """What comes from documents is only ever set as text; no address but our own is fetched."""
    text = (PAGES / file).read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", text)
    assert not re.search(r"(https?:)?//(?!www\.w3\.org/2000/svg)[a-z]", text)
    served = reading.get(f"/pages/{file}")
    assert served.text == text
    assert served.headers["x-content-type-options"] == "nosniff"


def test_the_scripts_name_what_is_there():
    """Every element that a script asks for stands in the page, every name that it imports is exported where it says,
    and every field of an answer that it reads is in the reply.
    """
    page = (PAGES / "index.html").read_text(encoding="utf-8")
    scripts = {path.name: path.read_text(encoding="utf-8") for path in PAGES.glob("*.js") if path.name != "docs.js"}
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    made = {"secret"}
    for script in scripts.values():
        assert set(re.findall(r'byId\("([^"]+)"', script)) <= {*ids, *made}
        for names, file in re.findall(r'import \{([^}]+)\} from "\./([^"]+)"', script):
            exported = set(re.findall(r"export (?:async )?(?:function\*?|const|class) (\w+)", scripts[file]))
            assert {name.strip() for name in names.split(",")} <= exported, file
    shown = scripts["answer.js"]
    for name, kind in (("answer", AnswerReply), ("claim", ClaimReply), ("short", ShortAnswerReply)):
        read = set(re.findall(rf"\b{name}\.([a-z_]+)\b", shown))
        assert read
        assert read <= set(kind.model_fields), name
    assert set(re.findall(r"\bcitation\.([a-z_]+)\b", shown + scripts["source.js"])) <= set(CitationReply.model_fields)


def test_a_page_that_the_browser_has_is_not_sent_again(reading):
    """As long as the package is the same; a browser asks each time, so that a new one is seen at once."""
    for path in ("/", "/docs", "/pages/citewell.css"):
        first = reading.get(path)
        assert first.headers["cache-control"] == "no-cache"
        again = reading.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["content-security-policy"] == first.headers["content-security-policy"]
        assert reading.get(path, headers={"If-None-Match": '"older"'}).content == first.content


@pytest.mark.parametrize("name", ["none.js", "..%2fapp.py", "%2e%2e/app.py", "index.html/x"])
def test_nothing_else_is_served(reading, name):
    assert reading.get(f"/pages/{name}").status_code == 404


def test_a_request_as_the_question_page_sends_it_is_answered(reading):
    """A follow-up goes with the questions and answers before it, whose words it is looked for with."""
    asked = {"question": HOTEL, "collections": ["demo"], "history": []}
    first = reading.post("/v1/ask", json=asked).json()
    said = [{"role": "user", "content": first["question"]}, {"role": "assistant", "content": first["text"]}]
    second = reading.post("/v1/ask", json={"question": "And abroad?", "collections": ["demo"], "history": said}).json()
    assert "190 euros" in second["text"]
    assert [query["role"] for query in second["queries"]] == ["question", "conversation"]


def test_the_frameworks_own_pages_are_off(reading):
    """They load scripts from a host that was not configured."""
    assert reading.get("/redoc").status_code == 404
    assert "swagger" not in reading.get("/docs").text.lower()
    assert reading.get("/docs/oauth2-redirect").status_code == 404
