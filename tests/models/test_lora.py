"""LoRA adapters: the right product in the right weight, out again to the bit, and nothing unsafe or half understood."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bdaudit.errors import BdauditError, InconclusiveError, RefusedError, UsageError
from bdaudit.models.adapter_layers import Layers
from bdaudit.models.adapter_names import taken_apart
from bdaudit.models.load import load
from bdaudit.models.lora import applied, read_adapter
from bdaudit.models.suspect import Suspect
from bdaudit.untrusted.inspect import inspect
from fixtures import layout
from tests.bench.adapters import differences, kohya, peft
from tests.small import with_parts

KEY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
OUT = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0"
TEXT = "encoder.layers.0.self_attn.q_proj"
TEXT_OUT, FC1 = "encoder.layers.0.self_attn.out_proj", "encoder.layers.0.mlp.fc1"
FF = "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2"
NORM = "down_blocks.0.attentions.0.transformer_blocks.0.norm2"
CONV = "down_blocks.0.resnets.0.conv1"
GENERATOR = torch.Generator().manual_seed(0)
DOWN, UP = torch.randn(2, 8, generator=GENERATOR), torch.randn(8, 2, generator=GENERATOR)


def flat(name: str) -> str:
    return name.replace(".", "_")


SPELLINGS: dict[str, dict[str, Tensor]] = {
    "diffusers of today": {f"unet.{KEY}.lora_A.weight": DOWN, f"unet.{KEY}.lora_B.weight": UP},
    "diffusers": {f"unet.{KEY}.lora.down.weight": DOWN, f"unet.{KEY}.lora.up.weight": UP},
    "processors": {
        f"unet.{KEY.removesuffix('.to_k')}.processor.to_k_lora.down.weight": DOWN,
        f"unet.{KEY.removesuffix('.to_k')}.processor.to_k_lora.up.weight": UP,
    },
    "processors, older": {
        f"{KEY.removesuffix('.to_k')}.processor.to_k_lora.down.weight": DOWN,
        f"{KEY.removesuffix('.to_k')}.processor.to_k_lora.up.weight": UP,
    },
    "kohya": {f"lora_unet_{flat(KEY)}.lora_down.weight": DOWN, f"lora_unet_{flat(KEY)}.lora_up.weight": UP},
}


def written(folder: Path, tensors: dict[str, Tensor], name: str = "adapter.safetensors") -> Path:
    save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, folder / name)
    return folder / name


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_means_the_same(tiny_suspect: Suspect, tmp_path: Path, spelling: str) -> None:
    adapter = read_adapter(written(tmp_path, SPELLINGS[spelling]), 1.0, tiny_suspect)
    assert list(adapter.deltas) == [("unet", f"{KEY}.weight")]
    assert torch.allclose(adapter.deltas["unet", f"{KEY}.weight"], UP @ DOWN, atol=1e-6)


def test_alpha_text_encoder_and_the_output_layer(tiny_suspect: Suspect, tmp_path: Path) -> None:
    text = "lora_te_text_model_" + flat(TEXT)
    tensors = {
        f"{text}.lora_down.weight": DOWN, f"{text}.lora_up.weight": UP, f"{text}.alpha": torch.tensor(0.5),
    }  # fmt: skip
    old = f"unet.{OUT.removesuffix('.to_out.0')}.processor.to_out_lora"
    deltas = read_adapter(written(tmp_path, {f"{old}.down.weight": DOWN, f"{old}.up.weight": UP}), 1.0, tiny_suspect).deltas
    assert torch.allclose(deltas["unet", f"{OUT}.weight"], UP @ DOWN, atol=1e-6)
    deltas = read_adapter(written(tmp_path, tensors), 1.0, tiny_suspect).deltas
    (name,) = [name for component, name in deltas if component == "text_encoder"]
    assert name.endswith(f"{TEXT}.weight")
    assert torch.allclose(deltas["text_encoder", name], 0.25 * UP @ DOWN, atol=1e-6), "alpha over rank"


@pytest.mark.parametrize("prefix", ["unet.", ""])
def test_alpha_of_the_header_counts_as_it_does_in_diffusers(tiny_suspect: Suspect, tmp_path: Path, prefix: str) -> None:
    def told(**settings: object) -> Path:
        path = tmp_path / "told.safetensors"
        metadata = {"format": "pt", "lora_adapter_metadata": json.dumps({prefix + k: v for k, v in settings.items()})}
        save_file({f"{prefix}{KEY}.lora_A.weight": DOWN, f"{prefix}{KEY}.lora_B.weight": UP}, path, metadata=metadata)
        return path

    for settings, times in (
        ({"lora_alpha": 6, "r": 2, "alpha_pattern": {}, "use_rslora": False}, 3.0),
        ({"lora_alpha": 6, "r": 2, "use_rslora": True}, 6 / 2**0.5),
        ({"lora_alpha": 6, "r": 8, "rank_pattern": {f"^{KEY}": 2}, "alpha_pattern": {"attn2.to_k": 1, "to_k": 4}}, 0.5),
    ):
        (delta,) = read_adapter(told(**settings), 1.0, tiny_suspect).deltas.values()
        assert torch.allclose(delta, times * UP @ DOWN, atol=1e-5)
    with pytest.raises(BdauditError, match="expected a finite number"):
        read_adapter(told(lora_alpha="9", r=2), 1.0, tiny_suspect)


def test_settings_without_the_components_name_are_not_the_components(tiny_suspect: Suspect, tmp_path: Path) -> None:
    """diffusers reads none of them, so that peft's own defaults hold: a rank of 8, which these tensors do not have."""
    path = tmp_path / "told.safetensors"
    save_file(SPELLINGS["diffusers of today"], path, metadata={"lora_adapter_metadata": json.dumps({"lora_alpha": 6, "r": 2})})
    with pytest.raises(BdauditError, match="is 8 by its settings and 2 by its tensors"):
        read_adapter(path, 1.0, tiny_suspect)


