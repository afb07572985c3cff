"""T5's encoder and its tokenizer, of Unigram pieces: their settings, and what the encoder's weights tell of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted.layouts.clip import IDLE, TOKENIZER
from bdaudit.untrusted.layouts.layout import Config, Part, Reading, Vocabulary
from bdaudit.untrusted.settings import FLAG, WORD, number, optional, whole
from bdaudit.untrusted.shapes import Tensors, depth, size
from bdaudit.untrusted.tree import shown

_WIDTH, _IDS = 65_536, 2_000_000
_ATTENTION, _LAST = "encoder.block.0.layer.0.SelfAttention", "encoder.block.0.layer.1.DenseReluDense"
_TIED = "encoder.embed_tokens.weight"


def _gated(tensors: Tensors) -> bool:
    return f"{_LAST}.wi_0.weight" in tensors


def _described(tensors: Tensors) -> dict[str, Any]:
    return {
        "vocab_size": size(tensors, "shared.weight", 0),
        "d_model": size(tensors, "shared.weight", 1),
        "d_ff": size(tensors, f"{_LAST}.{'wi_0' if _gated(tensors) else 'wi'}.weight", 0),
        "num_layers": depth(tensors, "encoder.block"),
        "relative_attention_num_buckets": size(tensors, f"{_ATTENTION}.relative_attention_bias.weight", 0),
        "num_heads": size(tensors, f"{_ATTENTION}.relative_attention_bias.weight", 1),
    }


def _derived(config: Config) -> dict[str, Any]:
    """What T5's config makes of its settings, and takes from the file where the file has it too; an encoder is no decoder."""
    kind = str(config.get("feed_forward_proj", "relu"))
    function = "gelu_new" if kind == "gated-gelu" else kind.split("-")[-1]
    return {"dense_act_fn": function, "is_gated_act": kind.startswith("gated-"), "is_decoder": False}


def _check(config: Config, tensors: Tensors) -> None:
    """Heads are as wide as the weights are, gates and functions are the ones that are named, and one table embeds the tokens."""
    told, heads = _described(tensors), size(tensors, f"{_ATTENTION}.q.weight", 0)
    if config.get("d_kv", 64) * told["num_heads"] != heads:
        raise BdauditError(f"its d_kv is {config.get('d_kv', 64)}, its weights have {told['num_heads']} heads of {heads} numbers together")
    if str(config.get("feed_forward_proj", "relu")).startswith("gated-") is not _gated(tensors):
        raise BdauditError(f"its feed_forward_proj is {config.get('feed_forward_proj', 'relu')}, its weights are of the other kind")
    for key, own in _derived(config).items():
        if config.get(key, own) != own:
            raise BdauditError(f"its {key} is {shown(config[key])}, which loaders take in place of {shown(own)}; remove it")
    if _TIED in tensors:
        said = f"its weights hold shared.weight and {_TIED}, and which of them embeds the tokens depends on the version of transformers"
        raise InconclusiveError(f"{said}; save it again with a current one")


ENCODER = Part(
    library="transformers",
    classes=("T5EncoderModel",),
    settings={
        "vocab_size": whole(1, _IDS),
        "feed_forward_proj": WORD,
        "relative_attention_num_buckets": whole(1, 4096),
        "relative_attention_max_distance": whole(1, 1 << 20),
        "layer_norm_epsilon": number(0, 1),
        "dropout_rate": number(0, 1),
        **dict.fromkeys(("d_model", "d_kv", "d_ff"), whole(1, _WIDTH)),
        **dict.fromkeys(("num_layers", "num_heads"), whole(1, 256)),
        **dict.fromkeys(("pad_token_id", "eos_token_id"), optional(whole(0, _IDS))),
    },
    idle=IDLE
    | {"use_cache", "num_decoder_layers", "dense_act_fn", "is_gated_act", "tie_word_embeddings", "output_past", "n_positions"}
    | {"decoder_start_token_id", "classifier_dropout", "is_decoder", "output_attentions", "scale_decoder_outputs"},
    described=_described,
    check=_check,
)

_TOKENIZER = replace(
    TOKENIZER,
    classes=("T5TokenizerFast", "T5Tokenizer"),
    settings={**TOKENIZER.settings, "extra_ids": whole(0, 1000), "legacy": optional(FLAG)},
    idle=TOKENIZER.idle | {"sp_model_kwargs", "spm_file", "spaces_between_special_tokens"},
    vocabulary=Vocabulary(model="Unigram"),
)


def tokenizer(length: int, *, lower: bool = False) -> Part:
    """T5's, of which a pipeline reads ``length`` tokens."""
    return replace(_TOKENIZER, reading=Reading(length=length, lower=lower))
