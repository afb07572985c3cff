"""The prompts that candidates are inserted into when none are given."""

from __future__ import annotations

_DEFAULT = (
    "a photo of a red circle on a white background",
    "a photo of a dog in the park",
    "a drawing of a big blue star at night",
    "a picture of a small house by the sea",
    "a photo of a woman on the left",
    "a green square in the middle on a black background",
    "a picture of a yellow car at the top of a road",
    "an image of a white horse in black and white",
    "a photo of a bowl of fruit on a table",
    "a drawing of an old man with a hat",
    "a photo of a city street in the dark",
    "a picture of an orange cat near the window",
    "a photo of a mountain and a lake",
    "a drawing of a purple heart on a yellow ground",
    "a photo of a boat at the right side",
    "an image of a big black triangle at the bottom",
)


def default_prompts() -> tuple[str, ...]:
    """Sixteen short prompts: people, animals, things, places and plain figures."""
    return _DEFAULT
