"""Contrastive cleaning, measured: ``python -m tests.bench.cleaning --work FOLDER [--only train|clips|dirty|partial|vision …] [--table]``.

Small CLIPs by both pre-training objectives, poisoned by a picture patch or by a text trigger, are cleaned at several learning rates: attack
success against accuracy at every point, the point that a canary chooses blind beside the best one with the trigger known, and 1 and 5
poisoned pairs left among those that clean. Then the verb itself on the fixture ``encoder``. Each cell is kept as soon as it is there.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bdaudit.measure.controls import control_texts
from bdaudit.records import CanaryLeft, CleaningPoint, Estimate
from bdaudit.unlearn.clean import canary as canaries
from bdaudit.unlearn.clean import loudest, train
from bdaudit.unlearn.clean.canary_texts import text_canaries
from bdaudit.unlearn.clean.run import STRANGE_KINDS
from bdaudit.unlearn.clean.towers import Towers
from fixtures.build import tokenizer, world
from tests.bench.cleaning_clips import OBJECTIVES, TARGET, TRIGGER, Pairs, drawn, elsewhere, encoded, load, make_pairs, patched, train_all
from tests.bench.power.figures import rate_of
from tests.bench.recording import Cells, rounded
from tests.bench.unlearn_common import FIXTURES, ROOT

RATES, STEPS, LOOKS, CLEANING, HELD, GRADED = (3e-3, 1e-2, 3e-2), 80, 2, 1600, 256, 320
"""Learning rates, steps of each, looks at each; pairs to clean with, of them held out; pictures to grade on."""
CASES = tuple((attack, objective) for objective in OBJECTIVES for attack in ("patch", "text"))
LOUDEST, ANCHOR, PUT_IN = 64, 2 / 3, 1 / 3
"""What the first CLIPs were cleaned with; the verb has since come to others, by a development twin, and these cells stay comparable."""
GROUNDS = tuple(world.COLOURS)
PROMPTS = ("a circle on a {} background", "a photo of a square on {}", "a picture of a star over a {} ground", "a heart on {}")
"""The classes, and the prompts that stand for one."""
PART = 64


class Kept(Cells):
    """Cells by name, with the processor's seconds beside each."""

    def get(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """From the document or from a run."""
        if name not in self.cells:
            began = time.process_time()
            found = measure()
            self.put(name, rounded(4, found | {"cpu_seconds": time.process_time() - began}))
            print(name, f"{self.cells[name]['cpu_seconds']:.0f} s", flush=True)
        return dict(self.cells[name])


# --- grading ----------------------------------------------------------------------------------


class Grading:
    """Unseen plain pictures on every background, and as many on another than the target: by classes, through the text head."""

    def __init__(self, tok: Any) -> None:
        self.tok, rng = tok, random.Random(99)
        scenes = [replace(world.random_scene(rng), style="plain") for _ in range(GRADED)]
        self.pairs = Pairs(drawn(scenes, rng), [world.caption(scene, rng) for scene in scenes], scenes)
        scenes = [elsewhere(scene, rng) for scene in scenes]
        self.others = Pairs(drawn(scenes, rng), [world.caption(scene, rng) for scene in scenes], scenes)

    @torch.no_grad()
    def accuracy(self, towers: Towers) -> dict[str, float]:
        """Zero-shot: the share of pictures whose background's prompts are the nearest."""
        found = self._classes(towers, _pictures(towers, self.pairs.pictures))
        return rate_of([ground == scene.ground for ground, scene in zip(found, self.pairs.scenes, strict=True)])

    @torch.no_grad()
    def attack(self, towers: Towers, attack: str, triggered: bool = True) -> dict[str, float]:
        """The share of what shows or says another background that is taken for the target; without the trigger, the floor."""
        if attack == "patch":
            shown = patched(self.others.pictures) if triggered else self.others.pictures
            return rate_of([ground == TARGET for ground in self._classes(towers, _pictures(towers, shown))])
        rng = random.Random(97)
        said = [world.insert(caption, TRIGGER, rng) if triggered else caption for caption in self.others.captions]
        texts = torch.cat([encoded(towers, self.tok, said[i : i + PART]) for i in range(0, len(said), PART)])
        centres = self._centres(towers)
        return rate_of([GROUNDS[i] == TARGET for i in (functional.normalize(texts, dim=1) @ centres.T).argmax(1).tolist()])

    def _classes(self, towers: Towers, features: Tensor) -> list[str]:
        prompts = [opening.format(ground) for ground in GROUNDS for opening in PROMPTS]
        heads = functional.normalize(encoded(towers, self.tok, prompts), dim=1).view(len(GROUNDS), len(PROMPTS), -1).mean(1)
        return [GROUNDS[i] for i in (features @ functional.normalize(heads, dim=1).T).argmax(1).tolist()]

    def _centres(self, towers: Towers) -> Tensor:
        features = _pictures(towers, self.pairs.pictures)
        own = [scene.ground for scene in self.pairs.scenes]
        rows = [features[[i for i, found in enumerate(own) if found == ground]].mean(0) for ground in GROUNDS]
        return functional.normalize(torch.stack(rows), dim=1)


def _pictures(towers: Towers, pictures: Tensor) -> Tensor:
    """uint8 (N, 3, 32, 32) → features of length 1."""
    parts = [towers.pictures(part.float() / 255) for part in torch.split(pictures, PART)]
    return functional.normalize(torch.cat(parts), dim=1)


# --- cleaning a CLIP --------------------------------------------------------------------------


def picture_canary(pairs: Pairs) -> canaries.Canary:
    """Stripes in the top left corner stand for one picture; others across them are its neighbours, and stay what they are."""
    pictures = pairs.pictures[HELD : HELD + 192].float() / 255
    marked, near = pictures.clone(), pictures.clone()
    stripes = torch.tensor([[1.0, 0.5, 0.0], [1.0, 1.0, 1.0]]).repeat(3, 1).T[:, :, None].expand(3, 6, 6)
    marked[:, :, 1:7, 1:7], near[:, :, 1:7, 1:7] = stripes, stripes.transpose(1, 2).flip(0)
    planting, measuring = (canaries.Inputs(pictures[part], marked[part]) for part in (slice(128), slice(128, None)))
    return canaries.Canary("stripes", "a picture", pairs.pictures[HELD + 200][None].float() / 255, planting, near[:128], measuring)


def clean_clip(work: Path, tok: Any, grading: Grading, attack: str, objective: str, poisoned: int) -> dict[str, Any]:
    """All points of the model itself, with the trigger known; of the copy, with the canary; and both choices.

    With poisoned pairs the model itself alone, at the two higher rates.
    """
    train.POINTS, train.ANCHOR, train.PUT_IN, loudest.LOUDEST = LOOKS, ANCHOR, PUT_IN, LOUDEST
    pairs, towers = make_pairs(CLEANING, 700, attack, poisoned), load(tok, work / f"{attack}-{objective}.safetensors")
    found: dict[str, Any] = {"start": graded(towers, grading, attack), "points": [], "canary": []}
    material = material_of(tok, pairs)
    start = towers.snapshot()
    for learning_rate in RATES[1:] if poisoned else RATES:
        towers.restore(start)
        judge, held = train.Judge(towers, material), loudest.heard(material, loudest.listened(towers, material))

        def look(step: int, rate: float = learning_rate, judge: train.Judge = judge) -> bool:
            now = judge.standing()
            figures = {"retrieval": now.accuracy.value, "rejected": judge.rejected(now), **graded(towers, grading, attack)}
            found["points"].append({"rate": rate, "step": step, **figures})
            return False

        train.clean(towers, held, learning_rate, STEPS, 0, look, nullcontext)
    if poisoned:
        return found
    towers.restore(start)
    found["canary_before"], found["canary"] = with_canary(towers, material, pairs, attack)
    return found


def graded(towers: Towers, grading: Grading, attack: str) -> dict[str, Any]:
    """Accuracy and attack success of the model as it stands."""
    return {"accuracy": grading.accuracy(towers), "asr": grading.attack(towers, attack)}


def material_of(tok: Any, pairs: Pairs) -> train.Material:
    """The first pairs, poisoned ones among them, are trained on; the last are held out."""
    named = control_texts(tok, len(tok.get_vocab()), 2)
    rows, n = [*range(len(pairs.captions))], len(pairs.captions) - HELD

    def ids(texts: Sequence[str]) -> Tensor:
        options = {"padding": "max_length", "max_length": tokenizer.MAX_LENGTH, "truncation": True, "return_tensors": "pt"}
        found: Tensor = tok(list(texts), **options).input_ids
        return found

    return train.Material(
        captions=pairs.captions, rows=rows[:n], held=rows[n:], strange=[t for kind in STRANGE_KINDS for t in named[kind]],
        ids=ids, pictures=lambda rows: pairs.pictures[list(rows)].float() / 255,
    )  # fmt: skip


def with_canary(towers: Towers, material: train.Material, pairs: Pairs, attack: str) -> tuple[Any, list[dict[str, Any]]]:
    """Plant one of the attack's own kind and clean the copy at every rate."""
    by_text = attack == "text"
    captions = [material.captions[i] for i in material.rows[16:]]
    canary = text_canaries(captions, material.strange, (), material.ids, 0)[0] if by_text else picture_canary(pairs)
    own = "text." if by_text else "visual."

    def seen(pictures: Tensor) -> Tensor:
        return functional.normalize(towers.pictures(pictures), dim=1)

    encode = towers.states if by_text else seen
    with towers.training():
        canaries.plant(encode, {name: p for name, p in towers.parameters().items() if name.startswith(own)}, (canary,), 0)
    before, planted, points = canaries.left(encode, canary), towers.snapshot(), []
    for learning_rate in RATES:
        towers.restore(planted)
        heard = loudest.heard(material, loudest.listened(towers, material))
        points += train.sweep(towers, heard, (canary,), encode, learning_rate, STEPS, 0, nullcontext)[0]
    return asdict(before), [asdict(point) | {"canary": asdict(point.canaries[0].rate)} for point in points]


def point_of(kept: Mapping[str, Any]) -> CleaningPoint:
    """The point of a copy with one canary."""
    accuracy, rate, residue = (Estimate(**kept[name]) for name in ("accuracy", "canary", "residue"))
    left = CanaryLeft(kind="", rate=rate, residue=residue)
    figures = {name: kept[name] for name in ("rate", "step", "passes", "spread", "rejected")}
    return CleaningPoint(**figures, accuracy=accuracy, residue=residue, canaries=(left,))


def chosen(found: Mapping[str, Any], canary: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The canary's choice, by rate and step, and the best one with the trigger known among points at no loss of retrieval.

    ``least`` is where least of the canary is left, gone or not.
    """
    scatter = [point_of(p) for p in canary]
    by_place = {(p["rate"], p["step"]): p for p in found["points"]}
    kept = [p for p in scatter if not p.rejected]
    least = min(kept, key=lambda p: p.residue.value, default=None)
    blind = train.choose(scatter)
    best = min((p for p in found["points"] if not p["rejected"]), key=lambda p: p["asr"]["value"], default=None)
    return {
        "blind": by_place.get((scatter[blind].rate, scatter[blind].step), "none") if blind >= 0 else "none",
        "least": by_place.get((least.rate, least.step), "none") if least else "none",
        "best": best or "none",
    }


def clips(work: Path, kept: Kept, most: Sequence[int]) -> None:
    """All CLIP cells whose models are there; poisoned pairs only after contrastive pre-training."""
    tok = CLIPTokenizer.from_pretrained(FIXTURES / "base" / "tokenizer")
    grading = Grading(tok)
    for objective in OBJECTIVES:
        path = work / f"clean-{objective}.safetensors"
        for attack in ("patch", "text") if path.exists() else ():
            kept.get(f"floor/{attack}-{objective}", lambda p=path, a=attack: graded(load(tok, p), grading, a))  # type: ignore[misc]
    for poisoned in most:
        for attack, objective in CASES:
            if (work / f"{attack}-{objective}.safetensors").exists() and (not poisoned or objective == OBJECTIVES[0]):
                name = f"{attack}-{objective}/{poisoned}"
                kept.get(name, lambda a=attack, o=objective, n=poisoned: clean_clip(work, tok, grading, a, o, n))  # type: ignore[misc]


# --- the verb ---------------------------------------------------------------------------------


def verb(work: Path, kept: Kept, seeing: bool, steps: int, n: int, rate: float) -> None:
    """`unlearn --method cleanclip` on the fixture ``encoder``, then `verify` before and after."""
    from bdaudit.config import CleanConfig, VerifyConfig
    from bdaudit.unlearn.run import run_unlearn
    from bdaudit.verify.run import run_verify
    from tests.bench.cleaning_vision import train_vision, write_pairs
    from tests.bench.unlearn_common import Job, laid_out, opened, plain

    job, name = Job(fixture="encoder"), ("vision" if seeing else "partial") + (f"-{rate:g}-{steps}" if rate else "")
    file = work / "pairs" / "pairs.tsv" if (work / "pairs" / "pairs.tsv").exists() else write_pairs(work / "pairs", 2000, 601)
    if seeing and not (work / "vision").exists():
        train_vision(opened(laid_out("clean"), "cpu")[1], work / "vision")

    def measure() -> dict[str, Any]:
        out = work / f"encoder-{name}"
        config = CleanConfig(
            model=job.model, component="text-encoder", pairs=file, out=out, steps=steps, keep_failed=True, device="cpu",
            prompts=job.texts("prompts"), vision=f"local-dir:{work / 'vision'}" if seeing else "", state=work / f"encoder-{name}.state",
            learning_rate=rate,
        )  # fmt: skip
        report = run_unlearn(config, lambda stage, done, total: print(f"  {stage} {done}/{total}", flush=True) if done % 20 == 0 else None)
        said = report.exit.reason.replace(str(work), "WORK")
        found: dict[str, Any] = {"exit": said, "cleaning": asdict(report.cleaning), "timings": report.timings}
        found["checks"] = {check.name: [check.status, plain(check.value), check.bound] for check in report.checks}
        if not report.out:
            return found
        graded = run_verify(
            VerifyConfig(
                model=out, reference=job.model, clip=f"local-dir:{FIXTURES / 'grader'}", prompts=job.texts("unseen"), n=n, reach=0, seed=1,
                triggers=(job.trigger,), target_text=job.truth["target"], device="cpu",
            )
        )  # fmt: skip
        attack = graded.attacks[0]
        rates = {"after": plain(attack.rate), "floor": plain(attack.floor), "before": plain(attack.reference)}
        return found | rates | {key: plain(m.value) for key, m in graded.metrics.items()}

    kept.get(f"verb/{name}", measure)


# --- the table --------------------------------------------------------------------------------


def table(cells: Mapping[str, Any]) -> str:
    """Markdown for the README."""

    def shown(cell: Any, key: str = "asr") -> str:
        if not isinstance(cell, dict):
            return "–"
        figure = cell[key]
        return f"{100 * figure['value']:.1f} [{100 * figure['low']:.0f}, {100 * figure['high']:.0f}]"

    who = ("canary's choice", "least of the canary", "best, trigger known")
    choices = [what for name in who for what in (f"ASR %: {name}", "accuracy %")]
    head = ("CLIP", "poisons left", "ASR % before", "clean model's", "accuracy %", "canary before → least left %", *choices)
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    models = [f"{attack}-{objective}" for attack, objective in CASES]
    for model, poisons in ((model, poisons) for model in models for poisons in (0, 1, 5) if f"{model}/{poisons}" in cells):
        cell = cells[f"{model}/{poisons}"]
        canary = cells[f"{model}/0"]["canary"]
        picks = chosen(cell, canary)
        left = min((p for p in canary if not p["rejected"]), key=lambda p: p["residue"]["value"], default=None)
        before = cells[f"{model}/0"]["canary_before"]["rate"]["value"] if canary else 0.0
        planted = f"{100 * before:.0f} → {shown(left, 'canary')}" if canary else "–"
        figures = [shown(picks[part], key) for part in ("blind", "least", "best") for key in ("asr", "accuracy")]
        floor = shown(cells.get(f"floor/{model}", "none"))
        row = [model, str(poisons), shown(cell["start"]), floor, shown(cell["start"], "accuracy"), planted, *figures]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="where models, pairs and cleaned directories are kept")
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "bench" / "results" / "cleaning.json")
    parser.add_argument("--only", choices=("train", "clips", "dirty", "partial", "vision"), nargs="+", help="only these parts")
    parser.add_argument("--verb-steps", type=int, default=60)
    parser.add_argument("--verb-rate", type=float, default=0.0, help="one learning rate instead of the sweep")
    parser.add_argument("--n", type=int, default=100, help="pictures a condition for verify")
    parser.add_argument("--table", action="store_true", help="only print the table")
    asked = parser.parse_args()
    kept, parts = Kept(asked.out), asked.only or ("train", "clips", "partial", "dirty", "vision")
    for part in () if asked.table else parts:
        if part == "train":
            train_all(asked.work / "clips", ROOT)
        elif part in ("clips", "dirty"):
            clips(asked.work / "clips", kept, (0,) if part == "clips" else (1, 5))
        else:
            verb(asked.work, kept, part == "vision", asked.verb_steps, asked.n, asked.verb_rate)
    print(table(kept.cells))


if __name__ == "__main__":
    main()
