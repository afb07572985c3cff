"""Mutations of the code that decides, each run against the tests that mirror its file:
``python tests/bench/mutations.py [COUNT] [PATH] [--seed N] [--only PART]``. What stands in PATH of the same draw is not run again.

A mutation changes one comparison (its boundary, ``<`` to ``<=``, or its sense, ``<`` to ``>=``), one joined condition, one exit code or
one constant that a comparison rests on. It is killed where a mirrored test fails, or hangs: first the tests of its file, then the others
of the same folder, for ``SECONDS`` and ``BESIDE`` at most. What survives and changes nothing that anybody could see stands in
``EQUIVALENT``, with its reason.

The tests run in a forked child of a process that has imported torch and its kin, in a copy of the tree, up to the first that fails: one
mutation costs the tests before the one that kills it. All tests that killed are run again at the end, without any mutation.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from bdaudit.stats import wilson  # noqa: E402
from tests.bench.recording import stamp  # noqa: E402

SECONDS, BESIDE, IDLE, TRICKLE, BYTES = 120, 60, 240, 0.1, 12 << 30
"""Of processor time for the tests of a file, and for the folder's others; of waiting with less than a tenth of it (daemons of
Ray's tick on), and of address space. One test that needs
half of the first with the mutation and passes without it hangs; tests that are only many end there, and the mutation survives. A busy
machine is no reason: what waits for a turn alone gets one in ``IDLE`` seconds."""
NOT_DECIDING = ("report/page", "report/content/plots", "report/progress", "report/terminal", "cli/examples", "__main__", "report/command")
"""How things look, not what is decided."""
BOUNDARY: Mapping[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
SENSE: Mapping[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
LIMIT = re.compile(r"_?(MAX|MOST|LONGEST|LARGEST|LEAST|FEWEST|SMALLEST|LIMIT)")
"""Constants that are called so decide though they are compared elsewhere: a reader is handed them. What neither is called so nor stands in
a comparison tunes a search or a training (steps, rates, widths), and decides nothing that a test could tell 8 from 9 by."""
EXITS = ("PASS", "FINDING", "USAGE", "ERROR", "INCONCLUSIVE", "REFUSED")
EQUIVALENT: dict[str, str] = {
    "unlearn/clean/canary_texts.py: rng.random() < INSIDE → (rng.random() <= INSIDE)": "a draw is exactly a half once in 2**53",
    **{
        f"cli/seeds.py: _LIMITS: 8 → {other}": "a kept seed is one whole number: whatever holds a comma or a bracket is none"
        for other in (0, 9, 10, 16)
    },
    "unlearn/clean/augment.py: kind == \"drop\" → (kind != 'drop')": "one of the two is drawn, at even odds: by which name is no matter",
    **{
        f"measure/look_alikes.py: _LIMITS: {at} → {other}": "the table is bdaudit's own, and smaller than any of these"
        for at, others in (("20", (21, 25, 40)), ("1000", (1001, 1250, 2000)))
        for other in others
    },
    **{f"scan/tiers.py: FLOOR: 1e6 → {other}": "any number far below every score does" for other in (2e6, 1.25e6, 1000001.0)},
}
"""``file: before → after`` → why nothing can tell the two apart."""


@dataclass(frozen=True)
class Mutation:
    """One change of one place."""

    file: str
    """Under ``bdaudit/``."""
    line: int
    kind: str
    before: str
    after: str
    source: str
    """The whole mutated file."""

    @property
    def name(self) -> str:
        """As ``EQUIVALENT`` names it: without the line, which moves."""
        return f"{self.file}: {self.before} → {self.after}"


def changed(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What a node may be replaced by, with the kind of the change."""
    if isinstance(node, ast.Compare):
        for at, operator in enumerate(node.ops):
            for kind, flips in (("boundary", BOUNDARY), ("sense", SENSE)):
                if type(operator) in flips:
                    other = copy.deepcopy(node)
                    other.ops[at] = flips[type(operator)]()
                    yield kind, other
    elif isinstance(node, ast.BoolOp):
        other_join = copy.deepcopy(node)
        other_join.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
        yield "condition", other_join
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "condition", node.operand
    elif isinstance(node, ast.Attribute) and node.attr in EXITS and isinstance(node.value, ast.Name) and node.value.id == "ExitCode":
        for name in EXITS:
            if name != node.attr:
                yield "exit code", ast.Attribute(node.value, name, node.ctx)


