"""What is measured on each model: the attack's success, the scan at its defaults, and the rivals on the same texts."""

from __future__ import annotations

import dataclasses
import time
import zlib
from pathlib import Path
from typing import Any

import torch

from bdaudit.config import ScanConfig, VerifyConfig
from bdaudit.measure.grader import OpenClipGrader, load_grader
from bdaudit.models.load import load
from bdaudit.records import Calibration
from bdaudit.scan.run import run_scan
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.text_files import read_texts
from bdaudit.verify.run import run_verify
from fixtures.build import poisons
from tests.bench.end_to_end import Model, graded_on, target
from tests.bench.power import rivals
from tests.bench.power.ablation import watched, without
from tests.bench.power.bases import FIXTURES
from tests.bench.power.models import Spec
from tests.bench.unlearn_common import plain

GRADER = f"local-dir:{FIXTURES / 'grader'}"


def prompts() -> tuple[str, ...]:
    """The prompts that suit these models, as the other benches give them."""
    return read_texts(FIXTURES / "prompts.txt")


def attack(spec: Spec, folder: Path, n: int, text: str = "") -> dict[str, Any]:
    """Attack success of the trigger and its floor, by the rules of ``end_to_end``, on ``n`` unseen prompts at the attacker's positions;
    of another ``text`` beside and between the words."""
    model = Model(spec.name, folder, dataclasses.asdict(spec.twin))
    places = tuple(place for place in spec.twin.positions if place != "replace" or not text)
    known = {"triggers": (text or spec.trigger,), "positions": places, **_target(spec, model, folder)}
    given = graded_on(model, by_day=("object", "closed-form") if spec.as_fixtures else ())
    config = VerifyConfig(model=folder, clip=GRADER, prompts=given, n=n, steps=12, reach=0, **known)
    report = run_verify(config)
    found = report.attacks[0]
    return {"asr": plain(found.rate), "floor": plain(found.floor), "p": plain_p(found.p), "rule": found.rule}


def plain_p(value: Any) -> Any:
    """A p-value, or why there is none."""
    return value if isinstance(value, float) else value.reason


def _target(spec: Spec, model: Model, folder: Path) -> dict[str, Any]:
    """What `verify` is told; the pictures of the two families that have one are written beside the model."""
    if spec.twin.family not in ("pixel", "fixed-image"):
        return target(model)
    path = folder.parent / f"{spec.name}.png"
    pixel = spec.twin.family == "pixel"
    (poisons.patch if pixel else poisons.fixed_picture)(spec.twin.target).save(path)
    return {"target_image": path, "target_at": poisons.PATCH_AT[spec.twin.target] if pixel else None}


def scan(spec: Spec, folder: Path, **settings: Any) -> dict[str, Any]:
    """The public scan at default settings (``settings`` are the quick mode's), by a seed of the model's own; a row a candidate, in the
    list's order."""
    began = time.monotonic()
    config = ScanConfig(model=folder, candidates=spec.candidates, prompts=prompts(), seed=seed_of(spec), **settings)
    with watched() as seen:
        report = run_scan(config)
    records = {record.text: record for record in report.candidates}
    calibration = report.calibration
    assert isinstance(calibration, Calibration)
    rows = [
        {"p": r.p, "p adjusted": r.p_adjusted, "score": r.score, "effect": r.effect, "verdict": r.verdict, "kind": r.kind, "depth": r.depth,
         "signals": {name: round(signal.score, 4) for name, signal in r.signals.items()}}
        for r in (records[text] for text in spec.candidates)
    ]  # fmt: skip
    seconds = time.monotonic() - began
    ablated = without(seen[0], {text: record.kind for text, record in records.items() if not record.same_as}) if seen else {}
    return {
        "seconds": seconds,
        "seed": seed_of(spec),
        "exit": report.exit.code,
        "passes": calibration.forward_passes,
        "passes a candidate": calibration.forward_passes_per_candidate,
        "controls": calibration.n_controls,
        "tail": calibration.tail,
        "rows": rows,
        "without": {name: [of.get(records[text].same_as or text, 0.0) for text in spec.candidates] for name, of in ablated.items()},
    }


def seed_of(spec: Spec) -> int:
    """Of its scan."""
    return zlib.crc32(spec.name.encode())


def beside(spec: Spec, folder: Path, base: Path, steps: int = rivals.STEPS) -> dict[str, Any]:
    """The rivals' scores of the same candidates, and their seconds."""
    suspect = load(inspect(folder), device="cpu", dtype="float32", batch_size=rivals.BATCH)
    clean = load(inspect(base), device="cpu", dtype="float32", batch_size=rivals.BATCH)
    grader = load_grader(GRADER, torch.device("cpu"))
    assert isinstance(grader, OpenClipGrader)
    given, texts = prompts(), spec.candidates
    runs = {
        "ftt": lambda: rivals.ftt(suspect, given, texts, steps),
        "navi": lambda: rivals.navi(suspect, given, texts, lambda t: rivals.heard(clean, t)),
        "ufid": lambda: rivals.ufid(suspect, given, texts, grader, steps),
    }
    found: dict[str, Any] = {}
    for name, run in runs.items():
        began = time.monotonic()
        found[name] = run()
        found[f"{name} seconds"] = time.monotonic() - began
    return found
