"""Imports are cheap and silent; proven in a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "torchvision", "diffusers", "transformers", "open_clip", "numpy", "scipy", "pydantic", "jinja2", "PIL")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, encoding="utf-8", env=environment, timeout=120, check=False)


def loaded_after(statement: str) -> tuple[set[str], str]:
    done = python("-c", f"import sys, os\n{statement}\nos.write(2, ' '.join(sys.modules).encode())")
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in done.stderr.split()}, done.stdout


@pytest.mark.parametrize("name", ["bdaudit", "bdaudit.cli", "bdaudit.cli.commands", "bdaudit.config"])
def test_import_is_light_and_silent(name: str) -> None:
    modules, printed = loaded_after(f"import {name}")
    assert not modules & set(HEAVY)
    assert printed == ""


def test_the_entry_point_needs_the_standard_library_alone() -> None:
    """So that a broken installation ends in exit 3, never in Python's own exit 1, which would be read as a finding."""
    modules, _ = loaded_after("import bdaudit.cli")
    assert not modules & {"typer", "rich", "click"}


@pytest.mark.parametrize("arguments", [["--help"], ["scan", "--help"], ["unlearn", "--help"], ["verify", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    modules, printed = loaded_after(f"sys.argv = ['bdaudit', *{arguments!r}]\nfrom bdaudit.cli import main\nassert main() == 0")
    by_typer_itself = {"pydantic"} if arguments[0] in ("scan", "unlearn", "verify") else set()
    assert not modules & {*HEAVY, "rich"} - by_typer_itself
    assert "bdaudit" in printed


def test_a_missing_dependency_ends_in_exit_3() -> None:
    done = python("-c", "import sys\nsys.modules['typer'] = None\nfrom bdaudit.cli import main\nsys.exit(main())")
    assert done.returncode == 3
    assert done.stderr.startswith("bdaudit: exit 3 (error): ModuleNotFoundError")


def test_help_shows_its_characters_whatever_the_console_says() -> None:
    done = python("-m", "bdaudit", "unlearn", "--help")
    assert done.returncode == 0
    assert "ȏ" in done.stdout


def test_the_script_and_what_it_ships_are_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"] == {"bdaudit": "bdaudit.cli:main"}
    for name in ("schema.json", "page.html", "page.css", "fleet/fleet.html", "fleet/fleet.css", "fleet/fleet.js"):
        assert (ROOT / "bdaudit" / "report" / name).is_file()


def test_an_environment_in_the_checkout_is_ignored_as_a_link_too() -> None:
    assert ".venv" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines(), "a pattern that ends in / matches folders alone"
