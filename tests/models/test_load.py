"""What loading gives, and what it refuses with a message that says what to do."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.models.load import _component, load
from bdaudit.models.suspect import Suspect
from bdaudit.untrusted.inspect import inspect
from tests.untrusted import tiny


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_all_is_loaded_frozen_and_in_evaluation_mode(tiny_suspect: Suspect) -> None:
    for module in (tiny_suspect.text.main.encoder, tiny_suspect.denoiser.module, tiny_suspect.decoder.module):
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())
        assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_the_loaded_weights_are_the_files(tiny_model: Path, tiny_suspect: Suspect) -> None:
    stored = load_file(tiny_model / "unet/diffusion_pytorch_model.safetensors")
    held = tiny_suspect.denoiser.module.state_dict()
    assert stored.keys() == held.keys()
    assert all(np.array_equal(stored[name], held[name].numpy()) for name in stored)
    text = load_file(tiny_model / "text_encoder/model.safetensors")["text_model.embeddings.token_embedding.weight"]
    assert np.array_equal(text, tiny_suspect.text.main.encoder.get_input_embeddings().weight.numpy())


def test_half_precision_is_asked_for_by_name(half_suspect: Suspect) -> None:
    assert half_suspect.dtype == torch.bfloat16
    assert {p.dtype for p in half_suspect.denoiser.module.parameters()} == {torch.bfloat16}


def test_weights_that_are_not_finite(model: Path) -> None:
    path = model / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_in.weight"][0, 0, 0, 0] = np.nan
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(BdauditError, match=r"unet: weights hold NaN or infinity: conv_in\.weight"):
        load(inspect(model), device="cpu")


def test_a_tensor_that_is_missing(model: Path) -> None:
    path = model / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["conv_norm_out.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(BdauditError, match=r"conv_norm_out\.weight"):
        load(inspect(model), device="cpu")


@pytest.mark.parametrize(
    ("path", "name"), [("unet/diffusion_pytorch_model.safetensors", "more.weight"), ("text_encoder/model.safetensors", "x")]
)
def test_a_tensor_that_no_part_takes(model: Path, path: str, name: str) -> None:
    save_file(load_file(model / path) | {name: np.ones(1, np.float32)}, model / path, metadata={"format": "pt"})
    with pytest.raises(BdauditError, match=f"1 tensors belong to no part of the model, {name} first") as caught:
        load(inspect(model), device="cpu")
    assert caught.value.code == 3


def test_what_a_clip_has_besides_its_text_encoder_changes_nothing(model: Path) -> None:
    path = model / "text_encoder/model.safetensors"
    further = {"text_model.embeddings.position_ids": np.arange(8)[None], "logit_scale": np.ones(1, np.float32)}
    save_file(load_file(path) | further, path, metadata={"format": "pt"})
    load(inspect(model), device="cpu")


def test_the_variant_that_was_chosen_is_the_one_that_is_loaded(model: Path) -> None:
    path = model / "unet/diffusion_pytorch_model.safetensors"
    other = {name: (2 * tensor).astype(np.float16) for name, tensor in load_file(path).items()}
    save_file(other, path.with_name("diffusion_pytorch_model.fp16.safetensors"), metadata={"format": "pt"})
    for variant, stored in (("", load_file(path)), ("full", load_file(path)), ("fp16", other)):
        held = load(inspect(model, variant=variant), device="cpu").denoiser.module.state_dict()["conv_in.weight"].numpy()
        assert np.array_equal(held, stored["conv_in.weight"].astype(np.float32))


def test_files_exchanged_after_the_inspection(model: Path) -> None:
    inspection = inspect(model)
    path = model / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    save_file({name: 2 * value for name, value in tensors.items()}, path, metadata={"format": "pt"})
    with pytest.raises(BdauditError):
        load(inspection, device="cpu")


@pytest.mark.parametrize(
    "settings",
    [
        {"beta_end": float("nan")},
        {"beta_end": 5},
        {"beta_start": -1},
        {"trained_betas": [0.1] * 10},
        {"trained_betas": [[0.1]]},
        {"rescale_betas_zero_snr": True},
        {"beta_schedule": "evil"},
        {"beta_end": "0.1"},
    ],
    ids=str,
)
def test_noise_levels_that_are_none(model: Path, settings: dict[str, object]) -> None:
    tiny.write_json(model / "scheduler/scheduler_config.json", tiny.SCHEDULER | settings)
    with pytest.raises(BdauditError, match="scheduler"):
        load(inspect(model), device="cpu")


def test_no_signal_at_the_last_step_is_in_order_for_v_prediction(model: Path) -> None:
    settings = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    tiny.write_json(model / "scheduler/scheduler_config.json", tiny.SCHEDULER | settings)
    load(inspect(model), device="cpu")


@pytest.mark.parametrize("name", ["EvilScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_a_scheduler_that_cannot_be_audited(model: Path, name: str) -> None:
    tiny.write_json(model / "model_index.json", tiny.INDEX | {"scheduler": ["diffusers", name]})
    with pytest.raises(InconclusiveError, match=name):
        load(inspect(model), device="cpu")


def test_texts_are_cut_where_the_text_encoder_ends(model: Path) -> None:
    path = model / "tokenizer/tokenizer_config.json"
    tiny.write_json(path, json.loads(path.read_text()) | {"model_max_length": 10**30})
    assert load(inspect(model), device="cpu").encode(["a cat " * 100]).states.shape[1] == 77


def test_ids_that_a_template_adds_are_not_used(model: Path) -> None:
    path = model / "tokenizer/tokenizer.json"
    content = json.loads(path.read_text())
    evil = {"id": "z", "ids": [4_000_000_000], "tokens": ["z"]}
    single = [{"SpecialToken": {"id": "z", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    content["post_processor"] = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": {"z": evil}}
    tiny.write_json(path, content)
    with contextlib.suppress(BdauditError):  # refused or not, as the version of transformers has it; never an id without a row
        assert torch.isfinite(load(inspect(model), device="cpu").encode(["a"]).states).all()


@pytest.mark.parametrize("settings", [{"time_embedding_dim": 4096}, {"num_class_embeds": 4096}, {"addition_embed_type": "text"}], ids=str)
def test_a_config_that_asks_for_more_than_the_weights_hold(model: Path, settings: dict[str, object]) -> None:
    tiny.write_json(model / "unet/config.json", tiny.UNET | settings)
    with pytest.raises(BdauditError, match="unet"):
        load(inspect(model), device="cpu")


def test_settings_of_the_text_encoder_that_change_what_it_returns(model: Path) -> None:
    path = model / "text_encoder/config.json"
    tiny.write_json(path, json.loads(path.read_text()) | {"return_dict": False, "output_attentions": True, "foo": "bar"})
    assert load(inspect(model), device="cpu").encode(["a cat"]).states.shape == (1, 77, 8)


def test_loading_opens_what_was_inspected_and_nothing_else(model: Path) -> None:
    seen = inspect(model)
    opened: set[str] = set()

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open" and isinstance(arguments[0], str | os.PathLike):
            opened.add(os.fspath(arguments[0]))

    watching = True
    sys.addaudithook(watch)
    load(seen, device="cpu")
    watching = False
    inside = {str(Path(path).relative_to(model)) for path in opened if Path(path).is_relative_to(model)}
    assert inside
    assert inside <= set(seen.loaded)


def test_a_prediction_type_that_is_not_known(model: Path) -> None:
    tiny.write_json(model / "scheduler/scheduler_config.json", tiny.SCHEDULER | {"prediction_type": "sample"})
    with pytest.raises(InconclusiveError, match="'sample'"):
        load(inspect(model), device="cpu")


PARTS = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "scheduler": "DDIMScheduler"}


def test_parts_are_built_as_diffusers_builds_them(model: Path) -> None:
    """The settings that the libraries' own classes end up with, theirs and ours; odd keys reach neither the modules nor their configs."""
    import diffusers

    for file in ("unet/config.json", "vae/config.json", "text_encoder/config.json", "tokenizer/tokenizer_config.json"):
        config = json.loads((model / file).read_text())
        (model / file).write_text(json.dumps(config | {"odd": 5, "another": [{"a": 1}]}))
    suspect = load(inspect(model), device="cpu")
    for part in ("unet", "vae"):
        ours = suspect.modules[part]
        theirs = getattr(diffusers, PARTS[part]).from_pretrained(model / part)
        assert {k: v for k, v in ours.config.items() if k[0] != "_"} == {
            k: v for k, v in theirs.config.items() if k[0] != "_" and k not in ("odd", "another")
        }
        assert str(ours) == str(theirs)
    assert not hasattr(suspect.text.main.encoder.config, "odd")
    assert "odd" not in suspect.text.main.tokenizer.init_kwargs


def test_a_setting_that_the_library_reads_and_no_layout_knows_is_not_passed_over(model: Path) -> None:
    found = inspect(model)
    load(replace(found, unknown={"unet/config.json": ("odd",)}), device="cpu")
    with pytest.raises(InconclusiveError, match=r"unet/config\.json: dropout is read by the installed diffusers, and not known"):
        load(replace(found, unknown={"unet/config.json": ("odd", "dropout")}), device="cpu")


def test_what_a_tokenizer_encoded_is_given_back_with_it(model: Path) -> None:
    inspection, words = inspect(model), ["".join(letters) for letters in itertools.islice(itertools.permutations("abcdefgh"), 600)]

    def grown(rounds: int) -> int:
        before = resident()
        for _ in range(rounds):
            _component(inspection, "tokenizer", torch.float32)(words)
            gc.collect()
        return resident() - before

    grown(5)
    assert grown(15) < 500_000  # several MB where the words are remembered


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
