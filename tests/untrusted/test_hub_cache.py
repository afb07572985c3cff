"""An id is looked up in the cache of this machine; a revision is compared with names; what a download lacks is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from bdaudit.errors import BdauditError, RefusedError, UsageError
from bdaudit.untrusted import hub_cache
from bdaudit.untrusted.hub_cache import cache_root, download_of, find, split_id
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.tree import Reader
from tests.untrusted import tiny
from tests.untrusted.cached import COMMIT, empty_hub, lay_out, relink
from tests.untrusted.edits import UNET
from tests.untrusted.hostile_cache import NO_REFS, REFS

OTHER = "f" * 40
VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_hub(tmp_path, monkeypatch)


@pytest.fixture
def snapshot(hub: Path, tmp_path: Path) -> Path:
    return lay_out(tiny.write_model(tmp_path / "model"), hub)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"XDG_CACHE_HOME": "/x"},
        {"HF_HOME": "/h", "XDG_CACHE_HOME": "/x"},
        {"HF_HOME": "~/h"},
        {"HF_HOME": "$HOME/h"},
        {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/h"},
        {"HF_HUB_CACHE": "$HOME/c", "HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/h"},
        {"HF_HUB_CACHE": "~/c"},
        {"XDG_CACHE_HOME": ""},
    ],
)
def test_the_cache_is_where_huggingface_hub_has_it(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | given
    code = "from huggingface_hub.constants import HF_HUB_CACHE; print(HF_HUB_CACHE)"
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout.strip()
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert str(cache_root()) == told


def test_an_id_is_its_snapshot(snapshot: Path) -> None:
    for text in ("org/name", "org/name@main", f"org/name@{COMMIT}"):
        assert find(text, "MODEL") == snapshot
    assert Path(snapshot_download("org/name", local_files_only=True, cache_dir=snapshot.parents[2])) == snapshot


def test_an_id_of_one_name(snapshot: Path, hub: Path, tmp_path: Path) -> None:
    one = lay_out(tmp_path / "model", hub, "gpt2")
    assert find("gpt2", "MODEL") == one
    assert find("gpt", "MODEL") is None


def test_branches_tags_and_commits_are_told_apart(snapshot: Path, hub: Path, tmp_path: Path) -> None:
    other = lay_out(tmp_path / "model", hub, commit=OTHER, revision="v1.0/beta")
    third = lay_out(tmp_path / "model", hub, commit="e" * 40, revision="refs/pr/1")
    assert find("org/name@v1.0/beta", "MODEL") == find(f"org/name@{OTHER}", "MODEL") == other
    assert find("org/name@refs/pr/1", "MODEL") == third
    assert find("org/name", "MODEL") == snapshot


MISSING = ("mai", "Main", "main/", "main/x", "/main", "./main", "../refs/main", "..", "refs", "refs/pr", "main\n", "v2")


@pytest.mark.parametrize("revision", [*MISSING, COMMIT[:39], "0" * 40, COMMIT.upper()])
def test_a_revision_that_is_not_there(revision: str, snapshot: Path, hub: Path, tmp_path: Path) -> None:
    lay_out(tmp_path / "model", hub, commit=OTHER, revision="refs/pr/1")
    with pytest.raises(UsageError) as error:
        find(f"org/name@{revision}", "--before")
    assert str(error.value).startswith("--before org/name@")
    for said in ("no revision", COMMIT, OTHER, "hf download org/name --revision"):
        assert said in str(error.value)


def test_an_id_without_main(hub: Path, tmp_path: Path) -> None:
    lay_out(tiny.write_model(tmp_path / "model"), hub, revision="v1")
    with pytest.raises(UsageError, match="no revision main"):
        find("org/name", "MODEL")


NO_IDS = ("", "org/name@", "org/name/x", "/org/name", "./org/name", "../name", "org//name", "org/na--me", "org/..", "~/name", "a b")


@pytest.mark.parametrize("text", [*NO_IDS, "org\\name", "org/name\n"])
def test_what_is_no_id(text: str, snapshot: Path) -> None:
    assert split_id(text) == ("", "")
    assert find(text, "MODEL") is None


@pytest.mark.parametrize("text", ["org/other", "Org/name", "org/Name", "name", "org"])
def test_what_is_not_in_the_cache(text: str, snapshot: Path) -> None:
    assert find(text, "MODEL") is None


def test_a_folder_of_another_case_is_another_model(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that does not tell cases apart: the names that were listed decide."""
    honest = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest, **named: honest(str(path).replace("Org", "org"), *rest, **named))
    assert find("Org/name", "MODEL") is None
    with pytest.raises(UsageError, match="no revision MAIN"):
        find("org/name@MAIN", "MODEL")


@pytest.mark.parametrize("text", ["org/name", "org/name@main", "gpt2"])
def test_a_path_of_that_name(text: str, snapshot: Path, hub: Path, tmp_path: Path) -> None:
    lay_out(tmp_path / "model", hub, "gpt2")
    Path(text).parent.mkdir(exist_ok=True)
    os.symlink("nowhere", text)
    with pytest.raises(UsageError) as error:
        find(text, "MODEL")
    assert f"say which: ./{text}, or a folder in {hub}/models--" in str(error.value)


def test_no_cache_at_all(hub: Path) -> None:
    assert find("org/name", "MODEL") is None
    hub.rmdir()
    assert find("org/name", "MODEL") is None
    hub.write_text("no folder")
    assert find("org/name", "MODEL") is None


