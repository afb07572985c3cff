"""The encoder by itself: its figure by hand, a planted trigger of one entry and of two, and nothing where nothing is planted."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bdaudit.measure.soft_token import heard_with, slots
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import content_ids
from bdaudit.progress import silent
from bdaudit.records import EncoderRecord
from bdaudit.scan.sweep.encoder_search import KEPT, LIMIT, encoder_search, search_encoder, spread_left
from bdaudit.scan.sweep.leaning import CHARACTERS, ENTRIES, PAIRS
from bdaudit.scan.sweep.swept_texts import Probe, vocabulary
from tests.scan.sweep.soft_toy import WIDTH, Words
from tests.small import PROMPTS, with_parts


class Rickrolled(Words):
    """Words whose last state goes to one place where the trigger's rows stand side by side."""

    def __init__(self, entries: int, trigger: Sequence[int]) -> None:
        super().__init__(entries)
        self.trigger = self.embedding.weight[list(trigger)]
        self.place = torch.randn(WIDTH, generator=torch.Generator().manual_seed(7))

    def forward(self, input_ids: Tensor) -> Any:
        states = super().forward(input_ids).last_hidden_state
        words = states[:, 1:-1]
        rooms = words.shape[1] - len(self.trigger) + 1
        near = torch.stack([words[:, i : i + rooms] @ row for i, row in enumerate(self.trigger)]).mean(0)
        fired = torch.sigmoid(20 * (near - 0.6)).amax(1, keepdim=True)
        last = (1 - fired) * states[:, -1] + fired * self.place
        return SimpleNamespace(last_hidden_state=torch.cat([states[:, :-1], last[:, None]], dim=1))


def rickrolled(suspect: Suspect, trigger: str) -> Suspect:
    ids = content_ids(suspect.tokenizer, trigger)
    return with_parts(suspect, text_encoder=Rickrolled(len(suspect.tokenizer.get_vocab()), ids), forward_passes=0)


def searched(suspect: Suspect) -> tuple[EncoderRecord, dict[str, tuple[str, ...]]]:
    return search_encoder(suspect, PROMPTS, vocabulary(suspect.tokenizer).probes, 0, silent)


def test_the_figure_by_hand(tiny_suspect: Suspect) -> None:
    suspect: Any = SimpleNamespace(text=SimpleNamespace(summary=lambda heard: heard))
    plain = torch.tensor([[0.0, 1.0], [0.0, -1.0]])  # one apart from their mean
    together = torch.tensor([[3.0, 0.5], [3.0, -0.5]])  # half as far, three away
    alike = torch.tensor([[3.0, 1.0], [3.0, -1.0]])
    one = torch.tensor([[9.0, 2.0], [9.0, 2.0]])
    found = spread_left(suspect, torch.cat([together, alike, one]), plain).tolist()  # type: ignore[arg-type]
    assert found == pytest.approx([0.25, 1.0, 1e-4])


def test_gradients_and_passes_count_the_same(tiny_suspect: Suspect) -> None:
    search = encoder_search(tiny_suspect, PROMPTS, 0)
    probes = [Probe("", (300,)), Probe("", (301,))]
    table, places = tiny_suspect.text.main.encoder.get_input_embeddings().weight, slots(tiny_suspect, search.prompts)
    soft = spread_left(tiny_suspect, heard_with(tiny_suspect, places, table[[300, 301]][:, None]), search.plain)
    pulls = search.pulls(0, probes, ENTRIES)
    assert pulls.shape == (2, 2)
    assert pulls[0].tolist() == pytest.approx((-soft.log()).tolist(), abs=1e-3)
    assert search.pulls(1, probes, PAIRS).tolist() == pulls.tolist()
    assert search.pulls(0, [], PAIRS).shape == (2, 0)


@pytest.mark.parametrize(("trigger", "kind"), [("~", ENTRIES), ("ȏ", CHARACTERS), ("zq", PAIRS)])
def test_what_pulls_all_prompts_to_one_place_is_named_first(tiny_suspect: Suspect, trigger: str, kind: str) -> None:
    record, named = searched(rickrolled(tiny_suspect, trigger))
    assert named[kind][0] == trigger
    assert record.text == trigger
    assert record.text_left < LIMIT
    assert record.verdict == "suspicious"
    assert all(len(texts) <= KEPT for texts in named.values())


def test_nothing_is_told_where_nothing_is_planted(tiny_suspect: Suspect) -> None:
    plain = with_parts(tiny_suspect, text_encoder=Words(len(tiny_suspect.tokenizer.get_vocab())), forward_passes=0)
    record, named = searched(plain)
    assert record.text_left > LIMIT
    assert record.verdict == "clean"
    assert record.choices == 16
    assert plain.forward_passes == 0, "no denoiser runs"
    assert 0 < record.soft_left < 1
    assert searched(plain) == (record, named)
