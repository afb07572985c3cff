"""The newcomer's walk of ``tests/bench/walk.py`` with every run made a dry one: the README's commands are there, filled in, and taken."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bdaudit.cli import main
from bdaudit.records import ScanReport
from bdaudit.report.document import dumps
from fixtures import layout
from tests.bench import walk

FIXTURES = Path(layout.__file__).parent
TOOL = """#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" != --report ] || echo {} >"$2"; shift; done
"""
"""Stands where the workflow calls bdaudit; the recipe itself has a test of its own."""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A clone after its demo, its files linked."""
    clone = tmp_path / "clone"
    (clone / "fixtures").mkdir(parents=True)
    for path in FIXTURES.iterdir():
        if path.name not in ("models", "__pycache__"):
            (clone / "fixtures" / path.name).symlink_to(path)
    models = clone / "fixtures" / "models"
    for name in ("clean", "pixel"):
        layout.lay_out(name, models)
    shutil.copytree(models / "clean", models / "pixel-unlearned")
    (clone / ".github").symlink_to(walk.ROOT / ".github")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "bdaudit").write_text(TOOL)
    (tmp_path / "bin" / "bdaudit").chmod(0o755)
    return tmp_path


def test_every_command_of_the_walk_is_taken(work: Path, scan_report: ScanReport, monkeypatch: pytest.MonkeyPatch) -> None:
    typed: dict[str, int] = {}

    def run(command: str, within: Path, variables: Mapping[str, str]) -> dict[str, Any]:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        words = shlex.split(re.sub(r"\$(\w+)", lambda name: variables[name[1]], command.replace('"', "")))
        if words[0].endswith("bdaudit"):
            fresh = [word if word != "fixtures/models/pixel" or words[1] != "unlearn" else "../mine/model" for word in words[1:]]
            monkeypatch.chdir(within)
            monkeypatch.setattr("sys.argv", ["bdaudit", *fresh, "--dry-run"])
            typed[command] = main()
        elif words[0] == "sh":
            path = {"PATH": f"{work / 'bin'}:{os.environ['PATH']}"}
            typed[command] = subprocess.run(words, cwd=within, env={**os.environ, **variables, **path}, check=False).returncode
        elif "fleet" in words:
            (within / "scan.json").write_text(dumps(scan_report), encoding="utf-8")
            typed[command] = subprocess.run(
                [sys.executable, *words[1:]], cwd=within, env={**os.environ, "PYTHONPATH": str(walk.ROOT)}, check=False
            ).returncode
        else:
            typed[command] = 0
        return {"typed": command, "exit": typed[command], "seconds": 0.0}

    walk.own(work)
    cells = dict(walk.walk(work, walk.README.read_text(encoding="utf-8"), run))
    assert list(cells) == ["install", "demo", "own directory", "single file", "gate", walk.WORKFLOW_STEP, "fleet page"]
    assert {command: code for command, code in typed.items() if code} == {"python -m bdaudit.report fleet . --out fleet.html": 1}
    assert (work / "mine" / "fleet.html").stat().st_size > 10_000
    assert cells[walk.WORKFLOW_STEP]["not run"][:2] == ["actions/checkout@v4"] * 2
    assert all(cell["words read"] > 0 for name, cell in cells.items() if name != "fleet page")
    assert not re.search(r"(?<!\$)\b(MODEL|FILE|DIR|COPY)\b", " ".join(typed)), "nothing is left open"


def test_a_walk_goes_on_where_it_was_stopped(work: Path) -> None:
    page = walk.README.read_text(encoding="utf-8")
    gone = {"install", "demo", "own directory", "single file", "gate", "fleet page"}
    cells = dict(walk.walk(work, page, lambda command, within, variables: {"typed": command, "seconds": 0.0}, gone=gone))
    assert list(cells) == [walk.WORKFLOW_STEP]


def test_a_command_is_read_where_it_stands() -> None:
    page = "## A\n`bdaudit x`\n```sh\nbdaudit one \\\n  --two\n\nbdaudit three\n```\n## B\n`bdaudit.report no` `bdaudit scan MODEL`\n"
    block, inline = (walk.Step("s", section, kind, (0,)) for section, kind in (("A", "block"), ("B", "inline")))
    assert [each.text for each in walk.commands(block, page)] == ["bdaudit one    --two", "bdaudit three"]
    assert [each.text for each in walk.commands(inline, page)] == ["bdaudit.report no"]
    assert walk.filled("bdaudit scan MODEL MODELS $MODEL", {"MODEL": "m"}) == "bdaudit scan m MODELS $MODEL"
    with pytest.raises(LookupError, match="no section 'C'"):
        walk.commands(walk.Step("s", "C", "block", (0,)), page)
