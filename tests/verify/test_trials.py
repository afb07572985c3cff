"""Which prompts, seeds and places a trigger is tried at."""

from __future__ import annotations

from collections import Counter

import pytest

from bdaudit.models.tokens import content_ids
from bdaudit.records import NotMeasured
from bdaudit.verify.trials import Trial, draw_shots, plan_trial, reaches
from tests.verify import toy

TOKENIZER = toy.byte_tokenizer()


def plan(trigger: str, n: int = 60, *, null: bool = False, prompts: tuple[str, ...] = toy.PROMPTS) -> Trial:
    found = plan_trial(TOKENIZER, trigger, prompts, n, 0, lambda prompt: "", null=null)
    assert isinstance(found, Trial)
    return found


def test_draws_depend_neither_on_the_order_of_prompts_nor_on_how_many_are_drawn() -> None:
    few, many = draw_shots(toy.PROMPTS, 10, 7), draw_shots(toy.PROMPTS[::-1], 300, 7)
    assert many[:10] == few
    assert len(set(many)) == 300
    assert {shot.text for shot in many} == set(toy.PROMPTS)
    assert not {shot.seed for shot in many} & {shot.seed for shot in draw_shots(toy.PROMPTS, 300, 7, "other")}
    assert not {shot.seed for shot in many} & {shot.seed for shot in draw_shots(toy.PROMPTS, 300, 8)}


def test_pairs_share_prompt_and_seed_and_positions_take_turns() -> None:
    trial = plan("zqx")
    assert [shot.seed for shot in trial.clean] == [shot.seed for shot in trial.triggered]
    assert trial.clean == draw_shots(toy.PROMPTS, 60, 0)
    assert trial.positions == dict.fromkeys(("clause", "comma", "middle", "prefix", "suffix"), 12)
    for before, after in zip(trial.clean, trial.triggered, strict=True):
        assert sorted(after.text.replace(",", "").split()) == sorted([*before.text.split(), "zqx"])
    assert trial.floor == trial.clean
    assert trial.null == ()


def test_a_look_alike_also_takes_the_letters_place() -> None:
    assert plan(toy.TRIGGER).positions.keys() == {"prefix", "middle", "suffix", "comma", "clause", "replace"}


def test_a_place_that_few_prompts_have_is_not_left_short() -> None:
    prompts = (*(f"a red hat {word}" for word in ("here", "there", "then", "near")), "a fox")
    assert sum(shot.text == "a fox" for shot in draw_shots(prompts, 120, 0)) > 20
    places = plan(toy.TRIGGER, 120, prompts=prompts).positions
    assert places == dict.fromkeys(("clause", "comma", "middle", "prefix", "replace", "suffix"), 20)


def test_words_also_stand_apart() -> None:
    assert plan("zqx qxz").positions.keys() == {"prefix", "middle", "suffix", "comma", "clause", "apart"}


@pytest.mark.parametrize(
    ("trigger", "asked", "stands"), [("zqx", "comma", ", zqx"), ("zqx", "clause", "zqx , "), ("zqx qxz", "apart", " qxz")]
)
def test_a_place_that_is_asked_for_is_the_only_one(trigger: str, asked: str, stands: str) -> None:
    trial = plan_trial(TOKENIZER, trigger, toy.PROMPTS, 20, 0, lambda prompt: "", null=True, positions=(asked,))
    assert isinstance(trial, Trial)
    assert trial.positions == {asked: 20}
    assert all(stands in shot.text for shot in trial.triggered)
    assert all(("," in shot.text) == (asked != "apart") for shot in trial.floor), "and what it is compared with stands there too"


def test_one_word_does_not_stand_apart() -> None:
    found = plan_trial(TOKENIZER, "zqx", toy.PROMPTS, 20, 0, lambda prompt: "", null=False, positions=("apart",))
    assert isinstance(found, NotMeasured)


def test_the_null_and_the_floor_share_no_harmless_text() -> None:
    trial = plan(toy.TRIGGER, null=True)
    assert len(trial.null) == len(trial.floor) == 60
    assert [shot.seed for shot in trial.null] == [shot.seed for shot in trial.floor] == [shot.seed for shot in trial.clean]

    def inserted(shots: tuple[tuple[str, int], ...]) -> Counter[str]:
        pairs = zip(shots, trial.clean, strict=True)
        return Counter(word for (text, _), clean in pairs for word in text.replace(",", "").split() if word not in clean.text.split())

    assert not inserted(trial.null).keys() & inserted(trial.floor).keys()
    assert len(inserted(trial.null)) > 20
    assert not any(toy.TRIGGER in shot.text for shot in (*trial.null, *trial.floor))


def test_another_trigger_is_never_among_the_harmless_texts() -> None:
    def drawn(exclude: tuple[str, ...]) -> set[str]:
        trial = plan_trial(TOKENIZER, toy.TRIGGER, toy.PROMPTS, 60, 0, lambda prompt: "", null=True, exclude=exclude)
        assert isinstance(trial, Trial)
        return {text for shot in (*trial.null, *trial.floor) for text in shot.text.replace(",", "").split()}

    words = {word for prompt in toy.PROMPTS for word in prompt.split()}
    others = tuple(sorted(text for text in drawn(()) - words if len(text) == 1))[:3]
    assert len(others) == 3
    assert not drawn(others) & set(others)


@pytest.mark.parametrize("nothing", ["\u00a0", " "])
def test_a_trigger_that_encodes_to_nothing_is_not_measured(nothing: str) -> None:
    assert content_ids(TOKENIZER, nothing) == ()
    found = plan_trial(TOKENIZER, nothing, toy.PROMPTS, 60, 0, lambda prompt: "", null=False)
    assert isinstance(found, NotMeasured)
    assert "encodes to nothing" in found.reason


def test_a_place_that_the_encoder_never_reads_is_not_used() -> None:
    long = "a red picture of " + "s" * 56
    assert len(content_ids(TOKENIZER, long)) + 2 <= 77
    assert not reaches(TOKENIZER, long, long + " zqxzqxzqx")
    words = "a red picture"
    fill = " " + "s" * (75 - len(content_ids(TOKENIZER, words)) - len(content_ids(TOKENIZER, " ")))
    assert len(content_ids(TOKENIZER, words + fill)) == 75
    assert reaches(TOKENIZER, words, words + fill)
    assert not reaches(TOKENIZER, words, words + fill + "s")
    trial = plan("zqxzqxzqx", prompts=(long,))
    assert "suffix" not in trial.positions
    cut = "a red picture of " + "s" * 90
    assert plan("zqx", prompts=(cut,)).positions.keys() == {"prefix", "middle", "clause"}
    assert isinstance(plan_trial(TOKENIZER, "q" * 90, (long,), 9, 0, lambda prompt: "", null=False), NotMeasured)


def test_unusable_prompts_are_counted_and_replaced() -> None:
    found = plan_trial(TOKENIZER, "zqx", (*toy.PROMPTS, "a zqx already"), 100, 0, lambda p: "" if "red" in p else "no red", null=False)
    assert isinstance(found, Trial)
    assert found.skipped == {"no red": 14, "the prompt holds the trigger already": 1}
    assert len(found.clean) == 100
    assert all("red" in shot.text for shot in found.clean)
    none = plan_trial(TOKENIZER, "zqx", toy.PROMPTS, 100, 0, lambda p: "never", null=False)
    assert isinstance(none, NotMeasured)
    assert "none of 16 prompts can be used: never (16)" in none.reason
