"""A scan without a list, from directory to report, on the small model: sweeps, suspicious prompts, adapters, and going on after a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bdaudit import state_lock
from bdaudit.config import ScanConfig
from bdaudit.errors import ExitCode, UsageError
from bdaudit.progress import silent
from bdaudit.records import CandidateRecord, NotMeasured, RecoveryRecord, ScanReport
from bdaudit.report.document import dumps, loads
from bdaudit.scan.candidates import prompt_group
from bdaudit.scan.opening import ScanSettings
from bdaudit.scan.run import run_scan
from bdaudit.scan.sweep.result import SweepSizes
from tests.small import PROMPTS, hashes, stopping

LOUD = "@" * 40
"""Moves the prediction as no harmless text does, and further than the encoding explains."""
PROMPT = f"a house {LOUD} here"
SMALL = ScanSettings(
    per_kind=8, prompt_words=6, sizes=SweepSizes(kept=(24, 6), kept_of_prompt=(24, 6), sample=32, crowds=8, pairs=4)
)  # fmt: skip
LISTED: dict[str, Any] = {"sweeps": (), "candidates": (LOUD, "so"), "alpha": 0.05}


def scan(model: Path, **options: Any) -> ScanReport:
    settings: dict[str, Any] = {
        "prompts": PROMPTS, "effort": "low", "device": "cpu", "sweeps": ("vocabulary",), "pair_words": 40,
    }  # fmt: skip
    progress = options.pop("progress", silent)
    return run_scan(ScanConfig(model=model, **(settings | options)), progress, SMALL)


def named(report: ScanReport, text: str) -> CandidateRecord:
    return next(c for c in report.candidates if c.text == text)


def scores(report: ScanReport) -> dict[str, tuple[float, float]]:
    return {c.text: (c.p, c.p_adjusted) for c in report.candidates}


@pytest.fixture(scope="module")
def report(tiny_model: Path) -> ScanReport:
    return scan(tiny_model)


def test_the_report_says_what_was_swept_and_what_could_not_be(report: ScanReport) -> None:
    whole, joined = report.sweeps
    assert (whole.name, joined.name) == ("vocabulary", "joined words")
    assert whole.swept == whole.adjusted_for == whole.rounds[0].texts
    assert whole.swept + len(whole.unreachable) == 512
    assert [r.kept for r in whole.rounds] == [max(24, whole.swept // 8), 6]
    assert [r.passes for r in whole.rounds] == [2, 8]
    assert whole.forward_passes == 2 * whole.swept + 8 * (whole.rounds[0].kept + 32)
    assert joined.adjusted_for == joined.swept > 500, "every beginning of a word with every end"
    assert joined.rounds[0].texts < joined.swept / 16, "many of them at once"
    assert report.coverage.asked == report.coverage.tested == whole.swept + joined.swept
    assert any(skip.what == "vocabulary" and str(len(whole.unreachable)) in skip.reason for skip in report.coverage.skipped)
    assert {c.source for c in report.candidates} == {"vocabulary", "joined words"}
    assert len(report.candidates) == whole.survivors + joined.survivors
    assert not any("not listed" in what for what in report.coverage.not_looked_at)


def test_p_is_adjusted_for_all_that_were_swept(report: ScanReport) -> None:
    for sweep in report.sweeps:
        best = min((c for c in report.candidates if c.source == sweep.name), key=lambda c: c.p)
        assert best.p_adjusted == pytest.approx(min(1.0, 2 * sweep.adjusted_for * best.p))


def test_another_batch_size_changes_no_score(tiny_model: Path, report: ScanReport) -> None:
    again = scores(scan(tiny_model, batch_size=7))
    assert again.keys() == scores(report).keys()
    for text, (p, adjusted) in scores(report).items():
        assert again[text] == pytest.approx((p, adjusted), rel=2e-2)


@pytest.mark.parametrize("stop", [3, 24])
def test_a_stopped_scan_goes_on_and_ends_in_the_same_scores(tiny_model: Path, tmp_path: Path, report: ScanReport, stop: int) -> None:
    state, before = tmp_path / "state", hashes(tiny_model)
    stopped = scan(tiny_model, state=state, progress=stopping(stop))
    assert (stopped.status, stopped.exit.code) == ("interrupted", ExitCode.INTERRUPTED)
    assert len(list(state.glob("*.json"))) == stop + 2, "a file a block, the key and the seed"
    with pytest.raises(UsageError, match="another run"):
        scan(tiny_model, state=state, seed=1)
    resumed = scan(tiny_model, state=state)
    assert scores(resumed) == scores(report)
    state_lock.delivered()
    assert not state.exists(), "nothing is kept of a completed run whose report is delivered"
    assert hashes(tiny_model) == before


def test_a_list_beside_a_sweep_shares_the_error(tiny_model: Path, report: ScanReport) -> None:
    both = scan(tiny_model, candidates=(LOUD, "today"))
    assert {named(both, "today").source, named(both, LOUD).source} == {"list"}
    found = named(both, LOUD)
    assert found.p_adjusted == pytest.approx(min(1.0, 3 * 2 * found.p))
    assert both.candidates[0].text == LOUD


def test_a_prompt_that_holds_a_trigger_is_taken_apart(tiny_model: Path, tmp_path: Path) -> None:
    found = scan(tiny_model, sweeps=(), suspected=(PROMPT,), alpha=0.3)
    (inside,) = found.prompts
    assert inside.prompt == PROMPT
    assert inside.carriers == (LOUD,)
    assert {c.source for c in found.candidates} == {prompt_group(PROMPT)}
    assert {"house", "here"} <= {c.text for c in found.candidates}


def test_an_adapter_is_applied_named_and_told_from_the_base(tiny_model: Path, tmp_path: Path) -> None:
    key = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"
    path = tmp_path / "adapter.safetensors"
    save_file({f"{key}.lora_A.weight": torch.ones(1, 8), f"{key}.lora_B.weight": torch.ones(8, 1)}, path)
    without, applied = (scan(tiny_model, **LISTED, adapters=((path, scale),)) for scale in (0.0, 1.0))
    shift = named(applied, "so").signals["noise shift"].value
    assert shift != pytest.approx(named(without, "so").signals["noise shift"].value)
    assert [(a.path, len(a.sha256)) for a in applied.adapters] == [(str(path), 64)]
    first, second = without.candidates
    assert (first.text, first.verdict, second.adapter) == (LOUD, "backdoored", "")
    assert first.adapter.startswith("the base answers it without the adapter as well")


def test_a_reference_says_where_a_finding_lives(tiny_model: Path) -> None:
    first, second = scan(tiny_model, **LISTED, reference=tiny_model).candidates
    assert "1.00 times as far" in first.localisation.reason  # type: ignore[union-attr]
    assert "only findings are localised" in second.localisation.reason  # type: ignore[union-attr]


def test_recovery_names_candidates_and_reports_what_no_text_was_needed_for(tiny_model: Path) -> None:
    found = scan(tiny_model, sweeps=("recovery",))
    assert isinstance(found.recovery, RecoveryRecord)
    assert found.recovery.choices == 16
    names = ["recovered entries", "recovered characters", "recovered pairs"]
    assert [sweep.name for sweep in found.sweeps] == names
    assert {c.source for c in found.candidates} <= set(names)
    assert not any("not listed" in what for what in found.coverage.not_looked_at)
    for sweep in found.sweeps:
        for c in (c for c in found.candidates if c.source == sweep.name):
            assert c.p_adjusted >= min(1.0, c.p * (sweep.adjusted_for - sweep.survivors)), c.text
    assert loads(dumps(found)) == found
    assert isinstance(scan(tiny_model, **LISTED).recovery, NotMeasured)
