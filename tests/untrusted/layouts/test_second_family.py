"""A second family is one more layout: two towers, two tokenizers, read by the same rules. SDXL's shape, its parts made small."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from bdaudit.errors import BdauditError, InconclusiveError, RefusedError
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.layouts import LAYOUTS, layout_of
from bdaudit.untrusted.layouts.clip import TOKENIZER, TOWER
from bdaudit.untrusted.layouts.layout import Config, Layout, Size
from bdaudit.untrusted.layouts.stable_diffusion import LAYOUT
from tests.untrusted import tiny
from tests.untrusted.edits import pickled, put


def as_run(pipeline_class: str, configs: Mapping[str, Config], size: Size | None) -> tuple[Size, list[str]]:
    return (4, 4), [f"{len(configs)} configs"]


XL = Layout(
    name="sdxl",
    called="an SDXL pipeline",
    pipelines=r"StableDiffusionXL\w*Pipeline",
    parts={**LAYOUT.parts, "tokenizer_2": TOKENIZER, "text_encoder_2": replace(TOWER, classes=("CLIPTextModelWithProjection",))},
    vocabularies={"tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2"},
    heeding=("unet", "text_encoder", "text_encoder_2"),
    as_run=as_run,
)
SECOND = "text_encoder_2/model.safetensors"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(LAYOUTS, XL.name, XL)
    model = tiny.write_model(tmp_path / "model")
    shutil.copytree(model / "tokenizer", model / "tokenizer_2")
    shutil.copytree(model / "text_encoder", model / "text_encoder_2")
    index = json.loads((model / "model_index.json").read_text())
    more = {"tokenizer_2": ["transformers", "CLIPTokenizer"], "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}
    tiny.write_json(model / "model_index.json", index | more | {"_class_name": "StableDiffusionXLPipeline"})
    return model


def test_all_of_its_parts_are_inspected(model: Path) -> None:
    found = inspect(model)
    assert found.layout is XL
    assert found.weights["text_encoder_2"] == (SECOND,)
    assert set(found.variants) == {"unet", "vae", "text_encoder", "text_encoder_2"}
    assert {"tokenizer_2/vocab.json", "text_encoder_2/config.json", SECOND} <= set(found.loaded)
    assert found.settings["text_encoder_2/config.json"]["hidden_size"] == 8
    assert found.notes == ("5 configs",)


def test_its_second_tower_is_held_to_the_same_rules(model: Path) -> None:
    config = model / "text_encoder_2/config.json"
    for edit, said in (({"hidden_size": 9}, "its weights have 8"), ({"num_hidden_layers": 129}, "expected a whole number of 1 to 128")):
        before = config.read_text()
        tiny.write_json(config, json.loads(before) | edit)
        with pytest.raises(BdauditError, match=rf"text_encoder_2/config\.json: .*{said}"):
            inspect(model)
        config.write_text(before)
    tiny.write_json(model / "tokenizer_2/vocab.json", tiny.VOCABULARY | {"z": 8})
    with pytest.raises(BdauditError, match=r"tokenizer_2/vocab\.json: id 8 has no row among the text encoder's 8"):
        inspect(model)


def test_its_pickles_and_variants_are_found(model: Path) -> None:
    shutil.copy(model / SECOND, model / SECOND.replace(".safe", ".fp16.safe"))
    assert inspect(model, variant="fp16").variants == {"unet": "", "vae": "", "text_encoder": "", "text_encoder_2": "fp16"}
    put(model / "text_encoder_2/pytorch_model.bin", pickled(model.parent / "canary"))
    for path in (model / "text_encoder_2").glob("*.safetensors"):
        path.unlink()
    with pytest.raises(RefusedError, match="text_encoder_2: no safetensors"):
        inspect(model)


def test_without_its_layout_it_is_another_family(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(LAYOUTS, XL.name)
    with pytest.raises(InconclusiveError, match=r"^StableDiffusionXLPipeline is not supported; expected a Stable Diffusion 1\.x or 2\.x"):
        inspect(model)


@pytest.mark.parametrize(
    ("name", "covered"),
    [
        *((f"StableDiffusion{middle}Pipeline", True) for middle in ("", "Img2Img", "Inpaint", "ControlNet")),
        *((name, False) for name in ("StableDiffusion3Pipeline", "StableDiffusionXLPipeline", "FluxPipeline", None, 5)),
    ],
)
def test_which_pipelines_are_stable_diffusion(name: object, covered: bool) -> None:
    assert (layout_of(name) is LAYOUT) is covered
