"""What becomes of everything that lies in a directory and is not loaded: one table for files, one for tensors.

A row is taken by its order: the first that fits. What a loader could take in place of the audited weights is never a note.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePosixPath

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted import rules
from bdaudit.untrusted.layouts.layout import NEVER_LOADED, Part
from bdaudit.untrusted.safetensors_header import TensorInfo
from bdaudit.untrusted.shapes import Tensors
from bdaudit.untrusted.tree import Link, shown

WEIGHTS = (".safetensors", ".sft")
"""Suffixes of files whose header is read, wherever they lie."""
OTHER_FRAMEWORKS = (".msgpack", ".h5", ".onnx", ".onnx_data", ".pb", ".gguf", ".tflite", ".npz", ".ot", ".xml", ".mlmodel")
ADAPTER = re.compile(r"(^|[._])(lora|hada|lokr|oft|alpha|dora_scale|diff|diff_b)([._]|$)|^bundle_emb\.", re.IGNORECASE)
_INDEX = re.compile(r".*(safetensors.*index|index.*safetensors).*\.json", re.IGNORECASE | re.DOTALL)
_PARTS = re.compile(r"unet|vae|text_encoder|checkpoint|weights|model|(^|[^a-z])(ema|ckpt|fp16|bf16)([^a-z]|$)", re.IGNORECASE)
"""Names of folders with weights that loaders are pointed at."""
WHOLE = ".dduf"
"""A whole pipeline in one file, which ``from_pretrained(dduf_file=…)`` takes in place of the folders."""
_FEW = 8
"""Tensors; an embedding that was learned has one to three, a part of the model hundreds."""


class Outcome(Enum):
    """What a leftover does to the run; an error, where a loader would be misled, is raised where the file is read."""

    NOTE = "note"
    UNAUDITED = "exit 4, unless --variant chose"


@dataclass(frozen=True)
class Leftover:
    """A file, or the files of an index, that loading does not open."""

    path: str
    tensors: Tensors = field(default_factory=dict)
    """Empty for what holds none, or was not read."""
    trouble: str = ""
    """Why its tensors could not be read."""
    loadable: bool = True
    """False for what no loader takes: cut short, a pointer, one of several files whose index lists more than there are."""
    link: Link | None = None
    alone: bool = False
    """A pickle where a loader looks, without safetensors of its variant."""

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.path).suffix.lower()


@dataclass(frozen=True)
class Row:
    kind: str
    fits: Callable[[Leftover], bool]
    outcome: Outcome
    words: str
    """The note, or why it counts as not audited."""


def _other_component(file: Leftover) -> bool:
    folder, _, name = file.path.rpartition("/")
    return folder in NEVER_LOADED and re.fullmatch(r"(model|diffusion_pytorch_model)(\.[\w-]+)?\.safetensors", name) is not None


def _link_to_weights(file: Leftover) -> bool:
    """What lies at its end is outside, and named as a part of a model is; or in a folder that was not entered."""
    named = file.suffix in WEIGHTS or _PARTS.search(file.path) is not None
    return file.link is not None and (file.link.hidden or (file.link.outside and named))


def _holds_none(file: Leftover) -> bool:
    return file.suffix not in WEIGHTS and not file.tensors and not file.trouble


def is_index(path: str) -> bool:
    """Whether the file is named as an index of several weights files is."""
    return _INDEX.fullmatch(path) is not None


def holds_weights(path: str) -> bool:
    """Whether a file that is not loaded may be weights of a part that is, or an index of such."""
    file = Leftover(path)
    return is_index(path) or (file.suffix in WEIGHTS and not _other_component(file))


FILES = (
    Row("a link that may stand for weights", _link_to_weights, Outcome.UNAUDITED, "it is a link, which is not followed"),
    Row("another link", lambda f: f.link is not None, Outcome.NOTE, "links that are not followed"),
    Row("code", lambda f: rules.is_code(f.path), Outcome.NOTE, "code that neither diffusers nor transformers runs"),
    Row("a lone pickle", lambda f: f.alone, Outcome.UNAUDITED, "it is a pickle, and there are no safetensors of its variant"),
    # from_pretrained(use_safetensors=False) takes them; that is the caller's own leave to unpickle, and to open them here is no choice
    Row("a pickle", lambda f: f.suffix in rules.PICKLE_SUFFIXES, Outcome.NOTE, "pickles that nothing opens"),
    # from_pretrained takes none of them unless it is told to: from_flax, from_tf, export, a GGUF quantisation
    Row("another framework's", lambda f: f.suffix in OTHER_FRAMEWORKS, Outcome.NOTE, "files left alone, in no digest"),
    Row("no weights", _holds_none, Outcome.NOTE, "files left alone, in no digest"),
    Row("a hidden file", lambda f: PurePosixPath(f.path).name.startswith("."), Outcome.NOTE, "files left alone, in no digest"),
    Row("what no loader takes", lambda f: not f.loadable, Outcome.NOTE, "weights that are not whole, so that nothing can load them"),
    Row("unreadable weights", lambda f: bool(f.trouble), Outcome.UNAUDITED, "it cannot be read"),
    Row("another component's", _other_component, Outcome.NOTE, "weights of components that are not loaded"),
    Row("an adapter", lambda f: all(map(ADAPTER.search, f.tensors)), Outcome.NOTE, "adapters, not applied"),
    Row("an embedding", lambda f: len(f.tensors) <= _FEW, Outcome.NOTE, "learned embeddings and the like, not used"),
    # a variant, an EMA's, a subfolder's, a checkpoint in one file: whatever holds tensors enough to be a part, or all, of the model
    Row("weights", lambda f: True, Outcome.UNAUDITED, ""),
)


def row_of(file: Leftover) -> Row:
    """The first row that fits."""
    return next(row for row in FILES if row.fits(file))


_SCALED = "scaled 8-bit weights, which mean nothing without the scales beside them; get the weights in float16 or float32"
_QUANTISED = "quantised weights, which stock loaders would read as plain numbers; get the weights in float16 or float32"
_WRAPPERS = {"_orig_mod.": "a compiled model", "module.": "a model on several devices"}
"""Prefix of names → what was saved in the model's place."""
TENSORS = {
    r"(.*\.)?(scaled_fp8|scale_weight|weight_scale|weight_scale_inv|input_scale|scale_input|comfy_quant)": _SCALED,
    r".*\.(absmax|quant_map|quant_state\..*|qweight|qzeros|scales|g_idx|SCB|weight_format)": _QUANTISED,
}
"""Pattern of a whole name → why it is an error."""


