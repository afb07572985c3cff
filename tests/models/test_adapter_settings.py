"""peft's settings: its arithmetic and its rules for names, and nothing that it would read otherwise."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.models.adapter_settings import read_settings

MODULE = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


def scale(held: int | None = None, module: str = MODULE, **settings: Any) -> float:
    return read_settings(settings, "here").scale(module, held)


def test_alpha_over_rank() -> None:
    assert scale(4, r=4, lora_alpha=16) == 4
    assert scale(4, r=4, lora_alpha=16, use_rslora=True) == 8
    assert scale(8) == 1, "peft's defaults"
    assert scale(None, r=4, alpha=2, peft_type="LOHA") == 0.5
    assert scale(4, r=4, lora_alpha=2, alpha=100, peft_type="LORA") == 0.5
    assert scale(4, r=4, lora_alpha=-2) == -0.5
    assert scale(4, r=4, lora_alpha=0) == 0


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ({"to_k": 8}, 8), ({"attn2.to_k": 8, "to_k": 16}, 8), ({"to_k": 16, "attn2.to_k": 8}, 16), ({"o_k": 8}, 1), ({"to.k": 8}, 8),
        ({MODULE: 8}, 8), ({f"^{MODULE}": 8}, 8), ({"^to_k": 8}, 1), ({"attn1.to_k": 8}, 1), ({"x" * 200: 8}, 1), ({}, 1),
    ],
)  # fmt: skip
def test_patterns_are_matched_as_peft_matches_them(patterns: dict[str, int], expected: int) -> None:
    assert scale(1, r=1, lora_alpha=1, alpha_pattern=patterns) == expected
    assert scale(expected, r=1, lora_alpha=1, rank_pattern=patterns) == 1 / expected


def test_a_text_encoders_names_with_and_without_their_first_part() -> None:
    module = "text_model.encoder.layers.0.self_attn.v_proj"
    for name in (module, module.removeprefix("text_model.")):
        assert scale(1, module, r=1, lora_alpha=1, alpha_pattern={f"^{name}": 8}, target_modules=[name]) == 8


def test_what_peft_would_leave_out_is_not_audited_as_if_it_were_there() -> None:
    assert scale(1, r=1, lora_alpha=1, target_modules=["to_q", "to_k"]) == 1
    assert scale(1, r=1, lora_alpha=1, target_modules="all-linear") == 1
    for targets in (["to_q"], ["o_k"]):
        with pytest.raises(InconclusiveError, match="none of its target_modules"):
            scale(1, r=1, lora_alpha=1, target_modules=targets)


def test_the_settings_of_pefts_own_files_are_known() -> None:
    told = {
        "alora_invocation_tokens": None, "alpha_pattern": {}, "auto_mapping": {"base_model_class": "UNet2DConditionModel"},
        "base_model_name_or_path": None, "bias": "none", "corda_config": None, "ensure_weight_tying": False, "eva_config": None,
        "exclude_modules": None, "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": "gaussian",
        "layer_replication": None, "layers_pattern": None, "layers_to_transform": None,
        "loftq_config": {}, "lora_alpha": 16, "lora_bias": False, "lora_dropout": 0.1,
        "megatron_config": None, "megatron_core": "megatron.core", "modules_to_save": None, "peft_type": "LORA", "peft_version": "0.18.0",
        "qalora_group_size": 16, "r": 4, "rank_pattern": {}, "revision": None, "target_modules": ["to_k"], "target_parameters": None,
        "task_type": None, "trainable_token_indices": None, "use_dora": False, "use_qalora": False, "use_rslora": False,
    }  # fmt: skip
    assert scale(4, **told) == 4


@pytest.mark.parametrize(
    "told",
    [
        {"bias": "lora_only"}, {"modules_to_save": ["conv_out"]}, {"lora_bias": True}, {"init_lora_weights": "pissa"}, {"peft_type": "IA3"},
        {"layers_to_transform": [0]}, {"layers_to_transform": 0},
        {"a setting of tomorrow": 1}, {"target_modules": ".*to_k"}, {"rank_pattern": {"(a+)+": 4}},
        {"alpha_pattern": {"to_k|to_q": 4}}, {"peft_type": ["LORA"]},
    ],
)  # fmt: skip
def test_what_is_not_known_is_not_supported(told: dict[str, Any]) -> None:
    with pytest.raises(InconclusiveError, match="here"):
        scale(8, **told)


@pytest.mark.parametrize(
    "told",
    [
        {"lora_alpha": int("9" * 400)}, {"lora_alpha": float("nan")}, {"lora_alpha": float("inf")}, {"lora_alpha": "16"},
        {"lora_alpha": True}, {"lora_alpha": None}, {"r": 0}, {"r": -4}, {"r": 2.5}, {"r": 1e300}, {"r": [8]}, {"alpha_pattern": [4]},
        {"rank_pattern": {"to_k": 0}},
        {"alpha_pattern": {"to_k": "4"}}, {"target_modules": [4]}, {"alpha_pattern": {str(i): 1 for i in range(6000)}}, {"r": 16},
    ],
)  # fmt: skip
def test_figures_that_are_none_are_damage(told: dict[str, Any]) -> None:
    with pytest.raises(BdauditError, match="here"):
        scale(8, **json.loads(json.dumps(told)))
