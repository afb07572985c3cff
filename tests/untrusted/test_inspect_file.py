"""A single file is inspected as a directory is: the same tensors, the same settings, and nothing in it that is not named."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor

from bdaudit.errors import BdauditError, ExitCode
from bdaudit.models.load import load
from bdaudit.untrusted.inspect import Inspection, inspect, verify_unchanged
from bdaudit.untrusted.inspect_file import variants_of_file
from tests.models import tiny_sdxl
from tests.small import hashes
from tests.untrusted import cached, one_file

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."


@pytest.fixture
def file(tiny_model: Path, tmp_path: Path) -> Path:
    return one_file.write(tiny_model, tmp_path / "model.safetensors")


def rewritten(path: Path, change: Mapping[str, Tensor | None], metadata: dict[str, str] | None = None) -> Path:
    """The file with some tensors exchanged, added, or (None) left out."""
    tensors: dict[str, Any] = load_file(path) | dict(change)
    kept = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}
    path.unlink()
    save_file(kept, path, metadata=metadata)
    return path


def refused(path: Path, **options: Any) -> tuple[ExitCode, str]:
    """How the inspection, or the loading after it, ends."""
    with pytest.raises(BdauditError) as caught:
        load(inspect(path, **options), device="cpu")
    return caught.value.code, str(caught.value)


def tensors_of(inspection: Inspection) -> dict[str, Tensor]:
    modules = load(inspection, device="cpu").modules
    return {f"{part}.{name}": tensor for part, module in modules.items() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("spelling", [one_file.SD1, one_file.SD2], ids=["transformers' CLIP", "open_clip's"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_it_is_the_directory_again(tiny_model: Path, tmp_path: Path, spelling: Any, dtype: torch.dtype) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "tiny"))
    for path in model.glob("*/*.safetensors"):
        save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    file = one_file.write(model, tmp_path / "model.safetensors", spelling)
    before = hashes(tmp_path)
    mine, theirs = inspect(file, config=model), inspect(model)
    assert mine.tensors == theirs.tensors
    assert (mine.pipeline_class, mine.latents, mine.unaudited) == (theirs.pipeline_class, theirs.latents, ())
    held, other = tensors_of(mine), tensors_of(theirs)
    assert held.keys() == other.keys()
    assert all(torch.equal(held[name], other[name]) for name in held)
    assert hashes(tmp_path) == before


def test_a_half_is_told_from_the_whole_by_the_exact_digest_alone(tiny_model: Path, file: Path) -> None:
    whole = inspect(file, config=tiny_model).tensors
    halves = {name: tensor.half() for name, tensor in load_file(file).items()}
    half = inspect(rewritten(file, halves), config=tiny_model).tensors
    assert whole
    assert half
    assert whole.exact != half.exact
    assert whole.float16 == half.float16


def test_a_layer_that_the_family_has_no_use_for_is_left(tiny_model: Path, tmp_path: Path) -> None:
    file = one_file.write(tiny_model, tmp_path / "model.safetensors", one_file.SD2)
    first = "cond_stage_model.model.transformer.resblocks.0."
    more = {name.replace(".0.", ".1.", 1): tensor * 2 for name, tensor in load_file(file).items() if name.startswith(first)}
    assert inspect(rewritten(file, more), config=tiny_model).tensors == inspect(tiny_model).tensors


def test_what_a_clip_and_a_schedule_have_besides_changes_nothing(tiny_model: Path, file: Path) -> None:
    more = {"cond_stage_model.logit_scale": torch.ones(1), f"{TEXT}text_model.embeddings.position_ids": torch.arange(77)[None]}
    more |= {"betas": levels_of(tiny_model)[0], "first_stage_model.loss.logvar": torch.ones(1), "model_ema.decay": torch.ones(1)}
    inspection = inspect(rewritten(file, more), config=tiny_model)
    assert inspection.tensors == inspect(tiny_model).tensors
    assert inspection.unaudited == ()
    assert any("that no part is built from, betas first" in note for note in inspection.notes)
    load(inspection, device="cpu")


def test_places_in_another_order_are_two_models(tiny_model: Path, file: Path) -> None:
    code, said = refused(rewritten(file, {f"{TEXT}text_model.embeddings.position_ids": torch.arange(77).flip(0)[None]}), config=tiny_model)
    assert code == ExitCode.INCONCLUSIVE
    assert "does not count up from 0" in said


def levels_of(model: Path) -> tuple[Tensor, Tensor]:
    """β and ᾱ of a model's own scheduler."""
    scheduler = DDIMScheduler.from_pretrained(model, subfolder="scheduler")
    return scheduler.betas, scheduler.alphas_cumprod


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_noise_levels_that_are_its_own_change_nothing(tiny_model: Path, file: Path, dtype: torch.dtype) -> None:
    betas, levels = levels_of(tiny_model)
    before = torch.cat([torch.ones(1), levels[:-1]])
    sigmas = (1 / levels - 1).sqrt()
    more = {"betas": betas, "alphas_cumprod": levels, "alphas_cumprod_prev": before, "sqrt_alphas_cumprod": levels.sqrt()}
    more |= {"sqrt_one_minus_alphas_cumprod": (1 - levels).sqrt(), "log_one_minus_alphas_cumprod": (1 - levels).log()}
    more |= {"sqrt_recip_alphas_cumprod": levels**-0.5, "sqrt_recipm1_alphas_cumprod": sigmas, "denoiser.sigmas": sigmas.flip(0)}
    more |= {"posterior_mean_coef1": betas * before.sqrt() / (1 - levels), "posterior_variance": betas * (1 - before) / (1 - levels)}
    more |= {"posterior_mean_coef2": (1 - before) * (1 - betas).sqrt() / (1 - levels), "scale_factor": torch.tensor(0.18215)}
    more |= {"posterior_log_variance_clipped": more["posterior_variance"].clamp(min=1e-20).log()}
    stored = {name: tensor.to(dtype) for name, tensor in more.items()}
    assert inspect(rewritten(file, stored), config=tiny_model).tensors == inspect(tiny_model).tensors


