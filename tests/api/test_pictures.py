"""Pages of PDFs over REST: the picture, the places of its marks, and what is refused."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from rag.assembly import open_citewell
from tests.api.live import HOTEL, problem, read_all, serving, upload


@pytest.fixture(scope="module")
def cited(reading):
    """A citation of a PDF."""
    [citation] = reading.post("/v1/ask", json={"question": HOTEL, "collections": ["demo"]}).json()["citations"]
    return citation


def page_of(client, citation, page=None, **params):
    return client.get(f"/v1/documents/{citation['document_id']}/pages/{page or citation['page']}", params=params)


def test_the_page_of_a_citation_comes_with_its_quote_marked(reading, cited):
    """A plain picture, whose mark is over the words; the same page without a place has none."""
    span = {"start": cited["source_start"], "end": cited["source_end"]}
    reply = page_of(reading, cited, **span)
    assert reply.headers["content-type"] == "image/png"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "private, no-cache"
    [[left, top, right, bottom]] = json.loads(reply.headers["citewell-marks"])
    with Image.open(io.BytesIO(reply.content)) as image:
        marked = image.convert("RGB")
    middle = int(marked.width * (left + right) / 2), int(marked.height * (top + bottom) / 2)
    area = marked.crop((middle[0] - 20, int(top * marked.height), middle[0] + 20, int(bottom * marked.height)))
    assert min(pixel[2] for pixel in area.get_flattened_data()) < max(pixel[0] for pixel in area.get_flattened_data())
    assert (255, 226, 122) in set(area.get_flattened_data())
    plain = page_of(reading, cited)
    assert json.loads(plain.headers["citewell-marks"]) == []
    assert plain.content != reply.content
    assert plain.headers["etag"] != reply.headers["etag"]


def test_a_picture_that_the_client_has_is_not_sent_again(reading, cited):
    first = page_of(reading, cited)
    path = f"/v1/documents/{cited['document_id']}/pages/{cited['page']}"
    again = reading.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert reading.get(path, headers={"If-None-Match": '"other"'}).content == first.content


def test_what_is_no_page_is_refused(reading, cited, indexed):
    """No such document or page, a document that is no PDF, and places outside of the text."""
    problem(reading.get("/v1/documents/none/pages/1"), 404)
    assert problem(page_of(reading, cited, page=4), 404)["message"] == "The document has 3 pages; there is no page 4."
    problem(page_of(reading, cited, page="0"), 422)
    collection = indexed.store.catalog.collection("demo")
    text = indexed.store.catalog.find_document(collection.id, "handbook/onboarding.md")
    told = problem(reading.get(f"/v1/documents/{text.id}/pages/1"), 415)["message"]
    assert told == f"Only pages of PDFs are drawn; read this one at /v1/documents/{text.id}/text."
    problem(page_of(reading, cited, start=5, end=5), 400)
    problem(page_of(reading, cited, start=9, end=5), 400)
    problem(page_of(reading, cited, start=0, end=50_000), 400)
    problem(page_of(reading, cited, start=1 << 40, end=(1 << 40) + 1), 400)


def test_the_limit_of_pixels_is_a_setting(settings, embedder, travel_policy):
    """And a document that is deleted shows no page any more, kept or not."""
    small = settings.model_copy(update={"server": settings.server.model_copy(update={"page_pixels": 20_000})})
    with open_citewell(small, embedder=embedder) as opened, serving(opened) as client:
        client.post("/v1/collections", json={"name": "demo"})
        [document] = upload(client, "demo", ("a.pdf", travel_policy)).json()["documents"]
        path = f"/v1/documents/{document['id']}/pages/1"
        assert (
            problem(client.get(path), 404)["message"]
            == "Nothing of the document 'a.pdf' is searched; look at its state."
        )
        read_all(opened)
        with Image.open(io.BytesIO(client.get(path).content)) as image:
            assert 15_000 < image.width * image.height <= 20_000
        assert client.delete(f"/v1/documents/{document['id']}").status_code == 204
        problem(client.get(path), 404)


def test_many_who_ask_at_once_are_served_one_after_the_other(reading, cited):
    """Each gets what they would get alone; more than there are places are told to come again, and then are served."""
    span = {"start": cited["source_start"], "end": cited["source_end"]}
    alone = [page_of(reading, cited, page=page, **span).content for page in (1, 2, 3)]

    def ask(number):
        while (reply := page_of(reading, cited, page=1 + number % 3, **span)).status_code == 429:
            assert int(reply.headers["retry-after"]) >= 1
        return reply.content

    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(ask, range(72))) == alone * 24
