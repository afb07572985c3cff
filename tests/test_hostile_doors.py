"""Each hostile file at each door ends as it should, runs nothing, and takes neither long nor much memory."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest

from bdaudit.errors import BdauditError
from tests.hostile_doors import CASES, Case

SECONDS, MEGABYTES = 20, 700
"""Of one case; the first loads the libraries."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.name}")
def test_it_ends_as_it_should_and_runs_nothing(case: Case, tmp_path: Path) -> None:
    folder, canary = tmp_path / "in", tmp_path / "canary"
    folder.mkdir()
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        case.run(folder, canary)
        code = 0
    except BdauditError as error:
        code = int(error.code)
    assert code == case.code
    assert not canary.exists()
    assert time.process_time() - started < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES
