"""What an adapter's tensors are called, by each tool that writes them: which module of which component, and which factor of its change.

A name that is not known ends in "not supported": a tensor that were left out could be the backdoor.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bdaudit.errors import InconclusiveError
from bdaudit.untrusted.tree import shown

Family = Literal["kohya", "diffusers", "ComfyUI", "XLabs", "peft", "bare"]
"""Whose spelling it is: ``lora_unet_…``, ``unet.…``, ``diffusion_model.…``, ``double_blocks.0.processor.…``, ``base_model.model.…``, or a
layer's own name alone."""
DENOISER, T5 = "unet", "t5"
"""What keys call a denoiser of any kind, in the original code's names; and T5, whichever of a model's readers it is."""

_BY_XLABS = r"(diffusion_model\.)?((double|single)_blocks\.\d+\.processor\.(qkv|proj)_lora[12]?)"
_ROLES = (
    (re.compile(rf"(?P<module>{_BY_XLABS})\.down\.weight", re.ASCII), "down"),
    (re.compile(rf"(?P<module>{_BY_XLABS})\.up\.weight", re.ASCII), "up"),
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
    "kohya": {
        "lora_unet_": DENOISER, "lora_transformer_": "transformer", "lora_te1_": "text_encoder", "lora_te2_": "text_encoder_2",
        "lora_te3_": T5, "lora_te_": "text_encoder",
    },
    "diffusers": {
        "unet.": "unet", "transformer.": "transformer",
        "text_encoder.": "text_encoder", "text_encoder_2.": "text_encoder_2", "text_encoder_3.": "text_encoder_3",
    },
    "ComfyUI": {
        "diffusion_model.": DENOISER, "text_encoders.clip_l.transformer.": "text_encoder",
        "text_encoders.clip_h.transformer.": "text_encoder", "text_encoders.clip_g.transformer.": "text_encoder_2",
        "text_encoders.t5xxl.transformer.": T5,
    },
    "peft": {"base_model.model.": ""},
}  # fmt: skip
"""Family → beginning of a name → the component that it is of, empty where it does not say."""
_XLABS = re.compile(_BY_XLABS, re.ASCII)
_NUMBERINGS = {
    "the original code": re.compile(r"(input_blocks|middle_block|output_blocks)[._]"),
    "diffusers": re.compile(r"(down_blocks|mid_block|up_blocks)[._]"),
}
"""Whose numbers the UNet's blocks have: kohya's tools take the original code's for SDXL, diffusers' for Stable Diffusion."""
_ORIGINAL = re.compile(r"(input_blocks|middle_block|output_blocks|time_embed|label_emb|out)[._]\d")
"""The same of every layer that the original code calls otherwise than diffusers does."""


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
    if name.endswith(".scalar"):
        said = f"{where}: {shown(name)} is a factor that diffusers leaves out and other tools apply, so there is no one model to audit"
        raise InconclusiveError(f"{said}; merge the adapter with the tool that you use, and audit the result")


def _owner(module: str) -> tuple[Family, str, str]:
    if match := _XLABS.fullmatch(module):
        return "XLabs", DENOISER, match[2]
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
    if families == ["kohya"] and {"transformer", DENOISER} <= {key.component for key in keys}:
        said = f"{where} has lora_unet_ and lora_transformer_; diffusers leaves out the first"
        raise InconclusiveError(f"{said}, so there is no one model to audit; write it in one spelling")
    return families[0]


_FLUX, _SD3 = "FluxTransformer2DModel", "SD3Transformer2DModel"
_OUTER = re.compile(r"(img|txt|time|vector|guidance)_in|final_layer", re.ASCII)
"""Of FLUX's original names: what stands before and behind the blocks."""
_NO_ATTENTION = re.compile(r"(single_)?transformer_blocks_\d+_(?!attn_)", re.ASCII)
_LORA = ("down", "up", "alpha", "magnitude", "dora_scale")


def left_out(family: Family, keys: Iterable[Key], classes: Mapping[str, str]) -> str:
    """What diffusers' ``load_lora_weights`` (0.42.1) passes over with a warning at most; of the original code's names it reads kohya's,
    the numbered blocks of them for SDXL alone. ``classes`` are those of the model's components."""
    keys = list(keys)
    if classes.get("transformer") == _FLUX:
        return " and ".join(_left_out_of_flux(family, keys))
    if classes.get("transformer") == _SD3:
        if family in ("kohya", "ComfyUI", "XLabs"):
            return "all of it"
        return _OF_T5 if any(key.component == "text_encoder_3" for key in keys) else ""
    return _left_out_of_unets(family, keys, classes)


_OF_T5 = "its layers of T5"


def _left_out_of_flux(family: Family, keys: Sequence[Key]) -> Iterator[str]:
    """It reads kohya's names and ComfyUI's, and leaves the outer layers where no part of the pipeline looks for them."""
    if family == "ComfyUI" and any(key.alpha_elsewhere for key in keys):
        yield "all of it"
        return
    if any(key.component in (T5, "text_encoder_2", "text_encoder_3") for key in keys):
        yield _OF_T5
    if family in ("kohya", "ComfyUI") and any(key.component == DENOISER and _OUTER.match(key.module) for key in keys):
        yield "its layers before and behind the blocks"
    if family == "kohya" and any(key.component == "transformer" and _NO_ATTENTION.match(key.module) for key in keys):
        yield "its layers in the blocks that are no attention"
    if family in ("kohya", "ComfyUI", "diffusers") and any(key.role not in _LORA for key in keys):
        yield "its changes that are no LoRA"


def _left_out_of_unets(family: Family, keys: Sequence[Key], components: Collection[str]) -> str:
    if family == "ComfyUI":
        return "all of it"
    if family == "kohya" and "text_encoder_2" in components:
        return ""
    unread = _NUMBERINGS["the original code"] if family == "kohya" else _ORIGINAL
    return "its layers in the original code's names" if any(unread.match(key.module) for key in keys) else ""
