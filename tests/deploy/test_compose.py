"""compose.yaml and the files beside it: valid, hardened, pinned, and true to the settings. Nothing is run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from api.serve import CLOSING
from rag.setting_parts import ServerSettings
from rag.settings import load_settings
from tests.deploy.dockerfile import expanded
from tests.deploy.settings_named import is_setting

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "api" / "deploy"
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
#: Read by `docker compose` itself.
OF_COMPOSE = {"COMPOSE_PROFILES", "COMPOSE_FILE"}


@pytest.mark.parametrize("file", ["compose.yaml", "api/deploy/gpu.yaml"])
def test_it_is_what_the_compose_specification_says(file):
    """The schema is the specification's, as the package check-jsonschema carries it."""
    schema = json.loads((files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json").read_text())
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    wrong = [f"{error.json_path}: {error.message}" for error in kind(schema).iter_errors(read(file))]
    assert wrong == []


def read(file: str) -> Any:
    return yaml.safe_load((ROOT / file).read_text())


def test_docker_compose_reads_it():
    """The program itself, where it is installed, takes it with every profile on and with the file for GPUs."""
    if (
        not shutil.which("docker")
        or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("docker compose is not installed")
    for extra in ([], ["-f", "api/deploy/gpu.yaml"]):
        command = ["docker", "compose", "-f", "compose.yaml", *extra, "--profile", "*", "config", "--quiet"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_two_containers_are_enough():
    """Without a profile there are api and worker, on a volume of theirs; everything else is asked for."""
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == {"api", "worker"}
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert profiles == {
        "postgres": ["postgres"], "trtllm-serve": ["gpu"], "milvus": ["scale"], "prometheus": ["observe"],
        "grafana": ["observe"],
    }  # fmt: skip
    for name in ("api", "worker"):
        assert all(not condition["required"] for condition in SERVICES[name]["depends_on"].values())


@pytest.mark.parametrize("name", SERVICES)
def test_each_container_is_shut_in(name):
    """Nothing is written but to volumes and memory, no privilege is kept or gained, and its health is looked at."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["restart"] == "unless-stopped"
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & service.keys()
    assert "docker.sock" not in str(service)


def test_only_this_machine_reaches_what_is_published():
    """The API, and Grafana with its profile, on loopback; everything else is in a network without a way out."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:${CITEWELL_PORT:-8321}:8321"], "grafana": ["127.0.0.1:${GRAFANA_PORT:-3000}:3000"]}  # noqa: E501  # fmt: skip
    assert {name for name, service in SERVICES.items() if "door" in service["networks"]} == published.keys()
    assert COMPOSE["networks"]["inside"]["internal"] == "${INSIDE_ONLY:-true}"


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name):
    """By digest, or by the version of a variable where none is known; never by what a tag happens to mean today."""
    image = expanded(SERVICES[name]["image"], {})
    if name in {"api", "worker"}:
        assert image == "citewell:cpu"
        return
    assert re.search(r"@sha256:[0-9a-f]{64}$|:v?\d+\.\d+\.\d+$", image), image


def test_every_variable_is_a_setting():
    """What containers get in their environment exists, and what is written down there is valid."""
    for name in ("api", "worker"):
        environment = SERVICES[name]["environment"]
        assert [variable for variable in environment if not is_setting(variable)] == []
    assert not is_setting("CITEWELL_SERVER__NOTHING")
    assert not is_setting("CITEWELL_NOTHING")


def test_the_example_of_an_env_file_is_true(monkeypatch, tmp_path):
    """Every name in it is used by compose.yaml; with every mark taken away, the settings in it are valid."""
    lines = re.findall(r"^#([A-Z_]+)=(.*)$", (DEPLOY / "example.env").read_text(), re.MULTILINE)
    text = (ROOT / "compose.yaml").read_text()
    used = {*re.findall(r"\$\{(\w+)", text), *re.findall(r"^  +([A-Z_]+):$", text, re.MULTILINE)} | OF_COMPOSE
    values: dict[str, str] = {}
    for name, value in lines:
        assert name in used, name
        values[name] = expanded(value, values)
    given = {name: value for name, value in values.items() if is_setting(name)}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(data=tmp_path)
    assert len(given) >= 9
    assert settings.generator.base_url == "http://trtllm-serve:8000/v1"
    assert settings.index.milvus_uri == "http://milvus:19530"
    assert settings.database.get_secret_value() == "postgresql://citewell:change-me@postgres/citewell"
    assert settings.report.schedule == "30 2 * * *"
    assert settings.observe.open_metrics


def test_the_settings_file_is_valid(monkeypatch):
    """The one that is mounted by default can be read."""
    monkeypatch.setenv("CITEWELL_CONFIG", str(DEPLOY / "citewell.toml"))
    assert load_settings().server == ServerSettings()


def test_containers_have_the_time_to_finish():
    """A container is killed only after the time that running answers and files have."""
    for name in ("api", "worker"):
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > ServerSettings().grace_seconds + CLOSING


def test_what_is_mounted_from_here_exists():
    """Every file of the repository that a container gets is there and can be read as what it is."""
    mounted = [
        expanded(volume, {}).split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])
    ]
    named = {volume for volume in mounted if not volume.startswith(".")}
    assert named == COMPOSE["volumes"].keys()
    for volume in mounted:
        if volume.startswith("./"):
            kind = {".json": json.loads, ".toml": tomllib.loads}.get(Path(volume).suffix, yaml.safe_load)
            assert kind((ROOT / volume).read_text())


def test_prometheus_asks_services_that_are_there():
    """Targets are services at the ports that they listen on, and the rules are where it looks for them."""
    config = read("api/deploy/prometheus.yml")
    targets = [
        target for job in config["scrape_configs"] for group in job["static_configs"] for target in group["targets"]
    ]
    assert targets == ["api:8321", "trtllm-serve:8000"]
    assert {target.split(":")[0] for target in targets} <= SERVICES.keys()
    assert config["rule_files"] == [SERVICES["prometheus"]["volumes"][2].split(":")[1]]
    sources = read("api/deploy/grafana-datasources.yaml")["datasources"]
    assert [source["url"] for source in sources] == ["http://prometheus:9090"]


def test_trtllm_serve_binds_replies_and_counts_iterations():
    """Guided decoding and the metrics of iterations are on, by the file that its command line names."""
    options = read("api/deploy/trtllm.yaml")
    assert options == {
        "guided_decoding_backend": "xgrammar",
        "enable_iter_perf_stats": True,
        "return_perf_metrics": True,
    }
    command = SERVICES["trtllm-serve"]["command"]
    assert command[:2] == ["trtllm-serve", "${LLM_MODEL:-/models/llm}"]
    assert "--extra_llm_api_options=/etc/trtllm.yaml" in command
    assert "./api/deploy/trtllm.yaml:/etc/trtllm.yaml:ro" in SERVICES["trtllm-serve"]["volumes"]
