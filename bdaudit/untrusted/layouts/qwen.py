"""Qwen3 as a reader, and its tokenizer of bytes: their settings, what the weights tell, and how a conversation of one prompt is laid out.

The layout is what Qwen3's chat template says of one message of a user with ``add_generation_prompt``. Two versions of it are known: the one
that llama.cpp has a copy of (``models/templates/Qwen-Qwen3-0.6B.jinja``), which was read and rendered beside this layout, and the one that
Qwen's later repositories hold, of which only the hash was had: it is untested on real files.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted.layouts.clip import IDLE, TOKENIZER
from bdaudit.untrusted.layouts.layout import Config, Part, Reading, Vocabulary
from bdaudit.untrusted.settings import FLAG, MAP, NAME, listed, number, optional, whole
from bdaudit.untrusted.shapes import Tensors, depth, size
from bdaudit.untrusted.tree import shown

_WIDTH, _IDS, _DEEPEST = 65_536, 2_000_000, 256
TEMPLATES = frozenset({
    "87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5",
    "a55ee1b1660128b7098723e0abcd92caa0788061051c62d51cbe87d9cf1974d8",
})  # fmt: skip
"""SHA-256 of Qwen3's chat templates: the copy that was read, and the later one."""
USER, ASSISTANT = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"

NO_THOUGHT = "<think>\n\n</think>\n\n"
"""What follows where thinking is switched off."""


def described(plain: Tensors) -> dict[str, Any]:
    """What a language model's weights tell, whose names ``plain`` has as they stand within it."""
    return {
        "vocab_size": size(plain, "embed_tokens.weight", 0),
        "hidden_size": size(plain, "embed_tokens.weight", 1),
        "intermediate_size": size(plain, "layers.0.mlp.up_proj.weight", 0),
        "num_hidden_layers": depth(plain, "layers"),
    }


def plain(tensors: Tensors) -> Tensors:
    """Names as they stand within the language model, with or without a head upon it."""
    return {name.removeprefix("model."): info for name, info in tensors.items()}


def _described(tensors: Tensors) -> dict[str, Any]:
    return {**described(plain(tensors)), "head_dim": size(plain(tensors), "layers.0.self_attn.q_norm.weight", 0)}


def _check(config: Config, tensors: Tensors) -> None:
    """Heads are as many as the weights have, places are rotated in the usual way, and no layer looks at a window alone."""
    told = _described(tensors)
    heads = size(plain(tensors), "layers.0.self_attn.q_proj.weight", 0)
    if config.get("num_attention_heads", 32) * told["head_dim"] != heads:
        raise BdauditError(
            f"its num_attention_heads is {config.get('num_attention_heads', 32)}, its weights have {heads // told['head_dim']}"
        )
    check_rotations(config)
    check_windows(config)


def check_windows(config: Config) -> None:
    """Raises ``InconclusiveError`` where a layer looks at a window of the text alone."""
    if config.get("use_sliding_window") or any(each != "full_attention" for each in config.get("layer_types") or []):
        raise InconclusiveError("some of its layers look at a window of the text alone, which is not supported")


def check_rotations(config: Config) -> None:
    """Places are rotated in the usual way whichever map counts, of old versions of transformers or of new ones, and by one base."""
    maps = [config.get(key) or {} for key in ("rope_parameters", "rope_scaling")]
    kinds = [each[key] for each in maps for key in ("rope_type", "type") if each.get(key, "default") != "default"]
    if kinds:
        raise InconclusiveError(f"its places are rotated by {shown(kinds[0])}; only the default is supported")
    bases = [each["rope_theta"] for each in (config, *maps) if each.get("rope_theta") is not None]
    if any(base != bases[0] for base in bases):
        said = f"its rope_theta is {' and '.join(map(shown, bases))}, and which of them counts depends on the version of transformers"
        raise InconclusiveError(f"{said}; leave one of them")


_SETTINGS = {
    "vocab_size": whole(1, _IDS),
    "num_hidden_layers": whole(1, _DEEPEST),
    "hidden_act": NAME,
    "rms_norm_eps": number(0, 1),
    "attention_dropout": optional(number(0, 1)),
    "rope_theta": optional(number(1, 1e12)),
    "rope_parameters": optional(MAP),
    "rope_scaling": optional(MAP),
    "max_position_embeddings": whole(1, 1 << 24),
    "max_window_layers": optional(whole(0, 1 << 24)),
    "sliding_window": optional(whole(1, 1 << 24)),
    "layer_types": optional(listed(NAME, _DEEPEST)),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads"), whole(1, 4096)),
    **dict.fromkeys(("hidden_size", "intermediate_size", "head_dim"), whole(1, _WIDTH)),
    **dict.fromkeys(("attention_bias", "use_sliding_window", "tie_word_embeddings"), FLAG),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), optional(whole(0, _IDS))),
}
ENCODER = Part(
    library="transformers",
    classes=("Qwen3Model",),
    settings=_SETTINGS,
    idle=IDLE | {"use_cache", "output_attentions"},
    described=_described,
    check=_check,
    constant=r"lm_head\.weight",
    canonical=lambda name: name.removeprefix("model."),
)
SPEAKER = replace(ENCODER, classes=("Qwen3ForCausalLM",), constant=r"(?!)", canonical=str)
"""The same with the layer that speaks, which no prompt's encoding needs."""

PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""By which Qwen's tokenizers part a text, as transformers has it."""
TOKENIZER_OF_BYTES = replace(
    TOKENIZER,
    classes=("Qwen2Tokenizer", "Qwen2TokenizerFast"),
    vocabulary=Vocabulary(most_bytes=32 << 20, most_items=2_000_000, patterns=frozenset({PATTERN})),
)


def tokenizer(length: int, *, thinks: bool) -> Part:
    """Qwen's, of which a pipeline reads ``length`` tokens of a conversation; ``thinks`` is whether the answer may begin with a thought."""
    suffix = ASSISTANT + ("" if thinks else NO_THOUGHT)
    return replace(TOKENIZER_OF_BYTES, reading=Reading(length=length, prefix=USER, suffix=suffix, templated=True, templates=TEMPLATES))
