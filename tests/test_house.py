"""The floors: imports only go down, the three verbs never meet, and no files import each other. Read from the source alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "bdaudit"
FLOORS = (
    {"stats", "many_tests", "config", "errors", "progress", "spelling", "records", "state_home", "state_lock", "targets", "version"},
    {"untrusted"},
    {"report", "kept_state", "tensor_file"},
    {"models"},
    {"measure"},
    {"workers"},
    {"scan", "unlearn", "verify"},
    {"cli", "__main__", "api", "__init__"},
)
HEIGHT = {name: height for height, floor in enumerate(FLOORS) for name in floor}
APART = ({"scan", "unlearn", "verify"},)
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


def dotted(module: Path) -> str:
    """The name that a module is imported by."""
    parts = ("bdaudit", *module.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def graph(modules: Sequence[Path]) -> dict[str, set[str]]:
    """Module → the modules of ``modules`` that it imports anywhere. A name out of a package counts for its ``__init__``."""
    names = {dotted(module) for module in modules}
    edges: dict[str, set[str]] = {name: set() for name in names}
    for module in modules:
        for name in imported(module):
            target = name if name in names else name.rpartition(".")[0]
            edges[dotted(module)] |= {target} & (names - {dotted(module)})
    return edges


def circle(edges: Mapping[str, Collection[str]]) -> list[str]:
    """Modules that import each other in turn, the first once more at the end; none where there is no circle."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        found = next((round for other in sorted(edges[name]) if (round := walk(other, [*way, name]))), [])
        done.add(name)
        return found

    return next((round for name in sorted(edges) if (round := walk(name, []))), [])


def test_no_files_import_each_other() -> None:
    assert " → ".join(circle(graph(MODULES))) == ""


def test_a_circle_is_seen_whatever_leads_to_it() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d", "b"]
    assert circle({"x": {"y"}, "y": {"z"}, "z": {"x"}}) == ["x", "y", "z", "x"]


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


def test_a_report_knows_of_untrusted_files_the_door_alone() -> None:
    names = {name for module in (PACKAGE / "report").rglob("*.py") for name in imported(module) if name.startswith("bdaudit.untrusted")}
    assert {name.split(".")[2] for name in names} == {"open_file"}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_what_runs_the_model_knows_torch(module: Path) -> None:
    light = HEIGHT[part(module)] in (0, len(FLOORS) - 1) or part(module) in ("report", "untrusted")
    if light and part(module) != "kept_state":
        heavy = {"torch", "torchvision", "torchmetrics", "diffusers", "transformers", "open_clip"}
        assert not heavy & {name.split(".")[0] for name in imported(module)}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_library_never_prints(module: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]


def test_the_walk_sees_the_package() -> None:
    assert {"bdaudit.records.Report"} <= set(imported(PACKAGE / "cli" / "outcome.py"))
    assert "config" in own_parts(PACKAGE / "cli" / "outcome.py")
    edges = graph(MODULES)
    assert {"bdaudit.scan.judge", "bdaudit.scan.look", "bdaudit.records"} <= edges["bdaudit.scan.run"]


ROOMS = {"scan": 8, "unlearn": 12, "verify": 8}
"""How many modules of each verb a config may travel through."""


def reads_a_config(source: str) -> bool:
    """Whether it names a config's type, or takes anything from one; a report's record of it and a module's own configuration are none."""
    nodes = list(ast.walk(ast.parse(source)))
    taken = [ast.unparse(node.value).split(".") for node in nodes if isinstance(node, ast.Attribute)]
    return any(isinstance(node, ast.Name) and node.id.endswith("Config") for node in nodes) or any(
        of[-1] == "config" and of[-2:-1] not in (["report"], ["encoder"]) for of in taken
    )


@pytest.mark.parametrize("verb", ROOMS)
def test_a_config_travels_through_few_rooms(verb: str) -> None:
    rooms = [dotted(module) for module in MODULES if part(module) == verb and reads_a_config(module.read_text(encoding="utf-8"))]
    assert len(rooms) <= ROOMS[verb], f"pass on what is needed in place of the config: {', '.join(rooms)}"
    assert f"bdaudit.{verb}.run" in rooms


def test_a_room_that_reads_a_config_is_seen() -> None:
    assert reads_a_config("def f(config: RepairConfig) -> None: ...")
    assert reads_a_config("def f(run): return run.config.seed")
    assert reads_a_config("def f(config): return config.seed")
    assert not reads_a_config("def f(report, seed): return report.config.get('seed', seed)")
    assert not reads_a_config("def f(encoder): return encoder.config.hidden_size")


FAMILY = re.compile(r"attn2|\.unet\b|\.vae\b|\.text_encoder\b|UNet2D|CLIPText|StableDiffusion|encoder_hidden_states|alphas_cumprod")
"""Names of one family's modules and classes."""
PARTS = re.compile(r"""["'](unet|vae|text_encoder|tokenizer|scheduler)["'/]""")
"""Names of one family's folders."""
AT_HOME = re.compile(r"untrusted/(layouts|formats)/|untrusted/clip_folder\.py|models/families/|models/(adapter_\w+|lora)\.py")
"""Where families, a grader's folder, and the formats that spell the names of a family's parts are at home."""
BEYOND_FLAGS = [module for module in MODULES if HEIGHT[part(module)] > 0]
"""The command line's own words, in the configs, have ``unet`` among them."""


def named_in(text: str) -> set[str]:
    """Names of one family in a source file."""
    return {*FAMILY.findall(text), *PARTS.findall(text)}


@pytest.mark.parametrize("module", BEYOND_FLAGS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_names_a_family(module: Path) -> None:
    """A new family adds files and changes none: all goes through the seam, and what its parts may hold stands in its layout."""
    if not AT_HOME.match(str(module.relative_to(PACKAGE))):
        assert not named_in(module.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "said", ['suspect.modules["unet"]', "suspect.vae.decode(z)", "name.endswith('attn2')", 'folder / "text_encoder/a.json"']
)
def test_a_familys_names_are_seen(said: str) -> None:
    assert named_in(said)
    assert not named_in("suspect.denoiser.module; --component unet")
