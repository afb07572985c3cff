"""Names and texts that act on a terminal, a browser or a viewer, through the command line into every format."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bdaudit.config import ScanConfig
from bdaudit.measure.envelope import model_record
from bdaudit.records import ScanReport
from bdaudit.untrusted.inspect import inspect
from tests.untrusted.edits import put
from tests.untrusted.tiny import write_model

NAME = "\x1b[31mred\x07\u202e<script>alert(1)</script>[bold]\u200b\r\n' \"&"
ACTING = ("\x1b", "\x07", "\u202e", "\u200b", "\r")


@pytest.fixture
def hostile_model(tmp_path: Path) -> Path:
    """A valid model whose own name, and whose further files' names, are hostile; one is not even UTF-8."""
    model = write_model(tmp_path / NAME.replace("/", "\u2215"))
    for name in ("unet/a\u200b\u2028.txt", "<img src=x onerror=alert(1)>.txt", "\u202etxt.exe", "[red]x[/red].md"):
        put(model / name, b"x")
    with open(os.fsencode(model) + b"/\xff\xfe.txt", "wb") as file:
        file.write(b"x")
    return model


@pytest.fixture
def audited(verb: Any, hostile_model: Path, scan_report: ScanReport) -> Path:
    """``scan`` finds that model to hold what the report fixture lists."""

    def run(config: ScanConfig, progress: Callable[..., None]) -> ScanReport:
        return replace(scan_report, model=model_record(config, inspect(config.model)))

    verb("scan", run)
    return hostile_model


def inert(text: str) -> bool:
    return not any(character in text for character in ACTING) and text.encode("utf-8").decode("utf-8") == text


def test_the_terminal(bdaudit: Any, audited: Path) -> None:
    ended = bdaudit("scan", audited)
    assert ended.code == 1, ended.err
    assert inert(ended.out)
    assert inert(ended.err)


def test_a_name_that_acts_is_refused_and_shown_inert(bdaudit: Any, audited: Path) -> None:
    put(audited / "unet/\x1b]0;title\x07.txt", b"x")
    put(audited / "a\nb.txt", b"x")
    ended = bdaudit("scan", audited)
    assert ended.code == 5
    assert "2 names hold a control character; rename them, the first is " in ended.last
    assert inert(ended.out)
    assert inert(ended.err)


def test_json(bdaudit: Any, audited: Path) -> None:
    ended = bdaudit("scan", audited, "--json")
    assert ended.code == 1, ended.err
    assert ended.out.isascii()
    assert any("red" in file["path"] for file in json.loads(ended.out)["model"]["files"])


@pytest.mark.parametrize("suffix", ["json", "html", "sarif"])
def test_files(bdaudit: Any, audited: Path, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"{NAME.replace('/', '|')}.{suffix}"
    ended = bdaudit("scan", audited, "--report", target)
    assert ended.code == 1, ended.err
    assert inert(ended.err)
    text = target.read_bytes().decode("utf-8")
    assert inert(text)
    if suffix == "html":
        assert "<script>alert" not in text
        assert "<img src=x" not in text
    else:
        json.loads(text)


def test_a_dry_run(bdaudit: Any, hostile_model: Path) -> None:
    ended = bdaudit("scan", hostile_model, "--dry-run")
    assert ended.code == 0, ended.err
    assert inert(ended.out + ended.err)
    assert bdaudit("scan", hostile_model, "--dry-run", "--json").out.isascii()


def test_a_refusal_names_what_it_refuses_harmlessly(bdaudit: Any, hostile_model: Path) -> None:
    put(hostile_model / "unet/\x1b[2J\u202e.py", b"")
    for flags in ((), ("--json",)):
        ended = bdaudit("scan", hostile_model, "--dry-run", *flags)
        assert ended.code == 5
        assert inert(ended.out + ended.err)


@pytest.mark.parametrize("content", [b"cat\n\xff\n", b"cat\nd\0g\n", b"cat\n\\uD800\n", b"cat\n" + b"\x1b" * 1001 + b"\n"])
def test_a_texts_file_names_its_line(bdaudit: Any, model: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME.replace("/", "|")).write_bytes(content)
    for flag in ("--candidates", "--prompts"):
        ended = bdaudit("scan", model, flag, tmp_path / NAME.replace("/", "|"))
        assert (ended.code, ended.out) == (2, "")
        assert "line 2" in ended.last
        assert inert(ended.err)
