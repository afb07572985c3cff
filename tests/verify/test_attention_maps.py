"""The trigger's attention is a share over the picture, of its own tokens alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bdaudit.models.load import load
from bdaudit.models.suspect import Suspect
from bdaudit.untrusted.inspect import inspect
from bdaudit.verify.attention_maps import _rows, coloured, trigger_attention
from bdaudit.verify.gallery import Gallery, Shot


@pytest.fixture(scope="module")
def suspect(pipeline: Path) -> Suspect:
    return load(inspect(pipeline), device="cpu")


def test_shares_of_the_trigger_and_of_the_rest_add_up(suspect: Suspect) -> None:
    clean, changed = Shot("a red cat", 7), Shot("a red cat zqx", 7)
    maps = trigger_attention(suspect, [(clean, changed), (changed, changed), (Shot("", 7), changed)], 4, 1.0)
    assert maps.shape == (3, 8, 8)
    assert maps[1].abs().max() == 0, "a text has nothing that it has not itself"
    assert (maps[2] > maps[0]).all(), "all words take more than one of them"
    assert maps.min() >= 0
    assert maps.max() <= 1


@pytest.mark.parametrize(
    ("latent", "places", "rows"), [((8, 8), 64, 8), ((6, 4), 24, 6), ((6, 4), 6, 3), ((9, 64), 160, 5), ((9, 64), 16, 2), ((3, 16), 4, 1)]
)
def test_maps_have_the_rows_of_their_layer(latent: tuple[int, int], places: int, rows: int) -> None:
    assert _rows((4, *latent), places) == rows


def test_a_picture_that_is_not_square_has_such_a_map(pipeline: Path) -> None:
    wide = load(inspect(pipeline, size=(24, 16)), device="cpu")
    assert trigger_attention(wide, [(Shot("a cat", 1), Shot("a cat zqx", 1))], 2, 1.0).shape == (1, 8, 12)


def test_recording_leaves_the_model_as_it_was(suspect: Suspect) -> None:

    before = [layer.processor for layer in [site.module for site in suspect.denoiser.sites().values()]]
    trigger_attention(suspect, [(Shot("a cat", 1), Shot("a cat zqx", 1))], 2, 5.0)
    assert [layer.processor for layer in [site.module for site in suspect.denoiser.sites().values()]] == before


def test_maps_are_kept_and_come_back(tmp_path: Path) -> None:
    pair, maps = (Shot("a", 1), Shot("b", 1)), torch.rand(1, 4, 4)
    first = Gallery(None, tmp_path, ("model",))
    assert first.recall_maps([pair]) == [pair]
    first.add_maps([pair], maps)
    second = Gallery(None, tmp_path, ("model",))
    assert second.recall_maps([pair]) == []
    assert torch.equal(second.maps([pair]), maps)


def test_colours_run_from_black_to_white() -> None:
    colours = coloured(torch.tensor([[[0.0, 0.1, 0.2, 0.3]]]), 0.3)[0, :, 0].T
    assert torch.allclose(colours, torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]), atol=1e-5)
