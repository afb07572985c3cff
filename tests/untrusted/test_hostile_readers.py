"""Every hostile reader and chat template ends in its exit code, at once, with nothing run; what is harmless reads as before."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from bdaudit.errors import BdauditError
from bdaudit.models.load import load
from bdaudit.untrusted.inspect import inspect
from tests.untrusted.hostile_readers import CASES, HARMLESS, SIZES, TEXT, TRUSTED, ReaderCase, write

FAMILIES = ("sd3", "sana", "z-image", "flux2")


@pytest.fixture(scope="module")
def origins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readers")
    for family in FAMILIES:
        write(family, folder / family)
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.name}")
def test_ends_in_its_exit_code(case: ReaderCase, origins: Path, tmp_path: Path) -> None:
    model, canary = shutil.copytree(origins / case.family, tmp_path / "model"), tmp_path / "canary"
    case.edit(model, canary)
    start = time.process_time()
    with pytest.raises(BdauditError) as caught:
        case.open(model)
    assert time.process_time() - start < 1
    assert caught.value.code == case.code, caught.value
    assert str(caught.value).replace("\n", " ").isprintable()
    assert not canary.exists()


@pytest.mark.parametrize("name", HARMLESS)
def test_what_changes_no_id_goes_through(name: str, origins: Path, tmp_path: Path) -> None:
    family, edit = HARMLESS[name]
    model = shutil.copytree(origins / family, tmp_path / "model")
    edit(model, tmp_path / "canary")
    size = SIZES.get(family, (16, 16))
    found, plain = (load(inspect(each, size=size, trusted=TRUSTED), device="cpu").text.ids([TEXT]) for each in (model, origins / family))
    assert all(torch.equal(one, other) for one, other in zip(found.by_reader, plain.by_reader, strict=True))
    assert not (tmp_path / "canary").exists()


def test_the_corpus_is_broad() -> None:
    kinds = Counter(case.kind for case in CASES)
    assert set(kinds) == {"T5 readers", "Gemma readers", "Qwen readers", "texts rewritten", "chat templates"}
    assert min(kinds.values()) >= 8, kinds
    assert len({(case.kind, case.name) for case in CASES}) == len(CASES)
    assert {case.family for case in CASES} == set(FAMILIES)