def _is_matrix(info: TensorInfo, constant: bool) -> bool:
    return len(info.shape) > 1 and not constant


def check_tensors(name: str, part: Part, tensors: Tensors) -> None:
    """Refuse by name what a stock loader would leave aside though the weights of the part ``name`` mean nothing without it.

    Raises:
        InconclusiveError: scaled or quantised weights.
        BdauditError: two tensors of one name; names with a wrapper's prefix.
    """
    canonical: dict[str, str] = {}
    wrapped = next((prefix for prefix in _WRAPPERS if any(tensor.startswith(prefix) for tensor in tensors)), "")
    if wrapped:
        said = (
            f"its tensors are called {wrapped}…, as those of {_WRAPPERS[wrapped]} are, and stock loaders put random numbers in their place"
        )
        raise BdauditError(f"{name}: {said}; save what is inside it: `{name}.{wrapped}save_pretrained(DIR)`")
    for tensor in tensors:
        for pattern, said in TENSORS.items():
            if re.fullmatch(pattern, tensor):
                raise InconclusiveError(f"{name}: {shown(tensor)} says that these are {said}")
    whole = next((tensor for tensor, info in tensors.items() if "F" not in info.dtype and _is_matrix(info, part.is_constant(tensor))), "")
    if whole:
        raise InconclusiveError(f"{name}: {shown(whole)} is {tensors[whole].dtype}, so that these are {_QUANTISED}")
    for tensor in tensors:
        other = canonical.setdefault(part.canonical(tensor), tensor)
        if other != tensor:
            raise BdauditError(f"{name}: {shown(other)} and {shown(tensor)} are one tensor of the model; a loader takes either of them")
