"""What is trained: which tensors of its component each trainable set holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bdaudit.models import patch

TRAINABLE: dict[str, Callable[[str], bool]] = {
    "closed-form": lambda name: name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")),
    "cross-attention": lambda name: ".attn2." in name,
    "unet": lambda name: True,
    "text-encoder": lambda name: True,
}
"""Which parameters of its component each trainable set holds, by name."""


class Patch(patch.Patch):
    """The tensors of one trainable set beside their originals, which are the teacher's."""

    def __init__(self, module: Any, trainable: str) -> None:
        super().__init__(module, TRAINABLE[trainable])
