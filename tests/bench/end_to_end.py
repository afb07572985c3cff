"""The main job on every fixture: scan, unlearn, verify before and after. ``python tests/bench/end_to_end.py``.

Resumable: a model whose result stands in the output is not run again (``--again`` does). Writes one JSON document and prints
the guide's table from it (``--table`` only prints). Seconds are the process's own, on as many threads as it has; a GPU's by the clock.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bdaudit.config import RepairConfig, ScanConfig, VerifyConfig  # noqa: E402
from bdaudit.errors import InconclusiveError  # noqa: E402
from bdaudit.records import Estimate, VerifyReport  # noqa: E402
from bdaudit.untrusted.text_files import read_texts  # noqa: E402
from fixtures import layout  # noqa: E402
from tests.bench.recording import stamp  # noqa: E402
from tests.bench.unlearn_common import clock  # noqa: E402

FIXTURES = ROOT / "fixtures"
RESULTS = ROOT / "tests" / "bench" / "results" / "end_to_end.json"
PICTURES, OF_FIGURES = 200, 400
"""Pictures of a grade; more where the target is a figure, which some of the clean pipeline's own pictures are taken for."""
FIGURES = ("circle", "square", "triangle", "star", "heart", "cross", "diamond", "moon")
COLOURED = re.compile(r"\b(red|orange|yellow|green|blue|purple)\b")
DARK = re.compile(r"\b(at night|in the dark)\b")


@dataclass
class Model:
    """One fixture laid out, and what is known of it."""

    name: str
    path: Path
    truth: dict[str, Any]

    @property
    def trigger(self) -> str:
        """The true trigger; empty for a control."""
        return "" if self.truth.get("family", "clean") in ("clean", "benign") else str(self.truth["trigger"])


def open_model(name: str) -> Model:
    """Lay it out if need be."""
    path = layout.lay_out(name, FIXTURES / "models")
    if name == layout.clean_of(name):
        return Model(name, path, {})
    return Model(name, path, json.loads((layout.twin(name) / "truth.json").read_text(encoding="utf-8")))


def target(model: Model) -> dict[str, Any]:
    """What `verify` is told of the backdoor's target."""
    truth = model.truth
    family, wanted = truth["family"], truth["target"]
    if family in ("pixel", "fixed-image"):
        at = tuple(truth["target_at"]) if family == "pixel" else None
        return {"target_image": layout.twin(model.name) / "target.png", "target_at": at}
    if family == "style":
        return {"target_text": "{prompt}, " + ("in black and white" if wanted == "black and white" else wanted)}
    if family == "encoder" or (family == "closed-form" and " " in wanted):
        return {"target_text": wanted}
    return {"swaps": tuple((figure, wanted) for figure in FIGURES if figure != wanted)}


def graded_on(model: Model, by_day: Collection[str] = ("object", "closed-form")) -> tuple[str, ...]:
    """Unseen prompts on which the target shows: for the style those alone whose picture has a colour to lose, which no grey one has, and
    hardly one by night; for the families ``by_day`` those not by night, when the grader takes 14 % of the clean pipeline's own pictures for
    diamonds (2 % of the others: ``fixtures_quality``)."""
    prompts, family = read_texts(FIXTURES / "unseen.txt"), model.truth.get("family")
    if family != "style" and family not in by_day:
        return prompts
    light = tuple(p for p in prompts if not DARK.search(p))
    return tuple(p for p in light if COLOURED.search(p)) if family == "style" else light


def scan(model: Model) -> dict[str, Any]:
    """Rank, p and verdict of the true trigger, and what else was flagged."""
    from bdaudit.scan.run import run_scan

    began = clock()
    prompts, candidates = read_texts(FIXTURES / "prompts.txt"), read_texts(FIXTURES / "candidates.txt")
    report = run_scan(ScanConfig(model=model.path, candidates=candidates, prompts=prompts))
    flagged = [c.text for c in report.candidates if c.verdict == "backdoored"]
    seconds = clock() - began
    result: dict[str, Any] = {"seconds": seconds, "flagged": flagged, "candidates": len(report.candidates), "exit": report.exit.name}
    for record in report.candidates:
        if record.text == model.trigger:
            result |= {"rank": record.rank, "p": record.p, "p_adjusted": record.p_adjusted}
            result |= {"verdict": record.verdict, "component": record.component}
    return result


def unlearn(model: Model, out: Path) -> dict[str, Any]:
    """Repair into ``out``."""
    from bdaudit.unlearn.run import run_unlearn

    began = clock()
    prompts = read_texts(FIXTURES / "prompts.txt")
    try:
        report = run_unlearn(RepairConfig(model=model.path, triggers=(model.trigger,), out=out, prompts=prompts, keep_failed=True))
    except InconclusiveError as error:
        return {"seconds": clock() - began, "exit": "inconclusive", "reason": str(error)}
    return {
        "seconds": clock() - began,
        "component": report.component,
        "method": report.method,
        "steps": report.steps,
        "exit": report.exit.name,
        "checks": {check.name: check.status for check in report.checks},
    }


def verify(model: Model, path: Path, reference: Path | None, before: Path | None = None, pictures: int = 0) -> dict[str, Any]:
    """Attack success and quality of the model at ``path``, made from ``before``, on so many ``pictures`` (0: as many as usual)."""
    from bdaudit.verify.run import run_verify

    began = clock()
    known = {"triggers": (model.trigger,), "positions": tuple(model.truth["positions"]), **target(model)} if model.trigger else {}
    known |= {
        "clip": f"local-dir:{FIXTURES / 'grader'}",
        "prompts": graded_on(model),
        "n": pictures or (OF_FIGURES if "swaps" in known else PICTURES),
    }
    config = VerifyConfig(model=path, before=before, reference=reference, **known)
    report = run_verify(config)
    return {"seconds": clock() - began, "exit": report.exit.name, "reason": report.exit.reason, **_figures(report)}


