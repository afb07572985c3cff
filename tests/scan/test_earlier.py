"""What earlier runs found: kept by the model, joined with what this run found, and let through by an entry alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from bdaudit.config.acceptance import Acceptance
from bdaudit.errors import BdauditError, ExitCode, UsageError
from bdaudit.records import EarlierFinding, Exit
from bdaudit.scan import earlier
from bdaudit.scan.earlier import FOLDER, found_earlier, joined_with, remember, standing
from tests.scan.test_settle import record

MODEL, OTHER = "a" * 64, "b" * 64
TODAY = date(2027, 1, 1)
PASS = Exit.of(ExitCode.PASS, "0 of 5 candidates backdoored")


def of(text: str, ids: tuple[int, ...], verdict: Any = "backdoored", effect: float = 9.0) -> Any:
    return replace(record(text, verdict), token_ids=ids, effect=effect)


def test_what_one_run_found_the_next_one_knows_whatever_its_list(tmp_path: Path) -> None:
    remember(tmp_path, MODEL, 1, [of("cf", (1, 2)), of("time", (3,), "clean"), replace(of("CF", (1, 2)), same_as="cf")])
    remember(tmp_path, MODEL, 2, [of("zz", (4,), effect=20.0), of("cf", (1, 2), effect=11.0)])
    remember(tmp_path, OTHER, 3, [of("other", (5,))])
    found = found_earlier(tmp_path, MODEL, [of("time", (3,), "clean")])
    assert [(finding.text, finding.effect, finding.seed) for finding in found] == [("zz", 20.0, 2), ("cf", 11.0, 2)]
    assert [finding.text for finding in found_earlier(tmp_path, MODEL, [of("cf", (1, 2))])] == ["zz"], "this run found the other itself"
    assert [finding.text for finding in found_earlier(tmp_path, MODEL, [of("zz", (4,), "clean")])] == ["zz", "cf"], (
        "a pass takes nothing back"
    )


def test_what_another_reader_tells_apart_is_another_finding(tmp_path: Path) -> None:
    read = replace(of("cf", (1, 2)), reader_ids={"clip": (1, 2), "t5": (5,)})
    remember(tmp_path, MODEL, 1, [read])
    (found,) = found_earlier(tmp_path, MODEL, [replace(read, text="CF", reader_ids={"clip": (1, 2), "t5": (6,)})])
    assert (found.text, found.reader_ids) == ("cf", {"clip": (1, 2), "t5": (5,)})
    assert not found_earlier(tmp_path, MODEL, [replace(read, text="cf ")])


def test_a_run_that_found_nothing_leaves_nothing_and_the_same_run_one_file(tmp_path: Path) -> None:
    remember(tmp_path, MODEL, 1, [of("time", (3,), "clean")])
    assert not (tmp_path / FOLDER).exists()
    for _ in range(2):
        remember(tmp_path, MODEL, 1, [of("cf", (1,))])
    assert len(list((tmp_path / FOLDER).iterdir())) == 1


@pytest.mark.parametrize("content", ["no", "{}", '[{"text": 1}]'])
def test_a_file_that_is_none_of_ours_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / f"{MODEL}-0.json").write_text(content)
    with pytest.raises(UsageError, match="--keep"):
        found_earlier(tmp_path, MODEL, [])
    (tmp_path / "file").write_text("")
    with pytest.raises(BdauditError, match="--keep"):
        remember(tmp_path / "file", MODEL, 1, [of("cf", (1,))])


@pytest.mark.parametrize(("limits", "taken"), [((0, 0), True), ((-1, 0), False), ((0, -1), False)])
def test_findings_that_were_kept_are_read_within_limits(
    limits: tuple[int, int], taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (earlier.LIMITS, earlier.MOST) == ((2**22, 2**18), 1000)
    remember(tmp_path, MODEL, 1, [of("cf", (1,))])
    (file,) = (tmp_path / FOLDER).iterdir()
    data = file.read_bytes()
    size, items = len(data), sum(map(data.count, (b",", b"[", b"{")))
    monkeypatch.setattr(earlier, "LIMITS", (size + limits[0], items + limits[1]))
    if taken:
        assert [finding.text for finding in found_earlier(tmp_path, MODEL, [])] == ["cf"]
        return
    with pytest.raises(UsageError, match="--keep"):
        found_earlier(tmp_path, MODEL, [])


def test_no_more_than_a_thousand_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (1, 2, 3):
        remember(tmp_path, MODEL, seed, [of(f"cf{seed}", (seed,))])
    monkeypatch.setattr(earlier, "MOST", 2)
    assert len(found_earlier(tmp_path, MODEL, [])) == 2


def entry(**changed: Any) -> Acceptance:
    return Acceptance(**({"model": MODEL, "token_ids": (1, 2), "reason": "a style", "expires": "2027-02-01", "effect": 5.0} | changed))


FINDING = EarlierFinding(text="cf", token_ids=(1, 2), effect=9.0, p_adjusted=1e-9, seed=1)


@pytest.mark.parametrize(
    ("given", "stands"),
    [
        ([], True),
        ([entry()], False),
        ([entry(effect=4.0)], True),
        ([entry(model="*")], False),
        ([entry(model=OTHER)], True),
        ([entry(expires="2026-12-31")], True),
        ([entry(token_ids=(1,))], True),
    ],
    ids=["none", "named", "outgrown", "any", "another", "expired", "other ids"],
)
def test_only_an_entry_lets_an_earlier_finding_through(given: list[Acceptance], stands: bool) -> None:
    assert standing([FINDING], given, MODEL, TODAY) == ((FINDING,) if stands else ())


@pytest.mark.parametrize(
    ("code", "gate", "ends"),
    [
        (ExitCode.PASS, "backdoored", ExitCode.FINDING),
        (ExitCode.INCONCLUSIVE, "backdoored", ExitCode.FINDING),
        (ExitCode.FINDING, "suspicious", ExitCode.FINDING),
        (ExitCode.PASS, "never", ExitCode.PASS),
    ],
)
def test_an_earlier_finding_counts_as_ones_own(code: ExitCode, gate: str, ends: ExitCode) -> None:
    ended = joined_with(Exit.of(code, "said"), [FINDING], gate)
    assert (ended.code, ended.reason) == (ends, "said; 1 more found by earlier runs of this model (seed 1), which stand")
    assert joined_with(PASS, [], gate) == PASS
