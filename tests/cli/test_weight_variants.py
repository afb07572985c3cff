"""What becomes of a pass where weights lie beside the audited ones; and one run for each of them."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bdaudit.cli.weight_variants import audited, no_plain_pass
from bdaudit.config import ScanConfig
from bdaudit.errors import BdauditError, ExitCode
from bdaudit.kept_state import State
from bdaudit.measure.envelope import model_record
from bdaudit.records import Exit, NotMeasured, ScanReport, UnauditedWeights, UnlearnReport, VerifyReport
from bdaudit.untrusted.inspect import inspect
from tests.untrusted.edits import UNET
from tests.untrusted.ordinary import add_variant, halved, named, store
from tests.untrusted.tiny import write_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Full weights, a UNet of fp16 that is another one, and one in a folder below."""
    model = write_model(tmp_path / "model")
    store(model / named(UNET, "fp16"), {name: tensor * 2 for name, tensor in halved(model / UNET).items()})
    return model


def reported(report: Any, codes: dict[str, int] | None = None) -> Any:
    """A verb that inspects as the real ones do, and ends by the variant that it was asked for."""

    def run(config: Any, progress: Any) -> Any:
        code = (codes or {}).get(config.variant, 0)
        ended = Exit(code=code, name={0: "pass", 1: "finding", 3: "error"}[code], reason=f"ended in {code}")
        return replace(report, model=model_record(config, inspect(config.model, variant=config.variant)), exit=ended)

    return run


@pytest.fixture
def passed(scan_report: ScanReport) -> ScanReport:
    return replace(scan_report, candidates=scan_report.candidates[-3:])


@pytest.mark.parametrize("name", ["scan", "verify"])
def test_weights_that_nobody_chose_make_no_pass(
    bdaudit: Any, verb: Any, model: Path, scan_report: Any, verify_report: Any, name: str
) -> None:
    verb(name, reported({"scan": scan_report, "verify": verify_report}[name]))
    ended = bdaudit(name, model)
    assert ended.code == 4
    assert "weights that people would load were not audited: unet/diffusion_pytorch_model.fp16.safetensors (" in ended.last
    assert "choose with --variant full or fp16, or audit each with --variant all" in ended.last


def test_a_dry_run_warns_where_nobody_chose(bdaudit: Any, model: Path) -> None:
    said = "cannot pass (exit 1 or 4); choose with --variant full or fp16, or audit each with --variant all"
    assert said in bdaudit("scan", model, "--dry-run").out
    assert "cannot pass" not in bdaudit("scan", model, "--dry-run", "--variant", "fp16").out
    assert "cannot pass" not in bdaudit("scan", model, "--dry-run", "--variant", "all").out


@pytest.mark.parametrize("variant", ["full", "fp16"])
def test_weights_that_were_chosen_may_pass_and_the_others_are_in_the_report(
    bdaudit: Any, verb: Any, model: Path, passed: ScanReport, variant: str
) -> None:
    seen = verb("scan", reported(passed))
    ended = bdaudit("scan", model, "--variant", variant, "--json")
    report = json.loads(ended.out)
    assert (ended.code, seen[0].variant) == (0, variant)
    assert report["model"]["variants"]["unet"] == variant
    assert len(report["model"]["unaudited"]) == 1


@pytest.mark.parametrize(
    ("left", "said"), [(3, "a2 (other); choose with --variant full"), (4, "a2 (other) and 1 more; choose with --variant full")]
)
def test_three_of_the_weights_that_were_left_are_named(passed: ScanReport, left: int, said: str) -> None:
    weights = tuple(UnauditedWeights(path=f"a{i}", reason="other") for i in range(left))
    report = replace(
        passed, model=replace(passed.model, unaudited=weights, variants={"unet": "full"}), exit=Exit(code=0, name="pass", reason="none")
    )  # type: ignore[type-var]
    found = no_plain_pass(report, chosen=False).exit
    assert found.code == 4
    assert found.reason.endswith(said)
    assert no_plain_pass(report, chosen=True) == report


