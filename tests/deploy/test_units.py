"""The systemd units: what systemd itself says of them where it is installed, and what they must hold in any case."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from api.serve import CLOSING
from rag.setting_parts import ServerSettings
from tests.deploy.settings_named import is_setting

UNITS = sorted((Path(__file__).parents[2] / "api" / "deploy").glob("*.service"))
#: In tenths: 0 is no exposure at all, 100 that of a unit without any hardening.
MOST_EXPOSURE = 25
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")


def unit(file: Path) -> configparser.ConfigParser:
    """Read a unit; of what stands there more than once the last is kept."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    parser.read(file)
    return parser


def test_there_are_two():
    assert [file.name for file in UNITS] == ["citewell-api.service", "citewell-worker.service"]


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.stem)
def test_a_unit_is_shut_in_and_has_the_time_to_finish(file):
    """No privilege, nothing to write to but its own folders; killed only after running answers had their time."""
    parser = unit(file)
    service = parser["Service"]
    assert parser.sections() == ["Unit", "Service", "Install"]
    assert (service["NoNewPrivileges"], service["ProtectSystem"], service["DynamicUser"]) == ("yes", "strict", "yes")
    assert service["CapabilityBoundingSet"] == ""
    assert int(service["TimeoutStopSec"]) > ServerSettings().grace_seconds + CLOSING
    assert service["ExecStart"] == f"/opt/citewell/bin/citewell {'serve' if 'api' in file.name else 'worker'}"
    names = [word.partition("=")[0] for word in service["Environment"].split()]
    assert names
    assert [name for name in names if not is_setting(name)] == []


def test_a_reload_replaces_the_processes_of_the_api():
    """SIGHUP to the first process, of which a test of the server says that no request fails by it."""
    assert unit(UNITS[0])["Service"]["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert "ExecReload" not in unit(UNITS[1])["Service"]


@needs_systemd
@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.stem)
def test_systemd_understands_every_line(file, tmp_path):
    """Verified as it is, but for the program, which is not installed here."""
    there = tmp_path / file.name
    there.write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", file.read_text()))
    done = subprocess.run(["systemd-analyze", "verify", str(there)], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if file.name in line]) == (0, [])


@needs_systemd
@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.stem)
def test_systemd_finds_little_exposure(file):
    """By its own measure, which ends with an error above the bound."""
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSURE}", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "Unknown" in done.stderr or "unrecognized option" in done.stderr:
        pytest.skip("this systemd can not look at units that are not installed")
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
