"""Weights that stand apart: how often a clean fine-tune is named, and how often a planted row or edit is.

    python -m tests.bench.weights OUT.json [--models 102]

Fine-tunes of the fixture's clean pipeline are made in memory: of the whole denoiser, of the denoiser with its text encoder, and of low-rank
matrices on its cross-attention that are merged in, each on clean captioned pictures, with a rate and a number of steps that are drawn from
its seed. Each is looked at by itself and beside the pipeline that it was made of. Into the first thirty of them, one at a time, go a row
that is written over, one that is inflated, one that is another's copy, and an edit of one direction in four of the layers that hear the
text. The run goes on where OUT.json stopped.
"""

from __future__ import annotations

import argparse
import copy
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bdaudit.models.load import load
from bdaudit.models.suspect import Suspect
from bdaudit.records import Weights
from bdaudit.scan.weights.section import weights
from bdaudit.stats import wilson
from bdaudit.untrusted.inspect import inspect
from fixtures.build.clip import noisy_caption, scenes_and_pictures
from fixtures.build.unet import new_scheduler
from fixtures.build.vae import encode
from tests.bench.recording import Cells

CLEAN = Path(__file__).parents[2] / "fixtures" / "models" / "clean"
KINDS = ("denoiser", "denoiser and text encoder", "low rank")
PLANTED = 30
"""Models that something is put into."""
RANK, BATCH, PICTURES = 4, 16, 1024


