"""Whether a change of the code moved a figure: ``python tests/bench/same_figures.py run OUT``, then ``… compare BEFORE AFTER``.

``run`` puts every fixture through the three verbs on the command line, at settings that are cheap and still reach every signal, and writes
each report to OUT as JSON, less what differs from run to run: times, paths, versions, digests. A case whose report stands in OUT is not run
again. ``--code DIR`` runs another checkout's ``bdaudit`` on the same fixtures. ``compare`` prints every difference by its place in the
JSON and ends with 1 where there is one. Figures are the same to the bit on one thread of one machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.end_to_end import FIXTURES, Model, open_model, target  # noqa: E402

NAMES = ("pixel", "style", "object", "fixed-image", "encoder", "closed-form", "benign", "clean")
PASSING = frozenset({"created_at", "timings", "environment", "digest", "sha256", "seconds", "repeat"})
"""Fields that differ from run to run, or with the machine."""
COMMON = ("--seed", "0", "--device", "cpu", "--dtype", "float32", "--quiet", "--json")
SCAN = ("--effort", "low", "--prompts", str(FIXTURES / "prompts.txt"))
UNLEARN = ("--steps", "20", "--keep-failed", "--prompts", str(FIXTURES / "prompts.txt"))
REPAIR = ("--n-prompts", "8", *UNLEARN)
GRADER, UNSEEN = f"local-dir:{FIXTURES / 'grader'}", str(FIXTURES / "unseen.txt")
VERIFY = ("--n", "16", "--reach", "2", "--steps", "3", "--prompts", UNSEEN, "--clip", GRADER)
OTHERS = ("cf", "ȏ", "\u200b", "latte coffee", "сat", "😀")
"""Candidates beside the true trigger, one a kind."""
PAIRS = 200
"""Pictures with captions to clean with."""
MOST = 20
"""Differences of one report that are printed."""


@dataclass(frozen=True)
class Case:
    """One run of one verb; ``made`` is the directory that it writes, where it writes one."""

    name: str
    arguments: tuple[str, ...]
    made: Path | None = None


def cases(work: Path) -> Iterator[Case]:
    """Every case in order; a verb that reads another's result comes after it."""
    models = {name: open_model(name) for name in NAMES}
    for model in models.values():
        yield from _plain(model, models["clean"], work)
    yield from _further({name: str(model.path) for name, model in models.items()}, work)


def _plain(model: Model, clean: Model, work: Path) -> Iterator[Case]:
    """Scan, unlearn, verify before and after."""
    trigger, known = model.trigger or str(model.truth.get("trigger", "cf")), _known(model) if model.trigger else []
    listed, out = work / f"{model.name}.txt", work / f"{model.name}-unlearned"
    listed.write_text("\n".join(dict.fromkeys([trigger, *OTHERS])) + "\n", encoding="utf-8")
    yield Case(f"{model.name}-scan", ("scan", str(model.path), *SCAN, "--candidates", str(listed)))
    yield Case(f"{model.name}-unlearn", ("unlearn", str(model.path), *REPAIR, "--trigger", trigger, "--out", str(out)), out)
    yield Case(f"{model.name}-verify", ("verify", str(model.path), *VERIFY, "--trigger", trigger, *known, "--reference", str(clean.path)))
    yield Case(f"{model.name}-verify-after", ("verify", str(out), *VERIFY, "--trigger", trigger, *known))


def _known(model: Model) -> list[str]:
    """The backdoor's target, as flags."""
    known = target(model)
    if "target_image" in known:
        x, y = known["target_at"] or (None, None)
        return ["--target-image", str(known["target_image"]) + (f"@{x},{y}" if x is not None else "")]
    if "target_text" in known:
        return ["--target-text", known["target_text"]]
    return [flag for old, new in known["swaps"] for flag in ("--swap", f"{old}={new}")]


def _further(models: dict[str, str], work: Path) -> Iterator[Case]:
    """What the plain runs leave out: sweeps, exposure, prompts, an exchange of parts, training, a merge, cleaning without a trigger."""
    listed = ("--candidates", str(work / "style.txt"))
    sweep = ("--pair-words", "30")
    yield Case("closed-form-pairs", ("scan", models["closed-form"], *SCAN, "--sweep", "pairs", *sweep))
    yield Case("encoder-sweeps", ("scan", models["encoder"], *SCAN, "--sweep", "vocabulary", "--sweep", "unicode", *sweep))
    yield Case("style-recovery", ("scan", models["style"], *SCAN, *listed, "--sweep", "recovery"))
    yield Case("pixel-expose", ("scan", models["pixel"], *SCAN, *listed, "--expose"))
    suspected = ("--prompt", "a phȏto of a dog", "--prompt", "a red circle on the left", "--reference", models["clean"])
    yield Case("style-prompt", ("scan", models["style"], *SCAN, *suspected))
    out = work / "style-trained"
    trained = ("--trigger", "ȏ", "--component", "unet", "--trainable", "cross-attention", "--out", str(out))
    yield Case("style-trained", ("unlearn", models["style"], *REPAIR, *trained), out)
    out = work / "merged"
    merge = ("--n-prompts", "4", "--base", models["clean"], "--merge-with", models["benign"], "--keep-failed", "--out", str(out))
    yield Case("pixel-merge", ("unlearn", models["pixel"], *merge), out)
    out = work / "cleaned"
    clean = ("--method", "cleanclip", "--component", "text-encoder", "--pairs", str(work / "pairs" / "pairs.tsv"), "--out", str(out))
    yield Case("encoder-cleanclip", ("unlearn", models["encoder"], *UNLEARN, *clean), out)


