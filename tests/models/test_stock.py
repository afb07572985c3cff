"""What is run here against the stock pipeline itself, for many shapes of directory: states, a prediction, a picture."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import Tensor

from bdaudit.errors import BdauditError, InconclusiveError, UsageError
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.families.stable_diffusion import guidance_embedding
from bdaudit.models.load import load
from bdaudit.models.sample import denoise
from bdaudit.models.suspect import Suspect
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.layouts.schedulers import SCHEDULER
from bdaudit.untrusted.layouts.stable_diffusion import latent_size
from tests import small
from tests.untrusted.stock_shapes import LARGE, SHAPES, Edit, Shape, change, scheduler
from tests.untrusted.stock_shapes import guidance_embedding as distilled
from tests.verify.toy import write_pipeline

SEED, STEPS, GUIDANCE = 3, 2, 4.0


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small whole pipeline: latents of 8, pictures of 16."""
    return write_pipeline(tmp_path_factory.mktemp("stock") / "model")


def edited(plain: Path, folder: Path, *edits: Edit) -> Path:
    """A copy with ``edits`` made."""
    shutil.copytree(plain, folder)
    for edit in edits:
        edit(folder)
    return folder


def stock_pipeline(folder: Path) -> StableDiffusionPipeline:
    """The stock pipeline with DDIM over the noise levels that the directory names, at the timesteps of ``denoise``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says what it sets right in an old config
        pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
        settings = {"timestep_spacing": "trailing", "set_alpha_to_one": True, "clip_sample": False}
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **settings)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn(pipeline: StableDiffusionPipeline, shape: Shape) -> tuple[Tensor, dict[str, Any]]:
    """The stock picture, (1, 3, H, W) in 0–1, and what its UNet was given first and gave."""
    calls: list[dict[str, Any]] = []

    def heard(module: object, args: tuple[Any, ...], given: dict[str, Any], out: tuple[Tensor]) -> None:
        calls.append({"latents": args[0], "t": args[1], "states": given["encoder_hidden_states"], "out": out[0]})

    hook = pipeline.unet.register_forward_hook(heard, with_kwargs=True)
    told = shape.size or shape.told
    size = {"width": told[0], "height": told[1]} if told else {}
    options: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "output_type": "pt"} | size
    picture: Tensor = pipeline(shape.text, generator=torch.Generator().manual_seed(SEED), **options).images
    hook.remove()
    return picture, calls[0]


def compare(folder: Path, shape: Shape) -> Suspect:
    """Both, side by side; raises where they differ by more than rounding."""
    pipeline = stock_pipeline(folder)
    suspect = load(inspect(folder, size=shape.size), device="cpu", dtype="float32", guidance_scale=GUIDANCE)
    prompt, negative = pipeline.encode_prompt([shape.text], "cpu", 1, True)
    heard, empty = suspect.encode([shape.text]), suspect.unconditional()
    assert torch.equal(heard.states, prompt)
    assert torch.equal(empty.states, negative)
    picture, first = drawn(pipeline, shape)
    rows = len(first["latents"])
    assert torch.equal(first["latents"][:1], suspect.noise([SEED])), "the size that the pipeline draws at, and its noise"
    assert torch.allclose(first["states"], torch.cat([empty.states, heard.states])[-rows:], atol=1e-6)
    mine = suspect.predict_batched(first["latents"], first["t"].expand(rows), Conditioning(first["states"]))
    assert torch.allclose(mine, first["out"], atol=1e-5)
    path = denoise(suspect, heard, suspect.noise([SEED]), steps=STEPS, guidance_scale=GUIDANCE, spacing=1.0)
    assert torch.allclose(suspect.decode(path.final), picture, atol=1e-4)
    return suspect


@pytest.mark.parametrize("name", SHAPES)
def test_states_prediction_and_picture_are_the_stock_pipelines(plain: Path, tmp_path: Path, name: str) -> None:
    compare(edited(plain, tmp_path / "model", *SHAPES[name].edits), SHAPES[name])


@pytest.mark.parametrize("name", LARGE)
def test_latents_have_the_size_that_the_pipeline_draws_at(tmp_path: Path, name: str) -> None:
    suspect = compare(edited(small.write(tmp_path / "small"), tmp_path / "model", *LARGE[name].edits), LARGE[name])
    assert suspect.denoiser.latent_shape == (4, 64, 64)


def test_the_smallest_model_of_these_tests_is_run_alike(tmp_path: Path) -> None:
    suspect = compare(small.write(tmp_path / "model"), Shape(size=(8, 8)))
    assert suspect.denoiser.latent_shape == (4, 8, 8)


def test_a_model_of_today_keeps_its_size_however_small(plain: Path) -> None:
    inspection = inspect(plain)
    assert inspection.latents == (8, 8)
    assert not any("latents are" in note for note in inspection.notes)


@pytest.mark.parametrize(
    ("version", "side", "latents"),
    [
        ("0.6.0", 8, 64), ("0.8.1", 63, 64), ("0.9.0.dev0", 8, 8), ("0.9.0", 8, 8), ("0.10.0", 8, 8), ("0.6.0", 64, 64), ("0.6.0", 96, 96),
        (None, 8, 8), ("0.6.0", None, 64),
    ],
)  # fmt: skip
def test_the_size_of_an_old_config(version: str | None, side: int | None, latents: int) -> None:
    found, note = latent_size({"sample_size": side, "_diffusers_version": version}, {"block_out_channels": [1, 1, 1, 1]})
    assert found == (latents, latents)
    assert bool(note) is (side != latents)
    assert ("512 × 512" in note and "--size" in note) is (side != latents)


def test_the_notes_say_what_a_size_costs() -> None:
    unet, vae = {"sample_size": 8, "_diffusers_version": "0.6.0"}, {"block_out_channels": [1, 1]}
    assert "64.0 times" in latent_size(unet, vae)[1]
    found, note = latent_size(unet, vae, (16, 24))
    assert found == (12, 8)
    assert "latents are 8 × 12, pictures 16 × 24" in note
    assert "1.5 times" in note
    assert "64 × 64" in note


@pytest.mark.parametrize(
    "unet",
    [
        {"sample_size": 0},
        {"sample_size": 257},
        {"sample_size": [4, 4, 4]},
        {"sample_size": True},
        {"sample_size": 8, "_diffusers_version": "old"},
    ],
)
def test_sizes_that_are_none(plain: Path, tmp_path: Path, unet: dict[str, Any]) -> None:
    model = edited(plain, tmp_path / "model", change("unet/config.json", **unet))
    with pytest.raises(BdauditError, match=next(reversed(unet))):
        inspect(model)


@pytest.mark.parametrize("size", [(8, 4096), (512, 0)])
def test_a_size_that_gives_no_latent_is_the_command_lines_fault(plain: Path, size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="--size"):
        inspect(plain, size=size)
    assert inspect(plain, size=(8, 512)).latents == (256, 4)


@pytest.mark.parametrize("size", [32, 7, 256])
@pytest.mark.parametrize("scale", [1.0, 4.0, 7.5])
def test_the_guidance_embedding_is_the_pipelines(plain: Path, scale: float, size: int) -> None:
    stock = StableDiffusionPipeline.get_guidance_scale_embedding
    assert torch.equal(guidance_embedding(scale, size), stock(None, torch.tensor([scale - 1]), size))


def test_a_prediction_by_itself_is_told_the_runs_guidance(plain: Path, tmp_path: Path) -> None:
    suspect = load(inspect(edited(plain, tmp_path / "model", distilled)), device="cpu", guidance_scale=3.0)
    z, t, heard = suspect.noise([1]), torch.tensor([500]), suspect.encode(["a"])
    own, three, five = (suspect.predict_batched(z, t, heard, scale) for scale in (None, 3.0, 5.0))
    assert torch.equal(own, three)
    assert not torch.allclose(own, five, atol=1e-3)
    before = suspect.forward_passes
    denoise(suspect, heard, z, steps=3, guidance_scale=5.0)
    assert suspect.forward_passes - before == 3, "no pass without the text"


REFUSED: dict[str, tuple[Edit, str]] = {
    "masked padding": (change("text_encoder/config.json", use_attention_mask=True), "use_attention_mask"),
    "words that see what follows": (change("text_encoder/config.json", is_causal=False), "is_causal"),
    "class labels": (change("unet/config.json", class_embed_type="timestep"), "class_embed_type"),
    "further embeddings": (change("unet/config.json", addition_embed_type="text"), "addition_embed_type"),
    "projected states": (change("unet/config.json", encoder_hid_dim=16), "encoder_hid_dim"),
    "the way back": (scheduler("DDIMInverseScheduler"), "DDIMInverseScheduler"),
    "a flow's scheduler": (scheduler("FlowMatchEulerDiscreteScheduler"), "FlowMatchEulerDiscreteScheduler"),
    "timesteps that are no numbers of a table": (
        scheduler("EulerDiscreteScheduler", prediction_type="v_prediction", timestep_type="continuous"),
        "timestep_type",
    ),
    "a flow's steps": (scheduler("DPMSolverMultistepScheduler", use_flow_sigmas=True), "use_flow_sigmas"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_pipeline_would_do_otherwise_is_not_supported(plain: Path, tmp_path: Path, name: str) -> None:
    edit, word = REFUSED[name]
    with pytest.raises(InconclusiveError, match=word):
        inspect(edited(plain, tmp_path / "model", edit))


def test_the_same_settings_switched_off_are_none(plain: Path, tmp_path: Path) -> None:
    off = change("text_encoder/config.json", use_attention_mask=False, is_causal=True)
    flow = scheduler("EulerDiscreteScheduler", use_flow_sigmas=False, timestep_type="discrete")
    assert not inspect(edited(plain, tmp_path / "model", off, flow)).notes


def test_what_is_noted(plain: Path, tmp_path: Path) -> None:
    other = change("model_index.json", _class_name="StableDiffusionImg2ImgPipeline")
    notes = inspect(edited(plain, tmp_path / "model", other, scheduler("DDIMScheduler", thresholding=True))).notes
    assert any("StableDiffusionImg2ImgPipeline" in note for note in notes)
    assert any("thresholding" in note for note in notes)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_tokenizer_that_frames_texts_in_its_own_way(plain: Path, tmp_path: Path, side: str) -> None:
    folder = edited(plain, tmp_path / "model", change("tokenizer/tokenizer_config.json", padding_side=side))
    if side == "right":
        load(inspect(folder), device="cpu")
        return
    with pytest.raises(InconclusiveError, match="start and an end"):
        load(inspect(folder), device="cpu")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", sorted({*SCHEDULER.classes} - {"DPMSolverSDEScheduler"}))  # that one needs torchsde
def test_the_schedulers_of_the_list_have_the_noise_levels_of_their_betas(name: str) -> None:
    made = getattr(diffusers, name)(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    assert torch.allclose(made.alphas_cumprod, (1 - betas).cumprod(0), rtol=1e-4)
