"""The pages: their links lead somewhere, their commands are the command line's, and what they quote is what it was quoted from."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from bdaudit.cli import commands
from bdaudit.verify.policy import BOUNDS, read_policy

ROOT = Path(__file__).parents[1]
README, EVIDENCE = ROOT / "README.md", ROOT / "tests" / "bench" / "README.md"
PAGES = (README, EVIDENCE, ROOT / ".github" / "SECURITY.md", ROOT / "CHANGELOG.md")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
VERBS = typer.main.get_command(commands.app).commands  # type: ignore[attr-defined]


def anchors(page: Path) -> set[str]:
    """A page's headings as GitHub names them in a link."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def blocks(language: str) -> list[str]:
    """The README's fenced blocks in a language."""
    return [text for name, text in FENCED.findall(README.read_text(encoding="utf-8")) if name == language]


def options(verb: str) -> set[str]:
    """Every flag that a command takes."""
    return {flag for parameter in VERBS[verb].params for flag in parameter.opts} | {"--help"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if not link.startswith("https://"):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_the_source_distribution_holds_every_file_that_a_page_links_to() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    held = [ROOT / name for name in project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]]
    for page in PAGES:
        links = [link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8")) if not link.startswith("https://")]
        for target in [page, *((page.parent / link).resolve() for link in links if link)]:
            assert any(target.is_relative_to(whole) for whole in held), target


def test_every_command_of_the_readme_has_its_flags() -> None:
    seen = set()
    for line in "".join(blocks("sh")).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        at = next((i for i, word in enumerate(words) if word.endswith("bdaudit") and words[i + 1] in VERBS), None)
        if at is not None:
            seen.add(words[at + 1])
            assert {word for word in words[at + 2 :] if word.startswith("--")} <= options(words[at + 1]), line
    assert seen == set(VERBS)


def test_every_flag_that_the_readme_names_exists() -> None:
    text = FENCED.sub("", README.read_text(encoding="utf-8"))
    known = set.union(*map(options, VERBS))
    named = {flag for code in re.findall(r"`([^`]+)`", text) for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", code)}
    assert named
    assert named <= known


def test_the_gate_in_the_readme_is_the_gate() -> None:
    gate = (ROOT / ".github" / "verify-model.sh").read_text(encoding="utf-8")
    assert "".join(line for line in gate.splitlines(keepends=True) if not line.startswith("#")) in blocks("sh")


def test_the_policy_in_the_readme_is_one(tmp_path: Path) -> None:
    policy = tmp_path / "bdaudit.toml"
    policy.write_text("".join(blocks("toml")), encoding="utf-8")
    unset = set(BOUNDS) - set(read_policy(policy))
    section = README.read_text(encoding="utf-8").split("### The policy file")[1].split("\n## ")[0]
    assert all(f"`{name}`" in section for name in unset)


@pytest.mark.parametrize("page", [README, EVIDENCE], ids=["README", "evidence"])
def test_the_table_of_the_whole_job_is_what_its_bench_prints(page: Path) -> None:
    from tests.bench import end_to_end

    results = json.loads(end_to_end.RESULTS.read_text(encoding="utf-8"))
    assert end_to_end.table(results) in page.read_text(encoding="utf-8")


def test_the_tables_of_repairs_are_what_their_benches_print() -> None:
    from tests.bench import unlearn_ablation, unlearn_robustness, unlearn_tables

    page = EVIDENCE.read_text(encoding="utf-8")
    rivals = kept("unlearn_rivals")
    assert unlearn_tables.short(rivals) in README.read_text(encoding="utf-8")
    assert [table.__name__ for table in unlearn_tables.EVIDENCE if table(rivals) not in page] == []
    assert unlearn_ablation.beside(kept("unlearn_ablation")) in page
    assert unlearn_robustness.table(kept("unlearn_robustness")) in page


def test_what_the_benches_of_the_gate_recorded() -> None:
    from tests.bench import mistyped
    from tests.untrusted.ordinary import SHAPES

    page, results = EVIDENCE.read_text(encoding="utf-8"), json.loads(mistyped.RESULTS.read_text(encoding="utf-8"))
    assert mistyped.table(results) in page
    assert ("None of them passes" in page) is (mistyped.wrong(results) == [])
    assert f"{mistyped.count(results)} spellings." in page
    fine = sum(cell["exit"] == 0 for cell in kept("ordinary").values())
    assert f"{fine} of {len(SHAPES)} shapes end in exit 0." in page


def test_the_tables_of_the_hostile_corpus_are_what_its_bench_prints() -> None:
    from tests.bench import hostile

    page = (ROOT / ".github/SECURITY.md").read_text(encoding="utf-8")
    models, doors = (json.loads((EVIDENCE.parent / f"results/{name}.json").read_text("utf-8")) for name in ("hostile", "hostile_doors"))
    assert hostile.table(models) in page
    assert hostile.doors_table(doors) in page
    kinds, cases = (len(models[part]) + len(doors[part]) for part in ("kinds", "cases"))
    assert f"{kinds + 1} kinds of {cases + models['texts']['tried']} cases" in page
    assert ("none executed, none ended in an error that is not declared" in page) is (models["wrong"] == doors["wrong"] == [])


def kept(bench: str) -> dict[str, Any]:
    """The cells of a bench's results."""
    found: dict[str, Any] = json.loads((EVIDENCE.parent / "results" / f"{bench}.json").read_text(encoding="utf-8"))["cells"]
    return found


def test_every_results_file_has_its_place_in_the_evidence() -> None:
    text = EVIDENCE.read_text(encoding="utf-8")
    assert [name for name in EVIDENCE.parent.glob("results/*.json") if f"results/{name.name}" not in text] == []
