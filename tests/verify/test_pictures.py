"""Reading pictures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bdaudit.errors import UsageError
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
