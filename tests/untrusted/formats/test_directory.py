"""What a directory's index and configs say, and which of it a library is given."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted.formats.directory import components
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.rules import Findings
from tests.untrusted import tiny
from tests.untrusted.edits import change


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "model")


def test_another_architecture_is_inconclusive_even_without_our_folders(model: Path) -> None:
    index = {"_class_name": "HunyuanDiTPipeline", "transformer": ["diffusers", "HunyuanDiT2DModel"]}
    tiny.write_json(model / "model_index.json", index)
    shutil.rmtree(model / "unet")
    with pytest.raises(InconclusiveError, match="HunyuanDiTPipeline"):
        inspect(model)


def test_tokenizers_of_both_formats(model: Path) -> None:
    tokenizer = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": tiny.VOCABULARY, "merges": ["a b", "a b</w>"]}}
    tiny.write_json(model / "tokenizer/tokenizer.json", tokenizer)
    assert not inspect(model).notes
    (model / "tokenizer/vocab.json").unlink()
    (model / "tokenizer/merges.txt").unlink()
    assert "tokenizer/tokenizer.json" in inspect(model).loaded


def test_settings_seen_in_the_wild(model: Path) -> None:
    change("tokenizer/tokenizer_config.json", model_max_length=10**30, special_tokens_map_file="./special_tokens_map.json", init_inputs=[])(
        model, model
    )
    change("scheduler/scheduler_config.json", lambda_min_clipped=-float("inf"), trained_betas=[0.1] * 1000, set_alpha_to_one=False)(
        model, model
    )
    change("text_encoder/config.json", eos_token_id=49407, _name_or_path="/home/me/out", torch_dtype="float16", projection_dim=768)(
        model, model
    )
    change("unet/config.json", layers_per_block=[1], transformer_layers_per_block=[1], num_class_embeds=None, auto_map=None)(model, model)
    change("model_index.json", _name_or_path="runwayml/stable-diffusion-v1-5", requires_safety_checker=True)(model, model)
    inspect(model)


def test_odd_keys_are_noted_and_no_library_is_given_them(model: Path) -> None:
    change("unet/config.json", global_step=8000, trainer={"lr": 1})(model, model)
    change("tokenizer/tokenizer_config.json", made_by="me")(model, model)
    change("model_index.json", tags=["anime", "style"])(model, model)
    found = inspect(model)
    said = "that are not known, and that nothing was built with"
    assert {f"settings in unet/config.json {said}: global_step, trainer", f"settings in model_index.json {said}: tags"} <= set(found.notes)
    assert f"settings in tokenizer/tokenizer_config.json {said}: made_by" in found.notes
    assert set(found.settings["unet/config.json"]) == set(tiny.UNET) - {"_class_name"}
    assert not {"made_by", "tokenizer_class"} & set(found.settings["tokenizer/tokenizer_config.json"])
    assert "tags" not in found.components


@pytest.mark.parametrize(("padding", "fits"), [(0, True), (1, True), (8, True), (9, False), (4096, False), ([1, 1], False), (True, False)])
def test_padding_on_the_way_down(model: Path, padding: object, fits: bool) -> None:
    change("unet/config.json", downsample_padding=padding)(model, model)
    if fits:
        assert inspect(model).settings["unet/config.json"]["downsample_padding"] == padding
        return
    with pytest.raises(BdauditError, match=r"unet/config\.json: downsample_padding is .*; expected a whole number of 0 to 8; set what"):
        inspect(model)


def test_components_are_a_library_and_a_class() -> None:
    found = Findings()
    index = {
        "_class_name": "X",
        "unet": ["diffusers", "A"],
        "vae": [None, None],
        "tags": ["anime", "style"],
        "size": [1, 2, 3],
        "other": None,
    }
    assert components(index, {"unet", "vae", "other"}, found) == {"unet": ("diffusers", "A")}
    assert (found.refused, found.damaged) == ([], [])


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        (["evil", "Evil"], True),
        (["diffusers", "a.B"], True),
        (["stable_diffusion", "B"], True),
        ("diffusers", False),
        (["diffusers"], False),
    ],
)
def test_components_of_elsewhere_are_refused_and_others_damage(value: object, refused: bool) -> None:
    found = Findings()
    assert components({"unet": value}, {"unet"}, found) == {}
    assert (len(found.refused), len(found.damaged)) == (refused, not refused)


def test_a_safety_checker_has_a_library_of_its_own() -> None:
    index = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    assert components(index, {"safety_checker"}, Findings()) == {"safety_checker": ("stable_diffusion", "StableDiffusionSafetyChecker")}


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "LatentConsistencyModelPipeline"])
def test_pipelines_that_are_run_alike(name: str, model: Path) -> None:
    change("model_index.json", _class_name=name)(model, model)
    found = inspect(model)
    assert found.pipeline_class == name
    assert any(f"names a {name}" in note for note in found.notes) is (name != "StableDiffusionPipeline")


@pytest.mark.parametrize("name", ["Flux2Pipeline", "HunyuanDiTPipeline", "LatentConsistencyPipeline", "DiffusionPipeline"])
def test_pipelines_that_are_not(name: str, model: Path) -> None:
    change("model_index.json", _class_name=name)(model, model)
    with pytest.raises(InconclusiveError, match=f"{name}.* is not supported; expected a Stable Diffusion"):
        inspect(model)
