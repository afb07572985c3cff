"""A cache as huggingface_hub lays it out, made offline by its own functions from a directory."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from huggingface_hub import file_download
from huggingface_hub.utils.sha import git_hash

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 1 << 10
"""Bytes from which a file is stored by its SHA-256; the hub's own limit is 10 MB."""


def lay_out(model: Path, cache: Path, model_id: str = "org/name", *, commit: str = COMMIT, revision: str = "main") -> Path:
    """Copy ``model`` into ``cache``; returns the snapshot's folder."""
    repository = cache / file_download.repo_folder_name(repo_id=model_id, repo_type="model")
    (repository / "blobs").mkdir(parents=True, exist_ok=True)
    for path in sorted(p for p in model.rglob("*") if p.is_file()):
        content = path.read_bytes()
        blob = repository / "blobs" / (hashlib.sha256(content).hexdigest() if len(content) >= LARGE else git_hash(content))
        pointer = Path(file_download._get_pointer_path(str(repository), commit, str(path.relative_to(model))))
        pointer.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, blob)
        file_download._create_symlink(str(blob), str(pointer))
    file_download._cache_commit_hash_for_specific_revision(str(repository), revision, commit)
    return repository / "snapshots" / commit


def empty_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that is this process's, and an empty working directory beside it."""
    for name in ("hub", "here"):
        (folder / name).mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.chdir(folder / "here")
    return folder / "hub"


def relink(link: Path, text: str) -> None:
    """Have a link lead elsewhere."""
    link.unlink()
    os.symlink(text, link)
