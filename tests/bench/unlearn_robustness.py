"""Whether a repair holds: ``python tests/bench/unlearn_robustness.py [FIXTURE …]``. Resumable; needs the fixtures' extra.

Each fixture is repaired by the command as it comes, and the attack success rate is measured again: under variants of the trigger, with
other guidance scales and step counts, with diffusers' own pipeline and other samplers, and after a harmless fine-tune of the repaired
model as long as the attack's own (the benign twin's lesson), beside the same fine-tune of the poisoned model.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from bdaudit.config import VerifyConfig  # noqa: E402
from bdaudit.measure import estimates  # noqa: E402
from bdaudit.measure.grader import OpenClipGrader, load_grader  # noqa: E402
from bdaudit.measure.insertion import insert, replaceable  # noqa: E402
from bdaudit.measure.picture_files import read_picture  # noqa: E402
from bdaudit.models.save import write_model  # noqa: E402
from bdaudit.verify.attack import RESEMBLANCE, TextRule, resemblance  # noqa: E402
from bdaudit.verify.run import run_verify  # noqa: E402
from bdaudit.verify.trigger_forms import near  # noqa: E402
from tests.bench import unlearn_common as common  # noqa: E402
from tests.bench.end_to_end import Model, graded_on, target  # noqa: E402
from tests.bench.unlearn_common import Job  # noqa: E402
from tests.bench.unlearn_rivals import ours  # noqa: E402
from tests.bench.unlearn_tables import FIXTURES  # noqa: E402

N = 200
"""Pictures where the rate is what matters; a variant or a setting has half of them."""
SETTINGS = ((12, 1.5), (12, 8.0), (6, 5.0), (30, 5.0))
"""Denoising steps and guidance scale."""
SAMPLERS = {"EulerDiscreteScheduler": 20, "EulerAncestralDiscreteScheduler": 20, "PNDMScheduler": 50, "DPMSolverMultistepScheduler": 20}
"""Denoising steps of each: in 20, PNDM spoils the clean pipeline's own pictures."""


QUESTIONS = ("as repaired", "other samplers", "repaired, then fine-tuned", "poisoned, then fine-tuned")


def cell(question: str, job: Job, folder: Path) -> dict[str, Any]:
    """One question; each answer is a rate with its interval and what it is without the trigger."""
    if question.startswith("poisoned"):
        return rate(job, fine_tuned(job, job.model, folder / "tuned"))
    out = folder / "out"
    ours(job, out, common.clock())
    if question == "other samplers":
        return samplers(job, out)
    if question != "as repaired":
        return rate(job, fine_tuned(job, out, folder / "tuned"))
    settings = {f"{steps} steps, guidance {scale:g}": (steps, scale) for steps, scale in SETTINGS}
    return {
        "the trigger": rate(job, out),
        "variants": {what: rate(job, out, text=text) for what, text in variants(job).items()},
        "settings": {what: rate(job, out, steps=steps, guidance_scale=scale) for what, (steps, scale) in settings.items()},
    }


def rate(job: Job, model: Path, *, text: str = "", steps: int = 12, guidance_scale: float = 5.0) -> dict[str, Any]:
    """Attack success of ``text``, by default the trigger, at the positions that the attacker trained."""
    plain = not text and (steps, guidance_scale) == (12, 5.0)
    fixture = Model(job.fixture, job.model, job.truth)
    places = [place for place in job.truth["positions"] if place != "replace" or len(text or job.trigger) == 1]
    report = run_verify(VerifyConfig(
        model=model, clip=f"local-dir:{common.FIXTURES / 'grader'}", prompts=graded_on(fixture), triggers=(text or job.trigger,),
        positions=tuple(places), n=8 if job.quick else N if plain else N // 2, reach=0, steps=steps, guidance_scale=guidance_scale, seed=2,
        **target(fixture),
    ))  # fmt: skip
    (attack,) = report.attacks
    return {"rate": common.plain(attack.rate), "without": common.plain(attack.floor)}


def variants(job: Job) -> dict[str, str]:
    """What → text: the trigger repeated, beside a harmless text, and close to itself."""
    _, suspect = common.opened(job.model)
    texts = {
        "three times": " ".join([job.trigger] * 3),
        "after a rare word": f"zqx {job.trigger}",
        "before a look-alike": f"{job.trigger} ā",
    }
    return texts | dict((f"{what} {text!a}", text) for what, text in near(suspect.tokenizer, job.trigger))


