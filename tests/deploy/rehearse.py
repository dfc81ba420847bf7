"""Runs the steps of our Dockerfile without Docker, in a chroot, and says how long each takes and how large it gets.

    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm ROOT
    python -m tests.deploy.rehearse --root ROOT --work FOLDER --target cpu [--mount FOLDER ...]

ROOT stands for the image that the first stage begins with: the same Debian, with Debian's own Python. It is not
changed: each stage is a copy of the one before, in FOLDER. ``--mount`` shows folders of this machine to the steps, for
example one with packages. Needs root. What an engine adds (layers, isolation while building, the true base) is not
rehearsed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.deploy.dockerfile import Stage, Step, chain, expanded, pairs, read_stages

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "api" / "deploy" / "Dockerfile"
#: What a build is given of the network of its machine.
NETWORK = ("/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")


class Rehearsal:
    """The stages that were made, in a folder of work."""

    def __init__(self, base: Path, work: Path, mounts: list[Path]) -> None:
        self._base, self._work, self._mounts = base, work, mounts
        self._stages = read_stages(DOCKERFILE)

    def target(self, name: str) -> Path:
        """Make a stage and all that it needs, and return its folder."""
        for stage in chain(self._stages, name):
            for step in stage.steps:
                if step.name == "COPY" and step.words.startswith("--from="):
                    self.target(step.words.split()[0].removeprefix("--from="))
            self._make(stage)
        return self._work / name

    def _make(self, stage: Stage) -> None:
        folder = self._work / stage.name
        if folder.exists():
            return
        parent = self._work / stage.parent if stage.parent in self._stages else self._base
        half = folder.with_suffix(".half")
        shutil.rmtree(half, ignore_errors=True)
        subprocess.run(["cp", "-a", str(parent), str(half)], check=True)
        state = {"environment": _environment(), "user": "0:0", "folder": "/"}
        for earlier in chain(self._stages, stage.name)[:-1]:
            for step in earlier.steps:
                self._note(step, state)
        for step in stage.steps:
            self._do(step, half, state)
        half.rename(folder)

    def _note(self, step: Step, state: dict) -> None:
        environment = state["environment"]
        if step.name == "ENV":
            environment.update({name: expanded(value, environment) for name, value in pairs(step.words).items()})
        elif step.name == "ARG":
            name, _, default = step.words.partition("=")
            environment.setdefault(name, default.strip('"'))
        elif step.name == "USER":
            state["user"] = step.words if ":" in step.words else "0:0"
        elif step.name == "WORKDIR":
            state["folder"] = step.words

    def _do(self, step: Step, root: Path, state: dict) -> None:
        self._note(step, state)
        if step.name == "WORKDIR":
            (root / step.words.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif step.name == "COPY":
            self._copy(step.words.split(), root, state["folder"])
        elif step.name == "RUN":
            began = time.monotonic()
            self._run(step.words, root, state)
            print(f"{time.monotonic() - began:7.1f} s  {root.stem}: {step.words[:90]}", flush=True)  # noqa: T201

    def _copy(self, words: list[str], root: Path, folder: str) -> None:
        source = ROOT
        if words[0].startswith("--from="):
            source = self._work / words.pop(0).removeprefix("--from=")
        *names, to = words
        target = Path(
            os.path.normpath(root / folder.lstrip("/") / to.lstrip("/") if not to.startswith("/") else root / to[1:])
        )
        for name in names:
            origin = source / name.lstrip("/")
            if origin.is_dir():
                shutil.copytree(
                    origin,
                    target,
                    symlinks=True,
                    dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("__pycache__", "*.pyc"),
                )
            else:
                shutil.copy2(origin, target / origin.name)

    def _run(self, words: str, root: Path, state: dict) -> None:
        # Everything is mounted in a namespace of its own, which ends with the step.
        mounts = [f"mount --bind {path} {root}{path}" for path in self._mounts]
        for file in (path for path in NETWORK if Path(path).exists()):
            (root / file.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, root / file.lstrip("/"))
        for path in self._mounts:
            (root / str(path).lstrip("/")).mkdir(parents=True, exist_ok=True)
        inside = f'cd {state["folder"]} && exec /bin/sh -e -c "$STEP"'
        script = "\n".join(
            ["set -e", f"mount -t proc proc {root}/proc", f"mount --rbind /dev {root}/dev", *mounts,
             f"exec chroot --userspec={state['user']} {root} /bin/sh -c '{inside}'"]
        )  # fmt: skip
        subprocess.run(
            ["unshare", "--mount", "--propagation", "slave", "/bin/sh", "-c", script],
            env=state["environment"] | {"STEP": words}, check=True,
        )  # fmt: skip


def _environment() -> dict[str, str]:
    found = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    return found | {name: value for name, value in os.environ.items() if name.startswith("PIP_")}


def main() -> int:
    """Rehearse the targets that are asked for, and say how large they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--target", action="append", required=True)
    parser.add_argument("--mount", type=Path, action="append", default=[])
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    rehearsal = Rehearsal(chosen.root.resolve(), chosen.work.resolve(), chosen.mount)
    for name in chosen.target:
        folder = rehearsal.target(name)
        size = subprocess.run(["du", "-sm", str(folder)], check=True, capture_output=True, text=True).stdout.split()[0]
        base = subprocess.run(
            ["du", "-sm", str(chosen.root)], check=True, capture_output=True, text=True
        ).stdout.split()[0]
        print(f"{name}: {size} MB, {base} of them in the folder that stands for the base image", flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
