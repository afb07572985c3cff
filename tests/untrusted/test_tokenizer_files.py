"""Which patterns a tokenizer may bring: CLIP's own pass, whatever could backtrack does not. And that its files describe one tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted import tokenizer_files
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.layouts import clip
from bdaudit.untrusted.layouts.layout import Vocabulary
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


TWO_FORMS: dict[str, Any] = {
    "version": "1.0",
    "added_tokens": [{"id": 6, "content": "ab"}],
    "model": {"type": "BPE", "vocab": tiny.VOCABULARY, "merges": ["a b", ["a", "b</w>"]]},
}
DECODER = {"added_tokens_decoder": {"6": {"content": "ab"}}}


def two_forms(folder: Path) -> Path:
    """A tokenizer as older and newer versions read it, all files of one mind."""
    model = tiny.write_model(folder / "model")
    tiny.write_json(model / "tokenizer/tokenizer.json", TWO_FORMS)
    tiny.write_json(model / "tokenizer/tokenizer_config.json", tiny.TOKENIZER | DECODER)
    tiny.write_json(model / "tokenizer/added_tokens.json", {"ab": 6})
    return model


def test_files_of_one_tokenizer_pass(tmp_path: Path) -> None:
    assert not inspect(two_forms(tmp_path)).notes


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("vocab.json", {**tiny.VOCABULARY, "ab": 7, "ab</w>": 6}, "vocabulary"),
        ("merges.txt", "#version: 0.2\na b\n", "merges"),
        ("merges.txt", "#version: 0.2\na b</w>\na b\n", "merges"),
        ("added_tokens.json", {"dog": 7}, "added tokens"),
        ("tokenizer_config.json", {**tiny.TOKENIZER, "added_tokens_decoder": {"6": {"content": "dog"}}}, "added tokens"),
        ("tokenizer_config.json", {**tiny.TOKENIZER, "added_tokens_decoder": {"7": "dog"}}, "added tokens"),
        ("tokenizer.json", {**TWO_FORMS, "added_tokens": [{"id": 7, "content": "dog"}]}, "added tokens"),
    ],
)
def test_files_of_two_tokenizers_do_not(tmp_path: Path, name: str, content: Any, what: str) -> None:
    model = two_forms(tmp_path)
    if isinstance(content, str):
        (model / "tokenizer" / name).write_text(content)
    else:
        tiny.write_json(model / "tokenizer" / name, content)
    with pytest.raises(InconclusiveError, match=f"differ in {what}"):
        inspect(model)


def test_merges_that_some_versions_leave_aside(tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "model")
    (model / "tokenizer/merges.txt").write_text("#version: 0.2\n" + "a b\n" * 48_894)
    inspect(model)
    with (model / "tokenizer/merges.txt").open("a") as merges:
        merges.write("a b</w>\n")
    with pytest.raises(InconclusiveError, match=r"48,895 merges"):
        inspect(model)


def tokens(count: int, start: int = 0) -> list[str]:
    return [f"<{i}>" for i in range(start, start + count)]


PLACES = {
    "additional": ("tokenizer_config.json", lambda texts: {"additional_special_tokens": texts}),
    "extra": ("tokenizer_config.json", lambda texts: {"extra_special_tokens": texts}),
    "named": ("tokenizer_config.json", lambda texts: {"extra_special_tokens": dict(zip(texts, texts, strict=True))}),
    "keys": ("tokenizer_config.json", lambda texts: {f"{text}_token": text for text in texts}),
    "map": ("special_tokens_map.json", lambda texts: {"additional_special_tokens": [{"content": text} for text in texts]}),
}


@pytest.mark.parametrize("place", PLACES)
def test_tokens_are_counted_wherever_they_stand(tmp_path: Path, place: str) -> None:
    model = tiny.write_model(tmp_path / "model")
    file, content = PLACES[place]
    tiny.write_json(model / "tokenizer/tokenizer_config.json", {})
    tiny.write_json(model / "tokenizer" / file, content(tokens(4096)))
    inspect(model)
    tiny.write_json(model / "tokenizer" / file, content(tokens(4097)))
    with pytest.raises(BdauditError, match=r"4,097 tokens beside the vocabulary .* at most 4,096 are read; remove those"):
        inspect(model)


def test_tokens_of_all_files_count_together_and_each_once(tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "model")
    tiny.write_json(model / "tokenizer/tokenizer_config.json", {"extra_special_tokens": tokens(4096)})
    tiny.write_json(model / "tokenizer/special_tokens_map.json", {"extra_special_tokens": tokens(4096)})
    inspect(model)
    tiny.write_json(model / "tokenizer/special_tokens_map.json", {"extra_special_tokens": tokens(4096, start=1)})
    with pytest.raises(BdauditError, match=r"^tokenizer: 4,097 tokens"):
        inspect(model)


@pytest.mark.parametrize("kind", ["NFC", "Lowercase", "Precompiled", None])
def test_steps_of_a_known_kind_alone(tmp_path: Path, kind: str | None) -> None:
    model = tiny.write_model(tmp_path / "model")
    serialised(normalizer={"type": "Sequence", "normalizers": [{"type": kind}]})(model, tmp_path)
    if kind in ("NFC", "Lowercase"):
        inspect(model)
        return
    with pytest.raises(BdauditError, match=f"a step of the kind {kind}; expected"):
        inspect(model)


def test_as_many_merges_as_every_version_reads() -> None:
    assert len(tokenizer_files._merges(["#version: 0.2", *["a b"] * 48_894], clip.TOKENIZER.vocabulary)) == 48_894
    with pytest.raises(InconclusiveError, match="48,895 merges; a CLIPTokenizer of transformers 4 reads the first 48,894"):
        tokenizer_files._merges(["a b"] * 48_895, clip.TOKENIZER.vocabulary)
    assert len(tokenizer_files._merges(["a b"] * 48_895, Vocabulary())) == 48_895


@pytest.mark.parametrize("more", [0, 1])
def test_as_many_bytes_of_a_file_as_are_read(tmp_path: Path, more: int) -> None:
    model = tiny.write_model(tmp_path / "model")
    content = (model / "tokenizer/merges.txt").read_bytes()
    (model / "tokenizer/merges.txt").write_bytes(content + b"\n" * ((8 << 20) - len(content) + more))
    if not more:
        inspect(model)
        return
    with pytest.raises(BdauditError, match="longer than 8,388,608 bytes"):
        inspect(model)