def test_a_cache_that_this_user_may_not_read_is_none(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert find("org/name", "MODEL") is None


@pytest.mark.parametrize("name", [name for name in REFS if name != "a commit that is not there"])
def test_a_damaged_ref(name: str, snapshot: Path, tmp_path: Path) -> None:
    REFS[name](snapshot, tmp_path / "outside")
    with pytest.raises(BdauditError, match="refs/main is damaged: expected 40") as error:
        find("org/name", "MODEL")
    assert type(error.value) is BdauditError
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", NO_REFS)
def test_a_link_in_the_cache_is_not_followed(name: str, snapshot: Path, tmp_path: Path) -> None:
    NO_REFS[name](snapshot, tmp_path / "outside")
    with pytest.raises(RefusedError):
        find("org/name", "MODEL")


def test_the_cache_itself_may_be_a_link(snapshot: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (hub.parent / "way").symlink_to(hub)
    monkeypatch.setenv("HF_HUB_CACHE", str(hub.parent / "way"))
    assert find("org/name", "MODEL") == snapshot


def test_a_ref_whose_snapshot_is_not_there(snapshot: Path) -> None:
    shutil.rmtree(snapshot)
    with pytest.raises(BdauditError, match=r"is not complete: main is commit .* `hf download org/name`") as error:
        find("org/name", "MODEL")
    assert type(error.value) is BdauditError


def test_the_command_names_the_revision() -> None:
    assert download_of("org/name") == "hf download org/name"
    assert download_of("org/name@a'b") == "hf download org/name --revision 'a'\"'\"'b'"


def test_too_many_names(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub_cache._MOST == 100_000
    monkeypatch.setattr(hub_cache, "_MOST", 2)
    with pytest.raises(BdauditError, match="holds more than 2"):
        find("org/name", "MODEL")


def gone(snapshot: Path, path: str) -> None:
    blob = snapshot.parent.parent / "blobs" / os.path.basename(os.readlink(snapshot / path))
    blob.unlink()


@pytest.mark.parametrize("path", [UNET, "vae/config.json", "tokenizer/vocab.json"])
def test_a_blob_that_is_not_there(path: str, snapshot: Path) -> None:
    gone(snapshot, path)
    with pytest.raises(BdauditError) as error:
        inspect(snapshot)
    assert type(error.value) is BdauditError
    assert f"the download of org/name is not complete, not there: {path}; run `hf download org/name --revision {COMMIT}`" in str(
        error.value
    )


def test_no_index(snapshot: Path) -> None:
    gone(snapshot, "model_index.json")
    (snapshot.parents[1] / "blobs/0.ab.incomplete").touch()
    with pytest.raises(UsageError, match=r"no model_index.json; .*not there: model_index.json; 1 file begun and not finished"):
        inspect(snapshot)


def test_a_part_that_was_not_downloaded(snapshot: Path) -> None:
    shutil.rmtree(snapshot / "vae")
    (snapshot.parents[1] / "blobs" / f"{'1' * 64}.0a0a0a0a.incomplete").touch()
    (snapshot.parents[1] / "blobs" / f"{'2' * 64}.incomplete").touch()
    with pytest.raises(BdauditError, match=r"not there: vae/ of model_index.json; 2 files begun and not finished"):
        inspect(snapshot)


def test_shards_that_were_not_downloaded(hub: Path, tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "model")
    index = {"metadata": {}, "weight_map": {name: f"part-{i % 9}.safetensors" for i, name in enumerate(tiny.unet_shapes())}}
    (model / UNET).unlink()
    tiny.write_json(model / f"{UNET}.index.json", index)
    with pytest.raises(BdauditError, match=r"not there: unet/part-0.safetensors, .* and 4 more; run `hf download"):
        inspect(lay_out(model, hub))
    with pytest.raises(BdauditError) as plain:
        inspect(model)
    assert "download" not in str(plain.value)


def test_indexes_without_end_are_not_all_read(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.write_model(tmp_path / "model")
    for i in range(200):
        tiny.write_json(model / f"extra/{i}.index.json", {"weight_map": {"a": "b.safetensors"}})
    snapshot = lay_out(model, hub)
    read: list[str] = []
    honest = Reader.json
    monkeypatch.setattr(Reader, "json", lambda self, path, *limits: read.append(path) or honest(self, path, *limits))
    assert any("not there: extra/b.safetensors" in note for note in inspect(snapshot).notes)
    assert sum(path.startswith("extra/") for path in read) < 200


def test_what_a_whole_model_lacks_beside_it_is_noted(hub: Path, tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "model")
    tiny.write_json(model / "model_index.json", tiny.INDEX | {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]})
    snapshot = lay_out(model, hub)
    said = "the download of org/name is not complete, not there: safety_checker/ of model_index.json"
    assert any(note.startswith(said) for note in inspect(snapshot).notes)
    assert not any("download" in note for note in inspect(model).notes)


def test_another_model_s_troubles_are_told_as_they_are(snapshot: Path) -> None:
    config = json.loads((snapshot / "vae/config.json").read_text()) | {"latent_channels": 5}
    content = json.dumps(config).encode()
    from huggingface_hub.utils.sha import git_hash

    (snapshot.parents[1] / "blobs" / git_hash(content)).write_bytes(content)
    relink(snapshot / "vae/config.json", f"../../../blobs/{git_hash(content)}")
    with pytest.raises(BdauditError) as error:
        inspect(snapshot)
    assert "download" not in str(error.value)
