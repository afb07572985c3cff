"""Adapters of SDXL in the numbering of its original code, as kohya's tools write them, beside what diffusers makes of the same file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bdaudit.errors import InconclusiveError
from bdaudit.models.load import load
from bdaudit.models.lora import Adapter, applied, read_adapter, read_adapters
from bdaudit.models.suspect import Suspect
from bdaudit.untrusted.inspect import inspect
from tests.models import tiny_sdxl

LAYERS = {
    "lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_k": ("unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"),
    "lora_unet_input_blocks_3_1_proj_in": ("unet", "down_blocks.1.attentions.0.proj_in"),
    "lora_unet_middle_block_1_transformer_blocks_1_attn1_to_out_0": ("unet", "mid_block.attentions.0.transformer_blocks.1.attn1.to_out.0"),
    "lora_unet_output_blocks_1_1_transformer_blocks_1_ff_net_0_proj": (
        "unet",
        "up_blocks.0.attentions.1.transformer_blocks.1.ff.net.0.proj",
    ),
    "lora_unet_output_blocks_2_0_in_layers_2": ("unet", "up_blocks.1.resnets.0.conv1"),
    "lora_te1_text_model_encoder_layers_0_self_attn_q_proj": ("text_encoder", "encoder.layers.0.self_attn.q_proj"),
    "lora_te1_text_model_encoder_layers_0_self_attn_out_proj": ("text_encoder", "encoder.layers.0.self_attn.out_proj"),
    "lora_te2_text_model_encoder_layers_1_self_attn_out_proj": ("text_encoder_2", "text_model.encoder.layers.1.self_attn.out_proj"),
    "lora_te2_text_model_encoder_layers_1_mlp_fc1": ("text_encoder_2", "text_model.encoder.layers.1.mlp.fc1"),
}
"""kohya's name of an SDXL layer, and where it lies in the tiny one."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sdxl.write(tmp_path_factory.mktemp("sdxl") / "model")


@pytest.fixture(scope="module")
def suspect(model: Path) -> Suspect:
    return load(inspect(model), device="cpu")


def kohya(suspect: Suspect, **more: bool) -> dict[str, Tensor]:
    """Every layer with an α of 3 over a rank of 2; ``dora`` adds magnitudes of outputs."""
    generator, tensors = torch.Generator().manual_seed(5), {}
    for name, (component, module) in LAYERS.items():
        weight = suspect.modules[component].get_parameter(f"{module}.weight")
        down = torch.randn(2, *weight.shape[1:], generator=generator)
        up = torch.randn(len(weight), 2, *[1] * (weight.ndim - 2), generator=generator)
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(3.0)}
        if more.get("dora"):
            magnitude = weight.flatten(1).norm(dim=1) * 2
            tensors[f"{name}.dora_scale"] = magnitude.view(-1, *[1] * (weight.ndim - 1)).clone()
    return tensors


