"""Whether an exposed copy tells triggers better: ``python -m tests.bench.exposure --work FOLDER --keep FOLDER2``.

FOLDER is the power study's work folder (``python -m tests.bench.power --work FOLDER``): its models, and what its scans gave, which is not
measured again. Here every candidate and ``PER_KIND`` controls of each kind go through each model and its exposed copy; what is kept of
the plain scan and what is left in the copy are then put together: by the smallest p times their number, as the scan once did, and as one
more coordinate of a sum. Also the claim itself: attack success in the copy beside that in the model. Every cell is kept in FOLDER2 as soon
as it is there. What the record has of methods and copies that the scan no longer makes stays in it.

    python -m tests.bench.exposure --work FOLDER --keep FOLDER2           # all of it, to results/exposure.json
    python -m tests.bench.exposure --work FOLDER --keep FOLDER2 --so-far  # figures of what is measured already
    python -m tests.bench.exposure --coordinates                          # as one more coordinate, of the rows in the results
    python -m tests.bench.exposure --table                                # print the README's tables from the results
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import save_file

from bdaudit import many_tests
from bdaudit.config import ScanConfig
from bdaudit.config.effort import EFFORTS
from bdaudit.kept_state import State
from bdaudit.measure.controls import control_texts, words_of
from bdaudit.measure.draws import make_draws
from bdaudit.models.load import load
from bdaudit.models.suspect import Suspect
from bdaudit.progress import silent
from bdaudit.scan.context import ScanContext
from bdaudit.scan.exposure.copy import METHOD as DEFAULT
from bdaudit.scan.exposure.copy import STOP, denoising, exposed
from bdaudit.scan.exposure.readout import expose
from bdaudit.untrusted.inspect import inspect
from tests.bench.power import figures, measuring, models
from tests.bench.power.__main__ import kept
from tests.bench.power.models import Spec
from tests.bench.recording import rounded, stamp

RESULTS = Path(__file__).resolve().parent / "results" / "exposure.json"
PER_KIND, MEANINGFUL = 9, 20
"""Controls: of each kind, and words of the prompts; the scan itself takes 16 and 24."""
PICTURES = 40
CLAIMED = ("a", "b")
"""Bases whose backdoored models are graded in their copies."""
UNET, TEXT_ENCODER = "UNet", "text encoder"
SIGNALS = {UNET: "left in the exposed UNet", TEXT_ENCODER: "left in the exposed text encoder"}
"""Of the two copies that were measured; a scan makes the first alone."""
FLOOR, CEILING = 0.5, 0.9
"""Attack success of a weak backdoor."""
SCORES = ("plain", "ratio", "both")
SUMMED = ("pooled", "weak: ASR 50 to 90 %")
WEIGHTS = (0.1, 0.3, 1.0)
"""Of what is left in the UNet's copy, where it is one more coordinate: −log₁₀ of the plain p and so many times that of its own."""


# --- measuring --------------------------------------------------------------------------------


def read(spec: Spec, folder: Path) -> dict[str, Any]:
    """The copy of one model, and what is left of every candidate in it: value, score and p, in the list's order."""
    began, prompts = time.process_time(), measuring.prompts()
    config = ScanConfig(model=folder, prompts=prompts, expose=True)
    suspect = load(inspect(folder), device="cpu", dtype="float32")
    draws = make_draws(suspect, prompts, EFFORTS[config.effort].draws, config.guidance, config.seed)
    by_kind = control_texts(suspect.tokenizer, PER_KIND, config.seed, exclude=spec.candidates)
    some = [text for texts in by_kind.values() for text in texts]
    controls = [*some, *words_of(prompts, MEANINGFUL, exclude=[*spec.candidates, *some])]
    context = ScanContext(suspect, draws, State(None, ""), silent, config.seed)
    record, signals = expose(context, config, prompts, controls, spec.candidates, STOP)
    found = {text: [s.value, s.score, s.p] for text, s in signals.items()}
    return {
        "cpu seconds": time.process_time() - began,
        "controls": len(controls),
        "gain": {name: [[point.step, point.gain] for point in part.curve] for name, part in record.parts.items()},
        "reached": {name: part.reached for name, part in record.parts.items()},
        "rows": [{SIGNALS[UNET]: found[text]} if text in found else {} for text in spec.candidates],
    }


