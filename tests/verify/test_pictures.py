"""Reading pictures, and the grid that a person looks at."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bdaudit.errors import BdauditError, UsageError
from bdaudit.measure.picture_files import read_picture
from bdaudit.verify import pictures
from tests.verify import toy


def test_a_picture_survives_a_round_trip(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = read_picture(tmp_path / "a.png", "--target-image")
    assert read.shape == (3, 5, 7)
    assert torch.equal((read * 255).round().byte(), torch.from_numpy(pixels).permute(2, 0, 1))


def test_what_is_no_picture_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no")
    wrong = {tmp_path / "a.png": "expected a picture", tmp_path / "missing.png": "cannot be opened", tmp_path: "is a folder"}
    for path, said in wrong.items():
        with pytest.raises(UsageError, match=rf"^--target-image {path}:? {said}"):
            read_picture(path, "--target-image")
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match="expected a folder of at least 2 pictures"):
            pictures.picture_files(folder)


def test_each_picture_of_a_folder_is_looked_at_before_the_work(tmp_path: Path) -> None:
    for name in ("0.png", "1.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    pictures.check_pictures(pictures.picture_files(tmp_path))
    os.mkfifo(tmp_path / "2.png")
    with pytest.raises(UsageError, match=r"^--real-images .*2\.png is a pipe"):
        pictures.check_pictures(pictures.picture_files(tmp_path))


def test_a_folder_of_mixed_sizes_gives_a_feature_each(tmp_path: Path) -> None:
    for i, side in enumerate((16, 32, 20)):
        Image.new("RGB", (side, side + 4), (200, 30, 30)).save(tmp_path / f"{i}.png")
    features = pictures.folder_features(pictures.picture_files(tmp_path), toy.ColourGrader())
    assert features.shape == (3, 49)
    assert torch.allclose(features[0], features[1], atol=1e-3)


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