def constants(file: str, tree: ast.Module) -> Iterator[tuple[ast.Constant, ast.Constant, str]]:
    """Numbers of a module's own constants that decide, what each may become (nothing, twice it, a quarter or one more), and the name."""
    for statement in tree.body:
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
        for named, value in _paired(target, statement.value):
            names = {node.id for node in ast.walk(named) if isinstance(node, ast.Name)}
            if not names & compared(file) and not any(map(LIMIT.match, names)):
                continue
            for node in ast.walk(value):
                if isinstance(node, ast.Constant) and type(node.value) in (int, float):
                    for other in sorted({0, node.value * 2, node.value * 1.25, node.value + 1} - {node.value}):
                        if isinstance(node.value, float) or float(other).is_integer():
                            yield node, ast.Constant(type(node.value)(other)), f"{ast.unparse(target)}: "


def _paired(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """``A, B = 1, 2`` name by name; all else as it stands."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        return list(zip(target.elts, value.elts, strict=True))
    return [(target, value)]


@cache
def compared(file: str) -> frozenset[str]:
    """Names that stand in a comparison of a file or of one that imports it."""
    files = [ROOT / "bdaudit" / file, *_naming(ROOT / "bdaudit", "*.py", file)]
    return frozenset().union(*(_compared(_texts(ROOT / "bdaudit", "*.py")[path]) for path in files))


@cache
def _compared(text: str) -> frozenset[str]:
    sides = (node for place in ast.walk(ast.parse(text)) if isinstance(place, ast.Compare) for node in ast.walk(place))
    return frozenset(
        node.attr if isinstance(node, ast.Attribute) else node.id for node in sides if isinstance(node, ast.Attribute | ast.Name)
    )


def mutations(file: str) -> list[Mutation]:
    """Each possible one of a file of ``bdaudit/``."""
    text = (ROOT / "bdaudit" / file).read_text(encoding="utf-8")
    tree = ast.parse(text)
    typing = {id(node) for block in tree.body if isinstance(block, ast.If) for node in ast.walk(block)}
    places = [(kind, node, other, "") for node in ast.walk(tree) if id(node) not in typing for kind, other in changed(node)]
    places += [("constant", node, other, name) for node, other, name in constants(file, tree)]
    return [_mutation(file, text, kind, node, other, name) for kind, node, other, name in places if _parses(text, node)]


def _parses(text: str, node: ast.AST) -> bool:
    """Whether the place is told rightly: inside an f-string this Python tells another one."""
    start, end = _place(text, node)
    try:
        read = ast.parse(text.encode()[start:end].decode(), mode="eval").body
    except (SyntaxError, UnicodeDecodeError):
        return False
    return ast.dump(read) == ast.dump(node)


def _mutation(file: str, text: str, kind: str, node: ast.AST, other: ast.AST, name: str) -> Mutation:
    after, whole, (start, end) = ast.unparse(other), text.encode(), _place(text, node)
    if kind in ("boundary", "sense", "condition"):
        after = f"({after})"
    source = (whole[:start] + after.encode() + whole[end:]).decode()
    return Mutation(file, node.lineno, kind, name + " ".join(whole[start:end].decode().split()), " ".join(after.split()), source)


def _place(text: str, node: ast.AST) -> tuple[int, int]:
    """Where a node begins and ends, in bytes of UTF-8."""
    offsets = _offsets(text)
    return offsets[node.lineno - 1] + node.col_offset, offsets[node.end_lineno - 1] + node.end_col_offset


@cache
def _offsets(text: str) -> list[int]:
    return [0, *accumulate(map(len, text.encode().splitlines(keepends=True)))]


@cache
def mirrored(file: str) -> list[str]:
    """The tests of a file: those of its name beside its mirror, and wherever the command line tries it by that name; else all that name its
    module; else those of the files that import it."""
    path = Path(file)
    tests = list(dict.fromkeys([*_own(path), *(_own(Path("cli") / path.name) if path.stem not in ("__init__", "run") else ())]))
    tests = [test for test in tests or _naming(ROOT / "tests", "test_*.py", file) if test.name != "test_chain.py"]
    if tests:
        tests.sort(key=lambda test: not test.is_relative_to(ROOT / "tests" / path.parent))  # those nearest to it are the quickest to tell
        return [str(test.relative_to(ROOT)) for test in tests]
    importers = [str(path.relative_to(ROOT / "bdaudit")) for path in _naming(ROOT / "bdaudit", "*.py", file)]
    return sorted({test for importer in importers for test in mirrored(importer)})


def beside(file: str) -> list[str]:
    """The other tests of the folder that mirrors a file's, those that name its module first; none of files of no package, and no chain."""
    folder, own = ROOT / "tests" / Path(file).parent, mirrored(file)
    named = _naming(folder, "test_*.py", file)
    others = sorted(folder.glob("test_*.py"), key=lambda test: (test not in named, test.name)) if "/" in file else []
    return [name for name in (str(test.relative_to(ROOT)) for test in others) if name not in own]


def _own(path: Path) -> list[Path]:
    """``test_x.py`` and ``test_x_*.py`` for ``x.py``; for a package's ``__init__.py``, ``test_main.py``, else all in the folder."""
    folder = ROOT / "tests" / path.parent
    if path.stem == "__init__":
        return sorted(folder.glob("test_main.py")) or (sorted(folder.glob("test_*.py")) if path.parent.name else [])
    return sorted(folder.glob(f"test_{path.stem}.py")) + sorted(folder.glob(f"test_{path.stem}_*.py"))


def _naming(folder: Path, files: str, file: str) -> list[Path]:
    """Those in which the module's name stands, or an import of it from its package."""
    module = ".".join(("bdaudit", *Path(file).with_suffix("").parts)).removesuffix(".__init__")
    parent, _, name = module.rpartition(".")
    named = re.compile(rf"\b{re.escape(module)}\b(?!\.[a-z])|from {re.escape(parent)} import (\([^)]*|[^\n]*)\b{name}\b")
    return [path for path, text in _texts(folder, files).items() if name in text and named.search(text)]


@cache
def _texts(folder: Path, files: str) -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for path in sorted(folder.rglob(files))}


