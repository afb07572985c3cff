"""The folder that a library loads a part from: a throw-away one, in which nothing lies but what was checked.

Settings are written anew, those that a layout knows alone; weights and vocabularies are links to the files that were inspected. The folder
goes when the block ends, by an error or a signal too (the command line turns SIGTERM and SIGHUP into one).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bdaudit.errors import BdauditError


@contextmanager
def staged(part: str, loaded: Mapping[str, Path | bytes], settings: Mapping[str, Mapping[str, Any]]) -> Iterator[Path]:
    """A folder with what a model's ``part`` is loaded from: of ``loaded``, path within the model → where that lies or what it holds,
    and of ``settings``.

    Raises:
        BdauditError: there is no place for it.
    """
    with ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bdaudit-")))
            for path, source in loaded.items():
                own, _, file = path.partition("/")
                if own == part and file and "/" not in file:
                    _put(folder / file, source, settings.get(path))
        except OSError as error:
            said = f"the temporary folder that {part} is loaded from cannot be made: {error.strerror}"
            raise BdauditError(f"{said}; set TMPDIR to a folder that can be written") from error
        yield folder


def _put(target: Path, source: Path | bytes, settings: Mapping[str, Any] | None) -> None:
    """The settings, the content, or a link; a copy where the file system has no links."""
    if settings is not None or isinstance(source, bytes):
        target.write_bytes(source if settings is None and isinstance(source, bytes) else json.dumps(settings).encode())
        return
    try:
        target.symlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)
