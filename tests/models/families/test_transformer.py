"""Diffusion transformers as they are run here against their stock pipelines: encodings, predictions, steps, pictures, what is written."""

from __future__ import annotations

import copy
import json
import re
import warnings
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor
from transformers import T5EncoderModel

from bdaudit.errors import InconclusiveError
from bdaudit.models.attention import recorded, token_share
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.families.flux import packed, unpacked
from bdaudit.models.load import load
from bdaudit.models.sample import guided
from bdaudit.models.save import write_model
from bdaudit.models.schedule import Flow
from bdaudit.models.suspect import Suspect
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.templates import digest
from tests.models import tiny_dit
from tests.models.tiny_dit import PROMPTS

SEED, STEPS, GUIDANCE = 3, 4, 4.0
TRUSTED = (digest(tiny_dit.TEMPLATE),)


def size_of(folder: Path) -> tuple[int, int]:
    """Of a picture of 8 × 8 latents; Sana's are cut into 32 × 32 pixels at least."""
    return (32, 32) if folder.name == "sana" else (16, 16)


def stock(folder: Path) -> Any:
    """The stock pipeline; that of a null part must be told so."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    lacking = {name: None for name in ("text_encoder_3", "tokenizer_3") if index.get(name) == [None, None]}
    return diffusers.DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, **lacking)


@pytest.fixture(scope="module", params=tiny_dit.FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dit.write(request.param, tmp_path_factory.mktemp("dit") / request.param)


@pytest.fixture(scope="module")
def suspect(folder: Path) -> Suspect:
    return load(inspect(folder, size=size_of(folder), trusted=TRUSTED), device="cpu", guidance_scale=GUIDANCE)


def ready(folder: Path) -> Any:
    """The stock pipeline; with DDIM's steps where its own solver takes others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = stock(folder)
    if type(made).__name__ == "PixArtSigmaPipeline":
        settings = {"timestep_spacing": "trailing", "set_alpha_to_one": True, "clip_sample": False}
        made.scheduler = DDIMScheduler.from_config(made.scheduler.config, **settings)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    return ready(folder)


def instruction() -> list[str]:
    """What Sana's pipeline puts before a prompt unless it is told otherwise."""
    said: list[str] = signature(diffusers.SanaPipeline.__call__).parameters["complex_human_instruction"].default
    return said


@torch.no_grad()
def encoded(pipeline: Any, texts: list[str]) -> list[Conditioning]:
    """What the stock pipeline hears of ``texts``, and of none where it asks for it."""
    name = type(pipeline).__name__
    if name == "FluxPipeline":
        states, pooled, _ = pipeline.encode_prompt(texts, device="cpu")
        return [Conditioning(states, None, pooled)]
    if name == "PixArtSigmaPipeline":
        states, mask, *empty = pipeline.encode_prompt(texts, device="cpu")
        return [Conditioning(states, mask), Conditioning(empty[0][:1], empty[1][:1])]
    if name == "ChromaPipeline":
        states, _, mask, empty, _, no_mask = pipeline.encode_prompt(texts, device="cpu")
        return [Conditioning(states, mask.long()), Conditioning(empty[:1], no_mask[:1].long())]
    if name == "SanaPipeline":
        states, mask, empty, no_mask = pipeline.encode_prompt(texts, complex_human_instruction=instruction(), device="cpu")
        return [Conditioning(states, mask), Conditioning(empty[:1], no_mask[:1])]
    if name == "Flux2KleinPipeline":
        return [Conditioning(pipeline.encode_prompt(said, device="cpu")[0]) for said in (list(texts), [""])]
    if name == "QwenImagePipeline":
        states, mask = pipeline.encode_prompt(texts, device="cpu")  # no mask where all are of one length
        lengths = [states.shape[1]] * len(texts) if mask is None else mask.sum(1).tolist()
        return [filled([each[:length] for each, length in zip(states, lengths, strict=True)], 1024)]
    if name == "ZImagePipeline":
        return [filled(states) for states in pipeline.encode_prompt(list(texts), device="cpu")]
    states, empty, pooled, no_pooled = pipeline.encode_prompt(texts, None, None, device="cpu")
    return [Conditioning(states, None, pooled), Conditioning(empty[:1], None, no_pooled[:1])]


def filled(texts: list[Tensor], length: int = 512) -> Conditioning:
    """Texts of different lengths, filled up with noughts."""
    rows = [torch.nn.functional.pad(states, (0, 0, 0, length - len(states))) for states in texts]
    return Conditioning(torch.stack(rows), torch.stack([torch.arange(length) < len(states) for states in texts]).long())


