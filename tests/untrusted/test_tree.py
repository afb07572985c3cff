"""A directory is walked once, and read without following or waiting for anything."""

from __future__ import annotations

import os
import pickle
import stat
from collections import OrderedDict
from pathlib import Path

import pytest

from bdaudit.errors import BdauditError, RefusedError
from bdaudit.untrusted import tree
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.tree import Reader, looks_pickled, walk
from tests.untrusted import tiny
from tests.untrusted.edits import UNET, put


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "model")


@pytest.mark.parametrize("name", ["unet/z.safetensors\nab  unet/x", "notes\r.txt", "a\x1b[2J", "wandb/\x85.txt"])
def test_a_name_with_a_control_character_is_refused(name: str, model: Path) -> None:
    put(model / name, b"x")
    with pytest.raises(RefusedError, match="control character") as caught:
        inspect(model)
    assert str(caught.value).isprintable()


def test_links_that_stay_inside_are_followed(model: Path) -> None:
    put(model / "blobs/a.safetensors", (model / UNET).read_bytes())
    (model / UNET).unlink()
    os.symlink("../blobs/a.safetensors", model / UNET)
    assert inspect(model).weights["unet"] == (UNET,)


def test_names_are_shown_harmlessly(model: Path) -> None:
    put(model / "unet/\x1b[31m\u202e\n.py", b"")
    os.symlink("\x1b]0;title\x07", os.fsencode(model) + b"/\xff")
    with pytest.raises(RefusedError) as caught:
        inspect(model)
    assert all(reason.isprintable() for reason in caught.value.reasons)
    str(caught.value).encode("utf-8")


def test_as_many_files_beside_the_parts_as_a_trainer_leaves(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tree.MAX_ENTRIES == 200_000
    there = sum(1 for _ in model.rglob("*"))
    (model / "sample.png").touch()
    monkeypatch.setattr(tree, "MAX_ENTRIES", there + 1)
    assert inspect(model)
    monkeypatch.setattr(tree, "MAX_ENTRIES", there)
    with pytest.raises(BdauditError, match=f"more than {there} files"):
        inspect(model)


def test_folders_as_deep_as_loaders_look_are_entered_and_deeper_ones_told(model: Path) -> None:
    put(model / "/".join("abcdefgh") / "x.txt", b"")
    assert not any("not entered" in note for note in inspect(model).notes)
    put(model / "/".join("abcdefghi") / "x.txt", b"")
    notes = inspect(model).notes
    assert "folders more than 8 deep, not entered: a/b/c/d/e/f/g/h/i" in notes


def test_a_link_put_in_after_the_walk_is_not_followed_out(model: Path) -> None:
    reader = Reader(model.resolve(), walk(model.resolve()).files)
    (model.parent / "secret.json").write_text("{}")
    (model / "unet/config.json").unlink()
    os.symlink(model.parent / "secret.json", model / "unet/config.json")
    with pytest.raises(RefusedError, match="has become a link"):
        reader.json("unet/config.json")


def test_a_file_put_in_as_a_pipe_after_the_walk_is_not_waited_for(model: Path) -> None:
    reader = Reader(model.resolve(), walk(model.resolve()).files)
    (model / "unet/config.json").unlink()
    os.mkfifo(model / "unet/config.json")
    with pytest.raises(RefusedError, match="no longer a regular file"):
        reader.json("unet/config.json")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices, and becomes somebody else")
def test_devices_and_what_may_not_be_read(model: Path) -> None:
    for path in (model, *model.parents):
        if path.stat().st_uid == 0 and path.is_relative_to("/tmp"):
            path.chmod(0o755)
    (model / UNET).chmod(0)
    (model / "tokenizer").chmod(0)
    os.seteuid(65534)
    try:
        with pytest.raises(BdauditError, match=r"cannot list|cannot open"):
            inspect(model)
    finally:
        os.seteuid(0)
    try:
        os.mknod(model / "zero", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except OSError:
        pytest.skip("no devices can be made here")
    with pytest.raises(RefusedError, match="zero is a device"):
        inspect(model)


def test_names_of_every_kind_are_told_apart(model: Path) -> None:
    names = ["UNET/config.json", "unet/Config.json", "unet/cafe\u0301.txt", "unet/caf\u00e9.txt", "x" * 255, "unet/\u202e.txt"]
    for name in names:
        put(model / name, name.encode())
    found = inspect(model)
    assert set(names) <= {file.path for file in found.files}
    assert all(note.isprintable() for note in found.notes)


def test_hard_links_are_ordinary_files(model: Path) -> None:
    os.link(model / UNET, model.parent / "elsewhere.safetensors")
    os.link(model / "unet/config.json", model / "unet/again.json")
    inspect(model)


def test_links_are_a_line_a_kind_with_the_command_that_helps(model: Path) -> None:
    for i in range(12):
        os.symlink("/etc/passwd", model / f"unet/{i:02}.txt")
    os.symlink("nowhere", model / "vae/gone")
    with pytest.raises(RefusedError) as caught:
        inspect(model)
    first, second = caught.value.reasons
    assert first.startswith("12 links lead out of the directory, the first is unet/00.txt → /etc/passwd; get the model without links: ")
    assert second.startswith("vae/gone is a link that leads nowhere → nowhere; ")
    assert all("`hf download ID --local-dir DIR`" in reason for reason in caught.value.reasons)


@pytest.mark.parametrize("path", [UNET, "tokenizer/vocab.json", "unet/diffusion_pytorch_model.bin"])
def test_a_pointer_of_git_lfs_is_called_one(path: str, model: Path) -> None:
    if path.endswith(".bin"):
        (model / UNET).unlink()
    put(model / path, b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 3438167540\n")
    with pytest.raises(BdauditError, match="git lfs pull") as caught:
        inspect(model, allow_pickle=True)
    assert caught.value.code == 3


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", [{"a": 1}, {}, ["a"], [], OrderedDict(a=1), (Path("a"),), Path], ids=repr)
def test_a_pickle_is_known_whatever_its_protocol(value: object, protocol: int) -> None:
    assert looks_pickled(pickle.dumps(value, protocol))


@pytest.mark.parametrize(
    "text",
    [
        "{}", "[]", "[1]", '["c", "i"]', '{\n  "a": [\n  1\n]}', "(described below)\n", "(l", "in\nthe\nis\n", "#version: 0.2\ni n\n",
        "in g\nc at\n", "( c\ni n\n", "null", "{%- if a %}\n", ") a\n", "] )\n",
    ],
)  # fmt: skip
def test_text_is_no_pickle(text: str) -> None:
    assert not looks_pickled(text.encode())
