"""The file of pairs and its pictures, which may be hostile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from bdaudit.errors import UsageError
from bdaudit.unlearn.clean.captioned_pictures import read_pairs
from bdaudit.untrusted import pictures as bounded


def write(folder: Path, n: int = 160, extra: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    for i in range(4):
        Image.new("RGB", (6, 4), (60 * i, 0, 0)).save(folder / f"{i}.png")
    (folder / "pairs.tsv").write_text("".join(f"{i % 4}.png\tpicture {i}\n" for i in range(n)) + extra, encoding="utf-8")
    return folder / "pairs.tsv"


def test_lines_become_pairs(tmp_path: Path) -> None:
    found = read_pairs(write(tmp_path, 160, "\n  \n./1.png\t a dog \r\n"))
    assert len(found.captions) == 161
    assert (found.captions[-1], found.pictures[-1].name, found.lines[-1]) == ("a dog", "1.png", 163)
    pictures = found.read([1, 3], lambda picture: picture[..., :2, :2])
    assert pictures.shape == (2, 3, 2, 2)
    assert torch.allclose(pictures[:, 0, 0, 0], torch.tensor([60 / 255, 180 / 255]))


def test_the_digest_follows_captions_and_pictures(tmp_path: Path) -> None:
    file = write(tmp_path)
    before = read_pairs(file).digest()
    assert read_pairs(file).digest() == before
    Image.new("RGB", (6, 4), (1, 2, 3)).save(tmp_path / "0.png")
    changed = read_pairs(file).digest()
    file.write_text(file.read_text().replace("picture 7\n", "picture seven\n"))
    assert len({before, changed, read_pairs(file).digest()}) == 3


def test_too_few_are_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds 3 pairs; expected at least 160"):
        read_pairs(write(tmp_path, 3))


def _outside(folder: Path) -> str:
    Image.new("RGB", (2, 2)).save(folder.parent / "secret.png")
    return "../secret.png"


def _absolute(folder: Path) -> str:
    return str(folder / "0.png")


def _link(folder: Path) -> str:
    (folder / "link.png").symlink_to(_outside(folder).replace("..", str(folder.parent)))
    return "link.png"


def _pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe.png")
    return "pipe.png"


def _postscript(folder: Path) -> str:
    (folder / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    return "a.png"


def _large(folder: Path) -> str:
    Image.new("RGB", (40, 40)).save(folder / "large.png")
    return "large.png"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_outside, "leads out of the folder"),
        (_absolute, "leads out of the folder"),
        (_link, "leads out of the folder"),
        (_pipe, "is a pipe"),
        (_postscript, "expected a picture"),
        (_large, "40×40 pixels"),
        (lambda folder: "missing.png", "cannot be opened: No such file"),
        (lambda folder: "pairs.tsv", "expected a picture"),
        (lambda folder: "a\0b", "no NUL"),
    ],
)
def test_a_hostile_picture_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], str], said: str
) -> None:
    monkeypatch.setattr(bounded, "MAX_PIXELS", 1000)
    write(tmp_path / "in")
    file = write(tmp_path / "in", 160, f"{make(tmp_path / 'in')}\ta dog\n")
    with pytest.raises(UsageError, match=f"line 161: .*{said}"):
        read_pairs(file)


@pytest.mark.parametrize("line", ["0.png a dog", "0.png\t", "\ta dog", "0.png\t \n"])
def test_a_line_that_is_no_pair_is_told(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError, match="line 161: expected a picture's path, a tab and a caption"):
        read_pairs(write(tmp_path, 160, line))


def test_a_picture_that_breaks_off_is_told_when_it_is_read(tmp_path: Path) -> None:
    file = write(tmp_path)
    Image.effect_noise((40, 40), 50).save(tmp_path / "2.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:200])
    found = read_pairs(file)
    with pytest.raises(UsageError, match=r"line 3: .*expected a picture"):
        found.read([2], lambda picture: picture)
