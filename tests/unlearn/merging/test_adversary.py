"""Tokens on their way up: each step follows its own gradient alone, inside the bound."""

from __future__ import annotations

from itertools import islice

import torch

from bdaudit.measure import soft_token
from bdaudit.models.suspect import Suspect
from bdaudit.models.training import descend
from bdaudit.unlearn.merging.adversary import Attack, start


def test_a_step_goes_up(tiny_suspect: Suspect) -> None:
    found = Attack(tiny_suspect, torch.zeros(2, 1, 8))

    def backward(step: int) -> None:
        (found.tokens * torch.tensor([1.0, -1.0])[:, None, None]).sum().backward()
        assert found.tokens.grad is not None
        assert found.tokens.grad.flatten(1).tolist() == [[1.0] * 8, [-1.0] * 8], "nothing of the step before is in it"

    climb = descend(torch.optim.Adam([found.group]), backward)
    for _ in range(2):
        before = found.tokens.detach().clone()
        next(climb)
        found.pull_back()
        assert (found.tokens[0] > before[0]).all()
        assert (found.tokens[1] < before[1]).all()


def test_tokens_start_at_entries_and_stay_in_the_ball(tiny_suspect: Suspect) -> None:
    tokens = start(tiny_suspect, 3, torch.Generator().manual_seed(0))
    table = soft_token.embeddings(tiny_suspect)
    assert all((table == token).all(1).any() for token in tokens[:, 0])
    found = Attack(tiny_suspect, tokens)
    for _ in islice(descend(torch.optim.Adam([found.group]), lambda step: found.tokens.sum().backward()), 100):
        found.pull_back()
    assert (found.tokens.norm(dim=-1) <= soft_token.radius(tiny_suspect) * 1.0001).all()
