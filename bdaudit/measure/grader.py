"""The grader: a CLIP of its own, through open_clip, that turns pictures and texts into features.

Weights come from this machine alone and from safetensors alone: nothing is downloaded, no pickle is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from bdaudit.measure.open_clip_model import Preparation, load_open_clip
from bdaudit.records import NotMeasured

_BATCH = 32


class Extractor(Protocol):
    """Anything that turns pictures into features."""

    @property
    def name(self) -> str:
        """What the report calls it."""

    @property
    def gamma(self) -> float | None:
        """Scale of KID's kernel: 1 for features of length 1, None (1/D) where features have their natural length."""

    def image_features(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in 0–1 → features (N, D), float32 on the CPU."""


class Grader(Extractor, Protocol):
    """An extractor that places texts in the same space; both of length 1."""

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """N texts → (N, D), float32 on the CPU."""


class OpenClipGrader:
    """An open_clip model with its own preprocessing, done in torch on floats: no rounding to 8 bits on the way."""

    gamma = 1.0

    def __init__(self, name: str, model: Any, tokenizer: Any, device: torch.device) -> None:
        """Take a loaded open_clip ``model`` and its tokenizer.

        Raises:
            UsageError: the model asks for a preprocessing other than a shortest-side or squashing resize.
        """
        self.name = name
        self._model = model.to(device).eval().requires_grad_(False)
        self._tokenizer, self._device = tokenizer, device
        self._prepare = Preparation(f"--clip {name}", model.visual.preprocess_cfg)

    @torch.no_grad()
    def image_features(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in 0–1 → features of length 1, (N, D)."""
        parts = [self._model.encode_image(self._prepare(part).to(self._device)) for part in torch.split(pictures, _BATCH)]
        return functional.normalize(torch.cat(parts).float().cpu(), dim=1)

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """N texts → features of length 1, (N, D); texts beyond the model's length are cut by its tokenizer."""
        parts = [self._model.encode_text(ids.to(self._device)) for ids in torch.split(self._tokenizer(list(texts)), _BATCH)]
        return functional.normalize(torch.cat(parts).float().cpu(), dim=1)


def load_grader(name: str, device: torch.device) -> OpenClipGrader | NotMeasured:
    """The grader called ``name``: MODEL/PRETRAINED as open_clip names it, or local-dir:PATH.

    Returns:
        The grader, or why there is none: its weights are not on this machine, and which command fetches them.

    Raises:
        UsageError: an unknown name, or a folder that is no open_clip model.
        RefusedError: the folder's only weights are a pickle, or its config asks to run code.
        BdauditError: the weights do not fit the config.
    """
    found = load_open_clip(name, "--clip")
    return found if isinstance(found, NotMeasured) else OpenClipGrader(found.name, found.model, found.tokenizer, device)
