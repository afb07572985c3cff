"""The power study of `bdaudit scan`: ``python -m tests.bench.power --work FOLDER`` from the repository's root.

Trains four small bases from scratch (``bases.py``), makes 24 backdoored and 20 clean models of them (``models.py``), measures attack
success, the scan at its defaults and three rivals on the trigger and 19 controls of each (``measuring.py``, ``rivals.py``), and writes
AUROCs, recall and false alarms (``figures.py``) to ``results/power.json``. About two hours on one core. Every part is kept in FOLDER as
soon as it is there, and a run that was stopped goes on.

    python -m tests.bench.power --work FOLDER            # all of it
    python -m tests.bench.power --work FOLDER a-pixel    # only these models; no figures
    python -m tests.bench.power --work FOLDER --quick    # one base, hardly trained: shows that it runs, measures nothing
    python -m tests.bench.power --work FOLDER --so-far   # figures of what is measured already
    python -m tests.bench.power --work FOLDER --round fresh  # two more bases, no rivals, to results/power_fresh.json
    python -m tests.bench.power --work FOLDER --round sharp  # four more, trained for longer: most attacks take; to results/power_sharp.json
    python -m tests.bench.power --table                  # print the README's table from the results
    python -m tests.bench.power.ranking                  # by what models are best ranked, from the rounds' results
    python -m tests.bench.power.cost                     # passes and seconds a candidate, to results/cost.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tests.bench.power import bases, figures, measuring, models, rivals
from tests.bench.power.models import Spec
from tests.bench.recording import rounded, stamp

RESULTS = Path(__file__).resolve().parents[1] / "results"
PICTURES = 80
"""Pictures with the trigger, and as many without, that grade an attack."""
QUICK = ("a-pixel", "a-encoder", "a-closed-form", "a-clean-0", "a-clean-1")


@dataclass(frozen=True)
class Round:
    """Models that are measured together."""

    specs: Callable[[], Sequence[Spec]]
    out: Path
    alone: bool = False
    """Without rivals."""


ROUNDS = {
    "first": Round(models.plan, RESULTS / "power.json"),
    "fresh": Round(models.fresh, RESULTS / "power_fresh.json", alone=True),
    "sharp": Round(models.sharp, RESULTS / "power_sharp.json"),
    "joint": Round(models.joint, RESULTS / "power_joint.json", alone=True),
}


def kept(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What stands in ``path``, or what ``measure`` gives, which then stands there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
        partial.rename(path)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def measured(spec: Spec, work: Path, quick: bool, alone: bool = False) -> dict[str, Any]:
    """All that is measured on one model, each part once; ``alone`` is without rivals."""
    base = next(b for b in (*bases.BASES, *bases.FRESH, *bases.SHARP, *bases.JOINT) if b.name == spec.base)
    origin, results = bases.build(bases.quick(base) if quick else base, work), work / "results"
    folder = models.make(spec, origin, work, lambda made: float(measuring.attack(spec, made, PICTURES)["asr"]["value"]))
    few: dict[str, Any] = {"effort": "low"} if quick else {}
    made = json.loads((work / "models" / f"{spec.name}.json").read_text(encoding="utf-8"))
    row: dict[str, Any] = {"name": spec.name, "base": spec.base, "family": spec.twin.family, "weak": spec.weak}
    row["share"] = made["share"]
    if spec.trigger:
        attack = kept(results / f"{spec.name}.attack.json", lambda: measuring.attack(spec, folder, 6 if quick else PICTURES))
        row |= {"trigger": ascii(spec.trigger), "target": spec.twin.target, "steps": spec.twin.steps, "attack": attack}
    elif spec.twin.trigger:
        row["taught"] = ascii(spec.twin.trigger)
    row["candidates"] = [ascii(text) for text in spec.candidates]
    row["scan"] = kept(results / f"{spec.name}.scan.json", lambda: measuring.scan(spec, folder, **few))
    if spec.trigger:
        row["flagged beside"] = {
            ascii(text): kept(results / f"{spec.name}.beside-{i}.json", lambda text=text: measuring.attack(spec, folder, PICTURES, text))
            for i, (text, found) in enumerate(zip(spec.candidates, row["scan"]["rows"], strict=True))
            if i and found["verdict"] == "backdoored" and not quick
        }
    steps = 2 if quick else rivals.STEPS
    if not alone:
        row["rivals"] = kept(results / f"{spec.name}.rivals.json", lambda: measuring.beside(spec, folder, origin, steps))
    return {**row, "made in seconds": made["seconds"]}


def scores(row: dict[str, Any]) -> figures.Row:
    """What the figures are made of."""
    rows = row["scan"]["rows"]
    attack = row.get("attack", {"asr": {"value": 0.0}, "floor": {"value": 0.0}})
    return {
        "family": row["family"],
        "taught": "taught" in row,
        "exit": row["scan"].get("exit", 0),
        "asr": attack["asr"]["value"],
        "floor": attack["floor"]["value"],
        "scan": [candidate["score"] for candidate in rows],
        "flagged": [candidate["verdict"] == "backdoored" for candidate in rows],
        **{name: row["rivals"][name] for name in figures.DETECTORS[1:] if "rivals" in row},
        "without": row["scan"].get("without", {}),
    }


def document(rows: list[dict[str, Any]], work: Path, planned: int, alone: bool = False) -> dict[str, Any]:
    """The record: what was done, the figures, every model's measurements."""
    summary = figures.alone if alone else figures.summary
    used = [
        json.loads((work / f"base-{name}" / "base.json").read_text(encoding="utf-8")) for name in dict.fromkeys(r["base"] for r in rows)
    ]
    return {
        **stamp(),
        "protocol": {
            "models": {"planned": planned, "measured": len(rows)},
            "bases": used,
            "training": models.TRAINING
            | {"steps": models.STEPS, "weak": models.WEAK, "seed": models.SEED}
            | {"sharp steps": models.SHARP_STEPS, "sharp weak": models.WEAK_ASR},
            "pictures": PICTURES,
            "rivals": {
                "prompts": rivals.PROMPTS,
                "steps": rivals.STEPS,
                "copies": rivals.UFID_COPIES,
                "copied prompts": rivals.UFID_PROMPTS,
            },
        },
        "figures": summary([scores(row) for row in rows]),
        "rows": rows,
    }


