"""Gemma 2 as a reader, and its tokenizer of pieces with bytes: their settings, and what the weights tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted.layouts import qwen
from bdaudit.untrusted.layouts.clip import TOKENIZER
from bdaudit.untrusted.layouts.layout import Config, Part, Reading, Vocabulary
from bdaudit.untrusted.settings import FLAG, MAP, NAME, either, listed, number, optional, whole
from bdaudit.untrusted.shapes import Tensors, size
from bdaudit.untrusted.tree import shown

_IDS = 2_000_000
_id = optional(either(whole(0, _IDS), listed(whole(0, _IDS), 64)))
_KINDS = ("full_attention", "sliding_attention")


def _described(tensors: Tensors) -> dict[str, Any]:
    return qwen.described(qwen.plain(tensors))


def _check(config: Config, tensors: Tensors) -> None:
    """Heads are as many and as wide as the weights have them, places are rotated in the usual way, and each layer looks in a known one."""
    asked = config.get("num_attention_heads", 8) * config.get("head_dim", 256)
    held = size(qwen.plain(tensors), "layers.0.self_attn.q_proj.weight", 0)
    if asked != held:
        raise BdauditError(f"its heads are {asked} numbers together, its weights have {held}")
    qwen.check_rotations(config)
    if any(each not in _KINDS for each in config.get("layer_types") or []):
        raise InconclusiveError(f"its layer_types are {shown(config['layer_types'], 60)}; expected {' or '.join(_KINDS)}")


ENCODER = replace(
    qwen.ENCODER,
    classes=("Gemma2Model",),
    settings={
        **{
            key: each for key, each in qwen.ENCODER.settings.items() if key not in ("hidden_act", "max_window_layers", "use_sliding_window")
        },
        "hidden_activation": optional(NAME),
        "query_pre_attn_scalar": number(1e-3, 1e6),
        **dict.fromkeys(("final_logit_softcapping", "attn_logit_softcapping"), optional(number(1e-3, 1e6))),
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), _id),
        "use_bidirectional_attention": FLAG,
    },
    idle=qwen.ENCODER.idle | {"hidden_act", "cache_implementation"},
    described=_described,
    check=_check,
)

TOKENIZER_OF_PIECES = replace(
    TOKENIZER,
    classes=("GemmaTokenizerFast", "GemmaTokenizer"),
    settings={**TOKENIZER.settings, "legacy": optional(FLAG), "sp_model_kwargs": optional(MAP)},
    idle=TOKENIZER.idle | {"spaces_between_special_tokens", "use_default_system_prompt"},
    vocabulary=Vocabulary(most_bytes=64 << 20, most_items=4_000_000, beside=frozenset({"tokenizer.model"})),
)


def tokenizer(reading: Reading) -> Part:
    """Gemma's, put to use as ``reading`` says."""
    return replace(TOKENIZER_OF_PIECES, reading=reading)