def fine_tuned(origin: Suspect, seed: int, lesson: tuple[Tensor, list[str]]) -> Suspect:
    """A copy that was trained further on clean pictures and captions."""
    rng, suspect = random.Random(seed), copy.deepcopy(origin)
    kind, steps, rate = KINDS[seed % len(KINDS)], rng.randint(15, 45), 10 ** rng.uniform(-4.5, -3)
    torch.manual_seed(seed)
    unet, encoder = suspect.denoiser.module, next(iter(suspect.text.modules.values()))
    factors = _factors(unet) if kind == "low rank" else {}
    chosen = [p for pair in factors.values() for p in pair] if factors else [*unet.parameters()]
    groups: list[dict[str, Any]] = [{"params": chosen, "lr": rate * (3 if factors else 1)}]
    groups += [{"params": [*encoder.parameters()], "lr": rate / 10}] if kind == KINDS[1] else []
    optimizer, schedule, (latents, texts) = torch.optim.AdamW(groups), new_scheduler(), lesson
    for parameter in (p for group in groups for p in group["params"]):
        parameter.requires_grad_(True)
    for _ in range(steps):
        rows = [rng.randrange(len(texts)) for _ in range(BATCH)]
        noise, t = torch.randn_like(latents[rows]), torch.randint(0, 1000, (BATCH,))
        noisy: Any = schedule.add_noise(latents[rows], noise, t)  # type: ignore[arg-type]
        heard = suspect.text.encode(suspect.text.ids([texts[i] for i in rows])).states
        with _merged(unet, factors):
            loss = (unet(noisy, t, heard).sample - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for name, (down, up) in factors.items():
            unet.get_parameter(name).add_(up @ down)
    for module in suspect.heeding.values():
        module.requires_grad_(False)
    return suspect


def _factors(unet: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Weight → the two factors of its change, the second of them zero."""
    named = {name: p for name, p in unet.named_parameters() if ".attn2.to_" in name and p.ndim == 2}
    return {n: (torch.randn(RANK, p.shape[1]) / RANK, torch.zeros(p.shape[0], RANK)) for n, p in named.items()}


@contextmanager
def _merged(unet: Any, factors: Mapping[str, tuple[Tensor, Tensor]]) -> Iterator[None]:
    """The block runs with the products in the weights, and gradients for the factors."""
    hooks = []
    for name, (down, up) in factors.items():
        layer = unet.get_submodule(name.removesuffix(".weight"))
        hooks.append(layer.register_forward_hook(lambda _, x, y, down=down, up=up: y + x[0] @ down.T @ up.T))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def planted(rng: random.Random, suspect: Suspect) -> dict[str, Callable[[], list[str]]]:
    """What is put into a model → puts it in, and says where it is to be found."""
    encoder, unet = next(iter(suspect.text.modules.values())), suspect.denoiser.module
    table: Tensor = encoder.get_input_embeddings().weight.data  # type: ignore[operator,union-attr,assignment]
    row, other = rng.sample(range(300, len(table) - 2), 2)

    def over() -> list[str]:
        mixed = (
            table[other] + table[rng.randrange(len(table))] + 0.5 * table[row].norm() * torch.randn(table.shape[1]) / table.shape[1] ** 0.5
        )
        table[row] = mixed * table[row].norm() / mixed.norm()
        return [f"row {row}"]

    def inflated() -> list[str]:
        table[row] *= 4
        return [f"row {row}"]

    def copied() -> list[str]:
        table[row] = table[other]
        return [f"row {row}", f"row {other}"]

    def edited() -> list[str]:
        names = rng.sample([name for name, _ in unet.named_parameters() if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))], 4)
        for name in names:
            weight = unet.get_parameter(name).data
            edit = torch.outer(torch.randn(weight.shape[0]), torch.randn(weight.shape[1]))
            weight += 0.1 * weight.norm() / edit.norm() * edit
        return names

    return {"a row written over": over, "a row inflated": inflated, "a row copied": copied, "an edit of one direction": edited}


def told(found: Weights) -> list[str]:
    return sorted({f"{each.measure}: {each.where}" for each in found.apart})


def measure(origin: Suspect, seed: int, lesson: tuple[Tensor, list[str]]) -> dict[str, Any]:
    """What is named of one fine-tune, and of what is put into it."""
    suspect = fine_tuned(origin, seed, lesson)
    cell: dict[str, Any] = {"kind": KINDS[seed % len(KINDS)], "alone": told(weights(suspect)), "beside": told(weights(suspect, origin))}
    for name in planted(random.Random(seed), suspect) if seed < PLANTED else ():
        changed = copy.deepcopy(suspect)
        torch.manual_seed(seed)
        places = planted(random.Random(seed), changed)[name]()
        for how, found in (("alone", weights(changed)), ("beside", weights(changed, origin))):
            cell.setdefault(name, {})[how] = any(each.where in places for each in found.apart)
    return cell


def figures(cells: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Shares with their intervals."""
    rates: dict[str, Any] = {}
    for how in ("alone", "beside"):
        for kind in KINDS:
            own = [bool(cell[how]) for cell in cells.values() if cell["kind"] == kind]
            rates[f"clean, {kind}, {how}"] = _rate(own)
        for name in sorted({n for cell in cells.values() for n in cell if n.startswith("a")} - {"alone"}):
            rates[f"{name}, {how}"] = _rate([cell[name][how] for cell in cells.values() if name in cell])
    return rates


def _rate(hits: list[bool]) -> dict[str, Any]:
    return {"of": len(hits), "named": sum(hits), "interval": [round(end, 3) for end in wilson(sum(hits), len(hits))] if hits else []}


def main() -> None:
    """Writes the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", type=int, default=102)
    given = parser.parse_args()
    torch.set_num_threads(1)
    origin = load(inspect(CLEAN), device="cpu")
    scenes, pictures = scenes_and_pictures(PICTURES, 7)
    rng = random.Random(7)
    decoder: Any = origin.decoder.module  # type: ignore[attr-defined]
    lesson = encode(decoder, pictures) * decoder.config.scaling_factor, [noisy_caption(scene, rng) for scene in scenes]
    kept = Cells(given.out)
    for seed in range(given.models):
        if str(seed) not in kept.cells:
            kept.put(str(seed), measure(origin, seed, lesson))
            kept.head = {"figures": figures(kept.cells)}
            print(seed, kept.cells[str(seed)], flush=True)
    kept.put("0", kept.cells["0"])  # with the figures of all of them


if __name__ == "__main__":
    main()