def written(tensors: dict[str, Tensor], path: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def test_diffusers_makes_the_same_of_the_original_codes_numbering(model: Path, suspect: Suspect, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from diffusers import StableDiffusionXLPipeline

    path = written(kohya(suspect), tmp_path / "kohya.safetensors")
    adapter = read_adapter(path, 1.0, suspect)
    assert set(adapter.deltas) == {(component, f"{module}.weight") for component, module in LAYERS.values()}
    assert adapter.read_otherwise == ""
    pipeline = StableDiffusionXLPipeline.from_pretrained(model, local_files_only=True)
    pipeline.load_lora_weights(str(tmp_path), weight_name=path.name)
    pipeline.fuse_lora(components=["unet", "text_encoder", "text_encoder_2"])
    with applied(suspect, [adapter]):
        for component, name in adapter.deltas:
            fused = getattr(pipeline, component).get_submodule(name.removesuffix(".weight"))
            theirs = getattr(fused, "base_layer", fused).weight
            assert torch.allclose(suspect.modules[component].get_parameter(name), theirs, atol=1e-4), name


def test_both_numberings_are_one_change(suspect: Suspect, tmp_path: Path) -> None:
    tensors = kohya(suspect)
    diffusers = {}
    for name, tensor in tensors.items():
        layer, _, factor = name.partition(".")
        component, module = LAYERS[layer]
        prefix = {"unet": "lora_unet_", "text_encoder": "lora_te1_text_model_", "text_encoder_2": "lora_te2_"}[component]
        diffusers[f"{prefix}{module.replace('.', '_')}.{factor}"] = tensor
    one, other = (read_adapter(written(each, tmp_path / f"{i}.safetensors"), 0.5, suspect) for i, each in enumerate((tensors, diffusers)))
    assert one.deltas.keys() == other.deltas.keys()
    assert all(torch.equal(delta, other.deltas[key]) for key, delta in one.deltas.items())


def peft(folder: Path, suspect: Suspect, **settings: object) -> Path:
    """Of the second tower, whose layers the first has too."""
    folder.mkdir()
    module, weight = "encoder.layers.0.self_attn.q_proj", suspect.modules["text_encoder_2"]
    size = weight.get_parameter(f"text_model.{module}.weight").shape
    tensors = {"lora_A": torch.ones(2, size[1]), "lora_B": torch.ones(size[0], 2)}
    written({f"base_model.model.text_model.{module}.{n}.weight": t for n, t in tensors.items()}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2, **settings}))
    return folder


def test_pefts_settings_say_which_tower_is_meant_and_nothing_else_does(suspect: Suspect, tmp_path: Path) -> None:
    mapping = {"base_model_class": "CLIPTextModelWithProjection", "parent_library": "transformers.models.clip.modeling_clip"}
    adapter = read_adapter(peft(tmp_path / "told", suspect, auto_mapping=mapping), 1.0, suspect)
    assert [component for component, _ in adapter.deltas] == ["text_encoder_2"]
    with pytest.raises(InconclusiveError, match="is a layer of text_encoder and of text_encoder_2, and nothing says which is meant"):
        read_adapter(peft(tmp_path / "untold", suspect), 1.0, suspect)


def test_what_tools_make_different_models_of_is_said(suspect: Suspect, tmp_path: Path) -> None:
    name, (component, module) = next(iter(LAYERS.items()))
    weight = suspect.modules[component].get_parameter(f"{module}.weight")
    plain = {key: tensor for key, tensor in kohya(suspect).items() if key.startswith(f"{name}.")}

    def read(magnitudes: Tensor, scale: float = 1.0) -> Adapter:
        return read_adapter(written(plain | {f"{name}.dora_scale": magnitudes}, tmp_path / "dora.safetensors"), scale, suspect)

    inputs, outputs = weight.norm(dim=0, keepdim=True), weight.norm(dim=1, keepdim=True)
    assert read(inputs).read_otherwise.endswith("dora.safetensors as diffusers reads it, which leaves out its dora_scale")
    assert "and as ComfyUI does, which divides by the norms of the weights without it" in read(outputs).read_otherwise
    with pytest.raises(InconclusiveError, match=r"tools disagree about what a scale of 0\.5 makes of it"):
        read(outputs, 0.5)


def test_a_dora_and_another_adapter_of_the_same_layer_have_an_order(suspect: Suspect, tmp_path: Path) -> None:
    dora = written(kohya(suspect, dora=True), tmp_path / "dora.safetensors")
    plain = written(kohya(suspect), tmp_path / "plain.safetensors")
    elsewhere = kohya(suspect)
    elsewhere = {name.replace("attn2_to_k", "attn2_to_v"): t for name, t in elsewhere.items() if "attn2_to_k" in name}
    apart = written(elsewhere, tmp_path / "apart.safetensors")
    assert len(read_adapters([(plain, 1.0), (plain, 0.5)], suspect)) == 2
    assert len(read_adapters([(dora, 1.0), (apart, 0.5)], suspect)) == 2
    with pytest.raises(InconclusiveError, match="is a DoRA, and another adapter changes"):
        read_adapters([(plain, 1.0), (dora, 1.0)], suspect)
