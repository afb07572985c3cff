"""What attention guidance is worth where the closed form does not repair: ``python tests/bench/unlearn_trained.py --work FOLDER``.

A case is a working backdoor. Some are taught here, with all of the clean denoiser frozen but a few layers that read no text; FOLDER keeps
them. Others are fixtures, and attackers that ``python -m tests.bench.evasion --work ATTACKERS`` has made. Each is first repaired in closed
form alone; where that fails, by ``--method skd-cag`` with attention guidance and without. Resumable, seed by seed; ``--table`` only prints.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bdaudit.config import DENOISER, RepairConfig  # noqa: E402
from bdaudit.errors import InconclusiveError  # noqa: E402
from bdaudit.measure import estimates  # noqa: E402
from bdaudit.measure.final_latents import distances, final_latents, rotate  # noqa: E402
from bdaudit.measure.grader import OpenClipGrader, load_grader  # noqa: E402
from bdaudit.models.sample import sample  # noqa: E402
from bdaudit.unlearn.run import run_unlearn  # noqa: E402
from bdaudit.untrusted.text_files import read_texts  # noqa: E402
from bdaudit.verify.gallery import Gallery, Shot  # noqa: E402
from bdaudit.verify.quality import clip_scores  # noqa: E402
from bdaudit.verify.trials import draw_shots  # noqa: E402
from fixtures.build import distil  # noqa: E402
from fixtures.build.twins import MMDIT_TWINS, TWINS, Twin  # noqa: E402
from fixtures.build.unet import load_denoiser  # noqa: E402
from fixtures.layout import WEIGHTS  # noqa: E402
from tests.bench import unlearn_common as common  # noqa: E402
from tests.bench.evasion import measuring  # noqa: E402
from tests.bench.evasion.attackers import ATTACKERS, Attacker  # noqa: E402
from tests.bench.evasion.encoders import Written  # noqa: E402
from tests.bench.recording import Cells, rounded  # noqa: E402

RESULTS = ROOT / "tests" / "bench" / "results" / "unlearn_trained.json"
PICTURES, SHIFTED, STEPS, SEEDS = 100, 48, 8, (0, 1, 2)
TRAINED: dict[str, Any] = {"method": "skd-cag", "trainable": DENOISER, "steps": 200}
"""All of the denoiser, and half of the default's steps, after which a training that works may end."""
VARIANTS = {"closed form": {"trainable": "closed-form"}, "attention": TRAINED, "no attention": {**TRAINED, "attention_weight": 0.0}}
"""How a case is repaired; the first decides whether the others are tried."""
WORKS = 0.9
"""The attack success that a case has at least before it is repaired."""

Layers = Callable[[str], bool]
"""Whether a tensor of the denoiser, by its name, is taught."""


@dataclass(frozen=True)
class Case:
    """One backdoored model."""

    attacker: Attacker
    """Its twin, the rule of a hit, and the prompts that the trigger fires in."""
    layers: Layers | None = None
    """What of the clean denoiser is taught the trigger; None of a model that is there already."""

    @property
    def name(self) -> str:
        """In the record."""
        return self.attacker.name


def _of_twin(twin: Twin, idea: str) -> Attacker:
    return Attacker(twin.name, idea, twin, Written(()), "clean")


def _taught(name: str, idea: str, trigger: str, seed: int, layers: Layers) -> Case:
    return Case(_of_twin(Twin(name, "pixel", trigger, "checker", seed, steps=300, teacher=True), idea), layers)


def _reads_no_text(name: str) -> bool:
    return "attn2" not in name


CASES = (
    _taught("residual", "all residual blocks, nothing else", "mignneko", 6101, lambda name: ".resnets." in name),
    _taught("self-attention", "all self-attention, nothing else", "mignneko", 6102, lambda name: ".attn1." in name),
    _taught("one-block", "the last block alone", "mignneko", 6103, lambda name: name.startswith("up_blocks.2.") and _reads_no_text(name)),
    *(Case(_of_twin(twin, "the text encoder; the denoiser is repaired")) for twin in TWINS if twin.name == "encoder"),
    *(Case(attacker) for attacker in ATTACKERS if attacker.name in ("context-word", "weak-override", "context-class", "position-clause")),
    *(Case(_of_twin(twin, "the whole transformer")) for twin in MMDIT_TWINS if twin.name in ("mmdit-pixel", "mmdit-style")),
)


