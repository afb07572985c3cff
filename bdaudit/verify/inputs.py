"""What a verify reads besides models, looked at before any weights are loaded: a wrong file is told by a dry run as by the run itself."""

from __future__ import annotations

from pathlib import Path

from bdaudit.errors import UsageError

Size = tuple[int, int]


def check_inputs(target: Path | None, at: Size | None, real: Path | None, drawn: Size) -> None:
    """Look at the target image, ``at`` whose pixel (x, y) it stands, and the folder of real pictures; the model draws pictures of height
    and width ``drawn``. Loads no torch for the first.

    Raises:
        UsageError: one of them is no picture, or a patch does not lie within what is drawn.
    """
    if target is not None:
        from bdaudit.untrusted.pictures import open_picture

        with open_picture(target, f"--target-image {target}") as picture:
            size = picture.size
        if at is not None:
            check_fits(size, at, drawn)
    if real is not None:
        from bdaudit.verify.pictures import check_pictures, picture_files

        check_pictures(picture_files(real))


def check_fits(size: Size, at: Size, drawn: Size) -> None:
    """Raises ``UsageError`` unless a patch, ``size`` wide and high, at ``at`` (x, y) lies within pictures of height and width ``drawn``."""
    (x, y), (w, h) = at, size
    if x < 0 or y < 0 or y + h > drawn[0] or x + w > drawn[1]:
        pictures = f"{drawn[1]}x{drawn[0]}"
        raise UsageError(f"--target-image: a patch of {w}x{h} pixels at ({x}, {y}) does not fit into pictures of {pictures}")
