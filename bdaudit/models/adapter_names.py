"""What an adapter's tensors are called, by each tool that writes them: which module of which component, and which factor of its change.

A name that is not known ends in "not supported": a tensor that were left out could be the backdoor.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from bdaudit.errors import InconclusiveError
from bdaudit.untrusted.formats.names import ldm_unet
from bdaudit.untrusted.tree import shown

Family = Literal["kohya", "diffusers", "ComfyUI", "peft", "bare"]
"""Whose spelling it is: ``lora_unet_…``, ``unet.…``, ``diffusion_model.…``, ``base_model.model.…``, or a layer's own name alone."""

_ROLES = (
    (re.compile(r"(?P<module>.+)\.lora_A(\.default)?\.weight"), "down"),
    (re.compile(r"(?P<module>.+)\.lora_B(\.default)?\.weight"), "up"),
    (re.compile(r"(?P<module>.+)\.lora_magnitude_vector(\.default)?(\.weight)?"), "magnitude"),
    (re.compile(r"(?P<module>.+?)[._]lora(\.|_linear_layer\.|_)down\.weight"), "down"),
    (re.compile(r"(?P<module>.+?)[._]lora(\.|_linear_layer\.|_)up\.weight"), "up"),
    (re.compile(r"(?P<module>.+)\.lora_mid\.weight"), "mid"),
    (re.compile(r"(?P<module>.+)\.(hada_w[12]_[ab]|hada_t[12]|lokr_w[12](_[ab])?|lokr_t2|diff|diff_b|dora_scale|alpha)"), ""),
    (re.compile(r"(?P<module>.+)\.w_norm"), "diff"),
    (re.compile(r"(?P<module>.+)\.b_norm"), "diff_b"),
)
_EMBEDDING = "bundle_emb."
LONGEST = 500
"""Characters of a tensor's name; those in use have up to 150."""
_PREFIXES: dict[Family, dict[str, str]] = {
    "kohya": {"lora_unet_": "unet", "lora_te1_": "text_encoder", "lora_te2_": "text_encoder_2", "lora_te_": "text_encoder"},
    "diffusers": {"unet.": "unet", "text_encoder.": "text_encoder", "text_encoder_2.": "text_encoder_2"},
    "ComfyUI": {
        "diffusion_model.": "unet", "text_encoders.clip_l.transformer.": "text_encoder",
        "text_encoders.clip_h.transformer.": "text_encoder", "text_encoders.clip_g.transformer.": "text_encoder_2",
    },
    "peft": {"base_model.model.": ""},
}  # fmt: skip
"""Family → beginning of a name → the component that it is of, empty where it does not say."""
_OTHER_MODEL = re.compile(r"lora_te3_|text_encoder_3\.|lora_transformer_|transformer\.|lora_unet_(double|single|joint)_blocks_")
_NUMBERINGS = {
    "the original code": re.compile(r"(input_blocks|middle_block|output_blocks)[._]"),
    "diffusers": re.compile(r"(down_blocks|mid_block|up_blocks)[._]"),
}
"""Whose numbers the UNet's blocks have: kohya's tools take the original code's for SDXL, diffusers' for Stable Diffusion."""
_ORIGINAL = re.compile(r"(input_blocks|middle_block|output_blocks|time_embed|label_emb|out)[._]\d")
"""The same of every layer that the original code calls otherwise than diffusers does."""
_TEXT_PROJECTION = re.compile(r"_to_(q|k|v|out)(_0)?$")


@dataclass(frozen=True)
class Key:
    """One tensor's name, taken apart."""

    family: Family
    component: str
    """Empty where the name does not say."""
    module: str
    """Without what stands before it."""
    role: str
    alpha_elsewhere: bool
    """Whether it is a factor in peft's spelling, whose alpha stands in settings."""


def taken_apart(name: str, where: str) -> Key:
    """Whose spelling, which module, which factor.

    Raises:
        InconclusiveError: no part of a change of weights that is known.
    """
    _check_supported(name, where)
    for pattern, role in _ROLES if len(name) <= LONGEST else ():
        match = pattern.fullmatch(name)
        if match:
            family, component, module = _owner(match["module"])
            role = role or match[2]
            elsewhere = role not in ("alpha", "diff", "diff_b", "dora_scale") and not name.endswith(("down.weight", "up.weight"))
            return Key(family, component, module, role, elsewhere)
    known = "LoRA, LoCon, LoHa, LoKr, DoRA and full differences are"
    raise InconclusiveError(f"{where}: {shown(name)} is no part of an adapter that is supported ({known}); nothing of it was applied")