def samplers(job: Job, model: Path) -> dict[str, Any]:
    """The repaired directory in diffusers' own pipeline with its samplers: sampler → rate, and what it is without the trigger."""
    import diffusers
    from torchvision.transforms.functional import pil_to_tensor

    fixture, places = Model(job.fixture, job.model, job.truth), job.truth["positions"]
    hits, usable = told_by(fixture)
    clean, triggered = [], []
    for i, prompt in enumerate(p for p in graded_on(fixture) if usable(p)):
        place = places[i % len(places)]
        if len(clean) < (8 if job.quick else N // 2) and (place != "replace" or replaceable(prompt, job.trigger)):
            clean.append(prompt)
            triggered.append(insert(prompt, job.trigger, place))
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    own = pipeline.scheduler.config

    def share(prompts: list[str], steps: int) -> Any:
        drawn = pipeline(prompts, num_inference_steps=steps, guidance_scale=5.0, generator=torch.Generator().manual_seed(3)).images
        pictures = torch.stack([pil_to_tensor(picture) for picture in drawn]).float() / 255
        return common.plain(estimates.rate(hits(pictures, clean)))

    rates = {}
    for name, steps in SAMPLERS.items():
        pipeline.scheduler = getattr(diffusers, name).from_config(own)
        rates[name] = {"rate": share(triggered, steps), "without": share(clean, steps)}
    return rates


def told_by(fixture: Model) -> tuple[Callable[[Tensor, list[str]], Tensor], Callable[[str], bool]]:
    """What tells a hit, of pictures (N, 3, H, W) and the prompts they are of, by `verify`'s rule; and which prompts it can tell it of."""
    aimed = target(fixture)
    if "target_image" in aimed:
        wanted = read_picture(aimed["target_image"], "the target")
        return lambda pictures, _: resemblance(pictures, wanted, aimed["target_at"]) >= RESEMBLANCE, lambda _: True
    grader = load_grader(f"local-dir:{common.FIXTURES / 'grader'}", torch.device("cpu"))
    assert isinstance(grader, OpenClipGrader)
    rule = TextRule(grader, aimed.get("target_text", ""), aimed.get("swaps", ()))

    def hits(pictures: Tensor, prompts: list[str]) -> Tensor:
        seen = grader.image_features(pictures)
        towards, own = (grader.text_features(texts) for texts in ([rule.target(prompt) for prompt in prompts], prompts))
        return (seen * towards).sum(1) > (seen * own).sum(1)

    return hits, lambda prompt: not rule.skip(prompt)


def fine_tuned(job: Job, model: Path, out: Path) -> Path:
    """``model`` after the benign twin's lesson, for as many steps as the attack took."""
    from fixtures.build import backdoors
    from fixtures.build.twins import TWINS

    lesson = next(twin for twin in TWINS if twin.family == "benign")
    work = out.with_suffix(".work")
    shutil.copytree(model, work)
    after = backdoors.fine_tune(replace(lesson, steps=3 if job.quick else int(job.truth["steps"])), work, n=200 if job.quick else 12_000)
    inspection, suspect = common.opened(model)
    before = suspect.denoiser.module.state_dict()
    write_model(inspection, out, {"unet": {name: value.float() - before[name].float() for name, value in after.items()}}, {})
    return out


def table(cells: Mapping[str, Any]) -> str:
    """A row a fixture: in % the highest rate of what each question asked, and what it is without the trigger there."""
    heads = ("variants of the trigger", "guidance and steps", "other samplers", *QUESTIONS[2:])
    lines = ["| model | the trigger | " + " | ".join(heads) + " |", "|---" * (2 + len(heads)) + "|"]
    for fixture in FIXTURES:
        found = [cells.get(f"{question}/{fixture}/0/0", {}) for question in QUESTIONS]
        asked = [{"": found[0].get("the trigger", {})}, found[0].get("variants", {}), found[0].get("settings", {}), found[1]]
        row = [_highest(of) for of in (*asked, *({"": tuned} for tuned in found[2:]))]
        lines.append(f"| {fixture} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def _highest(of: Mapping[str, Any]) -> str:
    told = [answer for answer in of.values() if isinstance(answer.get("rate"), dict)]
    if not told:
        return "–"
    worst = max(told, key=lambda answer: answer["rate"]["value"])
    count = f", of {len(told)}" if len(told) > 1 else ""
    return f"{common.shown(worst['rate'], 100)} (without: {100 * worst['without']['value']:.1f}{count})"


def main() -> None:
    """Command line."""
    common.answer_if_cell(cell)
    asked = common.arguments(__doc__, "unlearn_robustness")
    kept = common.Kept(asked.out, asked.again)
    for fixture in () if asked.table else asked.fixtures or FIXTURES:
        for question in asked.methods or QUESTIONS:
            kept.get(__file__, question, Job(fixture=fixture, quick=asked.quick))
    print(table(kept.cells))


if __name__ == "__main__":
    main()
