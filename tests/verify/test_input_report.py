"""--evidence REPORT: which report counts, of which model, for which text; and that what lies in MODEL counts for nothing."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bdaudit.config import VerifyConfig
from bdaudit.errors import BdauditError, ExitCode, UsageError
from bdaudit.records import AttackRecord, Estimate, EvidenceRecord, FileRecord, ModelRecord, ScanReport, UnlearnReport, VerifyReport
from bdaudit.report.document import dumps, read_report
from bdaudit.verify.gallery import Shot
from bdaudit.verify.input_report import _some, by_report, claim_of, handed_report
from bdaudit.verify.run import run_verify
from tests.verify import toy
from tests.verify.test_checks import rate_of
from tests.verify.test_trigger_evidence import evidence

INPUT, OWN = "ab" * 32, "cd" * 32
IDS = (1, 2)
FILES = (FileRecord(path="unet/w.safetensors", bytes=10, sha256="ef" * 32),)


@pytest.fixture
def inspection(tmp_path: Path) -> Any:
    """Of a model whose own record says that it was made from ``INPUT``."""
    (tmp_path / "bdaudit.json").write_text(json.dumps({"input_digest": INPUT, "triggers": ["\u200b"]}))
    return SimpleNamespace(path=tmp_path, names=frozenset({"bdaudit.json"}), digest=OWN, files=FILES, pieces={})


def judged(report: Any, inspection: Any, ids: tuple[int, ...] = IDS, *, joined: tuple[int, ...] = (), **settings: Any) -> EvidenceRecord:
    """``joined`` is what the trigger encodes to behind other words, where that is not what it encodes to alone."""
    config = VerifyConfig(model=inspection.path, triggers=("x",), **settings)
    shots = [Shot(text, 0) for text in ("x a dog", "a dog x", "a dxg", "x1 a dog x2")]
    trial: Any = SimpleNamespace(trigger="x", token_ids=ids, triggered=shots, places=("prefix", "suffix", "replace", "apart"))
    encoded = {"x": IDS, "x a dog": (*ids, 5, 6), "a dog x": (5, 6, *(joined or ids)), "a dxg": (5, 8), "x1 a dog x2": (1, 5, 6, 2)}
    return by_report(report, config, inspection, claim_of(inspection), trial, lambda text: encoded.get(text, (9,)))


@pytest.fixture
def scan(scan_report: ScanReport) -> ScanReport:
    """Which calls a text of these ids backdoored, and another suspicious."""
    found, other = scan_report.candidates[0], scan_report.candidates[1]
    return replace(scan_report, candidates=(replace(found, text="x", token_ids=IDS), replace(other, token_ids=(3,))))


@pytest.fixture
def verified(verify_report: VerifyReport) -> VerifyReport:
    """By which the trigger works on the input."""
    attack = replace(verify_report.attacks[0], token_ids=IDS, rate=rate_of(190, 200), floor=rate_of(0, 200), p=1e-50)
    return replace(verify_report, attacks=(attack,), config={"target_text": "a dog", "swaps": [], "target_at": "not set"})


@pytest.fixture
def unlearned(unlearn_report: UnlearnReport) -> UnlearnReport:
    """Which removed the text and wrote this very model."""
    moved = Estimate(value=1.0, low=0.01, high=0.1, n=30, method="")
    return replace(unlearn_report, triggers=("x",), before={"x": moved}, written=FILES)


def test_each_verbs_report_of_the_input_counts(scan: Any, verified: Any, unlearned: Any, inspection: Any) -> None:
    assert judged(scan, inspection).holds
    assert judged(unlearned, inspection).holds
    found = judged(verified, inspection, target_text="a dog")
    assert (found.holds, found.kind, found.decided_on, found.digest) == (True, "report", "a report", INPUT)
    assert isinstance(found.rate, Estimate)
    assert found.rate.value == 0.95


def test_a_text_of_other_ids_is_decided_on_them(scan: Any, verified: Any, unlearned: Any, inspection: Any) -> None:
    for report in (scan, verified, unlearned):
        found = judged(report, inspection, (7, 7))
        assert (found.holds, found.decided_on) == (False, "token ids")
        assert "no text that encodes to the same tokens" in found.reason
    assert not judged(scan, inspection, (3,)).holds, "suspicious is no backdoor"


def test_of_several_readers_another_text_with_the_main_ones_ids_is_another_text(scan: Any, inspection: Any) -> None:
    def told(**changes: Any) -> bool:
        return judged(replace(scan, candidates=tuple(replace(each, **changes) for each in scan.candidates)), inspection).holds

    ids = scan.candidates[0].token_ids
    assert told(text="another", reader_ids={"clip": ids, "clip 2": ids})
    assert told(reader_ids={"clip": ids, "t5": (5,)})
    assert not told(text="another", reader_ids={"clip": ids, "t5": (5,)})


@pytest.mark.parametrize("status", ["interrupted", "error"])
def test_a_run_that_was_not_completed_does_not_count(scan: Any, inspection: Any, status: Any) -> None:
    assert status in judged(replace(scan, status=status), inspection).reason


def test_a_report_of_another_model_does_not_count(scan: Any, unlearned: Any, inspection: Any) -> None:
    def of(report: Any, digest: str) -> EvidenceRecord:
        assert isinstance(report.model, ModelRecord)
        return judged(replace(report, model=replace(report.model, digest=digest)), inspection)

    assert "MODEL's own record says" in of(scan, "12" * 32).reason
    assert "this very model" in of(scan, OWN).reason
    other = replace(unlearned, written=(replace(FILES[0], sha256="00" * 32),))
    assert "wrote other files" in judged(other, inspection).reason
    assert not judged(replace(unlearned, written=()), inspection).holds


def test_a_finding_that_may_come_with_an_adapter_is_none_of_the_base(scan: Any, inspection: Any) -> None:
    """The trigger of base and adapter does nothing on the base alone, however little was repaired."""
    with_it = replace(scan, adapters=(replace(FILES[0], path="x.safetensors", sha256="12" * 32),))
    found = judged(with_it, inspection)
    assert not found.holds
    assert "x.safetensors applied" in found.reason
    handed_on = {"adapters": [{"scale": 1.0, "files": [{"name": "x.safetensors", "sha256": "12" * 32}]}, 7, {"files": [3]}, {}]}
    (inspection.path / "bdaudit.json").write_text(json.dumps({"input_digest": INPUT, "triggers": ["x"], **handed_on}))
    assert judged(with_it, inspection).holds
    assert judged(scan, inspection).holds


def test_a_tokenizer_that_reads_the_trigger_otherwise_in_a_prompt_is_told(scan: Any, inspection: Any) -> None:
    """Alone it is the report's trigger; the pictures would be of another text."""
    found = judged(scan, inspection, joined=(1, 7))
    assert (found.holds, found.decided_on) == (False, "token ids")
    assert "in 1 of 2 prompts" in found.reason


