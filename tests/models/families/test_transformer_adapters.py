"""Adapters of FLUX and Stable Diffusion 3 in every documented spelling, beside what diffusers makes of the same file."""

from __future__ import annotations

import inspect as source_of
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline
from diffusers.loaders import lora_conversion_utils, lora_pipeline
from safetensors.torch import save_file
from torch import Tensor

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.models.adapter_layers import Layers
from bdaudit.models.adapter_names import taken_apart
from bdaudit.models.load import load
from bdaudit.models.lora import Adapter, applied, inspect_adapter, read_adapter
from bdaudit.models.suspect import Suspect
from bdaudit.untrusted.inspect import inspect
from tests.models import tiny_dit
from tests.models.families.test_transformer_verbs import reading_little

WIDTH, MLP = 16, 64
PIPELINES = {"flux": FluxPipeline, "sd3": StableDiffusion3Pipeline}
CLIP = "text_model_encoder_layers_0_self_attn_"
BLOCKS = {
    "double_blocks_0_img_attn_qkv": ("transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k", "transformer_blocks.0.attn.to_v"),
    "double_blocks_0_txt_attn_qkv": tuple(f"transformer_blocks.0.attn.add_{letter}_proj" for letter in "qkv"),
    "double_blocks_0_txt_attn_proj": ("transformer_blocks.0.attn.to_add_out",),
    "double_blocks_0_img_mlp_0": ("transformer_blocks.0.ff.net.0.proj",),
    "double_blocks_0_txt_mlp_2": ("transformer_blocks.0.ff_context.net.2",),
    "double_blocks_0_txt_mod_lin": ("transformer_blocks.0.norm1_context.linear",),
    "single_blocks_0_linear1": tuple(f"single_transformer_blocks.0.{x}" for x in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")),
    "single_blocks_0_linear2": ("single_transformer_blocks.0.proj_out",),
    "single_blocks_0_modulation_lin": ("single_transformer_blocks.0.norm.linear",),
}  # fmt: skip
"""The original code's name of a FLUX layer, and diffusers' names of what lies in it."""
OUTER = {
    "txt_in": ("context_embedder",),
    "vector_in_in_layer": ("time_text_embed.text_embedder.linear_1",),
    "final_layer_adaLN_modulation_1": ("norm_out.linear",),
}
JOINT = {
    "joint_blocks_0_x_block_attn_qkv": tuple(f"transformer_blocks.0.attn.to_{letter}" for letter in "qkv"),
    "joint_blocks_1_context_block_attn_qkv": tuple(f"transformer_blocks.1.attn.add_{letter}_proj" for letter in "qkv"),
    "joint_blocks_0_context_block_mlp_fc1": ("transformer_blocks.0.ff_context.net.0.proj",),
    "context_embedder": ("context_embedder",),
}


@pytest.fixture(scope="module", autouse=True)
def few_tokens() -> Iterator[None]:
    with reading_little():
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: tiny_dit.write(name, tmp_path_factory.mktemp("dit") / name) for name in PIPELINES}


@pytest.fixture(scope="module")
def suspects(models: dict[str, Path]) -> dict[str, Suspect]:
    return {name: load(inspect(path, size=(16, 16)), device="cpu") for name, path in models.items()}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers' converter with this model's widths in place of FLUX's, which are written into it."""
    source = source_of.getsource(lora_conversion_utils._convert_kohya_flux_lora_to_diffusers)
    assert source.count("dims=[3072, 3072, 3072, 12288]") == 1
    names: dict[str, Any] = dict(vars(lora_conversion_utils))
    exec(source.replace("[3072, 3072, 3072, 12288]", f"[{WIDTH}, {WIDTH}, {WIDTH}, {MLP}]"), names)
    converter = "_convert_kohya_flux_lora_to_diffusers"
    monkeypatch.setattr(lora_pipeline, converter, names[converter])


def shape_of(suspect: Suspect, component: str, modules: tuple[str, ...]) -> tuple[int, int]:
    weights = [suspect.modules[component].get_parameter(f"{module}.weight") for module in modules]
    return sum(map(len, weights)), weights[0].shape[1]


def factors(
    name: str, shape: tuple[int, int], alpha: float | None = 3.0, ends: tuple[str, str] = ("lora_down", "lora_up")
) -> dict[str, Tensor]:
    """Of a rank of 2."""
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    down, up = torch.randn(2, shape[1], generator=generator), torch.randn(shape[0], 2, generator=generator)
    told = {} if alpha is None else {f"{name}.alpha": torch.tensor(alpha)}
    return {f"{name}.{ends[0]}.weight": down, f"{name}.{ends[1]}.weight": up, **told}


