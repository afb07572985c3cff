"""The floors: imports only go down, and the three verbs never meet. Read from the source, nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "bdaudit"
FLOORS = (
    {"stats", "config", "errors", "progress", "spelling"},
    {"pipeline", "report"},
    {"measure"},
    {"scan", "unlearn", "verify"},
    {"cli", "__main__"},
)
HEIGHT = {name: height for height, floor in enumerate(FLOORS) for name in floor} | {"__init__": -1}
APART = {"scan", "unlearn", "verify"}, {"pipeline", "report"}
"""Sets whose members never import each other."""
MODULES = sorted(PACKAGE.rglob("*.py"))


def part(module: Path) -> str:
    """The module's or package's name right under ``bdaudit``."""
    first = module.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(module: Path) -> Iterator[str]:
    """Absolute dotted names that a module imports anywhere, in functions too; relative ones are not used here."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_parts(module: Path) -> set[str]:
    """The parts of ``bdaudit`` that a module imports; its own name is left out."""
    names = {name.split(".")[1] for name in imported(module) if name.startswith("bdaudit.")}
    return {name for name in names if name in HEIGHT or (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists()} - {part(module)}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_go_down(module: Path) -> None:
    own = part(module)
    assert own in HEIGHT, f"{own} is on no floor; add it to FLOORS"
    for other in own_parts(module):
        assert HEIGHT[other] <= HEIGHT[own], f"{own} imports {other}, which stands above it"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_siblings_never_import_each_other(module: Path) -> None:
    for siblings in APART:
        if part(module) in siblings:
            assert not own_parts(module) & siblings


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_what_runs_the_model_knows_torch(module: Path) -> None:
    if HEIGHT[part(module)] in (-1, 0, len(FLOORS) - 1) or part(module) == "report":
        heavy = {"torch", "torchvision", "torchmetrics", "diffusers", "transformers", "open_clip"}
        assert not heavy & {name.split(".")[0] for name in imported(module)}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_library_never_prints(module: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]


def test_the_walk_sees_the_package() -> None:
    assert {"bdaudit.report.records.Report"} <= set(imported(PACKAGE / "cli" / "outcome.py"))
    assert "config" in own_parts(PACKAGE / "cli" / "outcome.py")
