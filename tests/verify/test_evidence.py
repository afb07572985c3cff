"""The pairs that are shown are the worst, the middle and the best, on the same seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from bdaudit.measure.picture_grid import grid
from bdaudit.records import NotMeasured
from bdaudit.verify import evidence
from bdaudit.verify.evidence import extremes, write_evidence
from bdaudit.verify.gallery import Gallery, Shot
from tests.verify import toy

NONE = NotMeasured(reason="none")


def test_worst_median_and_best_by_distance() -> None:
    distances = torch.tensor([0.5, 0.1, 0.9, 0.3, 0.7, 0.2, 0.8, 0.6, 0.4, 0.0])
    shown = extremes(distances)
    assert [label for _, label in shown] == ["worst"] * 3 + ["median"] * 2 + ["best"] * 3
    assert [round(float(distances[i]), 1) for i, _ in shown] == [0.9, 0.8, 0.7, 0.5, 0.4, 0.2, 0.1, 0.0]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
def test_of_few_pairs_each_is_shown_once(n: int) -> None:
    assert sorted(i for i, _ in extremes(torch.rand(n))) == list(range(n))


def test_the_columns_are_called_what_the_models_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shots, columns = [Shot(prompt, i) for i, prompt in enumerate(toy.PROMPTS)], []
    galleries = [Gallery(toy.ColourGrader()), Gallery(toy.ColourGrader())]
    for gallery in galleries:
        gallery.add(shots, lambda texts, seeds: toy.draw("clean", texts, seeds), 64, lambda done, total: None)
    monkeypatch.setattr(evidence, "grid", lambda captions, drawn: columns.append(list(drawn)) or grid(captions, drawn))
    write_evidence(tmp_path, (), shots, galleries[0], NONE, galleries[1], ("x", "the model before"))
    assert columns == [["the model", "the model before"]]


def test_a_grid_shows_the_models_side_by_side(tmp_path: Path) -> None:
    shots = [Shot(prompt, i) for i, prompt in enumerate(toy.PROMPTS)]
    galleries = [Gallery(toy.ColourGrader()), Gallery(toy.ColourGrader())]
    for gallery, name in zip(galleries, ("clean", "dead"), strict=True):
        gallery.add(shots, lambda texts, seeds, name=name: toy.draw(name, texts, seeds), 64, lambda done, total: None)
    (path,) = write_evidence(tmp_path, (), shots, galleries[0], NONE, galleries[1])
    assert Path(path).name == "quality.png"
    alone = write_evidence(tmp_path, (), shots, galleries[0], NONE, NONE)
    assert [Path(p).name for p in alone] == ["clean.png"]
    assert Image.open(path).width > Image.open(alone[0]).width