def test_one_layer_twice_and_two_spellings_in_one_file_are_refused(tiny_suspect: Suspect, tmp_path: Path) -> None:
    with pytest.raises(BdauditError, match="is there twice, under two spellings"):
        read_adapter(written(tmp_path, SPELLINGS["processors"] | SPELLINGS["diffusers of today"]), 1.0, tiny_suspect)
    with pytest.raises(InconclusiveError, match="mixes the spellings of diffusers and kohya"):
        read_adapter(written(tmp_path, SPELLINGS["diffusers of today"] | SPELLINGS["kohya"]), 1.0, tiny_suspect)


def peft_directory(folder: Path, tensors: dict[str, Tensor], **settings: object) -> Path:
    folder.mkdir(exist_ok=True)
    written(folder, {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}, "adapter_model.safetensors")
    told = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "target_modules": ["to_k", "q_proj"], "bias": "none", **settings}
    (folder / "adapter_config.json").write_text(json.dumps(told))
    return folder


PEFT = {f"{KEY}.lora_A.weight": DOWN, f"{KEY}.lora_B.weight": UP}


def test_pefts_alpha_stands_in_the_file_beside_and_counts(tiny_suspect: Suspect, tmp_path: Path) -> None:
    folder = peft_directory(tmp_path / "peft", PEFT)
    for named in (folder, folder / "adapter_model.safetensors"):
        adapter = read_adapter(named, 0.5, tiny_suspect)
        assert torch.allclose(adapter.deltas["unet", f"{KEY}.weight"], 0.5 * 4 * UP @ DOWN, atol=1e-5)
        assert [Path(file.path).name for file in adapter.files] == ["adapter_model.safetensors", "adapter_config.json"]
    other = read_adapter(peft_directory(folder, PEFT, lora_alpha=16), 0.5, tiny_suspect)
    assert other.files[0] == adapter.files[0]
    assert other.digest != adapter.digest, "another alpha is another adapter"
    text = peft_directory(tmp_path / "text", {f"text_model.{TEXT}.lora_A.weight": DOWN, f"text_model.{TEXT}.lora_B.weight": UP})
    ((component, name),) = read_adapter(text, 1.0, tiny_suspect).deltas
    assert (component, name.endswith(f"{TEXT}.weight")) == ("text_encoder", True)


@pytest.mark.parametrize("prefix", ["base_model.model.", ""])
def test_pefts_spelling_with_alpha_nowhere_is_not_guessed(tiny_suspect: Suspect, tmp_path: Path, prefix: str) -> None:
    path = written(tmp_path, {prefix + name: tensor for name, tensor in PEFT.items()})
    with pytest.raises(InconclusiveError, match=r"alpha stands in adapter_config\.json, which is not beside it"):
        read_adapter(path, 1.0, tiny_suspect)


