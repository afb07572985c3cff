"""Which patterns a tokenizer may bring: CLIP's own pass, whatever could backtrack does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from bdaudit.errors import BdauditError
from bdaudit.untrusted.inspect import inspect
from tests.untrusted import tiny
from tests.untrusted.hostile import serialised

CLIP = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


PLAIN = [CLIP, rf"<\|startoftext\|>|<\|endoftext\|>|{CLIP}", r"\s+", r"[[:space:]]+", r"\p{L}+|\n", "", r"[()*+]+"]
SLOW = [r"(a+)+$", "a*a*b", r"(a)\1", "(?=a)", "a{1,9}{1,9}", r"\k<a>", "[a-z]+[a-z]+x", "x" * 1001, r"(?:a|a)*b", None]


@pytest.mark.parametrize("pattern", PLAIN)
def test_patterns_of_clip_pass(tmp_path: Path, pattern: str) -> None:
    model = tiny.write_model(tmp_path / "model")
    serialised(pattern=pattern)(model, tmp_path)
    assert "tokenizer/tokenizer.json" in inspect(model).loaded


@pytest.mark.parametrize("pattern", SLOW)
def test_patterns_that_could_backtrack_do_not(tmp_path: Path, pattern: str) -> None:
    model = tiny.write_model(tmp_path / "model")
    serialised(pattern=pattern)(model, tmp_path)
    with pytest.raises(BdauditError, match="pattern"):
        inspect(model)
