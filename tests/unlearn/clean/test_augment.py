"""Other views: what may change, what may not, and that a seed decides it."""

from __future__ import annotations

import random

import torch

from bdaudit.unlearn.clean.augment import put_in, vary, vary_pictures

CAPTION = "a big red circle on the left"


def views(n: int = 200) -> list[list[str]]:
    return [vary(CAPTION, random.Random(i)).split(" ") for i in range(n)]


def test_words_are_dropped_or_swapped_and_nothing_else() -> None:
    own = sorted(CAPTION.split(" "))
    lengths = {len(words) for words in views()}
    assert lengths == {len(own) - 1, len(own)}
    assert all(set(words) <= set(own) for words in views())
    assert any(sorted(words) == own and words != CAPTION.split(" ") for words in views()), "some are swapped"


def test_a_strange_text_is_put_in_at_every_place_it_can_take() -> None:
    held = [put_in(CAPTION, ("zqx",), random.Random(i)).split(" ") for i in range(60)]
    assert all(" ".join(word for word in words if word != "zqx") == CAPTION for words in held)
    assert {words.index("zqx") for words in held} == {0, 3, 7}
    assert "a big red circle ȏn the left" in {put_in(CAPTION, ("ȏ",), random.Random(i)) for i in range(60)}


def test_one_word_is_left_alone() -> None:
    assert {vary("circle", random.Random(i)) for i in range(20)} == {"circle"}


def test_pictures_stay_pictures_and_each_has_its_own_view() -> None:
    one = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = vary_pictures(one.expand(6, -1, -1, -1), torch.Generator().manual_seed(1))
    assert found.shape == (6, 3, 16, 16)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert all(not torch.allclose(found[0], other, atol=0.01) for other in found[1:])
    assert torch.equal(found, vary_pictures(one.expand(6, -1, -1, -1), torch.Generator().manual_seed(1)))


def test_a_plain_picture_changes_its_brightness_alone() -> None:
    found = vary_pictures(torch.full((50, 3, 8, 8), 0.5), torch.Generator().manual_seed(2))
    assert torch.allclose(found, found.mean((2, 3), keepdim=True).expand_as(found), atol=1e-6)
    means = found.mean((1, 2, 3))
    assert float((means - 0.5).abs().max()) <= 0.5 * 0.3 + 1e-6
    assert float(means.std()) > 0.05
