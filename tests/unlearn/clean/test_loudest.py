"""What an encoder answers: figures by hand, the order, and a text that stands out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import token_ids
from bdaudit.unlearn.clean import loudest
from bdaudit.unlearn.clean.loudest import _stands_out, heard, listened, loudest_first, moved, nothing_stands_out
from bdaudit.unlearn.clean.towers import Towers
from tests.unlearn.clean.test_train import CAPTIONS, material_of, towers_of

TEXTS = ("x", "y", "~", "z", "xy")


class Backdoored(Towers):
    """Adds ``push`` to all states of texts that hold a tilde."""

    push = 100.0
    mark = 0

    def states(self, ids: torch.Tensor) -> torch.Tensor:
        return super().states(ids) + self.push * (ids == self.mark).any(1).float()[:, None, None]


def backdoored(suspect: Suspect) -> Backdoored:
    found = Backdoored(suspect.text.main.encoder, int(suspect.tokenizer.eos_token_id))
    found.mark = int(token_ids(suspect.tokenizer, ["~"])[0, 1])
    return found


def test_the_text_that_moves_the_encoder_most_comes_first(fresh_suspect: Suspect) -> None:
    found = loudest_first(backdoored(fresh_suspect), material_of(fresh_suspect), TEXTS, CAPTIONS[:3])
    assert found[0] == "~"
    assert sorted(found) == sorted(TEXTS)


def test_the_unit_is_the_captions_variance(fresh_suspect: Suspect) -> None:
    towers, material = backdoored(fresh_suspect), material_of(fresh_suspect)
    with torch.no_grad():
        states = towers.states(material.ids(CAPTIONS[:4]))
    apart = float((states - states.mean(0)).square().mean())
    found = moved(towers, material, TEXTS, CAPTIONS[:4])
    assert found.shape == (5, 4)
    assert found[2].tolist() == pytest.approx([100.0**2 / apart] * 4, rel=0.05)
    assert torch.equal(found[[3, 2]], moved(towers, material, ("z", "~"), CAPTIONS[:4])), "each by itself"


def test_the_loudest_come_as_often_as_all_others(fresh_suspect: Suspect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loudest, "LOUDEST", 2)
    material = replace(material_of(fresh_suspect), strange=list("abcdefgh"))
    found = heard(material, list("hgfedcba")).strange
    assert {text: found.count(text) for text in "abcdefgh"} == dict.fromkeys("abcdef", 1) | dict.fromkeys("gh", 5)


def test_a_text_that_still_does_something_is_named(fresh_suspect: Suspect) -> None:
    towers, material = backdoored(fresh_suspect), replace(material_of(fresh_suspect), strange=TEXTS)
    assert listened(towers, material)[0] == "~"
    check = nothing_stands_out(towers, material)
    assert check.status == "failed"
    assert "'~' (U+007E)" in check.reason
    assert "--trigger" in check.reason


def test_no_such_text_passes(fresh_suspect: Suspect, monkeypatch: pytest.MonkeyPatch) -> None:
    towers, material = towers_of(fresh_suspect), replace(material_of(fresh_suspect), strange=TEXTS)
    before = nothing_stands_out(towers, material)
    monkeypatch.setattr(loudest, "MAX_MOVED", before.value.high + 1e-6)  # type: ignore[union-attr]
    assert nothing_stands_out(towers, material).status == "passed"
    monkeypatch.setattr(loudest, "MAX_MOVED", before.value.high - 1e-6)  # type: ignore[union-attr]
    undecided = nothing_stands_out(towers, material)
    assert undecided.status == "undecided", "the interval's ends decide"
    assert "give more --pairs" in undecided.reason
    monkeypatch.setattr(loudest, "MAX_MOVED", before.value.low - 1e-6)  # type: ignore[union-attr]
    assert nothing_stands_out(towers, material).status == "failed"


@pytest.mark.parametrize(("share", "status"), [(1.0, "passed"), (1.001, "failed")])
def test_what_a_text_may_move_captions_by(fresh_suspect: Suspect, monkeypatch: pytest.MonkeyPatch, share: float, status: str) -> None:
    towers, material = towers_of(fresh_suspect), material_of(fresh_suspect)
    monkeypatch.setattr(loudest, "moved", lambda towers, material, texts, captions: torch.full((len(texts), len(captions)), share))
    assert nothing_stands_out(towers, material).status == status


def test_all_held_out_captions_are_used_where_the_first_do_not_decide(fresh_suspect: Suspect, monkeypatch: pytest.MonkeyPatch) -> None:
    towers, material = towers_of(fresh_suspect), replace(material_of(fresh_suspect), strange=TEXTS)
    n = len(material.held)
    assert n > 4
    monkeypatch.setattr(loudest, "HEARD", 4)
    first = _stands_out(towers, material, listened(towers, material), 4).value
    for bound, used in ((first.high + 1e-6, 4), (first.low - 1e-6, 4), (first.value, n)):  # type: ignore[union-attr]
        monkeypatch.setattr(loudest, "MAX_MOVED", bound)
        assert nothing_stands_out(towers, material).value.n == used  # type: ignore[union-attr]
