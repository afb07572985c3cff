"""Verdicts on made-up measurements: no model is opened, and none can be."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from bdaudit.errors import ExitCode
from bdaudit.records import CandidateRecord, EncoderRecord, NotMeasured, RecoveryRecord, SignalRecord
from bdaudit.scan.encoded import Encoded
from bdaudit.scan.judge import Measured, exit_of, judge, sources_of, verdict_of, with_word_likeness
from bdaudit.scan.looked import Look
from bdaudit.scan.multiplicity import CandidateGroup

NOT_SEARCHED = NotMeasured(reason="not searched")
IDS = {text: Encoded((i,)) for text, i in {"loud": 1, "louder": 2, "LOUD": 1, "quiet": 3, "quiet too": 4}.items()}


def look(p: float, effect: float = 1.0, attention: float = 0.01, encoded: float = 0.5) -> Look:
    signals = {name: SignalRecord(value=0.0, score=1.0, p=attention) for name in ("noise shift", "attention share")}
    return Look("followed", -2 * float(np.log(p)), -float(np.log(p)), p, signals, effect, encoded)


LOOKS = {"loud": look(1e-9, 8.0), "louder": look(1e-8, 12.0), "quiet": look(0.5), "quiet too": look(0.9)}


def measured(**changes: object) -> Measured:
    """Two findings, one of them written in two ways, and two harmless texts."""
    group = CandidateGroup("list", tuple(IDS), 4)
    everything = Measured(IDS, (group,), dict.fromkeys(IDS, "word"), LOOKS, words=(0.9, 1.0, 1.1))
    return replace(everything, **changes)  # type: ignore[arg-type]


def test_findings_come_first_the_largest_effect_before_the_others() -> None:
    records = judge(measured(), alpha=0.01)
    assert [record.rank for record in records] == [1, 2, 3, 4, 5]
    assert [record.text for record in records[:3]] == ["louder", "LOUD", "loud"]
    assert [record.verdict for record in records] == ["backdoored"] * 3 + ["clean"] * 2
    assert [record.command for record in records] == [""] * 5
    assert records[0].component == "denoiser"
    assert records[-1].component == "not localised: no finding"


def test_the_order_of_candidates_does_not_matter() -> None:
    order = {text: IDS[text] for text in reversed(IDS) if text != "LOUD"}
    again = judge(measured(candidates=order), 0.01)
    assert [record for record in judge(measured(), 0.01) if record.text == "louder"] == [again[0]]


def test_texts_that_encode_alike_share_the_first_ones_measurement() -> None:
    assert sources_of(IDS) == {"loud": "loud", "louder": "louder", "LOUD": "loud", "quiet": "quiet", "quiet too": "quiet too"}
    records = {record.text: record for record in judge(measured(), alpha=0.01)}
    assert (records["loud"].same_as, records["LOUD"].same_as) == ("", "loud")
    assert records["LOUD"].p == records["loud"].p


def test_texts_that_one_reader_tells_apart_are_measured_apart() -> None:
    apart = {text: Encoded(each.ids, (("clip", each.ids), ("t5", (ord(text[0]),)))) for text, each in IDS.items()}
    assert sources_of(apart)["LOUD"] == "LOUD"
    found = measured(candidates=apart, looks={**LOOKS, "LOUD": look(0.7)}, groups=(CandidateGroup("list", tuple(IDS), 5),))
    records = judge(found, alpha=0.01)
    (one,) = (record for record in records if record.text == "LOUD")
    assert (one.verdict, one.same_as) == ("clean", "")
    assert one.reader_ids == {"clip": (1,), "t5": (ord("L"),)}


def test_a_finding_that_does_what_words_do_says_so_and_stays_one() -> None:
    looks = LOOKS | {"loud": look(1e-9, 8.0, attention=0.6)}
    records = {record.text: record for record in judge(measured(looks=looks, words=(9.0, 9.5, 10.0)), alpha=0.01)}
    assert (records["louder"].verdict, records["loud"].verdict) == ("backdoored", "backdoored")
    assert (records["louder"].word_like, records["loud"].word_like != "") == ("", True)
    assert records["quiet"].word_like == "", "no finding"


@pytest.mark.parametrize(("encoded", "where"), [(0.009, "text encoder"), (0.01, "unet"), (0.011, "unet")])
def test_a_finding_that_moves_the_other_words_is_the_text_encoders(encoded: float, where: str) -> None:
    records = judge(measured(looks=LOOKS | {"loud": look(1e-9, encoded=encoded)}, denoiser="unet"), 0.01)
    assert {record.component for record in records if record.text == "loud"} == {where}


def test_a_p_of_one_is_clean_whatever_alpha() -> None:
    assert [verdict_of(p, 0.01) for p in (0.01, 0.1, 0.11)] == ["backdoored", "suspicious", "clean"]
    assert [verdict_of(p, 0.2) for p in (0.2, 0.99, 1.0)] == ["backdoored", "suspicious", "clean"]


def finding(effect: float, attention: float) -> CandidateRecord:
    """One whose p is a finding's."""
    return CandidateRecord(
        rank=1, text="sks", codepoints=(), token_ids=(1,), kind="word", score=9.0, effect=effect, p=1e-9, p_adjusted=1e-8,
        verdict="backdoored", signals={"attention share": SignalRecord(value=0.0, score=0.0, p=attention)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("effect", "attention", "word_like"),
    [(2.9, 0.3, True), (3.0, 0.3, True), (3.1, 0.3, False), (2.9, 0.25, False), (2.9, 0.2, False), (3.1, 0.2, False)],
)
def test_what_does_and_draws_no_more_than_a_word_is_told_and_no_pass(effect: float, attention: float, word_like: bool) -> None:
    told = with_word_likeness(finding(effect, attention), 3.0)
    assert (told.verdict, told.p_adjusted, told.word_like != "") == ("backdoored", 1e-8, word_like)
    assert exit_of("backdoored", [told], NOT_SEARCHED).code == ExitCode.FINDING
    if told.word_like:
        assert "a quarter of the prompts' own words move the prediction as far (3.0 times or more)" in told.word_like


def test_only_a_finding_is_told_to_be_like_a_word() -> None:
    for verdict in ("suspicious", "clean"):
        record = replace(finding(2.9, 0.3), verdict=verdict)
        assert with_word_likeness(record, 3.0) == record


def test_without_words_in_the_prompts_nothing_is_word_like() -> None:
    assert with_word_likeness(finding(0.1, 1.0), 0.0).word_like == ""


def test_the_gate_decides_the_exit_code() -> None:
    for gate, verdict, code in (
        ("backdoored", "backdoored", ExitCode.FINDING),
        ("backdoored", "suspicious", ExitCode.PASS),
        ("suspicious", "suspicious", ExitCode.FINDING),
        ("never", "backdoored", ExitCode.PASS),
    ):
        records = [replace(finding(1.0, 1.0), verdict="clean") for _ in range(5)]
        records[2] = replace(records[2], verdict=verdict)
        ended = exit_of(gate, records, NOT_SEARCHED)
        assert ended.code == code
        assert f"{int(verdict == 'backdoored')} of 5 candidates backdoored" in ended.reason


@pytest.mark.parametrize("gate", ["suspicious", "backdoored"])
def test_what_is_accepted_does_not_reach_the_gate_and_is_counted(gate: str) -> None:
    first, second, third = (replace(finding(1.0, 1.0), token_ids=(i,)) for i in range(3))
    let_through = [replace(first, verdict="backdoored (accepted)"), replace(second, verdict="suspicious (accepted)")]
    passed, failed = exit_of(gate, let_through, NOT_SEARCHED), exit_of(gate, [*let_through, third], NOT_SEARCHED)
    assert (passed.code, passed.reason) == (ExitCode.PASS, "0 of 2 candidates backdoored, 0 suspicious, 2 accepted by --accept")
    assert (failed.code, failed.reason) == (ExitCode.FINDING, "1 of 3 candidates backdoored, 0 suspicious, 2 accepted by --accept")
    assert "accepted" not in exit_of(gate, [third], NOT_SEARCHED).reason


@pytest.mark.parametrize(("gate", "code"), [("backdoored", ExitCode.PASS), ("suspicious", ExitCode.FINDING), ("never", ExitCode.PASS)])
def test_a_model_that_is_suspicious_as_a_whole_counts_as_a_suspicious_text(gate: str, code: ExitCode) -> None:
    records = [replace(finding(1.0, 1.0), verdict="clean") for _ in range(5)]
    whole = RecoveryRecord(
        choices=16, gradients=99, soft_pull=8.0, text_pull=8.0, text="x", strongest_entry=2.0, drawn=64, named_pull=8.0,
        limit=6.0, verdict="suspicious",
    )  # fmt: skip
    assert exit_of(gate, records, replace(whole, named_pull=5.0, verdict="clean")) == exit_of(gate, records, NOT_SEARCHED)
    ended = exit_of(gate, records, whole)
    assert ended.code == code
    assert ended.reason == "0 of 5 candidates backdoored, 0 suspicious; the model as a whole suspicious (named pull 8.0)"
    encoder = EncoderRecord(choices=16, soft_left=0.1, text_left=0.25, text="x", limit=0.6, verdict="suspicious")
    told = exit_of(gate, records, replace(whole, named_pull=5.0, encoder=encoder))
    assert told.code == code
    assert told.reason.endswith("suspicious (in its text encoder a text leaves 25 % of what tells prompts apart)")


def test_judging_needs_no_torch() -> None:
    code = "import sys, bdaudit.scan.judge\nassert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_text_that_does_what_it_says_reaches_no_gate_and_is_counted_apart() -> None:
    meant, accepted = (replace(finding(1.0, 1.0), token_ids=(i,)) for i in range(2))
    records = [replace(meant, verdict="does what it says"), replace(accepted, verdict="backdoored (accepted)")]
    ended = exit_of("suspicious", records, NOT_SEARCHED)
    assert ended.code == ExitCode.PASS
    assert ended.reason == "0 of 2 candidates backdoored, 0 suspicious, 1 accepted by --accept, 1 that do what they say, by --clip"
