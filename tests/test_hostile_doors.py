"""Each hostile file at each door ends as it should, runs nothing, and takes neither long nor much memory."""

from __future__ import annotations

import resource
import time
from collections import Counter
from pathlib import Path

import pytest

from bdaudit.errors import BdauditError, ExitCode
from tests import hostile_doors, hostile_folders, hostile_weights
from tests.hostile_doors import Case
from tests.untrusted import hostile, hostile_cache

CASES = (*hostile_doors.CASES, *hostile_folders.CASES, *hostile_weights.CASES)

SECONDS, MEGABYTES = 20, 700
"""Of one case; the first loads the libraries."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.name}")
def test_it_ends_as_it_should_and_runs_nothing(case: Case, tmp_path: Path) -> None:
    folder, canary = tmp_path / "in", tmp_path / "canary"
    folder.mkdir()
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    code, said = 0, ""
    try:
        case.run(folder, canary)
    except BdauditError as error:
        code, said = int(error.code), str(error)
    assert code == case.code
    assert said.isprintable()
    assert not canary.exists()
    assert time.process_time() - started < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES


def test_the_corpus_is_broad() -> None:
    kinds = Counter(case.kind for case in CASES)
    inside = {case.kind for case in (*hostile.CASES, *hostile_cache.CASES)}
    assert len(kinds | dict.fromkeys(inside)) >= 40
    assert len({(case.kind, case.name) for case in CASES}) == len(CASES)
    assert all(code in ExitCode and code != ExitCode.FINDING for code in (case.code for case in CASES))