def _check_supported(name: str, where: str) -> None:
    """Raises ``InconclusiveError`` for what is known and not supported, each with what to do."""
    if name.startswith(_EMBEDDING):
        text = shown(name.removeprefix(_EMBEDDING).partition(".string_to_param")[0], 60)
        said = f"{where} bundles an embedding (textual inversion) for the text {text!r}, which is not audited with an adapter"
        raise InconclusiveError(f"{said}; save it into a file of its own for --embedding, and this file without it")
    if _OTHER_MODEL.match(name):
        said = f"{where}: {shown(name)} is a layer of another architecture"
        raise InconclusiveError(f"{said}; adapters of Stable Diffusion 1.x, 2.x and XL are supported")
    if name.endswith(".scalar"):
        said = f"{where}: {shown(name)} is a factor that diffusers leaves out and other tools apply, so there is no one model to audit"
        raise InconclusiveError(f"{said}; merge the adapter with the tool that you use, and audit the result")


def _owner(module: str) -> tuple[Family, str, str]:
    for family, prefixes in _PREFIXES.items():
        for prefix, component in prefixes.items():
            if module.startswith(prefix):
                return family, component, module.removeprefix(prefix)
    return "bare", "", module


def one_family(keys: Iterable[Key], where: str) -> Family:
    """The spelling of all of them.

    Raises:
        InconclusiveError: two spellings in one file, or two numberings of blocks, of which a loader takes one and leaves the other out.
    """
    keys = list(keys)
    families = sorted({key.family for key in keys})
    if len(families) > 1:
        said = f"{where} mixes the spellings of {' and '.join(families)}; loaders take one and leave the other out"
        raise InconclusiveError(f"{said}, so there is no one model to audit; write it in one spelling")
    numberings = [name for name, pattern in _NUMBERINGS.items() if any(pattern.match(key.module) for key in keys)]
    if len(numberings) > 1:
        said = f"{where} numbers the UNet's blocks as {' and as '.join(numberings)} does; diffusers leaves out the first"
        raise InconclusiveError(f"{said}, so there is no one model to audit; write it with one numbering")
    return families[0]


def left_out(family: Family, keys: Iterable[Key], components: Collection[str]) -> str:
    """What diffusers' ``load_lora_weights`` (0.42.1) passes over with a warning at most; of the original code's names it reads kohya's,
    the numbered blocks of them for SDXL alone. ``components`` are the model's."""
    if family == "ComfyUI":
        return "all of it"
    if family == "kohya" and "text_encoder_2" in components:
        return ""
    unread = _NUMBERINGS["the original code"] if family == "kohya" else _ORIGINAL
    return "its layers in the original code's names" if any(unread.match(key.module) for key in keys) else ""


class Layers:
    """A model's modules with weights, found by any spelling of their names."""

    def __init__(self, components: Mapping[str, nn.Module]) -> None:
        self._modules: dict[tuple[str, str], tuple[str, nn.Module]] = {}
        self._components = {component: type(model).__name__ for component, model in components.items()}
        for component, model in components.items():
            held = {name: module for name, module in model.named_modules() if isinstance(getattr(module, "weight", None), nn.Parameter)}
            for name, module in held.items():
                self._modules[component, _flat(name, component)] = (name, module)
            for name, source in ldm_unet.sources_in_part(held).items() if component == "unet" else ():
                self._modules[component, _flat(source.name, component)] = (name, held[name])

    def find(self, key: Key, where: str, of: str = "") -> tuple[str, str, nn.Module]:
        """Component, the module's own name, and the module; ``of`` is the class that the adapter was made on, where it says.

        Raises:
            InconclusiveError: no such layer, or component: the adapter is for another model; or a layer of several.
        """
        if key.component and key.component not in self._components:
            said = f"{where}: {shown(key.module)} is a layer of {key.component}, which this model has not"
            raise InconclusiveError(f"{said}; the adapter is for another family of models, and nothing of it was applied")
        asked = (key.component,) if key.component else [name for name, kind in self._components.items() if of in ("", kind)]
        found = [(name, *layer) for name in asked if (layer := self._modules.get((name, _flat(key.module, name))))]
        if not found:
            said = f"{where}: {shown(key.module)} names no layer of this model"
            raise InconclusiveError(f"{said}; the adapter is for another one, and nothing of it was applied")
        if len(found) > 1:
            said = f"{where}: {shown(key.module)} is a layer of {' and of '.join(name for name, *_ in found)}"
            raise InconclusiveError(f"{said}, and nothing says which is meant; write it in diffusers' or kohya's names, which do")
        return found[0]


def _flat(name: str, component: str) -> str:
    """Dots as underscores; older diffusers' names of attention processors as the layers they stand for."""
    flat = re.sub(r"\.processor(?=\.|$)", "", name).replace(".", "_").removeprefix("text_model_")
    if component.startswith("text_encoder"):
        return _TEXT_PROJECTION.sub(r"_\1_proj", flat)
    return re.sub(r"_to_out$", "_to_out_0", flat)
