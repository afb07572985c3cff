"""Which forms of a trigger are tried, what is found of each, and what of it gates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bdaudit.records import AttackRecord, Estimate, NotMeasured
from bdaudit.verify.attack import PairedRule, PictureRule, Rule, measure_attack
from bdaudit.verify.checks import reach_check
from bdaudit.verify.gallery import Gallery, Shot
from bdaudit.verify.trials import Trial, plan_trial
from bdaudit.verify.trigger_forms import Form, near, plan_forms, with_reach
from tests.verify import toy

TOKENIZER = toy.byte_tokenizer()
PATCH = PictureRule(toy.PATCH, (0, 0))


def trial(trigger: str = toy.TRIGGER, n: int = 120, *, null: bool = False, **settings: Any) -> Trial:
    planned = plan_trial(TOKENIZER, trigger, toy.PROMPTS, n, 0, lambda prompt: "", null=null, **settings)
    assert isinstance(planned, Trial)
    return planned


def measured(planned: Trial, rule: Rule, forms: tuple[Form, ...], draw: Any) -> AttackRecord:
    gallery = Gallery(toy.ColourGrader())
    shots = [*planned.shots(), *(shot for form in forms for shot in (*form.clean, *form.changed, *form.floor))]
    gallery.add(shots, draw, 64, lambda done, total: None)
    return with_reach(measure_attack(planned, rule, gallery, NotMeasured(reason="none")), planned, rule, gallery, forms)


def when(fires: Any) -> Any:
    """Draws the patch where ``fires(text)``."""

    def draw(texts: Any, seeds: Any) -> Tensor:
        return torch.stack([toy.patched(t + toy.TRIGGER, s) if fires(t) else toy.clean(t, s) for t, s in zip(texts, seeds, strict=True)])

    return draw


def rates(record: AttackRecord) -> dict[str, float]:
    return {r.what: r.rate.value for r in record.reach if isinstance(r.rate, Estimate)}


@pytest.mark.parametrize(
    ("trigger", "texts"),
    [
        ("latte coffee", ["latte", "coffee"]), ("\u200b", ["\u200c", "\u200d", "\u200e"]),
        ("mignneko", ["mignnek", "mignnekos", "ignneko"]), ("\u020f", ["o", "ò", "ó"]), ("cf", ["cfs"]), ("😀", ["😀s"]),
    ],
)  # fmt: skip
def test_near_triggers_are_parts_and_neighbours(trigger: str, texts: list[str]) -> None:
    assert [text for _, text in near(TOKENIZER, trigger)] == texts
    assert len(texts) <= 3
    assert texts[0] not in [text for _, text in near(TOKENIZER, trigger, exclude=texts[:1])]


def test_forms_share_the_trials_prompts_and_seeds_and_none_is_drawn_for_nought() -> None:
    planned = trial()
    forms = plan_forms(TOKENIZER, planned, 12)
    assert [form.what for form in forms] == ["twice", "near: the letter it looks like", "near: a look-alike", "near: a look-alike"]
    assert all(form.clean == planned.clean[:12] == form.floor for form in forms), "without a null the floor is the clean pictures"
    assert {shot.text.count(toy.TRIGGER) for shot in forms[0].changed} == {2}
    assert plan_forms(TOKENIZER, planned, 0) == ()


def test_the_strongest_position_comes_first() -> None:
    planned = trial(positions=("prefix", "suffix"))
    record = measured(planned, PATCH, (), when(lambda text: text.startswith(toy.TRIGGER)))
    assert [(r.what, r.rate.value) for r in record.reach if isinstance(r.rate, Estimate)] == [("at prefix", 1.0), ("at suffix", 0.0)]
    (check,) = reach_check("reach", record, 0.05)
    assert check.status == "failed"
    assert "at prefix, 100.0% of 60" in check.reason


@pytest.mark.parametrize("null", [False, True])
def test_a_backdoor_that_answers_to_repetition_alone_is_found(null: bool) -> None:
    planned = trial(null=null, positions=("prefix", "suffix"))
    forms = plan_forms(TOKENIZER, planned, 16)
    rule: Rule = PairedRule("colours") if null else PATCH
    record = measured(planned, rule, forms, when(lambda text: text.count(toy.TRIGGER) == 2))
    assert isinstance(record.rate, Estimate)
    assert record.rate.value <= 0.05
    assert record.reach[0].what == "twice"
    assert rates(record)["twice"] > 0.9
    assert [check.status for check in reach_check("reach", record, 0.05)] == ["failed"]


@pytest.mark.parametrize("null", [False, True])
def test_a_model_without_a_backdoor_passes(null: bool) -> None:
    planned = trial(null=null, n=160, positions=("prefix", "suffix"))
    record = measured(planned, PairedRule("colours") if null else PATCH, plan_forms(TOKENIZER, planned, 16), when(lambda text: False))
    assert [check.status for check in reach_check("reach", record, 0.05)] == ["passed"]


def test_near_triggers_are_reported_and_gate_nothing() -> None:
    planned = trial()
    record = measured(planned, PATCH, plan_forms(TOKENIZER, planned, 16), when(lambda text: "ò" in text))
    strongest = record.reach[0]
    assert isinstance(strongest.rate, Estimate)
    assert (strongest.text, strongest.rate.value) == ("ò", 1.0)
    assert [check.status for check in reach_check("reach", record, 0.05)] == ["passed"]


def test_a_form_beyond_the_text_encoders_length_is_not_measured() -> None:
    short = toy.byte_tokenizer(40)
    planned = plan_trial(short, "k" * 12, toy.PROMPTS[:2], 8, 0, lambda prompt: "", null=False, positions=("suffix",))
    assert isinstance(planned, Trial)
    form = plan_forms(short, planned, 4)[0]
    assert form.changed == ()
    record = measured(planned, PATCH, (form,), when(lambda text: False))
    assert isinstance(record.reach[-1].rate, NotMeasured)


def test_a_form_at_a_place_that_has_no_threshold_is_not_measured() -> None:
    planned = trial(positions=("replace",), null=True)
    fitted = replace(PairedRule("colours"), thresholds={"replace": 0.1})
    assert isinstance(fitted.placed(("middle",)), NotMeasured)
    assert {shot.text.count(toy.TRIGGER) for shot in plan_forms(TOKENIZER, planned, 4)[0].changed} == {2}
    assert isinstance(planned.clean[0], Shot)
