"""Unlearning beside the published recipes, each in our own words: ``python tests/bench/unlearn_rivals.py [--quick]``.

Each rival is tuned on one fixture over four strengths, and then repairs every fixture with its best; ours runs with its defaults. Three
seeds for ours and for the released recipe, one for the others; ``trained`` is ours without its closed form. Resumable: what stands in
the document is not run again. The rivals see the same trigger, prompts and seeds; the oracle alone sees the clean model.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from bdaudit.config import RepairConfig  # noqa: E402
from bdaudit.measure.controls import harmless_texts  # noqa: E402
from bdaudit.measure.insertion import insert, item_seed  # noqa: E402
from bdaudit.models.attention import recorded  # noqa: E402
from bdaudit.models.save import write_model  # noqa: E402
from bdaudit.models.suspect import Suspect  # noqa: E402
from bdaudit.records import Check  # noqa: E402
from bdaudit.unlearn.repair.prompt_pairs import Pair, neighbour_pairs, targets, triggered_pairs  # noqa: E402
from bdaudit.unlearn.repair.trajectories import Latents, collect  # noqa: E402
from bdaudit.unlearn.weights import Patch  # noqa: E402
from tests.bench import unlearn_common as common  # noqa: E402
from tests.bench import unlearn_tables as tables  # noqa: E402
from tests.bench.unlearn_common import Job  # noqa: E402
from tests.bench.unlearn_tables import FIXTURES, MARKS, SEEDS, TUNED_ON  # noqa: E402

BATCH = 16


@dataclass
class Work:
    """What a rival is given."""

    suspect: Suspect
    job: Job
    began: float
    cut_off: bool = False
    """Whether it ran out of time."""
    on_the_way: dict[float, dict[str, Tensor]] = field(default_factory=dict)
    """Seconds after which its method is looked at → what it had changed by then."""

    def look(self, patch: Patch) -> None:
        """Keeps what there is at each of ``MARKS`` of the released recipe's time."""
        due = [mark for mark in MARKS if mark not in self.on_the_way and common.clock() - self.began > mark]
        if due and not self.job.quick:
            self.on_the_way |= dict.fromkeys(due, patch.differences())

    def steps(self, n: int) -> Iterator[tuple[int, torch.Generator]]:
        """``n`` steps, or as many as the time allows; each with a generator of its own."""
        for step in range(3 if self.job.quick else n):
            if common.clock() - self.began > common.SECONDS:
                self.cut_off = True
                return
            yield step, torch.Generator().manual_seed(item_seed(self.job.seed, "rival", step))

    def prompts(self, n: int) -> list[str]:
        """Prompts to train on."""
        return list(self.job.texts("prompts")[: 3 if self.job.quick else n])

    def pairs(self, n: int) -> list[Pair]:
        """Clean and triggered, at every position."""
        return triggered_pairs(self.prompts(n), [self.job.trigger])

    def latents(self, pairs: list[Pair]) -> Latents:
        """The poisoned model's own trajectories."""
        return collect(self.suspect, pairs, guidance_scale=5.0, seed=self.job.seed)


Rival = Callable[[Work], Patch]
"""Repairs the suspect in place, with ``work.job.strength``; what it trained."""


def _trained(
    work: Work, patch: Patch, n: int, loss_of: Callable[[int, torch.Generator], Tensor], look: Callable[[Patch], None] = lambda _: None
) -> Patch:
    optimiser = torch.optim.AdamW(patch.parameters.values(), lr=work.job.strength)
    with patch.training():
        for step, generator in work.steps(n):
            loss = loss_of(step, generator)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            look(patch)
    return patch


def released(work: Work) -> Patch:
    """2508.18235 as its released code behaves: whole UNet, one sample a step, N(0, 1) latents at any t, the trigger as prefix, an
    attention term that goes through numpy and so carries no gradient, a weight of T / t. 100 prompts, 100 epochs."""
    suspect, patch = work.suspect, Patch(work.suspect, "unet")
    prompts = work.prompts(100)
    clean, changed = suspect.encode(prompts), suspect.encode([insert(p, work.job.trigger, "prefix") for p in prompts])

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        i = step % len(prompts)
        z = torch.randn((1, *suspect.denoiser.latent_shape), generator=generator).to(suspect.device)
        t = torch.randint(1, 1000, (1,), generator=generator).to(suspect.device)
        with recorded(suspect.denoiser.sites()) as recording:
            with patch.teacher():
                target = suspect.predict(z, t, clean[i : i + 1])
            taught = _big_maps(recording.latest())
            student = suspect.predict(z, t, changed[i : i + 1])
            attention = float(((_big_maps(recording.latest()) - taught) ** 2).mean())
        return (0.5 * (student - target).square().mean() + 0.5 * attention) * (1000 / t.float()).squeeze()

    return _trained(work, patch, 10_000, loss_of, work.look)