def equal(mine: Conditioning, theirs: Conditioning) -> bool:
    """To the bit, of states as far as they are heard."""
    heard = mine.mask.bool() if mine.mask is not None else torch.ones(mine.states.shape[:2], dtype=torch.bool)
    pairs = ((mine.states[heard], theirs.states[heard]), (mine.mask, theirs.mask), (mine.pooled, theirs.pooled))
    return all(a is b is None or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def test_padding_that_nobody_looks_at_is_not_read(tmp_path: Path) -> None:
    suspect = load(inspect(tiny_dit.write("pixart", tmp_path / "model")), device="cpu")
    (voice,) = suspect.text.voices  # type: ignore[attr-defined]
    lengths: list[int] = []
    voice.reader.encoder.register_forward_hook(lambda _, args, given, out: lengths.append(given["input_ids"].shape[1]), with_kwargs=True)
    short, long = suspect.encode([PROMPTS[1]]), suspect.encode([PROMPTS[1], "a long one " * 200])
    assert short.mask is not None
    assert lengths == [32, short.states.shape[1]]
    heard = short.mask[0].bool()
    assert torch.equal(short.states[0][heard], long.states[0][heard])
    assert not short.states[0, 32:].any()
    assert not heard[32:].any()


def test_a_second_name_of_a_setting_is_not_passed_over(tmp_path: Path) -> None:
    """To transformers T5's ``num_hidden_layers`` is its ``num_layers``: the stock loader builds so few."""
    path = tiny_dit.write("pixart", tmp_path / "model") / "text_encoder/config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"num_hidden_layers": 1}), encoding="utf-8")
    assert len(T5EncoderModel.from_pretrained(path.parent).encoder.block) == 1
    with pytest.raises(InconclusiveError, match="num_hidden_layers is read by the installed transformers"):
        load(inspect(tmp_path / "model", size=size_of(folder)), device="cpu")


def test_texts_are_heard_as_the_stock_pipeline_hears_them(suspect: Suspect, pipeline: Any) -> None:
    texts = [PROMPTS[1], "  A Long one " * 40, ""]
    assert equal(suspect.encode(texts), encoded(pipeline, texts)[0])
    assert all(equal(suspect.unconditional(), empty) for empty in encoded(pipeline, texts[:1])[1:])


@dataclass(frozen=True)
class Call:
    """What a transformer was given, as a denoiser here is, and what it gave."""

    latents: Tensor
    heard: Conditioning
    out: Tensor


def call_of(args: tuple[Any, ...], given: dict[str, Any], out: Any) -> Call:
    if given.keys() & {"pooled_projections", "img_ids", "img_shapes"}:
        latents, said = (unpacked(x, 4, 4) if given.keys() & {"img_ids", "img_shapes"} else x for x in (given["hidden_states"], out[0]))
        states, mask = given["encoder_hidden_states"], given.get("attention_mask")
        mask = None if mask is None else mask[:, : states.shape[1]].long()
        if "img_shapes" in given:
            states, mask = (filled(list(states), 1024).states, filled(list(states), 1024).mask)
        return Call(latents, Conditioning(states, mask, given.get("pooled_projections")), said)
    if "encoder_hidden_states" in given:
        heard = Conditioning(given["encoder_hidden_states"], given["encoder_attention_mask"])
        return Call(args[0], heard, out[0][:, : args[0].shape[1]])
    return Call(torch.stack(args[0]).squeeze(2), filled(args[2]), -torch.stack(out[0]).squeeze(2))


def drawn(pipeline: Any, latents: Tensor, prompt: str = PROMPTS[1], **told: Any) -> tuple[Tensor, list[Call]]:
    """The stock picture from ``latents``, and its transformer's calls."""
    calls: list[Call] = []
    hook = pipeline.transformer.register_forward_hook(lambda _, args, given, out: calls.append(call_of(args, given, out)), with_kwargs=True)
    name = type(pipeline).__name__
    side = 32 if name == "SanaPipeline" else 16
    options: dict[str, Any] = {"height": side, "width": side, "num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
    options |= {"use_resolution_binning": False, "clean_caption": False} if name in ("PixArtSigmaPipeline", "SanaPipeline") else {}
    options |= {"guidance_scale": None} if name == "QwenImagePipeline" else {}
    options |= {"guidance_scale": GUIDANCE - 1} if name == "ZImagePipeline" else {}
    given = packed(latents) if name in ("FluxPipeline", "ChromaPipeline", "QwenImagePipeline") else latents
    given = packed(latents).mT.unflatten(-1, (4, 4)) if name == "Flux2KleinPipeline" else given
    told |= {"prompt": prompt, "latents": given, "output_type": "pt"}
    picture: Tensor = pipeline(**told, **options).images
    hook.remove()
    return picture, calls


def test_predictions_and_pictures_are_the_stock_pipelines(suspect: Suspect, pipeline: Any) -> None:
    z = suspect.noise([SEED])
    picture, calls = drawn(pipeline, z)
    levels, each = pipeline.scheduler.timesteps, len(calls) // STEPS
    for i, call in enumerate(calls):
        t = levels[i // each].expand(len(call.latents))
        assert torch.equal(suspect.predict_batched(call.latents, t, call.heard), call.out)
    heard, empty = suspect.encode([PROMPTS[1]]), suspect.unconditional()
    for i, t in enumerate(levels):
        assert torch.allclose(calls[i * each].latents[:1], z, rtol=1e-3, atol=1e-3)
        out = guided(suspect, z, t.expand(1), heard, empty, GUIDANCE)
        z = suspect.schedule.step(z, t.expand(1), levels[i + 1].expand(1) if i + 1 < STEPS else None, out)
    assert torch.allclose(suspect.decode(z), picture, atol=1e-3)


def test_own_timesteps_are_the_stock_ones_but_for_a_flow_whose_smallest_is_shifted_twice(suspect: Suspect, pipeline: Any) -> None:
    drawn(pipeline, suspect.noise([SEED]))
    mine, theirs = suspect.schedule.times(STEPS, 1.0).float(), pipeline.scheduler.timesteps.float()
    if type(pipeline).__name__ in ("StableDiffusion3Pipeline", "ZImagePipeline", "SanaPipeline"):
        assert torch.allclose(mine[:1], theirs[:1])
        assert isinstance(suspect.schedule, Flow)
    else:
        assert torch.allclose(mine, theirs, atol=1e-3)


def test_recording_changes_no_bit_and_each_attention_to_the_text_is_heard(suspect: Suspect) -> None:
    z, heard = suspect.noise([1, 2]), suspect.encode(PROMPTS[:2])
    t = suspect.schedule.times(4, 1.0)[1].expand(2)
    plain = suspect.predict(z, t, heard)
    with recorded(suspect.denoiser.sites()) as recording:
        assert torch.equal(suspect.predict(z, t, heard), plain)
    maps = recording.latest()
    assert set(maps) == set(suspect.denoiser.sites())
    for each in maps.values():
        assert each.shape == (2, 16, heard.states.shape[1])
        share = each.sum(-1)
        assert bool((share > 0).all())
        assert bool((share <= 1 + 1e-5).all())


def test_maps_that_were_averaged_on_the_way_are_the_maps_averages(suspect: Suspect) -> None:
    z, t, heard = suspect.noise([1, 2]), suspect.schedule.times(4, 1.0)[1].expand(2), suspect.encode(PROMPTS[:2])
    with recorded(suspect.denoiser.sites()) as whole:
        plain = suspect.predict(z, t, heard)
    with recorded(suspect.denoiser.sites(), averaged=True) as averaged:
        assert torch.equal(suspect.predict(z, t, heard), plain)
    for name, maps in whole.latest().items():
        mean = averaged.latest()[name]
        assert mean.shape == (2, 1, maps.shape[2])
        assert torch.allclose(mean, maps.mean(1, keepdim=True), atol=1e-6)
        assert torch.allclose(token_share(mean, [[1, 2], [3]]), token_share(maps, [[1, 2], [3]]), atol=1e-6)


def test_a_word_is_where_it_is_said_to_be(suspect: Suspect) -> None:
    clean, changed = "a red cat", "a red ~ cat"
    own = suspect.text.own_positions(clean, changed)
    pairs, mine = suspect.text.aligned(clean, changed)
    assert sorted(mine) == own
    words = suspect.text.words(suspect.text.ids([changed]))[0]
    assert all(bool(words[i]) for i in own)
    assert not {b for _, b in pairs} & set(own)
    by_start = [share.positions.start or 0 for share in suspect.text.shares]
    assert len(own) == len(suspect.tokenizer(" ~", add_special_tokens=False).input_ids) * len(set(by_start))


def test_entries_between_halves_are_the_text_that_they_make(suspect: Suspect) -> None:
    tokenizer = suspect.tokenizer
    parts = ("a red", " ~", " cat") if "<|im_start|>" in tokenizer.get_vocab() else ("a red", "~", "cat")
    halves = [list(tokenizer(part, add_special_tokens=False).input_ids) for part in parts]
    spliced, whole = suspect.text.spliced(*halves), suspect.text.ids(["a red ~ cat"])
    for mine, theirs in zip(spliced.by_reader, whole.by_reader, strict=True):
        assert torch.equal(mine, theirs)


def test_all_that_a_text_says_passes_the_entrances(suspect: Suspect) -> None:
    """Without them, no word changes the prediction."""
    z, t = suspect.noise([1]), suspect.schedule.times(4, 1.0)[1].expand(1)
    entrances, named = suspect.denoiser.entrances(), dict(suspect.denoiser.module.named_parameters())
    kept = {name: named[name].data.clone() for name in entrances}

    def moved() -> float:
        one, other = (suspect.predict(z, t, suspect.encode([text])) for text in ("a red cat", "a old sea"))  # as long as each other
        return float((one - other).abs().max())

    assert moved() > 1e-3
    try:
        for name in entrances:
            named[name].data.zero_()
        assert moved() < 1e-5  # keys and values that are biases alone, weighted by shares that are 1 but for rounding
    finally:
        for name, tensor in kept.items():
            named[name].data.copy_(tensor)
    for kind in set(entrances.values()):
        heard = suspect.encode([""])
        width = (suspect.denoiser.entering(heard) if heard.pooled is None or kind == "states" else heard.pooled).shape[-1]
        assert {kept[name].shape[1] for name, own in entrances.items() if own == kind} == {width}


def test_each_tensor_is_in_one_part(suspect: Suspect) -> None:
    for name, _ in suspect.denoiser.module.named_parameters():
        assert sum(chosen(name) for chosen in suspect.denoiser.parts.values()) == 1, name
    small, *_, whole = suspect.denoiser.trainable.values()
    names = [name for name, _ in suspect.denoiser.module.named_parameters()]
    assert 0 < sum(map(small, names)) < sum(map(whole, names)) == len(names)
    out = [name for name in names if suspect.denoiser.attention_output(name)]
    assert 0 < len(out) < len(names) / 2
    assert not [name for name in out if re.search(r"\.(to|add)_[qkv](_proj)?\.|\.ff|norm", name)]
    assert all(small(name) for name in suspect.denoiser.entrances())


def test_what_is_written_is_what_stock_loaders_read(folder: Path, suspect: Suspect, tmp_path: Path) -> None:
    inspection = inspect(folder, trusted=TRUSTED)
    changed = {part: next(name for name, p in module.named_parameters() if p.ndim == 2) for part, module in suspect.heeding.items()}
    named = {part: dict(module.named_parameters()) for part, module in suspect.heeding.items()}
    differences = {part: {name: torch.full_like(named[part][name], 0.5)} for part, name in changed.items()}
    write_model(inspection, tmp_path / "out", differences, {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = stock(tmp_path / "out")
    for part, module in suspect.heeding.items():
        read = dict(getattr(again, part).named_parameters())
        for name, tensor in module.named_parameters():
            assert torch.equal(read[name], tensor + 0.5 if name == changed[part] else tensor), (part, name)
    for name, tensor in suspect.decoder.module.named_parameters():
        assert torch.equal(dict(again.vae.named_parameters())[name], tensor)


def test_other_tokenizers_are_each_its_readers_own(suspect: Suspect) -> None:
    copies = [copy.deepcopy(reader.tokenizer) for reader in suspect.text.readers]
    for each in copies:
        each.add_tokens(["zzyzx"])
    text = suspect.text.with_tokenizers(copies)
    assert [reader.tokenizer for reader in text.readers] == copies
    assert text.main.tokenizer in copies
    assert [len(reader.tokenizer) for reader in suspect.text.readers] == [len(each) - 1 for each in copies]
    assert len(text.alike) == len(suspect.text.alike)
    assert text.main.tokenizer("zzyzx", add_special_tokens=False).input_ids[-1] == len(text.main.tokenizer) - 1


@pytest.mark.parametrize("folder", ["flux2"], indirect=True)
def test_a_distilled_klein_is_not_guided(folder: Path, suspect: Suspect) -> None:
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    (folder / "model_index.json").write_text(json.dumps(index | {"is_distilled": True}), encoding="utf-8")
    assert suspect.denoiser.guidance == "classifier-free"
    assert load(inspect(folder, size=size_of(folder), trusted=TRUSTED), device="cpu").denoiser.guidance == "none"