def test_a_finding_stays_one(bdaudit: Any, verb: Any, model: Path, scan_report: ScanReport) -> None:
    verb("scan", reported(scan_report, {"": 1}))
    assert bdaudit("scan", model).code == 1


def test_a_cast_takes_nothing_from_a_pass(bdaudit: Any, verb: Any, model: Path, passed: ScanReport) -> None:
    add_variant(model, "fp16")
    add_variant(model, "bf16", torch.bfloat16)
    seen = verb("scan", reported(passed))
    assert bdaudit("scan", model).code == 0
    assert bdaudit("scan", model, "--variant", "all").code == 0
    assert [config.variant for config in seen] == ["", "full"], "what is determined by the audited weights needs no run"


@pytest.mark.parametrize("codes", [{"full": 0, "fp16": 1}, {"full": 1, "fp16": 0}, {"full": 1, "fp16": 3}])
def test_each_is_audited_and_the_worst_counts(
    bdaudit: Any, verb: Any, model: Path, scan_report: ScanReport, codes: dict[str, int], tmp_path: Path
) -> None:
    seen = verb("scan", reported(scan_report, codes))
    pictures = ("--pictures", 1, "--pictures-to", tmp_path / "pictures")
    ended = bdaudit("scan", model, "--variant", "all", "--json", "--state", tmp_path / "state", *pictures)
    report = json.loads(ended.out)
    assert ended.code == 1
    assert {run["variant"]: run["code"] for run in report["variants"]} == codes
    assert all(run["findings"] for run in report["variants"])
    assert {c["variant"] for c in report["candidates"]} == {"full", "fp16"}
    assert len({config.state for config in seen}) == len({config.pictures_to for config in seen}) == 2, "each keeps its own"
    assert report["model"]["unaudited"] == []
    first = next(name for name, code in codes.items() if code == 1)
    others = [c["text"] for c in report["candidates"] if c["variant"] != first]
    assert others == [c.text for c in scan_report.candidates if c.verdict != "clean"]
    assert len(report["candidates"]) == len(scan_report.candidates) + len(others)


ORDER = (ExitCode.INTERRUPTED, ExitCode.FINDING, ExitCode.REFUSED, ExitCode.ERROR, ExitCode.INCONCLUSIVE, ExitCode.PASS)


@pytest.mark.parametrize(("worse", "better"), list(pairwise(ORDER)))
def test_the_worse_of_two_ends_counts_whichever_came_first(
    monkeypatch: pytest.MonkeyPatch, passed: ScanReport, worse: ExitCode, better: ExitCode
) -> None:
    monkeypatch.setattr("bdaudit.cli.weight_variants.variants_in", lambda model: ("full", "fp16"))
    unopened = replace(passed, model=NotMeasured(reason="not opened"))
    for first, second in ((worse, better), (better, worse)):
        ends = {"full": first, "fp16": second}
        config = ScanConfig(model=Path("m"), variant="all")
        ended = audited(config, lambda each, ends=ends: replace(unopened, exit=Exit.of(ends[each.variant], "x")))  # type: ignore[misc]
        assert ended.exit.code == worse
        assert len(ended.variants) == (1 if first == ExitCode.INTERRUPTED else 2), "the user stopped all of it"


def test_what_each_verify_found_is_told_by_its_variant(bdaudit: Any, verb: Any, model: Path, verify_report: VerifyReport) -> None:
    verb("verify", reported(verify_report, {"fp16": 1}))
    report = json.loads(bdaudit("verify", model, "--variant", "all", "--json").out)
    failed = [f"{check.name}: failed" for check in verify_report.checks if check.status == "failed"]
    assert failed
    assert [run["findings"] for run in report["variants"]] == [failed, failed]
    assert [c["name"] for c in report["checks"]] == [f"{name}: {c.name}" for name in ("full", "fp16") for c in verify_report.checks]


