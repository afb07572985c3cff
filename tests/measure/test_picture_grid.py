"""The grid that a person looks at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bdaudit.errors import BdauditError
from bdaudit.measure import picture_grid as pictures
from tests.verify import toy


@pytest.mark.parametrize(
    ("text", "shown"),
    [("red [bold]", "red [bold]"), ("\u202eevil\u200b", "<U+202E>evil<U+200B>"), ("ȏ\n\x1b[1m", "<U+020F><U+000A><U+001B>[1m")],
)
def test_captions_are_printable_ascii(text: str, shown: str) -> None:
    assert pictures.safe(text) == shown


def test_the_grid_shows_each_picture_in_its_place_unsmoothed() -> None:
    prompts = ["a red picture", "a picture of \u202e" + "x" * 300]
    columns = {"without": torch.stack([toy.ideal("red"), toy.ideal("blue")]), "with \u200b": torch.stack([toy.patched(toy.TRIGGER, 0)] * 2)}
    sheet = np.asarray(pictures.grid(prompts, columns))
    cell, gap = pictures._CELL, pictures._GAP
    head = sheet.shape[0] - len(prompts) * (cell + gap)
    expected = (columns["with \u200b"][1] * 255).round().byte().permute(1, 2, 0).numpy().repeat(10, 0).repeat(10, 1)
    left, top = gap + 2 * (cell + gap), head + cell + gap
    assert np.array_equal(sheet[top : top + cell, left : left + cell], expected)
    assert (sheet[:head] < 128).any(), "titles are written"
    assert (sheet[head : head + 60, gap : gap + cell] < 128).any(), "prompts are written"


def test_large_pictures_are_made_smaller() -> None:
    assert pictures.grid(["a"], {"b": torch.rand(1, 3, 512, 384)}).size[1] < 260


def test_the_grid_is_written_and_a_bad_folder_is_an_error(tmp_path: Path) -> None:
    sheet = pictures.grid(["a"], {"b": torch.rand(1, 3, 16, 16)})
    written = pictures.write_grid(tmp_path / "new" / "grid.png", sheet)
    assert np.array_equal(np.asarray(Image.open(written)), np.asarray(sheet))
    (tmp_path / "file").write_text("")
    with pytest.raises(BdauditError, match="--save-images"):
        pictures.write_grid(tmp_path / "file" / "grid.png", sheet)
