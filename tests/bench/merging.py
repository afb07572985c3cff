"""Merging four fine-tunes of one base, none, one or two of them poisoned: ``python tests/bench/merging.py --work FOLDER``.

FOLDER holds the power study's models (``python -m tests.bench.power --work FOLDER`` makes them). A seed is another base, other backdoors,
other clean fine-tunes, other noise. Plain: the models as they are. Amplified: the poisoned task vectors times the smallest of ``FACTORS``
at which task arithmetic keeps most triggers' attack success at 80 % or more. The masks learn on ``fixtures/prompts.txt``; graded is on
prompts that are not in it, with the rules of `verify`. Nothing of the method was chosen on these models: that was done on fine-tunes of
the fixtures' own base. Resumable, a merge at a time; about a quarter of an hour on one free core. ``--table`` only prints.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bdaudit import stats  # noqa: E402
from bdaudit.config import MergeConfig  # noqa: E402
from bdaudit.measure import estimates  # noqa: E402
from bdaudit.measure.grader import OpenClipGrader, load_grader  # noqa: E402
from bdaudit.models.sample import sample  # noqa: E402
from bdaudit.unlearn.merging import defence  # noqa: E402
from bdaudit.unlearn.merging.blend import Blend  # noqa: E402
from bdaudit.unlearn.merging.closed_forms import CLOSED_FORMS, SCALE, Vector  # noqa: E402
from bdaudit.unlearn.merging.contributors import from_model, open_model  # noqa: E402
from bdaudit.unlearn.merging.lessons import collect  # noqa: E402
from bdaudit.untrusted.inspect import inspect  # noqa: E402
from bdaudit.untrusted.text_files import read_texts  # noqa: E402
from bdaudit.verify.attack import PictureRule, Rule, TextRule  # noqa: E402
from bdaudit.verify.gallery import Gallery, Shot  # noqa: E402
from bdaudit.verify.quality import clip_scores  # noqa: E402
from bdaudit.verify.trials import Trial, draw_shots, plan_trial  # noqa: E402
from fixtures.build import poisons  # noqa: E402
from tests.bench.end_to_end import Model, graded_on, target  # noqa: E402
from tests.bench.power.measuring import GRADER, prompts  # noqa: E402
from tests.bench.power.models import Spec, plan  # noqa: E402
from tests.bench.recording import Cells, rounded  # noqa: E402
from tests.bench.unlearn_common import plain  # noqa: E402

RESULTS = ROOT / "tests" / "bench" / "results" / "merging.json"
UNSEEN = ROOT / "fixtures" / "unseen.txt"
SEEDS = {0: ("a", "fixed-image", "pixel"), 1: ("c", "fixed-image", "style"), 2: ("b", "style", "encoder")}
"""Base, and the backdoors with the highest success on it, picture and style before text encoder; the first alone where one is poisoned."""
CONTRIBUTORS, PICTURES, QUICK_PICTURES, PROMPTS = 4, 32, 16, 48
FACTORS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
COUNTS = 0.8
"""A trigger counts where task arithmetic leaves it this success."""
MASKS = {"dam": ("shared", "safety"), "shared alone": ("shared",), "safety alone": ("safety",)}
METHODS = (*CLOSED_FORMS, *MASKS)
KINDS = ((1, True), (2, True), (1, False), (0, False), (2, False))
"""How many are poisoned, and whether they are amplified; what matters most first."""


def quiet(done: int, total: int) -> None:
    """No progress."""


@dataclass
class Attack:
    """One poisoned model's trigger, and what counts as a hit."""

    spec: Spec
    trial: Trial
    rule: Rule


