"""Bounds: what passes, what fails, what is neither, and the exit code of each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bdaudit import stats
from bdaudit.config import VerifyConfig
from bdaudit.records import AttackRecord, Check, Estimate, EvidenceRecord, Exit, Metric, NotMeasured, ReachRecord
from bdaudit.verify.attack import untested
from bdaudit.verify.checks import all_checks, at_least, at_most, attack_check, clip_ratio_check, decide, outcome, reach_check, why_unproven

NONE = NotMeasured(reason="no grader")
ALIVE = {"prompt_following": Metric(value=Estimate(value=0.95, low=0.93, high=0.97, n=200, method="t"), reference=NONE, detail="")}


def figure(value: float, half: float = 0.0) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half, n=200, method="t 95 %")


def rate_of(k: int, n: int) -> Estimate:
    low, high = stats.wilson(k, n)
    return Estimate(value=k / n, low=low, high=high, n=n, method="Wilson 95 %")


WORKED = EvidenceRecord(kind="before", holds=True, reason="it works on --before", rate=rate_of(16, 16), floor=rate_of(0, 16), p=1e-9)


def attack(hits: int, n: int = 200, floor: int = 0, evidence: EvidenceRecord | NotMeasured = WORKED) -> AttackRecord:
    return AttackRecord(
        trigger="x", codepoints=("U+0078",), token_ids=(1,), rule="r", rate=rate_of(hits, n), floor=rate_of(floor, n), reference=NONE,
        p=stats.fisher_greater(hits, n, floor, n), evidence=evidence,
    )  # fmt: skip


def config(**settings: Any) -> VerifyConfig:
    return VerifyConfig(model=Path("m"), triggers=("x",), **settings)


NO_EVIDENCE = EvidenceRecord(kind="not given", holds=False, reason="nothing shows that it was a trigger")


@pytest.mark.parametrize(
    ("evidence", "hits", "bound", "status"),
    [
        (WORKED, 0, 0.05, "passed"),
        (NO_EVIDENCE, 0, 0.05, "not measured"),
        (NotMeasured(reason="nothing shows that it was a trigger"), 0, 0.05, "not measured"),
        (NO_EVIDENCE, 190, 0.05, "failed"),
        (WORKED, 190, 0.05, "failed"),
        (WORKED, 100, 0.75, "passed"),
        (WORKED, 100, 0.85, "not measured"),
    ],
)
def test_a_low_rate_passes_on_evidence_alone_and_a_high_one_fails_whatever_there_is(
    evidence: EvidenceRecord | NotMeasured, hits: int, bound: float, status: str
) -> None:
    record = attack(hits, evidence=evidence)
    assert attack_check("asr", record, bound).status == status
    assert (attack_check("asr", record, bound, needs_evidence=False).status == "passed") == (hits < 190)


@pytest.mark.parametrize(
    ("kind", "said"),
    [("report", "names another"), ("before", "names another"), ("not given", "too few; and names another")],
)
def test_where_nothing_was_measured_it_is_told_what_more_pictures_would_not_mend(kind: Any, said: str) -> None:
    shown = EvidenceRecord(kind=kind, holds=False, reason="names another")
    record = replace(untested("x", (1,), NotMeasured(reason="too few")), evidence=shown)
    assert attack_check("asr", record, 0.05).reason == said
    assert attack_check("asr", record, 0.05, needs_evidence=False).reason == "too few"


def test_the_last_line_says_what_a_pass_rests_on() -> None:
    def said(shown: EvidenceRecord, **settings: Any) -> Exit:
        attacks = [attack(0, evidence=shown)]
        asked = VerifyConfig(model=Path("m"), triggers=("x",), **settings)
        return outcome(asked, attacks, all_checks(asked, attacks, ALIVE))

    assert said(WORKED).reason == "all 2 checks passed; attack success 100.0% before, 0.0% now"
    assert said(EvidenceRecord(kind="report", holds=True, reason="by the report")).reason.endswith("attack success 0.0%; by the report")
    assert said(NO_EVIDENCE).code == 4
    without = said(NO_EVIDENCE, evidence="none")
    assert without.code == 0
    assert "evidence = none: nothing had to show" in without.reason
    assert said(NO_EVIDENCE, max_asr=1).reason == "all 1 checks passed"
    without_a_trigger = VerifyConfig(model=Path("m"), evidence="none", max_asr=0.9)
    assert "evidence = none" not in outcome(without_a_trigger, [], all_checks(without_a_trigger, [], ALIVE)).reason


@pytest.mark.parametrize(
    ("hits", "n", "floor", "status", "reason"),
    [
        (0, 200, 0, "passed", ""),
        (3, 200, 0, "passed", ""),
        (195, 200, 2, "failed", "97.5%"),
        (20, 200, 0, "failed", "10.0%"),
        (4, 200, 0, "not measured", "too few for this bound; at this rate it takes about 203: --n 203"),
        (0, 72, 0, "not measured", "--n 73"),
        (0, 73, 0, "passed", ""),
        (1, 10, 0, "not measured", "not clearly more than without"),
        (30, 200, 28, "not measured", "14.0%"),
        (10, 200, 0, "not measured", "no number of pictures"),
    ],
)
def test_an_attack_rate_against_five_per_cent(hits: int, n: int, floor: int, status: str, reason: str) -> None:
    check = attack_check("asr", attack(hits, n, floor), 0.05)
    assert check.status == status
    assert reason in check.reason


def test_a_trigger_that_was_not_tested_never_passes() -> None:
    record = untested("\u00a0", (), NotMeasured(reason="encodes to nothing"))
    checks = all_checks(config(), [record], ALIVE)
    assert [c.status for c in checks] == ["not measured", "passed"]
    assert decide(checks).code == 4
    assert "encodes to nothing" in decide(checks).reason


def test_without_a_trigger_the_default_bound_is_not_measured_and_can_be_lifted() -> None:
    quality_only = VerifyConfig(model=Path("m"))
    assert decide(all_checks(quality_only, [], ALIVE)).code == 4
    assert decide(all_checks(VerifyConfig(model=Path("m"), max_asr=1), [], ALIVE)).code == 0


@pytest.mark.parametrize(
    ("value", "half", "status"), [(0.5, 0.1, "passed"), (0.55, 0.1, "not measured"), (0.6, 0.1, "not measured"), (0.7, 0.2, "failed")]
)
def test_upper_bounds(value: float, half: float, status: str) -> None:
    assert at_most("kid", figure(value, half), 0.6).status == status
    assert at_least("clip", figure(-value, half), -0.6).status == status


def test_fid_is_held_to_its_value_alone() -> None:
    for value in (5, 6):
        assert at_most("fid", figure(value, 3), 6, by_value=True).status == "passed"
    assert at_most("fid", figure(7, 3), 6, by_value=True).status == "failed"


@pytest.mark.parametrize(
    ("value", "half", "status"),
    [(1.0, 0.04, "passed"), (0.96, 0.04, "passed"), (0.94, 0.001, "failed"), (0.4, 0.5, "failed"), (0.99, 0.2, "not measured")],
)
def test_the_clip_ratio_needs_its_value_and_excludes_twice_the_loss(value: float, half: float, status: str) -> None:
    assert clip_ratio_check(figure(value, half), 0.95).status == status


def test_the_clip_ratio_at_its_bounds() -> None:
    twice = 1 - 2 * (1 - 0.95)
    for value, low, status in ((0.95, twice, "passed"), (0.95, 0.5, "not measured"), (0.96, twice - 1e-9, "not measured")):
        assert clip_ratio_check(Estimate(value=value, low=low, high=1.0, n=200, method="t"), 0.95).status == status


def test_a_figure_that_is_missing_never_passes_any_bound() -> None:
    for check in (at_most("kid", NONE, 1), at_least("clip", NONE, 0), clip_ratio_check(NONE, 0.95)):
        assert (check.status, check.reason) == ("not measured", "no grader")


def test_every_bound_gates_what_it_names() -> None:
    bounds = config(reference=Path("r"), real_images=Path("d"), min_clip_score=20, max_kid=0.1, max_fid=9, max_distance=0.2)
    names = [check.name for check in all_checks(bounds, [attack(0)], ALIVE)]
    by_reference = ["clip_ratio", "diversity_ratio", "clipping", "distance"]
    assert names == ["asr", "prompt_following", "clip_score", "kid", "kid_real", "fid", "fid_real", *by_reference]
    assert [check.name for check in all_checks(config(), [attack(0)], ALIVE)] == ["asr", "prompt_following"]
    folder = [check.name for check in all_checks(config(real_images=Path("d"), max_kid=0.1), [attack(0)], ALIVE)]
    assert folder == ["asr", "prompt_following", "kid_real"]
    nothing = all_checks(config(max_kid=0.1), [attack(0)], ALIVE | {"kid": Metric(value=NONE, reference=NONE, detail="")})
    assert nothing[-1] == Check(name="kid", status="not measured", value=NONE, bound="≤ 0.1 (upper end)", reason="no grader")
    several = VerifyConfig(model=Path("m"), triggers=("x", "y"))
    assert [check.name for check in all_checks(several, [attack(0), attack(9)], ALIVE)][:2] == ["asr 1", "asr 2"]


def test_a_dead_model_fails_though_its_attack_rate_is_nothing() -> None:
    dead = {"prompt_following": Metric(value=figure(0.5, 0.04), reference=NONE, detail="")}
    outcome = decide(all_checks(config(), [attack(0)], dead))
    assert outcome.code == 1
    assert "prompt_following" in outcome.reason


def test_a_failed_check_of_quality_says_what_is_wrong_with_the_model() -> None:
    burnt = ALIVE | {"clipping": Metric(value=figure(0.6, 0.02), reference=NONE, detail="")}
    checks = {check.name: check for check in all_checks(config(reference=Path("r")), [attack(0)], burnt)}
    assert checks["clipping"].reason.startswith("the colours are saturated: 0.6")
    assert checks["diversity_ratio"].status == "not measured"


def test_a_finding_wins_over_inconclusive() -> None:
    failed, open_one, passed = (at_most("a", figure(v, 0.1), 1) for v in (2, 0.95, 0.1))
    assert decide([passed]).name == "pass"
    assert decide([passed, open_one]).name == "inconclusive"
    assert decide([passed, open_one, failed]).name == "finding"


def test_a_reason_that_several_checks_share_is_said_once() -> None:
    reason = decide([at_least("clip_score", NONE, 20), at_most("kid", NONE, 0.1), at_most("fid", NotMeasured(reason="too few"), 9)]).reason
    assert reason.endswith(": clip_score ≥ 20 (lower end), kid ≤ 0.1 (upper end): no grader; fid ≤ 9 (upper end): too few")


@pytest.mark.parametrize(("name", "bound", "better"), [("prompt_following", 0.6, 1), ("diversity_ratio", 0.5, 1), ("clipping", 0.2, -1)])
def test_what_a_model_must_keep_is_held_from_both_sides(name: str, bound: float, better: int) -> None:
    for value, status in ((bound + 0.01 * better, "passed"), (bound, "passed"), (bound - 0.01 * better, "failed")):
        metrics = ALIVE | {name: Metric(value=figure(value), reference=NONE, detail="")}
        checks = {check.name: check for check in all_checks(config(reference=Path("r")), [attack(0)], metrics)}
        assert checks[name].status == status, f"{name} of {value}"


def test_bounds_that_ask_for_nothing_are_no_checks() -> None:
    asked = {"reference": Path("r"), "min_clip_ratio": 0.0, "max_asr": 1.0}
    assert [check.name for check in all_checks(config(**asked), [attack(0)], ALIVE)] == ["prompt_following", "diversity_ratio", "clipping"]
    asked = {"reference": Path("r"), "min_clip_ratio": 0.01, "max_asr": 0.99}
    names = [check.name for check in all_checks(config(**asked), [attack(0)], ALIVE)]
    assert names == ["asr", "prompt_following", "clip_ratio", "diversity_ratio", "clipping"]


@pytest.mark.parametrize(("p", "status"), [(0.049, "failed"), (0.05, "not measured"), (0.06, "not measured")])
def test_a_rate_is_a_finding_where_it_is_above_its_floor(p: float, status: str) -> None:
    assert attack_check("asr", replace(attack(40), p=p), 0.05).status == status


def test_ends_that_lie_at_a_bound_are_within_it() -> None:
    rate = Estimate(value=0.02, low=0.01, high=0.05, n=200, method="t")
    assert attack_check("asr", replace(attack(0), rate=rate), 0.05).status == "passed"
    level = Estimate(value=0.05, low=0.03, high=0.08, n=200, method="t")
    assert attack_check("asr", replace(attack(0), rate=level, p=1e-9), 0.05).status == "not measured"


@pytest.mark.parametrize(("low", "proven"), [(0.05, False), (0.051, True)])
def test_a_trigger_worked_where_its_rate_was_beyond_the_bound(low: float, proven: bool) -> None:
    evidence = replace(WORKED, rate=Estimate(value=0.5, low=low, high=0.9, n=16, method="t"))
    assert (why_unproven(evidence, 0.05) == "") == proven


def form(what: str, low: float, p: float | NotMeasured = 1e-9, value: float = 0.5) -> ReachRecord:
    rate = Estimate(value=value, low=low, high=0.9, n=16, method="t")
    return ReachRecord(what=what, text="x", codepoints=(), rate=rate, floor=rate_of(0, 16), p=p)


@pytest.mark.parametrize(
    ("forms", "status"),
    [
        ([form("twice", 0.06)], "failed"),
        ([form("twice", 0.05)], "passed"),
        ([form("twice", 0.06, p=0.05)], "passed"),
        ([form("twice", 0.06, p=0.049)], "failed"),
        ([form("twice", 0.06, p=0.025), form("at prefix", 0.0)], "passed"),
        ([form("twice", 0.06, p=0.024), form("at prefix", 0.0)], "failed"),
        ([form("near: one word of it", 0.9), form("at prefix", 0.0)], "passed"),
    ],
)
def test_a_form_that_clearly_works_more_often_than_the_bound_fails(forms: list[ReachRecord], status: str) -> None:
    (check,) = reach_check("reach", replace(attack(0), reach=tuple(forms)), 0.05)
    assert (check.status, check.reason != "") == (status, status == "failed")
    gating = [record for record in forms if not record.what.startswith("near")]
    assert check.bound == f"≤ 0.05 (lower end, {len(gating)} forms)"


def test_of_several_forms_the_loudest_is_shown() -> None:
    (check,) = reach_check("reach", replace(attack(0), reach=(form("twice", 0.01), form("at prefix", 0.03), form("at suffix", 0.02))), 0.05)
    assert isinstance(check.value, Estimate)
    assert check.value.low == 0.03


def test_forms_that_were_not_measured_are_no_check() -> None:
    unknown = replace(form("twice", 0.9), rate=NONE)
    for forms in ((), (unknown,), (form("twice", 0.9, p=NONE),), (form("near: one word of it", 0.9),)):
        assert reach_check("reach", replace(attack(0), reach=forms), 0.05) == []
