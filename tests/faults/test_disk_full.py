"""The disk of the data folder becomes full while files come and are read: what was accepted waits for room."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.faults.supervisor import ROOT

NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


def own_disks():
    """Whether this system lets a process of ours mount a disk of its own."""
    tried = [*NAMESPACE, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
    try:
        return subprocess.run(tried, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not own_disks(), reason="this system lets no process mount a disk in a namespace of its own")
def test_a_full_disk_refuses_new_files_and_loses_no_accepted_one(tmp_path):
    """Uploads get 503 with one sentence, searches go on, and with room again every accepted file becomes ready.

    What waited counts no failed attempt for it, and nothing half written stays.
    """
    done = subprocess.run(
        [*NAMESPACE, sys.executable, "-m", "tests.faults.full_disk", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["waiting"] > 0
    assert [status for status, _ in found["refused"]] == [503] * 6
    for _, error in found["refused"]:
        assert error["code"] == "unavailable"
        assert error["message"].endswith(".")
    assert found["attempts"] == 1
