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
from bdaudit.errors import ExitCode
from bdaudit.report.fleet import command
from bdaudit.verify.policy import BOUNDS, read_policy

ROOT = Path(__file__).parents[1]
README, EVIDENCE = ROOT / "README.md", ROOT / "tests" / "bench" / "README.md"
GUIDE = {page.stem: page for page in sorted((ROOT / ".github" / "guide").glob("*.md"))}
FRONT = (README, *GUIDE.values())
OWN = tuple(page for page in FRONT if page.stem != "beside-other-tools")
"""Pages that name no flag of another scanner."""
PAGES = (*FRONT, EVIDENCE, ROOT / ".github" / "SECURITY.md", ROOT / "CHANGELOG.md")
POLICY = GUIDE["policy-and-accepting"]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
VERBS = typer.main.get_command(commands.app).commands  # type: ignore[attr-defined]


def anchors(page: Path) -> set[str]:
    """A page's headings as GitHub names them in a link."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def blocks(page: Path, language: str) -> list[str]:
    """A page's fenced blocks in a language."""
    return [text for name, text in FENCED.findall(page.read_text(encoding="utf-8")) if name == language]


def inline(page: Path) -> list[str]:
    """What stands in backquotes on a page, outside its blocks."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", FENCED.sub("", page.read_text(encoding="utf-8")))]


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


def fleet_flags() -> set[str]:
    """Every flag of the merge of many reports."""
    return {flag for action in command._parser()._actions for flag in action.option_strings}


def used(line: str) -> tuple[str, set[str], set[str]] | None:
    """The verb of a command line, the flags that it names, and those that the verb takes; none where it is no command of bdaudit."""
    words = shlex.split(line, comments=True)
    named = {word for word in words if word.startswith("--")}
    if "bdaudit.report" in words:
        return ("fleet", named, fleet_flags()) if "fleet" in words else None
    at = next((i for i, word in enumerate(words[:-1]) if word.endswith("bdaudit") and words[i + 1] in VERBS), None)
    return None if at is None else (words[at + 1], {word for word in words[at + 2 :] if word.startswith("--")}, options(words[at + 1]))


@pytest.mark.parametrize("page", FRONT, ids=lambda page: page.name)
def test_every_command_of_a_page_has_its_flags(page: Path) -> None:
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    for line in (*lines, *(code for code in inline(page) if "bdaudit" in code and " " in code)):
        verb, named, known = used(line) or ("", set(), set())
        assert named <= known, (verb, line)


def test_the_readme_has_a_command_of_every_verb() -> None:
    commands_of = [used(code) for code in inline(README) if "bdaudit" in code and " " in code]
    assert {found[0] for found in commands_of if found} == {*VERBS, "fleet"}
    assert any(found and found[0] == "scan" for line in "".join(blocks(README, "sh")).splitlines() if (found := used(line)))


def test_what_the_demo_opens_comes_with_the_checkout() -> None:
    from fixtures import layout

    words = " ".join(blocks(README, "sh")).split()
    files = [word.partition("@")[0].removeprefix("local-dir:") for word in words]
    opened = [Path(name) for name in files if name.startswith("fixtures/") and not name.startswith("fixtures/models/")]
    assert opened
    assert [path for path in opened if not (ROOT / path).exists()] == []
    models = {name.split("/")[2].removesuffix("-unlearned") for name in files if name.startswith("fixtures/models/")}
    assert models <= set(layout.names())


@pytest.mark.parametrize("page", OWN, ids=lambda page: page.name)
def test_every_flag_that_a_page_names_exists(page: Path) -> None:
    known = set.union(fleet_flags(), *map(options, VERBS))
    codes = [code for code in inline(page) if not re.match(r"(\S*/)?(pip|hf|apt-get|ray) ", code)]
    named = {flag for code in codes for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", code)}
    assert named <= known, named - known


def test_every_flag_of_a_verb_that_people_ask_for_stands_in_the_guide() -> None:
    told = {flag for page in FRONT for code in inline(page) for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", code)}
    assert {"--clip", "--context", "--pictures", "--keep", "--force", "--accept", "--policy", "--before", "--evidence"} <= told


def test_the_gate_in_the_guide_is_the_gate() -> None:
    gate = (ROOT / ".github" / "verify-model.sh").read_text(encoding="utf-8")
    assert "".join(line for line in gate.splitlines(keepends=True) if not line.startswith("#")) in blocks(POLICY, "sh")


def test_the_policy_in_the_guide_is_one(tmp_path: Path) -> None:
    policy = tmp_path / "bdaudit.toml"
    policy.write_text("".join(blocks(POLICY, "toml")), encoding="utf-8")
    unset = set(BOUNDS) - set(read_policy(policy))
    section = POLICY.read_text(encoding="utf-8").split("## The policy file")[1].split("\n## ")[0]
    assert all(f"`{name}`" in section for name in unset)


@pytest.mark.parametrize("page", [README, POLICY], ids=["README", "guide"])
def test_the_table_of_exit_codes_has_every_code(page: Path) -> None:
    assert re.findall(r"^\| (\d+) \|", page.read_text(encoding="utf-8"), re.MULTILINE) == [str(int(code)) for code in ExitCode]


@pytest.mark.parametrize("page", [GUIDE["evidence"], EVIDENCE], ids=["guide", "evidence"])
def test_the_table_of_the_whole_job_is_what_its_bench_prints(page: Path) -> None:
    from tests.bench import end_to_end

    results = json.loads(end_to_end.RESULTS.read_text(encoding="utf-8"))
    assert end_to_end.table(results) in page.read_text(encoding="utf-8")


def test_the_tables_of_repairs_are_what_their_benches_print() -> None:
    from tests.bench import unlearn_ablation, unlearn_robustness, unlearn_tables

    page = EVIDENCE.read_text(encoding="utf-8")
    rivals = kept("unlearn_rivals")
    assert unlearn_tables.short(rivals) in GUIDE["evidence-of-repairs"].read_text(encoding="utf-8")
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
    names = ("hostile", "hostile_doors", "hostile_readers")
    models, doors, readers = (json.loads((EVIDENCE.parent / f"results/{name}.json").read_text("utf-8")) for name in names)
    assert hostile.table(models) in page
    assert hostile.doors_table(doors) in page
    assert hostile.doors_table(readers) in page
    kinds, cases = (sum(len(each[part]) for each in (models, doors, readers)) for part in ("kinds", "cases"))
    assert f"{kinds + 1} kinds of {cases + models['texts']['tried']} cases" in page
    wrong = [*models["wrong"], *doors["wrong"], *readers["wrong"]]
    assert ("none executed, none ended in an error that is not declared" in page) is (wrong == [])


def kept(bench: str) -> dict[str, Any]:
    """The cells of a bench's results."""
    found: dict[str, Any] = json.loads((EVIDENCE.parent / "results" / f"{bench}.json").read_text(encoding="utf-8"))["cells"]
    return found


def test_every_results_file_has_its_place_in_the_evidence() -> None:
    text = EVIDENCE.read_text(encoding="utf-8")
    assert [name for name in EVIDENCE.parent.glob("results/*.json") if f"results/{name.name}" not in text] == []
