"""Directories as people have them are plain: inspected without a refusal, and with no weights that nobody looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from bdaudit.untrusted.inspect import inspect
from tests.untrusted.ordinary import SHAPES
from tests.untrusted.tiny import write_model


@pytest.mark.parametrize("name", SHAPES)
def test_is_plain(name: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    SHAPES[name](model)
    found = inspect(model)
    assert found.unaudited == ()
    assert found.tensors is not None


def test_there_are_many() -> None:
    assert len(SHAPES) >= 30


def test_the_same_tensors_have_the_same_digests_whatever_files_they_lie_in(tmp_path: Path) -> None:
    digests = {}
    for name in ("as diffusers saves it", "a UNet in two files", "old position ids", "fp16 alone", "float16 alone, no variant in its name"):
        model = write_model(tmp_path / name / "model")
        SHAPES[name](model)
        digests[name] = inspect(model).tensors
    plain, sharded, old, half, unnamed = digests.values()
    assert plain is not None
    assert half is not None
    assert plain == sharded == old
    assert half == unnamed
    assert plain.exact != half.exact
    assert plain.float16 == half.float16
