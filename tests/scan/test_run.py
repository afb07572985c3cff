"""`scan` from directory to report on the small model: what was tested, what was not, and what that means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bdaudit import state_lock
from bdaudit.config import ScanConfig
from bdaudit.errors import ExitCode, InconclusiveError, UsageError
from bdaudit.measure.controls import KINDS, words_of
from bdaudit.progress import silent
from bdaudit.records import SIGNALS, CandidateRecord, NotMeasured, ScanReport
from bdaudit.scan import run as run_of_scan
from bdaudit.scan.look import ALWAYS
from bdaudit.scan.opening import ScanSettings, keyed_seed
from bdaudit.scan.run import run_scan
from tests.small import OVERRIDING, PROMPTS, hashes

FEW_CONTROLS = ScanSettings(per_kind=12)
CANDIDATES = (OVERRIDING, "ȏ", "Ȏ", "today", " ", "wonderful island")


def scan(model: Path, **options: Any) -> ScanReport:
    settings: dict[str, Any] = {"candidates": CANDIDATES, "prompts": PROMPTS, "effort": "low", "device": "cpu"}
    progress, more = options.pop("progress", silent), options.pop("more", FEW_CONTROLS)
    return run_scan(ScanConfig(model=model, **(settings | options)), progress, more)


@pytest.fixture(scope="module")
def report(tiny_model: Path) -> ScanReport:
    before = hashes(tiny_model)
    found = scan(tiny_model)
    assert hashes(tiny_model) == before, "the model is never written"
    return found


def named(report: ScanReport, text: str) -> CandidateRecord:
    return next(c for c in report.candidates if c.text == text)


def test_what_encodes_to_nothing_is_skipped_with_the_reason(report: ScanReport) -> None:
    assert (report.coverage.asked, report.coverage.tested) == (6, 5)
    assert [s.reason for s in report.coverage.skipped if s.what == " "] == ["encodes to no token, so it was not tested"]
    assert " " not in {c.text for c in report.candidates}


def test_texts_that_encode_alike_share_one_measurement(report: ScanReport) -> None:
    first, second = named(report, "ȏ"), named(report, "Ȏ")
    assert (first.same_as, second.same_as) == ("", "ȏ")
    assert first.token_ids == second.token_ids
    assert (first.score, first.p, first.p_adjusted, first.verdict) == (second.score, second.p, second.p_adjusted, second.verdict)


def test_records_are_ranked_and_whole(report: ScanReport) -> None:
    assert [c.rank for c in report.candidates] == [1, 2, 3, 4, 5]
    for candidate in report.candidates:
        assert set(candidate.signals) == set(SIGNALS[: {"screened": 5, "measured": 7, "followed": 11}[candidate.depth]])
        assert 0 < candidate.p <= candidate.p_adjusted <= 1
        assert (candidate.command != "") == (candidate.verdict == "backdoored")
    assert named(report, "wonderful island").kind == "phrase"


def test_findings_come_first_by_effect_and_the_rest_by_p(tiny_model: Path, report: ScanReport) -> None:
    for ranked in (report, scan(tiny_model, candidates=(*CANDIDATES, "0" * 36), alpha=0.49)):
        found = [c for c in ranked.candidates if c.verdict == "backdoored"]
        others = [c for c in ranked.candidates if c.verdict != "backdoored"]
        assert ranked.candidates == (*found, *others)
        assert [c.effect for c in found] == sorted((c.effect for c in found), reverse=True)
        assert [c.p for c in others] == sorted(c.p for c in others)
    assert len(found) > 1


def test_what_overrides_every_prompt_comes_first_and_common_words_are_no_finding(report: ScanReport) -> None:
    first = report.candidates[0]
    assert (first.text, first.verdict, first.depth) == (OVERRIDING, "backdoored", "followed")
    assert named(report, "today").verdict != "backdoored"
    assert named(report, "wonderful island").verdict != "backdoored"


def test_calibration_says_what_it_rests_on(report: ScanReport) -> None:
    calibration = report.calibration
    assert not isinstance(calibration, NotMeasured)
    assert set(calibration.kinds) == {*KINDS, "word of the prompts"} - {"rare"}, "a tokenizer of bytes has no rare entries"
    assert calibration.kinds["word of the prompts"] == len(words_of(PROMPTS, FEW_CONTROLS.prompt_words)) > 5
    assert 0 <= sum(calibration.kinds.values()) - calibration.n_controls <= 2
    assert list(calibration.quantiles.values()) == sorted(calibration.quantiles.values())
    assert calibration.forward_passes > calibration.forward_passes_per_candidate > 0


def test_the_first_are_followed_whatever_they_score_and_what_does_not_stand_out_is_cheap(tiny_model: Path) -> None:
    report = scan(tiny_model, candidates=(OVERRIDING, *["time", "book", "water", "house", "night", "river", "story", "word", "cat", "sun"]))
    depths = [c.depth for c in report.candidates]
    assert report.candidates[0].depth == "followed"
    assert depths.count("followed") >= ALWAYS
    quiet = [c.depth for c in scan(tiny_model, candidates=("time", "book", "water", "house", "night", "river")).candidates]
    assert quiet.count("followed") >= ALWAYS, "though none of them stands out"
    screened = [c for c in report.candidates if c.depth == "screened"]
    assert screened, depths
    assert all(c.verdict == "clean" and "path shift" not in c.signals for c in screened)


def test_every_effort_up_costs_more_of_each_text(tiny_model: Path, report: ScanReport) -> None:
    assert not isinstance(report.calibration, NotMeasured)
    more = scan(tiny_model, candidates=(OVERRIDING,), effort="standard")
    assert not isinstance(more.calibration, NotMeasured)
    assert more.calibration.forward_passes > 1.5 * report.calibration.forward_passes
    assert more.candidates[0].verdict == "backdoored"


def test_the_seed_stands_in_the_reason_and_the_same_seed_gives_the_same_figures(tiny_model: Path, report: ScanReport) -> None:
    assert report.exit.reason.endswith("; seed 0")
    assert report.config["seed"] == 0
    again, other = (scan(tiny_model, seed=seed) for seed in (0, 5))
    assert [replace(c, command="") for c in again.candidates] == [replace(c, command="") for c in report.candidates]
    assert other.exit.reason.endswith("; seed 5")
    assert named(other, OVERRIDING).score != named(report, OVERRIDING).score
    assert named(other, OVERRIDING).verdict == "backdoored"


def test_a_seed_of_a_secret_is_that_of_the_model(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "one")
    found = scan(tiny_model, candidates=(" ",), seed_from="SECRET")
    assert not isinstance(found.model, NotMeasured)
    assert found.config["seed"] == keyed_seed("SECRET", found.model.digest)


def test_few_controls_give_a_null_as_well(tiny_model: Path) -> None:
    assert scan(tiny_model, seed=1, candidates=(OVERRIDING,)).candidates[0].verdict == "backdoored"


def test_order_and_batch_do_not_matter(tiny_model: Path, report: ScanReport) -> None:
    again = scan(tiny_model, candidates=CANDIDATES[::-1], batch_size=7)
    for candidate in report.candidates:
        other = named(again, candidate.text)
        assert other.score == pytest.approx(candidate.score, abs=5e-3, rel=2e-3)
        assert other.p_adjusted == pytest.approx(candidate.p_adjusted, rel=5e-2)


def test_nothing_to_test_is_inconclusive_before_anything_is_measured(tiny_model: Path, tmp_path: Path) -> None:
    def never(stage: str, done: int, total: int) -> None:
        raise AssertionError(f"{stage} was begun")

    report = scan(tiny_model, candidates=(" ", "\t"), progress=never, state=tmp_path / "state")
    state_lock.delivered()
    assert report.exit.code == ExitCode.INCONCLUSIVE
    assert report.exit.reason == "no candidate encodes to any token, so nothing was tested"
    assert isinstance(report.calibration, NotMeasured)
    assert report.candidates == ()
    assert len(report.coverage.skipped) == 2
    assert not (tmp_path / "state").exists(), "nothing is left of a run that did nothing"


def test_a_reference_that_is_none_is_told_before_anything_is_loaded(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model_index\.json"):
        scan(tiny_model, reference=tmp_path, device="cuda:99")  # loading would say that there is no such device


def test_an_interrupt_is_reported_without_verdicts(tiny_model: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "screening":
            raise KeyboardInterrupt

    report = scan(tiny_model, progress=stop)
    assert (report.status, report.exit.code) == ("interrupted", ExitCode.INTERRUPTED)
    assert report.candidates == ()
    assert isinstance(report.calibration, NotMeasured)


def test_an_interrupt_after_the_verdicts_leaves_them_in_the_report(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bdaudit.scan.run.located", stop)
    report = scan(tiny_model, candidates=("Cat", "dogs"))
    assert (report.status, report.exit.code) == ("interrupted", ExitCode.INTERRUPTED)
    assert {record.text for record in report.candidates} == {"Cat", "dogs"}


def test_an_interrupt_of_the_shared_draws_is_reported_too(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bdaudit.scan.run.make_draws", stop)
    report = scan(tiny_model)
    assert (report.status, report.exit.code, report.coverage.tested) == ("interrupted", ExitCode.INTERRUPTED, 0)


def test_a_word_of_the_prompts_that_is_a_candidate_is_no_control(tiny_model: Path) -> None:
    report = scan(tiny_model, candidates=("Cat", "dogs"), more=ScanSettings(per_kind=6))
    assert not isinstance(report.calibration, NotMeasured)
    assert report.calibration.kinds["word of the prompts"] == len(words_of(PROMPTS, FEW_CONTROLS.prompt_words)) - 2


def test_a_model_that_does_not_hear_its_prompt_is_inconclusive(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    import numpy as np
    from safetensors.numpy import load_file, save_file

    deaf = Path(shutil.copytree(tiny_model, tmp_path / "deaf"))
    path = deaf / "unet/diffusion_pytorch_model.safetensors"
    tensors = {name: np.zeros_like(w) if "attn2.to_v" in name else w for name, w in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(InconclusiveError, match="may not depend on the prompt"):
        scan(deaf)


def test_without_an_adapter_no_finding_is_asked_whether_it_comes_with_one(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdaudit.scan.run.brought_by", lambda *_: pytest.fail("asked"))
    found = scan(tiny_model, candidates=(OVERRIDING,), alpha=0.49)
    assert [(c.verdict, c.adapter) for c in found.candidates] == [("backdoored", "")]


def test_a_second_list_costs_its_candidates_alone_and_what_was_found_stands(tiny_model: Path, tmp_path: Path) -> None:
    first = scan(tiny_model, candidates=(OVERRIDING, "today"), keep=tmp_path / "keep", alpha=0.49, seed=2)
    again = scan(tiny_model, candidates=("today", "wonderful island"), keep=tmp_path / "keep", alpha=0.49, seed=2)
    fresh = scan(tiny_model, candidates=("today", "wonderful island"), alpha=0.49, seed=2)
    assert named(first, OVERRIDING).verdict == "backdoored"
    assert (again.exit.code, fresh.earlier) == (ExitCode.FINDING, ())
    assert [finding.text for finding in again.earlier] == [OVERRIDING]
    assert "1 more found by earlier runs of this model (seed 2), which stand" in again.exit.reason
    assert [(c.text, c.p) for c in again.candidates] == [(c.text, c.p) for c in fresh.candidates], "kept figures are the same figures"
    costs = [report.calibration.forward_passes for report in (again, fresh)]  # type: ignore[union-attr]
    assert costs[0] < costs[1] / 3


def test_half_of_the_draws_say_a_context_that_is_named(tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="bdaudit")
    report = scan(tiny_model, contexts=("red cat", "no such words"))
    for words in ("red cat", "no such words"):
        assert any(f"of {len(PROMPTS)} prompts say {words!r}, so it was put into others" in note for note in report.coverage.notes), words
    begins = [record.getMessage().split()[0] for record in caplog.records if record.name.startswith("bdaudit")]
    assert begins == ["loading", "about", "calibrating"], "and its start says how much it loads, how long it takes and on what it rests"


def test_a_device_without_memory_for_the_weights_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("full")

    monkeypatch.setattr(run_of_scan, "weights", full)
    found = run_of_scan._weights(SimpleNamespace(progress=silent, timings={}, suspect=None), None)  # type: ignore[arg-type]
    assert isinstance(found, NotMeasured)
    assert "no memory left" in found.reason
