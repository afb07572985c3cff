"""The steps of the action and of the container file, run as shell: what they install is what runs.

There is no runner and no container engine here. The action's ``install`` and ``audit``, and the instructions of the container file in their
order, run as a shell runs them. A ``pip`` stands in front of the real one: it builds and installs for real, into a folder, without
dependencies and without network. What only GitHub or an engine can do (checkout, cache, upload, layers, a read-only root) is not run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ACTION = ROOT / ".github" / "actions" / "audit"
CONTAINERFILE = ROOT / ".github" / "container" / "Containerfile"
PIP = """#!/bin/sh
echo "$@" >>"{place}/pip.log"
for last; do :; done
exec "{python}" -m pip install --no-index --no-deps --no-build-isolation --quiet --target "{place}/site" "$last"
"""
NOBODY = 65532


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, with a ``pip`` in ``bin``; pytest's own are this user's alone."""
    folder = Path(tempfile.mkdtemp(prefix="bdaudit-steps-"))
    folder.chmod(0o755)
    (folder / "bin").mkdir()
    (folder / "bin" / "pip").write_text(PIP.format(place=folder, python=sys.executable))
    (folder / "bin" / "pip").chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def environment(place: Path, **more: str) -> dict[str, str]:
    """This one's, with what is installed in ``place`` before all else."""
    path = f"{place / 'bin'}:{place / 'site/bin'}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(place / "site"), **more}


def unsupported(folder: Path) -> Path:
    """A model that a scan names and does not audit, which takes no time."""
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "KandinskyPipeline"}')
    return folder


def held() -> set[str]:
    """Every file of the package."""
    files = (path.relative_to(ROOT) for path in (ROOT / "bdaudit").rglob("*") if path.is_file() and path.suffix not in (".pyc", ".pyo"))
    return {path.as_posix() for path in files}


def installed(place: Path) -> set[str]:
    """Every file of the package, as it was installed."""
    site = place / "site"
    return {path.relative_to(site).as_posix() for path in (site / "bdaudit").rglob("*") if path.is_file() and path.suffix != ".pyc"}


# --- the action -------------------------------------------------------------------------------


def test_the_actions_steps_install_the_checkout_and_audit_with_it(place: Path) -> None:
    steps = {step["name"]: step for step in yaml.safe_load((ACTION / "action.yml").read_text("utf-8"))["runs"]["steps"] if "name" in step}
    given: Mapping[str, str] = {"VERB": "scan", "MODEL": str(unsupported(place / "model")), "FLAGS": ""}
    assert set(steps["audit"]["env"]) == set(given)
    runner = environment(place, GITHUB_ACTION_PATH=str(ACTION), GITHUB_OUTPUT=str(place / "output"), **given)

    def run(step: dict[str, Any]) -> int:
        return subprocess.run([step["shell"], "-c", step["run"]], cwd=place, env=runner, capture_output=True, check=False).returncode

    assert run(steps["install"]) == 0
    assert Path((place / "pip.log").read_text().split()[-1]).resolve() == ROOT
    assert installed(place) == held(), "what is installed holds every file of the package"
    assert run(steps["audit"]) == 4
    assert (place / "output").read_text() == "exit-code=4\n"
    report = json.loads((place / "bdaudit-report" / "audit.json").read_text())
    assert (report["exit"]["code"], report["config"]["model"]) == (4, given["MODEL"])


# --- the container ----------------------------------------------------------------------------


@dataclass
class Image:
    """What the instructions of a container file make of a folder, which stands for the root of the image."""

    place: Path
    env: dict[str, str] = field(default_factory=dict)
    user: str = ""
    entry: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def inside(self, text: str) -> str:
        """``/src`` as it lies here."""
        return text.replace("/src", str(self.place / "src"))

    def step(self, kind: str, rest: str) -> None:
        """One instruction."""
        match kind:
            case "ARG" | "ENV":
                self.env |= dict(pair.split("=", 1) for pair in rest.split())
            case "COPY":
                *sources, target = rest.split()
                self._copy(sources, Path(self.inside(target)), target.endswith("/"))
            case "RUN":
                shell = environment(self.place, **self.env)
                done = subprocess.run(["sh", "-c", self.inside(rest)], env=shell, capture_output=True, text=True, check=False)
                assert done.returncode == 0, done.stderr
            case "USER":
                self.user = rest
            case "ENTRYPOINT":
                self.entry = json.loads(rest)
            case "CMD":
                self.command = json.loads(rest)
            case _:
                assert kind in ("FROM", "WORKDIR"), f"{kind} is not known here"

    def _copy(self, sources: list[str], target: Path, into: bool) -> None:
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                assert into, "several files go into a folder"
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, target)


def built(place: Path) -> Image:
    """Every instruction in its order."""
    image = Image(place)
    for line in CONTAINERFILE.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if line and not line.startswith("#"):
            image.step(*line.split(maxsplit=1))
    return image


def started(image: Image, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The entry point as its user, without network and without a way to more rights; skipped where this user may not become another."""
    nobody = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs", "--bounding-set=-all")
    alone = ["unshare", "--net", "setpriv", *nobody]
    tool = [sys.executable, str(image.place / "site/bin" / image.entry[0]), *(arguments or image.command)]
    if subprocess.run([*alone, sys.executable, "-c", "import rich"], capture_output=True, check=False).returncode:
        pytest.skip("the container's user cannot be tried here: it takes root, and an environment that every user may read")
    shell = environment(image.place, **image.env, **variables)
    return subprocess.run([*alone, *tool], cwd=image.place / "out", env=shell, capture_output=True, text=True, check=False)


def test_the_containers_instructions_install_bdaudit_and_leave_no_source(place: Path) -> None:
    image = built(place)
    assert installed(place) == held()
    assert not (place / "src").exists()
    words = (place / "pip.log").read_text().split()
    assert words[words.index("--extra-index-url") + 1] == image.env["TORCH_INDEX"]
    assert (image.user, image.entry, image.command) == (f"{NOBODY}:{NOBODY}", ["bdaudit"], ["--help"])


def test_the_containers_user_audits_without_network_and_writes_its_reports_alone(place: Path) -> None:
    image = built(place)
    (place / "out").mkdir()
    os.chown(place / "out", NOBODY, NOBODY) if os.geteuid() == 0 else None
    model = unsupported(place / "model")
    done = started(image, "scan", str(model), "--report", str(place / "out" / "scan.json"))
    assert done.returncode == 4, done.stderr
    assert json.loads((place / "out" / "scan.json").read_text())["exit"]["name"] == "inconclusive"
    assert (place / "out" / "scan.json").stat().st_uid == NOBODY
