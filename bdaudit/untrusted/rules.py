"""What a model index, a config and a tokenizer may say. Code hooks and foreign classes are refused, odd values are errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from bdaudit.errors import BdauditError, InconclusiveError, RefusedError, UsageError
from bdaudit.untrusted.tree import shown

PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill"})
REQUIRED = {
    "tokenizer": ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast")),
    "text_encoder": ("transformers", ("CLIPTextModel",)),
    "unet": ("diffusers", ("UNet2DConditionModel",)),
    "vae": ("diffusers", ("AutoencoderKL",)),
}
OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder")
"""Listed and never loaded."""

_PARTS = frozenset({*REQUIRED, "scheduler", *OPTIONAL})
_HOOKS = frozenset(
    {"auto_map", "trust_remote_code", "custom_code", "custom_pipeline", "custom_pipelines", "custom_generate"}
    | {"kernel_config", "use_kernels"}
)
_REDIRECTS = frozenset(
    {"transformers_weights", "configuration_files", "fast_tokenizer_files", "gguf_file", "base_model_name_or_path", "init_inputs"}
    | {"vocab", "merges", "tokenizer_object", "backend_tokenizer"}
)
_FILES = frozenset({"vocab_file", "merges_file", "tokenizer_file", "spm_file"})
_KERNELS = frozenset({"attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation"})
_STRINGS = frozenset(
    {"_diffusers_version", "_name_or_path", "model_type", "transformers_version", "act_fn", "hidden_act", "beta_schedule"}
    | {"prediction_type", "timestep_spacing", "mid_block_type", "torch_dtype", "dtype", "time_embedding_type"}
)
_CLASSES = frozenset({"_class_name", "tokenizer_class", "processor_class", "image_processor_type", "feature_extractor_type"})
_CODE = re.compile(r".*\.(py|pyc|pyo|pyw|pyx|pyd|dll|dylib|so(\.\d+)*)", re.IGNORECASE | re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_INSTEAD = re.compile(r"adapter_config\.json|shard-\d{5}-model-.*|tekken\.json|tiktoken\.model|tokenizer\.model.*", re.ASCII)
_LABELS = frozenset({"id2label", "label2id", "task_specific_params", "quantization_config"})
_MANY = 20


def is_name(value: object) -> bool:
    """Whether ``value`` is one plain ASCII identifier."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def is_code(path: str) -> bool:
    """Whether ``path`` is named as Python or a shared library is."""
    return _CODE.fullmatch(path) is not None


