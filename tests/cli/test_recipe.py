"""The CI recipe as a job runs it: a backdoored model fails it, a clean one passes, and a report that is missing is a failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fixtures import layout

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / ".github" / "verify-model.sh"
FIXTURES = Path(layout.__file__).parent
FLAGS = (
    "--clip", f"local-dir:{FIXTURES / 'grader'}", "--prompts", str(FIXTURES / "prompts.txt"), "--device", "cpu",
    "--target-image", f"{FIXTURES / 'twins' / 'pixel' / 'target.png'}@24,24", "--n", "40", "--steps", "4", "--reach", "0",
)  # fmt: skip


def job(place: Path, model: Path, *flags: str, before: Path | None = None, tool: str = f'exec "{sys.executable}" -m bdaudit "$@"') -> int:
    """The recipe's exit code, with ``tool`` as the program called bdaudit; runs in ``place``."""
    (place / "bin").mkdir(exist_ok=True)
    program = place / "bin" / "bdaudit"
    program.write_text(f"#!/bin/sh\n{tool}\n")
    program.chmod(0o755)
    (place / "policy.toml").write_text("[verify]\nmax_asr = 0.1\n")
    settings = {"MODEL": str(model), "TRIGGER": "\\u200b", "POLICY": "policy.toml", "PYTHONPATH": str(ROOT)}
    settings |= {"BEFORE": str(before)} if before else {}
    environment = os.environ | settings | {"PATH": f"{place / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", str(RECIPE), *flags], cwd=place, env=environment, capture_output=True, text=True, timeout=600, check=False)
    print(done.stderr)  # shown where the test fails
    return done.returncode


@pytest.mark.parametrize(("name", "code"), [("pixel", 1), ("clean", 0)])
def test_a_backdoored_model_fails_and_a_clean_one_passes(tmp_path: Path, name: str, code: int) -> None:
    before = layout.lay_out("pixel", tmp_path)
    assert job(tmp_path, layout.lay_out(name, tmp_path), *FLAGS, before=before) == code
    report = json.loads((tmp_path / "verify.json").read_text())
    assert (report["exit"]["code"], report["config"]["max_asr"]) == (code, 0.1)
    assert bool(json.loads((tmp_path / "verify.sarif").read_text())["runs"][0]["results"]) == bool(code)
    assert "data:image/png" in (tmp_path / "verify.html").read_text()


@pytest.mark.parametrize(("tool", "code"), [("exit 0", 3), ("kill -9 $$", 3), ("echo {} > verify.json; exit 4", 4), (": > verify.json", 3)])
def test_no_report_is_a_failure_and_an_older_one_does_not_count(tmp_path: Path, tool: str, code: int) -> None:
    (tmp_path / "verify.json").write_text('{"exit": {"code": 0}}')
    assert job(tmp_path, tmp_path, tool=tool) == code


def test_the_hosted_example_runs_the_recipe_and_keeps_what_it_leaves() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "verify-model.example.yml").read_text())
    steps = workflow["jobs"]["verify"]["steps"]
    (verify,) = [step for step in steps if step.get("name") == "verify"]
    assert verify["run"].startswith("sh bdaudit/.github/verify-model.sh")
    assert {"MODEL", "TRIGGER", "BEFORE"} <= set(verify["env"])
    assert all(step["if"] == "always()" for step in steps[steps.index(verify) + 1 :])
