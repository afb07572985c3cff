"""Qwen2.5-VL as a reader of texts: its settings, which stand in a map of their own, and what the weights tell. Its eyes are never used."""

from __future__ import annotations

from typing import Any

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted.layouts import qwen
from bdaudit.untrusted.layouts.clip import IDLE
from bdaudit.untrusted.layouts.layout import Config, Part
from bdaudit.untrusted.settings import FLAG, MAP, NAME, either, listed, optional, whole
from bdaudit.untrusted.shapes import Tensors, check_described
from bdaudit.untrusted.tree import shown

_IDS = 2_000_000
_id = optional(either(whole(0, _IDS), listed(whole(0, _IDS), 64)))
_MARKS = dict.fromkeys(
    (*("image_token_id", "video_token_id", "vision_token_id"), *("vision_start_token_id", "vision_end_token_id")), whole(0, _IDS)
)
_SECTIONS = listed(whole(1, 1 << 16), 3, 3)
_OTHERS = ("head_dim", "attention_bias", "tie_word_embeddings")
TEXT = {
    **{key: each for key, each in qwen.ENCODER.settings.items() if key not in _OTHERS},
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), _id),
}
EYES = {
    "hidden_act": NAME,
    "fullatt_block_indexes": listed(whole(0, 255), 256),
    "rope_parameters": optional(MAP),
    **dict.fromkeys(("hidden_size", "intermediate_size", "out_hidden_size"), whole(1, 65_536)),
    **dict.fromkeys(("depth", "spatial_merge_size", "temporal_patch_size", "patch_size"), whole(1, 256)),
    **dict.fromkeys(("num_heads", "in_channels", "in_chans", "tokens_per_second", "window_size"), whole(1, 4096)),
}


def _canonical(name: str) -> str:
    """As the part is built, whose text model lies deeper than in files."""
    if name.startswith(("model.language_model.", "model.visual.")):
        return name
    return (
        f"model.language_model.{name.removeprefix('model.')}" if name.startswith("model.") else name.replace("visual.", "model.visual.", 1)
    )


def _described(tensors: Tensors) -> dict[str, Any]:
    return qwen.described({_canonical(name).removeprefix("model.language_model."): info for name, info in tensors.items()})


def _check(config: Config, tensors: Tensors) -> None:
    """The text's settings stand in their map, nothing beside it says otherwise, and they are those of the weights."""
    text = config.get("text_config")
    if not text:
        raise InconclusiveError("it has no text_config, as old versions of transformers wrote it; save it again with a current one")
    odd = [key for key in TEXT if key in config and config[key] != text.get(key, config[key])]
    if odd:
        said = f"its {odd[0]} is {shown(config[odd[0]], 40)}, and {shown(text[odd[0]], 40)} in its text_config; which counts depends on the"
        raise InconclusiveError(f"{said} version of transformers; leave one of them")
    check_described(text, _described(tensors), "text_config")
    qwen.check_rotations(text)
    heads, width = text.get("num_attention_heads", 64), _described(tensors)["hidden_size"]
    sections: Any = (text.get("rope_parameters") or text.get("rope_scaling") or {}).get("mrope_section")
    if width % heads or not _SECTIONS.fits(sections) or 2 * sum(sections) * heads != width:
        raise BdauditError(f"its mrope_section is {shown(sections, 40)} for {heads} heads, its weights are {width} wide")
    qwen.check_windows(text)


ENCODER = Part(
    library="transformers",
    classes=("Qwen2_5_VLForConditionalGeneration",),
    settings={"text_config": MAP, "vision_config": MAP, "tie_word_embeddings": FLAG, **_MARKS},
    nested={"text_config": TEXT, "vision_config": EYES},
    idle=IDLE | {"use_cache", "output_attentions", *TEXT, *_MARKS, "spatial_patch_size"},
    described=_described,
    check=_check,
    canonical=_canonical,
)
