"""The settings that were published: told by sizes alone, whole, and never taken for a model of other sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted import rules
from bdaudit.untrusted.formats import reference_settings
from bdaudit.untrusted.formats.directory import open_directory
from bdaudit.untrusted.formats.reference_settings import REFERENCES, Reference, bundled, fitting, written
from bdaudit.untrusted.formats.single_file import Held, OneFile, held
from bdaudit.untrusted.formats.weight_files import WeightSet
from bdaudit.untrusted.safetensors_header import Header, TensorInfo
from tests.untrusted import one_file

SD1, SD2 = REFERENCES["stable-diffusion"]
(SDXL,) = REFERENCES["sdxl"]


def header_of(reference: Reference, spelling: Any, more_layers: int = 0) -> Header:
    """The header of a checkpoint of that model in one file, of the stock classes' own tensors, none of which is made."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    configs = {path.split("/")[0]: dict(config) for path, config in reference.configs.items()}
    configs["text_encoder"]["num_hidden_layers"] += more_layers
    with torch.device("meta"):
        models: dict[str, Any] = {
            "unet": UNet2DConditionModel.from_config(configs["unet"]),
            "vae": AutoencoderKL.from_config(configs["vae"]),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**configs["text_encoder"])),
        }
        if "text_encoder_2" in configs:
            models["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig(**configs["text_encoder_2"]))
    tensors, begin = {}, 0
    for part, model in models.items():
        own = {name: tensor for name, tensor in model.state_dict().items() if "position_ids" not in name}
        for name, tensor in one_file.stored(own, part, *spelling[part]).items():
            tensors[name] = TensorInfo("F16", tuple(tensor.shape), begin)
            begin += 2 * tensor.numel()
    return Header(b"", tensors, {})


def opened(header: Header) -> tuple[OneFile, Held]:
    file = OneFile("model.safetensors", bundled(SD1, {}), "model.safetensors", header)
    return file, held([file], reference_settings.LAYERS)


@pytest.mark.parametrize(
    ("reference", "spelling", "more_layers"),
    [(SD1, one_file.SD1, 0), (SD2, one_file.SD2, 1), (SD2, one_file.SD2, 0), (SDXL, one_file.SDXL, 0)],
    ids=["Stable Diffusion 1", "Stable Diffusion 2", "Stable Diffusion 2 without its last layer", "Stable Diffusion XL"],
)
def test_a_checkpoint_of_the_published_sizes_needs_no_settings(reference: Reference, spelling: Any, more_layers: int) -> None:
    file, found = opened(header_of(reference, spelling, more_layers))
    assert fitting(found, "it") is reference
    sets = {part: WeightSet("", {file.key: {name: piece.info for name, piece in of.items()}}) for part, of in found.parts.items()}
    findings = rules.Findings()
    directory = open_directory(bundled(reference, {"prediction_type": "epsilon"}), findings, elsewhere=sets)
    findings.settle()
    assert directory.latents == ((128, 128) if reference is SDXL else (64, 64))
    assert found.leftovers == {}
    assert not any(directory.unknown.values())


def test_other_sizes_are_not_guessed() -> None:
    header = header_of(SD1, one_file.SD1)
    wide = {
        name: TensorInfo("F16", (320, 9, 3, 3)) if name.endswith("input_blocks.0.0.weight") else t for name, t in header.tensors.items()
    }
    with pytest.raises(InconclusiveError, match="in_channels is 4, its weights have 9"):
        fitting(opened(Header(b"", wide, {}))[1], "it")


@pytest.mark.parametrize("reference", [SD1, SD2], ids=lambda reference: reference.called)
def test_the_tokenizer_pads_as_the_published_one_does(reference: Reference, tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    for path, content in written(reference, {}).items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    ids = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")("a cat", padding="max_length").input_ids
    assert ids == [49406, 320, 2368, 49407, *[{SD1.called: 49407, SD2.called: 0}[reference.called]] * 73]


def test_what_is_not_there_is_missing() -> None:
    with pytest.raises(BdauditError, match=r"nowhere\.json is missing"):
        bundled(SD1, {}).open("nowhere.json")
