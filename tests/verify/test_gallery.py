"""Each picture is drawn once and encoded once, and an interrupted drawing keeps what it has."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from bdaudit.verify.gallery import Gallery, Shot
from tests.verify import toy

SHOTS = [Shot(prompt, seed) for seed in range(3) for prompt in toy.PROMPTS[:4]]


class Painter:
    """The toy's clean model, counting; ``fail_at`` stops it before that picture."""

    def __init__(self, fail_at: int = 10**9) -> None:
        self.drawn, self.fail_at = 0, fail_at

    def __call__(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        if self.drawn + len(texts) > self.fail_at:
            raise KeyboardInterrupt
        self.drawn += len(texts)
        return toy.draw("clean", texts, seeds)


def test_nothing_is_drawn_or_encoded_twice() -> None:
    grader, painter = toy.ColourGrader(), Painter()
    gallery = Gallery(grader)
    heard: list[tuple[int, int]] = []
    gallery.add([*SHOTS, *SHOTS], painter, 5, lambda done, total: heard.append((done, total)))
    gallery.add(SHOTS[:3], painter, 5, lambda done, total: heard.append((done, total)))
    assert painter.drawn == 12
    assert heard == [(5, 12), (10, 12), (12, 12)]
    for _ in range(3):
        gallery.features(SHOTS, grader)
        gallery.distances(SHOTS[:5], SHOTS[5:10])
    assert grader.seen == 12


def test_order_and_chunks_change_nothing() -> None:
    one, other = Gallery(None), Gallery(None)
    one.add(SHOTS, Painter(), 5, lambda *_: None)
    other.add(SHOTS[::-1], Painter(), 1, lambda *_: None)
    assert torch.equal(one.pictures(SHOTS), other.pictures(SHOTS))


def test_what_was_drawn_before_an_interrupt_stays() -> None:
    gallery = Gallery(None)
    with pytest.raises(KeyboardInterrupt):
        gallery.add(SHOTS, Painter(fail_at=8), 4, lambda *_: None)
    again = Painter()
    gallery.add(SHOTS, again, 4, lambda *_: None)
    assert again.drawn == 4


def test_distances_by_hand() -> None:
    grader = toy.ColourGrader()
    with_grader, without = Gallery(grader), Gallery(None)
    for gallery in (with_grader, without):
        gallery.add(SHOTS, Painter(), 12, lambda *_: None)
    a, b = without.pictures(SHOTS[:1])[0], without.pictures(SHOTS[1:2])[0]
    assert without.distances(SHOTS[:1], SHOTS[1:2]).item() == pytest.approx(float((a - b).abs().mean()))
    x, y = grader.image_features(torch.stack([a, b]))
    assert with_grader.distances(SHOTS[:1], SHOTS[1:2]).item() == pytest.approx(1 - float(x @ y), abs=1e-6)
    assert with_grader.distances(SHOTS, SHOTS).abs().max() < 1e-6