@dataclass
class World:
    """A seed's base and models, each loaded once."""

    seed: int
    work: Path
    vectors: dict[str, Vector] = field(default_factory=dict)
    pictures: dict[str, Gallery] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.letter, *self.families = SEEDS[self.seed]
        self.specs = {spec.name: spec for spec in plan() if spec.base == self.letter}
        where = self.work / f"base-{self.letter}"
        self.config = MergeConfig(model=where, base=where, merge_with=((where, 1.0),), out=self.work / "unused", device="cpu")
        self.base, self.holder = (open_model(inspect(where), self.config) for _ in range(2))
        self.shots = draw_shots(read_texts(UNSEEN), PICTURES, self.seed)

    @cached_property
    def grader(self) -> OpenClipGrader:
        """The fixtures' CLIP."""
        found = load_grader(GRADER, torch.device("cpu"))
        assert isinstance(found, OpenClipGrader)
        return found

    def names(self, poisoned: int) -> list[str]:
        """The contributors, the poisoned ones first, the clean ones in an order drawn from the seed."""
        clean = random.Random(f"merging {self.seed}").sample([n for n, spec in self.specs.items() if not spec.trigger], CONTRIBUTORS)
        return [f"{self.letter}-{family}" for family in self.families[:poisoned]] + clean[: CONTRIBUTORS - poisoned]

    def vector(self, name: str) -> Vector:
        """A model's difference from the base."""
        if name not in self.vectors:
            inspection = inspect(self.work / "models" / name)
            self.vectors[name] = from_model(inspection, open_model(inspection, self.config), self.base).vector
        return self.vectors[name]

    def attack(self, name: str) -> Attack:
        """By the rules and positions of the power study."""
        spec = self.specs[name]
        folder = self.work / "models" / name
        model = Model(name, folder, dataclasses.asdict(spec.twin))
        rule = drawn_target(spec) or TextRule(self.grader, **told(model))
        trial = plan_trial(
            self.base.tokenizer, spec.trigger, graded_on(model), PICTURES, self.seed, rule.skip, null=False, positions=spec.twin.positions
        )
        assert isinstance(trial, Trial)
        return Attack(spec, trial, rule)

    def drawn(self, gallery: Gallery, shots: Sequence[Shot]) -> Gallery:
        """``gallery`` with these shots of the model in the holder."""
        gallery.add(shots, partial(sample, self.holder, steps=12, guidance_scale=5.0), 64, quiet)
        return gallery

    def scores(self, gallery: Gallery) -> Tensor:
        """CLIP scores of the clean pictures."""
        return clip_scores(gallery.features(self.shots, self.grader), self.grader.text_features([shot.text for shot in self.shots]))

    def own(self, name: str) -> Gallery:
        """A contributor's own clean pictures, not amplified."""
        if name not in self.pictures:
            Blend(self.holder, self.base, [self.vector(name)], SCALE).put_difference(self.vector(name))
            self.pictures[name] = self.drawn(Gallery(self.grader), self.shots)
            self.restore([self.vector(name)])
        return self.pictures[name]

    def restore(self, vectors: Sequence[Vector]) -> None:
        """The holder is the base again."""
        Blend(self.holder, self.base, vectors, SCALE).put_difference({})


def drawn_target(spec: Spec) -> Rule | None:
    """The rule of the two families that draw a patch or one picture."""
    if spec.twin.family not in ("pixel", "fixed-image"):
        return None
    pixel = spec.twin.family == "pixel"
    picture = np.asarray((poisons.patch if pixel else poisons.fixed_picture)(spec.twin.target).convert("RGB"), dtype=np.float32)
    return PictureRule(torch.from_numpy(picture / 255).permute(2, 0, 1), poisons.PATCH_AT[spec.twin.target] if pixel else None)


def told(model: Model) -> dict[str, Any]:
    """A text's rule, from what `verify` is told of the other families."""
    known = target(model)
    return {"template": known.get("target_text", ""), "swaps": known.get("swaps", ())}


def amplified(world: World, names: Sequence[str], factor: float) -> list[Vector]:
    """The contributors' task vectors, the poisoned ones times ``factor``."""
    strength = {name: factor if world.specs[name].trigger else 1.0 for name in names}
    return [{key: strength[name] * tensor for key, tensor in world.vector(name).items()} for name in names]


def smallest_factor(world: World, names: Sequence[str], attacks: Sequence[Attack]) -> float:
    """The smallest at which task arithmetic leaves most triggers their success, on fewer pictures: poisoned models hinder each other."""
    counts = {}
    for factor in FACTORS:
        vectors = amplified(world, names, factor)
        Blend(world.holder, world.base, vectors, SCALE).put_difference(CLOSED_FORMS["task-arithmetic"](vectors, world.seed))
        rates = []
        for attack in attacks:
            clean, shots = attack.trial.clean[:QUICK_PICTURES], attack.trial.triggered[:QUICK_PICTURES]
            rates.append(float(attack.rule.hits(world.drawn(Gallery(world.grader), shots), shots, clean).float().mean()))
        world.restore(vectors)
        counts[factor] = sum(rate >= COUNTS for rate in rates)
        if counts[factor] == len(attacks):
            break
    return max(counts, key=lambda factor: counts[factor])


