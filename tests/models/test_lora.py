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
from bdaudit.models.lora import applied, read_adapter
from bdaudit.models.suspect import Suspect

KEY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
OUT = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0"
TEXT = "encoder.layers.0.self_attn.q_proj"
CONV = "down_blocks.0.resnets.0.conv1"
GENERATOR = torch.Generator().manual_seed(0)
DOWN, UP = torch.randn(2, 8, generator=GENERATOR), torch.randn(8, 2, generator=GENERATOR)


def flat(name: str) -> str:
    return name.replace(".", "_")


SPELLINGS: dict[str, dict[str, Tensor]] = {
    "peft": {f"unet.{KEY}.lora_A.weight": DOWN, f"unet.{KEY}.lora_B.weight": UP},
    "peft of a wrapped model": {f"base_model.model.{KEY}.lora_A.default.weight": DOWN, f"base_model.model.{KEY}.lora_B.default.weight": UP},
    "diffusers": {f"unet.{KEY}.lora.down.weight": DOWN, f"unet.{KEY}.lora.up.weight": UP},
    "processors": {
        f"unet.{KEY.removesuffix('.to_k')}.processor.to_k_lora.down.weight": DOWN,
        f"unet.{KEY.removesuffix('.to_k')}.processor.to_k_lora.up.weight": UP,
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
        f"unet.{OUT.removesuffix('.0')}.lora.down.weight": DOWN, f"unet.{OUT.removesuffix('.0')}.lora.up.weight": UP,
    }  # fmt: skip
    deltas = read_adapter(written(tmp_path, tensors), 1.0, tiny_suspect).deltas
    (name,) = [name for component, name in deltas if component == "text_encoder"]
    assert name.endswith(f"{TEXT}.weight")
    assert torch.allclose(deltas["text_encoder", name], 0.25 * UP @ DOWN, atol=1e-6), "alpha over rank"
    assert torch.allclose(deltas["unet", f"{OUT}.weight"], UP @ DOWN, atol=1e-6)


@pytest.mark.parametrize("name", ["unet.lora_alpha", "lora_alpha"])
def test_alpha_of_the_header_counts_as_it_does_in_diffusers(tiny_suspect: Suspect, tmp_path: Path, name: str) -> None:
    def told(**settings: object) -> Path:
        path = tmp_path / "told.safetensors"
        metadata = {"format": "pt", "lora_adapter_metadata": json.dumps({name.replace("lora_alpha", k): v for k, v in settings.items()})}
        save_file(SPELLINGS["peft"], path, metadata=metadata)
        return path

    (delta,) = read_adapter(told(lora_alpha=6, r=2, alpha_pattern={}, use_rslora=False), 1.0, tiny_suspect).deltas.values()
    assert torch.allclose(delta, 3 * UP @ DOWN, atol=1e-5)
    for setting in ({"alpha_pattern": {"to_k": 4}}, {"use_rslora": True}):
        with pytest.raises(InconclusiveError, match="only plain LoRA with one alpha"):
            read_adapter(told(lora_alpha=2, **setting), 1.0, tiny_suspect)
    with pytest.raises(BdauditError, match="expected a number"):
        read_adapter(told(lora_alpha="9"), 1.0, tiny_suspect)


def test_one_layer_under_two_spellings_is_refused(tiny_suspect: Suspect, tmp_path: Path) -> None:
    with pytest.raises(BdauditError, match="is there twice, under two spellings"):
        read_adapter(written(tmp_path, SPELLINGS["peft"] | SPELLINGS["kohya"]), 1.0, tiny_suspect)


def test_a_convolution(tiny_suspect: Suspect, tmp_path: Path) -> None:
    down, up = torch.randn(2, 8, 3, 3), torch.randn(8, 2, 1, 1)
    path = written(tmp_path, {f"unet.{CONV}.lora_A.weight": down, f"unet.{CONV}.lora_B.weight": up})
    delta = read_adapter(path, 1.0, tiny_suspect).deltas["unet", f"{CONV}.weight"]
    assert torch.allclose(delta, torch.einsum("or,rikl->oikl", up[:, :, 0, 0], down), atol=1e-5)


def test_several_are_added_with_their_scales_and_leave_no_trace(tiny_suspect: Suspect, tmp_path: Path) -> None:
    path = written(tmp_path, SPELLINGS["peft"])
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
        ({f"unet.{KEY}.weight": UP @ DOWN}, BdauditError, "no part of a LoRA"),
        ({f"lora_unet_{flat(KEY)}.hada_w1_a": DOWN}, InconclusiveError, "another decomposition"),
        ({f"unet.{KEY}.lora_A.weight": DOWN, f"unet.{KEY}.lora_magnitude_vector": UP}, InconclusiveError, "another decomposition"),
    ],
)
def test_what_does_not_fit_is_said(
    tiny_suspect: Suspect, tmp_path: Path, tensors: dict[str, Tensor], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        read_adapter(written(tmp_path, tensors), 1.0, tiny_suspect)


@pytest.mark.parametrize("cut", [4, 60, -3])
def test_a_file_cut_short_is_an_error(tiny_suspect: Suspect, tmp_path: Path, cut: int) -> None:
    path = written(tmp_path, SPELLINGS["peft"])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BdauditError):
        read_adapter(path, 1.0, tiny_suspect)


def test_peft_does_the_same(tiny_suspect: Suspect, fresh_suspect: Suspect, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=["attn2.to_k"], init_lora_weights=False)
    model = peft.inject_adapter_in_model(config, fresh_suspect.denoiser.module)
    state = peft.get_peft_model_state_dict(model, adapter_name="default")
    path = written(tmp_path, {f"unet.{name.removeprefix('base_model.model.')}": tensor for name, tensor in state.items()})
    latents, t = torch.randn(2, 4, 4, 4), torch.tensor([10, 900])
    states = tiny_suspect.encode(["a cat", "a dog"])
    with applied(tiny_suspect, [read_adapter(path, 1.0, tiny_suspect)]):
        ours = tiny_suspect.predict_batched(latents, t, states)
    assert torch.allclose(ours, fresh_suspect.predict_batched(latents, t, states), atol=1e-5)
    assert not torch.allclose(ours, tiny_suspect.predict_batched(latents, t, states), atol=1e-3)
