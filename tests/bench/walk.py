"""A newcomer's walk through the README: ``python tests/bench/walk.py WORK [PATH] [--wheel FILE]``.

Clone, install, demo, a directory of one's own, a single file, a gate, the gate as a workflow, a page about all. Each command is read out of
the README where it stands, and typed as it stands there, but for the names that the README leaves open (MODEL, DIR, FILE). The steps of the
workflow are the shell commands of the example; those that only GitHub can run are listed as not run. A wheel that was built already stands
in for the checkout where the README installs it. WORK is a new folder, or that of a walk that was stopped: what stands in PATH is not done
again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.recording import rounded, stamp  # noqa: E402

README, POLICY = ROOT / "README.md", ROOT / ".github" / "guide" / "policy-and-accepting.md"
WORKFLOW = ROOT / ".github" / "verify-model.example.yml"
FENCED = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]*\bbdaudit[ .][^`\n]*)`")
PROMPTS = "what-it-draws.txt"


@dataclass(frozen=True)
class Step:
    """Commands of one section of the README: its blocks of code, or what stands in backquotes in its text."""

    name: str
    section: str
    kind: Literal["block", "inline"]
    at: tuple[int, ...]
    """Which of them, counted within the section."""
    fill: Mapping[str, str] = field(default_factory=dict)
    """What the README leaves open → what is typed there."""
    within: str = "mine"
    """The folder under WORK that it is typed in."""


STEPS = (
    Step("install", "Install, and a demo", "block", (0,), within="clone"),
    Step("demo", "Install, and a demo", "block", (1, 2), within="clone"),
    Step("own directory", "Which command do I need?", "inline", (0,), {"MODEL": "model"}),
    Step("single file", "A model from the hub", "inline", (0,), {"FILE": "model.safetensors", "DIR": "model"}),
    Step("gate", "In CI", "block", (0,)),
    Step("fleet page", "Which command do I need?", "inline", (-1,), {"DIR": "."}),
)
WORKFLOW_STEP = "gate as a workflow"
GATE = {"MODEL": "model", "SCAN_SECRET": "a secret of at least sixteen characters"}
"""What the gate's environment holds."""


@dataclass(frozen=True)
class Found:
    """A command as it stands in the README, and where it ends there."""

    text: str
    end: int


def commands(step: Step, page: str) -> list[Found]:
    """What a step types, in the README's own words.

    Raises:
        LookupError: the section is not there, or has fewer commands.
    """
    head = re.search(rf"^## {re.escape(step.section)}$", page, re.MULTILINE)
    if head is None:
        raise LookupError(f"no section {step.section!r}")
    after = re.search(r"^## ", page[head.end() :], re.MULTILINE)
    section = page[: head.end() + after.start() if after else len(page)]
    if step.kind == "inline":
        section = FENCED.sub(lambda block: " " * len(block[0]), section)
    there = list((FENCED if step.kind == "block" else INLINE).finditer(section, head.end()))
    return [Found(line, there[at].end()) for at in step.at for line in _lines(there[at][1])]