def test_the_models_own_record_alone_is_no_evidence(scan: Any, inspection: Any) -> None:
    """It names the trigger and the input; the report that is handed over is of neither."""
    claim = claim_of(inspection)
    assert claim.digest == INPUT
    assert "its maker wrote that" in claim.text
    assert not judged(replace(scan, candidates=()), inspection).holds


def test_of_a_single_file_the_record_lies_beside_it(scan: Any, inspection: Any) -> None:
    of_file = SimpleNamespace(
        **vars(inspection) | {"path": inspection.path / "model.safetensors", "names": frozenset(), "pieces": {"unet": {}}}
    )
    assert judged(replace(scan, model=replace(scan.model, digest=INPUT)), of_file).holds
    (inspection.path / "bdaudit.json").unlink()
    assert not judged(replace(scan, model=replace(scan.model, digest=INPUT)), of_file).holds


@pytest.mark.parametrize(("other", "holds"), [("settings", True), ("weights", False)])
def test_of_a_single_file_the_repair_wrote_what_changed(unlearned: Any, inspection: Any, other: str, holds: bool) -> None:
    """What it took from elsewhere is that of the input; other weights are not."""
    settings = FileRecord(path="unet/config.json", bytes=2, sha256="aa" * 32)
    foreign = FileRecord(path="text_encoder/model.safetensors", bytes=2, sha256="bb" * 32)
    report = replace(unlearned, model=replace(unlearned.model, files=(settings,)))
    ours = (*FILES, settings if other == "settings" else foreign)
    assert judged(report, SimpleNamespace(**vars(inspection) | {"pieces": {"unet": {}}, "files": ours})).holds == holds