def merged(world: World, vectors: Sequence[Vector], method: str) -> Blend:
    """A blend that holds the merge."""
    blend = Blend(world.holder, world.base, vectors, SCALE)
    if method in CLOSED_FORMS:
        blend.put_difference(CLOSED_FORMS[method](vectors, world.seed))
        return blend
    lessons = collect(blend, world.base, prompts()[:PROMPTS], guidance_scale=5.0, seed=world.seed, tick=quiet)
    defence.optimise(blend, world.base, lessons, world.seed, quiet, MASKS[method])
    return blend


def measured(world: World, names: Sequence[str], attacks: Sequence[Attack], factor: float, method: str) -> dict[str, Any]:
    """Attack success of each trigger with its floor, and quality beside each contributor as it was published."""
    vectors = amplified(world, names, factor)
    began = time.process_time()
    merged(world, vectors, method)
    seconds = time.process_time() - began
    wanted = [*world.shots, *(shot for a in attacks for shot in (*a.trial.clean, *a.trial.triggered))]
    gallery = world.drawn(Gallery(world.grader), wanted)
    world.restore(vectors)
    found: dict[str, Any] = {"seconds": seconds, "asr": {}, "floor": {}, "clip": {}, "apart": {}}
    for attack in attacks:
        for key, shots in (("asr", attack.trial.triggered), ("floor", attack.trial.clean)):
            found[key][attack.spec.name] = plain(estimates.rate(attack.rule.hits(gallery, shots, attack.trial.clean)))
    for name in names:
        found["clip"][name] = plain(estimates.ratio(world.scores(gallery), world.scores(world.own(name))))
        found["apart"][name] = float(gallery.apart(world.own(name), world.shots).mean())
    return found


def run(work: Path, kept: Cells, seeds: Sequence[int]) -> None:
    """Every cell that is not there yet: all seeds of the first kind, then of the next."""
    worlds: dict[int, World] = {}
    for poisoned, strong in KINDS:
        for seed in seeds:
            name = f"{seed}/{poisoned}/{'amplified' if strong else 'plain'}"
            cell = kept.cells.get(name, {})
            missing = [method for method in METHODS if method not in cell.get("methods", {})]
            if not missing:
                continue
            world = worlds.setdefault(seed, World(seed, work))
            names = world.names(poisoned)
            attacks = [world.attack(n) for n in names if world.specs[n].trigger]
            factor = cell.get("factor") or (smallest_factor(world, names, attacks) if strong else 1.0)
            for method in missing:
                result = measured(world, names, attacks, factor, method)
                done = {**kept.cells.get(name, {}).get("methods", {}), method: result}
                kept.put(name, rounded(4, {"contributors": names, "factor": factor, "methods": done}))
                rates = {n: rate["value"] for n, rate in result["asr"].items()}
                print(f"{name} x{factor:g} {method}: ASR {rates}, {result['seconds']:.0f} s", flush=True)


# --- the table --------------------------------------------------------------------------------


def counting(cell: dict[str, Any]) -> list[str]:
    """The triggers that count in a cell."""
    return [name for name, rate in cell["methods"]["task-arithmetic"]["asr"].items() if rate["value"] >= COUNTS]