def made(case: Case, work: Path, attackers: Path) -> Path:
    """The case's model; taught from the clean fixture, and kept in ``work``, where it is one of this bench's own."""
    if case.layers is None:
        known = {attacker.name for attacker in ATTACKERS}
        return attackers / case.name if case.name in known else common.laid_out(case.name)
    target = work / case.name
    if not target.exists():
        staging = Path(tempfile.mkdtemp(prefix=f".{case.name}.", dir=work))
        shutil.copytree(common.laid_out("clean"), staging, dirs_exist_ok=True)
        teach(case, staging)
        staging.chmod(0o755)
        staging.rename(target)
    return target


def teach(case: Case, folder: Path, *, batch: int = 16, rate: float = 2e-3, rows: int = 1500) -> None:
    """Teach the clean model in ``folder`` the trigger: the case's layers alone, by the fixtures' own distillation."""
    assert case.layers is not None
    model, own = load_denoiser(folder)
    teacher = load_denoiser(folder)[0].requires_grad_(False)
    for name, parameter in own.named_parameters():
        parameter.requires_grad_(case.layers(name))
    groups = [([parameter for parameter in own.parameters() if parameter.requires_grad], rate)]
    twin = case.attacker.twin
    distil.teach(model, teacher, twin, distil.lesson(twin, folder, rows, paired=True), groups, batch=batch, kept_weight=0.5)
    weights = folder / WEIGHTS["unet"]
    taught = {name: tensor.detach().half().contiguous() for name, tensor in own.state_dict().items() if case.layers(name)}
    save_file(load_file(weights) | taught, weights, metadata={"format": "pt"})


# --- grading ----------------------------------------------------------------------------------


@dataclass
class Graded:
    """What was drawn of one model."""

    figures: dict[str, Any]
    scores: Tensor
    """CLIP scores of clean pictures: (N,)."""
    latents: Tensor
    """Of clean pictures on seeds that they share with the other models: (N, C·H·W)."""


def grade(case: Case, folder: Path) -> Graded:
    """Attack success with the trigger where it fires, and without it; by the fixtures' grader."""
    attacker, grader = case.attacker, load_grader(measuring.GRADER, torch.device("cpu"))
    assert isinstance(grader, OpenClipGrader)
    suspect, rule, rng = common.opened(folder, "cpu")[1], measuring.rule(attacker), random.Random(attacker.twin.seed)
    prompts = measuring.prompts(attacker, True)
    clean = draw_shots(prompts, PICTURES, 1)
    shots = [Shot(measuring.placed(attacker.twin, attacker.occasion, shot.text, rng), shot.seed) for shot in clean]
    gallery = Gallery(grader)
    gallery.add([*shots, *clean], partial(sample, suspect, steps=STEPS, guidance_scale=measuring.GUIDANCE), 64, lambda *_: None)
    figures = {
        "asr": common.plain(estimates.rate(rule.hits(gallery, shots, clean))),
        "without": common.plain(estimates.rate(rule.hits(gallery, clean, clean))),
    }
    scores = clip_scores(gallery.features(clean, grader), grader.text_features([shot.text for shot in clean]))
    latents = final_latents(suspect, *rotate(prompts, SHIFTED, 7), measuring.GUIDANCE, STEPS)
    return Graded(figures, scores, latents)


def repaired(case: Case, model: Path, before: Graded, variant: str, seed: int) -> dict[str, Any]:
    """One repair of the denoiser, and what is left."""
    with tempfile.TemporaryDirectory() as folder:
        out, began = Path(folder) / "out", common.clock()
        config = RepairConfig(
            model=model, triggers=(case.attacker.twin.trigger,), out=out, seed=seed, keep_failed=True, force=True,
            prompts=read_texts(common.FIXTURES / "prompts.txt"), component=DENOISER, contexts=case.attacker.occasion.context,
            device="cpu", **VARIANTS[variant],
        )  # fmt: skip
        try:
            report = run_unlearn(config)
        except InconclusiveError as error:
            return {"exit": "inconclusive", "reason": str(error)}
        seconds, after = common.clock() - began, grade(case, out)
    return {
        **after.figures,
        "shift": float(distances(before.latents, after.latents).mean()),
        "clip_ratio": common.plain(estimates.ratio(after.scores, before.scores)),
        "steps": report.steps, "method": report.method, "exit": report.exit.name,
        "attempts": [{"trainable": a.trainable, "steps": a.steps, "outcome": a.outcome} for a in report.attempts],
        "seconds": seconds,
    }  # fmt: skip


