"""What a method changes in a step, and what it asks."""

from __future__ import annotations

from itertools import islice

import torch

from bdaudit.models.suspect import Suspect
from bdaudit.scan.exposure import methods
from bdaudit.scan.exposure.methods import METHODS, NOTHING, drawn
from tests.scan.exposure.test_copy import part_of


def test_an_empty_row_is_kept_under_the_empty_prompt(fresh_suspect: Suspect) -> None:
    part = part_of(fresh_suspect, "UNet")
    rows = drawn(part, 32, torch.Generator().manual_seed(0))
    empty = rows.captions == part.captions
    assert empty.sum() == 32 // NOTHING
    assert int(rows.latents.max()) < part.latents


def test_pruning_takes_the_channels_that_captions_move_most(fresh_suspect: Suspect) -> None:
    part = part_of(fresh_suspect, "UNet")
    (name, layer), *_ = methods._linear(part).items()
    moved = methods._moved(part, {name: layer}, 0)[name]
    assert moved.shape == (layer.out_features,)
    for _ in islice(METHODS["pruning"](part, 0), 7):
        pass
    gone = (layer.weight == 0).all(1).nonzero().flatten()
    assert gone.tolist() == [int(moved.argmax())], "one channel in eight after seven steps of 2 %"
    part.patch.revert()
