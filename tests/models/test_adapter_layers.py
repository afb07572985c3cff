"""Which of a model's parts an adapter's name means, where families call them otherwise."""

from __future__ import annotations

import pytest
from torch import nn

from bdaudit.models.adapter_layers import Layers
from bdaudit.models.adapter_names import DENOISER, T5, Family, Key


class T5EncoderModel(nn.Linear):
    """By its name alone."""


class CLIPTextModel(nn.Linear):
    """By its name alone."""


FLUX = {"transformer": nn.Linear(2, 2), "text_encoder": CLIPTextModel(2, 2), "text_encoder_2": T5EncoderModel(2, 2)}
SDXL = {"unet": nn.Linear(2, 2), "text_encoder": CLIPTextModel(2, 2), "text_encoder_2": CLIPTextModel(2, 2)}


@pytest.mark.parametrize(
    ("model", "family", "component", "meant"),
    [
        (FLUX, "kohya", DENOISER, "transformer"),
        (SDXL, "kohya", DENOISER, DENOISER),
        (FLUX, "diffusers", DENOISER, DENOISER),
        (FLUX, "kohya", T5, "text_encoder_2"),
        (SDXL, "kohya", T5, T5),
        (FLUX, "diffusers", "text_encoder_2", "text_encoder_2"),
        (FLUX, "kohya", "text_encoder_2", "text_encoder_2, a CLIP"),
        (SDXL, "kohya", "text_encoder_2", "text_encoder_2"),
        (SDXL, "diffusers", "text_encoder_2", "text_encoder_2"),
    ],
)
def test_a_part_is_called_by_each_family_as_it_calls_it(model: dict[str, nn.Module], family: Family, component: str, meant: str) -> None:
    """What the tools of the original code call the second CLIP's is no layer of FLUX's T5, which diffusers calls ``text_encoder_2``."""
    key = Key(family, component, "layer", "down", alpha_elsewhere=False)
    assert Layers(model)._component(key) == meant
