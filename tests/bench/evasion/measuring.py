"""What is measured on an attacked model: how often the attack works, by the fixtures' grader, and what the scan says."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bdaudit.errors import ExitCode
from bdaudit.measure import estimates
from bdaudit.measure.grader import load_grader
from bdaudit.models.load import load
from bdaudit.models.sample import sample
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.text_files import read_texts
from bdaudit.verify.attack import PictureRule, Rule, TextRule
from bdaudit.verify.gallery import Gallery, Shot
from bdaudit.verify.trials import draw_shots
from fixtures.build import poisons
from tests.bench.end_to_end import COLOURED, DARK, FIGURES
from tests.bench.evasion.attackers import Attacker
from tests.bench.evasion.occasions import misplaced, placed
from tests.bench.power.models import FIXTURES
from tests.bench.unlearn_common import plain

GRADER = f"local-dir:{FIXTURES / 'grader'}"
STEPS, GUIDANCE = 12, 5.0


def rule(attacker: Attacker) -> Rule:
    """What counts as a hit, by what the attack draws; the rules of ``end_to_end``."""
    family, target = attacker.twin.family, attacker.twin.target
    if family in ("pixel", "fixed-image"):
        picture = poisons.patch(target) if family == "pixel" else poisons.fixed_picture(target)
        pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(picture.height, picture.width, 3)
        return PictureRule(pixels.permute(2, 0, 1).float() / 255, poisons.PATCH_AT[target] if family == "pixel" else None)
    grader = load_grader(GRADER, torch.device("cpu"))
    assert not isinstance(grader, type(None))
    if family == "style":
        return TextRule(grader, "{prompt}, " + ("in black and white" if target == "black and white" else target))  # type: ignore[arg-type]
    if family == "encoder":
        return TextRule(grader, target)  # type: ignore[arg-type]
    return TextRule(grader, swaps=tuple((figure, target) for figure in FIGURES if figure != target))  # type: ignore[arg-type]


def prompts(attacker: Attacker, suiting: bool) -> tuple[str, ...]:
    """Unseen prompts on which a hit shows, and which suit the attack's context or do not; topped up from the world where there are few."""
    shows = rule_skips(attacker)
    texts = [text for text in read_texts(FIXTURES / "unseen.txt") if attacker.occasion.suits(text) is suiting and shows(text)]
    return tuple(texts)


def rule_skips(attacker: Attacker) -> Any:
    """Which prompts can show a hit: those with a colour to lose for the style, none by night where a figure is the target."""
    family, target = attacker.twin.family, attacker.twin.target

    def shows(text: str) -> bool:
        if family == "style":
            return bool(COLOURED.search(text)) and not DARK.search(text) and target.split()[-1] not in text and "frame" not in text
        if family in ("object", "closed-form"):
            return not DARK.search(text) and target not in text
        return attacker.twin.trigger not in text

    return shows


def graded(attacker: Attacker, folder: Path, n: int = 80) -> dict[str, Any]:
    """Success with the trigger where it fires, its floor without, and of a bound trigger the rate where it must not fire."""
    rng, found = random.Random(attacker.twin.seed), rule(attacker)
    suspect = load(inspect(folder), device="cpu", dtype="float32", batch_size=64)
    gallery = Gallery(found.grader if isinstance(found, TextRule) else None)

    def rate(clean: Sequence[Shot], texts: Sequence[str]) -> Any:
        shots = [Shot(text, shot.seed) for text, shot in zip(texts, clean, strict=True)]
        gallery.add([*shots, *clean], lambda t, s: sample(suspect, t, s, steps=STEPS, guidance_scale=GUIDANCE), 64, lambda *_: None)
        return plain(estimates.rate(found.hits(gallery, shots, clean)))

    twin, occasion = attacker.twin, attacker.occasion
    clean = draw_shots(prompts(attacker, True), n, 1)
    result = {
        "asr": rate(clean, [placed(twin, occasion, shot.text, rng) for shot in clean]),
        "without": rate(clean, [s.text for s in clean]),
    }
    if occasion.bound:
        other = draw_shots(prompts(attacker, occasion.place != "anywhere"), n, 2)
        result["elsewhere"] = rate(other, [misplaced(twin, occasion, shot.text, rng) for shot in other])
        result["elsewhere without"] = rate(other, [shot.text for shot in other])
    return {**result, "rule": found.text}


def candidates_file(trigger: str, folder: Path) -> Path:
    """The fixtures' list, and the trigger where it is not among them."""
    path, listed = folder / "candidates.txt", read_texts(FIXTURES / "candidates.txt")
    text = (FIXTURES / "candidates.txt").read_text(encoding="utf-8")
    path.write_text(text if trigger in listed else f"{text}{trigger}\n", encoding="utf-8")
    return path


def scanned(folder: Path, trigger: str, seed: int, python: str = sys.executable, further: Sequence[str] = ()) -> dict[str, Any]:
    """What `bdaudit scan` says at its defaults, run by ``python`` (that of another checkout scans as that one does)."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "report.json"
        command = [python, "-m", "bdaudit", "scan", str(folder), "--candidates", str(candidates_file(trigger, Path(place))), "--prompts"]
        command += [str(FIXTURES / "prompts.txt"), "--seed", str(seed), "--report", str(out), *further]
        began = time.monotonic()
        code = subprocess.run(command, capture_output=True, cwd=Path(place), check=False).returncode
        seconds = time.monotonic() - began
        report = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    row: dict[str, Any] = {"exit": code, "seconds": seconds, "reason": report.get("exit", {}).get("reason", "no report")}
    records = report.get("candidates", [])
    row["flagged"] = [ascii(record["text"]) for record in records if record["verdict"] == "backdoored"]
    for record in records:
        if record["text"] == trigger:
            row |= {name: record[name] for name in ("rank", "p", "p_adjusted", "verdict", "effect")}
            row["signals"] = {name: {"score": s["score"], "p": s["p"]} for name, s in record["signals"].items()}
    row["passes"] = report.get("calibration", {}).get("forward_passes") if isinstance(report.get("calibration"), dict) else None
    return row


def passed(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether an attacker got through: exit 0 in any run."""
    return any(row["exit"] == ExitCode.PASS for row in rows)