@dataclass
class Findings:
    """Everything that is wrong, collected before anything is raised."""

    refused: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    unsupported: list[str] = field(default_factory=list)
    usage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Collect what the block raises."""
        try:
            yield
        except RefusedError as error:
            self.refused += error.reasons
        except InconclusiveError as error:
            self.unsupported.append(str(error))
        except UsageError as error:
            self.usage.append(str(error))
        except BdauditError as error:
            self.damaged.append(str(error))

    def settle(self) -> None:
        """Raise the gravest of what was collected, all reasons of its kind in it: refused, else unsupported, damaged, asked for wrongly."""
        if self.refused:
            raise RefusedError(_cut(self.refused))
        if self.unsupported:
            raise InconclusiveError("; ".join(_cut(self.unsupported)))
        if self.damaged:
            raise BdauditError("; ".join(_cut(self.damaged)))
        if self.usage:
            raise UsageError("; ".join(_cut(self.usage)))


def _cut(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _MANY else [*lines[:_MANY], f"and {len(lines) - _MANY} more"]


def components(index: dict[str, Any], found: Findings) -> dict[str, tuple[str, str]]:
    """Component → (library, class), the null ones left out; what may not be loaded goes to ``found``."""
    parts: dict[str, tuple[str, str]] = {}
    for name, value in index.items():
        if name.startswith("_") or not (isinstance(value, list | dict) or (name in _PARTS and isinstance(value, str))):
            continue
        with found.catching():
            pair = _component(name, value)
            if pair is not None:
                parts[name] = pair
    return parts


def _component(name: str, value: Any) -> tuple[str, str] | None:
    where = f"model_index.json: {shown(name)}"
    if not isinstance(value, list) or len(value) != 2:
        raise BdauditError(f"{where} is {shown(value)}; expected [library, class]")
    library, class_name = value
    if library is None:
        return None
    if not is_name(name) or not is_name(class_name):
        raise RefusedError([f"{where} is {shown(value)}; component and class must be plain names"])
    if library == "stable_diffusion" and name == "safety_checker":
        return library, class_name
    if library not in ("diffusers", "transformers"):
        raise RefusedError([f"{where} comes from {shown(library)}; only classes of diffusers and transformers are loaded"])
    return library, class_name


def check_pipeline(index: dict[str, Any], parts: dict[str, tuple[str, str]], found: Findings) -> None:
    """Whether this is Stable Diffusion 1.x or 2.x by its parts: CLIP tokenizer and text encoder, UNet, KL autoencoder, scheduler."""
    name = index.get("_class_name")
    if not is_name(name):
        kind = found.damaged if name is None else found.refused
        kind.append(f"model_index.json: _class_name is {shown(name)}; expected one plain name, as StableDiffusionPipeline")
    elif not re.fullmatch(r"StableDiffusion\w*Pipeline", str(name)):
        found.unsupported.append(f"{shown(name)} is not supported; expected a Stable Diffusion 1.x or 2.x pipeline")
    for part, (library, classes) in REQUIRED.items():
        got = parts.get(part)
        if got is None or got[0] != library or got[1] not in classes:
            found.unsupported.append(f"{part} is {shown('.'.join(got) if got else 'missing')}; expected {library}.{classes[0]}")
    scheduler = parts.get("scheduler")
    if scheduler is None or scheduler[0] != "diffusers" or not scheduler[1].endswith("Scheduler"):
        found.unsupported.append("no scheduler of diffusers")
    for extra in sorted(set(parts) - _PARTS):
        found.unsupported.append(f"the pipeline has a component {shown(extra)}, which is not supported")


def check_config(config: dict[str, Any], where: str) -> None:
    """Refuse code hooks, and redirections to files that were not inspected, at any depth.

    Raises:
        RefusedError: a hook or a redirection.
        BdauditError: a list or a map where a string belongs.
        InconclusiveError: quantised weights.
    """
    reasons, odd = [], []
    for key, value in _pairs(config):
        if not value:
            continue
        if key in _HOOKS:
            reasons.append(f"{where}: {key} asks for code that is not in diffusers or transformers")
        elif key in _REDIRECTS or (key in _FILES and not _is_plain_file(value)):
            reasons.append(f"{where}: {key} leads to files that a loader would open instead of the ones inspected")
        elif key in _KERNELS and not is_name(value):
            reasons.append(f"{where}: {key} is {shown(value)}, a kernel from elsewhere")
        elif (key in _CLASSES and not is_name(value)) or (key == "architectures" and not _are_names(value)):
            reasons.append(f"{where}: {key} is {shown(value)}; a class must be a plain name")
        elif key == "_use_default_values":  # diffusers keeps it in memory, never in a file; it drops what is named there when it loads
            odd.append(f"{where}: {key} tells a loader to leave other settings of this file aside; remove it, and those")
        elif key in _STRINGS and not isinstance(value, str):
            odd.append(f"{where}: {key} is {shown(value)}; expected a string")
    if reasons:
        raise RefusedError(reasons)
    if odd:
        raise BdauditError("; ".join(odd))
    if config.get("quantization_config"):
        raise InconclusiveError(f"{where}: quantised weights are not supported")


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(is_name(v) for v in value)


def _is_plain_file(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w-][\w.-]*", value, re.ASCII) is not None


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            yield from item.items()
            todo += item.values()
        elif isinstance(item, list):
            todo += item


def check_code(files: dict[str, int], folders: set[str], found: Findings) -> None:
    """Refuse Python and shared libraries in the root or in one of ``folders``, where a loader could import them."""
    for path in files:
        if is_code(path) and ("/" not in path or path.split("/")[0] in folders):
            found.refused.append(f"{shown(path)} is code that a loader could import")


def check_redirections(files: dict[str, int], found: Findings) -> None:
    """Refuse files that a loader would take instead of the usual ones: adapters, distributed checkpoints, other tokenizers."""
    for path in files:
        if path.split("/")[0] in (*REQUIRED, "scheduler") and _INSTEAD.fullmatch(PurePosixPath(path).name.lower()):
            found.refused.append(f"{shown(path)}: a loader would open it instead of the files inspected")


def check_text_encoder(config: dict[str, Any], where: str) -> None:
    """Refuse to guess which of two descriptions counts: a map in a text encoder's config can stand for the settings beside it.

    Raises:
        BdauditError: a map that is no list of labels.
    """
    for key, value in config.items():
        if isinstance(value, dict) and value and key not in _LABELS:
            raise BdauditError(f"{where}: {shown(key)} is a map; a CLIPTextModel's settings stand by themselves")


def check_scheduler(config: dict[str, Any], where: str) -> None:
    """Bound what a scheduler allocates: tables as long as its timesteps.

    Raises:
        BdauditError: a number above a million, or timesteps outside 1–100,000.
    """
    steps = config.get("num_train_timesteps", 1000)
    if type(steps) is not int or not 1 <= steps <= 100_000:
        raise BdauditError(f"{where}: num_train_timesteps is {shown(steps)}; expected 1 to 100,000")
    for key, value in _pairs(config):
        if type(value) is int and abs(value) > 1_000_000:
            raise BdauditError(f"{where}: {shown(key)} is {shown(value)}; that is out of any range")
