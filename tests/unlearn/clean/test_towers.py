"""Where the pooled state lies, what counts as found, and that training leaves nothing behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bdaudit.measure import estimates
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import token_ids
from bdaudit.unlearn.clean.towers import Towers, Vision, ranked_first
from tests.small import PROMPTS


def of(suspect: Suspect, vision: Vision | None = None) -> Towers:
    return Towers(suspect.text.main.encoder, int(suspect.tokenizer.eos_token_id), vision)


def test_pooled_states_are_those_of_transformers(tiny_suspect: Suspect) -> None:
    ids = token_ids(tiny_suspect.tokenizer, PROMPTS)
    towers = of(tiny_suspect)
    with torch.no_grad():
        theirs = tiny_suspect.text.main.encoder(input_ids=ids).pooler_output
        assert torch.equal(towers.texts(ids, towers.states(ids)), theirs)
        projection = nn.Parameter(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), requires_grad=False)
        seeing = of(tiny_suspect, Vision(nn.Flatten(), projection, torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)))
        assert torch.allclose(seeing.texts(ids, seeing.states(ids)), theirs @ projection)


def test_pictures_are_normalised_before_the_tower_sees_them(tiny_suspect: Suspect) -> None:
    mean, std = torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.25)
    towers = of(tiny_suspect, Vision(nn.Flatten(), nn.Parameter(torch.eye(8)), mean, std))
    assert torch.equal(towers.pictures(torch.ones(2, 3, 2, 2)), torch.full((2, 12), 2.0))


def test_the_first_of_its_group_counts_and_a_tie_does_not() -> None:
    texts = torch.eye(4).repeat(2, 1)
    assert ranked_first(texts, texts, 4).all()
    assert not ranked_first(texts.flip(0), texts, 4).any()
    assert ranked_first(torch.eye(4), torch.eye(4)[[0, 0, 2, 3]], 4).tolist() == [False, False, True, True]
    assert not ranked_first(torch.ones(4, 3), torch.ones(4, 3), 4).any(), "a collapsed model finds nothing"
    assert estimates.rate(torch.tensor([True, False, True, True])).value == pytest.approx(0.75)


def test_groups_do_not_see_each_other() -> None:
    assert ranked_first(torch.eye(4), torch.eye(4)[[0, 1, 0, 3]], 2).tolist() == [True, True, False, True]
    assert ranked_first(torch.eye(4), torch.eye(4)[[0, 1, 0, 3]], 4).tolist() == [False, True, False, True]


def test_training_ends_without_gradients_and_a_snapshot_comes_back_to_the_bit(fresh_suspect: Suspect) -> None:
    towers = of(fresh_suspect)
    kept = towers.snapshot()
    with towers.training():
        ids = token_ids(fresh_suspect.tokenizer, PROMPTS)
        towers.states(ids).square().sum().backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for p in towers.parameters().values():
                assert p.grad is not None
                p.add_(1)
    assert not any(p.requires_grad or p.grad is not None for p in towers.parameters().values())
    towers.restore(kept)
    assert all(torch.equal(p, kept[name]) for name, p in towers.parameters().items())
