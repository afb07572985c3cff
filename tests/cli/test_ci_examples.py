"""The examples for other people's systems: each is read as what reads it does, and what can run of it is run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from bdaudit.cli import commands

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
ACTION = GITHUB / "actions" / "audit"
VERBS = typer.main.get_command(commands.app).commands  # type: ignore[attr-defined]
FAKE = """#!/bin/sh
for argument in "$@"; do printf '%s\\n' "$argument"; done >arguments
while [ $# -gt 0 ]; do [ "$1" != --report ] || echo "## of $2" >"$2"; shift; done
exit ${CODE:-0}
"""


def action() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((ACTION / "action.yml").read_text(encoding="utf-8"))
    return read


def audit(place: Path, verb: str, model: str, flags: str = "", tool: str = FAKE, code: int = 0) -> subprocess.CompletedProcess[str]:
    """The step named audit as the runner runs it, with ``tool`` as the program called bdaudit."""
    (place / "bin").mkdir(exist_ok=True)
    (place / "bin" / "bdaudit").write_text(tool)
    (place / "bin" / "bdaudit").chmod(0o755)
    (step,) = [step for step in action()["runs"]["steps"] if step.get("name") == "audit"]
    given = {"${{ inputs.verb }}": verb, "${{ inputs.model }}": model, "${{ inputs.flags }}": flags}
    runner = {"GITHUB_ACTION_PATH": str(ACTION), "GITHUB_OUTPUT": str(place / "output"), "GITHUB_STEP_SUMMARY": str(place / "summary")}
    environment = (
        os.environ | {name: given[value] for name, value in step["env"].items()} | runner | {"CODE": str(code), "PYTHONPATH": str(ROOT)}
    )
    environment["PATH"] = f"{place / 'bin'}:{os.environ['PATH']}"
    return subprocess.run([step["shell"], "-c", step["run"]], cwd=place, env=environment, capture_output=True, text=True, check=False)


def test_the_audit_hands_every_argument_on_and_leaves_every_report(tmp_path: Path) -> None:
    flags = "--fail-on\nsuspicious\n\n--prompt\na b; touch gone $(touch gone)\n"
    done = audit(tmp_path, "scan", "-model", flags)
    assert (done.returncode, done.stderr) == (0, "")
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[:2] == ["scan", "./-model"]
    assert arguments[-4:] == ["--fail-on", "suspicious", "--prompt", "a b; touch gone $(touch gone)"]
    assert not (tmp_path / "gone").exists()
    assert {path.name for path in (tmp_path / "bdaudit-report").iterdir()} == {
        f"audit{suffix}" for suffix in (".json", ".html", ".sarif", ".md", ".intoto.json")
    }
    assert (tmp_path / "output").read_text() == "exit-code=0\n"
    assert (tmp_path / "summary").read_text() == "## of bdaudit-report/audit.md\n"


@pytest.mark.parametrize("code", [1, 3, 4, 5])
def test_the_step_ends_as_bdaudit_does_and_the_summary_is_there(tmp_path: Path, code: int) -> None:
    assert audit(tmp_path, "verify", "model", code=code).returncode == code
    assert (tmp_path / "output").read_text() == f"exit-code={code}\n"
    assert (tmp_path / "summary").exists()


def test_no_report_is_a_failure_an_older_one_does_not_count_and_no_other_verb_runs(tmp_path: Path) -> None:
    audit(tmp_path, "scan", "model")
    assert audit(tmp_path, "scan", "model", tool="#!/bin/sh\nexit 0\n").returncode == 3
    assert audit(tmp_path, "unlearn; id", "model").returncode == 2


def test_the_real_tool_takes_the_steps_flags(tmp_path: Path) -> None:
    real = f'#!/bin/sh\nexec "{sys.executable}" -m bdaudit "$@"\n'
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text('{"_class_name": "KandinskyPipeline"}')
    done = audit(tmp_path, "scan", "model", tool=real)
    report = json.loads((tmp_path / "bdaudit-report" / "audit.json").read_text())
    assert done.returncode == report["exit"]["code"] == 4
    assert "bdaudit scan" in (tmp_path / "summary").read_text()
    assert json.loads((tmp_path / "bdaudit-report" / "audit.intoto.json").read_text())["predicate"]["result"] == "FAILED"


def test_no_input_of_the_action_reaches_a_shell_but_as_a_variable() -> None:
    read = action()
    assert read["runs"]["using"] == "composite"
    for step in read["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
        assert ("run" in step) == ("shell" in step)
    named = set(re.findall(r"inputs\.([a-z-]+)", (ACTION / "action.yml").read_text(encoding="utf-8")))
    assert named == set(read["inputs"])


def test_what_is_kept_and_uploaded_is_so_whatever_the_audit_says() -> None:
    steps = action()["runs"]["steps"]
    at = next(k for k, step in enumerate(steps) if step.get("name") == "audit")
    assert all(step["if"].startswith("always()") for step in steps[at + 1 :])


def test_the_container_runs_as_no_user_and_asks_for_nothing() -> None:
    text = (GITHUB / "container" / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    kinds = [kind for kind, _ in lines]
    assert (kinds[0], kinds[-1]) == ("FROM", "CMD")
    assert dict(lines)["USER"] == "65532:65532"
    assert kinds.index("USER") > kinds.index("RUN"), "what is installed belongs to root"
    assert json.loads(dict(lines)["ENTRYPOINT"]) == ["bdaudit"]
    assert "HF_HUB_OFFLINE=1" in dict(lines)["ENV"]
    for said in (rest for kind, rest in lines if kind == "RUN"):
        subprocess.run(["sh", "-n", "-c", said], check=True)
    comment = " ".join(line[1:].strip().removesuffix("\\") for line in text.splitlines() if line.startswith("#"))
    assert "--network=none --read-only" in comment


def test_the_hook_is_a_command_of_bdaudits() -> None:
    (repository,) = yaml.safe_load((GITHUB / "pre-commit.example.yaml").read_text(encoding="utf-8"))["repos"]
    (hook,) = repository["hooks"]
    tool, verb, _model, *flags = shlex.split(hook["entry"])
    options = {flag for parameter in VERBS[verb].params for flag in parameter.opts}
    assert tool == "bdaudit"
    assert {flag for flag in flags if flag.startswith("--")} <= options
    assert hook["pass_filenames"] is False
    chosen = re.compile(hook["files"])
    assert chosen.search("model/unet/diffusion_pytorch_model.safetensors")
    assert not chosen.search("docs/model.md")


def test_the_page_on_ci_is_short_and_its_links_and_commands_are_there() -> None:
    page = GITHUB / "guide" / "ci.md"
    text = page.read_text(encoding="utf-8")
    assert len(text.split()) <= 600
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("https://")]
    assert links
    assert all((page.parent / link).resolve().is_file() for link in links)
    (example,) = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    given = yaml.safe_load(example)["steps"][-1]["with"]
    assert set(given) <= set(action()["inputs"])
    assert given["flags"].splitlines() == ["--fail-on", "suspicious"]