def pooled(rates: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Hits and pictures of several rates."""
    return sum(round(rate["value"] * rate["n"]) for rate in rates), sum(rate["n"] for rate in rates)


def shown(hits: int, n: int) -> str:
    """A rate with its interval, in per cent."""
    low, high = stats.wilson(hits, n)
    return f"{100 * hits / n:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def quality(cell: dict[str, Any], method: str, what: str = "clip", clean: bool = True) -> list[float]:
    """Of every clean contributor (or every poisoned one): CLIP score over its own, or how far pictures of one seed are from its own."""
    found = cell["methods"][method][what]
    chosen = [name for name in found if ("-clean-" in name) is clean]
    return [found[name]["value"] if what == "clip" else found[name] for name in chosen]


def row(label: str, cells: Sequence[dict[str, Any]], names: Sequence[Sequence[str]]) -> str:
    """Each method's attack success over the named triggers of all cells."""
    columns = []
    for method in METHODS:
        rates = [cell["methods"].get(method, {"asr": {n: None}})["asr"][n] for cell, own in zip(cells, names, strict=True) for n in own]
        columns.append("–" if not rates or None in rates else shown(*pooled(rates)))
    return f"| {label} | " + " | ".join(columns) + " |"


def quality_row(label: str, cells: Sequence[dict[str, Any]], what: str, clean: bool = True) -> str:
    """Each method's quality, with Student's interval over contributors and cells."""
    columns = []
    for method in METHODS:
        values = [value for cell in cells if method in cell["methods"] for value in quality(cell, method, what, clean)]
        low, high = stats.mean_interval(values) if len(values) > 1 else (0.0, 0.0)
        whole = len([cell for cell in cells if method in cell["methods"]]) == len(cells) and len(values) > 1
        columns.append(f"{float(np.mean(values)):.3f} [{low:.3f}, {high:.3f}]" if whole else "–")
    return f"| {label} | " + " | ".join(columns) + " |"


def against(cell: dict[str, Any], name: str) -> str:
    """One trigger that counts: ours beside the plain merge that leaves the least of it."""
    rates = {method: found["asr"][name] for method, found in cell["methods"].items()}
    best = min(CLOSED_FORMS, key=lambda method: rates[method]["value"])
    (theirs, n), (ours, m) = pooled([rates[best]]), pooled([rates["dam"]])
    p = stats.fisher_greater(theirs, n, ours, m)
    floor = shown(*pooled([cell["methods"]["dam"]["floor"][name]]))
    kept, other = (f"{float(np.mean(quality(cell, method))):.3f}" for method in ("dam", best))
    poisoned = sum("-clean-" not in name for name in cell["contributors"])
    label = f"{name} ×{cell['factor']:g}, {poisoned} of 4"
    return f"| {label} | {best}: {shown(theirs, n)} | {shown(ours, m)} | {floor} | {p:.1g} | {kept} ({other}) |"


def table(cells: dict[str, Any]) -> str:
    """Markdown: by how many are poisoned, then each trigger that counts."""
    lines = ["| poisoned | " + " | ".join(METHODS) + " |", "|---" * (len(METHODS) + 1) + "|"]
    for poisoned, strong in sorted(KINDS, key=lambda kind: (kind[1], kind[0])):
        kind = f"{poisoned}/{'amplified' if strong else 'plain'}"
        own = [cell for name, cell in cells.items() if name.endswith(kind) and "task-arithmetic" in cell["methods"]]
        names = [counting(cell) if strong else list(cell["methods"]["task-arithmetic"]["asr"]) for cell in own]
        label = f"{kind.replace('/', ' of 4, ')}, {sum(map(len, names))} triggers (seeds: {len(own)})"
        lines += [row(label, own, names)] if own and poisoned else []
    for strong, label in ((False, "plain"), (True, "amplified")):
        own = [cell for name, cell in cells.items() if name.endswith("amplified") is strong and "dam" in cell["methods"]]
        whats = (("clip", True, "CLIP over clean contributors' own"), ("apart", True, "distance from clean contributors"))
        for what, clean, said in (*whats, ("clip", False, "CLIP over poisoned contributors' own")):
            lines.append(quality_row(f"{label}: {said}", own, what, clean))
    lines += ["", "| trigger | best plain merge | dam | without trigger | p | CLIP of clean contributors (best plain merge's) |"]
    lines.append("|---" * 6 + "|")
    strong_cells = {name: cell for name, cell in cells.items() if name.endswith("amplified") and "dam" in cell["methods"]}
    return "\n".join([*lines, *(against(cell, n) for cell in strong_cells.values() for n in counting(cell))])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, help="the power study's folder")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON document (default: results/merging.json)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--table", action="store_true", help="only print the table")
    arguments = parser.parse_args()
    settings = {"seeds": SEEDS, "pictures": PICTURES, "contributors": CONTRIBUTORS, "counts from": COUNTS, "rounds": defence.ROUNDS}
    kept = Cells(arguments.out, protocol=settings)
    if not arguments.table:
        if arguments.work is None:
            parser.error("--work FOLDER is needed")
        torch.set_num_threads(1)
        run(arguments.work, kept, arguments.seeds)
    print(table(kept.cells))


if __name__ == "__main__":
    main()