def test_what_no_variant_reaches_is_left_when_all_were_audited(bdaudit: Any, verb: Any, model: Path, verify_report: VerifyReport) -> None:
    store(model / "unet_ema/diffusion_pytorch_model.safetensors", {name: tensor * 3 for name, tensor in load_file(model / UNET).items()})
    verb("verify", reported(verify_report))
    ended = bdaudit("verify", model, "--variant", "all")
    assert ended.code == 4
    assert "unet_ema/diffusion_pytorch_model.safetensors" in ended.last
    assert "diffusion_pytorch_model.fp16" not in ended.last.partition("not audited: ")[2]


@pytest.mark.parametrize("there", [True, False])
def test_an_empty_folder_of_states_does_not_stay(
    bdaudit: Any, verb: Any, model: Path, passed: ScanReport, tmp_path: Path, there: bool
) -> None:
    """The runs hold their own folders until the report is delivered, so the one above them goes after that."""
    told = reported(passed)

    def keeping(config: Any, progress: Any) -> Any:
        state = State(config.state, "key")
        state.write_json("x", 1)
        state.finish()
        return told(config, progress)

    verb("scan", keeping)
    if there:
        (tmp_path / "state").mkdir()
    assert bdaudit("scan", model, "--variant", "all", "--state", tmp_path / "state").code == 0
    assert not (tmp_path / "state").exists()


def test_one_that_cannot_be_opened_keeps_no_other_from_its_run(bdaudit: Any, verb: Any, model: Path, scan_report: ScanReport) -> None:
    """What failed has no list of what it left, and a finding in another set counts more than its error."""
    told = reported(scan_report, {"fp16": 1})

    def damaged(config: Any, progress: Any) -> Any:
        if config.variant == "full":
            raise BdauditError("unet: NaN")
        return told(config, progress)

    seen = verb("scan", damaged)
    assert bdaudit("scan", model, "--variant", "all").code == 1
    assert [config.variant for config in seen] == ["full", "fp16"]


def test_a_repair_is_of_one_set_of_weights(bdaudit: Any, verb: Any, model: Path, unlearn_report: UnlearnReport) -> None:
    seen = verb("unlearn", reported(unlearn_report))
    assert bdaudit("unlearn", model, "--trigger", "cf", "--variant", "all").code == 2
    assert bdaudit("unlearn", model, "--trigger", "cf").code == 0, "the result holds the repaired weights alone"
    assert bdaudit("unlearn", model, "--trigger", "cf", "--variant", "fp16").code == 0
    assert [config.variant for config in seen] == ["", "fp16"]


@pytest.mark.parametrize("variant", ["../x", "a b", "\u202e"])
def test_a_variant_is_part_of_a_files_name(bdaudit: Any, model: Path, variant: str) -> None:
    assert bdaudit("scan", model, "--variant", variant).code == 2


def test_a_variant_that_is_not_there_names_those_that_are(bdaudit: Any, model: Path) -> None:
    ended = bdaudit("scan", model, "--variant", "bf16", "--dry-run")
    assert ended.code == 2
    assert "there are fp16, full" in ended.err


@pytest.mark.parametrize(("arguments", "said"), [((), "not audited"), (("--variant", "all"), "a run of their own, --variant fp16")])
def test_a_dry_run_says_what_would_be_audited(bdaudit: Any, model: Path, arguments: tuple[str, ...], said: str) -> None:
    ended = bdaudit("scan", model, "--dry-run", *arguments)
    assert ended.code == 0
    (line,) = (line for line in ended.out.splitlines() if "fp16.safetensors" in line)
    assert said in line
    add_variant(model, "bf16", torch.bfloat16)
    lines = bdaudit("scan", model, "--dry-run", *arguments).out.splitlines()
    assert sum("counts as audited" in line for line in lines) == 3