def chosen(count: int, seed: int, only: str) -> list[Mutation]:
    """About as many of every package, drawn by the seed, one change of a place; the files of no package are one."""
    random_ = random.Random(seed)
    files = sorted(str(p.relative_to(ROOT / "bdaudit")) for p in (ROOT / "bdaudit").rglob("*.py"))
    by_package: dict[str, list[Mutation]] = defaultdict(list)
    for file in files:
        if file.startswith(only) and not file.removesuffix(".py").startswith(NOT_DECIDING):
            by_package[package(file)] += mutations(file)
    for name, group in by_package.items():
        random_.shuffle(group)  # which change of a place is taken; then which place, whatever the number of its changes
        by_package[name] = list({(item.file, item.line, item.before): item for item in group}.values())
        random_.shuffle(by_package[name])
    taken: list[Mutation] = []
    while len(taken) < count and any(by_package.values()):
        for group in by_package.values():
            taken += [group.pop()] if group else []
    return taken[:count]


def package(file: str) -> str:
    """The folder in ``bdaudit/`` that a file lies in."""
    return file.split("/")[0] if "/" in file else "bdaudit"


class Tree:
    """A copy of the checkout in which one file at a time is mutated.

    Python keeps what it compiled there: a file that is changed, or whole again, gets a time of its own, by which its old code is told.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.time = 1_000_000_000
        for name in ("bdaudit", "tests"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
        (root / "tests" / "bench" / "results").symlink_to(ROOT / "tests" / "bench" / "results")
        for other in ROOT.iterdir():
            if other.name not in ("bdaudit", "tests", ".git", ".venv"):
                (root / other.name).symlink_to(other)

    def outcome(self, item: Mutation, tests: list[str], seconds: int = SECONDS) -> Outcome:
        """What ``tests`` say of the mutated file; it is as before afterwards."""
        target = self.root / "bdaudit" / item.file
        whole = target.read_text(encoding="utf-8")
        try:
            self._write(target, item.source)
            return self._ran(tests, Begun(self.root / "told"), seconds)
        finally:
            self._write(target, whole)

    def hangs(self, found: Outcome) -> bool:
        """Whether the last test took the time, or stood still, and passes without any mutation."""
        return (found.idle or found.last_alone > SECONDS / 2) and not self.unsound([found.test.partition("::")[0]], {found.test})

    def unsound(self, tests: list[str], killers: set[str]) -> set[str]:
        """Those of ``killers``, out of the files ``tests``, that fail without any mutation: all of a file that ends in any other way, and
        its name where it has none of them."""
        bad = set[str]()
        for test in tests:
            own = {killer for killer in killers if killer.partition("::")[0] == test}
            found = self._ran([test], Failed(self.root / "told", own), 10 * SECONDS)
            failed = set(found.written.split("\0")) & own
            bad |= failed if failed or found.told == "survived" else own or {test}
        return bad

    def _ran(self, tests: list[str], watch: Begun | Failed, seconds: int) -> Outcome:
        watch.file.write_text("")
        child = os.fork()
        if child == 0:
            self._tests(tests, watch, seconds)
        told, spent, idle = _waited(child)
        return Outcome(told, spent, watch.file.read_text(encoding="utf-8"), idle)

    def _write(self, target: Path, source: str) -> None:
        target.write_text(source, encoding="utf-8")
        self.time += 1
        os.utime(target, (self.time, self.time))

    def _tests(self, tests: list[str], watch: Begun | Failed, seconds: int) -> None:
        """In the child: never returns."""
        code = 70
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
            resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
            os.chdir(self.root)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1), os.dup2(null, 2)
            sys.path[:] = [str(self.root), *(p for p in sys.path if p and not (Path(p) / "bdaudit").is_dir())]
            for name in [name for name in sys.modules if name.split(".")[0] in ("bdaudit", "tests")]:
                del sys.modules[name]
            sys.dont_write_bytecode = False
            os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
            os.environ["PYTHONPATH"] = str(self.root)
            import pytest

            options = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]
            code = int(pytest.main([*options, *watch.options, *tests], plugins=[watch]))
        finally:
            os._exit(code)


@dataclass(frozen=True)
class Outcome:
    """How tests ended."""

    told: str
    """``killed``, ``survived`` or ``hung``."""
    seconds: float
    """Of processor time."""
    written: str
    """By the plugin."""
    idle: bool
    """Whether they stood still."""

    @property
    def test(self) -> str:
        """The last that was begun; empty where they were not even collected."""
        return self.written.partition("\0")[0]

    @property
    def last_alone(self) -> float:
        """Processor seconds of that test."""
        return self.seconds - float(self.written.partition("\0")[2] or self.seconds)


@dataclass(frozen=True)
class Begun:
    """A plugin of pytest's that writes down the last test that was begun, and the processor time until then."""

    file: Path
    options = ("-x",)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.file.write_text(f"{nodeid}\0{time.process_time()}", encoding="utf-8", errors="backslashreplace")