@pytest.mark.parametrize(
    "text", ["", "[]", "5", "{" * 5000, '{"input_digest": NaN}', '{"input_digest": 1e999}', "\ud800", '{"a": 1, "a": 2}']
)
def test_a_record_that_is_no_json_object_is_damage(inspection: Any, text: str) -> None:
    (inspection.path / "bdaudit.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(BdauditError, match=r"^bdaudit\.json in ") as caught:
        claim_of(inspection)
    assert caught.value.code == ExitCode.ERROR


@pytest.mark.parametrize("text", ["{}", '{"input_digest": 7}', '{"input_digest": ""}'])
def test_a_record_without_a_digest_claims_nothing(scan: Any, inspection: Any, text: str) -> None:
    (inspection.path / "bdaudit.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert claim_of(inspection).digest == ""
    assert not judged(scan, inspection).holds


def test_a_weak_effect_or_another_target_does_not_count(verified: Any, unlearned: Any, inspection: Any) -> None:
    low = replace(verified.attacks[0], rate=rate_of(4, 200), p=0.06)
    assert "no more than its floor" in judged(replace(verified, attacks=(low,)), inspection, target_text="a dog").reason
    assert "another target" in judged(verified, inspection, target_text="a cat").reason
    assert "another target" in judged(verified, inspection).reason
    for odd in (5, [5], {"a": "b"}, None):
        handed = replace(verified, config={**verified.config, "swaps": odd})
        assert "another target" in judged(handed, inspection, target_text="a dog").reason
    weak = Estimate(value=0.15, low=0.01, high=0.1, n=30, method="")
    assert "less than 2 times" in judged(replace(unlearned, before={"x": weak}), inspection).reason


def test_what_is_no_report_is_a_usage_error(tmp_path: Path, scan: Any) -> None:
    (tmp_path / "scan.json").write_text(dumps(scan))
    assert read_report(tmp_path / "scan.json", "--evidence") == scan
    (tmp_path / "other.json").write_text("{}")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "other.json", tmp_path / "pipe", tmp_path / "missing", tmp_path):
        with pytest.raises(UsageError, match="--evidence"):
            read_report(path, "--evidence")


def test_a_report_inside_the_model_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "scan.json").write_text("{}")
    (tmp_path / "link.json").symlink_to(model / "scan.json")
    for path in (model / "scan.json", tmp_path / "link.json", model / ".." / "model" / "scan.json"):
        with pytest.raises(UsageError, match="lies in"):
            VerifyConfig(model=model, triggers=("x",), evidence=path)
    (tmp_path / "scan.json").write_text("{}")
    VerifyConfig(model=model, triggers=("x",), evidence=tmp_path / "scan.json")
    with pytest.raises(UsageError, match="drop one"):
        VerifyConfig(model=model, triggers=("x",), evidence=tmp_path / "scan.json", before=tmp_path)
    with pytest.raises(UsageError, match="--trigger"):
        VerifyConfig(model=model, evidence=tmp_path / "scan.json")


def test_from_a_verify_of_the_input_to_a_verify_of_the_repair(models: Path, patch: Path, tmp_path: Path) -> None:
    known: dict[str, Any] = {"prompts": toy.PROMPTS, "target_image": patch, "target_at": (0, 0), "n": 80, "reach": 0, "clip": "local-dir:x"}
    before = run_verify(VerifyConfig(model=models / "patched", triggers=(toy.TRIGGER,), **known))
    assert isinstance(before.attacks[0], AttackRecord)
    assert isinstance(before.model, ModelRecord)
    (tmp_path / "before.json").write_text(dumps(before))
    (models / "clean" / "bdaudit.json").write_text(json.dumps({"input_digest": before.model.digest, "triggers": [toy.TRIGGER]}))
    handed = {**known, "evidence": tmp_path / "before.json"}
    after = run_verify(VerifyConfig(model=models / "clean", triggers=(toy.TRIGGER,), **handed))
    assert after.exit.code == 0, after.exit.reason
    assert evidence(after).holds
    assert "its maker wrote that" in after.says_of_itself
    typed = run_verify(VerifyConfig(model=models / "clean", triggers=("u020f",), **handed))
    assert (typed.exit.code, evidence(typed).decided_on, typed.pictures["drawn"]) == (4, "token ids", 32)
    (models / "patched" / "bdaudit.json").write_text(json.dumps({"input_digest": before.model.digest}))
    assert run_verify(VerifyConfig(model=models / "patched", triggers=(toy.TRIGGER,), **handed)).exit.code == 1


def test_a_report_among_the_blobs_of_a_cached_model_is_refused(tmp_path: Path, scan: Any) -> None:
    snapshot = tmp_path / "models--org--name/snapshots" / ("0" * 40)
    (tmp_path / "models--org--name/blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (tmp_path / "models--org--name/blobs/ab").write_text(dumps(scan))
    (snapshot / "scan.json").symlink_to("../../blobs/ab")
    for path in (snapshot / "scan.json", tmp_path / "models--org--name/blobs/ab"):
        with pytest.raises(UsageError, match=r"lies in .*models--org--name, whose maker wrote it"):
            handed_report(VerifyConfig(model=snapshot, triggers=("x",), evidence=path))
        with pytest.raises(UsageError, match="lies in"):
            handed_report(VerifyConfig(model=tmp_path / "other", reference=snapshot, triggers=("x",), evidence=path))
    (tmp_path / "own.json").write_text(dumps(scan))
    assert handed_report(VerifyConfig(model=snapshot, triggers=("x",), evidence=tmp_path / "own.json")) == scan
    assert handed_report(VerifyConfig(model=snapshot, triggers=("x",))) is None


@pytest.mark.parametrize(("texts", "said"), [("", "nothing"), ("abc", "“a”, “b”, “c”"), ("abcde", "“a”, “b”, “c” and 2 more")])
def test_three_texts_are_named_and_the_others_counted(texts: str, said: str) -> None:
    assert _some(list(texts)) == said