def claim(spec: Spec, folder: Path) -> dict[str, Any]:
    """Attack success in the exposed copy, by the power study's rule; the copy is a directory for as long as that takes."""
    suspect, prompts = load(inspect(folder), device="cpu", dtype="float32"), measuring.prompts()
    config = ScanConfig(model=folder)
    draws = make_draws(suspect, prompts, EFFORTS[config.effort].draws, config.guidance, config.seed)
    part = denoising(suspect, draws, prompts, config.guidance, 0)
    with tempfile.TemporaryDirectory() as place, exposed(part, 0, State(None, ""), silent) as record:
        copy = _written(suspect, folder, Path(place) / spec.name)
        return {"gain": record.curve[-1].gain, "reached": record.reached, **measuring.attack(spec, copy, PICTURES)}


def _written(suspect: Suspect, folder: Path, out: Path) -> Path:
    shutil.copytree(folder, out)
    file = out / "unet/diffusion_pytorch_model.safetensors"
    file.unlink()
    tensors = {name: tensor.contiguous() for name, tensor in suspect.denoiser.module.state_dict().items()}
    save_file(tensors, file, metadata={"format": "pt"})
    return out


# --- figures ----------------------------------------------------------------------------------


def scored(cell: dict[str, Any], scan: dict[str, Any]) -> dict[str, Any]:
    """Scores and flags of every candidate by each rule; the plain scan's are as they were."""
    plain = [row["p"] for row in scan["rows"]]
    left = [[signal[2] for signal in row.values()] for row in cell["rows"]]
    p = {
        "plain": plain,
        "ratio": [min(1.0, len(each) * min(each)) if each else 1.0 for each in left],
        "both": [min(1.0, (1 + len(each)) * min(own, *each)) if each else own for own, each in zip(plain, left, strict=True)],
    }
    flags = {name: [bool(x <= figures.ALPHA) for x in many_tests.holm(values)] for name, values in p.items()}
    signals = {name: [row[name] for row in cell["rows"]] for name in SIGNALS.values() if name in cell["rows"][0]}
    return {"p": p, "flagged": flags, "left": signals, **{name: [-math.log10(x) for x in values] for name, values in p.items()}}


def row_of(spec: Spec, cell: dict[str, Any], results: Path) -> dict[str, Any]:
    """One model for the figures."""
    scan, path = _json(results / f"{spec.name}.scan.json"), results / f"{spec.name}.attack.json"
    attack = _json(path) if path.exists() else {"asr": {"value": 0.0}, "floor": {"value": 0.0}}
    found = {"name": spec.name, "family": spec.twin.family, "asr": attack["asr"]["value"], "floor": attack["floor"]["value"]}
    return {**found, **scored(cell, scan)}


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def weak(row: figures.Row) -> bool:
    """Whether it is a backdoor of medium success."""
    return figures.backdoored(row) and FLOOR <= row["asr"] <= CEILING