@dataclass(frozen=True)
class Failed:
    """A plugin of pytest's that leaves some tests of a file, or its first, and writes down which of them fail."""

    file: Path
    alone: set[str]
    options = ()

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if item.nodeid in self.alone] if self.alone else items[:1]

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(f"\0{report.nodeid}")


def _waited(child: int) -> tuple[str, float, bool]:
    """How a child ended, what it computed, its own children that it waited for included, and whether it stood still."""
    spent, since, idle = 0.0, time.monotonic(), False
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            limited = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
            told = "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
            return "hung" if limited else told, used.ru_utime + used.ru_stime, idle
        if time.monotonic() - since > IDLE:
            now, before = _computed(child), spent
            spent, since = now, time.monotonic()
            if now - before < IDLE * TRICKLE:
                idle = True
                os.killpg(child, signal.SIGKILL)
        time.sleep(0.02)


def _computed(session: int) -> float:
    """Processor seconds of all processes of a session so far, those that they have waited for included."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15])) if int(fields[3]) == session else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", nargs="?", type=int, default=120)
    parser.add_argument("path", nargs="?", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="files of bdaudit/ whose path begins so")
    asked = parser.parse_args()
    import diffusers
    import open_clip
    import torch
    import transformers

    for name in ("pytest", "hypothesis", "scipy.stats", "PIL.Image", "pydantic", "typer", "rich.console", "jinja2"):
        importlib.import_module(name)  # what tests import: no child need do it again
    torch.set_num_threads(1)
    versions = {module.__name__: module.__version__ for module in (torch, diffusers, transformers, open_clip)}
    head = {**stamp(), "seed": asked.seed, "versions": versions}
    taken = chosen(asked.count, asked.seed, asked.only)
    done = kept(asked.path, taken)
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        tree = Tree(Path(folder))
        for each in run(tree, taken, len(done)):
            done.append(each)
            write(asked.path, head | summary(done) | {"mutations": done})
        check(tree, done)
    write(asked.path, head | summary(done) | {"killers pass without a mutation": True, "mutations": done})
    print(json.dumps(head | summary(done), indent=1, ensure_ascii=False))


def write(path: Path | None, report: dict[str, object]) -> None:
    """The record so far."""
    if path:
        path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def check(tree: Tree, done: list[dict[str, object]]) -> None:
    """Run the tests that killed without any mutation: what one that fails then killed is told as survived."""
    killed = [each for each in done if each["outcome"] == "killed"]
    killers = {str(each["by"]) for each in killed if each["by"]}
    files = {killer.partition("::")[0] for killer in killers} | {
        file for each in killed if not each["by"] for file in mirrored(each["file"])
    }
    unsound = tree.unsound(sorted(files), killers) if files else set()
    for each in killed:
        if each["by"] in unsound or (not each["by"] and unsound.intersection(mirrored(each["file"]))):
            each["outcome"] = "survived"
            print(f"fails without any mutation: {each['by'] or each['file']}", file=sys.stderr)


def kept(path: Path | None, taken: list[Mutation]) -> list[dict[str, object]]:
    """What an earlier run left of the same draw in ``path``, as far as it is that."""
    if path is None or not path.exists():
        return []
    done: list[dict[str, object]] = json.loads(path.read_text(encoding="utf-8"))["mutations"]
    same = [told == {name: each.get(name) for name in told} for told, each in zip(map(described, taken), done, strict=False)]
    return done[: [*same, False].index(False)]


def described(item: Mutation) -> dict[str, object]:
    """A mutation without its source."""
    return {name: value for name, value in asdict(item).items() if name != "source"}


def run(tree: Tree, taken: list[Mutation], begin: int) -> Iterator[dict[str, object]]:
    """What became of each from ``begin`` on."""
    for at, item in enumerate(taken[begin:], begin + 1):
        compile(item.source, item.file, "exec")
        found = tree.outcome(item, mirrored(item.file))
        seconds, outcome = found.seconds, found.told
        if outcome == "hung" and not tree.hangs(found):
            outcome = "survived"
        if outcome == "survived" and item.name in EQUIVALENT:
            outcome = "equivalent"
        elif outcome == "survived" and beside(item.file):
            found = tree.outcome(item, beside(item.file), BESIDE)
            seconds, outcome = seconds + found.seconds, "killed" if found.told == "killed" else "survived"
        said = f"{at}/{len(taken)} {outcome} {seconds:.0f} s {item.file}:{item.line} {item.before} → {item.after}"
        print(said, file=sys.stderr, flush=True)
        by = found.test if outcome in ("killed", "hung") else ""  # empty too where the tests could not be collected
        yield described(item) | {"outcome": outcome, "by": by, "processor seconds": round(seconds, 1)}


def summary(done: list[dict[str, object]]) -> dict[str, object]:
    """Counts, and the share killed of what is not equivalent, with its interval."""
    counts = Counter(str(item["outcome"]) for item in done)
    killed, all_ = counts["killed"] + counts["hung"], len(done) - counts["equivalent"]
    by_kind, by_package = defaultdict[str, Counter[str]](Counter), defaultdict[str, Counter[str]](Counter)
    for item in done:
        by_kind[str(item["kind"])][str(item["outcome"])] += 1
        by_package[package(str(item["file"]))][str(item["outcome"])] += 1
    return {
        "mutations counted": len(done), **counts, "share killed": round(killed / max(all_, 1), 4),
        "interval": [round(end, 4) for end in wilson(killed, all_)] if all_ else [], "by kind": by_kind, "by package": by_package,
        "survivors": [f"{d['file']}:{d['line']} {d['before']} → {d['after']}" for d in done if d["outcome"] == "survived"],
        "equivalent ones": EQUIVALENT,
    }  # fmt: skip


if __name__ == "__main__":
    main()
