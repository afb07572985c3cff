"""What stands after a flag: read, or refused with the flag, what was got and what is expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from bdaudit.cli.values import KINDS
from bdaudit.config.flag import Kind
from bdaudit.errors import UsageError
from tests.untrusted.cached import COMMIT, empty_hub, lay_out


def read(kind: Kind, typed: Any) -> Any:
    return KINDS[kind].read(typed, "--the-flag")


def test_every_kind_is_read() -> None:
    assert set(KINDS) == set(get_args(Kind))


@pytest.mark.parametrize(
    ("kind", "typed", "value"),
    [
        ("plain", 0, 0),
        ("size", "512", (512, 512)),
        ("size", "768x512", (768, 512)),
        ("shares", "0.3,1,0.3", (1.0, 0.3)),
        ("each", ["b", "a", "b"], ("b", "a")),
        ("swap", ["dog=cat", "red=deep=blue"], (("dog", "cat"), ("red", "deep=blue"))),
        ("trigger", ["cf", r"\u020F", "cf"], ("cf", "ȏ")),
        ("suspect", ["a U+200B cat", "cf", "cf"], ("a U+200B cat", "a \u200b cat", "cf")),
        ("evidence", "none", "none"),
        ("evidence", __file__, Path(__file__)),
        ("picture", f"{__file__}@4,8", Path(__file__)),
        ("corner", f"{__file__}@4,8", (4, 8)),
        ("corner", __file__, None),
        ("adapter of", [__file__, f"before:{__file__}:-0.5"], (("", Path(__file__), 1.0), ("before", Path(__file__), -0.5))),
        ("adapter", [__file__, f"{__file__}:-0.5"], ((Path(__file__), 1.0), (Path(__file__), -0.5))),
        ("adapter", [f"{__file__}:1e-3", f"{__file__}:-2.5E+1"], ((Path(__file__), 1e-3), (Path(__file__), -25.0))),
        ("contributor", [str(Path(__file__).parent)], ((Path(__file__).parent, 1.0),)),
        ("model", str(Path(__file__).parent), Path(__file__).parent),
        ("model", __file__, Path(__file__)),
        ("part", [f"vae={__file__}", f"before:unet={__file__}"], (("", "vae", Path(__file__)), ("before", "unet", Path(__file__)))),
    ],
)
def test_what_is_read(kind: Kind, typed: Any, value: Any) -> None:
    assert read(kind, typed) == value


@pytest.mark.parametrize(
    ("kind", "typed", "expected"),
    [
        ("size", "512x", "expected N or WxH"),
        ("size", "-8", "expected N or WxH"),
        ("shares", "0.5,x", "expected shares"),
        ("swap", ["dog=cat", "dog"], "expected OLD=NEW"),
        ("swap", ["=cat"], "expected OLD=NEW"),
        ("part", ["vae"], "expected NAME=FILE"),
        ("part", ["other:vae=x"], "expected NAME=FILE"),
        ("part", ["vae=nowhere.safetensors"], "nowhere.safetensors: no such file"),
        ("trigger", ["U+200B"], "could|or "),
        ("evidence", "nowhere.json", "expected required, none, or"),
        ("picture", "nowhere.png@1,2", "nowhere.png: no such file"),
        ("picture", f"{__file__}@{'9' * 100},1", "no such file; expected FILE or FILE@x,y"),
        ("picture", f"{__file__}@\u0661,1", "no such file; expected FILE or FILE@x,y"),
        ("adapter of", ["before:nowhere.safetensors:2"], "nowhere.safetensors: no such file"),
        ("embedding", ["nowhere.safetensors=<x>"], "nowhere.safetensors: no such file; expected FILE or FILE=TOKEN"),
        ("adapter", ["nowhere.safetensors:2"], "nowhere.safetensors: no such file"),
        ("adapter", [f"{__file__}:{'9' * 400}"], "expected a finite number"),
        ("adapter", [f"{__file__}:nan"], "test_values.py: its scale is 'nan'; expected a finite number"),
        ("adapter", [f"{__file__}:"], "test_values.py: its scale is ''; expected a finite number"),
        ("adapter of", [f"before:{__file__}:1,5"], "test_values.py: its scale is '1,5'; expected a finite number"),
        ("contributor", [__file__], "expected a model's directory or FILE.safetensors, or a LoRA"),
        ("acceptances", __file__, "is not JSON|JSON"),
        ("model", "nowhere", "does not exist; expected a directory in diffusers' layout"),
        ("model", "/dev/null", "is no regular file; expected a directory in diffusers' layout, or a checkpoint in one"),
    ],
)
def test_what_is_refused(kind: Kind, typed: Any, expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as raised:
        read(kind, typed)
    assert str(raised.value).startswith("--the-flag ")


def test_a_lora_is_taken_with_its_scale_and_a_name_with_a_colon_is_a_name(tmp_path: Path) -> None:
    plain, odd = tmp_path / "a.safetensors", tmp_path / "a.safetensors:2"
    plain.write_bytes(b"")
    for kind in ("adapter", "contributor"):
        assert read(kind, [str(plain), f"{plain}:0.5"]) == ((plain, 1.0), (plain, 0.5))  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="expected"):
            read(kind, [f"{plain}:{'9' * 400}"])  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="expected"):
            read(kind, [str(tmp_path / "none.safetensors")])  # type: ignore[arg-type]
    odd.write_bytes(b"")
    assert read("adapter", [str(odd)]) == ((odd, 1.0),)


def test_whose_adapter_it_is_stands_before_it_unless_a_file_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = KINDS["adapter of"].place
    assert place is not None
    monkeypatch.chdir(tmp_path)
    Path("a.safetensors").write_bytes(b"")
    for of in ("before", "reference"):
        assert read("adapter of", [f"{of}:a.safetensors:2"]) == ((of, Path("a.safetensors"), 2.0),)
        assert place(f"{of}:a.safetensors:2") == place("a.safetensors") == Path("a.safetensors")
    assert place("base:a.safetensors") == Path("base:a.safetensors")
    Path("before:a.safetensors").write_bytes(b"")
    assert read("adapter of", ["before:a.safetensors"]) == (("", Path("before:a.safetensors"), 1.0),)
    assert place("before:a.safetensors") == Path("before:a.safetensors")


@pytest.mark.parametrize(
    ("kind", "typed", "path"),
    [("adapter", "a.safetensors:0.5", "a.safetensors"), ("contributor", "b:2", "b"), ("part", "vae=c.safetensors", "c.safetensors")],
)
def test_the_place_in_what_is_typed(kind: Kind, typed: str, path: str) -> None:
    place = KINDS[kind].place
    assert place is not None
    assert place(typed) == Path(path)


def test_a_token_stands_after_a_file_unless_a_file_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = KINDS["embedding"].place
    assert place is not None
    monkeypatch.chdir(tmp_path)
    Path("a.safetensors").write_bytes(b"")
    assert read("embedding", ["a.safetensors=<x>", "a.safetensors"]) == ((Path("a.safetensors"), "<x>"), (Path("a.safetensors"), ""))
    assert place("a.safetensors=<x>") == place("a.safetensors") == Path("a.safetensors")
    Path("a.safetensors=<x>").write_bytes(b"")
    assert read("embedding", ["a.safetensors=<x>"]) == ((Path("a.safetensors=<x>"), ""),)
    assert place("a.safetensors=<x>") == Path("a.safetensors=<x>")


@pytest.mark.parametrize(("typed", "told"), [("nowhere", False), ("org/nowhere", True), ("org/nowhere@v1", True), ("/dev/null", False)])
def test_where_an_id_may_be_meant_the_download_is_named(typed: str, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_hub(tmp_path, monkeypatch)
    with pytest.raises(UsageError) as raised:
        read("model", typed)
    assert ("hf download org/nowhere" in str(raised.value)) is told


@pytest.mark.parametrize("typed", ["dog=", "=", ""])
def test_a_swap_has_two_words(typed: str) -> None:
    with pytest.raises(UsageError, match="expected OLD=NEW"):
        read("swap", [typed])


def test_a_files_texts_are_named_after_its_flag(tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("cf\n<U+200B>\n")
    (tmp_path / "none").write_bytes(b"\xff")
    assert read("texts", tmp_path / "texts") == ("cf", "<U+200B>")
    assert read("suspects", tmp_path / "texts") == ("cf", "<U+200B>", "\u200b")
    for kind in ("texts", "suspects"):
        with pytest.raises(UsageError, match="the flag"):
            read(kind, tmp_path / "none")


@pytest.mark.parametrize(("kind", "one"), [("model", lambda value: value), ("contributor", lambda value: value[0][0])])
def test_a_model_of_the_hub_s_cache_by_its_id(kind: Kind, one: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def typed(text: str) -> Path:
        found: Path = one(read(kind, [text] if kind == "contributor" else text))
        return found

    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/a").write_text("a")
    hub = empty_hub(tmp_path, monkeypatch)
    snapshot, single = lay_out(tmp_path / "plain", hub), lay_out(tmp_path / "plain", hub, "gpt2", revision="v1")
    assert typed("org/name") == typed(f"org/name@{COMMIT}") == typed(str(snapshot)) == snapshot
    assert typed("gpt2@v1") == single
    with pytest.raises(UsageError, match="--the-flag gpt2: the hub's cache has gpt2, but no revision main"):
        typed("gpt2")
    (tmp_path / "here/org/name").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"--the-flag org/name is a path here and a model .* say which: \./org/name, or"):
        typed("org/name")
    assert typed("./org/name") == Path("org/name")
    assert typed("org/name@main") == snapshot
    assert typed("org/../org/name") == Path("org/../org/name")


def test_a_model_that_is_nowhere_comes_with_the_command_that_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_hub(tmp_path, monkeypatch)
    for text, command in (("org/other", "hf download org/other"), ("org/other@v1", "hf download org/other --revision v1")):
        with pytest.raises(
            UsageError, match=f"does not exist; expected a directory .*, or a model in the hub's cache .* `{command}` would"
        ):
            read("model", text)
    for text in ("other", "./org/other", "a/b/c"):
        with pytest.raises(UsageError) as raised:
            read("model", text)
        assert "hub" not in str(raised.value)