def test_what_loaders_read_differently_is_no_one_model(tiny_suspect: Suspect, tmp_path: Path) -> None:
    second = {f"lora_unet_{flat(OUT)}.lora_down.weight": DOWN, f"lora_unet_{flat(OUT)}.lora_up.weight": UP}
    alpha = {f"lora_unet_{flat(KEY)}.alpha": torch.tensor(1.0)}
    with pytest.raises(InconclusiveError, match=r"no alpha and other layers have one: kohya's tools take its rank, diffusers the others'"):
        read_adapter(written(tmp_path, SPELLINGS["kohya"] | second | alpha), 1.0, tiny_suspect)
    with pytest.raises(InconclusiveError, match="alpha is 0"):
        read_adapter(written(tmp_path, SPELLINGS["kohya"] | {f"lora_unet_{flat(KEY)}.alpha": torch.tensor(0.0)}), 1.0, tiny_suspect)
    alike = read_adapter(
        written(tmp_path, SPELLINGS["kohya"] | second | alpha | {f"lora_unet_{flat(OUT)}.alpha": torch.tensor(1.0)}), 1.0, tiny_suspect
    )
    unlike = read_adapter(
        written(tmp_path, SPELLINGS["kohya"] | second | alpha | {f"lora_unet_{flat(OUT)}.alpha": torch.tensor(2.0)}), 1.0, tiny_suspect
    )
    assert alike.read_otherwise == ""
    assert "which takes the commonest alpha" in unlike.read_otherwise
    assert torch.allclose(unlike.deltas["unet", f"{OUT}.weight"], UP @ DOWN, atol=1e-6), "kohya's own reading is what is audited"


@pytest.mark.parametrize(("layers", "left_out"), [((TEXT,), False), ((TEXT, FC1), True), ((TEXT, FC1, TEXT_OUT), False), ((FC1,), False)])
def test_diffusers_leaves_out_a_text_encoders_attention_without_its_output_layer(
    tiny_suspect: Suspect, tmp_path: Path, layers: tuple[str, ...], left_out: bool
) -> None:
    """As ``load_lora_weights`` of 0.42.1 does with kohya's names; of q_proj alone it opens nothing."""
    tensors = {}
    for layer in layers:
        name, outputs = "lora_te_text_model_" + flat(layer), 16 if layer == FC1 else 8
        tensors |= {f"{name}.lora_down.weight": DOWN, f"{name}.lora_up.weight": torch.ones(outputs, 2), f"{name}.alpha": torch.tensor(2.0)}
    said = read_adapter(written(tmp_path, tensors), 1.0, tiny_suspect).read_otherwise
    assert ("leaves out the attention of text_encoder where" in said) == left_out, said


ORIGINAL = KEY.replace("down_blocks.0.attentions.0", "input_blocks.1.1")


@pytest.mark.parametrize(
    ("layer", "beside", "left_out"),
    [
        (f"diffusion_model.{ORIGINAL}", "", "leaves out all of it"),
        (f"lora_unet_{flat(ORIGINAL)}", "lora_unet_conv_out", "leaves out its layers in the original code's names"),
        (f"unet.{ORIGINAL}", "unet.conv_out", "leaves out its layers in the original code's names"),
        ("unet.time_embed.2", "unet.conv_out", "leaves out its layers in the original code's names"),
        ("lora_unet_out_2", f"lora_unet_{flat(KEY)}", ""),
    ],
)
def test_what_diffusers_passes_over_in_silence_is_told(
    tiny_model: Path, tiny_suspect: Suspect, tmp_path: Path, layer: str, beside: str, left_out: str
) -> None:
    pytest.importorskip("peft")
    from diffusers import StableDiffusionPipeline

    tensors = {}
    for name in filter(None, (layer, beside)):
        weight = Layers(tiny_suspect.heeding).find(taken_apart(f"{name}.lora_up.weight", ""), "").module.get_parameter("weight")
        down, up = ("lora_A", "lora_B") if name.startswith("unet.") else ("lora_down", "lora_up")
        tensors[f"{name}.{down}.weight"] = torch.ones(2, *weight.shape[1:])
        tensors[f"{name}.{up}.weight"] = torch.ones(len(weight), 2, *[1] * (weight.ndim - 2))
    path = written(tmp_path, tensors)
    adapter = read_adapter(path, 1.0, tiny_suspect)
    assert len(adapter.deltas) == len(tensors) // 2
    assert adapter.read_otherwise == (f"{path} as diffusers reads it, which {left_out}" if left_out else "")
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, local_files_only=True)
    pipeline.load_lora_weights(str(tmp_path), weight_name=path.name)
    taken = {name.partition(".lora_A")[0] for name, _ in pipeline.unet.named_parameters() if ".lora_A" in name}
    assert (len(taken) < len(adapter.deltas)) == bool(left_out), taken


