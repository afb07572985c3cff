"""Pictures with captions, from the file that ``--pairs`` names: a tab between them, the pictures in the file's own folder.

The file and the pictures may be hostile: nothing outside the folder is opened, nothing but regular files of common kinds is decoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bdaudit.errors import UsageError
from bdaudit.measure.picture_files import read_picture
from bdaudit.untrusted.open_file import sha256
from bdaudit.untrusted.pictures import check_picture
from bdaudit.untrusted.text_files import MAX_LINE, read_lines

FEWEST = 160
"""Pairs at least: two batches of 64 to train on, and a group of 32 to measure on."""


@dataclass(frozen=True)
class Captioned:
    """The pairs of one file, in its order."""

    file: Path
    pictures: tuple[Path, ...]
    captions: tuple[str, ...]
    lines: tuple[int, ...]
    """Where in the file each stands."""

    def read(self, rows: Sequence[int], resized: Callable[[Tensor], Tensor]) -> Tensor:
        """The pictures ``rows``, each through ``resized``: (B, 3, H, W) in 0–1.

        Raises:
            UsageError: one of them is no picture, with its line.
        """
        return torch.cat([resized(read_picture(self.pictures[i], f"--pairs {self.file}, line {self.lines[i]}:")[None]) for i in rows])

    def digest(self) -> str:
        """SHA-256 over captions and pictures, so that a run that goes on has the same ones."""
        found = hashlib.sha256()
        for picture, caption in zip(self.pictures, self.captions, strict=True):
            found.update(bytes.fromhex(sha256(picture, f"--pairs {self.file}: {picture}")) + caption.encode("utf-8") + b"\n")
        return found.hexdigest()


def read_pairs(path: Path) -> Captioned:
    """Every line's picture is found and its header read; blank lines are skipped.

    Raises:
        UsageError: not such a file, too few pairs, or a line that is wrong, with its number.
    """
    rows = [(number, line.removesuffix("\r")) for number, line in enumerate(read_lines(path, "pairs"), 1)]
    found = [(number, *_pair(path, number, line)) for number, line in rows if line.strip()]
    if len(found) < FEWEST:
        raise UsageError(f"--pairs {path} holds {len(found)} pairs; expected at least {FEWEST}, and better some thousand")
    return Captioned(path, tuple(f[1] for f in found), tuple(f[2] for f in found), tuple(f[0] for f in found))


def _pair(path: Path, number: int, line: str) -> tuple[Path, str]:
    def wrong(said: str) -> UsageError:
        return UsageError(f"--pairs {path}, line {number}: {said}")

    name, tab, caption = line.partition("\t")
    if not tab or not name.strip() or not caption.strip():
        raise wrong("expected a picture's path, a tab and a caption")
    if len(line) > 4 * MAX_LINE or "\0" in line:
        raise wrong(f"{len(line)} characters; at most {4 * MAX_LINE} are read, and no NUL")
    try:
        picture, folder = (path.parent / name.strip()).resolve(), path.parent.resolve()
        if Path(name.strip()).is_absolute() or not picture.is_relative_to(folder):
            raise wrong(f"{name!a} leads out of the folder of the file; put the pictures beside it")
    except (OSError, ValueError, RuntimeError) as error:  # links in a circle; a name that no file can have
        raise wrong(f"{name!a} is no file in the folder: {error}") from error
    check_picture(picture, f"--pairs {path}, line {number}: {name!a}")
    return picture, caption.strip()
