"""A value of another type, wherever it stands in a model's or grader's JSON, ends in a declared error or goes through.

Everything is of every family's every file; a few of the places here, by a seed, and many more in ``tests/bench/fuzz.py``.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bdaudit.errors import BdauditError
from bdaudit.untrusted.clip_folder import inspect_clip
from bdaudit.untrusted.inspect import inspect
from fixtures import layout
from tests import small
from tests.models import tiny_dit, tiny_sdxl

ODD = (None, True, 1.5, [], {}, "x", [[]], {"x": []})
FAMILIES = ("stable-diffusion", "sdxl", "sd3", "flux", "pixart", "z-image", "grader")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Family → its small directory."""
    root = tmp_path_factory.mktemp("retyped")

    makers: dict[str, Callable[[Path], object]] = {
        "stable-diffusion": small.write,
        "sdxl": tiny_sdxl.write,
        "grader": lambda place: shutil.copytree(Path(layout.__file__).parent / "grader", place),
    }

    def folder(name: str) -> Path:
        if not (root / name).exists():
            makers.get(name, partial(tiny_dit.write, name))(root / name)
        return root / name

    return folder


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a JSON value; the first few of a long row of plain ones."""
    yield path
    for n, (key, inner) in enumerate(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()):
        if n < 12 or isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with ``new`` at ``path``."""
    if not path:
        return new
    changed = copy.copy(value)
    changed[path[0]] = put(value[path[0]], path[1:], new)
    return changed


@pytest.mark.parametrize("family", FAMILIES)
def test_no_type_is_taken_on_trust(folders: Callable[[str], Path], family: str) -> None:
    folder = folders(family)
    spots = [(file, path) for file in sorted(folder.rglob("*.json")) for path in places(json.loads(file.read_bytes()))]
    assert len(spots) > 100
    draw = random.Random(7)
    for file, path in draw.sample(spots, 40):
        plain = file.read_bytes()
        file.write_text(json.dumps(put(json.loads(plain), path, draw.choice(ODD))), encoding="utf-8")
        with suppress(BdauditError):
            inspect_clip(folder, "--clip") if family == "grader" else inspect(folder)
        file.write_bytes(plain)


@pytest.mark.parametrize("odd", [None, [], {}, 3])
@pytest.mark.parametrize(
    ("family", "file", "path"),
    [
        ("grader", "tokenizer_config.json", ("tokenizer_class",)),
        ("grader", "tokenizer.json", ("normalizer", "type")),
        ("stable-diffusion", "tokenizer/tokenizer.json", ("normalizer", "normalizers", 1, "pattern", "Regex")),
        ("sd3", "transformer/config.json", ("attention_head_dim",)),
        ("sd3", "transformer/config.json", ("dual_attention_layers",)),
        ("sd3", "text_encoder_3/config.json", ("d_kv",)),
    ],
)
def test_what_is_looked_up_or_reckoned_with_is_of_its_type(
    folders: Callable[[str], Path], family: str, file: str, path: tuple[Any, ...], odd: object
) -> None:
    place = folders(family) / file
    plain = place.read_bytes()
    place.write_text(json.dumps(put(json.loads(plain), path, odd)), encoding="utf-8")
    try:
        if odd == [] and path == ("dual_attention_layers",):
            inspect(place.parents[1])
        else:
            with pytest.raises(BdauditError):
                inspect_clip(place.parent, "--clip") if family == "grader" else inspect(place.parents[1])
    finally:
        place.write_bytes(plain)
