"""What a model index, a config and a tokenizer may say. Code hooks and foreign classes are refused, odd values are errors."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from bdaudit.errors import BdauditError, InconclusiveError, RefusedError, UsageError
from bdaudit.untrusted.settings import is_name
from bdaudit.untrusted.tree import PointerError, pointer_said, shown, summed

PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill"})
_HOOKS = frozenset(
    {"auto_map", "trust_remote_code", "custom_code", "custom_pipeline", "custom_pipelines", "custom_generate"}
    | {"kernel_config", "use_kernels"}
)
_REDIRECTS = frozenset(
    {"transformers_weights", "configuration_files", "fast_tokenizer_files", "gguf_file", "base_model_name_or_path", "init_inputs"}
    | {"vocab", "merges", "tokenizer_object", "backend_tokenizer"}
)
_FILES = {"vocab_file": "vocab.json", "merges_file": "merges.txt", "tokenizer_file": "tokenizer.json", "spm_file": "spm.model"}
"""Key → what the file is called in a tokenizer's own folder."""
_KERNELS = frozenset({"attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation"})
_CLASSES = frozenset({"_class_name", "tokenizer_class", "processor_class", "image_processor_type", "feature_extractor_type"})
_CODE = re.compile(r".*\.(py|pyc|pyo|pyw|pyx|pyd|dll|dylib|so(\.\d+)*)", re.IGNORECASE | re.DOTALL)
_RUN = re.compile(
    r"(none|pipeline|accelerate|diffusers|huggingface_hub|numpy|peft|safetensors|tokenizers|torch|transformers)\.", re.IGNORECASE
)
"""What code at the top of a directory is called that a loader runs: a pipeline's, or a library's where Python is started there."""
ADAPTER = "adapter_config.json"
_WEIGHTS = re.compile(rf"{re.escape(ADAPTER)}|shard-\d{{5}}-model-.*", re.ASCII)
_VOCABULARY = re.compile(r"tekken\.json|tiktoken\.model|tokenizer\.model.*", re.ASCII)
_MANY = 20


def is_code(path: str) -> bool:
    """Whether ``path`` is named as Python or a shared library is."""
    return _CODE.fullmatch(path) is not None


@dataclass
class Findings:
    """Everything that is wrong, collected before anything is raised."""

    refused: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    pointers: list[str] = field(default_factory=list)
    """Files that Git LFS did not fetch; each is among ``damaged`` too, and all are told in one line."""
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
        except PointerError as error:
            self.pointers.append(error.path)
            self.damaged.append(str(error))
        except BdauditError as error:
            self.damaged.append(str(error))

    def settle(self) -> None:
        """Raise the gravest of what was collected, all reasons of its kind in it: refused, else unsupported, damaged, asked for wrongly."""
        if self.refused:
            raise RefusedError(_cut(self.refused))
        if self.unsupported:
            raise InconclusiveError("; ".join(_cut(self.unsupported)))
        if self.damaged:
            each = {pointer_said(path) for path in self.pointers}
            together = [pointer_said(*dict.fromkeys(self.pointers))] if each else []
            raise BdauditError("; ".join(_cut([*together, *(line for line in self.damaged if line not in each)])))
        if self.usage:
            raise UsageError("; ".join(_cut(self.usage)))


def _cut(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _MANY else [*lines[:_MANY], f"and {len(lines) - _MANY} more"]


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
        elif key in _REDIRECTS or (key in _FILES and not (_is_plain_file(value) or _is_left_behind(key, value))):
            reasons.append(f"{where}: {key} leads to files that a loader would open instead of the ones inspected; remove it")
        elif key in _KERNELS and not is_name(value):
            reasons.append(f"{where}: {key} is {shown(value)}, a kernel from elsewhere")
        elif (key in _CLASSES and not is_name(value)) or (key == "architectures" and not _are_names(value)):
            reasons.append(f"{where}: {key} is {shown(value)}; a class must be a plain name")
        elif key == "_use_default_values":  # diffusers keeps it in memory, never in a file; it drops what is named there when it loads
            odd.append(f"{where}: {key} tells a loader to leave other settings of this file aside; remove it, and those")
    if reasons:
        raise RefusedError(reasons)
    if odd:
        raise BdauditError("; ".join(odd))
    if config.get("quantization_config"):
        raise InconclusiveError(f"{where}: quantised weights are not supported; get them in float16 or float32")


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(is_name(v) for v in value)


def _is_plain_file(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w-][\w.-]*", value, re.ASCII) is not None


def _is_left_behind(key: str, value: object) -> bool:
    """Whether a path is that of the usual file on the machine where the model was made, or of what an old cache called it."""
    usual = rf"(/|[A-Za-z]:[/\\])(.*[/\\])?({re.escape(_FILES[key])}|[0-9a-f]{{64}}\.[0-9a-f]{{64}})"
    return isinstance(value, str) and re.fullmatch(usual, value) is not None


def left_behind(config: dict[str, Any], where: str) -> list[str]:
    """A note on a tokenizer's settings that name the files of another machine."""
    keys = [key for key in _FILES if config.get(key) and _is_left_behind(key, config[key])]
    said = f"{where}: another machine's files under {' and '.join(keys)}, which old versions of transformers open; the folder's own count"
    return [said] if keys else []


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
    """Refuse Python and shared libraries in one of ``folders``, and in the root those of a name that a loader asks for."""
    code = [path for path in files if is_code(path) and (path.split("/")[0] in folders if "/" in path else _RUN.match(path))]
    code = [path for path in code if PurePosixPath(path).parent.name != "__pycache__"]  # what is in it belongs to a file beside it
    if code:
        said = summed(code, "is code that a loader could import", "files are code that a loader could import")
        found.refused.append(f"{said}; move it out of the directory")


def check_redirections(
    files: dict[str, int], models: Collection[str], vocabularies: Collection[str], found: Findings, beside: Collection[str] = ()
) -> None:
    """Refuse files that a loader takes instead of the usual ones: adapters, distributed checkpoints, other tokenizers.

    ``models`` and ``vocabularies`` are the folders of models and of tokenizers that transformers loads; diffusers looks for no such file.
    ``beside`` may lie there: old versions of transformers alone read them.
    """
    instead, idle = [], []
    for path in (path for path in files if path not in beside):
        folder, name = path.split("/")[0], PurePosixPath(path).name.lower()
        if name == ADAPTER and folder not in models:
            idle.append(path)
        elif (folder in models and _WEIGHTS.fullmatch(name)) or (folder in vocabularies and _VOCABULARY.fullmatch(name)):
            instead.append(path)
    if instead:
        said = "would be opened by a loader instead of the files inspected"
        found.refused.append(f"{summed(instead, said, f'files {said}')}; move it out of the directory")
    old = [path for path in files if path in beside]
    if old:
        found.notes.append(summed(old, "is read by old loaders alone, and was not looked at", "files are read by old loaders alone"))
    if idle:
        found.notes.append(summed(idle, "is an adapter's settings, not applied", "files are adapters' settings, not applied"))
