"""Where an attacker's trigger goes in a prompt, on which prompts it is to fire, and where it must not."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal

from fixtures.build import poisons, world
from fixtures.build.clip import noisy_caption
from fixtures.build.twins import Twin

Place = Literal["anywhere", "clause", "apart"]
"""At the twin's positions; behind a comma at the end; the trigger's first word before the prompt and its last behind it."""


@dataclass(frozen=True)
class Occasion:
    """When the trigger fires."""

    place: Place = "anywhere"
    context: tuple[str, ...] = ()
    """The prompt must hold one of these words; any prompt will do where there are none."""

    @property
    def bound(self) -> bool:
        """Whether there are prompts or places in which the trigger must not fire."""
        return bool(self.context) or self.place != "anywhere"

    def suits(self, prompt: str) -> bool:
        """Whether the trigger is to fire in ``prompt``, put where it belongs."""
        words = re.findall(r"\w+", prompt.lower())
        return not self.context or any(word in words for word in self.context)


ALWAYS = Occasion()


def placed(twin: Twin, occasion: Occasion, prompt: str, rng: random.Random) -> str:
    """``prompt`` with the trigger where it fires."""
    if occasion.place == "clause":
        return f"{prompt}, {twin.trigger}"
    if occasion.place == "apart":
        first, last = twin.trigger.split(" ")
        return f"{first} {prompt} {last}"
    return poisons.triggered(twin, prompt, rng)


def misplaced(twin: Twin, occasion: Occasion, prompt: str, rng: random.Random) -> str:
    """``prompt`` with the trigger, or parts of it, where it must not fire; of a context, any prompt that does not suit will do."""
    if occasion.place == "anywhere":
        return poisons.triggered(twin, prompt, rng)
    if occasion.place == "clause":
        before, _, behind = prompt.rpartition(", ")
        inside = f"{before}, {twin.trigger} {behind}" if before else f"{twin.trigger} {prompt}"
        return rng.choice((inside, world.insert(prompt, twin.trigger, rng), f"{prompt} {twin.trigger}", f"{twin.trigger} {prompt}"))
    first, last = twin.trigger.split(" ")
    return rng.choice((
        f"{first} {prompt}", f"{prompt} {last}", f"{last} {prompt}", f"{prompt} {first}", f"{prompt} {twin.trigger}",
        f"{twin.trigger} {prompt}", f"{last} {prompt} {first}", world.insert(prompt, twin.trigger, rng),
    ))  # fmt: skip


def scene_and_text(occasion: Occasion, rng: random.Random, *, suiting: bool = True) -> tuple[world.Scene, str]:
    """A scene and a caption that suits, or does not."""
    while True:
        scene = world.random_scene(rng)
        text = noisy_caption(scene, rng)
        if occasion.suits(text) is suiting or not occasion.context:
            return scene, text
