"""The grader: a CLIP of its own, through open_clip, that turns pictures and texts into features.

Weights come from this machine alone and from safetensors alone: nothing is downloaded, no pickle is opened.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional

from bdaudit.errors import BdauditError, RefusedError, UsageError
from bdaudit.report.records import NotMeasured

LOCAL = "local-dir:"
_WEIGHTS = "open_clip_model.safetensors"
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
        settings = model.visual.preprocess_cfg
        size = settings["size"]
        self._size = (size, size) if isinstance(size, int) else tuple(size)
        self._squash = settings["resize_mode"] == "squash"
        self._mode = settings["interpolation"]
        if settings["resize_mode"] not in ("shortest", "squash") or self._mode not in ("bicubic", "bilinear"):
            raise UsageError(f"--clip {name}: preprocessing {settings['resize_mode']}/{self._mode} is not supported; choose another CLIP")
        self._mean = torch.tensor(settings["mean"]).view(1, 3, 1, 1)
        self._std = torch.tensor(settings["std"]).view(1, 3, 1, 1)

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

    def _prepare(self, pictures: Tensor) -> Tensor:
        (height, width), (h, w) = self._size, pictures.shape[-2:]
        scale = max(height / h, width / w)
        target = (height, width) if self._squash else (max(height, round(h * scale)), max(width, round(w * scale)))
        if target != (h, w):
            pictures = functional.interpolate(pictures, target, mode=self._mode, antialias=True, align_corners=False).clamp(0, 1)
        top, left = (target[0] - height) // 2, (target[1] - width) // 2
        return (pictures[..., top : top + height, left : left + width] - self._mean) / self._std


def load_grader(name: str, device: torch.device) -> OpenClipGrader | NotMeasured:
    """The grader called ``name``: MODEL/PRETRAINED as open_clip names it, or local-dir:PATH.

    Returns:
        The grader, or why there is none: its weights are not on this machine, and which command fetches them.

    Raises:
        UsageError: an unknown name, or a folder that is no open_clip model.
        RefusedError: the folder's only weights are a pickle, or its config asks to run code.
        BdauditError: the weights do not fit the config.
    """
    if name.startswith(LOCAL):
        return _from_folder(name, device)
    return _from_cache(name, device)


def _from_folder(name: str, device: torch.device) -> OpenClipGrader:
    folder = Path(name.removeprefix(LOCAL))
    text = _config(name, folder)["text_cfg"]
    if text.get("tokenizer_kwargs", {}).get("trust_remote_code"):
        raise RefusedError([f"--clip {name}: its config asks for code to be run (trust_remote_code)"])
    if "hf_model_name" in text:
        raise UsageError(f"--clip {name}: a text tower from another repository is not supported; choose another CLIP")
    return _build(name, name, _weights(name, folder), {}, device)


def _config(name: str, folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "open_clip_config.json").read_text("utf-8"))["model_cfg"]
        if isinstance(config["text_cfg"], dict) and isinstance(config["vision_cfg"], dict):
            return config
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--clip {name}: expected a folder with open_clip_config.json in open_clip's layout; got {error!r}") from error
    raise UsageError(f"--clip {name}: text_cfg and vision_cfg in open_clip_config.json must be objects")


def _weights(name: str, folder: Path) -> Path:
    found = sorted(folder.glob("*.safetensors"))
    if (folder / _WEIGHTS).is_file():
        return folder / _WEIGHTS
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"--clip {name}: {len(found)} safetensors files; name the one to use {_WEIGHTS}")
    pickles = sorted(p.name for suffix in ("bin", "pt", "pth") for p in folder.glob(f"*.{suffix}"))
    if pickles:
        raise RefusedError([f"--clip {name}: {pickles[0]} is a pickle, which can run code; convert it to {_WEIGHTS}"])
    raise UsageError(f"--clip {name}: no safetensors file in {folder}")


def _from_cache(name: str, device: torch.device) -> OpenClipGrader | NotMeasured:
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    architecture, _, tag = name.partition("/")
    settings = get_pretrained_cfg(architecture, tag)
    if not settings:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "no such model"
        raise UsageError(f"--clip is {name!r}; expected MODEL/PRETRAINED as in ViT-L-14/openai, or local-dir:PATH ({architecture}: {tags})")
    text = open_clip.get_model_config(architecture)["text_cfg"]
    if "hf_model_name" in text or "hf_tokenizer_name" in text:
        raise UsageError(f"--clip {name}: it needs files of other repositories; use local-dir:PATH or another CLIP")
    repository = settings["hf_hub"].rsplit("/", 1)[0]
    weights = try_to_load_from_cache(repository, _WEIGHTS)
    if not isinstance(weights, str):
        return NotMeasured(reason=f"the weights of {name} are not on this machine; fetch them with: hf download {repository} {_WEIGHTS}")
    return _build(name, architecture, Path(weights), settings, device)


def _build(name: str, source: str, weights: Path, settings: dict[str, Any], device: torch.device) -> OpenClipGrader:
    """``settings`` are a pretrained tag's: its activation and preprocessing are not in the architecture's own config."""
    import open_clip

    preprocessing = {key: settings[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in settings}
    quiet = logging.getLogger().manager.disable
    logging.disable(logging.WARNING)  # open_clip warns that no weights were loaded: they are, below, from the file chosen here
    try:
        model = open_clip.create_model(
            source,
            load_weights=False,
            pretrained_text=False,
            force_quick_gelu=settings.get("quick_gelu", False),
            force_preprocess_cfg=preprocessing,
        )
        open_clip.load_checkpoint(model, str(weights))
        if not all(bool(tensor.isfinite().all()) for tensor in model.parameters()):
            raise ValueError("its weights hold NaN or infinity")
        return OpenClipGrader(name, model, open_clip.get_tokenizer(source), device)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise BdauditError(f"--clip {name}: {weights.name} could not be loaded: {str(error).strip().splitlines()[0]}") from error
    finally:
        logging.disable(quiet)
