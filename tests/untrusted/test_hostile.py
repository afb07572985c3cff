"""Every hostile directory and input ends in its exit code, at once, and no canary sings."""

from __future__ import annotations

import pickle
import runpy
import time
from collections import Counter
from pathlib import Path

import pytest

from bdaudit.errors import BdauditError, UsageError
from bdaudit.models.load import load
from bdaudit.untrusted.inspect import Inspection, inspect
from bdaudit.untrusted.text_files import read_texts
from tests.untrusted import hostile_cache, hostile_files
from tests.untrusted.cached import empty_hub
from tests.untrusted.edits import code, pickled
from tests.untrusted.hostile import CASES, TEXTS, Case
from tests.untrusted.tiny import write_model


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.name}")
def test_ends_in_its_exit_code(case: Case, tmp_path: Path) -> None:
    model, canary = write_model(tmp_path / "model"), tmp_path / "canary"
    case.edit(model, canary)
    start = time.process_time()
    with pytest.raises(BdauditError) as caught:
        inspect(model, allow_pickle=case.allow_pickle)
    assert time.process_time() - start < 1
    assert caught.value.code == case.code, caught.value
    assert str(caught.value).isprintable()
    assert not canary.exists()


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_texts_are_usage_errors(name: str, tmp_path: Path) -> None:
    TEXTS[name](tmp_path / "tokens.txt")
    start = time.process_time()
    with pytest.raises(UsageError) as caught:
        read_texts(tmp_path / "tokens.txt")
    assert time.process_time() - start < 1
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("case", hostile_cache.CASES, ids=lambda case: f"{case.kind}: {case.name}")
def test_a_cache_ends_in_its_exit_code(case: hostile_cache.CacheCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_hub(tmp_path, monkeypatch).rmdir()
    snapshot, outside = hostile_cache.cache(tmp_path)
    case.edit(snapshot, outside)
    start = time.process_time()
    with pytest.raises(BdauditError) as caught:
        case.open(snapshot)
    assert time.process_time() - start < 1
    assert caught.value.code == case.code, caught.value
    assert str(caught.value).isprintable()
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("case", hostile_files.CASES, ids=lambda case: f"{case.kind}: {case.name}")
def test_a_single_file_ends_in_its_exit_code(case: hostile_files.FileCase, tmp_path: Path) -> None:
    canary, seconds = hostile_files.lay_out(tmp_path, case), [time.process_time()]

    def opened() -> Inspection:
        try:
            return case.open(tmp_path)
        finally:
            seconds.append(time.process_time())

    with pytest.raises(BdauditError) as caught:
        load(opened(), device="cpu")
    assert seconds[1] - seconds[0] < 1
    assert caught.value.code == case.code, caught.value
    assert str(caught.value).isprintable()
    assert not canary.exists()


def test_a_single_file_that_nobody_touched_is_read(tmp_path: Path) -> None:
    hostile_files.lay_out(tmp_path)
    assert hostile_files.FileCase("", "", 0, lambda file, canary: None).open(tmp_path)  # type: ignore[arg-type]


def test_the_corpus_is_broad() -> None:
    kinds = Counter((type(case).__name__, case.kind) for case in (*CASES, *hostile_cache.CASES, *hostile_files.CASES))
    assert len({(case.kind, case.name) for case in hostile_files.CASES}) == len(hostile_files.CASES)
    assert len(CASES) + len(TEXTS) >= 60
    assert min(kinds.values()) >= 4, kinds
    assert len({(case.kind, case.name) for case in CASES}) == len(CASES)
    assert len({(case.kind, case.name) for case in hostile_cache.CASES}) == len(hostile_cache.CASES)


def test_canaries_can_sing(tmp_path: Path) -> None:
    for protocol in range(6):
        pickle.loads(pickled(tmp_path / f"pickle {protocol}", protocol))
        assert (tmp_path / f"pickle {protocol}").exists()
    (tmp_path / "evil.py").write_text(code(tmp_path / "code"))
    runpy.run_path(str(tmp_path / "evil.py"))
    assert (tmp_path / "code").exists()
