"""The names of adapters' tensors: every spelling finds its layer, and none that is not known is left out in silence."""

from __future__ import annotations

import time

import pytest

from bdaudit.errors import InconclusiveError
from bdaudit.models.adapter_layers import Layers
from bdaudit.models.adapter_names import one_family, taken_apart
from bdaudit.models.suspect import Suspect

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
TEXT = "encoder.layers.0.self_attn"


@pytest.mark.parametrize(
    ("name", "component", "ends", "role"),
    [
        (f"lora_unet_{ATTENTION.replace('.', '_')}_to_out_0.lora_down.weight", "unet", "attn2.to_out.0", "down"),
        ("lora_unet_down_blocks_0_resnets_0_conv1.lora_mid.weight", "unet", "down_blocks.0.resnets.0.conv1", "mid"),
        ("lora_unet_time_embedding_linear_1.alpha", "unet", "time_embedding.linear_1", "alpha"),
        ("lora_unet_conv_in.diff_b", "unet", "conv_in", "diff_b"),
        ("lora_unet_conv_norm_out.w_norm", "unet", "conv_norm_out", "diff"),
        ("lora_unet_conv_norm_out.b_norm", "unet", "conv_norm_out", "diff_b"),
        (f"lora_te_text_model_{TEXT.replace('.', '_')}_v_proj.hada_w1_a", "text_encoder", "self_attn.v_proj", "hada_w1_a"),
        (f"lora_te1_text_model_{TEXT.replace('.', '_')}_out_proj.lokr_w2_b", "text_encoder", "self_attn.out_proj", "lokr_w2_b"),
        (f"unet.{ATTENTION}.to_q.lora_A.weight", "unet", "attn2.to_q", "down"),
        (f"unet.{ATTENTION}.to_q.lora.up.weight", "unet", "attn2.to_q", "up"),
        (f"unet.{ATTENTION}.processor.to_out_lora.up.weight", "unet", "attn2.to_out.0", "up"),
        (f"{ATTENTION}.processor.to_k_lora.down.weight", "unet", "attn2.to_k", "down"),
        (f"text_encoder.text_model.{TEXT}.q_proj.lora_linear_layer.down.weight", "text_encoder", "self_attn.q_proj", "down"),
        (f"text_encoder.text_model.{TEXT}.to_q_lora.up.weight", "text_encoder", "self_attn.q_proj", "up"),
        (f"text_encoder.text_model.{TEXT}.to_out_lora.up.weight", "text_encoder", "self_attn.out_proj", "up"),
        (f"base_model.model.text_model.{TEXT}.k_proj.lora_B.weight", "text_encoder", "self_attn.k_proj", "up"),
        (f"base_model.model.{TEXT}.k_proj.lora_B.default.weight", "text_encoder", "self_attn.k_proj", "up"),
        (f"base_model.model.{ATTENTION}.to_v.lora_magnitude_vector", "unet", "attn2.to_v", "magnitude"),
        ("lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_out_0.dora_scale", "unet", "attn2.to_out.0", "dora_scale"),
        ("lora_unet_input_blocks_0_0.lora_down.weight", "unet", "conv_in", "down"),
        ("lora_unet_input_blocks_1_0_emb_layers_1.alpha", "unet", "down_blocks.0.resnets.0.time_emb_proj", "alpha"),
        ("lora_unet_out_2.diff_b", "unet", "conv_out", "diff_b"),
        ("lora_unet_time_embed_0.lora_up.weight", "unet", "time_embedding.linear_1", "up"),
        ("diffusion_model.output_blocks.0.0.in_layers.2.lora_up.weight", "unet", "up_blocks.0.resnets.0.conv1", "up"),
        (f"text_encoders.clip_l.transformer.text_model.{TEXT}.q_proj.lora_down.weight", "text_encoder", "self_attn.q_proj", "down"),
    ],
)  # fmt: skip
def test_each_spelling_finds_its_layer(tiny_suspect: Suspect, name: str, component: str, ends: str, role: str) -> None:
    layers = Layers({name: tiny_suspect.modules[name] for name in ("unet", "text_encoder")})
    key = taken_apart(name, "here")
    layer = layers.find(key, "here")
    assert (layer.component, key.role) == (component, role)
    (module,) = layer.names
    assert module.endswith(ends)
    assert tiny_suspect.modules[component].get_submodule(module) is layer.module


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bundle_emb.my token.string_to_param.*", "bundles an embedding .* for the text 'my token'"),
        ("lora_unet_conv_in.scalar", "diffusers leaves out and other tools apply"),
        (f"base_model.model.{ATTENTION}.to_k.lora_B.bias", "no part of an adapter that is supported"),
        (f"base_model.model.{ATTENTION}.to_k.modules_to_save.weight", "no part of an adapter that is supported"),
        ("lora_unet_conv_in.oft_blocks", "no part of an adapter that is supported"),
        ("unet.conv_in.weight", "no part of an adapter that is supported"),
        ("lora_unet_conv_in.scale_weight", "no part of an adapter that is supported"),
        (".lora_A.weight", "no part of an adapter that is supported"),
        ("\ud800", "no part of an adapter that is supported"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_by_name(name: str, said: str) -> None:
    with pytest.raises(InconclusiveError, match=said) as raised:
        taken_apart(name, "here")
    str(raised.value).encode()


def test_a_layer_that_the_model_does_not_have(tiny_suspect: Suspect) -> None:
    layers = Layers({name: tiny_suspect.modules[name] for name in ("unet", "text_encoder")})
    for name in (
        "lora_unet_conv_nowhere.alpha",
        f"lora_te_{ATTENTION.replace('.', '_')}_to_k.alpha",
        "base_model.model.conv_nowhere.lora_A.weight",
        "lora_unet_double_blocks_1_img_attn_proj.lora_up.weight",
        "double_blocks.1.processor.qkv_lora1.up.weight",
    ):
        with pytest.raises(InconclusiveError, match="names no layer of this model"):
            layers.find(taken_apart(name, "here"), "here")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", "text_encoder_2"),
        ("text_encoder_2.text_model.x.lora_A.weight", "text_encoder_2"),
        ("lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_up.weight", "t5"),
        ("lora_transformer_context_embedder.lora_up.weight", "transformer"),
        ("transformer.context_embedder.lora_A.weight", "transformer"),
    ],
)
def test_a_part_that_the_model_does_not_have_is_another_familys(tiny_suspect: Suspect, name: str, part: str) -> None:
    layers = Layers({name: tiny_suspect.modules[name] for name in ("unet", "text_encoder")})
    with pytest.raises(InconclusiveError, match=f"{part}, which this model has not"):
        layers.find(taken_apart(name, "here"), "here")


