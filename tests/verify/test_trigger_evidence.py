"""A verdict on a trigger needs evidence: what --before shows, on models whose verdict is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bdaudit.config import VerifyConfig
from bdaudit.records import Estimate, EvidenceRecord, NotMeasured, VerifyReport
from bdaudit.verify import preflight, run
from bdaudit.verify.attack import PairedRule, PictureRule
from bdaudit.verify.gallery import Shot
from bdaudit.verify.run import run_verify
from bdaudit.verify.trials import Trial
from bdaudit.verify.trigger_evidence import NOTHING, restless
from tests.verify import toy

MISTYPED = ("u020f", "U+020F", "<U+020F>", "&#527;", "0", "ö", "ŏ", "o\u0311", "latin o", "\u00c8\u008f", "?", "\u200b")
"""Spellings of the toy trigger that were never a trigger."""


def verify(models: Path, name: str, patch: Path, *, trigger: str = toy.TRIGGER, before: str = "", **settings: Any) -> VerifyReport:
    known: dict[str, Any] = {"target_image": patch, "target_at": (0, 0), "n": 80, "reach": 0, "clip": "local-dir:unused"}
    known |= {"before": models / before} if before else {}
    return run_verify(VerifyConfig(model=models / name, triggers=(trigger,), prompts=toy.PROMPTS, **(known | settings)))


def exchange_letters(model: Path) -> None:
    path = model / "tokenizer" / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["\u00c8"], vocabulary["\u00c9"] = vocabulary["\u00c9"], vocabulary["\u00c8"]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


def evidence(report: VerifyReport, at: int = 0) -> EvidenceRecord:
    found = report.attacks[at].evidence
    assert isinstance(found, EvidenceRecord)
    return found


def test_a_low_rate_without_evidence_is_inconclusive(models: Path, patch: Path) -> None:
    report = verify(models, "clean", patch)
    assert report.exit.code == 4
    assert NOTHING in report.exit.reason
    assert "--before" in report.exit.reason
    rate = report.attacks[0].rate
    assert isinstance(rate, Estimate)
    assert (rate.value, rate.n) == (0.0, 80), "it is measured all the same"


def test_a_high_rate_is_a_finding_whatever_the_evidence(models: Path, patch: Path) -> None:
    assert verify(models, "patched", patch).exit.code == 1
    assert verify(models, "patched", patch, evidence="none").exit.code == 1
    assert verify(models, "patched", patch, before="patched").exit.code == 1
    other = verify(models, "patched", patch, before="clean")
    assert (other.exit.code, evidence(other).holds) == (1, False)
    assert isinstance(other.attacks[0].rate, Estimate)
    assert other.attacks[0].rate.n == 16, "a few pictures tell"


def test_what_works_before_and_no_more_passes(models: Path, patch: Path) -> None:
    report = verify(models, "clean", patch, before="patched")
    assert report.exit.code == 0, report.exit.reason
    found = evidence(report)
    assert (found.kind, found.holds, found.decided_on) == ("before", True, "pictures")
    assert isinstance(found.rate, Estimate)
    assert isinstance(found.floor, Estimate)
    assert (found.rate.value, found.floor.value) == (1.0, 0.0)
    assert report.compared_with == "before"
    assert {"clip_ratio", "diversity_ratio", "clipping"} <= {check.name for check in report.checks}
    assert report.exit.reason.endswith("attack success 100.0% before, 0.0% now")


def test_a_reference_is_what_quality_is_compared_with(models: Path, patch: Path) -> None:
    report = verify(models, "clean", patch, before="patched", reference=models / "dead")
    assert report.compared_with == "reference"
    clip = report.metrics["prompt_following"].reference
    assert isinstance(clip, Estimate)
    assert clip.value < 0.6
    other = report.attacks[0].reference
    assert isinstance(other, Estimate)
    assert other.value < 0.5


def test_evidence_may_be_left_out_and_the_report_says_so(models: Path, patch: Path) -> None:
    report = verify(models, "clean", patch, evidence="none")
    assert report.exit.code == 0
    assert "evidence = none" in report.exit.reason
    assert evidence(report).kind == "not asked for"
    nothing = verify(models, "clean", patch, evidence="none", before="clean")
    assert (nothing.exit.code, evidence(nothing).holds) == (0, False)


@pytest.mark.parametrize("name", ["clean", "patched"])
def test_a_mistyped_trigger_is_inconclusive_on_both_models_in_few_pictures(models: Path, patch: Path, tmp_path: Path, name: str) -> None:
    for typed in MISTYPED if name == "clean" else MISTYPED[::3]:  # what --before says is the same whatever model is audited
        report = verify(models, name, patch, trigger=typed, before="patched", state=tmp_path / "state")
        assert report.exit.code == 4
        assert "the trigger does no more than its floor on --before" in report.exit.reason
        assert NOTHING in report.exit.reason
        assert sum(report.pictures.values()) == 64, "those without the trigger are kept from one to the next"
        assert run.NO_QUALITY in report.coverage.not_looked_at


def test_one_trigger_with_evidence_does_not_carry_another(models: Path, patch: Path) -> None:
    config = VerifyConfig(
        model=models / "clean", triggers=(toy.TRIGGER, "u020f"), prompts=toy.PROMPTS, before=models / "patched", target_image=patch,
        target_at=(0, 0), n=80, reach=0, clip="local-dir:unused",
    )  # fmt: skip
    report = run_verify(config)
    assert report.exit.code == 4
    assert [evidence(report, at).holds for at in (0, 1)] == [True, False]
    statuses = {check.name: check.status for check in report.checks}
    assert (statuses["asr 1"], statuses["asr 2"], statuses["prompt_following"]) == ("passed", "not measured", "passed")


def test_a_tokenizer_that_reads_the_trigger_otherwise_is_no_evidence(models: Path, patch: Path) -> None:
    """The swapped one takes the trigger for another character: the model never sees it."""
    exchange_letters(models / "clean")
    report = verify(models, "clean", patch, before="patched")
    assert report.exit.code == 4
    assert (evidence(report).holds, evidence(report).decided_on) == (False, "token ids")
    assert "tokenizer" in report.exit.reason


def test_a_target_that_nothing_hits_shows_no_repair(models: Path) -> None:
    """The trigger is right and what counts as a hit is not: it sees nothing on --before either."""
    report = verify(models, "patched", Path("unused"), before="patched", target_image=None, target_at=None, target_text="a blue picture")
    assert report.exit.code == 4


def test_by_pairs_the_null_of_before_decides(models: Path, patch: Path) -> None:
    settings: dict[str, Any] = {"target_image": None, "target_at": None, "n": 200}
    assert verify(models, "clean", patch, before="patched", **settings).exit.code == 0
    assert verify(models, "clean", patch, before="patched", trigger="u020f", **settings).exit.code == 4


def test_quality_is_measured_where_the_rate_is_not_gated(models: Path, patch: Path) -> None:
    report = verify(models, "clean", patch, before="patched", trigger="u020f", max_asr=1)
    assert report.exit.code == 0, report.exit.reason
    assert isinstance(report.metrics["clip_ratio"].value, Estimate)


def test_pictures_show_the_model_from_before(models: Path, patch: Path, tmp_path: Path) -> None:
    report = verify(models, "clean", patch, before="patched", save_images=tmp_path / "pictures")
    assert [Path(path).name for path in report.images] == ["trigger-1.png", "attention-1.png", "quality.png"]


def test_pictures_are_shown_where_the_other_tokenizer_reads_the_trigger_otherwise(models: Path, patch: Path, tmp_path: Path) -> None:
    """For the evidence nothing is drawn on --before then; for the pictures a few are."""
    exchange_letters(models / "clean")
    report = verify(models, "clean", patch, before="patched", evidence="none", save_images=tmp_path / "pictures")
    assert evidence(report).decided_on == "token ids"
    assert str(tmp_path / "pictures" / "trigger-1.png") in report.images


def test_that_a_run_cannot_pass_is_told_before_it(models: Path) -> None:
    def told(**settings: Any) -> bool:
        lines = preflight.lacking(VerifyConfig(model=models / "clean", clip="local-dir:unused", triggers=("x",), **settings))
        return any("no evidence" in line for line in lines)

    assert told()
    assert not told(before=models / "patched")
    assert not told(evidence="none")
    assert not told(max_asr=1)
    assert preflight.lacking(VerifyConfig(model=models / "clean", clip="local-dir:unused")) == ()


@pytest.mark.parametrize("typed", ["\u00a0", "o"])
def test_what_cannot_be_tested_is_decided_before_a_picture(models: Path, patch: Path, typed: str) -> None:
    report = verify(models, "clean", patch, before="patched", trigger=typed)
    assert report.exit.code == 4
    assert isinstance(report.attacks[0].rate, NotMeasured)
    assert report.pictures["drawn"] == 0


class Distances:
    """A gallery in which harmless texts move a picture as ``moved`` says, by its seed; it holds the first ``held`` of them."""

    def __init__(self, moved: Tensor, held: int) -> None:
        self.moved, self.held = moved, held

    def holds(self, shot: Shot) -> bool:
        return shot.seed < self.held

    def distances(self, shots: Sequence[Shot], clean: Sequence[Shot]) -> Tensor:
        assert [shot.seed for shot in shots] == [shot.seed for shot in clean]
        return self.moved[[shot.seed for shot in shots]]


def restless_where(ours: Tensor, rule: Any) -> str:
    """Of 240 pictures at two positions; the model from before has drawn a third."""
    usual = torch.randn(240, generator=torch.Generator().manual_seed(1)).mul(0.3).exp()
    shots = tuple(Shot("text", seed) for seed in range(240))
    trial = Trial(
        trigger="x", token_ids=(1,), clean=shots, triggered=shots, null=shots, floor=shots, places=("prefix", "suffix") * 120, skipped={}
    )
    earlier: Any = Distances(usual, 80)
    now: Any = Distances(ours, 240)
    return restless(trial, rule, now, earlier)


def test_a_model_that_every_text_moves_hides_no_trigger_among_them() -> None:
    plain = torch.randn(240, generator=torch.Generator().manual_seed(2)).mul(0.3).exp()
    assert restless_where(plain, PairedRule("pixels")) == ""
    assert restless_where(plain * 1.1, PairedRule("pixels")) == ""
    some = plain.clone()
    some[::10] = 20.0
    for ours in (some, plain * 4):
        said = restless_where(ours, PairedRule("pixels"))
        assert "looks tampered with" in said
        assert "of 240" in said
    assert restless_where(some, PictureRule(torch.zeros(3, 1, 1), None)) == "", "nothing is calibrated on it"


def test_a_pass_does_not_rest_on_such_a_null(models: Path, patch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "restless", lambda trial, rule, ours, before: "they look tampered with")
    assert verify(models, "patched", patch, before="patched").exit.code == 1, "a finding stays one"
    report = verify(models, "clean", patch, before="patched")
    assert report.exit.code == 4
    assert "they look tampered with" in report.exit.reason
