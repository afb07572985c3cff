"""Chat templates: known ones pass wherever they stand, others are refused with their hash, and none is ever run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bdaudit.errors import BdauditError, InconclusiveError, RefusedError
from bdaudit.untrusted import templates
from bdaudit.untrusted.layouts.layout import Reading
from bdaudit.untrusted.templates import digest
from bdaudit.untrusted.tree import Reader, walk

KNOWN = "{{ '<user>' + messages[0].content + '</user>' }}"
OTHER = "{{ '<user>a secret word, ' + messages[0].content + '</user>' }}"
READING = Reading(length=8, prefix="<user>", suffix="</user>", templated=True, templates=frozenset({digest(KNOWN)}))


def checked(folder: Path, settings: dict[str, Any] | None = None, trusted: tuple[str, ...] = ()) -> list[str]:
    return templates.check(Reader(folder, walk(folder).files), "tokenizer", settings or {}, READING, trusted)


def lay(folder: Path, name: str, text: str) -> None:
    place = folder / "tokenizer" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"chat_template": text}) if name.endswith(".json") else text
    place.write_text(content, encoding="utf-8")


IN_SETTINGS: dict[str, Any] = {
    "a text": lambda text: text,
    "a list": lambda text: [{"name": "default", "template": text}],
    "a second one of a list": lambda text: [{"name": "default", "template": KNOWN}, {"name": "tool_use", "template": text}],
    "a map": lambda text: {"default": text},
}
FILES = (*templates.FILES, "additional_chat_templates/tool_use.jinja")


@pytest.mark.parametrize("shape", IN_SETTINGS)
def test_a_template_in_the_settings_is_known_or_refused(tmp_path: Path, shape: str) -> None:
    assert checked(tmp_path, {"chat_template": IN_SETTINGS[shape](KNOWN)}) == []
    with pytest.raises(RefusedError, match=digest(OTHER)):
        checked(tmp_path, {"chat_template": IN_SETTINGS[shape](OTHER)})


@pytest.mark.parametrize("name", FILES)
def test_a_template_in_a_file_is_known_or_refused(tmp_path: Path, name: str) -> None:
    lay(tmp_path, name, KNOWN)
    assert checked(tmp_path) == []
    lay(tmp_path, name, OTHER)
    with pytest.raises(RefusedError, match=digest(OTHER)) as error:
        checked(tmp_path, {"chat_template": KNOWN})
    said = str(error.value)
    assert f"--trust-template {digest(OTHER)}" in said
    assert "-<user>{{ messages[0].content }}</user>" in said
    assert "+" + OTHER in said


def test_who_trusts_a_hash_is_told_that_it_was_not_run(tmp_path: Path) -> None:
    (note,) = checked(tmp_path, {"chat_template": OTHER}, (digest(OTHER),))
    assert digest(OTHER) in note
    assert "was not run" in note
    with pytest.raises(RefusedError):
        checked(tmp_path, {"chat_template": OTHER}, (digest(KNOWN), digest(OTHER + " ")))


def test_two_templates_that_differ_are_no_layout_though_both_are_let_through(tmp_path: Path) -> None:
    lay(tmp_path, "chat_template.jinja", KNOWN)
    with pytest.raises(InconclusiveError, match=r"differ \(tokenizer/tokenizer_config.json, tokenizer/chat_template.jinja\)"):
        checked(tmp_path, {"chat_template": OTHER}, (digest(OTHER),))


def test_none_at_all_is_exit_4_and_the_last_lines_end_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(InconclusiveError, match="no chat template"):
        checked(tmp_path)
    assert digest(KNOWN + "\n") == digest(KNOWN) != digest("\n" + KNOWN)
    assert checked(tmp_path, {"chat_template": KNOWN + "\n"}) == []


@pytest.mark.parametrize("value", [7, [], [7], [{"name": "default"}], {"default": 7}, [{"name": "default", "template": None}]])
def test_what_is_no_template_is_damage(tmp_path: Path, value: Any) -> None:
    with pytest.raises(BdauditError, match="expected a"):
        checked(tmp_path, {"chat_template": value})


def test_bytes_that_are_no_text_and_a_hostile_one_reach_no_terminal(tmp_path: Path) -> None:
    lay(tmp_path, "chat_template.jinja", "")
    (tmp_path / "tokenizer/chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(BdauditError, match="not UTF-8"):
        checked(tmp_path)
    lay(tmp_path, "chat_template.jinja", "{{ '\x1b[2J\u202e' }}\n" * 200)
    with pytest.raises(RefusedError) as error:
        checked(tmp_path)
    assert "\x1b" not in str(error.value)
    assert "\u202e" not in str(error.value)
    assert "lines more" in str(error.value)
    assert len(str(error.value)) < 6000