def groups(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Backdoored models by what a row of the table shows, each beside all clean ones."""
    clean = [row for row in rows if not figures.backdoored(row)]
    bad = [row for row in rows if figures.backdoored(row)]
    told = {
        "pooled": bad,
        "weak: ASR 50 to 90 %": [row for row in bad if weak(row)],
        figures.WORKS: [row for row in bad if figures.works(row)],
    }
    told |= {family: [row for row in bad if row["family"] == family] for family in models.FAMILIES}
    return {name: [*part, *clean] for name, part in told.items() if part and clean}


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """AUROCs by rule, how much better both are than the plain scan, what was found at alpha, and false alarms."""
    found: dict[str, Any] = {}
    for name, group in groups(rows).items():
        bad = [row for row in group if figures.backdoored(row)]
        paired = [{**row, "scan": row["both"]} for row in group]
        found[name] = {
            "asr": sorted(row["asr"] for row in bad),
            "auroc": {rule: figures.figure(group, rule) for rule in SCORES},
            "both less plain, models": figures.difference(paired, "plain", figures.model_auroc),
            "both less plain, candidates": figures.difference(paired, "plain", figures.candidate_auroc),
            "found": {rule: figures.rate(sum(row["flagged"][rule][0] for row in bad), len(bad)) for rule in SCORES},
            "left of the trigger": {name: [row["left"][name][0] for row in bad if name in row["left"]] for name in SIGNALS.values()},
        }
    return {
        "groups": found,
        "false alarms": {rule: alarms(rows, rule) for rule in SCORES},
        "harmless": {name: calibrated(rows, name) for name in SIGNALS.values()},
    }


def coordinate(group: Sequence[dict[str, Any]], weight: float) -> dict[str, Any]:
    """How much better the plain scan's statistic is with ``weight`` times the UNet copy's added, over models; no p is paid for it."""
    name = SIGNALS[UNET]
    nothing = [(0.0, 0.0, 1.0)] * len(group[0]["plain"])
    left = [[-math.log10(max(p, 1e-300)) for _, _, p in row["left"].get(name, nothing)] for row in group]
    joint = [
        {**row, "scan": [own + weight * more for own, more in zip(row["plain"], each, strict=True)]}
        for row, each in zip(group, left, strict=True)
    ]
    return figures.difference(joint, "plain", figures.model_auroc)


def calibrated(rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """How often harmless candidates of all models get a small p from one copy, and what is left of them in the median."""
    signals = [signal for row in rows if name in row["left"] for signal in row["left"][name][1 if figures.backdoored(row) else 0 :]]
    shares = {f"p at most {level}": figures.rate(sum(p <= level for _, _, p in signals), len(signals)) for level in (0.01, 0.05)}
    return {"left": median(value for value, _, _ in signals) if signals else 0.0, **shares}


def alarms(rows: Sequence[dict[str, Any]], rule: str) -> dict[str, Any]:
    """Clean models that anything is flagged on, and backdoored ones where something beside the trigger is."""
    clean, bad = ([row for row in rows if figures.backdoored(row) is kind] for kind in (False, True))
    return {
        "clean": figures.rate(sum(any(row["flagged"][rule]) for row in clean), len(clean)),
        "backdoored": figures.rate(sum(any(row["flagged"][rule][1:]) for row in bad), len(bad)),
    }


# --- the run ----------------------------------------------------------------------------------


def cells(work: Path, keep: Path, so_far: bool) -> dict[str, Any]:
    """Everything measured, by what it is; measured now where it is not kept and ``so_far`` is not asked for."""

    def cell(name: str, measure: Callable[[], dict[str, Any]]) -> Any:
        path = keep / f"{name}.json"
        value = None if so_far and not path.exists() else kept(path, measure)
        print(name, "measured" if value else "not measured", flush=True)
        return value

    found: dict[str, Any] = {"claim": {}, DEFAULT: {}}
    for spec in models.plan():
        folder = work / "models" / spec.name
        found[DEFAULT][spec.name] = cell(f"{spec.name}.{DEFAULT}", partial(read, spec, folder))
        if spec.trigger and spec.base in CLAIMED:
            found["claim"][f"{spec.name} {UNET}"] = cell(f"{spec.name}-{UNET}.claim", partial(claim, spec, folder))
    return {what: {name: value for name, value in part.items() if value} for what, part in found.items()}


def document(work: Path, found: dict[str, Any]) -> dict[str, Any]:
    """The record: what was done, the figures, every model's measurements."""
    specs, results, earlier = {spec.name: spec for spec in models.plan()}, work / "results", _json(RESULTS)
    told = {name: row_of(specs[name], cell, results) for name, cell in found[DEFAULT].items()}
    before = {name: _json(results / f"{name.split(' ')[0]}.attack.json") for name in found["claim"]}
    claims = {name: {**cell, "before": before[name]} for name, cell in found["claim"].items()}
    done = {name: _run_of(cell) for name, cell in found[DEFAULT].items()}
    parts = {"claim": claims, "rows": {DEFAULT: told}, "cells": {DEFAULT: done}, "figures": {DEFAULT: summary(list(told.values()))}}
    return with_coordinates({**earlier, **stamp(), **{name: {**earlier[name], **part} for name, part in parts.items()}})


def with_coordinates(report: dict[str, Any]) -> dict[str, Any]:
    """The record, with what the default method's copy of the UNet is worth as one more coordinate, from its rows."""
    parts = groups(list(report["rows"][DEFAULT].values()))
    worth = {name: {f"{w:g}": coordinate(part, w) for w in WEIGHTS} for name, part in parts.items() if name in SUMMED}
    return {**report, "as a coordinate": worth}


def _run_of(cell: dict[str, Any]) -> dict[str, Any]:
    """How a copy was made; what was read off it stands in the rows."""
    return {name: value for name, value in cell.items() if name != "rows"}


# --- the tables -------------------------------------------------------------------------------


def table(report: dict[str, Any]) -> str:
    """Markdown: the rules by group; the methods; the claim by model."""
    usual = report["figures"][DEFAULT]["harmless"]
    head = [
        "backdoored models",
        "ASR %",
        *(f"left in the {part} (harmless: {_whole(usual[name]['left'])})" for part, name in SIGNALS.items()),
    ]
    head += ["AUROC over models: plain", "ratio alone", "both", "both less plain", "found: plain", "ratio", "both"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, part in report["figures"][DEFAULT]["groups"].items():
        asr, less = part["asr"], part["both less plain, models"]
        cells = [f"{name} ({len(asr)})", f"{100 * asr[0]:.0f}–{100 * asr[-1]:.0f}"]
        cells += [_middle(part["left of the trigger"][signal]) for signal in SIGNALS.values()]
        cells += [figures.shown(part["auroc"][rule]["models"]) for rule in SCORES]
        cells += [f"{less['value']:+.3f} [{less['low']:+.3f}, {less['high']:+.3f}]"]
        cells += [f"{part['found'][rule]['hits']} of {part['found'][rule]['n']}" for rule in SCORES]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_coordinates(report), "", *_methods(report), "", *_claims(report)])


