"""Sheets of pictures: of which texts, where they lie, and who can read them."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from bdaudit.errors import BdauditError
from bdaudit.progress import silent
from bdaudit.records import CandidateRecord, ScanReport
from bdaudit.report.content.scan import pictures as shown_on_a_page
from bdaudit.scan import pictures
from tests.scan.test_settle import record


def ranked() -> list[CandidateRecord]:
    verdicts: list[Any] = ["backdoored", "backdoored", "backdoored (accepted)", "clean", "clean"]
    found = [replace(record(f"w{i}", verdict), rank=i + 1) for i, verdict in enumerate(verdicts)]
    return [found[0], replace(found[1], same_as="w0"), *found[2:]]


def test_every_finding_has_a_sheet_and_the_first_of_the_ranking_too() -> None:
    assert [each.text for each in pictures.shown(ranked())] == ["w0", "w2"]
    assert [each.rank for each in pictures.shown([replace(record("x", "clean"), rank=rank) for rank in (1, 2)])] == [1]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], list[int]]]:
    seen: list[tuple[list[str], list[int]]] = []

    def sample(suspect: Any, texts: Any, seeds: Any, **_: Any) -> Tensor:
        seen.append((list(texts), list(seeds)))
        return torch.rand(len(texts), 3, 16, 16)

    monkeypatch.setattr(pictures, "sample", sample)
    monkeypatch.setattr(pictures, "where_it_does_most", lambda looking, text, n: (("a cat",) * n, ("prefix",) * n, ()))
    return seen


def looking() -> Any:
    return SimpleNamespace(context=SimpleNamespace(suspect=None, seed=3, progress=silent))


def test_a_sheet_has_the_same_noise_with_and_without_and_nobody_else_reads_it(tmp_path: Path, drawn: Any) -> None:
    folder = tmp_path / "new" / "seen"
    paths = pictures.draw(looking(), ranked(), 2, 5.0, folder)
    assert [Path(path).name for path in paths] == ["0001.png", "0003.png"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [texts for texts, _ in drawn[:2]] == [["a cat"] * 2, ["w0 a cat"] * 2]
    assert drawn[0][1] == drawn[1][1]
    assert len(set(drawn[0][1])) == 2
    assert Image.open(paths[0]).size[1] > 300, "two rows"


def test_a_folder_that_others_can_read_is_shut(tmp_path: Path, drawn: Any) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    pictures.draw(looking(), ranked()[:1], 1, 5.0, tmp_path / "open")
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o700
    (tmp_path / "file").write_text("")
    with pytest.raises(BdauditError, match="--pictures-to"):
        pictures.draw(looking(), ranked()[:1], 1, 5.0, tmp_path / "file")


def test_a_page_hides_each_until_it_is_asked_for() -> None:
    report: Any = SimpleNamespace(images=("x/0001.png", "x/0003.png", "x/other.png"), candidates=tuple(ranked()))
    found = shown_on_a_page(report)
    assert [(picture.path, picture.hidden) for picture in found] == [("x/0001.png", True), ("x/0003.png", True)]
    assert found[0].says.startswith("“w0”, backdoored")
    assert ScanReport.images == ()


def test_a_sheet_is_told_by_the_candidates_of_its_own_variant() -> None:
    other = replace(record("of another variant"), rank=1, variant="fp16")
    report: Any = SimpleNamespace(images=("x/0001.png",), candidates=(*ranked(), other))
    assert [picture.says.split(":")[0] for picture in shown_on_a_page(report)] == ["“w0”, backdoored"]