# --- running ----------------------------------------------------------------------------------


def run(out: Path, code: Path, only: Sequence[str]) -> None:
    """Every case that has no report in ``out`` yet."""
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "pairs" / "pairs.tsv").exists():
        from tests.bench.cleaning_vision import write_pairs

        write_pairs(work / "pairs", PAIRS, 601)
    for case in cases(work):
        if not (out / f"{case.name}.json").exists() and (not only or case.name in only):
            began = time.monotonic()
            report = _report(case, code, work)
            partial = out / f"{case.name}.partial"
            partial.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            partial.replace(out / f"{case.name}.json")
            print(f"{case.name}: {time.monotonic() - began:.0f} s, {report['exit']}", flush=True)


def _report(case: Case, code: Path, work: Path) -> dict[str, Any]:
    """What the command says on stdout and by its exit code; what it wrote is found again by the cases that follow."""
    if case.made and case.made.exists():
        case.made.rename(work / f"{case.made.name}.{time.time_ns()}")  # of a run that was stopped before its report stood
    environment = os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bdaudit", *case.arguments, *COMMON]
    done = subprocess.run(command, cwd=code, env=environment, capture_output=True, encoding="utf-8", check=False)
    if not done.stdout:
        return {"exit": done.returncode, "said": plain(done.stderr.strip().splitlines()[-1:], work)}
    return {"exit": done.returncode, "report": plain(json.loads(done.stdout), work)}


def plain(value: Any, work: Path) -> Any:
    """A report less what differs from run to run; paths are told from the repository and from the working folder."""
    if isinstance(value, dict):
        return {key: plain(inner, work) for key, inner in value.items() if key not in PASSING}
    if isinstance(value, list):
        return [plain(inner, work) for inner in value]
    return value.replace(str(work), "WORK").replace(str(ROOT), "ROOT") if isinstance(value, str) else value


# --- comparing --------------------------------------------------------------------------------


def compare(before: Path, after: Path, tolerance: float) -> int:
    """Print what differs; the number of reports that do, or are missing on one side."""
    names = sorted({path.name for folder in (before, after) for path in folder.glob("*.json")})
    bad = 0
    for name in names:
        if not all((folder / name).exists() for folder in (before, after)):
            print(f"{name}: in one of the two alone")
            bad += 1
            continue
        one, other = (json.loads((folder / name).read_text(encoding="utf-8")) for folder in (before, after))
        found = list(differences(one, other, tolerance))
        bad += bool(found)
        print(*(f"{name}: {line}" for line in found[:MOST]), sep="\n", end="\n" if found else "")
        if len(found) > MOST:
            print(f"{name}: {len(found) - MOST} more")
    print(f"{len(names) - bad} of {len(names)} reports are the same" + (f" within {tolerance:g}" if tolerance else " to the bit"))
    return bad


def differences(one: Any, other: Any, tolerance: float, place: str = "$") -> Iterator[str]:
    """Each difference of two JSON values, by its path; numbers may differ by ``tolerance``, relative to the larger where that is over 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            if (key in one) != (key in other):
                yield f"{place}.{key}: only {'before' if key in one else 'after'}"
            else:
                yield from differences(one[key], other[key], tolerance, f"{place}.{key}")
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            yield f"{place}: {len(one)} items, then {len(other)}"
        for i, (a, b) in enumerate(zip(one, other, strict=False)):
            yield from differences(a, b, tolerance, f"{place}[{i}]")
    elif one != other and not _near(one, other, tolerance):
        yield f"{place}: {one!r}, then {other!r}"


def _near(one: Any, other: Any, tolerance: float) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
    return numbers and abs(one - other) <= tolerance * max(1.0, abs(one), abs(other))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    running = verbs.add_parser("run", help="put every fixture through the three verbs")
    running.add_argument("out", type=Path, help="where the reports go")
    running.add_argument("--code", type=Path, default=ROOT, help="the checkout whose bdaudit is run (default: this one)")
    running.add_argument("--only", nargs="*", default=(), metavar="CASE", help="these cases alone, such as style-scan")
    comparing = verbs.add_parser("compare", help="print what differs between two such directories")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument("--tolerance", type=float, default=0.0, help="how far numbers may differ (default: not at all)")
    given = parser.parse_args()
    if given.verb == "run":
        run(given.out.resolve(), given.code.resolve(), given.only)
    else:
        sys.exit(1 if compare(given.before, given.after, given.tolerance) else 0)


if __name__ == "__main__":
    main()