@pytest.mark.parametrize("change", [lambda a: a**1.1, lambda a: a[:-1], lambda a: a.flip(0) * 0.9, lambda a: a * 1000, torch.zeros_like])
@pytest.mark.parametrize("name", ["alphas_cumprod", "sqrt_alphas_cumprod", "betas", "denoiser.sigmas"])
def test_other_noise_levels_are_two_models(tiny_model: Path, file: Path, name: str, change: Callable[[Tensor], Tensor]) -> None:
    levels = levels_of(tiny_model)[1]
    own = {"alphas_cumprod": levels, "sqrt_alphas_cumprod": levels.sqrt(), "betas": levels_of(tiny_model)[0]}
    table = change(own.get(name, (1 / levels - 1).sqrt())).contiguous()
    code, said = refused(rewritten(file, {name: table}), config=tiny_model)
    assert code == ExitCode.INCONCLUSIVE
    assert f"{name} is not the noise levels of its settings" in said


def test_levels_the_other_way_round_are_two_models_but_for_sgms(tiny_model: Path, file: Path) -> None:
    levels = levels_of(tiny_model)[1]
    inspect(rewritten(file, {"denoiser.sigmas": (1 / levels - 1).sqrt().flip(0)}), config=tiny_model)
    code, said = refused(rewritten(file, {"alphas_cumprod": levels.flip(0)}), config=tiny_model)
    assert (code, "alphas_cumprod is not the noise levels" in said) == (ExitCode.INCONCLUSIVE, True)


@pytest.mark.parametrize("name", ["posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"])
def test_what_a_step_back_is_drawn_by_is_held_too(tiny_model: Path, file: Path, name: str) -> None:
    code, said = refused(rewritten(file, {name: levels_of(tiny_model)[1]}), config=tiny_model)
    assert (code, f"{name} is not the noise levels" in said) == (ExitCode.INCONCLUSIVE, True)


@pytest.mark.parametrize("factor", [torch.tensor(0.13025), torch.tensor([0.18215, 0.18215]), torch.tensor(float("nan")), torch.tensor(1)])
def test_another_factor_of_the_latents_is_two_models(tiny_model: Path, file: Path, factor: Tensor) -> None:
    code, said = refused(rewritten(file, {"scale_factor": factor}), config=tiny_model)
    assert (code, "scale_factor is not the 0.18215 of its autoencoder" in said) == (ExitCode.INCONCLUSIVE, True)


