"""What a command tells a person to type next works as typed, and takes the same settings, whatever they were."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bdaudit.config import RepairConfig, ScanConfig, UnlearnConfig, VerifyConfig
from bdaudit.measure.envelope import settings
from bdaudit.records import UnlearnReport
from bdaudit.report.document import dumps
from bdaudit.scan.ending import command
from bdaudit.unlearn import outcome

OWN = {"seed", "state", "workers", "out", "steps"}
"""Of each run alone: what it draws from, where and by how many it is kept and done, and how long it trains or draws."""
HELD = ("a red cat", "two dogs")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my prompts.txt").write_text("\n".join(HELD))
    for name in ("style.safetensors", "vae.safetensors", "m.safetensors"):
        Path(name).touch()
    for name in ("configs", "out"):
        Path(name).mkdir()


def asked(kind: Any, **more: Any) -> Any:
    """A config with every setting that verbs share set to something unusual."""
    return kind(
        model=Path("m.safetensors"), prompts=HELD, prompts_file=Path("my prompts.txt"), guidance_scale=3.25, size=(64, 32), device="cuda:1",
        dtype="float16", batch_size=3, variant="fp16", strict=True, allow_pickle=True, trusted_templates=("ab" * 32, "cd" * 32),
        adapters=((Path("style.safetensors"), 0.5),), contexts=("in the snow",), seed=9, **more,
    )  # fmt: skip


def shared(one: Any, other: Any) -> list[str]:
    """Fields of both, but for those of each run alone."""
    return sorted({f.name for f in fields(one)} & {f.name for f in fields(other)} - OWN)


def test_a_repair_takes_all_that_the_scan_was_asked(bdaudit: Any, verb: Any, unlearn_report: UnlearnReport) -> None:
    scanned = asked(ScanConfig, parts_from=Path("configs"), parts=(("", "vae", Path("vae.safetensors")),))
    seen = verb("unlearn", unlearn_report)
    bdaudit(*shlex.split(command(scanned, "\u200b"))[1:])
    (repair,) = seen
    assert repair.triggers == ("\u200b",)
    names = shared(scanned, repair)
    assert len(names) >= 16
    assert {name: getattr(repair, name) for name in names} == {name: getattr(scanned, name) for name in names}


def test_a_verify_takes_all_that_the_repair_was_asked(
    bdaudit: Any, verb: Any, unlearn_report: UnlearnReport, verify_report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    repair: UnlearnConfig = asked(RepairConfig, triggers=("ȏ", "a b"), out=Path("out"))
    monkeypatch.setattr(outcome, "result_of", lambda inspection, out: SimpleNamespace(written_in=lambda out: ()))
    report = replace(unlearn_report, config=settings(repair), triggers=("ȏ", "a b"), contexts=("in the snow",))
    applied: Any = replace(report, adapters=(SimpleNamespace(),))
    seen = verb("verify", verify_report)
    nothing: Any = SimpleNamespace(pieces=(), part_files={}, config=None)
    bdaudit(*shlex.split(outcome.with_digests(applied, nothing, Path("out")).next_command)[1:])
    (graded,) = seen
    assert (graded.model, graded.before) == (Path("out"), repair.model)
    assert graded.adapters == (("before", Path("style.safetensors"), 0.5),)
    names = [name for name in shared(repair, graded) if name not in ("model", "adapters")]
    assert len(names) > 14
    assert {name: getattr(graded, name) for name in names} == {name: getattr(repair, name) for name in names}


@pytest.mark.parametrize(
    ("clip", "there", "told"), [("local-dir:my clip", True, True), ("", True, False), ("local-dir:my clip", False, False)]
)
def test_the_grader_of_the_scan_grades_the_repair(
    bdaudit: Any, verb: Any, unlearn_report: UnlearnReport, verify_report: Any, scan_report: Any, monkeypatch: pytest.MonkeyPatch,
    clip: str, there: bool, told: bool,
) -> None:  # fmt: skip
    Path("scan.json").write_text(dumps(replace(scan_report, config={"clip": clip})))
    repair = RepairConfig(model=Path("m.safetensors"), from_report=Path("scan.json"), out=Path("out"))
    monkeypatch.setattr(outcome, "result_of", lambda inspection, out: SimpleNamespace(written_in=lambda out: ()))
    report = replace(unlearn_report, config=settings(repair), triggers=("ȏ",))
    if not there:
        Path("scan.json").unlink()
    nothing: Any = SimpleNamespace(pieces=(), part_files={}, config=None)
    Path("my clip").mkdir()
    seen = verb("verify", verify_report)
    bdaudit(*shlex.split(outcome.with_digests(report, nothing, Path("out")).next_command)[1:])
    assert seen[0].clip == (clip if told else VerifyConfig.clip)


def test_the_default_run_leads_to_the_default_run(bdaudit: Any, verb: Any, unlearn_report: UnlearnReport) -> None:
    assert command(ScanConfig(model=Path("m.safetensors")), "x") == "bdaudit unlearn m.safetensors --trigger x"
    assert shared(ScanConfig(model=Path("m")), VerifyConfig(model=Path("m")))