@pytest.mark.parametrize(
    ("prefix", "left_out"),
    [("diffusion_model.", "all of it"), ("unet.", "its layers in the original code's names and its dora_scale")],
)
def test_every_reader_that_makes_another_thing_of_it_is_told(tiny_suspect: Suspect, tmp_path: Path, prefix: str, left_out: str) -> None:
    name = f"{prefix}{ORIGINAL}"
    layer = Layers(tiny_suspect.heeding).find(taken_apart(f"{name}.lora_up.weight", ""), "").module
    down, up = DOWN[:2, :1].expand(2, layer.in_features).clone(), torch.ones(layer.out_features, 2)
    factors = ("lora_A", "lora_B") if prefix == "unet." else ("lora_down", "lora_up")
    tensors = {f"{name}.{role}.weight": tensor for role, tensor in zip(factors, (down, up), strict=True)}
    path = written(tmp_path, tensors | {f"{name}.dora_scale": torch.ones(layer.out_features, 1)})
    said = read_adapter(path, 1.0, tiny_suspect).read_otherwise
    assert f"leaves out {left_out}, and as ComfyUI does" in said


def test_a_convolution(tiny_suspect: Suspect, tmp_path: Path) -> None:
    down, up = torch.randn(2, 8, 3, 3), torch.randn(8, 2, 1, 1)
    path = written(tmp_path, {f"unet.{CONV}.lora_A.weight": down, f"unet.{CONV}.lora_B.weight": up})
    delta = read_adapter(path, 1.0, tiny_suspect).deltas["unet", f"{CONV}.weight"]
    assert torch.allclose(delta, torch.einsum("or,rikl->oikl", up[:, :, 0, 0], down), atol=1e-5)


def test_several_are_added_with_their_scales_and_leave_no_trace(tiny_suspect: Suspect, tmp_path: Path) -> None:
    path = written(tmp_path, SPELLINGS["diffusers of today"])
    adapters = [read_adapter(path, 0.5, tiny_suspect), read_adapter(path, -2.0, tiny_suspect)]
    weights = {name: tensor.clone() for name, tensor in tiny_suspect.denoiser.module.state_dict().items()}

    def inside() -> None:
        with applied(tiny_suspect, adapters):
            now = tiny_suspect.denoiser.module.state_dict()
            assert torch.allclose(now[f"{KEY}.weight"], weights[f"{KEY}.weight"] - 1.5 * UP @ DOWN, atol=1e-5)
            assert all(torch.equal(now[name], weights[name]) for name in weights if name != f"{KEY}.weight")
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        inside()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in tiny_suspect.denoiser.module.state_dict().items())


def test_none_changes_nothing(tiny_suspect: Suspect) -> None:
    before = tiny_suspect.denoiser.module.state_dict()[f"{KEY}.weight"].clone()
    with applied(tiny_suspect, []):
        assert torch.equal(tiny_suspect.denoiser.module.state_dict()[f"{KEY}.weight"], before)