def written(report: dict[str, Any]) -> str:
    """JSON with a line a model, figures to five digits."""
    report = rounded(5, report)
    lines = ",\n".join(f"  {json.dumps(row)}" for row in report.pop("rows"))
    return json.dumps(report, indent=1).removesuffix("\n}") + f',\n "rows": [\n{lines}\n ]\n}}\n'


def quick_specs() -> list[Spec]:
    """A few models of the first base, with next to no training."""
    models.TRAINING["n"] = 60
    return [replace(s, twin=replace(s.twin, steps=min(s.twin.steps, 4))) for s in models.plan() if s.name in QUICK]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.power", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", help="only these models")
    parser.add_argument("--work", type=Path, help="where bases, models and measurements are kept")
    parser.add_argument("--out", type=Path, help="the JSON document (default: results/power.json, with --quick FOLDER/power.json)")
    parser.add_argument("--quick", action="store_true", help="a smoke test; its figures mean nothing")
    parser.add_argument("--so-far", action="store_true", help="figures of the models that are measured, without measuring any")
    parser.add_argument("--round", choices=ROUNDS, default="first", help="which models (default: first)")
    parser.add_argument("--table", action="store_true", help="only print the table")
    arguments = parser.parse_args()
    asked = ROUNDS[arguments.round]
    out = arguments.out or (arguments.work / "power.json" if arguments.quick else asked.out)
    if not arguments.table:
        if arguments.work is None:
            parser.error("--work FOLDER is needed")
        torch.set_num_threads(1)
        specs = quick_specs() if arguments.quick else asked.specs()
        planned = len(specs)
        if arguments.so_far:
            last = "scan" if asked.alone else "rivals"
            specs = [spec for spec in specs if (arguments.work / "results" / f"{spec.name}.{last}.json").exists()]
        rows = []
        for spec in specs:
            if not arguments.names or spec.name in arguments.names:
                rows.append(measured(spec, arguments.work, arguments.quick, asked.alone))
                print(brief(rows[-1]), flush=True)
        if arguments.names:
            return
        out.write_text(written(document(rows, arguments.work, planned, asked.alone)), encoding="utf-8")
    table = figures.table_alone if asked.alone else figures.table
    print(table(json.loads(out.read_text(encoding="utf-8"))["figures"]))


def brief(row: dict[str, Any]) -> str:
    """One line for the log."""
    first, flagged = row["scan"]["rows"][0], sum(c["verdict"] == "backdoored" for c in row["scan"]["rows"])
    asr = row["attack"]["asr"]["value"] if "attack" in row else None
    return f"{row['name']} asr {asr} p adjusted {first['p adjusted']:.1e} flagged {flagged} scan {row['scan']['seconds']:.0f} s"


if __name__ == "__main__":
    main()