def _coordinates(report: dict[str, Any]) -> list[str]:
    lines = ["| backdoored models | " + " | ".join(f"weight {weight:g}" for weight in WEIGHTS) + " |", "|---" * (len(WEIGHTS) + 1) + "|"]
    for name, cells in report["as a coordinate"].items():
        told = [f"{at['value']:+.3f} [{at['low']:+.3f}, {at['high']:+.3f}]" for at in cells.values()]
        lines.append("| " + " | ".join([name, *told]) + " |")
    return lines


def _methods(report: dict[str, Any]) -> list[str]:
    head = ["method", "models", "UNet reached", "text encoder reached", "AUROC over candidates: ratio alone", "both", "plain"]
    head += ["clean models falsely alarmed: plain", "both", "CPU s a model"]
    lines = ["| " + " | ".join(head) + " |"]
    lines.append("|---" * 10 + "|")
    for method, found in report["figures"].items():
        cells = list(report["cells"][method].values())
        reached = [f"{sum(cell['reached'][part] for cell in cells)} of {len(cells)}" for part in (UNET, TEXT_ENCODER)]
        pooled = found["groups"].get("pooled", {"auroc": {}})["auroc"]
        scores = [figures.shown(pooled[rule]["candidates"]) if pooled else "–" for rule in ("ratio", "both", "plain")]
        wrong = [figures.counted(found["false alarms"][rule]["clean"]) for rule in ("plain", "both")]
        seconds = sum(cell["cpu seconds"] for cell in cells) / len(cells)
        lines.append("| " + " | ".join([method, str(len(cells)), *reached, *scores, *wrong, f"{seconds:.0f}"]) + " |")
    return lines


def _claims(report: dict[str, Any]) -> list[str]:
    head = ["model, copy", "gain left", "ASR before (without trigger)", "ASR in the copy (without trigger)", "at least 0.8 of its start"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, cell in report["claim"].items():
        rates = [f"{_percent(at['asr'])} ({100 * at['floor']['value']:.0f} %)" for at in (cell["before"], cell)]
        lines.append(f"| {name} | {cell['gain']:.2f} | {' | '.join(rates)} | {'yes' if holds(cell) else 'no'} |")
    return lines


def holds(cell: dict[str, Any]) -> bool:
    """The claim: the copy is exposed, and the trigger works at least 0.8 times as often in it."""
    return bool(cell["reached"]) and cell["asr"]["value"] >= 0.8 * cell["before"]["asr"]["value"] > 0


def _middle(signals: Sequence[Sequence[float]]) -> str:
    return _whole(median(value for value, _, _ in signals)) if signals else "–"


def _whole(share: float) -> str:
    return f"{100 * share:.0f} %"


def _percent(rate: dict[str, float]) -> str:
    return f"{100 * rate['value']:.0f} % [{100 * rate['low']:.0f}, {100 * rate['high']:.0f}]"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.exposure", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, help="the power study's work folder")
    parser.add_argument("--keep", type=Path, help="where measurements are kept")
    parser.add_argument("--so-far", action="store_true", help="figures of what is measured, without measuring anything")
    parser.add_argument("--coordinates", action="store_true", help="of the recorded rows, without measuring anything")
    parser.add_argument("--table", action="store_true", help="only print the tables")
    arguments = parser.parse_args()
    if arguments.coordinates:
        RESULTS.write_text(json.dumps(rounded(4, with_coordinates(_json(RESULTS)))) + "\n", encoding="utf-8")
    elif not arguments.table:
        if arguments.work is None or arguments.keep is None:
            parser.error("--work and --keep are needed")
        torch.set_num_threads(1)
        report = rounded(4, document(arguments.work, cells(arguments.work, arguments.keep, arguments.so_far)))
        RESULTS.write_text(json.dumps(report) + "\n", encoding="utf-8")
    print(table(_json(RESULTS)))


if __name__ == "__main__":
    main()