def test_levels_of_a_schedule_that_ends_in_noise_are_its_own_both_ways(tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "tiny"))
    path = model / "scheduler" / "scheduler_config.json"
    plain = levels_of(model)[1]
    settings = json.loads(path.read_text()) | {"rescale_betas_zero_snr": True}
    path.write_text(json.dumps(settings))
    rescaled = levels_of(model)[1]
    assert (plain - rescaled).abs().max() > 0.003, "they are two tables"
    for table in (plain, rescaled):
        inspect(one_file.write(model, tmp_path / "model.safetensors", alphas_cumprod=table), config=model)
    path.write_text(json.dumps(settings | {"rescale_betas_zero_snr": False}))
    code, _ = refused(tmp_path / "model.safetensors", config=model)
    assert code == ExitCode.INCONCLUSIVE


def test_a_mask_that_is_not_causal_is_two_models(tiny_model: Path, tmp_path: Path) -> None:
    name = "cond_stage_model.model.attn_mask"
    mask = torch.full((77, 77), float("-inf")).triu(1)
    for own in (mask, mask.half(), mask.clamp(min=-65504)):
        inspect(one_file.write(tiny_model, tmp_path / "own.safetensors", one_file.SD2, **{name: own}), config=tiny_model)
    for other in (mask.T, torch.zeros(77, 77), mask + torch.eye(77), mask[0], mask.clamp(min=-1), mask[:, :70], mask.long()):
        path = one_file.write(tiny_model, tmp_path / "other.safetensors", one_file.SD2, **{name: other})
        code, said = refused(path, config=tiny_model)
        assert code == ExitCode.INCONCLUSIVE
        assert "attn_mask is not the mask" in said


