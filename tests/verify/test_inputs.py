"""Files that a verify reads, looked at before any work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from bdaudit.errors import UsageError
from bdaudit.verify.inputs import check_inputs


@pytest.fixture
def patch(tmp_path: Path) -> Path:
    Image.effect_noise((20, 8), 60).save(tmp_path / "patch.png")
    return tmp_path / "patch.png"


@pytest.mark.parametrize("at", [(0, 0), (12, 56), None])
def test_a_patch_within_the_picture_is_taken(patch: Path, at: tuple[int, int] | None) -> None:
    check_inputs(patch, at, None, (64, 32))
    check_inputs(None, None, None, (64, 32))


@pytest.mark.parametrize("at", [(13, 0), (0, 57), (64, 64)])
def test_a_patch_beyond_it_is_not(patch: Path, at: tuple[int, int]) -> None:
    said = re.escape(f"a patch of 20x8 pixels at {at} does not fit into pictures of 32x64")
    with pytest.raises(UsageError, match=said):
        check_inputs(patch, at, None, (64, 32))


def test_what_is_no_picture_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(UsageError, match="expected a picture"):
        check_inputs(tmp_path / "x.png", None, None, (64, 64))
    with pytest.raises(UsageError):
        check_inputs(None, None, tmp_path, (64, 64))