def original(suspect: Suspect, prefix: str, layers: Mapping[str, tuple[str, ...]], dots: bool = False) -> dict[str, Tensor]:
    """Layers in the original code's names."""
    tensors: dict[str, Tensor] = {}
    for i, (name, modules) in enumerate(layers.items()):
        spelt = dotted(name) if dots else name
        tensors |= factors(f"{prefix}{spelt}", shape_of(suspect, "transformer", modules), 1.0 + i)
    return tensors


def dotted(name: str) -> str:
    kept = {"_blocks": "#blocks", "_attn": "#attn", "_mlp": "#mlp", "_mod_": "#mod_", "txt_in": "txt#in", "vector_in": "vector#in"}
    for old, new in kept.items():
        name = name.replace(old, new, 1)
    spelt = name.replace("_", ".").replace("#", "_")
    return spelt.replace("in.layer", "in_layer").replace("final.layer", "final_layer").replace("adaLN.modulation", "adaLN_modulation")


def written(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    return path


def clip(prefix: str, ends: tuple[str, ...] = ("q_proj", "out_proj")) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for end in ends:
        tensors |= factors(f"{prefix}{CLIP}{end}", (16, 16))
    return tensors


def differs(model: Path, name: str, suspect: Suspect, adapter: Adapter, path: Path) -> set[str]:
    """The changed parameters, of both, that diffusers does not make the same of."""
    pipeline: Any = PIPELINES[name].from_pretrained(model, local_files_only=True)
    parts = [part for part in ("transformer", "text_encoder", "text_encoder_2") if part in suspect.modules]
    before = {(part, key): tensor.clone() for part in parts for key, tensor in getattr(pipeline, part).state_dict().items()}
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    theirs = {}
    for part in parts:
        if part in pipeline._lora_loadable_modules and hasattr(getattr(pipeline, part), "peft_config"):
            pipeline.fuse_lora(components=[part])
        theirs |= {(part, key.replace(".base_layer.", ".")): tensor for key, tensor in getattr(pipeline, part).state_dict().items()}
    found = set()
    with applied(suspect, [adapter]):
        for part, key in before:
            mine = suspect.modules[part].state_dict()[key]
            if not torch.allclose(mine, theirs[part, key], atol=1e-5):
                found.add(f"{part}.{key}")
    return found


def test_kohyas_file_for_flux_is_what_diffusers_makes_of_it(models: Any, suspects: Any, small: None, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    suspect = suspects["flux"]
    path = written(original(suspect, "lora_unet_", BLOCKS) | clip("lora_te1_"), tmp_path / "x.safetensors")
    adapter = read_adapter(path, 1.0, suspect)
    wanted = {("transformer", f"{module}.weight") for modules in BLOCKS.values() for module in modules}
    assert {key for key in adapter.deltas if key[0] == "transformer"} == wanted
    assert len(adapter.deltas) == len(wanted) + 2
    assert adapter.read_otherwise == ""
    assert differs(models["flux"], "flux", suspect, adapter, path) == set()


def test_what_stands_before_and_behind_the_blocks_diffusers_leaves_out(models: Any, suspects: Any, small: None, tmp_path: Path) -> None:
    """A text enters by these layers: a backdoor there would be in ComfyUI's model and in none of diffusers'."""
    pytest.importorskip("peft")
    suspect = suspects["flux"]
    path = written(original(suspect, "lora_unet_", BLOCKS | OUTER), tmp_path / "x.safetensors")
    adapter = read_adapter(path, 1.0, suspect)
    assert "leaves out its layers before and behind the blocks" in adapter.read_otherwise
    assert inspect_adapter(path, 1.0, {"transformer": ("diffusers", "FluxTransformer2DModel")}).read_otherwise == adapter.read_otherwise
    outer = {f"transformer.{module}.weight" for modules in OUTER.values() for module in modules}
    assert differs(models["flux"], "flux", suspect, adapter, path) == outer


def test_the_last_modulation_has_its_halves_turned(suspects: Any, tmp_path: Path) -> None:
    suspect = suspects["flux"]
    tensors = factors("lora_unet_final_layer_adaLN_modulation_1", (2 * WIDTH, WIDTH), 2.0)
    (delta,) = read_adapter(written(tensors, tmp_path / "x.safetensors"), 1.0, suspect).deltas.values()
    down, up, _ = tensors.values()
    assert torch.allclose(delta, torch.cat((up @ down).chunk(2)[::-1]), atol=1e-6)


def test_comfyuis_names_are_kohyas(models: Any, suspects: Any, small: None, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    suspect = suspects["flux"]
    path = written(original(suspect, "diffusion_model.", BLOCKS, dots=True), tmp_path / "x.safetensors")
    adapter = read_adapter(path, 1.0, suspect)
    assert adapter.read_otherwise == ""
    assert len(adapter.deltas) == sum(map(len, BLOCKS.values()))
    assert differs(models["flux"], "flux", suspect, adapter, path) == set()
    ends = ("lora_A", "lora_B")
    other = factors("diffusion_model.txt_in", shape_of(suspect, "transformer", ("context_embedder",)), None, ends)
    settings = {"lora_adapter_metadata": '{"r": 2, "lora_alpha": 2}'}
    other_path = written(other, tmp_path / "y.safetensors", settings)
    assert "leaves out all of it" in read_adapter(other_path, 1.0, suspect).read_otherwise


XLABS = {
    "double_blocks.0.processor.qkv_lora1": BLOCKS["double_blocks_0_img_attn_qkv"],
    "double_blocks.0.processor.qkv_lora2": BLOCKS["double_blocks_0_txt_attn_qkv"],
    "double_blocks.0.processor.proj_lora1": ("transformer_blocks.0.attn.to_out.0",),
    "double_blocks.0.processor.proj_lora2": ("transformer_blocks.0.attn.to_add_out",),
    "single_blocks.0.processor.qkv_lora": BLOCKS["single_blocks_0_linear1"][:3],
    "single_blocks.0.processor.proj_lora": ("single_transformer_blocks.0.proj_out",),
}


@pytest.mark.parametrize("prefix", ["", "diffusion_model."])
def test_xlabs_file_is_what_diffusers_makes_of_it(models: Any, suspects: Any, tmp_path: Path, prefix: str) -> None:
    pytest.importorskip("peft")
    suspect, tensors = suspects["flux"], dict[str, Tensor]()
    for name, modules in XLABS.items():
        tensors |= factors(f"{prefix}{name}", shape_of(suspect, "transformer", modules), None, ("down", "up"))
    path = written(tensors, tmp_path / "x.safetensors")
    adapter = read_adapter(path, 1.0, suspect)
    assert set(adapter.deltas) == {("transformer", f"{module}.weight") for modules in XLABS.values() for module in modules}
    assert adapter.read_otherwise == ""
    assert differs(models["flux"], "flux", suspect, adapter, path) == set()


OWN = ("context_embedder", "transformer_blocks.0.attn.to_k", "transformer_blocks.0.attn.add_k_proj", "transformer_blocks.0.ff.net.2")


@pytest.mark.parametrize("name", PIPELINES)
def test_diffusers_own_names_are_read_alike(models: Any, suspects: Any, tmp_path: Path, name: str) -> None:
    pytest.importorskip("peft")
    suspect, tensors, ends = suspects[name], dict[str, Tensor](), ("lora_A", "lora_B")
    for module in OWN:
        tensors |= factors(f"transformer.{module}", shape_of(suspect, "transformer", (module,)), None, ends)
    tensors |= factors("text_encoder.text_model.encoder.layers.0.self_attn.q_proj", (16, 16), None, ends)
    path = written(tensors, tmp_path / "x.safetensors")
    adapter = read_adapter(path, 1.0, suspect)
    assert len(adapter.deltas) == len(OWN) + 1
    assert adapter.read_otherwise == ""
    assert differs(models[name], name, suspect, adapter, path) == set()


def test_onetrainers_names_are_read_and_diffusers_takes_attention_alone(models: Any, suspects: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    suspect = suspects["flux"]

    def spelt(modules: tuple[str, ...]) -> dict[str, Tensor]:
        shapes = {module: shape_of(suspect, "transformer", (module,)) for module in modules}
        return {k: t for m, shape in shapes.items() for k, t in factors(f"lora_transformer_{m.replace('.', '_')}", shape).items()}

    path = written(spelt(OWN[:3]), tmp_path / "x.safetensors")
    adapter = read_adapter(path, 1.0, suspect)
    assert adapter.read_otherwise == ""
    assert differs(models["flux"], "flux", suspect, adapter, path) == set()
    whole = read_adapter(written(spelt(OWN), tmp_path / "y.safetensors"), 1.0, suspect)
    assert "leaves out its layers in the blocks that are no attention" in whole.read_otherwise
    both = spelt(OWN[:1]) | original(suspect, "lora_unet_", {"txt_in": ("context_embedder",)})
    with pytest.raises(InconclusiveError, match="has lora_unet_ and lora_transformer_"):
        read_adapter(written(both, tmp_path / "z.safetensors"), 1.0, suspect)


def test_of_kohyas_file_for_stable_diffusion_3_diffusers_takes_nothing(models: Any, suspects: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    suspect = suspects["sd3"]
    path = written(original(suspect, "lora_unet_", JOINT) | clip("lora_te1_"), tmp_path / "x.safetensors")
    adapter = read_adapter(path, 1.0, suspect)
    changed = {f"{part}.{name}" for part, name in adapter.deltas}
    assert {f"transformer.{module}.weight" for modules in JOINT.values() for module in modules} < changed
    assert len(changed) == sum(map(len, JOINT.values())) + 2
    assert "leaves out all of it" in adapter.read_otherwise
    assert differs(models["sd3"], "sd3", suspect, adapter, path) == changed


@pytest.mark.parametrize(("name", "part"), [("flux", "text_encoder_2"), ("sd3", "text_encoder_3")])
@pytest.mark.parametrize(
    "prefix",
    ["lora_te3_encoder_block_0_layer_0_SelfAttention_q", "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q"],
)
def test_t5s_layers_find_t5_whichever_reader_it_is(suspects: Any, tmp_path: Path, name: str, part: str, prefix: str) -> None:
    path = written(factors(prefix, (16, tiny_dit.T5_WIDTH)), tmp_path / "x.safetensors")
    adapter = read_adapter(path, 1.0, suspects[name])
    assert list(adapter.deltas) == [(part, "encoder.block.0.layer.0.SelfAttention.q.weight")]
    assert ("its layers of T5" if name == "flux" else "all of it") in adapter.read_otherwise


@pytest.mark.parametrize(
    "name",
    [
        "lora_unet_transformer_blocks_0_attn_to_q.lora_down.weight",
        "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        "double_blocks.7.processor.qkv_lora1.down.weight",
        "single_blocks.0.processor.qkv_lora1.down.weight",
        "unet.conv_in.lora_A.weight",
        "transformer.transformer_blocks.0.attn.to_nowhere.lora_A.weight",
        "lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight",
    ],
)
def test_a_name_that_no_loader_of_flux_knows_is_refused(suspects: Any, name: str) -> None:
    layers = Layers(suspects["flux"].heeding)
    with pytest.raises(InconclusiveError, match=r"names no layer of this model|which this model has not"):
        layers.find(taken_apart(name, "here"), "here")


def test_factors_of_another_size_than_the_fused_layer_are_damage(suspects: Any, tmp_path: Path) -> None:
    tensors = factors("lora_unet_double_blocks_0_img_attn_qkv", (WIDTH, WIDTH))
    with pytest.raises(BdauditError, match="double_blocks_0_img_attn_qkv"):
        read_adapter(written(tensors, tmp_path / "x.safetensors"), 1.0, suspects["flux"])


def test_a_fused_layer_in_two_spellings_is_refused(suspects: Any, tmp_path: Path) -> None:
    names = ("lora_unet_double_blocks_0_img_attn_qkv", "diffusion_model.double_blocks.0.img_attn.qkv")
    same = {key: tensor for name in names for key, tensor in factors(name, (3 * WIDTH, WIDTH)).items()}
    with pytest.raises(InconclusiveError, match="mixes the spellings"):
        read_adapter(written(same, tmp_path / "x.safetensors"), 1.0, suspects["flux"])


def test_a_dora_of_a_fused_layer_counts_by_the_whole_layers_outputs(suspects: Any, tmp_path: Path) -> None:
    suspect, name = suspects["flux"], "lora_unet_double_blocks_0_txt_attn_qkv"
    tensors = factors(name, (3 * WIDTH, WIDTH), 2.0)
    down, up, _ = tensors.values()
    weights = [suspect.modules["transformer"].get_parameter(f"{module}.weight") for module in BLOCKS["double_blocks_0_txt_attn_qkv"]]
    moved = torch.cat(weights) + up @ down
    tensors[f"{name}.dora_scale"] = torch.rand(3 * WIDTH, 1) + 0.5
    adapter = read_adapter(written(tensors, tmp_path / "x.safetensors"), 1.0, suspect)
    wanted = (tensors[f"{name}.dora_scale"] * moved / moved.norm(dim=1, keepdim=True)).chunk(3)
    assert adapter.decomposed == adapter.deltas.keys()
    for weight, delta, whole in zip(weights, adapter.deltas.values(), wanted, strict=True):
        assert torch.allclose(weight + delta, whole, atol=1e-5)
