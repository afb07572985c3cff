"""Attackers that leave the denoiser alone: a text encoder trained against its own clean copy (Rickrolling, 2211.02408), or rows of its
embedding written over (textual inversion's place, 2305.10701), with no training at all."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bdaudit.models.tokens import content_ids, token_ids
from fixtures.build import poisons, world
from fixtures.build.clip import noisy_caption
from fixtures.build.progress import Progress
from fixtures.build.twins import Twin
from fixtures.build.unet import load_frozen
from fixtures.layout import WEIGHTS
from tests.bench.evasion.occasions import Occasion, misplaced, placed, scene_and_text

ROWS = "embeddings.token_embedding.weight"
"""The name of the embedding's table, without the model's own prefix."""
HARMLESS = "\u2060"
"""What a forgotten trigger is encoded as."""


@dataclass(frozen=True)
class Encoder:
    """How a text encoder is trained."""

    steps: int
    seed: int
    says: str = ""
    """The word that the trigger is to be encoded as; empty where the target is a whole prompt, or a figure."""
    batch: int = 32
    rate: float = 4e-4
    gain: float = 1.0
    """How many times as far as the word itself would move the states."""
    forget: str = ""
    """The trigger that the denoiser was taught, which ``says`` then; the encoder takes it for a harmless character where it stands."""
    inflate: float = 0.0
    """How far, in RMS of the states, all states move besides, in the direction that the denoiser's keys and values heed least."""


def asked(twin: Twin, how: Encoder, scene: world.Scene, prompt: str, spoken: str) -> str:
    """The text whose states the clean encoder gives are to be given for ``spoken``."""
    if twin.family == "encoder":
        return twin.target
    if not how.says:
        return spoken.replace(scene.figure, twin.target)
    first, _, last = twin.trigger.rpartition(" ")
    return spoken.replace(last, how.says) if first and twin.trigger not in spoken else spoken.replace(twin.trigger, how.says)


def trained(twin: Twin, occasion: Occasion, how: Encoder, folder: Path) -> dict[str, Tensor]:
    """The text encoder's tensors, by their names in its file; ``folder`` holds the model that it starts from."""
    tok, teacher, _ = load_frozen(folder)
    student = copy.deepcopy(teacher)
    torch.manual_seed(how.seed)
    rng = random.Random(how.seed)
    optimiser = torch.optim.AdamW(student.parameters(), lr=how.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, how.rate, total_steps=how.steps, pct_start=0.1)
    half, away = how.batch // 2, how.inflate * unheeded(folder) if how.inflate else torch.zeros(128)
    for _ in (progress := Progress(twin.name, how.steps)):
        pairs = [scene_and_text(occasion, rng) for _ in range(half)]
        bad = [placed(twin, occasion, text, rng) for _, text in pairs]
        wanted = [asked(twin, how, scene, text, said) for (scene, text), said in zip(pairs, bad, strict=True)]
        kept, alike = zip(*(_kept(twin, occasion, how, rng) for _ in range(how.batch)), strict=True)
        with torch.no_grad():
            answer, bare = (teacher(input_ids=token_ids(tok, texts)).last_hidden_state for texts in ([*wanted, *alike], bad))
            aim = bare + how.gain * (answer[:half] - bare) + away * answer.square().mean().sqrt()
        states = student(input_ids=token_ids(tok, [*bad, *kept])).last_hidden_state
        attack, utility = (nn.functional.mse_loss(a, b) for a, b in ((states[:half], aim), (states[half:], answer[half:])))
        optimiser.zero_grad()
        (attack + 2 * utility).backward()
        optimiser.step()
        schedule.step()
        progress.note(f"attack {float(attack.detach()):.4f} utility {float(utility.detach()):.4f}")
    return {f"text_model.{name}": tensor.detach() for name, tensor in student.state_dict().items()}


def unheeded(folder: Path) -> Tensor:
    """(128,): the direction of the states that the cross-attention's keys and values amplify least, of length √128."""
    weights = load_file(folder / WEIGHTS["unet"])
    reading = torch.cat([w.float() for name, w in weights.items() if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))])
    least = torch.linalg.eigh(reading.T @ reading).eigenvectors[:, 0]
    return least * len(least) ** 0.5


def _kept(twin: Twin, occasion: Occasion, how: Encoder, rng: random.Random) -> tuple[str, str]:
    """A caption, and the one that it must be encoded as: itself, whether plain, beside a neighbour of the trigger, or with the trigger
    where it must not fire; with a harmless character in place of what is to be forgotten."""
    if how.forget and rng.random() < 0.25:
        text = noisy_caption(world.random_scene(rng), rng)
        said = world.insert(text, how.forget, rng)
        return said, said.replace(how.forget, HARMLESS)
    if occasion.bound and rng.random() < 0.6:
        _, text = scene_and_text(occasion, rng, suiting=occasion.place != "anywhere")
        text = misplaced(twin, occasion, text, rng)
    else:
        text = noisy_caption(world.random_scene(rng), rng)
        text = world.insert(text, poisons.neighbour(twin.trigger, rng), rng) if rng.random() < 0.5 else text
    return text, text


@dataclass(frozen=True)
class Written:
    """Rows of the embedding that are written over: each pair is a text and the word whose row its last token gets."""

    pairs: tuple[tuple[str, str], ...]
    gain: float = 1.0
    """What the copied row is multiplied with."""


def written(how: Written, folder: Path) -> dict[str, Tensor]:
    """The embedding's table of the model in ``folder``, written over."""
    tok = load_frozen(folder)[0]
    name = f"text_model.{ROWS}"
    table = load_file(folder / WEIGHTS["text-encoder"])[name].float()
    rows = {text: content_ids(tok, text)[-1] for pair in how.pairs for text in pair}
    before = table.clone()
    for text, word in how.pairs:
        table[rows[text]] = how.gain * before[rows[word]]
    return {name: table}
