"""A snapshot of the hub's cache is the model that it is; a link that the cache does not make is never followed."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import file_download
from huggingface_hub.utils import validate_repo_id
from huggingface_hub.utils.sha import git_hash
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from bdaudit.errors import BdauditError, RefusedError
from bdaudit.models.tokenizer import open_tokenizer
from bdaudit.untrusted.hub_snapshot import Digest, folder_name, home_of, link_above, model_id, place_of, snapshot_of
from bdaudit.untrusted.inspect import inspect, verify_unchanged
from bdaudit.untrusted.tree import Reader, walk
from tests.untrusted import tiny
from tests.untrusted.cached import COMMIT, lay_out, relink
from tests.untrusted.edits import TEXT, UNET
from tests.untrusted.hostile_cache import FOLDERS, LINKS, NO_FILES, STORE, blob, flip, move, shared, two_hops


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "model")


@pytest.fixture
def snapshot(model: Path, tmp_path: Path) -> Path:
    return lay_out(model, tmp_path / "hub")


def test_a_snapshot_is_the_model_that_a_plain_directory_is(model: Path, snapshot: Path) -> None:
    plain, cached = inspect(model), inspect(snapshot)
    assert (cached.files, cached.digest, cached.tensors) == (plain.files, plain.digest, plain.tensors)
    assert cached.snapshot
    assert (cached.snapshot.model_id, cached.snapshot.commit) == ("org/name", COMMIT)
    assert plain.snapshot is None
    verify_unchanged(cached)


def test_both_kinds_of_blobs_are_in_it(snapshot: Path) -> None:
    assert {len(path.name) for path in (snapshot.parent.parent / "blobs").iterdir()} == {40, 64}


def test_a_model_in_a_folder_of_a_snapshot(model: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(model, whole / "fp32/diffusers")
    cached = lay_out(whole, tmp_path / "hub") / "fp32/diffusers"
    assert inspect(cached).digest == inspect(model).digest


def test_the_way_to_the_cache_may_be_a_link(snapshot: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(tmp_path / "hub")
    (tmp_path / "mine").symlink_to(snapshot)
    for way in (tmp_path / "elsewhere" / snapshot.relative_to(tmp_path / "hub"), tmp_path / "mine"):
        assert inspect(way).snapshot == inspect(snapshot).snapshot


def test_a_file_that_is_no_link_is_read_as_in_any_directory(snapshot: Path) -> None:
    content = (snapshot / "vae/config.json").read_bytes()
    (snapshot / "vae/config.json").unlink()
    (snapshot / "vae/config.json").write_bytes(content)
    assert inspect(snapshot).digest


def test_a_blob_in_the_store_that_repositories_share(model: Path, snapshot: Path) -> None:
    shared(snapshot)
    found = inspect(snapshot)
    assert (found.files, found.digest, found.tensors) == (inspect(model).files, inspect(model).digest, inspect(model).tensors)
    verify_unchanged(found)


def test_the_shared_store_is_laid_out_as_huggingface_hub_does() -> None:
    from huggingface_hub.utils import _shared_blobs

    assert (
        os.path.relpath(_shared_blobs.shared_blob_path("/hub", "ab" * 32), "/hub/models--org--name/blobs") == f"../../blobs/ab/{'ab' * 32}"
    )


def test_content_of_the_shared_store_is_its_name_in_the_repository(snapshot: Path) -> None:
    shared(snapshot, flip)
    with pytest.raises(BdauditError, match="is not what its name in the cache says"):
        inspect(snapshot)


def test_a_blob_of_gits_digest_is_never_shared(snapshot: Path) -> None:
    target = next(path for path in (snapshot.parents[1] / "blobs").iterdir() if len(path.name) == 40)
    (snapshot.parents[2] / "blobs/ab").mkdir(parents=True)
    move(target, snapshot.parents[2] / "blobs/ab" / ("ab" * 32))
    target.symlink_to(f"../../blobs/ab/{'ab' * 32}")
    with pytest.raises(RefusedError, match="to another link"):
        inspect(snapshot)


NOT_FOLLOWED = {
    f"{kind}: {name}": edit
    for kind, edits in {"links": LINKS, "store": STORE, "blobs": NO_FILES, "folders": {n: FOLDERS[n] for n in ("blobs", "a part")}}.items()
    for name, edit in edits.items()
}


@pytest.mark.parametrize("name", NOT_FOLLOWED)
def test_what_the_cache_does_not_make_is_refused(name: str, snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    os.makedirs(tmp_path / "hub/models--org--other/blobs")
    NOT_FOLLOWED[name](snapshot, outside)
    opened: list[object] = []
    honest = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest, **named: opened.append(path) or honest(path, *rest, **named))
    with pytest.raises(RefusedError) as error:
        inspect(snapshot)
    assert not any("outside" in str(path) for path in opened)
    told = str(error.value)
    if name == "folders: blobs":
        assert "blobs is a link, and a folder of the cache is none" in told
        return
    assert any(f"{path} is a link that leads" in told for path in (UNET, "unet", "tokenizer/vocab.json", "model_index.json"))
    assert len(told) < 260
    assert f"`hf download org/name --revision {COMMIT} --local-dir DIR`" in told


def test_a_blob_is_opened_without_following_a_link(snapshot: Path) -> None:
    found, target = snapshot_of(snapshot), blob(snapshot, UNET)
    assert found
    os.close(found.open_blob(target.name)[0])
    two_hops(snapshot, snapshot)
    assert found.look(UNET, os.readlink(snapshot / UNET))[1] == "to another link"
    with pytest.raises(OSError, match="symbolic links"):
        found.open_blob(target.name)
    FOLDERS["blobs"](snapshot, snapshot.parents[3] / "outside")
    assert found.look(UNET, os.readlink(snapshot / UNET))[1] == "to blobs, which is no folder"
    with pytest.raises(OSError, match="Not a directory"):
        found.open_blob(target.name)


PIECES = ("../", "..", "./", "/", "blobs", "blobs/", "models--org--name/", "snapshots/", COMMIT, "ab" * 32, "AB" * 32, "\n", "é")


@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join), st.sampled_from(["a", "unet/a", "a/b/c"]))
def test_what_a_link_is_followed_to_lies_in_blobs(text: str, path: str) -> None:
    repository = Path("/hub/models--org--name")
    found = snapshot_of(repository / "snapshots" / COMMIT)
    assert found
    name = found.blob(path, text)
    meant = os.path.normpath(repository / "snapshots" / COMMIT / os.path.dirname(path) / text)
    assert not name or meant == str(repository / "blobs" / name)
    assert found.blob(path, os.path.relpath(repository / "blobs" / COMMIT, repository / "snapshots" / COMMIT / os.path.dirname(path)))


def test_blobs_that_cannot_be_read_are_an_error(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*path: object, **named: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("bdaudit.untrusted.hub_snapshot.opened_folder", refuse)
    with pytest.raises(BdauditError, match="Permission denied") as error:
        walk(snapshot)
    assert type(error.value) is BdauditError


NO_REPOSITORIES = ("models--a--b--c", "models--", "models----", "Models--a--b", "datasets--a--b", "models--a-", "models--a--b.git")


@pytest.mark.parametrize("name", NO_REPOSITORIES)
def test_a_folder_that_no_id_has_is_no_repository(name: str, snapshot: Path) -> None:
    repository = move(snapshot.parent.parent, snapshot.parents[2] / name)
    with pytest.raises(RefusedError, match=r"leads? out of the directory"):
        inspect(repository / "snapshots" / COMMIT)


@pytest.mark.parametrize("commit", ["main", COMMIT.upper(), COMMIT[:-1], COMMIT + "0", COMMIT[:-1] + "\n"])
def test_a_folder_that_is_no_commit_is_no_snapshot(commit: str, snapshot: Path) -> None:
    with pytest.raises(RefusedError, match=r"leads? out of the directory"):
        inspect(move(snapshot, snapshot.with_name(commit)))


@pytest.mark.parametrize("place", ["", "snapshots", f"snapshots/{COMMIT}"])
def test_a_link_in_place_of_a_folder_of_the_cache(place: str, model: Path, snapshot: Path, tmp_path: Path) -> None:
    folder = snapshot.parent.parent / place
    move(folder, tmp_path / "moved")
    folder.symlink_to(model if place.endswith(COMMIT) else tmp_path / "moved")
    with pytest.raises(RefusedError, match="is a link, and a folder of the cache is none"):
        inspect(snapshot)


@pytest.mark.parametrize("path", [UNET, TEXT, "tokenizer/merges.txt", "model_index.json"])
def test_content_that_is_not_its_name(path: str, snapshot: Path) -> None:
    target = blob(snapshot, path)
    flip(target)
    with pytest.raises(BdauditError) as error:
        inspect(snapshot)
    assert type(error.value) is BdauditError
    content = target.read_bytes()
    got = hashlib.sha256(content).hexdigest() if len(target.name) == 64 else git_hash(content)
    kind = "SHA-256" if len(target.name) == 64 else "git's SHA-1"
    for said in (path, f"{kind} is {got[:16]}…, expected {target.name[:16]}…", f"--revision {COMMIT} --force-download`"):
        assert said in str(error.value)


def test_two_blobs_exchanged(snapshot: Path) -> None:
    one, other = os.readlink(snapshot / UNET), blob(snapshot, TEXT)
    content = blob(snapshot, UNET).read_bytes()
    blob(snapshot, UNET).write_bytes(other.read_bytes())
    other.write_bytes(content)
    with pytest.raises(BdauditError, match="is not what its name"):
        inspect(snapshot)
    assert os.readlink(snapshot / UNET) == one


def test_weights_that_git_stores_are_told_by_its_sha1(model: Path, snapshot: Path) -> None:
    content = (model / UNET).read_bytes()
    target = snapshot.parent.parent / "blobs" / git_hash(content)
    target.write_bytes(content)
    relink(snapshot / UNET, f"../../../blobs/{target.name}")
    assert inspect(snapshot).digest == inspect(model).digest
    flip(target)
    with pytest.raises(BdauditError, match="git's SHA-1"):
        inspect(snapshot)


def test_weights_beside_the_audited_ones_are_their_name_too(model: Path, tmp_path: Path) -> None:
    half = UNET.replace(".safetensors", ".fp16.safetensors")
    save_file({name: tensor.astype(np.float16) for name, tensor in load_file(model / UNET).items()}, model / half)
    cached = lay_out(model, tmp_path / "hub")
    assert inspect(cached).determined == (half,)
    flip(blob(cached, half))
    with pytest.raises(BdauditError, match=r"fp16.*is not what its name"):
        inspect(cached)


def test_the_tokenizer_alone_is_checked_as_well(snapshot: Path) -> None:
    assert open_tokenizer(snapshot)
    flip(blob(snapshot, "tokenizer/vocab.json"))
    with pytest.raises(BdauditError, match=r"vocab\.json is not what its name"):
        open_tokenizer(snapshot)


def test_a_blob_written_to_while_the_model_is_loaded(snapshot: Path) -> None:
    found = inspect(snapshot)
    flip(blob(snapshot, UNET))
    with pytest.raises(BdauditError, match=UNET):
        verify_unchanged(found)


def test_a_link_turned_while_the_model_is_loaded(model: Path, snapshot: Path) -> None:
    found = inspect(snapshot)
    content = (model / UNET).read_bytes()
    other = snapshot.parent.parent / "blobs" / hashlib.sha256(content[:-4] + bytes(4)).hexdigest()
    other.write_bytes(content[:-4] + bytes(4))
    relink(snapshot / UNET, f"../../../blobs/{other.name}")
    with pytest.raises(BdauditError, match=f"{UNET} changed while"):
        verify_unchanged(found)
    relink(snapshot / UNET, str(model / UNET))
    with pytest.raises(RefusedError):
        verify_unchanged(found)


def test_a_link_turned_after_the_walk_is_not_followed(snapshot: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    reader = Reader(snapshot, walk(snapshot).files)
    relink(snapshot / "vae/config.json", str(outside))
    with pytest.raises(RefusedError, match="has become a link"):
        reader.json("vae/config.json")
    blob_path = blob(snapshot, "unet/config.json")
    blob_path.unlink()
    blob_path.symlink_to(outside)
    with pytest.raises(BdauditError):
        reader.json("unet/config.json")


def test_a_link_outside_the_loaded_parts_is_noted_and_not_followed(snapshot: Path) -> None:
    (snapshot / "NOTES").symlink_to("/etc/passwd")
    assert "links that are not followed: NOTES" in inspect(snapshot).notes


def test_files_are_hashed_once(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    honest = Digest.update
    monkeypatch.setattr(Digest, "update", lambda self, data: taken.append(len(data)) or honest(self, data))
    inspect(snapshot)
    weights = sum((snapshot / path).stat().st_size for path in (UNET, TEXT, "vae/diffusion_pytorch_model.safetensors"))
    small = sum(path.stat().st_size for path in snapshot.rglob("*") if path.is_file()) - weights
    assert weights <= sum(taken) <= weights + 3 * small


def names() -> list[str]:
    plain = ["a", "0", "_", "a-b", "a.b", "a_b", "a-.b", "A" * 96]
    odd = ["", "-a", "a-", ".a", "a.", "a--b", "a..b", "a b", "ä", "a\n", "a@b", "A" * 97, "a.git", "٣"]
    return [*plain, *odd, *(f"{one}/{two}" for one in ("org", "-x", "x--y", "") for two in (*plain, *odd)), "a/b/c"]


@pytest.mark.parametrize("name", names())
def test_ids_are_those_that_huggingface_hub_takes(name: str) -> None:
    try:
        validate_repo_id(name)
        taken = True
    except ValueError:
        taken = False
    assert bool(model_id(name.split("/"))) == taken
    if taken:
        folder = file_download.repo_folder_name(repo_id=name, repo_type="model")
        assert folder == folder_name(name)
        found = snapshot_of(Path("/c") / folder / "snapshots" / COMMIT)
        assert found
        assert found.model_id == name


def test_the_innermost_repository_counts() -> None:
    found = snapshot_of(Path(f"/c/models--a--b/snapshots/{COMMIT}/models--c/snapshots/{'1' * 40}/sub"))
    assert found
    assert (found.model_id, found.commit, found.depth) == ("c", "1" * 40, 3)


def test_what_is_never_written_is_the_whole_repository(model: Path, snapshot: Path) -> None:
    assert home_of(snapshot) == home_of(snapshot / "unet") == snapshot.parent.parent
    assert home_of(model) == model
    assert link_above(model) is link_above(snapshot) is None


def test_what_is_made_of_a_file_goes_beside_it_and_of_a_snapshots_file_here(model: Path, snapshot: Path) -> None:
    file, cached = model / "model_index.json", snapshot / "model_index.json"
    assert place_of(file) == model / "model_index"
    assert place_of(cached) == Path("model_index")
    assert home_of(file) == file.resolve()
    assert home_of(cached) == snapshot.parent.parent
