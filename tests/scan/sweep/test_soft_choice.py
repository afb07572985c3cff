"""Soft choices: a choice that is all one entry is that entry; what is asked for is found and named; special entries never weigh."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bdaudit.measure.soft_token import Objective, embeddings, heard_with, slots
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.suspect import Suspect
from bdaudit.scan.sweep.soft_choice import drawn, moved
from tests.small import PROMPTS


def towards(suspect: Suspect, *entries: int) -> Objective:
    """An objective whose largest value, 0, is where the states are those of the entries."""
    rows = embeddings(suspect)[list(entries)][None]
    target = heard_with(suspect, slots(suspect, PROMPTS, len(entries)), rows).states.detach()
    return lambda heard: -(torch.unflatten(heard.states, 0, (-1, len(target))) - target).square().mean((1, 2, 3))


def test_a_start_is_a_choice_of_no_special_entry_and_follows_from_its_seed(tiny_suspect: Suspect) -> None:
    logs = drawn(tiny_suspect, 3, 2, seed=1)
    assert logs.shape == (3, 2, 514)
    assert torch.allclose(logs.exp().sum(-1), torch.ones(3, 2))
    assert logs[..., tiny_suspect.tokenizer.all_special_ids].exp().sum() == 0
    assert torch.equal(drawn(tiny_suspect, 3, 2, seed=1), logs)
    assert not torch.equal(drawn(tiny_suspect, 3, 2, seed=2), logs)


@pytest.mark.parametrize("entries", [(97,), (97, 353)])
def test_what_is_asked_for_is_named(tiny_suspect: Suspect, entries: tuple[int, ...]) -> None:
    places, wanted = slots(tiny_suspect, PROMPTS, len(entries)), towards(tiny_suspect, *entries)
    start = drawn(tiny_suspect, 4, len(entries), seed=0)
    table = embeddings(tiny_suspect)
    before = wanted(heard_with(tiny_suspect, places, start.exp() @ table))
    found = moved(tiny_suspect, places, wanted, start, steps=30)
    assert (found.values > before).all()
    best = found.logs[found.values.argmax()]
    for slot, entry in zip(best, entries, strict=True):
        assert entry in slot.topk(5).indices.tolist()
    assert found.logs[..., tiny_suspect.tokenizer.all_special_ids].exp().sum() == 0


def test_choices_moved_together_end_where_each_ends_alone(fresh_suspect: Suspect) -> None:
    places, start = slots(fresh_suspect, PROMPTS, 1), drawn(fresh_suspect, 3, 1, seed=0)
    told: list[tuple[int, int]] = []

    def run() -> Tensor:
        return moved(fresh_suspect, places, towards(fresh_suspect, 97), start, steps=4, progress=lambda s, i, n: told.append((i, n))).logs

    together = run()
    fresh_suspect.batch_size = 4
    assert torch.allclose(run().exp(), together.exp(), atol=1e-3)
    assert told[-1] == (12, 12)


def test_what_a_gpu_cannot_hold_is_halved(fresh_suspect: Suspect) -> None:
    places, start = slots(fresh_suspect, PROMPTS, 1), drawn(fresh_suspect, 4, 1, seed=0)
    easy = towards(fresh_suspect, 97)
    sizes: list[int] = []

    def crowded(heard: Conditioning) -> Tensor:
        sizes.append(len(heard) // len(PROMPTS))
        if sizes[-1] > 2:
            raise torch.cuda.OutOfMemoryError("full")
        return easy(heard)

    whole = moved(fresh_suspect, places, easy, start, steps=2)
    fresh_suspect.batch_size = 16
    found = moved(fresh_suspect, places, crowded, start, steps=2)
    assert torch.allclose(found.logs.exp(), whole.logs.exp(), atol=1e-3)
    assert (sizes, fresh_suspect.batch_size) == ([4, *[2] * 6], 8)
    fresh_suspect.batch_size = 4

    def hopeless(heard: Conditioning) -> Tensor:
        raise torch.cuda.OutOfMemoryError("full")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        moved(fresh_suspect, places, hopeless, start, steps=2)