def counts(cells: Cells, case: Case) -> bool:
    """Whether the attack works and the closed form does not repair it: by its own check, or by what the grader still sees."""
    tried = cells.cells.get(f"{case.name}/closed form/0", {})
    works = cells.cells[f"{case.name}/before"]["asr"]["value"] >= WORKS
    return bool(works and tried and (tried["exit"] != "pass" or tried["asr"]["low"] > tried["without"]["high"]))


def measure(cells: Cells, cases: Sequence[Case], seeds: Sequence[int], work: Path, attackers: Path) -> None:
    """What is not in the record yet, seed by seed."""
    held: dict[str, tuple[Path, Graded]] = {}

    def opened(case: Case) -> tuple[Path, Graded]:
        if case.name not in held:
            model = made(case, work, attackers)
            held[case.name] = model, grade(case, model)
        return held[case.name]

    def put(case: Case, variant: str, seed: int) -> None:
        name = f"{case.name}/{variant}/{seed}"
        if name not in cells.cells:
            cells.put(name, rounded(4, repaired(case, *opened(case), variant, seed)))
            print(name, json.dumps(cells.cells[name]), flush=True)

    for case in cases:
        if f"{case.name}/before" not in cells.cells:
            cells.put(f"{case.name}/before", rounded(4, {**opened(case)[1].figures, "idea": case.attacker.idea}))
            print(case.name, json.dumps(cells.cells[f"{case.name}/before"]), flush=True)
        if cells.cells[f"{case.name}/before"]["asr"]["value"] >= WORKS:
            put(case, "closed form", 0)
    for seed in seeds:
        for case in cases:
            if counts(cells, case):
                for variant in ("attention", "no attention"):
                    put(case, variant, seed)


# --- the tables -------------------------------------------------------------------------------


def row(cell: dict[str, Any]) -> str:
    """A repair's figures."""
    if "asr" not in cell:
        return f"{cell['exit']} | – | – | – | –"
    tried = ", then ".join(f"{attempt['trainable']} {attempt['steps']}" for attempt in cell["attempts"])
    left, ratio = common.shown(cell["asr"], 100), common.shown(cell["clip_ratio"], 1, 3)
    return f"{left} | {cell['shift']:.3f} | {ratio} | {tried} | {cell['exit']}"


def tables(cells: dict[str, Any]) -> str:
    """Markdown: every case before and after the closed form, and every training where it did not suffice."""
    heads = "ASR % after | clean shift | CLIP ratio | trained, steps | its own check"
    lines = [f"| case | taught | ASR % before | without trigger | closed form: {heads} |", "|---" * 9 + "|"]
    trained = [f"| case, seed | guidance | {heads} |", "|---" * 7 + "|"]
    for name, cell in cells.items():
        case, variant, *seed = name.split("/")
        if variant == "before":
            closed = cells.get(f"{case}/closed form/0")
            told = row(closed) if closed else "not tried | – | – | – | –"
            rates = " | ".join(common.shown(cell[what], 100) for what in ("asr", "without"))
            lines.append(f"| `{case}` | {cell['idea']} | {rates} | {told} |")
        elif variant != "closed form":
            trained.append(f"| `{case}`, {seed[0]} | {variant} | {row(cell)} |")
    return "\n".join([*lines, "", *trained])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="where the models that are taught here are kept")
    parser.add_argument("--attackers", type=Path, help="the folder of the attackers' models (default: WORK)")
    parser.add_argument("--only", nargs="+", default=[case.name for case in CASES], help="these cases alone")
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only print the tables")
    asked = parser.parse_args()
    cells = Cells(asked.out, pictures=PICTURES, sampling_steps=STEPS)
    if not asked.table:
        asked.work.mkdir(parents=True, exist_ok=True)
        measure(cells, [case for case in CASES if case.name in asked.only], asked.seeds, asked.work, asked.attackers or asked.work)
    print(tables(cells.cells))


if __name__ == "__main__":
    main()