def test_two_spellings_in_one_file() -> None:
    keys = [taken_apart(name, "here") for name in ("unet.conv_in.lora_A.weight", "unet.conv_in.lora_B.weight")]
    assert one_family(keys, "here") == "diffusers"
    with pytest.raises(InconclusiveError, match="mixes the spellings of bare and diffusers"):
        one_family([*keys, taken_apart("conv_in.lora.up.weight", "here")], "here")


def test_two_numberings_in_one_file() -> None:
    names = (f"lora_unet_{part}.lora_up.weight" for part in ("input_blocks_1_1_proj_in", "middle_block_1_proj_in", "out_2"))
    keys = [taken_apart(name, "here") for name in names]
    assert one_family(keys, "here") == "kohya"
    with pytest.raises(InconclusiveError, match="blocks as the original code and as diffusers does; diffusers leaves out the first"):
        one_family([*keys, taken_apart("lora_unet_mid_block_attentions_0_proj_in.alpha", "here")], "here")


def test_a_name_of_a_million_characters_takes_no_time() -> None:
    began = time.monotonic()
    for name in ("bundle_emb." + ".string_to_param" * 60_000 + "\n", "a_lora" * 200_000, ".lora_A" * 150_000):
        with pytest.raises(InconclusiveError) as raised:
            taken_apart(name, "here")
        assert len(str(raised.value)) < 1000
    assert time.monotonic() - began < 1
