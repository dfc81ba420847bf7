"""The API keeps what its description says, whatever is sent: requests that are made up of it, right and wrong ones.

`--examples N` makes up N requests for each of the addresses, besides those that stand at the edges of its schemas.
"""

from __future__ import annotations

import re
import subprocess
import sys

import httpx
import pytest

from ingest.worker import accept_file
from rag.assembly import open_citewell
from rag.settings import load_settings
from tests.api.live import SAMPLES, read_all, serving

#: What has to hold of every reply. Left out is that whatever fits the schemas is taken: some rules are none of theirs
#: (a collection's name, two fields that exclude each other).
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,unsupported_method,use_after_free"
)
#: Revoking and rotating keys: the requests find the id of the key that they come with, and end it.
SUICIDAL = "^/v1/keys/"
PHASES = "coverage,fuzzing"
#: From so many requests for each address on, those at the edges of the schemas are made as well, which are thousands.
THOROUGH = 50


@pytest.fixture(scope="module")
def address(tmp_path_factory, embedder):
    """A server over a few documents, and the key of an admin, who may do everything.

    The key comes first: requests that are made up make keys as well, and the first one would close the server.
    """
    settings = load_settings(
        data=tmp_path_factory.mktemp("described"), answers={"cache": False}, access={"requests_per_minute": 1_000_000}
    )
    with open_citewell(settings, embedder=embedder) as citewell:
        collection = citewell.store.catalog.create_collection("handbook")
        for name in ("2026/travel-policy.pdf", "handbook/onboarding.md"):
            accept_file(citewell.store, collection, name, SAMPLES / name)
        read_all(citewell)
        with serving(citewell) as client:
            made = client.post("/v1/keys", json={"name": "tester", "role": "admin"}).raise_for_status()
            yield str(client.base_url), made.json()["secret"]


def test_every_address_names_all_of_its_methods(address):
    """A method that an address does not take is answered 405, and ``Allow`` has those that are described."""
    url, key = address
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, trust_env=False) as client:
        for path, described in client.get("/openapi.json").json()["paths"].items():
            refused = client.request("PATCH", re.sub(r"\{\w+\}", "x", path))
            assert refused.status_code == 405, path
            methods = {name.upper() for name in described} & {"DELETE", "GET", "PATCH", "POST", "PUT"}
            assert {*refused.headers["allow"].split(", ")} - {"HEAD"} >= methods, path


def test_no_request_is_answered_otherwise_than_described(address, made_up, tmp_path):
    """No status from 500 on, no undocumented status, header, type or body, nothing accepted that breaks a schema."""
    url, key = address
    phases = PHASES if made_up >= THOROUGH else "fuzzing"
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
        *("--header", f"Authorization: Bearer {key}"),
        *("--checks", CHECKS, "--phases", phases, "--max-examples", str(made_up), "--mode", "all"),
        *("--seed", "20261122", "--generation-deterministic", "--suppress-health-check", "all", "--no-color"),
        *("--exclude-path-regex", SUICIDAL, "--continue-on-failure", "--request-timeout", "60"),
    ]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=3600)
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr[-2_000:]
