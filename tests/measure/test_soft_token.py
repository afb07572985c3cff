"""Soft tokens: a row that is an entry's is that entry; bounds hold; what is asked for is found; the model is left as it was."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from bdaudit.measure.soft_token import PLACES, embeddings, heard_with, project, radius, slots
from bdaudit.measure.splicing import halves
from bdaudit.models.suspect import Suspect
from tests.small import LENGTH, PROMPTS


def entries(suspect: Suspect, *ids: int) -> Tensor:
    return embeddings(suspect)[list(ids)].detach()


@pytest.mark.parametrize("rows", [(5,), (5, 4), (4, 5, 6)])
def test_an_entry_is_its_rows_of_all_readers_that_have_it_side_by_side(rows: tuple[int, ...]) -> None:
    tables = [torch.randn(count, 2 + i) for i, count in enumerate(rows)]

    def encoder(table: Tensor) -> SimpleNamespace:
        return SimpleNamespace(get_input_embeddings=lambda: SimpleNamespace(weight=table))

    readers = [SimpleNamespace(encoder=encoder(table)) for table in tables]
    found = embeddings(SimpleNamespace(text=SimpleNamespace(alike=readers)))  # type: ignore[arg-type]
    assert torch.equal(found, torch.cat([table[: min(rows)] for table in tables], dim=1))
    assert (found is tables[0]) == (len(rows) == 1), "of one reader the table itself, through which gradients go"


@pytest.mark.parametrize("ids", [(300,), (40, 41, 42)])
def test_rows_of_entries_are_those_entries_and_the_model_stays_as_it_was(tiny_suspect: Suspect, ids: tuple[int, ...]) -> None:
    tokenizer = tiny_suspect.tokenizer
    places = slots(tiny_suspect, PROMPTS, len(ids))
    rows = torch.stack([entries(tiny_suspect, *ids), entries(tiny_suspect, *ids[::-1])])
    before = tiny_suspect.encode(PROMPTS).states
    states = torch.unflatten(heard_with(tiny_suspect, places, rows).states, 0, (2, len(PROMPTS)))
    assert states.shape == (2, len(PROMPTS), LENGTH, 8)
    for token, order in zip(states, (ids, ids[::-1]), strict=True):
        for i, prompt in enumerate(PROMPTS):
            start, end = halves(tokenizer, prompt, PLACES[i % len(PLACES)])
            alone = tiny_suspect.encode_ids(tiny_suspect.text.spliced(start, order, end))
            assert torch.allclose(token[i], alone.states[0], atol=1e-5)
    assert torch.equal(tiny_suspect.encode(PROMPTS).states, before)


def test_a_prompt_that_leaves_no_room_loses_its_end(tiny_suspect: Suspect) -> None:
    places = slots(tiny_suspect, ["a red cat", "~" * 99], 2)
    assert places.ids.by_reader[0].shape == (2, LENGTH)
    assert places.at[1].tolist() == [LENGTH - 3, LENGTH - 2]
    assert heard_with(tiny_suspect, places, torch.ones(1, 2, 8)).states.isfinite().all()


def test_project_draws_back_only_what_has_left_the_ball() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    assert torch.allclose(project(rows, 1.0), torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))


def test_the_bound_is_that_of_all_but_the_longest_entries(tiny_suspect: Suspect) -> None:
    norms = embeddings(tiny_suspect).norm(dim=1)
    assert 0.98 <= float((norms <= radius(tiny_suspect)).float().mean()) < 1.0
