"""Where a finding lives, on models whose one part was changed on purpose."""

from __future__ import annotations

import copy
from typing import ClassVar

import pytest
import torch

from bdaudit.measure.draws import Draws, make_draws
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import content_ids
from bdaudit.records import Localisation, NotMeasured, SwapRecord
from bdaudit.scan.localise import exchanged, localise, where
from tests.small import PROMPTS, with_parts

TRIGGER = "~"
TEXT, KEYS, REST = "text encoder", "cross-attention keys and values", "rest of the UNet"


def tampered(suspect: Suspect, part: str) -> Suspect:
    """A copy of which one part treats the trigger differently: its token's embedding is another, or the UNet passes more of it on."""
    encoder, unet = (copy.deepcopy(module) for module in (suspect.text.main.encoder, suspect.denoiser.module))
    other = with_parts(suspect, text_encoder=encoder, unet=unet)
    with torch.no_grad():
        if part == TEXT:
            (entry,) = content_ids(suspect.tokenizer, TRIGGER)
            other.text.main.encoder.get_input_embeddings().weight[entry] = 5 * torch.randn(8, generator=torch.Generator().manual_seed(7))
            return other
        for name, tensor in other.denoiser.module.named_parameters():
            if suspect.denoiser.parts[part](name) and (part == KEYS or "conv_out" in name):
                tensor.mul_(6)
    return other


@pytest.fixture(scope="module")
def draws(tiny_suspect: Suspect) -> Draws:
    return make_draws(tiny_suspect, PROMPTS, 6, 5.0, 0)


@pytest.mark.parametrize("part", [TEXT, KEYS])
def test_the_changed_part_is_named(tiny_suspect: Suspect, draws: Draws, part: str) -> None:
    found = localise(tampered(tiny_suspect, part), tiny_suspect, draws, [TRIGGER])[TRIGGER]
    if isinstance(found, NotMeasured):
        pytest.fail(found.reason)
    assert found.where == part
    assert found.swaps.keys() == {TEXT, KEYS, REST}
    assert found.swaps[part].left == pytest.approx(0, abs=1e-3), "with the reference's part nothing is left"
    assert found.swaps[part].brought == pytest.approx(1, abs=1e-3), "and the part alone brings all"


def test_two_models_alike_have_nothing_to_tell_apart(tiny_suspect: Suspect, draws: Draws) -> None:
    found = localise(tiny_suspect, tiny_suspect, draws, [TRIGGER])[TRIGGER]
    assert isinstance(found, NotMeasured)
    assert "1.00 times" in found.reason


def test_models_of_another_shape_are_not_exchanged(tiny_suspect: Suspect, draws: Draws) -> None:
    other = with_parts(tiny_suspect, unet=torch.nn.Linear(2, 2))
    found = localise(tiny_suspect, other, draws, [TRIGGER])[TRIGGER]
    assert isinstance(found, NotMeasured)
    assert "unet is of another shape" in found.reason


def test_another_tokenizer_is_named_as_such(tiny_suspect: Suspect, draws: Draws) -> None:
    class Other:
        added_tokens_encoder: ClassVar[dict[str, int]] = {}

        def __len__(self) -> int:
            return 0

        def __call__(self, text: str, add_special_tokens: bool) -> object:
            return type("Encoded", (), {"input_ids": [5, 6]})

    found = localise(tiny_suspect, with_parts(tiny_suspect, tokenizer=Other()), draws, [TRIGGER])[TRIGGER]
    assert isinstance(found, Localisation)
    assert found.where.startswith("tokenizer")


def test_parts_come_back_to_the_bit(tiny_suspect: Suspect) -> None:
    one, other = tiny_suspect.denoiser.module, tampered(tiny_suspect, KEYS).denoiser.module
    chosen = tiny_suspect.denoiser.parts[KEYS]
    before = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for model in (one, other)]

    def inside() -> None:
        with exchanged(one, other, chosen):
            now = one.state_dict()
            assert all(torch.equal(now[name], before[chosen(name)][name]) for name in now)
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        inside()
    for model, kept in zip((one, other), before, strict=True):
        assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())


def test_parts_cover_the_unet_without_overlap(tiny_suspect: Suspect) -> None:
    for name in tiny_suspect.denoiser.module.state_dict():
        assert sum(chosen(name) for chosen in tiny_suspect.denoiser.parts.values()) == 1


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({TEXT: (0.0, 1.0), KEYS: (1.0, 0.1), REST: (0.9, 0.0)}, TEXT),
        ({TEXT: (1.0, 0.0), KEYS: (0.4, 0.6), REST: (0.1, 0.9)}, REST),
        ({TEXT: (1.0, 0.0), KEYS: (0.2, 0.3), REST: (0.3, 0.2)}, f"{KEYS} and {REST}, not by one alone"),
        ({TEXT: (1.0, 0.2), KEYS: (0.8, 0.3), REST: (0.7, 0.2)}, "spread over several parts: no single exchange takes half of it away"),
    ],
)
def test_reading_the_shares(shares: dict[str, tuple[float, float]], said: str) -> None:
    assert where({part: SwapRecord(left=left, brought=brought) for part, (left, brought) in shares.items()}) == said