def test_a_pickle_is_never_opened(tiny_suspect: Suspect, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    for name, kind in (("adapter.safetensors", RefusedError), ("adapter.bin", UsageError)):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(kind):
            read_adapter(tmp_path / name, 1.0, tiny_suspect)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("tensors", "kind", "said"),
    [
        ({f"unet.{KEY}.lora_A.weight": DOWN}, BdauditError, "down alone"),
        ({f"unet.{KEY}.lora_A.weight": DOWN, f"unet.{KEY}.lora_B.weight": UP * torch.nan}, BdauditError, "NaN"),
        ({f"unet.{KEY}.lora_A.weight": DOWN[:, :4], f"unet.{KEY}.lora_B.weight": UP}, BdauditError, "do not make a weight"),
        ({"unet.mid_block.nowhere.lora_A.weight": DOWN, "unet.mid_block.nowhere.lora_B.weight": UP}, BdauditError, "another one"),
        ({f"lora_unet_{flat(KEY)}.hada_w1_a": DOWN}, BdauditError, "hada_w1_a alone; it needs"),
        ({f"unet.{KEY}.lora_A.weight": torch.tensor(1.0), f"unet.{KEY}.lora_B.weight": UP}, BdauditError, r"down \(\)"),
        (
            {f"unet.{KEY}.lora_A.weight": DOWN, f"unet.{KEY}.lora_B.weight": UP, f"unet.{KEY}.alpha": UP},
            BdauditError,
            "expected one number",
        ),
        ({f"unet.{KEY}.lora_A.weight": DOWN.to(torch.int8), f"unet.{KEY}.lora_B.weight": UP}, InconclusiveError, "holds int8"),
        ({f"unet.{KEY}.lora_A.weight": DOWN * 1e30, f"unet.{KEY}.lora_B.weight": UP * 1e30}, BdauditError, "is not finite"),
        ({f"unet.{KEY}.alpha": torch.tensor(1.0)}, BdauditError, "an alpha and no factors"),
        (
            {f"unet.{KEY}.lora_A.weight": DOWN, f"unet.{KEY}.lora_B.weight": UP, f"unet.{KEY}.dora_scale": torch.tensor(1.0)},
            BdauditError,
            r"dora_scale \(\) has no magnitude for each output",
        ),
        ({f"unet.{KEY}.diff_b": torch.ones(8)}, BdauditError, "a bias that this layer does not have"),
        ({f"unet.{NORM}.lora_A.weight": DOWN, f"unet.{NORM}.lora_B.weight": UP}, InconclusiveError, "is a LayerNorm; factors for linear"),
    ],
)
def test_what_does_not_fit_is_said(
    tiny_suspect: Suspect, tmp_path: Path, tensors: dict[str, Tensor], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        read_adapter(written(tmp_path, tensors), 1.0, tiny_suspect)


def test_a_norms_weights_differ_by_a_whole_difference(tiny_suspect: Suspect, tmp_path: Path) -> None:
    adapter = read_adapter(written(tmp_path, {f"unet.{NORM}.diff": torch.arange(8.0)}), 0.5, tiny_suspect)
    assert torch.equal(adapter.deltas["unet", f"{NORM}.weight"], torch.arange(8.0) / 2)


@pytest.mark.parametrize("other", [0.5, 1.0])
def test_the_commonest_alpha_is_each_components_own(tiny_suspect: Suspect, tmp_path: Path, other: float) -> None:
    """Of the UNet its attention alone takes it: another layer's may differ, and another component's."""
    tensors = {}
    for name, rows, columns, alpha in (
        (f"lora_unet_{flat(KEY)}", 8, 8, 1.0), (f"lora_unet_{flat(OUT)}", 8, 8, 1.0), (f"lora_unet_{flat(FF)}", 8, 32, other),
        ("lora_te_text_model_" + flat(TEXT), 8, 8, 2.0), ("lora_te_text_model_" + flat(TEXT_OUT), 8, 8, 2.0),
    ):  # fmt: skip
        tensors |= {f"{name}.lora_down.weight": torch.ones(2, columns), f"{name}.lora_up.weight": torch.ones(rows, 2)}
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    assert read_adapter(written(tmp_path, tensors), 1.0, tiny_suspect).read_otherwise == ""


@pytest.mark.parametrize("cut", [4, 60, -3])
def test_a_file_cut_short_is_an_error(tiny_suspect: Suspect, tmp_path: Path, cut: int) -> None:
    path = written(tmp_path, SPELLINGS["kohya"])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BdauditError):
        read_adapter(path, 1.0, tiny_suspect)


