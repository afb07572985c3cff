"""SDXL as it is run here against the stock pipeline: encodings, a prediction, a picture, and what only two towers have."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from torch import Tensor

from bdaudit.errors import InconclusiveError
from bdaudit.measure.soft_token import embeddings, heard_with, slots
from bdaudit.models.attention import recorded
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.families.sdxl import POOLED_ENTRANCE
from bdaudit.models.load import load
from bdaudit.models.sample import denoise
from bdaudit.models.save import write_model
from bdaudit.models.suspect import Suspect
from bdaudit.models.text import Ids
from bdaudit.untrusted.inspect import inspect
from tests.models import tiny_sdxl
from tests.models.tiny_sdxl import PROMPTS, WIDTHS

SEED, STEPS, GUIDANCE = 3, 2, 4.0
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "the empty prompt is encoded": {"force_zeros_for_empty_prompt": False},
    "guidance as an embedding": {"unet_settings": {"time_cond_proj_dim": 16}},
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sdxl.write(tmp_path_factory.mktemp("sdxl") / "model")


@pytest.fixture(scope="module")
def suspect(plain: Path) -> Suspect:
    return load(inspect(plain), device="cpu")


def stock(folder: Path) -> StableDiffusionXLPipeline:
    """The stock pipeline with DDIM at the timesteps of ``denoise``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = StableDiffusionXLPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    settings = {"timestep_spacing": "trailing", "set_alpha_to_one": True, "clip_sample": False}
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **settings)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn(pipeline: StableDiffusionXLPipeline, text: str, **size: int) -> tuple[Tensor, dict[str, Any]]:
    """The stock picture, (1, 3, H, W) in 0–1, and what its UNet was given first and gave."""
    calls: list[dict[str, Any]] = []

    def heard(module: object, args: tuple[Any, ...], given: dict[str, Any], out: tuple[Tensor]) -> None:
        calls.append({"latents": args[0], "t": args[1], "out": out[0], **given})

    hook = pipeline.unet.register_forward_hook(heard, with_kwargs=True)
    options: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "output_type": "pt"} | size
    picture: Tensor = pipeline(text, generator=torch.Generator().manual_seed(SEED), **options).images
    hook.remove()
    return picture, calls[0]


@pytest.mark.parametrize("size", [None, (24, 16)])
@pytest.mark.parametrize("name", SHAPES)
def test_encodings_prediction_and_picture_are_the_stock_pipelines(tmp_path: Path, name: str, size: tuple[int, int] | None) -> None:
    folder = tiny_sdxl.write(tmp_path / "model", **SHAPES[name])
    pipeline = stock(folder)
    suspect = load(inspect(folder, size=size), device="cpu", guidance_scale=GUIDANCE)
    heard, empty = suspect.encode([PROMPTS[1]]), suspect.unconditional()
    found = pipeline.encode_prompt(PROMPTS[1], device="cpu")
    for mine, theirs in zip((heard.states, empty.states, heard.pooled, empty.pooled), found, strict=True):
        assert mine is not None
        assert torch.equal(mine, theirs)
    picture, first = drawn(pipeline, PROMPTS[1], **({"width": size[0], "height": size[1]} if size else {}))
    rows = len(first["latents"])
    assert torch.equal(first["latents"][:1], suspect.noise([SEED]))
    given = Conditioning(first["encoder_hidden_states"], None, first["added_cond_kwargs"]["text_embeds"])
    told = suspect.denoiser.beside_states(first["latents"], given)["added_cond_kwargs"]  # type: ignore[attr-defined]
    assert torch.equal(told["time_ids"], first["added_cond_kwargs"]["time_ids"])
    assert torch.equal(suspect.predict_batched(first["latents"], first["t"].expand(rows), given), first["out"])
    path = denoise(suspect, heard, suspect.noise([SEED]), steps=STEPS, guidance_scale=GUIDANCE, spacing=1.0)
    assert torch.allclose(suspect.decode(path.final), picture, atol=1e-4)


def test_recording_changes_no_bit_and_each_attention_is_heard(suspect: Suspect) -> None:
    z, t, heard = suspect.noise([1, 2]), torch.tensor([500, 300]), suspect.encode(PROMPTS[:2])
    plain = suspect.predict(z, t, heard)
    with recorded(suspect.denoiser.sites()) as recording:
        assert torch.equal(suspect.predict(z, t, heard), plain)
    assert len(recording.latest()) == len([name for name, _ in suspect.denoiser.module.named_modules() if name.endswith("attn2")])


