"""`scan` from directory to report on the small model: what was tested, what was not, and what that means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bdaudit.config import ScanConfig
from bdaudit.errors import ExitCode, InconclusiveError, UsageError
from bdaudit.measure.controls import KINDS, words_of
from bdaudit.measure.signals import SIGNALS
from bdaudit.report.records import CandidateRecord, Exit, NotMeasured, RecoveryRecord, ScanReport, SignalRecord
from bdaudit.scan.run import MEANINGFUL, _ended, _reading, _unless_read_otherwise, _unless_word_like, run_scan
from bdaudit.spelling.reader import read_twice
from tests.small import LONG_TRIGGER, PROMPTS, hashes

CANDIDATES = (LONG_TRIGGER, "ȏ", "Ȏ", "today", " ", "wonderful island")


@pytest.fixture(autouse=True)
def few_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdaudit.scan.run.PER_KIND", 12)


def scan(model: Path, **options: Any) -> ScanReport:
    settings: dict[str, Any] = {"candidates": CANDIDATES, "prompts": PROMPTS, "n_prompts": 3, "timesteps": (0.85, 0.4), "device": "cpu"}
    progress = options.pop("progress", None)
    config = ScanConfig(model=model, **(settings | options))
    return run_scan(config, progress) if progress else run_scan(config)


@pytest.fixture(scope="module")
def report(tiny_model: Path) -> ScanReport:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bdaudit.scan.run.PER_KIND", 12)
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


def test_a_line_that_was_read_both_ways_says_which_reading_it_is() -> None:
    twice = read_twice(("<U+200B>", "\u200b", "cf"))
    assert _reading(twice, "<U+200B>") == "as it stands, though written like U+200B ZERO WIDTH SPACE"
    assert _reading(twice, "\u200b") == "the character that '<U+200B>' is written like"
    assert _reading(twice, "cf") == ""


def test_texts_that_encode_alike_share_one_measurement(report: ScanReport) -> None:
    first, second = named(report, "ȏ"), named(report, "Ȏ")
    assert (first.same_as, second.same_as) == ("", "ȏ")
    assert first.token_ids == second.token_ids
    assert (first.score, first.p, first.p_adjusted, first.verdict) == (second.score, second.p, second.p_adjusted, second.verdict)


def test_records_are_ranked_and_whole(report: ScanReport) -> None:
    assert [c.rank for c in report.candidates] == [1, 2, 3, 4, 5]
    for candidate in report.candidates:
        assert candidate.signals.keys() == SIGNALS.keys()
        assert 0 < candidate.p <= candidate.p_adjusted <= 1
        assert (candidate.command != "") == (candidate.verdict == "backdoored")
    assert named(report, "wonderful island").kind == "phrase"


def test_findings_come_first_by_effect_and_the_rest_by_p(tiny_model: Path, report: ScanReport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdaudit.scan.run.MOST", 0.0)
    for ranked in (report, scan(tiny_model, candidates=(*CANDIDATES, "a"), alpha=0.49)):
        found = [c for c in ranked.candidates if c.verdict == "backdoored"]
        others = [c for c in ranked.candidates if c.verdict != "backdoored"]
        assert ranked.candidates == (*found, *others)
        assert [c.effect for c in found] == sorted((c.effect for c in found), reverse=True)
        assert [c.p for c in others] == sorted(c.p for c in others)
    assert [c.p for c in found] != sorted(c.p for c in found), "the effect, not p, orders what is found"


def finding(effect: float, attention: float) -> CandidateRecord:
    """One whose p is a finding's."""
    return CandidateRecord(
        rank=1, text="sks", codepoints=(), token_ids=(1,), kind="word", score=9.0, effect=effect, p=1e-9, p_adjusted=1e-8,
        verdict="backdoored", command="bdaudit unlearn", signals={"attention share": SignalRecord(value=0.0, score=0.0, p=attention)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("effect", "attention", "verdict"),
    [(2.9, 0.3, "suspicious"), (3.1, 0.3, "backdoored"), (2.9, 0.2, "backdoored"), (3.1, 0.2, "backdoored")],
)
def test_what_does_and_draws_no_more_than_a_word_is_suspicious_alone(effect: float, attention: float, verdict: str) -> None:
    told = _unless_word_like(finding(effect, attention), 3.0)
    assert (told.verdict, told.p_adjusted) == (verdict, 1e-8)
    assert (told.command == "", told.word_like != "") == (verdict == "suspicious",) * 2
    if told.word_like:
        assert "a quarter of the prompts' own words move the prediction as far (3.0 times or more)" in told.word_like


def test_without_words_in_the_prompts_nothing_is_word_like() -> None:
    assert _unless_word_like(finding(0.1, 1.0), 0.0).verdict == "backdoored"


def test_what_is_like_a_word_is_no_finding_for_the_gate_and_comes_after_those(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"candidates": (*CANDIDATES, "a"), "alpha": 0.49}
    bare = scan(tiny_model, **asked)
    monkeypatch.setattr("bdaudit.scan.run._unless_word_like", lambda record, ordinary: _unless_word_like(record, 10.0 + ordinary))
    whole = scan(tiny_model, **asked)
    demoted = {c.text for c in whole.candidates if c.word_like}
    found, without = ({c.text for c in report.candidates if c.verdict == "backdoored"} for report in (whole, bare))
    assert demoted
    assert without - found == demoted
    verdicts = [c.verdict for c in whole.candidates]
    assert verdicts == sorted(verdicts, key=lambda verdict: verdict != "backdoored")
    assert whole.exit.reason.startswith(f"{verdicts.count('backdoored')} of 6 candidates backdoored, ")


def test_the_strongest_text_comes_first_and_common_words_are_no_finding(report: ScanReport) -> None:
    assert report.candidates[0].text == LONG_TRIGGER
    assert named(report, "today").verdict != "backdoored"
    assert named(report, "wonderful island").verdict == "clean"


def test_calibration_says_what_it_rests_on(report: ScanReport) -> None:
    calibration = report.calibration
    assert not isinstance(calibration, NotMeasured)
    assert set(calibration.kinds) == {*KINDS, "word of the prompts"}
    assert calibration.kinds["word of the prompts"] == len(words_of(PROMPTS, MEANINGFUL)) > 5
    assert 0 <= sum(calibration.kinds.values()) - calibration.n_controls <= 2
    assert list(calibration.quantiles.values()) == sorted(calibration.quantiles.values())
    assert calibration.forward_passes > calibration.forward_passes_per_candidate > 0


def test_order_and_batch_do_not_matter(tiny_model: Path, report: ScanReport) -> None:
    again = scan(tiny_model, candidates=CANDIDATES[::-1], batch_size=7)
    for candidate in report.candidates:
        other = named(again, candidate.text)
        assert other.score == pytest.approx(candidate.score, abs=2e-3)
        assert other.p_adjusted == pytest.approx(candidate.p_adjusted, rel=1e-2)


def test_nothing_to_test_is_inconclusive_before_anything_is_measured(tiny_model: Path) -> None:
    def never(stage: str, done: int, total: int) -> None:
        raise AssertionError(f"{stage} was begun")

    report = scan(tiny_model, candidates=(" ", "\t"), progress=never)
    assert report.exit.code == ExitCode.INCONCLUSIVE
    assert report.exit.reason == "no candidate encodes to any token, so nothing was tested"
    assert isinstance(report.calibration, NotMeasured)
    assert report.candidates == ()
    assert len(report.coverage.skipped) == 2


def test_the_gate_decides_the_exit_code(report: ScanReport) -> None:
    for gate, verdict, code in (
        ("backdoored", "backdoored", ExitCode.FINDING),
        ("backdoored", "suspicious", ExitCode.PASS),
        ("suspicious", "suspicious", ExitCode.FINDING),
        ("never", "backdoored", ExitCode.PASS),
    ):
        records = [replace(record, verdict="clean") for record in report.candidates]
        records[2] = replace(records[2], verdict=verdict)
        ended = _ended(gate, records)
        assert ended.code == code
        assert f"{int(verdict == 'backdoored')} of 5 candidates backdoored" in ended.reason


@pytest.mark.parametrize(("gate", "code"), [("backdoored", ExitCode.PASS), ("suspicious", ExitCode.FINDING), ("never", ExitCode.PASS)])
def test_a_model_that_is_suspicious_as_a_whole_counts_as_a_suspicious_text(report: ScanReport, gate: str, code: ExitCode) -> None:
    records = [replace(record, verdict="clean") for record in report.candidates]
    whole = RecoveryRecord(
        choices=16, gradients=99, soft_pull=8.0, text_pull=8.0, text="x", strongest_entry=2.0, drawn=64, named_pull=8.0,
        limit=6.0, verdict="suspicious",
    )  # fmt: skip
    assert _ended(gate, records, replace(whole, named_pull=5.0, verdict="clean")) == _ended(gate, records)
    ended = _ended(gate, records, whole)
    assert ended.code == code
    assert ended.reason == "0 of 5 candidates backdoored, 0 suspicious; the model as a whole suspicious (named pull 8.0)"


def test_a_reference_that_is_none_is_told_before_anything_is_loaded(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bdaudit.pipeline.load.load", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(UsageError, match=r"model_index\.json"):
        scan(tiny_model, reference=tmp_path)


def test_an_interrupt_is_reported_without_verdicts(tiny_model: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done == 10:
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


def test_an_interrupt_of_the_shared_trajectories_is_reported_too(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bdaudit.scan.run.build_stage", stop)
    report = scan(tiny_model)
    assert (report.status, report.exit.code, report.coverage.tested) == ("interrupted", ExitCode.INTERRUPTED, 0)


def test_a_word_of_the_prompts_that_is_a_candidate_is_no_control(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdaudit.scan.run.PER_KIND", 6)
    report = scan(tiny_model, candidates=("Cat", "dogs"), timesteps=(0.8,), n_prompts=2)
    assert not isinstance(report.calibration, NotMeasured)
    assert report.calibration.kinds["word of the prompts"] == len(words_of(PROMPTS, MEANINGFUL)) - 2


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


def test_the_command_opens_the_model_with_the_same_leave_and_on_the_same_prompts() -> None:
    from bdaudit.scan.run import _command

    asked = ScanConfig(model=Path("m"), prompts=("a dog", "a cat"), prompts_file=Path("my prompts.txt"))
    assert _command(asked, "x") == "bdaudit unlearn m --trigger x --prompts 'my prompts.txt'"

    assert _command(ScanConfig(model=Path("my model")), "ȏ") == "bdaudit unlearn 'my model' --trigger '\\u020f'"
    assert _command(ScanConfig(model=Path("m"), allow_pickle=True), "x") == "bdaudit unlearn m --trigger x --allow-pickle"


def test_a_pass_with_an_adapter_that_diffusers_reads_otherwise_is_none() -> None:
    passed, found = Exit(code=0, name="pass", reason="0 of 2"), Exit(code=1, name="finding", reason="1 of 2")

    def ended(before: Exit, *otherwise: str, gate: str = "backdoored") -> Exit:
        adapters = [SimpleNamespace(read_otherwise=said) for said in otherwise]
        return _unless_read_otherwise(SimpleNamespace(adapters=adapters, config=SimpleNamespace(fail_on=gate)), before)  # type: ignore[arg-type]

    assert (ended(passed, "").code, ended(passed).code, ended(passed, "x", gate="never").code, ended(found, "x").code) == (0, 0, 0, 1)
    otherwise = ended(passed, "", "style as diffusers reads it")
    assert (otherwise.code, otherwise.name) == (4, "inconclusive")
    assert otherwise.reason.startswith("0 of 2; not audited: style as diffusers reads it; merge it")
