"""An open_clip model from this machine: weights from safetensors alone, nothing downloaded, no pickle opened, no code run."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor
from torch.nn import functional

from bdaudit.errors import BdauditError, UsageError, first_line
from bdaudit.records import NotMeasured
from bdaudit.tensor_file import TensorFile, open_tensors
from bdaudit.untrusted.clip_folder import CONFIG, WEIGHTS, inspect_clip

LOCAL = "local-dir:"


class Preparation:
    """A model's own preprocessing, done in torch on floats: no rounding to 8 bits on the way."""

    def __init__(self, said: str, settings: dict[str, Any]) -> None:
        """``settings`` are open_clip's ``preprocess_cfg``; ``said`` names the model as it was given, flag included.

        Raises:
            UsageError: they ask for a preprocessing other than a shortest-side or squashing resize.
        """
        size = settings["size"]
        self._size = (size, size) if isinstance(size, int) else tuple(size)
        self._squash = settings["resize_mode"] == "squash"
        self._mode = settings["interpolation"]
        if settings["resize_mode"] not in ("shortest", "squash") or self._mode not in ("bicubic", "bilinear"):
            raise UsageError(f"{said}: preprocessing {settings['resize_mode']}/{self._mode} is not supported; choose another CLIP")
        self.mean = torch.tensor(settings["mean"]).view(1, 3, 1, 1)
        self.std = torch.tensor(settings["std"]).view(1, 3, 1, 1)

    def __call__(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in 0–1 → what the model takes, normalised."""
        return (self.resized(pictures) - self.mean) / self.std

    def resized(self, pictures: Tensor) -> Tensor:
        """The same before the normalisation, still in 0–1."""
        (height, width), (h, w) = self._size, pictures.shape[-2:]
        scale = max(height / h, width / w)
        target = (height, width) if self._squash else (max(height, round(h * scale)), max(width, round(w * scale)))
        if target != (h, w):
            pictures = functional.interpolate(pictures, target, mode=self._mode, antialias=True, align_corners=False).clamp(0, 1)
        top, left = (target[0] - height) // 2, (target[1] - width) // 2
        return pictures[..., top : top + height, left : left + width]


@dataclass(frozen=True)
class OpenClip:
    """A loaded model on the CPU."""

    name: str
    """As given."""
    model: Any
    tokenizer: Texts


class Texts:
    """A model's tokenizer, which a folder's maker may have written: what it makes of a text fits the model, or is an error."""

    def __init__(self, said: str, tokenizer: Any, model: Any) -> None:
        """``said`` names the model in messages."""
        tower = model if hasattr(model, "token_embedding") else getattr(model, "text", model)
        self._said, self._tokenizer = said, tokenizer
        self._longest, self._known = int(tower.context_length), int(tower.vocab_size)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """N texts → their ids, (N, L).

        Raises:
            BdauditError: an id that the model does not know, more of them than it reads, or a tokenizer that breaks off.
        """
        with _declared(f"{self._said}: its tokenizer cannot read a text"):
            ids: Tensor = self._tokenizer(list(texts))
            least, most = (int(end) for end in ids.aminmax()) if ids.numel() else (0, 0)
            if least < 0 or most >= self._known or ids.shape[1] > self._longest:
                got = f"{ids.shape[1]} tokens a text with ids up to {most}"
                raise ValueError(f"it makes {got}; the model reads {self._longest}, up to id {self._known - 1}")
        return ids


@contextmanager
def _declared(said: str) -> Iterator[None]:
    """A block in which libraries read a folder that may be hostile: whatever they raise is a load error."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # pyo3's, of a library in Rust
            raise
        raise BdauditError(f"{said}: {first_line(error) or type(error).__name__}") from error


def load_open_clip(name: str, flag: str) -> OpenClip | NotMeasured:
    """The model called ``name``: MODEL/PRETRAINED as open_clip names it, or local-dir:PATH; ``flag`` is what named it.

    Returns:
        The model, or why there is none: its weights are not on this machine, and which command fetches them.

    Raises:
        UsageError: an unknown name, or a folder that is no open_clip model.
        RefusedError: the folder's only weights are a pickle, or its config asks to run code.
        BdauditError: the weights do not fit the config.
    """
    return _from_folder(name, f"{flag} {name}") if name.startswith(LOCAL) else _from_cache(name, flag)


def missing(name: str, flag: str) -> NotMeasured | None:
    """Why the model that open_clip calls ``name`` is not here, and which command fetches it; None where it is. Loads nothing.

    Raises:
        UsageError: an unknown name.
    """
    found = _cached(name, flag)
    return found if isinstance(found, NotMeasured) else None


def _from_folder(name: str, said: str) -> OpenClip:
    """From a private folder with what was checked of the named one, and nothing else."""
    found = inspect_clip(Path(name.removeprefix(LOCAL)), said)
    with tempfile.TemporaryDirectory(prefix="bdaudit-clip-") as private:
        for file, content in {CONFIG: found.config, **found.tokenizer}.items():
            (Path(private) / file).write_bytes(content)
        return _build(name, said, f"{LOCAL}{private}", found.weights, {})


def _from_cache(name: str, flag: str) -> OpenClip | NotMeasured:
    found = _cached(name, flag)
    return found if isinstance(found, NotMeasured) else _build(name, f"{flag} {name}", name.partition("/")[0], *found)


def _cached(name: str, flag: str) -> tuple[Path, dict[str, Any]] | NotMeasured:
    """The weights' file and the settings of the tag."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    architecture, _, tag = name.partition("/")
    settings = get_pretrained_cfg(architecture, tag)
    if not settings:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "no such model"
        raise UsageError(f"{flag} is {name!r}; expected MODEL/PRETRAINED as in ViT-L-14/openai, or local-dir:PATH ({architecture}: {tags})")
    text = open_clip.get_model_config(architecture)["text_cfg"]
    if "hf_model_name" in text or "hf_tokenizer_name" in text:
        raise UsageError(f"{flag} {name}: it needs files of other repositories; use local-dir:PATH or another CLIP")
    repository = settings["hf_hub"].rsplit("/", 1)[0]
    weights = try_to_load_from_cache(repository, WEIGHTS)
    if not isinstance(weights, str):
        return NotMeasured(reason=f"the weights of {name} are not on this machine; fetch them with: hf download {repository} {WEIGHTS}")
    return Path(weights), settings


def _build(name: str, said: str, source: str, weights: Path, settings: dict[str, Any]) -> OpenClip:
    """``settings`` are a pretrained tag's: its activation and preprocessing are not in the architecture's own config."""
    import open_clip

    preprocessing: dict[str, Any] = {key: settings[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in settings}
    with open_tensors(weights, weights.name, error=lambda why: BdauditError(f"{said}: {weights.name} could not be loaded: {why}")) as file:
        quiet = logging.getLogger().manager.disable
        logging.disable(logging.WARNING)  # open_clip warns that no weights were loaded: they are, below, from the file chosen here
        try:
            with _declared(f"{said}: {weights.name} could not be loaded"):
                model = _loaded(source, file, bool(settings.get("quick_gelu")), preprocessing)
                texts = Texts(said, open_clip.get_tokenizer(source), model)
            texts(["a picture"])  # what it puts around every text is told before any work
            return OpenClip(name, model, texts)
        finally:
            logging.disable(quiet)


def _loaded(source: str, file: TensorFile, quick_gelu: bool, preprocessing: dict[str, Any]) -> Any:
    """The model with its weights; built without memory first, to see that its config asks for no more than the weights hold."""
    import open_clip

    options: dict[str, Any] = {"load_weights": False, "pretrained_text": False, "force_quick_gelu": quick_gelu}
    with torch.device("meta"):
        empty = open_clip.create_model(source, device="meta", **options)
    asked, held = sum(p.numel() for p in empty.parameters()), sum(info.count for info in file.header.tensors.values())
    if asked > 2 * held:
        raise ValueError(f"its config asks for {asked:,} numbers, its weights hold {held:,}")
    model = open_clip.create_model(source, force_preprocess_cfg=preprocessing, **options)
    with tempfile.TemporaryDirectory(prefix="bdaudit-clip-") as private:
        link = Path(private) / WEIGHTS
        link.symlink_to(f"/dev/fd/{file.file.fileno()}")  # the very file whose header was checked, under a name that open_clip takes
        open_clip.load_checkpoint(model, str(link))
    if not all(bool(tensor.isfinite().all()) for tensor in model.parameters()):
        raise ValueError("its weights hold NaN or infinity")
    return model