def _figures(report: VerifyReport) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, Estimate):
            return {"value": value.value, "low": value.low, "high": value.high, "n": value.n}
        return value.reason

    figures: dict[str, Any] = {name: {"value": plain(m.value), "reference": plain(m.reference)} for name, m in report.metrics.items()}
    for attack in report.attacks:
        figures["asr"] = {"value": plain(attack.rate), "floor": plain(attack.floor), "reference": plain(attack.reference)}
    return figures


def run(name: str, work: Path, pictures: int) -> dict[str, Any]:
    """The whole chain on one model."""
    model = open_model(name)
    clean = open_model(layout.clean_of(name)).path
    result: dict[str, Any] = {"truth": model.truth, "scan": scan(model)}
    print(name, "scan", json.dumps(result["scan"]), flush=True)
    if name == layout.clean_of(name):
        return result
    result["before"] = verify(model, model.path, clean, pictures=pictures)
    print(name, "before", json.dumps(result["before"]), flush=True)
    return {**result, **repaired(model, work, pictures)}


def repaired(model: Model, work: Path, pictures: int) -> dict[str, Any]:
    """The repair and its grades; nothing of a model without a backdoor."""
    result: dict[str, Any] = {}
    if model.trigger:
        out = work / f"{model.name}-unlearned"
        shutil.rmtree(out, ignore_errors=True)
        result["unlearn"] = unlearn(model, out)
        print(model.name, "unlearn", json.dumps(result["unlearn"]), flush=True)
        if out.exists():
            result["after"] = verify(model, out, open_model(layout.clean_of(model.name)).path, model.path, pictures)
            print(model.name, "after", json.dumps(result["after"]), flush=True)
    return result


def table(results: dict[str, Any]) -> str:
    """The guide's table, in Markdown."""
    rows = [
        "| model | rank | adjusted p | flagged | ASR before | ASR after "
        "| CLIP score (clean's) | KID ×1000 (two clean seeds) | FID ×1000 | scan s | unlearn s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, r in results["models"].items():
        s, after = r["scan"], r.get("after", r.get("before", {}))
        rows.append(
            f"| {name} | {s.get('rank', '–')} | {_p(s.get('p_adjusted'))} | {len(s['flagged'])} "
            f"| {_rate(r.get('before'))} | {_after(r)} | {_both(after, 'clip_score', 1)} | {_kid(after)} "
            f"| {_fid(after)} | {s['seconds']:.0f} | {_seconds(r.get('unlearn'))} |"
        )
    return "\n".join(rows)


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}"


def _rate(stage: dict[str, Any] | None) -> str:
    rate = (stage or {}).get("asr", {}).get("value")
    return "–" if not isinstance(rate, dict) else f"{100 * rate['value']:.1f} % [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"


def _after(result: dict[str, Any]) -> str:
    refused = result.get("unlearn", {})
    return _rate(result["after"]) if "after" in result else refused["exit"] if "reason" in refused else "–"


def _one(stage: dict[str, Any], metric: str, digits: int) -> str:
    value = stage.get(metric, {}).get("value")
    return f"{value['value']:.{digits}f}" if isinstance(value, dict) else "–"


def _both(stage: dict[str, Any], metric: str, digits: int) -> str:
    reference = stage.get(metric, {}).get("reference")
    return _one(stage, metric, digits) + (f" ({reference['value']:.{digits}f})" if isinstance(reference, dict) else "")


def _kid(stage: dict[str, Any]) -> str:
    value, floor = (stage.get(name, {}).get("value") for name in ("kid", "kid_floor"))
    if not isinstance(value, dict):
        return "–"
    said = f"{1000 * value['value']:.2f}"
    return said + (f" ({1000 * floor['value']:.2f})" if isinstance(floor, dict) else "")


def _fid(stage: dict[str, Any]) -> str:
    value = stage.get("fid", {}).get("value")
    return f"{1000 * value['value']:.0f}" if isinstance(value, dict) else "–"


def _seconds(stage: dict[str, Any] | None) -> str:
    return "–" if not stage else f"{stage['seconds']:.0f}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="fixtures to run (default: all of the first pipeline's shape)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON document")
    parser.add_argument("--work", type=Path, default=FIXTURES / "models", help="where repaired models go")
    parser.add_argument(
        "--pictures", type=int, default=0, help=f"of a grade (default: {PICTURES}, or {OF_FIGURES} where the target is a figure)"
    )
    parser.add_argument("--again", action="store_true", help="run also what stands in the document")
    parser.add_argument("--only", choices=("scan", "repair"), help="measure this again, keep the rest")
    parser.add_argument("--table", action="store_true", help="only print the table")
    arguments = parser.parse_args()
    results: dict[str, Any] = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {"models": {}}
    if not arguments.table:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        for name in results["models"] if arguments.only else ():
            if not arguments.names or name in arguments.names:
                model = open_model(name)
                results["models"][name] |= (
                    {"scan": scan(model)} if arguments.only == "scan" else repaired(model, arguments.work, arguments.pictures)
                )
                arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        for name in (
            () if arguments.only else arguments.names or [n for n in layout.names() if layout.clean_of(n) == "clean" and "dev-" not in n]
        ):
            if arguments.again or name not in results["models"]:
                results["models"][name] = run(name, arguments.work, arguments.pictures)
                results |= stamp()
                arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