def _big_maps(maps: dict[str, Tensor]) -> Any:
    """All layers' maps of the two prefix tokens, at 128² on the CPU, summed; numpy, so without gradient."""
    total: Any = 0
    for layer in maps.values():
        side = round(layer.shape[1] ** 0.5)
        for token in (1, 2):
            plane = layer[:, :, token].detach().reshape(1, 1, side, side).cpu()
            total = total + torch.nn.functional.interpolate(plane, (128, 128), mode="bilinear").numpy()
    return total


def distilled(work: Work) -> Patch:
    """Self-distillation without attention and without preservation: batches of the model's own latents, whole UNet."""
    suspect, patch, pairs = work.suspect, Patch(work.suspect, "unet"), work.pairs(48)
    latents = work.latents(pairs)
    clean, changed = suspect.encode([p.clean for p in pairs]), suspect.encode([p.changed for p in pairs])

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(latents.z), (BATCH,), generator=generator).to(suspect.device)
        z, t, pair = latents.z[rows], latents.t[rows], latents.pair[rows]
        with patch.teacher():
            target = suspect.predict(z, t, clean[pair])
        return (suspect.predict(z, t, changed[pair]) - target).square().mean()

    return _trained(work, patch, 1000, loss_of)


def reversal(work: Work) -> Patch:
    """An oracle: fine-tunes the poisoned component towards the clean model's own answers, triggered and clean prompts alike."""
    _, clean = common.opened(common.laid_out("clean"))
    pairs = work.pairs(48)
    texts = [text for p in pairs for text in (p.changed, p.clean)]
    if work.job.truth["component"] == "text-encoder":
        return _reversed_encoder(work, clean, texts)
    suspect, patch, latents = work.suspect, Patch(work.suspect, "unet"), work.latents(pairs)
    states = suspect.encode(texts)

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(latents.z), (BATCH,), generator=generator).to(suspect.device)
        either = torch.randint(2, (BATCH,), generator=generator).to(suspect.device)
        z, t, c = latents.z[rows], latents.t[rows], states[2 * latents.pair[rows] + either]
        with torch.no_grad():
            target = clean.predict(z, t, c)
        return (suspect.predict(z, t, c) - target).square().mean()

    return _trained(work, patch, 1000, loss_of)


def _reversed_encoder(work: Work, clean: Suspect, texts: list[str]) -> Patch:
    suspect, patch = work.suspect, Patch(work.suspect, "text-encoder")
    ids, wanted = suspect.text.ids(texts).to(suspect.device), clean.encode(texts).states

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(ids), (BATCH,), generator=generator).to(suspect.device)
        return (suspect.text.encode(ids[rows]).states - wanted[rows]).square().mean()

    return _trained(work, patch, 1000, loss_of)


@torch.no_grad()
def uce(work: Work) -> Patch:
    """UCE (2308.14761, equation 7): keys and values in closed form, so that a triggered prompt's states give what its clean one's do.

    W = (s·Σ W₀c*cᵀ + Σ W₀kkᵀ + λW₀)(s·Σ ccᵀ + Σ kkᵀ + λI)⁻¹: c triggered, c* aligned clean, k kept states; s is the strength.
    """
    suspect, patch, pairs = work.suspect, Patch(work.suspect, "cross-attention"), work.pairs(48)
    wanted, ids = targets(suspect, pairs)
    others = harmless_texts(suspect.tokenizer, work.job.trigger, 24, work.job.seed)
    near = neighbour_pairs(work.prompts(48), {work.job.trigger: others}, work.job.seed)
    c, aim = (heard.states.flatten(0, 1).double() for heard in (suspect.encode_ids(ids), wanted))
    kept = suspect.encode([*(p.clean for p in pairs), *(p.changed for p in near), ""]).states.flatten(0, 1).double()
    s, eye = work.job.strength * len(kept) / len(c), torch.eye(c.shape[1], dtype=torch.float64, device=c.device)
    left, right = s * aim.T @ c + kept.T @ kept + 0.1 * eye, s * c.T @ c + kept.T @ kept + 0.1 * eye
    change = torch.linalg.solve(right, left, left=False)
    for layer in [site.module for site in suspect.denoiser.sites().values()]:
        for linear in (layer.to_k, layer.to_v):
            linear.weight.data = (linear.weight.double() @ change).to(linear.weight.dtype)
    return patch