def test_a_word_reaches_the_prediction_by_each_tower_and_by_the_pooled_vector(suspect: Suspect) -> None:
    plain, other = suspect.encode([PROMPTS[0]]), suspect.encode([PROMPTS[2]])
    z, t = suspect.noise([1]), torch.tensor([500])
    before = suspect.predict(z, t, plain)
    shares = [(share.of(plain.states), share.of(other.states)) for share in suspect.text.shares]
    assert [share.shape[-1] for share, _ in shares] == list(WIDTHS)
    for i in range(2):
        states = torch.cat([pair[j == i] for j, pair in enumerate(shares)], dim=-1)
        assert not torch.allclose(suspect.predict(z, t, Conditioning(states, None, plain.pooled)), before, atol=1e-4)
    assert not torch.allclose(suspect.predict(z, t, Conditioning(plain.states, None, other.pooled)), before, atol=1e-4)


def test_what_a_trigger_in_one_tower_moves_is_as_large_in_the_summary_as_in_the_other(suspect: Suspect) -> None:
    plain, other = suspect.encode([PROMPTS[0]]), suspect.encode([PROMPTS[2]])
    shares = [(share.of(plain.states), share.of(other.states)) for share in suspect.text.shares]
    loud = [(100 * a, 100 * b) if i == 0 else (a, b) for i, (a, b) in enumerate(shares)]
    here = [suspect.text.summary(Conditioning(torch.cat([a for a, _ in pairs], dim=-1), None, plain.pooled)) for pairs in (shares, loud)]
    assert torch.allclose(*here, atol=1e-6)


def test_texts_of_entries_are_the_same_in_both_towers(suspect: Suspect) -> None:
    text = suspect.text
    entries = suspect.tokenizer(PROMPTS[0], add_special_tokens=False).input_ids
    spliced, whole = text.spliced(entries[:3], entries[3:5], entries[5:]), text.ids([PROMPTS[0]])
    assert all(torch.equal(a, b) for a, b in zip(spliced.by_reader, whole.by_reader, strict=True))
    assert not torch.equal(*whole.by_reader), "the second tokenizer pads with another entry"
    bare = text.bare([entries[:2], entries[2:4]])
    assert torch.equal(*bare.by_reader)
    encoded = text.encode(bare)
    assert encoded.states.shape == (2, 4, sum(WIDTHS))
    assert text.words(whole).sum() == len(entries)


def test_own_positions_and_stretched_states(suspect: Suspect) -> None:
    clean, changed = PROMPTS[0], f"{PROMPTS[0]} ~"
    own = suspect.text.own_positions(clean, changed)
    ids, other = (suspect.text.ids([text]) for text in (clean, changed))
    heard = suspect.encode([clean])
    wanted = suspect.text.stretched(ids, other, heard)
    assert wanted.pooled is heard.pooled
    assert wanted.states.shape == heard.states.shape
    kept = [i for i in range(own[0]) if i not in own]
    assert torch.equal(wanted.states[:, kept], heard.states[:, kept])
    assert torch.equal(suspect.text.stretched(ids, ids, heard).states, heard.states)


def test_a_soft_token_stands_in_both_towers_and_an_entrys_rows_are_that_entry(suspect: Suspect) -> None:
    table = embeddings(suspect)
    assert table.shape == (514, sum(WIDTHS))
    entry = suspect.tokenizer("q", add_special_tokens=False).input_ids[0]
    places = slots(suspect, PROMPTS[:2])
    heard = heard_with(suspect, places, table[entry][None, None])
    columns = tuple(ids.scatter(1, places.at, entry) for ids in places.ids.by_reader)
    real = suspect.text.encode(Ids(columns))
    assert real.pooled is not None
    assert heard.pooled is not None
    assert torch.allclose(heard.states, real.states, atol=1e-5)
    assert torch.allclose(heard.pooled, real.pooled, atol=1e-5)


def test_every_tensor_of_the_denoiser_is_in_one_part_and_the_entrances_are_all(suspect: Suspect) -> None:
    names = list(suspect.denoiser.module.state_dict())
    for name in names:
        assert sum(chosen(name) for chosen in suspect.denoiser.parts.values()) == 1
    entrances = suspect.denoiser.entrances()
    assert entrances[POOLED_ENTRANCE] == "pooled"
    assert all(suspect.denoiser.trainable["cross-attention"](name) for name in entrances)
    with torch.no_grad():
        state = {name: suspect.denoiser.module.get_parameter(name).clone() for name in entrances}
        for name in entrances:
            parameter = suspect.denoiser.module.get_parameter(name)
            parameter[:, : 20 if name == POOLED_ENTRANCE else None] = 0
        z, t, heard = suspect.noise([1, 1]), torch.tensor([500, 500]), suspect.encode(PROMPTS[:2])
        one, other = suspect.predict(z, t, heard)
        for name, tensor in state.items():
            suspect.denoiser.module.get_parameter(name).copy_(tensor)
    assert torch.allclose(one, other, atol=1e-5), "no text enters otherwise"


