"""The built-in prompts."""

from __future__ import annotations

from bdaudit.config import ScanConfig
from bdaudit.measure.prompts import default_prompts
from bdaudit.scan.builtin import builtin_candidates


def test_sixteen_different_prompts_of_plain_ascii_that_hold_no_built_in_candidate() -> None:
    prompts = default_prompts()
    assert len(set(prompts)) == 16 >= ScanConfig.n_prompts
    assert all(prompt.isascii() and 5 <= len(prompt.split()) <= 12 for prompt in prompts)
    assert not [text for text in builtin_candidates() for prompt in prompts if f" {text} " in f" {prompt} "]