def _lines(block: str) -> list[str]:
    return [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def filled(command: str, fill: Mapping[str, str]) -> str:
    """The command with what it leaves open filled in."""
    for name, value in fill.items():
        command = re.sub(rf"(?<![\w$]){name}\b", value, command)
    return command


def words(page: str, start: int, end: int) -> int:
    """Words of the README between two places in it."""
    return len(page[start:end].split()) if end > start else 0


Typed = Callable[[str, Path, Mapping[str, str]], dict[str, Any]]
"""Runs a command in a folder, with variables, and says what came of it."""


def typed(environment: Mapping[str, str]) -> Typed:
    """A shell with ``environment``."""

    def run(command: str, within: Path, variables: Mapping[str, str]) -> dict[str, Any]:
        began, used = time.monotonic(), _processor()
        done = subprocess.run(
            ["sh", "-c", command], cwd=within, env={**environment, **variables}, capture_output=True, text=True, check=False
        )
        said = done.stderr.strip().splitlines()[-1:] if "bdaudit" in command else []
        figures = {"exit": done.returncode, "seconds": time.monotonic() - began, "processor seconds": _processor() - used}
        return {"typed": command, **figures, "last line": "".join(said).replace(str(within), ".")}

    return run


def _processor() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def walk(work: Path, page: str, run: Typed, wheel: str = "", gone: Container[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each step by its name, with its commands' outcomes and the words that were read to get there; without those that are ``gone``."""
    read = 0
    for step in STEPS:
        found = commands(step, page)
        if step.name == "fleet page" and WORKFLOW_STEP not in gone:
            yield WORKFLOW_STEP, workflow(work, run, page)
        if step.name not in gone:
            if step.within == "mine":
                own(work)
            variables = GATE if step.name == "gate" else {}
            lines = [filled(each.text, step.fill) for each in found]
            done = [run(_of(line, wheel), work / step.within, variables) for line in lines]
            yield step.name, {"words read": words(page, read, found[-1].end), "commands": done}
        read = max(read, found[-1].end)


def _of(line: str, wheel: str) -> str:
    """``pip install .`` with the wheel in place of the checkout."""
    return re.sub(r"(pip install) \.$", rf"\1 {shlex.quote(wheel)}", line) if wheel else line


def own(work: Path) -> None:
    """A model of one's own, as a directory and as one file, and prompts that suit it."""
    from tests.untrusted import one_file

    mine = work / "mine"
    if (mine / "model.safetensors").exists():
        return
    shutil.rmtree(mine, ignore_errors=True)
    mine.mkdir()
    shutil.copytree(work / "clone/fixtures/models/clean", mine / "model")
    shutil.copy(work / "clone/fixtures/prompts.txt", mine / PROMPTS)
    one_file.write(mine / "model", mine / "model.safetensors")


def workflow(work: Path, run: Typed, page: str) -> dict[str, Any]:
    """The example's job in a folder of its own, as a runner would lay it out."""
    job, clone = work / "mine/job", work / "clone"
    shutil.rmtree(job, ignore_errors=True)
    job.mkdir(parents=True)
    (job / "bdaudit").symlink_to(clone)
    for name, source in {"model": "models/pixel", "model-unlearned": "models/pixel-unlearned", "grader": "grader"}.items():
        (job / name).symlink_to(clone / "fixtures" / source)
    (job / "bdaudit.toml").write_text("".join(re.findall(r"^```toml\n(.*?)^```$", POLICY.read_text("utf-8"), re.DOTALL | re.MULTILINE)))
    text = WORKFLOW.read_text(encoding="utf-8")
    done, left = [], []
    for step in yaml.safe_load(text)["jobs"]["verify"]["steps"]:
        if "run" not in step:
            left.append(step["uses"])
            continue
        command = step["run"] + (f" {_suits(page, clone)}" if "env" in step else "")
        done.append(run(command, job, step.get("env", {})))
    return {"words read": words(text, 0, len(text)), "commands": done, "not run": left}


def _suits(page: str, clone: Path) -> str:
    """The flags by which the demo's ``verify`` is told what its model draws."""
    demo = next(each.text for each in commands(STEPS[1], page) if " verify " in each.text)
    said = shlex.split(demo)
    pairs = [(flag, said[said.index(flag) + 1]) for flag in ("--prompts", "--target-image")]
    return " ".join(f"{flag} {shlex.quote(str(clone / value))}" for flag, value in pairs)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("path", type=Path, nargs="?")
    parser.add_argument("--wheel", default="")
    arguments = parser.parse_args()
    work: Path = arguments.work.resolve()
    goes_on = arguments.path and arguments.path.exists() and work.exists()
    kept = json.loads(arguments.path.read_text(encoding="utf-8")) if goes_on else {"cells": {}}
    cells = kept["cells"]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"PATH": f"{work / 'clone/.venv/bin'}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(work / "cache")}
    run = typed(environment)
    if "clone" not in cells:
        work.mkdir(parents=True)
        cells["clone"] = {"words read": 0, "commands": [run(f"git clone --quiet {ROOT} clone", work, {}) | {"typed": "git clone"}]}
    for name, cell in walk(work, README.read_text(encoding="utf-8"), run, arguments.wheel, cells):
        cells[name] = cell | {"seconds": sum(each["seconds"] for each in cell["commands"])}
        report = rounded(3, {**stamp(), "installed": "a wheel built before" if arguments.wheel else "from the checkout", "cells": cells})
        text = json.dumps(report, indent=1).replace(str(work), "WORK")
        if arguments.path:
            arguments.path.write_text(text + "\n", encoding="utf-8")
        print(name, json.dumps(cells[name], indent=1), flush=True)


if __name__ == "__main__":
    main()
