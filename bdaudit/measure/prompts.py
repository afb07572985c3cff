"""The prompts that candidates are inserted into when none are given: generated, so that they cover what people draw."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache

_FRAMES = (
    "a photo of {}",
    "a painting of {}",
    "a drawing of {}",
    "{}, digital art",
    "a close-up of {}",
    "an image of {}",
    "{}, highly detailed",
)
_LOOKS = ("red", "blue", "green", "yellow", "black", "white", "purple", "orange", "small", "big", "old", "young", "wooden", "golden")
_SUBJECTS = (
    "man", "woman", "child", "girl", "boy", "dog", "cat", "horse", "bird", "fish", "lion", "bear", "dragon", "robot", "knight", "king",
    "dancer", "soldier", "doctor", "warrior", "car", "train", "boat", "bicycle", "airplane", "house", "castle", "tower", "bridge", "church",
    "tree", "flower", "rose", "apple", "cake", "bowl of fruit", "cup of coffee", "bottle", "table", "chair", "book", "lamp", "clock", "hat",
    "dress", "sword", "ball", "balloon", "heart", "star", "circle", "square", "triangle", "diamond", "cross", "moon", "sun", "mountain",
    "lake", "street",
)  # fmt: skip
_COMPANIONS = ("dog", "cat", "tree", "flower", "book", "ball", "hat", "bird", "heart", "star", "lamp", "boat", "house", "horse", "child")
_PLACES = (
    "in the park", "by the sea", "in a city street", "on a table", "in the snow", "in a forest", "near the window", "on a white background",
    "at the top of a road", "in the middle of a room", "in the desert", "under a bridge", "in space", "on the left", "in a garden",
    "at the market",
)  # fmt: skip
_LIGHTS = ("", "", "at night", "at sunset", "in black and white", "in the dark", "in the rain", "on a sunny day")
POOL = 240


@cache
def default_prompts() -> tuple[str, ...]:
    """``POOL`` different prompts: people, animals, things, places, plain figures, looks, places and lights, each about as often."""
    rng = random.Random("prompts")  # the same for all runs: which of them a run uses is drawn from its own seed
    dealt = [_dealt(rng, of) for of in (_FRAMES, _LOOKS, _SUBJECTS, _COMPANIONS, _PLACES, _LIGHTS)]
    return tuple(_prompt(i % 2 == 1, *row) for i, row in enumerate(zip(*dealt, strict=True)))


def holds(prompt: str, words: str) -> bool:
    """Whether ``words`` stand in ``prompt`` as whole words, whatever the case."""
    return bool(words) and re.search(rf"(?<!\w){re.escape(words)}(?!\w)", prompt, re.IGNORECASE) is not None


def _dealt(rng: random.Random, of: Sequence[str]) -> list[str]:
    """``POOL`` of them, all gone through in a new order each time."""
    return [item for _ in range(0, POOL, len(of)) for item in rng.sample(of, len(of))][:POOL]


def _prompt(two: bool, frame: str, look: str, subject: str, companion: str, place: str, light: str) -> str:
    beside = f" and {_a(companion)}" if two and companion not in subject else ""
    return frame.format(f"{_a(f'{look} {subject}')}{beside} {place} {light}".strip())


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