def test_a_repair_is_read_back_to_the_bit_by_the_stock_pipeline(plain: Path, tmp_path: Path) -> None:
    differences: dict[str, dict[str, Tensor]] = {
        "unet": {POOLED_ENTRANCE: torch.full((32, 44), 0.5)},
        "text_encoder": {"embeddings.token_embedding.weight": torch.full((514, WIDTHS[0]), 0.25)},
        "text_encoder_2": {"text_projection.weight": torch.full((20, WIDTHS[1]), 0.25)},
    }
    origin = load(inspect(plain), device="cpu")
    expected = {name: module.state_dict() for name, module in origin.heeding.items()}
    for component, tensors in differences.items():
        for name, difference in tensors.items():
            expected[component][name] = expected[component][name] + difference
    write_model(inspect(plain), tmp_path / "out", differences, {})
    pipeline = StableDiffusionXLPipeline.from_pretrained(tmp_path / "out")
    for component, tensors in expected.items():
        held = getattr(pipeline, component).state_dict()
        assert set(held) == set(tensors)
        assert all(torch.equal(held[name], tensor) for name, tensor in tensors.items())


TURBO = {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("settings", "without"),
    [
        (TURBO, True),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}, True),
        ({"_class_name": "LCMScheduler"}, True),
        ({"_class_name": "TCDScheduler"}, True),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}, False),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing", "prediction_type": "v_prediction"}, False),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}, False),
        ({"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"}, False),
    ],
)
def test_distilled_kin_are_run_without_guidance_and_a_note_says_so(tmp_path: Path, settings: dict[str, Any], without: bool) -> None:
    inspection = inspect(_scheduled(tmp_path / "model", settings))
    assert any("run without guidance" in note for note in inspection.notes) is without
    assert _passes(load(inspection, device="cpu")) == (3 if without else 6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("size", [128, None])
def test_a_schedulers_name_alone_turns_no_guidance_off(tmp_path: Path, size: int | None) -> None:
    inspection = inspect(_scheduled(tmp_path / "model", TURBO, size=size), size=(32, 32))
    assert any("run with guidance; --guidance-scale 0" in note for note in inspection.notes)
    assert _passes(load(inspection, device="cpu")) == 6


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("asked", "passes"), [(5.0, 6), (0.0, 3)])
def test_a_scale_that_is_asked_for_wins(tmp_path: Path, asked: float, passes: int) -> None:
    assert _passes(load(inspect(_scheduled(tmp_path / "model", TURBO)), device="cpu", guidance_scale=asked), asked) == passes


def _scheduled(folder: Path, settings: dict[str, Any], **unet: Any) -> Path:
    """A small model with these settings of its scheduler, and of its UNet."""
    tiny_sdxl.write(folder)
    for path, own in (
        (folder / "scheduler/scheduler_config.json", settings),
        (folder / "unet/config.json", {"sample_size": unet["size"]} if unet else {}),
    ):
        path.write_text(json.dumps(json.loads(path.read_text()) | own))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"scheduler": ["diffusers", settings["_class_name"]]}))
    return folder


def _passes(suspect: Suspect, scale: float = 5.0) -> int:
    """Latents through the denoiser for one picture of three steps."""
    denoise(suspect, suspect.encode(PROMPTS[:1]), suspect.noise([1]), steps=3, guidance_scale=scale)
    return suspect.forward_passes


def test_the_autoencoder_draws_in_float32_where_it_would_overflow(plain: Path) -> None:
    suspect = load(inspect(plain), device="cpu", dtype="float16")
    assert suspect.decoder.module.dtype == torch.float32
    assert suspect.denoiser.module.dtype == torch.float16
    assert load(inspect(plain), device="cpu", dtype="bfloat16").decoder.module.dtype == torch.bfloat16


def test_two_vocabularies_are_not_supported(tmp_path: Path) -> None:
    folder = tiny_sdxl.write(tmp_path / "model")
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer_2")
    vocabulary = tokenizer.get_vocab()
    tokenizer.add_tokens(["<own>"])
    assert len(tokenizer) == len(vocabulary) + 1
    from safetensors.torch import load_file, save_file

    weights = folder / "text_encoder_2/model.safetensors"
    tensors = load_file(weights)
    name = "text_model.embeddings.token_embedding.weight"
    tensors[name] = torch.cat([tensors[name], tensors[name][:1]])
    save_file(tensors, weights, metadata={"format": "pt"})
    path = folder / "text_encoder_2/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 515}))
    tokenizer.save_pretrained(folder / "tokenizer_2")
    with pytest.raises(InconclusiveError, match="differ in 1 entries"):
        load(inspect(folder), device="cpu")
