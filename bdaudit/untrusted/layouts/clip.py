"""CLIP's text tower and its tokenizer: their settings, and what the tower's weights tell of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bdaudit.errors import BdauditError
from bdaudit.untrusted.layouts.layout import Config, Part
from bdaudit.untrusted.settings import FLAG, MAP, NAME, TOKENS, WORD, either, listed, number, optional, whole
from bdaudit.untrusted.shapes import Tensors, depth, size
from bdaudit.untrusted.tree import shown

_WIDTH, _IDS = 16_384, 2_000_000
_id = optional(either(whole(-1, _IDS), listed(whole(-1, _IDS), 64)))
_LABELS = frozenset({"id2label", "label2id", "task_specific_params", "quantization_config"})

SETTINGS = {
    "vocab_size": whole(1, _IDS),
    "num_hidden_layers": whole(1, 128),
    "num_attention_heads": whole(1, 1024),
    "hidden_act": NAME,
    "layer_norm_eps": optional(number(0, 1)),
    "attention_dropout": optional(number(0, 1)),
    "projection_dim": optional(whole(0, _WIDTH)),
    **dict.fromkeys(("hidden_size", "max_position_embeddings"), whole(1, _WIDTH)),
    "intermediate_size": whole(1, 4 * _WIDTH),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), _id),
}
IDLE = frozenset(
    {"architectures", "model_type", "torch_dtype", "dtype", "transformers_version", "initializer_factor", "initializer_range", "dropout"}
    | {"use_attention_mask", "is_causal", "gradient_checkpointing", "return_dict", "output_hidden_states", "chunk_size_feed_forward"}
    | {"is_encoder_decoder", "problem_type", *_LABELS}
)
"""``use_attention_mask`` and ``is_causal`` are looked at by the family: a tower that they would change is not run."""


def _described(tensors: Tensors) -> dict[str, Any]:
    plain = {_canonical(name): info for name, info in tensors.items()}
    return {
        "vocab_size": size(plain, "embeddings.token_embedding.weight", 0),
        "hidden_size": size(plain, "embeddings.token_embedding.weight", 1),
        "max_position_embeddings": size(plain, "embeddings.position_embedding.weight", 0),
        "intermediate_size": size(plain, "encoder.layers.0.mlp.fc1.weight", 0),
        "num_hidden_layers": depth(plain, "encoder.layers"),
    }


def _check(config: Config, tensors: Tensors) -> None:
    """Refuse to guess which of two descriptions counts: a map can stand for the settings beside it, and does so in some versions."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value and key not in _LABELS:
            raise BdauditError(f"its {shown(key)} is a map, which some loaders read in place of the settings beside it; remove it")


def _canonical(name: str) -> str:
    """transformers 5 drops a prefix."""
    return name.removeprefix("text_model.")


TOWER = Part(
    library="transformers",
    classes=("CLIPTextModel",),
    settings=SETTINGS,
    idle=IDLE,
    described=_described,
    check=_check,
    # a constant that old versions of transformers saved, and what a CLIP has besides its text encoder: no prompt's encoding reads them
    constant=r"(text_model\.)?embeddings\.position_ids|logit_scale|text_projection\.weight",
    canonical=_canonical,
)

TOKENIZER = Part(
    library="transformers",
    classes=("CLIPTokenizer", "CLIPTokenizerFast"),
    config="tokenizer_config.json",
    settings={
        "added_tokens_decoder": optional(MAP),
        "model_input_names": optional(listed(NAME, 8)),
        "errors": WORD,
        **dict.fromkeys(("model_max_length", "max_len"), optional(number(3, 1e31))),
        **dict.fromkeys(("additional_special_tokens", "extra_special_tokens"), TOKENS),
        **dict.fromkeys(("padding_side", "truncation_side"), NAME),
        **dict.fromkeys(("add_prefix_space", "do_lower_case", "split_special_tokens", "clean_up_tokenization_spaces"), FLAG),
        **dict.fromkeys(("add_bos_token", "add_eos_token"), FLAG),
    },
    idle=frozenset(
        {"tokenizer_class", "name_or_path", "special_tokens_map_file", "tokenizer_file", "vocab_file", "merges_file", "processor_class"}
        | {"backend", "is_local", "local_files_only", "use_fast", "chat_template", "init_inputs", "auto_map"}
    ),
)