def test_marks_that_hold_nothing_are_read_as_marks(tiny_model: Path, file: Path, tmp_path: Path) -> None:
    """ComfyUI writes them so; what they say, the directory's scheduler has to say as well."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "tiny"))
    path = model / "scheduler" / "scheduler_config.json"
    settings = json.loads(path.read_text())
    both = rewritten(file, {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])})
    for predicts, zero in (("epsilon", False), ("epsilon", True), ("v_prediction", False)):
        path.write_text(json.dumps(settings | {"prediction_type": predicts, "rescale_betas_zero_snr": zero}))
        code, said = refused(both, config=model)
        assert (code, "and the scheduler of --config that it is" in said) == (ExitCode.INCONCLUSIVE, True)
    path.write_text(json.dumps(settings | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}))
    assert inspect(both, config=model).tensors == inspect(tiny_model).tensors
    code, _ = refused(rewritten(file, {"ztsnr": None}), config=model)
    assert code == ExitCode.INCONCLUSIVE
    code, said = refused(rewritten(file, {"v_pred_": torch.tensor([])}), config=tiny_model)
    assert code == ExitCode.ERROR
    assert "holds nothing" in said


# --- what is wrong with it --------------------------------------------------------------------


@pytest.mark.parametrize("name", [f"{UNET}out.0.weight", f"{VAE}quant_conv.bias", f"{TEXT}text_model.final_layer_norm.bias"])
def test_a_tensor_that_is_missing_is_named(tiny_model: Path, file: Path, name: str) -> None:
    code, said = refused(rewritten(file, {name: None}), config=tiny_model)
    assert code == ExitCode.ERROR
    assert "1 tensors are missing from the weights" in said


@pytest.mark.parametrize("name", [f"{UNET}more.weight", f"{UNET}input_blocks.1.0.in_layers.7.weight", f"{VAE}more.bias"])
def test_a_tensor_with_a_parts_beginning_that_is_none_of_its_own_is_named(tiny_model: Path, file: Path, name: str) -> None:
    code, said = refused(rewritten(file, {name: torch.ones(2)}), config=tiny_model)
    assert code == ExitCode.ERROR
    assert name in said


def test_a_tensor_that_the_text_encoder_does_not_take_is_named(tiny_model: Path, file: Path) -> None:
    code, said = refused(rewritten(file, {f"{TEXT}text_model.more": torch.ones(2)}), config=tiny_model)
    assert code == ExitCode.ERROR
    assert "belong to no part of the model" in said


def test_a_tensor_of_another_shape_is_named(tiny_model: Path, file: Path) -> None:
    code, said = refused(rewritten(file, {f"{UNET}out.0.weight": torch.ones(7)}), config=tiny_model)
    assert code == ExitCode.ERROR
    assert "conv_norm_out.weight" in said


def test_tensors_of_no_part_were_not_audited(tiny_model: Path, file: Path) -> None:
    unaudited = inspect(rewritten(file, {"lora.x": torch.ones(2), "control_model.y": torch.ones(2)}), config=tiny_model).unaudited
    assert [(left.path, left.variant) for left in unaudited] == [("model.safetensors: control_model.y, lora.x", "")]


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
def test_a_part_that_lies_there_in_two_spellings_is_nobodys(tiny_model: Path, file: Path, part: str) -> None:
    again = {
        "unet": {name.replace(UNET, "diffusion_model."): t for name, t in load_file(file).items() if name.startswith(UNET)},
        "vae": {f"vae.{name}": tensor for name, tensor in one_file.part_tensors(tiny_model, "vae").items()},
        "text_encoder": {n: t for n, t in one_file.tensors_of(tiny_model, one_file.SD2).items() if n.startswith("cond_stage_model.model")},
    }[part]
    code, said = refused(rewritten(file, again), config=tiny_model)
    assert code == ExitCode.INCONCLUSIVE
    assert f"holds the {part} twice" in said


def test_a_tensor_under_two_names_is_nobodys(tiny_model: Path, file: Path) -> None:
    name = "text_model.final_layer_norm.bias"
    code, said = refused(rewritten(file, {TEXT + name.removeprefix("text_model."): torch.ones(8)}), config=tiny_model)
    assert code == ExitCode.ERROR
    assert "are one tensor of the model" in said


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("model.ckpt", ExitCode.REFUSED, "never opened, whatever --allow-pickle says"),
        ("model.PT", ExitCode.REFUSED, "never opened"),
        ("pickled.safetensors", ExitCode.REFUSED, "is a pickle or an archive"),
        ("model.gguf", ExitCode.INCONCLUSIVE, "GGUF, quantised weights"),
        ("model.txt", ExitCode.USAGE, "no checkpoint by its name"),
        ("short.safetensors", ExitCode.ERROR, "no safetensors file, or cut short"),
    ],
)
def test_what_is_no_checkpoint(tiny_model: Path, file: Path, name: str, code: ExitCode, said: str) -> None:
    path = file.with_name(name)
    path.write_bytes(file.read_bytes()[:-1] if name.startswith("model") else pickle.dumps([1]) if "pickled" in name else b"short")
    assert refused(path, allow_pickle=True, config=tiny_model)[0] == code
    assert said in refused(path, config=tiny_model)[1]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("double_blocks.0.img_attn.qkv.weight",), "is a kin of FLUX"),
        (("model.diffusion_model.joint_blocks.0.x.weight",), "is a kin of Stable Diffusion 3"),
        (("lora_unet_down_blocks_0.lora_down.weight",), "is an adapter of 1 layers, and no model"),
        (("emb_params",), "is a learned embedding of 2 vectors, and no model"),
    ],
)
def test_a_file_of_another_kind_is_refused_kindly(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    save_file({name: torch.ones(2, 2) for name in names}, tmp_path / "x.safetensors")
    code, message = refused(tmp_path / "x.safetensors")
    assert code == ExitCode.INCONCLUSIVE
    assert said in message


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({f"{UNET}out.0.weight": torch.ones(8, dtype=torch.int8)}, "is I8; quantised weights are not supported"),
        ({f"{UNET}out.0.weight.absmax": torch.ones(1)}, "quantised weights"),
        ({f"{UNET}out.0.SCB": torch.ones(1)}, "quantised weights"),
        ({f"{UNET}out.0.comfy_quant": torch.ones(1)}, "scaled 8-bit weights"),
        ({f"{UNET}out.0.scale_weight": torch.ones(1)}, "other scales are not supported"),
    ],
    ids=["int8", "NF4", "LLM.int8", "mixed", "a scale of 32-bit weights"],
)
def test_quantised_weights_are_named_and_not_run(tiny_model: Path, file: Path, more: dict[str, Tensor], said: str) -> None:
    code, message = refused(rewritten(file, more), config=tiny_model)
    assert code == ExitCode.INCONCLUSIVE
    assert said in message


# --- what it lacks ----------------------------------------------------------------------------


def test_sizes_that_nobody_published_ask_for_settings(file: Path) -> None:
    code, said = refused(file)
    assert code == ExitCode.INCONCLUSIVE
    assert "the sizes of no published model" in said
    assert "--config DIR" in said


def without(path: Path, *prefixes: str) -> Path:
    return rewritten(path, {name: None for name in load_file(path) if name.startswith(prefixes)})


def test_a_part_that_the_file_lacks_comes_from_the_directory(tiny_model: Path, file: Path) -> None:
    inspection = inspect(without(file, VAE, TEXT), config=tiny_model)
    assert inspection.tensors == inspect(tiny_model).tensors
    assert {file.path for file in inspection.files} >= {"model.safetensors", "vae/diffusion_pytorch_model.safetensors"}
    load(inspection, device="cpu")


def test_what_neither_has_is_asked_for(file: Path) -> None:
    code, said = refused(without(file, VAE))
    assert code == ExitCode.USAGE
    assert "holds no vae; say --part vae=FILE, or --config DIR" in said


@pytest.mark.parametrize("spelled", ["CompVis' names", "diffusers' names"])
def test_parts_in_files_of_their_own(tiny_model: Path, tmp_path: Path, spelled: str) -> None:
    named = {"unet": "", "vae": "", "text_encoder": ""}
    parts = {part: tmp_path / f"{part}.safetensors" for part in named}
    for part, path in parts.items():
        tensors = one_file.part_tensors(tiny_model, part)
        _, to_part = one_file.SD1[part]
        save_file(one_file.stored(tensors, part, "", to_part) if spelled == "CompVis' names" else tensors, path)
    inspection = inspect(parts.pop("unet"), config=tiny_model, parts=parts)
    assert inspection.tensors == inspect(tiny_model).tensors
    assert set(inspection.weights) == set(named)
    assert inspection.weights["vae"] == ("vae/vae.safetensors",)
    load(inspection, device="cpu")


def test_a_file_that_is_named_for_a_part_counts_before_the_models_own(tiny_model: Path, file: Path, tmp_path: Path) -> None:
    other = {name: tensor * 2 for name, tensor in one_file.part_tensors(tiny_model, "vae").items()}
    save_file(other, tmp_path / "other.safetensors")
    inspection = inspect(file, config=tiny_model, parts={"vae": tmp_path / "other.safetensors"})
    assert inspection.unaudited == ()
    assert any("in place of which --part names a file" in note for note in inspection.notes)
    assert torch.equal(tensors_of(inspection)["vae.quant_conv.weight"], other["quant_conv.weight"])


@pytest.mark.parametrize(
    ("part", "code", "said"),
    [("unet2", ExitCode.USAGE, "name one of these"), ("vae", ExitCode.INCONCLUSIVE, "no vae is known by its names there")],
)
def test_a_part_that_is_none(tiny_model: Path, file: Path, tmp_path: Path, part: str, code: ExitCode, said: str) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors")
    got, message = refused(file, config=tiny_model, parts={part: tmp_path / "x.safetensors"})
    assert got == code
    assert said in message


@pytest.mark.parametrize(("name", "said"), [("nowhere", "is not a directory"), ("", "has no model_index.json")])
def test_a_directory_of_settings_that_is_none(file: Path, name: str, said: str) -> None:
    code, message = refused(file, config=file.parent / name)
    assert code == ExitCode.USAGE
    assert said in message


# --- its moving average -----------------------------------------------------------------------


@pytest.fixture
def averaged(file: Path) -> Path:
    return rewritten(file, one_file.averaged(load_file(file), 0.5))


def test_a_moving_average_is_other_weights(tiny_model: Path, averaged: Path) -> None:
    assert variants_of_file(averaged) == ("full", "ema")
    inspection = inspect(averaged, config=tiny_model)
    assert inspection.tensors == inspect(tiny_model).tensors
    assert [(left.path, left.variant) for left in inspection.unaudited] == [("model.safetensors: the moving average of the unet", "ema")]


def test_it_can_be_chosen_and_then_the_others_are_left(tiny_model: Path, averaged: Path) -> None:
    inspection = inspect(averaged, variant="ema", config=tiny_model)
    assert inspection.variants["unet"] == "ema"
    assert [left.variant for left in inspection.unaudited] == ["full"]
    own = one_file.part_tensors(tiny_model, "unet")["conv_in.weight"]
    assert torch.equal(tensors_of(inspection)["unet.conv_in.weight"], own * 0.5)


def test_one_that_is_the_weights_again_counts_as_audited(tiny_model: Path, file: Path) -> None:
    inspection = inspect(rewritten(file, one_file.averaged(load_file(file))), config=tiny_model)
    assert inspection.unaudited == ()
    assert inspection.determined == ("model.safetensors: the moving average of the unet",)


def test_one_that_is_not_whole_cannot_be_chosen(tiny_model: Path, averaged: Path) -> None:
    file = rewritten(averaged, {"model_ema.diffusion_modelout0weight": None})
    assert [left.variant for left in inspect(file, config=tiny_model).unaudited] == [""]
    code, said = refused(file, variant="ema", config=tiny_model)
    assert code == ExitCode.USAGE
    assert "no whole moving average" in said


# --- where it lies ----------------------------------------------------------------------------


def test_a_link_that_somebody_names_is_followed(tiny_model: Path, file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.safetensors"
    link.symlink_to(file)
    inspection = inspect(link, config=tiny_model)
    assert inspection.weights["unet"] == ("link.safetensors",)
    load(inspection, device="cpu")


def test_a_file_of_a_cache_snapshot(tiny_model: Path, file: Path, tmp_path: Path) -> None:
    whole = Path(shutil.copytree(tiny_model, tmp_path / "whole"))
    shutil.copy(file, whole / "model.safetensors")
    snapshot = cached.lay_out(whole, tmp_path / "hub")
    inspection = inspect(snapshot / "model.safetensors", config=snapshot)
    assert inspection.snapshot is not None
    assert inspection.tensors == inspect(tiny_model).tensors
    load(inspection, device="cpu")


def test_a_change_after_the_inspection_is_seen(tiny_model: Path, file: Path) -> None:
    inspection = inspect(file, config=tiny_model)
    verify_unchanged(inspection)
    rewritten(file, {f"{UNET}out.0.weight": torch.ones(8)})
    with pytest.raises(BdauditError, match=r"model\.safetensors changed while the model was being loaded"):
        verify_unchanged(inspection)


# --- SDXL -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sdxl.write(tmp_path_factory.mktemp("xl") / "directory")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_sdxl_is_the_directory_again(xl: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    """Its second tower's projection lies transposed in the file, and is no square."""
    model = Path(shutil.copytree(xl, tmp_path / "xl"))
    for path in model.glob("*/*.safetensors"):
        save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    mine, theirs = inspect(one_file.write(model, tmp_path / "xl.safetensors", one_file.SDXL), config=model), inspect(model)
    assert mine.tensors == theirs.tensors
    assert (mine.pipeline_class, mine.latents, mine.unaudited) == (theirs.pipeline_class, theirs.latents, ())
    held, other = tensors_of(mine), tensors_of(theirs)
    assert held.keys() == other.keys()
    assert all(torch.equal(held[name], other[name]) for name in held)


