"""A scan's end: what stands in a pass's way, and what to type next."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from bdaudit.config import ScanConfig
from bdaudit.errors import ExitCode, UsageError
from bdaudit.records import Exit
from bdaudit.scan.ending import command, reading, unless_read_otherwise, unless_tampered
from bdaudit.spelling.reader import read_twice


def test_a_line_that_was_read_both_ways_says_which_reading_it_is() -> None:
    twice = read_twice(("<U+200B>", "\u200b", "cf"))
    assert reading(twice, "<U+200B>") == "as it stands, though written like U+200B ZERO WIDTH SPACE"
    assert reading(twice, "\u200b") == "the character that '<U+200B>' is written like"
    assert reading(twice, "cf") == ""


def test_the_command_opens_the_model_with_the_same_leave_and_on_the_same_prompts() -> None:
    asked = ScanConfig(model=Path("m"), prompts=("a dog", "a cat"), prompts_file=Path("my prompts.txt"))
    assert command(asked, "x") == "bdaudit unlearn m --trigger x --prompts 'my prompts.txt'"

    assert command(ScanConfig(model=Path("my model")), "ȏ") == "bdaudit unlearn 'my model' --trigger '\\u020f'"
    assert command(ScanConfig(model=Path("m"), allow_pickle=True), "x") == "bdaudit unlearn m --trigger x --allow-pickle"
    there = ScanConfig(model=Path("m"), device="cuda:1", dtype="bfloat16")
    assert command(there, "x") == "bdaudit unlearn m --trigger x --device cuda:1 --dtype bfloat16"
    trusted = ScanConfig(model=Path("m"), trusted_templates=("ab" * 32, "cd" * 32))
    assert command(trusted, "x") == f"bdaudit unlearn m --trigger x --trust-template {'ab' * 32} --trust-template {'cd' * 32}"
    for odd in ("ab", "AB" * 32, "ab" * 33, ""):
        with pytest.raises(UsageError, match="--trust-template"):
            ScanConfig(model=Path("m"), trusted_templates=(odd,))


def test_a_pass_with_an_adapter_that_diffusers_reads_otherwise_is_none() -> None:
    passed, found = Exit(code=0, name="pass", reason="0 of 2"), Exit(code=1, name="finding", reason="1 of 2")

    def ended(before: Exit, *otherwise: str) -> Exit:
        adapters = [SimpleNamespace(read_otherwise=said) for said in otherwise]
        return unless_read_otherwise(adapters, before)  # type: ignore[arg-type]

    assert (ended(passed, "").code, ended(passed).code, ended(found, "x").code) == (0, 0, 1)
    otherwise = ended(passed, "", "style as diffusers reads it")
    assert (otherwise.code, otherwise.name) == (4, "inconclusive")
    assert otherwise.reason.startswith("0 of 2; not audited: style as diffusers reads it; merge it")


def test_controls_that_are_loud_as_a_kind_leave_no_pass_and_take_no_finding() -> None:
    passed, finding = Exit.of(ExitCode.PASS, "0 of 5 candidates backdoored"), Exit.of(ExitCode.FINDING, "1 of 5 candidates backdoored")
    tampered = unless_tampered(passed, {"emoji": 3.14}, [])
    assert tampered.code == ExitCode.INCONCLUSIVE
    assert "the null looks tampered with" in tampered.reason
    assert "emoji (by 3.1 times" in tampered.reason
    assert unless_tampered(passed, {}, []) == passed
    assert unless_tampered(finding, {"emoji": 3.14}, []) == finding


def test_many_controls_that_are_loud_by_themselves_leave_no_pass_and_a_few_do() -> None:
    passed = Exit.of(ExitCode.PASS, "0 of 5 candidates backdoored")
    assert unless_tampered(passed, {}, ["a", "b", "c"]) == passed
    tampered = unless_tampered(passed, {}, ["a", "b", "ç", "d", "e"])
    assert tampered.code == ExitCode.INCONCLUSIVE
    assert "move it as harmless texts do not: 'a', 'b', '\\xe7', 'd' and 1 more; all of them" in tampered.reason