def test_names_and_settings_with_lone_surrogates_are_damage(tiny_suspect: Suspect, tmp_path: Path) -> None:
    def file(name: str, metadata: dict[str, str]) -> Path:
        header = json.dumps({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "__metadata__": metadata}).encode()
        (tmp_path / "odd.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
        return tmp_path / "odd.safetensors"

    for name, metadata in (
        ("unet.\ud800.alpha", {}),
        ("unet.x.alpha", {"lora_adapter_metadata": "{\ud800}"}),
        ("unet.x.alpha", {"a": "\udfff"}),
    ):
        with pytest.raises(BdauditError):
            read_adapter(file(name, metadata), 1.0, tiny_suspect)


def saved_by_peft(name: str, unet: torch.nn.Module, folder: Path) -> torch.nn.Module:
    """``unet`` with an adapter of peft's in it, all of whose numbers are random; peft's own directory of it in ``folder``."""
    library = pytest.importorskip("peft")
    lora = {"target_modules": ["attn2.to_k", "attn2.to_out.0", "conv1"], "init_lora_weights": False, "r": 2, "lora_alpha": 6}
    plain = {"target_modules": ["attn2.to_k", "conv1"], "init_weights": False, "r": 2, "alpha": 6}
    config = {
        "lora": lambda: library.LoraConfig(**lora),
        "rslora": lambda: library.LoraConfig(**lora, use_rslora=True),
        "dora": lambda: library.LoraConfig(**lora, use_dora=True),
        "patterns": lambda: library.LoraConfig(**lora, rank_pattern={"attn2.to_k": 3, "to_k": 4}, alpha_pattern={"conv1": 1, "to.k": 5}),
        "loha": lambda: library.LoHaConfig(**plain),
        "loha with a core": lambda: library.LoHaConfig(**plain, use_effective_conv2d=True),
        "lokr": lambda: library.LoKrConfig(**plain),
        "lokr with a core": lambda: library.LoKrConfig(**plain, use_effective_conv2d=True, decompose_both=True),
    }[name]()
    torch.manual_seed(3)
    model = library.get_peft_model(unet, config)
    for parameter_name, parameter in model.named_parameters():
        if "magnitude" in parameter_name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "patterns", "loha", "loha with a core", "lokr", "lokr with a core"])
def test_peft_does_the_same(tiny_suspect: Suspect, fresh_suspect: Suspect, tmp_path: Path, kind: str) -> None:
    unet = saved_by_peft(kind, fresh_suspect.denoiser.module, tmp_path / "peft").eval()
    fresh_suspect = with_parts(fresh_suspect, unet=unet)
    latents, t = torch.randn(2, 4, 4, 4), torch.tensor([10, 900])
    states = tiny_suspect.encode(["a cat", "a dog"])
    plain = tiny_suspect.predict_batched(latents, t, states)
    with applied(tiny_suspect, [read_adapter(tmp_path / "peft", 1.0, tiny_suspect)]):
        ours = tiny_suspect.predict_batched(latents, t, states)
    theirs = fresh_suspect.predict_batched(latents, t, states)
    assert (ours - theirs).norm() < 1e-4 * (theirs - plain).norm()
    assert not torch.allclose(ours, plain, atol=1e-3)


def test_the_pixel_twin_as_kohyas_file_and_as_pefts_directory(tmp_path: Path) -> None:
    """Its alphas and ranks differ by layer, and peft's stand in its settings alone: 4 times the rank."""
    clean, twin = layout.lay_out("clean", tmp_path), layout.lay_out("pixel", tmp_path)
    moved, suspect = differences(clean, twin), load(inspect(clean), device="cpu", dtype="float32", batch_size=8)
    for path in (kohya(moved, tmp_path / "kohya.safetensors"), peft(moved, tmp_path / "peft")):
        deltas = read_adapter(path, 1.0, suspect).deltas
        assert deltas.keys() == {("unet", f"{name}.weight") for name in moved}
        assert all(torch.allclose(deltas["unet", f"{name}.weight"], d, atol=1e-6) for name, d in moved.items())


@pytest.mark.parametrize("spelling", ["diffusers of today", "diffusers", "processors", "kohya"])
def test_the_stock_pipeline_does_the_same(tiny_model: Path, tiny_suspect: Suspect, tmp_path: Path, spelling: str) -> None:
    pytest.importorskip("peft")
    from diffusers import StableDiffusionPipeline

    alpha = {f"lora_unet_{flat(KEY)}.alpha": torch.tensor(0.5, dtype=torch.float16)} if spelling == "kohya" else {}
    path = written(tmp_path, SPELLINGS[spelling] | alpha)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, local_files_only=True)
    pipeline.load_lora_weights(str(tmp_path), weight_name=path.name)
    latents, t, states = torch.randn(2, 4, 4, 4), torch.tensor([10, 900]), tiny_suspect.encode(["a cat", "a dog"])
    plain = tiny_suspect.predict_batched(latents, t, states)
    with applied(tiny_suspect, [read_adapter(path, 1.0, tiny_suspect)]):
        ours = tiny_suspect.predict_batched(latents, t, states)
    with torch.no_grad():
        theirs = pipeline.unet.float()(latents, t, encoder_hidden_states=states.states).sample
    assert (ours - theirs).norm() < 1e-4 * (theirs - plain).norm()