def test_sdxl_in_files_of_its_parts(xl: Path, tmp_path: Path) -> None:
    parts = {part: tmp_path / f"{part}.safetensors" for part in one_file.SDXL}
    for part, path in parts.items():
        save_file(one_file.stored(one_file.part_tensors(xl, part), part, "", one_file.SDXL[part][1]), path)
    inspection = inspect(parts.pop("unet"), config=xl, parts=parts)
    assert inspection.tensors == inspect(xl).tensors
    load(inspection, device="cpu")


def test_a_checkpoint_and_settings_of_two_families(xl: Path, tiny_model: Path, file: Path, tmp_path: Path) -> None:
    whole = one_file.write(xl, tmp_path / "xl.safetensors", one_file.SDXL)
    for path, config in ((whole, tiny_model), (file, xl)):
        code, said = refused(path, config=config)
        assert code == ExitCode.USAGE
        assert "name a directory of the same family" in said


def test_sdxls_refiner_is_named(xl: Path, tmp_path: Path) -> None:
    tensors = one_file.tensors_of(xl, one_file.SDXL)
    refiner = {name.replace("embedders.1", "embedders.0"): t for name, t in tensors.items() if "embedders.0" not in name}
    save_file(refiner, tmp_path / "refiner.safetensors")
    code, said = refused(tmp_path / "refiner.safetensors", config=xl)
    assert code == ExitCode.INCONCLUSIVE
    assert "SDXL's refiner" in said


def test_a_fused_tensor_without_rows_is_damage_and_no_crash(tiny_model: Path, tmp_path: Path) -> None:
    file = one_file.write(tiny_model, tmp_path / "model.safetensors", one_file.SD2)
    name = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"
    for shape in ((0, 8), (3, 0), (0,)):
        assert refused(rewritten(file, {name: torch.zeros(shape)}), config=tiny_model)[0] == ExitCode.ERROR
