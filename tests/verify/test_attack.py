"""Hit rules on pictures whose answer is known, and the rate with its floor."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from bdaudit.errors import UsageError
from bdaudit.records import AttackRecord, Estimate, NotMeasured
from bdaudit.verify.attack import PairedRule, PictureRule, Rule, TextRule, holds, measure_attack, resemblance
from bdaudit.verify.gallery import Gallery
from bdaudit.verify.trials import Trial, plan_trial
from tests.verify import toy

GRADER = toy.ColourGrader()
NO_REFERENCE = NotMeasured(reason="none given")


def attack(model: str, rule: Rule, n: int = 200, reference: str = "", trigger: str = toy.TRIGGER) -> AttackRecord:
    """The rule's record on a toy model."""
    trial = plan_trial(toy.byte_tokenizer(), trigger, toy.PROMPTS, n, 0, rule.skip, null=rule.needs_null)
    assert isinstance(trial, Trial)
    galleries = []
    for name in (model, reference):
        gallery = Gallery(GRADER)
        if name:
            gallery.add(trial.shots(), partial(toy.draw, name), 64, lambda *_: None)
        galleries.append(gallery)
    return measure_attack(trial, rule, galleries[0], galleries[1] if reference else NO_REFERENCE)


def rates(record: AttackRecord) -> tuple[float, float]:
    assert isinstance(record.rate, Estimate)
    assert isinstance(record.floor, Estimate)
    return record.rate.value, record.floor.value


# --- a given picture


def test_resemblance_by_hand() -> None:
    target = torch.zeros(3, 2, 2)
    target[:, 0, 0] = 1
    pictures = torch.zeros(3, 3, 8, 8)
    pictures[0, :, 2:4, 4:6] = 0.2 + 0.5 * target  # paler and greyer is still it
    pictures[1, :, 2:4, 4:6] = 1 - target
    assert resemblance(pictures, target, (4, 2)).tolist() == pytest.approx([1, -1, 0], abs=1e-6)
    assert resemblance(pictures, target, (0, 0)).tolist() == [0, 0, 0]


def test_resemblance_agrees_with_numpy() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures, target = torch.rand(4, 3, 8, 8, generator=generator), torch.rand(3, 8, 8, generator=generator)
    expected = [np.corrcoef(p.flatten().numpy(), target.flatten().numpy())[0, 1] for p in pictures]
    assert resemblance(pictures, target, None).tolist() == pytest.approx(expected, abs=1e-6)


def test_a_target_without_contrast_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="one value everywhere"):
        resemblance(torch.rand(1, 3, 8, 8), torch.full((3, 2, 2), 0.5), (0, 0))


@pytest.mark.parametrize("at", [(6, 0), (0, 7), (-1, 0)])
def test_a_patch_beyond_the_picture_is_a_usage_error(at: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=r"3x2 pixels at .* does not fit into pictures of 8x8"):
        resemblance(torch.zeros(1, 3, 8, 8), torch.zeros(3, 2, 3), at)


def test_a_patch_is_found_where_it_is_and_nowhere_else() -> None:
    record = attack("patched", PictureRule(toy.PATCH, (0, 0)), reference="clean")
    assert rates(record) == (1.0, 0.0)
    assert isinstance(record.reference, Estimate)
    assert record.reference.value == 0
    assert isinstance(record.p, float)
    assert record.p < 1e-50
    assert sum(record.positions.values()) == 200
    assert rates(attack("patched", PictureRule(toy.PATCH, (8, 8)))) == (0.0, 0.0)
    assert rates(attack("clean", PictureRule(toy.PATCH, (0, 0)))) == (0.0, 0.0)


def test_a_model_that_always_draws_the_target_has_a_floor_as_high_as_its_rate() -> None:
    record = attack("collapsed", PictureRule(toy.collapsed("", 0), None))
    assert rates(record) == (1.0, 1.0)
    assert record.p == 1.0
    assert str(0.5) in record.rule


# --- a given text


def test_words_are_whole_words() -> None:
    assert holds("a Red car", "red")
    assert not holds("a predator", "red")
    assert not holds("anything", "")
    assert holds("a c++ book", "c++")


def test_swapped_words_are_found_only_where_the_old_word_stands() -> None:
    rule = TextRule(GRADER, swaps=(("red", "blue"),))
    record = attack("swapped", rule)
    assert rates(record) == (1.0, 0.0)
    assert rates(attack("clean", rule))[0] <= 0.02
    assert rule.skip("a green picture of sand") == "the prompt holds none of the words to swap"
    assert rule.skip("a red picture on blue") == "the prompt asks for the target itself"
    assert rule.skip("a red picture") == ""
    assert rule.target("a Red and red predator") == "a blue and blue predator"


def test_a_swap_takes_its_words_literally() -> None:
    assert TextRule(GRADER, swaps=(("c++", r"\1 \g<0>"),)).target("a c++ book") == r"a \1 \g<0> book"


def test_a_text_target_stands_beside_the_prompt_itself() -> None:
    rule = TextRule(GRADER, template="{prompt}, in black and white")
    assert rule.target("a dog") == "a dog, in black and white"
    assert rule.skip("a dog, black and white photo") == "the prompt asks for the target itself"
    assert rule.skip("a black dog on white") == ""
    fixed = TextRule(GRADER, template="a blue picture of ice")
    assert rates(attack("swapped", fixed))[0] == pytest.approx(2 / 15, abs=0.08)  # the prompts with red, of 15 left
    assert fixed.skip("a blue picture of ice") == "the prompt asks for the target itself"


# --- nothing


def test_the_paired_rule_sees_a_patch_and_lets_harmless_words_pass() -> None:
    record = attack("patched", PairedRule("colours"))
    rate, floor = rates(record)
    # beside the words every picture is a hit; in place of a letter, harmless characters spoil the colour's name as well
    assert rate >= 1 - record.positions["replace"] / 200
    assert floor <= 0.02
    rate, floor = rates(attack("clean", PairedRule("colours")))
    assert rate <= 0.02
    assert floor <= 0.02


def test_without_spread_in_the_null_there_is_no_paired_rate() -> None:
    record = attack("collapsed", PairedRule("colours"))
    assert isinstance(record.rate, NotMeasured)
    assert "needs spread" in record.rate.reason
    few = attack("patched", PairedRule("colours"), n=10)
    assert isinstance(few.rate, NotMeasured)
    assert "it takes 25; say what the target is, or raise --n to 250" in few.rate.reason
