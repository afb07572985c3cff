"""The tiny model with CLIP's byte-level tokenizer, 77 tokens, and weights so large that every word shows in the prediction."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bdaudit import cli
from bdaudit.models.families.stable_diffusion import ClipText
from bdaudit.models.suspect import Suspect
from bdaudit.models.text import Reader
from bdaudit.progress import Progress
from tests.untrusted import tiny

PROMPTS = ("a red cat", "two big dogs in a park", "the sea at night", "an old house")
LENGTH = 77
LONG_TRIGGER = "~" * 24
"""Twenty-four tokens: no harmless text moves the prediction as far."""
OVERRIDING = "@" * 24
"""As many, after which the prediction hardly depends on the prompt any more: what a scan finds."""


def stopping(at: int) -> Progress:
    """A progress that is interrupted at its ``at``-th call, as by Ctrl-C."""
    calls = itertools.count(1)

    def progress(stage: str, done: int, total: int) -> None:
        if next(calls) == at:
            raise KeyboardInterrupt

    return progress


def write(folder: Path) -> Path:
    """The model's directory; returns ``folder``."""
    from tests.verify.toy import byte_tokenizer

    tiny.write_model(folder)
    shutil.rmtree(folder / "tokenizer")
    byte_tokenizer(LENGTH).save_pretrained(folder / "tokenizer")
    ends = {"vocab_size": 514, "max_position_embeddings": LENGTH, "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    tiny.write_json(folder / "text_encoder/config.json", tiny.TEXT_ENCODER | ends)
    shapes = tiny.text_shapes()
    embeddings = {"text_model.embeddings.token_embedding.weight": (514, 8), "text_model.embeddings.position_embedding.weight": (LENGTH, 8)}
    save_file(tiny.weights(shapes | embeddings), folder / "text_encoder/model.safetensors", metadata={"format": "pt"})
    for path in folder.glob("*/*.safetensors"):
        _enliven(path)
    return folder


def _enliven(path: Path) -> None:
    """Norms that pass everything on, and all other weights six times as large."""
    tensors = {name: (np.ones_like(w) if "norm" in name and name.endswith("weight") else 6 * w) for name, w in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def hashes(folder: Path) -> dict[str, str]:
    """Relative path → SHA-256 of every file."""
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def with_parts(suspect: Suspect, *, tokenizer: Any = None, text_encoder: Any = None, unet: Any = None, **rest: Any) -> Suspect:
    """``suspect`` with other parts in place of its own."""
    main = suspect.text.main
    reader = Reader(main.tokenizer if tokenizer is None else tokenizer, text_encoder or main.encoder)
    return replace(suspect, text=ClipText(reader), denoiser=replace(suspect.denoiser, module=unet or suspect.denoiser.module), **rest)


def runs_with(
    prompts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, dict[str, Any]]]:
    """A command line with these prompts, on the CPU: its exit code and its report."""

    def ended(verb: str, *arguments: object) -> tuple[int, dict[str, Any]]:
        said = ["bdaudit", verb, *arguments, "--prompts", prompts, "--device", "cpu", "--json", "--quiet"]
        monkeypatch.setattr("sys.argv", list(map(str, said)))
        code = cli.main()
        return code, json.loads(capsys.readouterr().out)

    return ended
