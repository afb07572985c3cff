"""SDXL at the door: what is run as the stock pipeline runs it, what is not supported, and every hostile directory over its layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bdaudit.errors import BdauditError, InconclusiveError, RefusedError
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.layouts import layout_of
from bdaudit.untrusted.layouts.sdxl import LAYOUT
from bdaudit.untrusted.layouts.stable_diffusion import LAYOUT as FIRST
from tests.models import tiny_sdxl
from tests.untrusted.edits import change, pickled, put
from tests.untrusted.hostile import CASES, Case
from tests.untrusted.tiny import write_json

SECOND = "text_encoder_2/model.safetensors"
TOWERS = (("text_encoder", "text_encoder_2"), ("tokenizer", "tokenizer_2"))


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vocabulary and the merges in files of their own, as most deployed models have them."""
    model = tiny_sdxl.write(tmp_path_factory.mktemp("sdxl") / "model")
    for path in model.glob("tokenizer*/tokenizer.json"):
        whole = json.loads(path.read_text(encoding="utf-8"))["model"]
        write_json(path.with_name("vocab.json"), whole["vocab"])
        path.with_name("merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in whole["merges"]), encoding="utf-8")
        path.unlink()
    return model


@pytest.fixture
def model(origin: Path, tmp_path: Path) -> Path:
    return shutil.copytree(origin, tmp_path / "model")


def test_all_of_its_parts_are_inspected(model: Path) -> None:
    found = inspect(model)
    assert found.layout is LAYOUT
    assert set(found.weights) == {"unet", "vae", "text_encoder", "text_encoder_2"}
    assert {"tokenizer_2/vocab.json", "text_encoder_2/config.json", SECOND} <= set(found.loaded)
    assert found.settings["model_index.json"] == {"force_zeros_for_empty_prompt": True}
    assert found.notes == ()


def test_which_pipelines_are_which() -> None:
    for middle in ("", "Img2Img", "Inpaint", "ControlNet"):
        assert layout_of(f"StableDiffusionXL{middle}Pipeline") is LAYOUT
        assert layout_of(f"StableDiffusion{middle}Pipeline") is FIRST
    assert [layout_of(name) for name in ("HunyuanDiTPipeline", "Flux2Pipeline", None, 5)] == [None] * 4


REFUSED: dict[str, tuple[type[BdauditError], str, dict[str, Any], str]] = {
    "a further embedding": (InconclusiveError, "unet/config.json", {"encoder_hid_dim": 16}, "encoder_hid_dim"),
    "no pooled vector": (InconclusiveError, "unet/config.json", {"addition_embed_type": None}, "addition_embed_type"),
    "an embedding of text and picture": (
        InconclusiveError,
        "unet/config.json",
        {"addition_embed_type": "text_image"},
        "addition_embed_type",
    ),
    "sizes as the refiner's": (
        BdauditError,
        "unet/config.json",
        {"projection_class_embeddings_input_dim": 40},
        "expected 20 of text_encoder_2",
    ),
    "no width of sizes": (BdauditError, "unet/config.json", {"addition_time_embed_dim": None}, "addition_time_embed_dim"),
    "masked padding in the second tower": (InconclusiveError, "text_encoder_2/config.json", {"use_attention_mask": True}, "text_encoder_2"),
    "words that see what follows": (InconclusiveError, "text_encoder/config.json", {"is_causal": False}, "text_encoder/"),
    "normalised latents": (InconclusiveError, "vae/config.json", {"latents_mean": [0.0] * 4}, "latents_mean"),
    "a flow's steps": (InconclusiveError, "scheduler/scheduler_config.json", {"use_flow_sigmas": True}, "use_flow_sigmas"),
    "another projection": (BdauditError, "text_encoder_2/config.json", {"projection_dim": 21}, "projection_dim is 21, its weights have 20"),
    "another width": (BdauditError, "text_encoder_2/config.json", {"hidden_size": 25}, "hidden_size is 25, its weights have 24"),
    "a depth past all": (BdauditError, "text_encoder_2/config.json", {"num_hidden_layers": 129}, "expected a whole number of 1 to 128"),
    "a word for a flag": (BdauditError, "model_index.json", {"force_zeros_for_empty_prompt": "yes"}, "force_zeros_for_empty_prompt"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_run(model: Path, name: str) -> None:
    kind, path, values, said = REFUSED[name]
    change(path, **values)(model, model)
    with pytest.raises(kind, match=said) as caught:
        inspect(model)
    assert type(caught.value) is kind


def test_the_refiner_is_named(model: Path) -> None:
    change("model_index.json", _class_name="StableDiffusionXLImg2ImgPipeline", text_encoder=[None, None], tokenizer=[None, None])(
        model, model
    )
    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(model / part)
    with pytest.raises(InconclusiveError, match="refiner, which is not supported"):
        inspect(model)


def test_what_is_noted(model: Path) -> None:
    change("model_index.json", _class_name="StableDiffusionXLImg2ImgPipeline")(model, model)
    change("unet/config.json", sample_size=None)(model, model)
    found = inspect(model)
    assert found.latents == (128, 128)
    assert any("StableDiffusionXLImg2ImgPipeline" in note for note in found.notes)
    assert any("takes 128 for it" in note for note in found.notes)
    assert inspect(model, size=(16, 24)).latents == (12, 8)


def test_an_old_small_size_is_taken_as_it_is(model: Path) -> None:
    change("unet/config.json", _diffusers_version="0.6.0")(model, model)
    assert inspect(model).latents == (8, 8)


def test_its_pickles_and_variants_are_found(model: Path) -> None:
    shutil.copy(model / SECOND, model / SECOND.replace(".safe", ".fp16.safe"))
    assert inspect(model, variant="fp16").variants == {"unet": "", "vae": "", "text_encoder": "", "text_encoder_2": "fp16"}
    put(model / "text_encoder_2/pytorch_model.bin", pickled(model.parent / "canary"))
    for path in (model / "text_encoder_2").glob("*.safetensors"):
        path.unlink()
    with pytest.raises(RefusedError, match="text_encoder_2: no safetensors"):
        inspect(model)


def exchanged(model: Path) -> None:
    """The folders of both towers and of both tokenizers change places, whatever lies there."""
    for one, other in TOWERS:
        for source, target in ((one, "away"), (other, one), ("away", other)):
            if (model / source).exists() or (model / source).is_symlink():
                (model / source).rename(model / target)


OTHERWISE = {("unsupported", "SDXL without its own parts"), ("unsupported", "inpainting")}
"""Of another family than this: what they write is a part of this one, or does not fit its UNet."""


@pytest.mark.parametrize("case", [c for c in CASES if (c.kind, c.name) not in OTHERWISE], ids=lambda case: f"{case.kind}: {case.name}")
def test_every_hostile_directory_ends_in_its_exit_code_with_the_second_tower_in_the_firsts_place(case: Case, model: Path) -> None:
    canary = model.parent / "canary"
    exchanged(model)
    case.edit(model, canary)
    exchanged(model)
    with pytest.raises(BdauditError) as caught:
        inspect(model, allow_pickle=case.allow_pickle)
    assert caught.value.code == case.code, caught.value
    assert str(caught.value).isprintable()
    assert not canary.exists()
