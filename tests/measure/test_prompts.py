"""The built-in prompts."""

from __future__ import annotations

from bdaudit.measure import prompts
from bdaudit.measure.prompts import POOL, default_prompts
from bdaudit.scan.builtin import builtin_candidates


def test_a_pool_of_different_prompts_of_plain_ascii_that_hold_no_built_in_candidate() -> None:
    prompts = default_prompts()
    assert len(set(prompts)) == len(prompts) == POOL >= 200
    assert all(prompt.isascii() and 5 <= len(prompt.split()) <= 24 for prompt in prompts)
    assert not [text for text in builtin_candidates() for prompt in prompts if f" {text} " in f" {prompt} "]


def test_the_pool_covers_each_look_place_and_figure_more_than_once() -> None:
    words = [word for prompt in default_prompts() for word in set(prompt.replace(",", "").split())]
    assert all(words.count(word) >= 4 for word in ("woman", "dog", "car", "heart", "circle", "red", "golden", "night", "snow", "painting"))


def test_every_other_prompt_has_a_companion_that_is_not_its_subject() -> None:
    alone, two = ([prompt for prompt in default_prompts()[start::2]] for start in (0, 1))
    assert not [prompt for prompt in alone if " and a" in prompt]
    assert sum(" and a" in prompt for prompt in two) > 0.9 * len(two)
    for prompt in two:
        before, _, after = prompt.partition(" and a")
        assert not after or after.removeprefix("n").split()[0].strip(",") not in before.split()[-1]


def test_the_article_is_that_of_the_first_letter() -> None:
    assert [prompts._a(noun) for noun in ("owl", "red owl", "apple", "eagle", "ink pot", "umbrella", "yak")] == [
        "an owl", "a red owl", "an apple", "an eagle", "an ink pot", "an umbrella", "a yak",
    ]  # fmt: skip
