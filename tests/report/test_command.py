"""What to type next is one command with the very arguments meant, whatever the names hold."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bdaudit.cli.values import KINDS
from bdaudit.report.command import adapter_flags, drawing_flags, machine_flags, opening_flags, part_flags, place, trigger_flags, typed
from bdaudit.report.safe import visible
from bdaudit.spelling.escapes import unescape

NAMES = (
    "my model", "$(touch owned)", "`touch owned`", "'; touch owned; '", "a\ntouch owned\n", "--out", "-x", "\u202eledom", "\x1b[31mred",
    "a\\'b",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_shell_gets_the_very_arguments(tmp_path: Path, name: str) -> None:
    (tmp_path / "bdaudit").write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    (tmp_path / "bdaudit").chmod(0o755)
    command = typed("verify", Path(name), *trigger_flags([name, "x"]), "--reference", place(name))
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, check=True)
    verb, model, flag, trigger, _, other, _, reference = done.stdout.decode().split("\0")[:-1]
    assert (verb, flag, unescape(trigger), other) == ("verify", "--trigger", name, "x")
    assert model == reference == (f"./{name}" if name.startswith("-") else name)
    assert os.listdir(tmp_path) == ["bdaudit"]


@pytest.mark.parametrize("name", NAMES)
def test_as_it_is_shown_it_is_still_one_command_and_does_nothing_else(tmp_path: Path, name: str) -> None:
    shown = visible(typed("verify", name, *trigger_flags([name])))
    assert shown.isprintable()
    done = subprocess.run(["sh", "-c", f"bdaudit() {{ echo $#; }}; {shown}"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "4\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("text", ["ȏ", "a b", "😀", "\\u0041", "\u200b"])
def test_a_trigger_is_ascii_that_is_read_back(text: str) -> None:
    flag, written = trigger_flags([text])
    assert (flag, written.isascii(), unescape(written)) == ("--trigger", True, text)


def test_a_size_is_written_as_it_is_read() -> None:
    assert drawing_flags({"size": [768, 512], "guidance_scale": 7.5}) == ["--size", "768x512", "--guidance-scale", "7.5"]
    assert KINDS["size"].read("768x512", "--size") == (768, 512)


def test_what_was_not_given_is_not_typed() -> None:
    unset = {"size": "not set", "guidance_scale": "not set", "prompts_file": "not set", "variant": "", "strict": False, "batch_size": 64}
    for asked in (unset, {}, {"allow_pickle": "yes", "size": "64x32"}):
        assert [*drawing_flags(asked), *opening_flags(asked), *machine_flags(asked)] == []
    assert machine_flags({"device": "cpu", "dtype": "float16", "batch_size": 2}) == [
        "--device", "cpu", "--dtype", "float16", "--batch-size", "2",
    ]  # fmt: skip


def test_an_adapter_and_its_scale_are_read_back_as_they_were(tmp_path: Path) -> None:
    for name in ("style.safetensors", "my style:v2.safetensors", "style:2"):
        (tmp_path / name).write_bytes(b"")
        for scale in (1.0, 0.8, -0.25, 1e-7, 123456789.125):
            flag, value = adapter_flags([(tmp_path / name, scale)])
            assert (flag, KINDS["adapter"].read([value], flag)) == ("--lora", ((tmp_path / name, scale),))


def test_parts_of_a_single_file_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "a b.safetensors").touch()
    parts = (("", "vae", tmp_path / "a b.safetensors"), ("before", "text_encoder", tmp_path / "a b.safetensors"))
    flags = part_flags(Path("-settings"), parts)
    assert flags[:2] == ["--config", "./-settings"]
    assert [KINDS["part"].read([flag], "--part") for flag in flags[3::2]] == [(part,) for part in parts]
    assert part_flags(None, ()) == []
