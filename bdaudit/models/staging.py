"""The folder that a library loads a part from: a throw-away one, in which nothing lies but what was checked.

Settings are written anew, those that a layout knows alone; weights and vocabularies are links to the files that were inspected.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def staged(model: Path, part: str, loaded: Iterable[str], settings: Mapping[str, Mapping[str, Any]]) -> Iterator[Path]:
    """A folder with what ``part`` of ``model`` is loaded from; ``loaded`` and ``settings`` have paths within the model."""
    with tempfile.TemporaryDirectory(prefix="bdaudit-") as name:
        folder = Path(name)
        for path in loaded:
            own, _, file = path.partition("/")
            if own != part or "/" in file:
                continue
            if path in settings:
                (folder / file).write_text(json.dumps(settings[path]), encoding="utf-8")
            else:
                (folder / file).symlink_to((model / path).resolve())
        yield folder