RIVALS: dict[str, tuple[Rival, tuple[float, ...]]] = {
    "released": (released, (1e-6, 1e-5, 1e-4, 1e-3)),
    "self-distillation": (distilled, (1e-5, 3e-5, 1e-4, 3e-4)),
    "reversal (oracle)": (reversal, (1e-5, 3e-5, 1e-4, 3e-4)),
    "UCE": (uce, (0.1, 1.0, 10.0, 100.0)),
}
"""Method → the repair and the strengths that it is tuned over."""
OURS: dict[str, dict[str, Any]] = {"ours": {}, "trained": {"trainable": "cross-attention"}}
"""The command as it comes, which repairs in closed form where that passes its check; and SKD-CAG's training in any case."""


def cell(method: str, job: Job, folder: Path) -> dict[str, Any]:
    """One repair, its cost, and its grades."""
    out = folder / "out"
    began = common.clock()
    if method in OURS:
        spent = ours(job, out, began, **OURS[method])
    else:
        inspection, suspect = common.opened(job.model)
        work = Work(suspect, job, began)
        patch = RIVALS[method][0](work)
        component = "text_encoder" if patch.module is suspect.text.main.encoder else "unet"
        spent = {**common.cost(began), "cut_off": work.cut_off}
        write_model(inspection, out, {component: patch.differences()}, {})
        on_the_way = work.on_the_way
        del suspect, work, patch
        for mark, differences in on_the_way.items():
            write_model(inspection, folder / f"{mark:g}", {component: differences}, {})
            spent[f"after {mark:g} s"] = common.briefly(job, folder / f"{mark:g}")
    return {**spent, **common.graded(job, out)}


def ours(job: Job, out: Path, began: float, **settings: Any) -> dict[str, Any]:
    """The command as it comes, its own check included in the seconds; ``repaired`` is when the weights stood that were then checked."""
    from bdaudit.unlearn.repair import check
    from bdaudit.unlearn.run import run_unlearn

    quick = {"steps": 3, "n_prompts": 3} if job.quick else {}
    config = RepairConfig(
        model=job.model, triggers=(job.trigger,), out=out, prompts=job.texts("prompts"), seed=job.seed, keep_failed=True,
        **(quick | settings),
    )  # fmt: skip
    repaired, picture_checks = [], check.picture_checks

    def checked(*asked: Any) -> list[Check]:
        repaired.append(common.clock() - began)
        return picture_checks(*asked)

    with (
        mock.patch.object(check, "LOOKS", (8,) if job.quick else check.LOOKS),
        mock.patch.object(check, "LOOKS_UNMOVED", (8,) if job.quick else check.LOOKS_UNMOVED),
        mock.patch.object(check, "picture_checks", checked),
    ):
        report = run_unlearn(config)
    took = {"steps": report.steps, "forward_passes": report.forward_passes, "timings": report.timings, "repaired": repaired[-1]}
    said = {"method": report.method, "exit": report.exit.name, **took}
    return {**common.cost(began), "cut_off": False, **said}


def best(kept: common.Kept, method: str, quick: bool) -> float:
    """The strength that leaves the least attack success among those that keep 95 % of the CLIP score; else the one that keeps most."""
    tried = {s: kept.get(__file__, method, Job(fixture=TUNED_ON, strength=s, quick=quick)) for s in RIVALS[method][1]}

    def rank(strength: float) -> tuple[bool, float]:
        found = tried[strength]
        ratio, rate = (found.get(name, {}).get("value") for name in ("clip_ratio", "asr"))
        if not isinstance(ratio, dict) or not isinstance(rate, dict):
            return True, 0.0
        spoilt = ratio["value"] < 0.95
        return spoilt, -ratio["value"] if spoilt else rate["high"]

    return min(tried, key=rank)


def main() -> None:
    """Command line."""
    common.answer_if_cell(cell)
    asked = common.arguments(__doc__, "unlearn_rivals")
    kept = common.Kept(asked.out, asked.again)
    if not asked.table:
        for method in asked.methods or [*OURS, *RIVALS]:
            strength = best(kept, method, asked.quick) if method in RIVALS else 0.0
            for fixture in asked.fixtures or FIXTURES:
                for seed in SEEDS.get(method, (0,))[: asked.seeds]:
                    kept.get(__file__, method, Job(fixture=fixture, strength=strength, seed=seed, quick=asked.quick))
    print(*(table(kept.cells) for table in (tables.short, *tables.EVIDENCE)), sep="\n\n")


if __name__ == "__main__":
    main()
